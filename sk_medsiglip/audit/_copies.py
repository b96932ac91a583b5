"""``find_copies``: the same picture, or nearly so, twice in one data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._splits import check_groups, group_numbers
from sk_medsiglip.model_selection import find_near_copies, read_pictures

#: Kinds of copies.
SAME, _NEAR = "same picture", "nearly the same"


def find_copies(
    X: Any,
    y: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    embedder: Any = None,
    threshold: float = 0.999,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """List the pictures that a data set holds twice.

    Those under two patients, or with two labels, come first: the first leak from
    training into test however patients are split, and one of the second is mislabelled.

    Parameters
    ----------
    X : collection of images, or array-like of shape (n_samples, n_features)
        Images as :class:`~sk_medsiglip.MedSigLIPEmbedder` takes them, or their
        embeddings. Rows of NaN, images that could not be read, are copies of nothing.
    y : array-like of shape (n_samples,) or (n_samples, n_findings), default=None
        Labels; NaN where one is blank, which differs from nothing.
    groups : array-like of shape (n_samples,), default=None
        Patients. Images of one patient are often nearly the same, so with patients only
        those of two patients are listed as nearly the same.
    embeddings : array-like of shape (n_samples, n_features), default=None
        Embeddings of the images in ``X``, to look for near copies too.
    embedder : MedSigLIPEmbedder, str or None, default=None
        Embeds the images in ``X``, or names the model that does.
    threshold : float, default=0.999
        Cosine from which two images are nearly the same; see the notes of
        :func:`~sk_medsiglip.model_selection.check_leakage`.
    n_jobs : int or None, default=None
        Threads that read images.

    Returns
    -------
    copies : DataFrame
        Empty if there are none. One row for each copy:

        - ``kind``: "same picture" or "nearly the same";
        - ``row``, ``other_row``: the copy, and the first row with the same picture, or
          the row that is nearest;
        - ``cosine``: 1 for the same picture;
        - ``group``, ``other_group``, ``same_group``: patients, and whether they are the
          same, if ``groups`` are passed;
        - ``same_label``: whether all labels that both have are equal, if ``y`` is
          passed.

        ``copies.attrs["n_found"]`` holds the number of each kind.

    Raises
    ------
    ValueError
        If lengths differ, a group is missing, or ``threshold`` is not a cosine.
    ImageReadError
        If an image cannot be read; names its row.

    See Also
    --------
    sk_medsiglip.model_selection.check_leakage : The same across the sides of a split.

    Notes
    -----
    Images of two patients may be nearly the same by chance, the more often the more
    there are, so look at some of the pairs. A copy with the same label under the same
    patient does little harm, and comes last.

    Cost: the square of ``n_samples`` in cosines, in blocks, for near copies.

    Examples
    --------
    >>> from sk_medsiglip.audit import find_copies
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(20, random_state=0)
    >>> images = list(phantoms.images)
    >>> images[15] = images[3]
    >>> found = find_copies(images, groups=phantoms.groups)
    >>> found[["kind", "row", "other_row", "same_group"]]
               kind  row  other_row  same_group
    0  same picture   15          3       False
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}.")
    pictures, vectors = read_pictures(
        X, embeddings=embeddings, embedder=embedder, n_jobs=n_jobs
    )
    n_rows = len(pictures)
    ids = None if groups is None else check_groups(groups, n_rows)
    pairs = _same_pictures(pictures)
    if vectors is not None:
        apart = pictures if groups is None else group_numbers(groups, n_rows)
        pairs += _near_pictures(vectors, pictures, apart, threshold)
    copies = pd.DataFrame(pairs, columns=["kind", "row", "other_row", "cosine"])
    copies = copies.astype({"row": "int64", "other_row": "int64", "cosine": "float64"})
    harmless = np.ones(len(copies), dtype=bool)
    if ids is not None:
        copies["group"] = ids[copies["row"]]
        copies["other_group"] = ids[copies["other_row"]]
        copies["same_group"] = copies["group"] == copies["other_group"]
        harmless &= copies["same_group"].to_numpy(bool)
    if y is not None:
        copies["same_label"] = _same_label(y, n_rows, copies)
        harmless &= copies["same_label"].to_numpy(bool)
    order = np.lexsort(
        (copies["row"], -copies["cosine"], copies["kind"] == _NEAR, harmless)
    )
    copies = copies.iloc[order].reset_index(drop=True)
    counts = copies["kind"].value_counts()
    copies.attrs["n_found"] = {kind: int(counts.get(kind, 0)) for kind in (SAME, _NEAR)}
    return copies


def _same_pictures(pictures: NDArray[np.intp]) -> list[tuple[str, int, int, float]]:
    """Return every later image of a picture with the first."""
    known = np.flatnonzero(pictures >= 0)
    _, first, number = np.unique(
        pictures[known], return_index=True, return_inverse=True
    )
    firsts = known[first][number]
    later = known != firsts
    pairs = zip(known[later].tolist(), firsts[later].tolist(), strict=True)
    return [(SAME, row, other, 1.0) for row, other in pairs]


def _near_pictures(
    vectors: NDArray[np.float32],
    pictures: NDArray[np.intp],
    apart: NDArray[np.intp],
    threshold: float,
) -> list[tuple[str, int, int, float]]:
    """Return images and the nearest one with another number in ``apart``."""
    rows = np.flatnonzero(pictures >= 0)
    found: dict[tuple[int, int], float] = {}
    for near in find_near_copies(vectors, apart, rows, rows, threshold):
        one, other = sorted((near.train_row, near.test_row))
        if pictures[one] != pictures[other]:
            found[other, one] = near.cosine
    return [(_NEAR, row, other, cosine) for (row, other), cosine in found.items()]


def _same_label(y: Any, n_rows: int, copies: pd.DataFrame) -> NDArray[np.bool_]:
    """Return whether the labels that both rows have are equal."""
    table = pd.DataFrame(y if not hasattr(y, "toarray") else y.toarray())
    if len(table) != n_rows:
        raise ValueError(f"y holds labels of {len(table)} samples for {n_rows} of X.")
    one, other = (
        table.iloc[copies[name]].reset_index(drop=True) for name in ("row", "other_row")
    )
    equal = (one == other) | one.isna() | other.isna()
    return equal.to_numpy(bool).all(axis=1)
