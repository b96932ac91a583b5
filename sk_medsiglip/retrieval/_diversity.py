"""Less of the same: near copies in a collection, and results that differ."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

__all__ = ["maximal_marginal_relevance", "near_duplicates"]

_RULES = ("first", "connected")
#: Vectors that are compared at a time with as many: 4 MB of cosines.
_BLOCK = 1024
#: Pairs that are multiplied again at a time, in float64.
_PAIRS = 64
Labels = NDArray[np.int64]


def near_duplicates(
    vectors: ArrayLike,
    *,
    threshold: float = 0.98,
    rule: str = "first",
    block_rows: int | None = None,
) -> NDArray[np.int64]:
    """Group vectors that are nearly the same.

    Parameters
    ----------
    vectors : array-like of shape (n_samples, d), float32, float64 or float16
        Of any length: cosines are compared.
    threshold : float, default=0.98
        Cosine from which two vectors are near copies, in (0, 1]. What it means depends
        on the model: look at pairs on either side of it.
    rule : {"first", "connected"}, default="first"
        Which vectors make a group. "first": those near to one that is kept, which is
        the first of its group; vectors are taken in order, and one that is near to none
        kept so far is kept. So a group's vectors are all near to its first, no two kept
        ones are near, and nothing is dropped for being like something dropped.
        "connected": those that a chain of near copies joins, the groups that must not
        be torn apart by a split into folds; the ends of a chain may be far apart.
    block_rows : int, default=None
        Vectors at a time; None is 1,024. Memory, not the result, depends on it.

    Returns
    -------
    groups : ndarray of shape (n_samples,), int64
        Of each vector the position of its group's first, so that
        ``groups == numpy.arange(n_samples)`` says which vectors to keep, and ``groups``
        are groups as scikit-learn's splitters take them.

    Raises
    ------
    ValueError
        If vectors are not two-dimensional or not finite, or another argument is out of
        its range.

    Notes
    -----
    "first" compares each vector with the kept ones, "connected" each with each: of
    100,000 vectors of 1152 that are minutes. Both hold blocks of cosines, never all.
    Cosines that rounding could put on either side of the threshold are computed again
    in float64, so that exact copies are near at any threshold, 1 included. A zero
    vector is near to nothing.

    See Also
    --------
    sk_medsiglip.model_selection.check_leakage : What two sides of a split share.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.retrieval._diversity import near_duplicates
    >>> angles = np.deg2rad([0, 8, 90, 16])
    >>> vectors = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> near_duplicates(vectors)
    array([0, 0, 2, 3])
    >>> near_duplicates(vectors, rule="connected")
    array([0, 0, 2, 0])
    """
    vectors = _check_vectors(vectors)
    if not (isinstance(threshold, Real) and 0 < threshold <= 1):
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}.")
    if rule not in _RULES:
        raise ValueError(f"rule must be one of {_RULES}, got {rule!r}.")
    size = _BLOCK if block_rows is None else block_rows
    if not (isinstance(size, Integral) and size >= 1):
        raise ValueError(f"block_rows must be at least 1, got {block_rows!r}.")
    first_copy = _first_copies(vectors)
    different = np.flatnonzero(first_copy == np.arange(len(vectors)))
    cosines = _Cosines(vectors, different, float(threshold))
    found = (_first if rule == "first" else _connected)(cosines, int(size))
    groups = np.empty(len(vectors), np.int64)
    groups[different] = different[found]
    return groups[first_copy]


def maximal_marginal_relevance(
    query_scores: ArrayLike,
    vectors: ArrayLike,
    n: int,
    *,
    diversity: float = 0.3,
) -> NDArray[np.int64]:
    """Choose results that are relevant and differ from each other.

    One after the other, always that of the highest
    ``(1 - diversity) * score - diversity * highest cosine with one chosen before``.

    Parameters
    ----------
    query_scores : array-like of shape (n_candidates,)
        How near each candidate is to the query: cosines, to be on one scale with those
        among the candidates.
    vectors : array-like of shape (n_candidates, d)
        Of the candidates, of any length.
    n : int
        How many to choose; all if there are fewer.
    diversity : float, default=0.3
        0 takes the nearest to the query, 1 after the first only what differs most; the
        authors' lambda is ``1 - diversity``.

    Returns
    -------
    positions : ndarray of shape (n,), int64
        Of the chosen, in the order of choice: the nearest to the query first. Of
        equally good ones the lowest comes first.

    Raises
    ------
    ValueError
        If lengths do not fit, values are not finite, ``n`` is below 1 or ``diversity``
        not between 0 and 1.

    Notes
    -----
    ``n * n_candidates`` products: of a thousand candidates milliseconds, of a million
    use the thousand nearest.

    References
    ----------
    .. [1] Carbonell and Goldstein, "The Use of MMR, Diversity-Based Reranking for
       Reordering Documents and Producing Summaries", SIGIR 1998.

    Examples
    --------
    >>> from sk_medsiglip.retrieval._diversity import maximal_marginal_relevance
    >>> vectors = [[1, 0.1], [1, 0.11], [1, -0.5]]
    >>> maximal_marginal_relevance([0.9, 0.89, 0.7], vectors, 2, diversity=0.7)
    array([0, 2])
    """
    scores = np.asarray(query_scores, np.float64)
    unit = _check_vectors(vectors).astype(np.float64)
    if scores.shape != (len(unit),):
        raise ValueError(
            f"query_scores must be one a vector, of shape ({len(unit)},), got "
            f"{scores.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError("query_scores must be finite.")
    if not (isinstance(n, Integral) and n >= 1):
        raise ValueError(f"n must be a whole number from 1 on, got {n!r}.")
    if not (isinstance(diversity, Real) and 0 <= diversity <= 1):
        raise ValueError(f"diversity must be from 0 to 1, got {diversity!r}.")
    unit /= _lengths(unit)[:, np.newaxis]  # a copy of the caller's
    chosen = np.empty(min(n, len(unit)), np.int64)
    nearest = np.full(len(unit), -np.inf)
    worth = scores
    for turn in range(len(chosen)):
        if turn:
            # Row by row: a BLAS product may give equal rows unequal last bits.
            cosines = np.vecdot(unit, unit[chosen[turn - 1]])
            np.maximum(nearest, cosines, out=nearest)
            worth = (1 - diversity) * scores - diversity * nearest
            worth[chosen[:turn]] = -np.inf
        chosen[turn] = np.argmax(worth)
    return chosen


def _first_copies(vectors: NDArray[np.floating]) -> Labels:
    """Return of each vector the position of the first that is equal to the bit.

    A collection may hold thousands of one picture, all black, say; nothing else needs
    to be compared for these. Zero vectors stay by themselves.
    """
    seen: dict[bytes, int] = {}
    first = np.arange(len(vectors))
    for at, vector in enumerate(vectors):
        if vector.any():
            digest = blake3(vector.tobytes()).digest()
            first[at] = seen.setdefault(digest, at)
    return first


class _Cosines:
    """Which of some vectors are near, whatever the blocks in which they are compared.

    Numbers of rows are places in ``members``.
    """

    def __init__(
        self, vectors: NDArray[np.floating], members: Labels, threshold: float
    ) -> None:
        self._vectors = vectors
        self._members = members
        self._lengths = np.empty(len(members))
        for some in _slices(len(members), _BLOCK):
            self._lengths[some] = _lengths(vectors[members[some]])
        self._threshold = np.float32(threshold)
        # What rounding to float32, once for each vector and in the product, can do.
        self._doubt = np.float32((vectors.shape[1] + 4) * 2.0**-23)

    def __len__(self) -> int:
        return len(self._members)

    def unit(self, rows: Labels) -> NDArray[np.float32]:
        """Return vectors of length 1."""
        lengths = self._lengths[rows, np.newaxis]
        return (self._vectors[self._members[rows]] / lengths).astype(np.float32)

    def near(
        self,
        rows: Labels,
        others: Labels,
        unit_rows: NDArray[np.float32],
        unit_others: NDArray[np.float32],
    ) -> NDArray[np.bool_]:
        """Return whether each of the rows is near to each of the others."""
        cosines = unit_rows @ unit_others.T
        near = cosines >= self._threshold + self._doubt
        i, j = np.nonzero((cosines >= self._threshold - self._doubt) & ~near)
        for start in range(0, len(i), _PAIRS):
            some = i[start : start + _PAIRS], j[start : start + _PAIRS]
            near[some] = self._near_one_by_one(rows[some[0]], others[some[1]])
        return near

    def _near_one_by_one(self, rows: Labels, others: Labels) -> NDArray[np.bool_]:
        left, right = (
            self._vectors[self._members[at]].astype(np.float64) for at in (rows, others)
        )
        lengths = self._lengths[rows] * self._lengths[others]
        return (np.vecdot(left, right) / lengths).astype(np.float32) >= self._threshold


def _first(cosines: _Cosines, size: int) -> Labels:
    """Give each vector the first kept one that it is near to."""
    groups = np.full(len(cosines), -1, np.int64)
    kept = np.empty(0, np.int64)
    for some in _slices(len(cosines), size):
        rows = np.arange(some.start, some.stop)
        unit = cosines.unit(rows)
        for before in _slices(len(kept), size):
            others = kept[before]
            left = groups[rows] < 0
            if not left.any():
                break
            near = cosines.near(rows[left], others, unit[left], cosines.unit(others))
            like_one = near.any(axis=1)
            first = others[near.argmax(axis=1)]
            groups[rows[left][like_one]] = first[like_one]
        left = groups[rows] < 0
        rows, unit = rows[left], unit[left]
        near = cosines.near(rows, rows, unit, unit)
        for at, row in enumerate(rows):
            if groups[row] < 0:
                groups[row] = row
                like_it = rows[at + 1 :][near[at, at + 1 :]]
                groups[like_it[groups[like_it] < 0]] = row
        kept = np.concatenate([kept, rows[groups[rows] == rows]])
    return groups


def _connected(cosines: _Cosines, size: int) -> Labels:
    """Give each vector the first one that a chain of near ones joins it to."""
    groups = np.arange(len(cosines))
    for some in _slices(len(cosines), size):
        rows = np.arange(some.start, some.stop)
        unit = cosines.unit(rows)
        for before in _slices(some.stop, size):
            others = np.arange(before.start, before.stop)
            near = cosines.near(rows, others, unit, cosines.unit(others))
            i, j = np.nonzero(near)
            groups = _join(groups, rows[i], others[j])
    return groups


def _join(groups: Labels, left: Labels, right: Labels) -> Labels:
    """Make one group of those of each pair."""
    apart = groups[left] != groups[right]
    if not apart.any():
        return groups
    pairs = np.stack([groups[left[apart]], groups[right[apart]]])
    names, at = np.unique(pairs, return_inverse=True)
    graph = coo_array(
        (np.ones(pairs.shape[1], bool), tuple(at.reshape(pairs.shape))),
        shape=(len(names), len(names)),
    )
    _, joined = connected_components(graph, directed=False)
    # Names are in order, so that the first of each new group has its lowest.
    _, first = np.unique(joined, return_index=True)
    renamed = np.arange(len(groups))
    renamed[names] = names[first[joined]]
    return renamed[groups]


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return lengths, and 1 for zero vectors, which stay zero when divided."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return np.where(lengths > 0, lengths, 1.0)


def _check_vectors(vectors: Any) -> NDArray[np.floating]:
    array = np.asarray(vectors)
    if array.ndim != 2:
        raise ValueError(
            f"vectors must be of shape (n_samples, d), got {array.shape}; "
            "use vectors[numpy.newaxis] for one."
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"vectors must be numbers, got {array.dtype}.")
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    for some in _slices(len(array), _BLOCK):
        if not np.isfinite(array[some]).all():
            raise ValueError(
                "vectors must be finite. Rows of NaN are unreadable images: leave "
                "them out."
            )
    return array
