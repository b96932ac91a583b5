"""Maps of embeddings: their coordinates, their colours, and how a page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA

from sk_medsiglip.embedding import plain_rows
from sk_medsiglip.evaluation import _style as style

#: Side of a map on a page, and its margin, in the units of the drawing.
_SIDE, _MARGIN = 560, 12


class Group(NamedTuple):
    """Points of one value, and how they are drawn; ``mark`` counts the markers."""

    value: Any
    word: str
    colour: str
    mark: int
    rows: NDArray[np.intp]


def two_components(
    X: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the two principal components, and the share of the variance of each."""
    pca = PCA(2, random_state=0)
    points = plain_rows(pca.fit(X), X)
    return points, pca.explained_variance_ratio_


def groups_of(values: ArrayLike | None, n_points: int) -> list[Group]:
    """Return the points of each value; missing values first, to be drawn below."""
    if values is None:
        return [Group("images", "images", style.COLOURS[0], 0, np.arange(n_points))]
    series = pd.Series(np.asarray(values))
    missing = series.isna().to_numpy()
    known = series[~missing]
    if known.dtype.kind == "f" and (known % 1 == 0).all():
        known = known.astype(int)  # NaN among whole numbers made them floats
    levels = sorted(known.unique().tolist(), key=lambda one: (str(type(one)), one))
    if len(levels) > len(style.COLOURS):
        raise ValueError(
            f"y has {len(levels)} different values, and {len(style.COLOURS)} "
            "colours can be told apart by everyone. Merge some values, or make "
            "bands with pd.cut."
        )
    found = []
    if missing.any():
        unknown = np.flatnonzero(missing)
        found.append(Group(None, "not known", style.UNKNOWN, 0, unknown))
    for mark, (value, colour) in enumerate(zip(levels, style.COLOURS, strict=False)):
        rows = np.flatnonzero((series == value).to_numpy() & ~missing)
        found.append(Group(value, str(value), colour, mark, rows))
    return found


def map_on_page(
    points: NDArray[np.floating],
    explained: NDArray[np.floating],
    groups: Sequence[Group],
    names: Sequence[str],
    pictures: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return a map as its template takes it; names and pictures are those of points."""
    low, span = points.min(axis=0), np.ptp(points, axis=0)
    inner = _SIDE - 2 * _MARGIN
    places = _MARGIN + (points - low) / np.where(span > 0, span, 1) * inner
    places[:, 1] = _SIDE - places[:, 1]  # up on a page is towards 0
    return {
        "side": _SIDE,
        "places": places.round(1).tolist(),
        "explained": explained,
        "groups": groups,
        "names": names,
        "pictures": pictures,
    }
