"""Indexes on disk: what ``ImageRetriever`` saves, opens, and keeps up to date."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any, Self

from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip.retrieval._exact_index import INDEX_FILE, ExactIndex
from sk_medsiglip.retrieval._identity import ImageEmbedder
from sk_medsiglip.retrieval._index import Index
from sk_medsiglip.retrieval._lance_index import LanceIndex
from sk_medsiglip.retrieval._lance_table import LanceSettings, is_lance
from sk_medsiglip.retrieval._rejected import rejected_table
from sk_medsiglip.retrieval._storage_options import StorageOptions

__all__ = ["Storing"]

#: Models that an index may name without being asked about.
_OURS = ("google/medsiglip-448", "demo")


class Storing(BaseEstimator):
    """Abstract: an estimator around an index that may be on disk."""

    uri: str | os.PathLike[str] | None
    storage_options: dict[str, str] | None
    storage: str
    ann: str
    nprobes: int | None
    ef: int | None
    refine_factor: int
    device: str
    _index: Index
    n_samples_fit_: int
    n_features_in_: int

    def refresh(self) -> Self:
        """See what other processes have stored since this one opened the index.

        Until then every search is of the rows that there were when it was opened.

        Returns
        -------
        self

        Raises
        ------
        SearchIndexError
            If rows of an exact index were changed here and not saved, and another
            process has saved it meanwhile: one of the two would be lost.
        """
        check_is_fitted(self)
        self._index.refresh()
        self.n_samples_fit_ = len(self._index)
        return self

    def optimize(self, *, keep_days: float = 7.0) -> Self:
        """Tidy up after many changes, and erase rows that were removed.

        Rows that were added since LanceDB's index was built are compared one by one
        until this is called, or until many additions have called it. Files are written
        anew without the rows that were removed or updated. ``index="exact"`` has
        nothing to tidy: :meth:`save` writes only the rows that are there.

        Parameters
        ----------
        keep_days : float, default=7.0
            Age from which earlier versions of a LanceDB table are erased, in days.
            Until then they hold the rows that were removed, and take as much space
            again as was rewritten; a process that opened one goes on searching in it.
            0 erases all of them at once: no other process may have the index open.

        Returns
        -------
        self
        """
        check_is_fitted(self)
        if not isinstance(keep_days, int | float) or not keep_days >= 0:
            raise ValueError(f"keep_days must be 0 or more days, got {keep_days!r}.")
        self._index.begin_change()
        self._index.optimize(keep_days)
        return self

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write an exact index into a folder; :meth:`load` opens it.

        The folder's old index stays whole until the new one is, whatever happens.
        From now on a pickle of this retriever holds the folder's name in the place of
        the rows, as long as none is added, removed or updated.

        Parameters
        ----------
        folder : str or path-like
            A new one, or one that holds an index, which is replaced.

        Raises
        ------
        ValueError
            If the index is LanceDB's, which is stored at its ``uri`` already.
        SearchIndexError
            If another process has saved this index since it was opened here.
        OSError
            If it cannot be written, or holds other things.
        """
        check_is_fitted(self)
        if not isinstance(self._index, ExactIndex):
            raise ValueError(
                f"this index is stored already: ImageRetriever.load({self.uri!r}) "
                "opens it."
            )
        self._index.save(folder)

    @classmethod
    def load(
        cls,
        location: str | os.PathLike[str],
        *,
        embedder: ImageEmbedder | None = None,
        **params: Any,
    ) -> Self:
        """Open a stored index; its vectors are read from the disk as they are used.

        Parameters
        ----------
        location : str or path-like
            A folder that :meth:`save` wrote, or the ``uri`` of ``index="lancedb"``.
        embedder : MedSigLIPEmbedder, MedSigLIPVolumeEmbedder or None, default=None
            What embeds images that are asked with or added. None is one with default
            settings, of the model of the index. Text needs none.
        **params
            Other parameters of the retriever: ``metric``, ``device``, ``cache``,
            ``storage_options``. ``model`` may say where the same weights lie on this
            machine.

        Returns
        -------
        ImageRetriever

        Raises
        ------
        SearchIndexError
            If there is no index, or it is damaged, or of a newer version.

        Warns
        -----
        UserWarning
            If the index, not the caller, says which model is loaded to encode words,
            and it is neither the default nor the demonstration.
        """
        name = os.fspath(location)
        in_files = (Path(name) / INDEX_FILE).exists() or is_lance(name) is False
        kind = {"index": "exact"} if in_files else {"index": "lancedb", "uri": location}
        retriever = cls(embedder=embedder, **{**kind, **params})
        retriever._validate_params()
        index: Index
        if in_files:
            index = ExactIndex.load(location, retriever.device)
        else:
            index = LanceIndex.load(retriever._lance_settings())
        about = index.about
        known = {"model": about.model, "revision": about.revision}
        retriever.set_params(storage=index.storage, **{**known, **params})
        if about.model not in _OURS and "model" not in params and embedder is None:
            warnings.warn(
                f"the index in {name!r} names the model {about.model!r}, which a "
                "search by words would load. If you trust both, pass model=.",
                UserWarning,
                stacklevel=2,
            )
        retriever._index = index
        retriever.n_features_in_ = about.width
        retriever.n_samples_fit_ = len(index)
        retriever.rejected_ = rejected_table([])
        return retriever

    def _lance_settings(self) -> LanceSettings:
        if self.uri is None:
            raise ValueError(
                'index="lancedb" needs a place for its rows: uri="folder", or '
                'uri="s3://bucket/name".'
            )
        uri = os.fspath(self.uri)
        if uri.startswith("db://"):
            raise ValueError(
                f"uri={uri!r} is a place in LanceDB's cloud, which is not supported. "
                "Name a folder, or an object store: s3://bucket/name."
            )
        return LanceSettings(
            uri if "://" in uri else os.path.abspath(os.path.expanduser(uri)),
            StorageOptions.around(self.storage_options),
            storage=self.storage,
            ann=self.ann,
            nprobes=self.nprobes,
            ef=self.ef,
            refine_factor=self.refine_factor,
        )

    def __setattr__(self, name: str, value: Any) -> None:
        # However it comes, by __init__ or set_params: it shows no secret.
        if name == "storage_options":
            value = StorageOptions.around(value)
        super().__setattr__(name, value)
