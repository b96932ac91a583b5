"""``RetrievalDisplay``: the results of a search as a grid of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._axes import draw_grid
from sk_medsiglip._drawn_names import drawn
from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image, read_study
from sk_medsiglip.retrieval._queries import Query
from sk_medsiglip.retrieval._retriever import ImageRetriever

_WORDS = 26  # number of characters that fit above a picture


class RetrievalDisplay:
    """Pictures of the results of a search, with rank, score and label.

    Nothing is written to a file. The figure may show images of patients; protect it as
    you protect the images.

    Parameters
    ----------
    hits : DataFrame
        Results of :meth:`ImageRetriever.search` for one query.
    pictures : list of ndarray of shape (H, W, 3) or None
        A picture for each row of ``hits``; None if it cannot be shown.
    query : str, default=None
        Title of the figure, such as the words of the query.
    asked : ndarray of shape (H, W, 3), default=None
        Image of the query, drawn first.
    label : str, default=None
        Column of ``hits`` to print under the score.

    Attributes
    ----------
    ax_, figure_
        Axes and figure of matplotlib.
    axes_ : list of matplotlib Axes
        Axes of each picture, that of ``asked`` first if there is one.

    See Also
    --------
    ImageRetriever.search : The results as a table.

    Examples
    --------
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.retrieval import ImageRetriever, RetrievalDisplay
    >>> phantoms = make_chest_phantoms(60, random_state=0)
    >>> effusion = phantoms.target[:, phantoms.target_names.index("effusion")]
    >>> retriever = ImageRetriever(model="demo").fit(
    ...     list(phantoms.images), metadata={"effusion": effusion})
    >>> display = RetrievalDisplay.from_retriever(
    ...     retriever, "a large pleural effusion", n=4, images=phantoms.images,
    ...     label="effusion")
    >>> len(display.axes_), display.hits["effusion"].tolist()
    (4, [1, 1, 1, 1])
    """

    def __init__(
        self,
        hits: pd.DataFrame,
        pictures: list[NDArray[Any] | None],
        *,
        query: str | None = None,
        asked: NDArray[Any] | None = None,
        label: str | None = None,
    ) -> None:
        self.hits = hits
        self.pictures = pictures
        self.query = query
        self.asked = asked
        self.label = label

    @classmethod
    def from_retriever(
        cls,
        retriever: ImageRetriever,
        query: Any,
        *,
        n: int = 10,
        images: Any = None,
        label: str | None = None,
        ax: Any = None,
        **params: Any,
    ) -> Self:
        """Search, read the pictures that were found, and draw them.

        Parameters
        ----------
        retriever : ImageRetriever
            Fitted retriever.
        query : str, Query or image
            One query, as :meth:`ImageRetriever.search` takes it.
        n : int, default=10
            Number of results.
        images : sequence, mapping or callable, default=None
            Images by id: a sequence with ids as positions, a mapping with ids as keys,
            or a function of an id. By default, the ``source`` of each row is opened.
        label : str, default=None
            Column of the metadata to print under the score.
        ax : matplotlib Axes, default=None
            Axes to draw into. By default, a new figure is made.
        **params
            Options of :meth:`ImageRetriever.search`: ``where``, ``deduplicate``,
            ``diversity``.

        Returns
        -------
        RetrievalDisplay

        Raises
        ------
        ValueError
            If there are several queries, or ``label`` is not a column.
        """
        hits = retriever.search(query, n, **params)
        if "query" in hits:
            raise ValueError("a display shows the results of one query; pass one.")
        embedder = getattr(retriever, "embedder_", None) or retriever.embedder
        image = _image_of(query)
        words = query if isinstance(query, str) else None
        return cls.from_hits(
            hits,
            images=images,
            embedder=embedder,
            query=repr(query) if isinstance(query, Query) else words,
            asked=None if image is None else _read(image, embedder),
            label=label,
            ax=ax,
        )

    @classmethod
    def from_hits(
        cls,
        hits: pd.DataFrame,
        *,
        images: Any = None,
        embedder: MedSigLIPEmbedder | MedSigLIPVolumeEmbedder | None = None,
        query: str | None = None,
        asked: NDArray[Any] | None = None,
        label: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Read the pictures that a search found, and draw them.

        Parameters
        ----------
        hits : DataFrame
            Results of one query.
        images
            As for :meth:`from_retriever`.
        embedder : MedSigLIPEmbedder or MedSigLIPVolumeEmbedder, default=None
            Embedder whose settings are used to read images: the same window and frame,
            and the middle slice of a study. By default, ``intensity="auto"``.
        query, asked, label, ax
            As in the class and :meth:`from_retriever`.

        Returns
        -------
        RetrievalDisplay
        """
        if label is not None and label not in hits:
            raise ValueError(
                f"label={label!r} is not a column; there are {list(hits.columns)}."
            )
        pictures = [
            _picture(_source(row, images), embedder) for row in hits.itertuples()
        ]
        return cls(hits, pictures, query=query, asked=asked, label=label).plot(ax)

    def plot(self, ax: Any = None, *, n_columns: int = 5) -> Self:
        """Draw the pictures.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw the grid into. By default, a new figure is made.
        n_columns : int, default=5
            Number of pictures in a row.

        Returns
        -------
        RetrievalDisplay

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        """
        tiles: list[tuple[NDArray[Any] | None, str]] = []
        if self.asked is not None:
            tiles.append((self.asked, "asked with"))
        captions = map(self._caption, self.hits.to_dict("records"))
        tiles += zip(self.pictures, captions, strict=True)
        self.ax_, self.axes_ = draw_grid(
            ax, tiles, n_columns, purpose="Drawing the results", title=self.query
        )
        self.figure_ = self.ax_.figure
        return self

    def _caption(self, row: dict[str, Any]) -> str:
        lines = [f"{row['rank']}. score {row['score']:.3f}"]
        lines.append(drawn(f"id {row['id']}", _WORDS))
        if self.label is not None:
            lines.append(drawn(f"{self.label}: {row[self.label]}", _WORDS))
        return "\n".join(lines)


def _source(row: Any, images: Any) -> Any:
    """Return the image to open for a row of the results."""
    if images is None:
        return None if pd.isna(row.source) else row.source
    if isinstance(images, Callable):  # type: ignore[arg-type]
        return images(row.id)
    if isinstance(images, Mapping):
        return images.get(row.id)
    if not isinstance(row.id, int | np.integer):
        raise ValueError(
            f"images is a sequence, and the id {row.id!r} is not a place in it: pass "
            "{id: image}, or a function of an id."
        )
    return images[row.id]


def _picture(source: Any, embedder: Any) -> NDArray[np.uint8] | None:
    """Read a picture; return None if it cannot be read any more."""
    try:
        return None if source is None else _read(source, embedder)
    except ImageReadError:
        return None


def _read(source: Any, embedder: Any) -> NDArray[np.uint8]:
    """Read a picture as the embedder would, of a study the middle slice."""
    if isinstance(embedder, MedSigLIPVolumeEmbedder):
        inner = embedder.embedder
        (middle,) = read_study(
            source,
            n_slices=1,
            intensity=inner.intensity,
            plane=embedder.plane,
            series=embedder.series,
            max_pixels=inner.max_pixels,
        )
        return middle
    names = ("intensity", "frame", "max_pixels") if embedder is not None else ()
    return read_image(source, **{name: getattr(embedder, name) for name in names})


def _image_of(query: Any) -> Any:
    """Return the first image of a query, or None."""
    if isinstance(query, Query):
        images = [term.value for term in query.terms if term.kind == "image"]
        return images[0] if images else None
    if isinstance(query, str) or (isinstance(query, np.ndarray) and query.ndim == 1):
        return None
    return query
