"""Rows into an index and out of it: what ``ImageRetriever`` adds, removes, updates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import pandas as pd
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_medsiglip.retrieval._identity import (
    ImageEmbedder,
    check_image_embedder,
    check_width,
)
from sk_medsiglip.retrieval._incoming import (
    Collection,
    Embeddings,
    Images,
    batches,
    is_embeddings,
    replacements,
)
from sk_medsiglip.retrieval._index import About, Index
from sk_medsiglip.retrieval._rejected import (
    Rejected,
    rejected_table,
    warn_about_rejected,
)
from sk_medsiglip.retrieval._row_facts import (
    check_ids,
    check_metadata,
    check_sources,
    ids_as_list,
    refuse_known,
    refuse_unknown,
)

__all__ = ["Changes"]


class Changes(BaseEstimator):
    """Abstract: an estimator around an index whose rows come and go."""

    _index: Index
    n_samples_fit_: int
    rejected_: pd.DataFrame

    @abstractmethod
    def _new_embedder(self) -> ImageEmbedder:
        """Return what embeds images as the parameters say, not fitted."""

    def _any_embedder(self) -> ImageEmbedder:
        """Return what embedded the images, or what the parameters say."""
        return getattr(self, "embedder_", None) or self._new_embedder()

    def partial_fit(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        ids: ArrayLike | None = None,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        sources: ArrayLike | None = None,
    ) -> Self:
        """Add rows; the first ones build the index. See :meth:`fit` and :meth:`add`.

        Parameters
        ----------
        X, y, ids, metadata, sources
            As for :meth:`fit`.

        Returns
        -------
        self
        """
        write = self.add if hasattr(self, "_index") else self.fit
        return write(X, ids=ids, metadata=metadata, sources=sources)

    def add(
        self,
        X: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        sources: ArrayLike | None = None,
    ) -> Self:
        """Add rows to the index; after an error none of them is there.

        Parameters
        ----------
        X : array-like
            Images or embeddings, as for :meth:`fit`.
        ids : array-like, default=None
            Where ids are whole numbers, None counts on from the largest that was ever
            in the index; an id that was removed is not given to another row.
        metadata : DataFrame, default=None
            Columns that it lacks are missing in the new rows; it must have no others
            than the index.
        sources : array-like, default=None
            As for :meth:`fit`.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            If an id is there already, or twice, or a value is of another kind than
            its column's: names which.
        CheckpointError, ValueError
            If the vectors would be another model's, or images prepared otherwise.
        """
        check_is_fitted(self)
        self._index.begin_change()
        about = self._index.about
        collection, _ = self._read(X, about)
        n_rows, free = len(collection), self._index.next_free
        if ids is None and about.id_kind == "text":
            raise ValueError("the rows of this index have ids of text; pass ids=.")
        all_ids = check_ids(
            [*range(free.id, free.id + n_rows)] if ids is None else ids,
            n_rows,
            about.id_kind,
        )
        listed = all_ids.tolist()
        known = self._index.known(listed)
        if known.any():
            raise refuse_known(
                [one for one, is_there in zip(listed, known, strict=True) if is_there]
            )
        rejected: list[Rejected] = []
        self._index.append(
            batches(
                collection,
                ids=all_ids,
                metadata=check_metadata(metadata, X, n_rows),
                sources=check_sources(sources, n_rows),
                kinds=about.kinds,
                first_number=free.number,
                rejected=rejected,
            )
        )
        return self._report(rejected, n_rows)

    def remove(self, ids: Any) -> Self:
        """Take rows out.

        Searches no longer find them. On the disk they are erased by ``save``, or with
        ``index="lancedb"`` by ``optimize(keep_days=0)``.

        Parameters
        ----------
        ids : one id, or array-like of ids

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the index has not all of them: names which; nothing is removed.
        """
        check_is_fitted(self)
        self._index.begin_change()
        self._index.remove(self._known_ids(ids))
        self.n_samples_fit_ = len(self._index)
        return self

    def update(
        self,
        ids: Any,
        X: ArrayLike | None = None,
        *,
        metadata: pd.DataFrame | Mapping[str, Any] | None = None,
        sources: ArrayLike | None = None,
    ) -> Self:
        """Put other images, or other metadata, in the place of those of rows.

        Parameters
        ----------
        ids : one id, or array-like of ids
            Which rows.
        X : array-like, default=None
            Their new images or embeddings, in the order of ``ids``. None keeps the
            vectors. What cannot be read leaves its row as it was.
        metadata : DataFrame, default=None
            New values of the columns that it has; others stay.
        sources : array-like, default=None
            New sources.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the index has not all of the ids: names which; nothing is changed.

        Notes
        -----
        The new rows are in memory together before the first is put in place.
        """
        check_is_fitted(self)
        if X is None and metadata is None and sources is None:
            raise ValueError("nothing to update: pass X, metadata or sources.")
        self._index.begin_change()
        listed = self._known_ids(ids)
        collection = None if X is None else self._read(X, self._index.about)[0]
        if collection is not None and len(collection) != len(listed):
            raise ValueError(
                f"there are {len(listed)} ids and {len(collection)} images; each id "
                "needs one."
            )
        rejected: list[Rejected] = []
        self._index.replace(
            replacements(
                self._index,
                listed,
                collection,
                metadata=check_metadata(metadata, X, len(listed)),
                sources=check_sources(sources, len(listed)),
                rejected=rejected,
            )
        )
        return self._report(rejected, len(listed))

    def _read(
        self, X: Any, about: About | None
    ) -> tuple[Collection, ImageEmbedder | None]:
        """Return what ``X`` holds; raise if it does not belong into the index."""
        if is_embeddings(X):
            embeddings = Embeddings(X)
            if about is not None:
                check_width(embeddings.width, about)
                validate_data(self, X, skip_check_array=True, reset=False)
            return embeddings, None
        embedder = clone(self._any_embedder() if about else self._new_embedder()).fit(X)
        if about is not None:
            check_image_embedder(embedder, about)
        return Images(X, embedder), embedder

    def _report(self, rejected: list[Rejected], n_rows: int) -> Self:
        """Set what is said of the last change, and warn of what was kept out."""
        self.n_samples_fit_ = len(self._index)
        self.rejected_ = rejected_table(rejected)
        warn_about_rejected(rejected, n_rows)
        return self

    def _known_ids(self, ids: Any) -> list[Any]:
        listed = ids_as_list(ids, self._index.about.id_kind)
        known = self._index.known(listed)
        if not known.all():
            raise refuse_unknown(
                [one for one, there in zip(listed, known, strict=True) if not there]
            )
        return listed
