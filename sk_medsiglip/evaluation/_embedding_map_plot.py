"""``EmbeddingMapDisplay``: the two principal components of embeddings."""

from __future__ import annotations

import os
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length

from sk_medsiglip._axes import new_axes
from sk_medsiglip._drawn_names import drawn, drawn_lines
from sk_medsiglip._files import new_file
from sk_medsiglip._page import photograph, render_page
from sk_medsiglip.embedding import plain_rows
from sk_medsiglip.evaluation import _style as style
from sk_medsiglip.evaluation._embedding_map import (
    groups_of,
    map_on_page,
    two_components,
)
from sk_medsiglip.images import image_rows, read_image


@dataclass(eq=False, repr=False)
class EmbeddingMapDisplay:
    """Map of embeddings in two dimensions, coloured by label, site or scanner.

    The two principal components show the largest differences between the images, which
    often come from the scanner. The axis labels give the share of the variance that is
    shown. Classes that overlap on the map may be far apart in the other dimensions.

    Parameters
    ----------
    points : ndarray of shape (n_samples, 2)
        Coordinates of the embeddings.
    explained : ndarray of shape (2,)
        Share of the variance along each axis.
    values : array-like of shape (n_samples,), default=None
        Values to colour by, at most six different ones. Missing values are grey.
    title : str, default=None
        Title of the axes.

    Attributes
    ----------
    ax_, figure_
        The axes and figure of matplotlib.
    scatters_ : dict
        The points of matplotlib by value; the key None holds missing values.

    See Also
    --------
    sk_medsiglip.model_selection.check_leakage : Find identical images.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.evaluation import EmbeddingMapDisplay
    >>> phantoms = make_chest_phantoms(40, random_state=0)
    >>> display = EmbeddingMapDisplay.from_estimator(
    ...     MedSigLIPEmbedder("demo"), phantoms.images, phantoms.target[:, 1])
    >>> display.points.shape
    (40, 2)
    """

    points: NDArray[np.floating]
    explained: NDArray[np.floating]
    values: ArrayLike | None = None
    _: KW_ONLY
    title: str | None = None

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike | None = None,
        *,
        title: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Embed images and draw the map.

        Parameters
        ----------
        estimator : transformer
            Embedder, such as :class:`~sk_medsiglip.MedSigLIPEmbedder`.
        X : list of n_samples images
            Input of the embedder.
        y : array-like of shape (n_samples,), default=None
            Values to colour by.
        title, ax
            Parameters of the class and of :meth:`plot`.

        Returns
        -------
        EmbeddingMapDisplay
            The display, drawn.
        """
        return cls.from_embeddings(plain_rows(estimator, X), y, title=title, ax=ax)

    @classmethod
    def from_embeddings(
        cls,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        title: str | None = None,
        ax: Any = None,
    ) -> Self:
        """Compute the two principal components of embeddings and draw the map.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings of at least three images.
        y : array-like of shape (n_samples,), default=None
            Values to colour by.
        title, ax
            Parameters of the class and of :meth:`plot`.

        Returns
        -------
        EmbeddingMapDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If ``y`` has several columns, or more values than there are colours.
        """
        rows = check_array(X, dtype=np.float64, ensure_min_samples=3)
        if y is not None:
            if np.ndim(y) != 1:
                raise ValueError(
                    f"y has shape {np.shape(y)}, expected (n_samples,). To colour by "
                    "one of several findings, pass its column, such as y[:, 0] or "
                    "y['effusion']."
                )
            check_consistent_length(rows, y)
        return cls(*two_components(rows), y, title=title).plot(ax)

    def plot(self, ax: Any = None, *, size: float = 14.0) -> Self:
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. By default, a new figure.
        size : float, default=14
            Area of a marker, in square points.

        Returns
        -------
        EmbeddingMapDisplay
            The display, drawn.

        Raises
        ------
        MissingDependencyError
            If matplotlib is not installed.
        ValueError
            If there are more values than colours.
        """
        groups = groups_of(self.values, len(self.points))
        ax = new_axes(ax, (5.6, 5), "Drawing embeddings")
        self.scatters_: dict[Any, Any] = {}
        for group in groups:
            self.scatters_[group.value] = ax.scatter(
                *self.points[group.rows].T,
                s=size,
                color=group.colour,
                marker=style.MARKERS[group.mark],
                alpha=0.75,
                linewidths=0,
                label=f"{drawn(group.word, 30)} ({len(group.rows):,})",
            )
        first, second = self.explained
        ax.set_xlabel(f"first component ({first:.0%} of the variance)")
        ax.set_ylabel(f"second component ({second:.0%})")
        ax.set(xticks=[], yticks=[])
        if self.title is not None:
            ax.set_title(drawn_lines(self.title, 60), fontsize=10)
        if self.values is not None:
            # Outside the axes, since every corner may hold points.
            beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
            style.small_legend(ax, markerscale=1.5, **beside)
        return style.finish(self, ax)

    def to_html(
        self,
        path: str | os.PathLike[str],
        *,
        names: ArrayLike | None = None,
        images: Any = None,
    ) -> Path:
        """Write the map as one HTML file, whose points tell which image they are.

        The file holds everything it shows: it needs no server, runs no scripts and
        makes no requests. The name of a point, and its image if there is one, appear
        where the mouse rests on it. matplotlib is not needed.

        Parameters
        ----------
        path : path-like
            File to write. An existing file is replaced.
        names : array-like of shape (n_samples,), default=None
            Names of the points. By default, "row 0" and so on. Note that file names
            may identify patients.
        images : list of n_samples images, default=None
            Images or their paths, as :func:`~sk_medsiglip.images.read_image` takes
            them. **The file then holds images of patients**, each as a copy of at most
            256 pixels a side, some 20 to 60 kB.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ImageReadError
            If an image cannot be read.
        ValueError
            If there are more values than colours, or lengths do not fit each other.

        Notes
        -----
        A point takes about 100 bytes. Above some 20,000 points browsers are slow.

        Examples
        --------
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from sk_medsiglip.evaluation import EmbeddingMapDisplay
        >>> points = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
        >>> display = EmbeddingMapDisplay(points, [0.6, 0.3], ["PA", "AP", "PA"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = display.to_html(Path(folder) / "map.html")
        ...     text = page.read_text(encoding="utf-8")
        >>> "row 1: AP" in text
        True
        """
        file, n_points = Path(path), len(self.points)
        words = [f"row {row}" for row in range(n_points)]
        if names is not None:
            words = [str(name) for name in np.asarray(names)]
        pictures = None
        if images is not None:
            pictures = [photograph(read_image(one)) for one in image_rows(images)]
        check_consistent_length(self.points, words, pictures)
        groups = groups_of(self.values, n_points)
        drawing = map_on_page(self.points, self.explained, groups, words, pictures)
        title = self.title or "Map of embeddings"
        page = render_page(
            "evaluation",
            "embedding_map.html.jinja",
            {"title": title, "map": drawing, "has_pictures": pictures is not None},
        )
        with new_file(file) as draft:
            draft.write_text(page, encoding="utf-8", errors="replace")
        return file
