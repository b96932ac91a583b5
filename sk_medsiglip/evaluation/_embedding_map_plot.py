"""``EmbeddingMapDisplay``: the two principal components of embeddings."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.utils import check_array, check_consistent_length

from sk_medsiglip._axes import new_axes
from sk_medsiglip._drawn_names import drawn, drawn_lines
from sk_medsiglip.embedding import plain_rows
from sk_medsiglip.evaluation import _style as style


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
        pca = PCA(2, random_state=0)
        points = plain_rows(pca.fit(rows), rows)
        display = cls(points, pca.explained_variance_ratio_, y, title=title)
        return display.plot(ax)

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
        members = self._members()
        ax = new_axes(ax, (5.6, 5), "Drawing embeddings")
        self.scatters_: dict[Any, Any] = {}
        colours = iter(zip(style.COLOURS, style.MARKERS, strict=False))
        for value, rows in members.items():
            colour, marker = (style.UNKNOWN, "o") if value is None else next(colours)
            word = "not known" if value is None else drawn(value, 30)
            look = {"s": size, "color": colour, "marker": marker, "alpha": 0.75}
            label = f"{word} ({rows.sum():,})"
            self.scatters_[value] = ax.scatter(
                *self.points[rows].T, linewidths=0, label=label, **look
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

    def _members(self) -> dict[Any, NDArray[np.bool_]]:
        """Return the rows of each value; missing values first, to be drawn below."""
        if self.values is None:
            return {"images": np.ones(len(self.points), dtype=bool)}
        values = pd.Series(np.asarray(self.values))
        missing = values.isna().to_numpy()
        known = values[~missing]
        if known.dtype.kind == "f" and (known % 1 == 0).all():
            known = known.astype(int)  # NaN among whole numbers made them floats
        levels = sorted(known.unique().tolist(), key=lambda one: (str(type(one)), one))
        if len(levels) > len(style.COLOURS):
            raise ValueError(
                f"y has {len(levels)} different values, and {len(style.COLOURS)} "
                "colours can be told apart by everyone. Merge some values, or make "
                "bands with pd.cut."
            )
        found: dict[Any, NDArray[np.bool_]] = {None: missing} if missing.any() else {}
        for one in levels:
            found[one] = (values == one).to_numpy() & ~missing
        return found
