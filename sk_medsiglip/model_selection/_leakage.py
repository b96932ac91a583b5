"""Patients, pictures and near copies that are on both sides of a split."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

from sk_medsiglip._shared_groups import shared_groups, written_ids
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.exceptions import LeakageWarning
from sk_medsiglip.model_selection._pictures import find_near_copies, read_pictures

#: Training rows that say how often images of other patients are nearly the same.
_N_ASKED = 1000
_KINDS = ("patient", "same picture", "nearly the same")
_DTYPES = {
    "split": "int64",
    "kind": "object",
    "train_row": "int64",
    "test_row": "int64",
    "n_train": "int64",
    "n_test": "int64",
    "group": "object",
    "cosine": "float64",
}
Rows = NDArray[np.intp]


class _Finding(NamedTuple):
    """A patient or picture on both sides."""

    split: int
    train_row: int
    test_row: int
    n_train: int
    n_test: int
    cosine: float


def check_leakage(
    X: Any,
    groups: ArrayLike | None = None,
    splits: Any = None,
    *,
    y: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    embedder: Any = None,
    threshold: float = 0.999,
    max_rows: int | None = 1000,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """List the patients, pictures and near copies in both training and test rows.

    Parameters
    ----------
    X : collection of images, or array-like of shape (n_samples, n_features)
        Images as :class:`~sk_medsiglip.MedSigLIPEmbedder` takes them, or their
        embeddings. Bags, ``(n_samples, n_instances, width)``, are compared by their
        means.
    groups : array-like of shape (n_samples,), default=None
        Patients. By default, only pictures are compared.
    splits : splitter, pair, or iterable of pairs
        A splitter such as :class:`MultilabelStratifiedGroupKFold`, which gets ``X``,
        ``y`` and ``groups``; one pair of training and test rows; or several. Rows are
        indices or masks.
    y : array-like, default=None
        Labels, for a splitter.
    embeddings : array-like of shape (n_samples, n_features), default=None
        Embeddings of the images in ``X``, to look for near copies too.
    embedder : MedSigLIPEmbedder, str or None, default=None
        Embedder of the images in ``X``, or the name of its model. Pictures are then
        compared as it reads them.
    threshold : float, default=0.999
        Cosine from which two pictures are nearly the same; see the notes.
    max_rows : int or None, default=1000
        Maximum number of findings of each kind to list, with a warning if there are
        more. None lists all.
    n_jobs : int or None, default=None
        Number of threads that read images.

    Returns
    -------
    findings : DataFrame
        Empty if nothing is shared. Columns:

        - ``split``: which of the splits, from 0;
        - ``kind``: "patient", "same picture" or "nearly the same";
        - ``train_row``, ``test_row``: one example on each side;
        - ``n_train``, ``n_test``: number of rows of that patient or picture on each
          side. Near copies have a finding for each test row, with its nearest training
          row; ``n_train`` counts all training rows that are near it;
        - ``group``: patient of the test row, None without ``groups``;
        - ``cosine``: 1 for the same picture, NaN for patients.

        ``findings.attrs["n_found"]`` holds the number of each kind, listed or not, and
        ``findings.attrs["n_by_chance"]`` how many near copies are expected where no
        patient is on both sides; None without ``groups``. See the notes.

    Raises
    ------
    ValueError
        If there are no splits, a group is missing, or lengths differ.
    ImageReadError
        If an image cannot be read. The message names its row.

    Warns
    -----
    LeakageWarning
        If not all findings are listed, or if ids on the two sides differ only in
        leading zeros, capitals or spaces, such as "007" and "7", which may be one
        patient.

    Notes
    -----
    The same picture means the same pixels at 448 px (at the embedder's size and by its
    recipe, if there is one; equal rows, if there are only embeddings). The same picture
    saved again without loss is found, one that was rescaled is not.

    The default threshold was chosen on the demonstration checkpoint: there 98 % of
    drawn phantoms and 80 % of small real X-rays reach it after saving as JPEG of
    quality 85. Of 3,000 X-rays none but exact copies came as near. Pictures of half the
    size, cropped by 3 % or turned by 2 degrees mostly stay below. It was not measured
    for MedSigLIP. Look at some of the pairs, and at others with a lower threshold:
    similar images need not be copies.

    Images of different patients come as near by chance, and more often the more
    training images there are: 0.07 % of test images with 200 training images, 0.34 %
    with 800, 0.85 % with 3,200 (drawn phantoms, ten draws by patient). Where near
    copies are found and ``groups`` is given, ``n_by_chance`` is the share of training
    rows (of up to 1,000, drawn at random) that are nearly the same as a row of another
    training patient, times the number of test rows. A count near it is not evidence
    of copies. Near copies of the same patient are found, but not expected by chance.

    Rows of NaN, which an embedder leaves of unreadable images, are not compared.
    A split takes ``n_train * n_test`` cosines, which are computed in blocks of constant
    memory: 20,000 rows of 1152 in five folds take seconds.

    Examples
    --------
    >>> from sklearn.model_selection import ShuffleSplit
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.model_selection import check_leakage
    >>> phantoms = make_chest_phantoms(40, random_state=0)
    >>> images, patients = list(phantoms.images), phantoms.groups
    >>> found = check_leakage(images, patients, ShuffleSplit(1, random_state=0))
    >>> found[["kind", "group", "n_train", "n_test"]].head(2)
          kind        group  n_train  n_test
    0  patient  PHANTOM0002        1       1
    1  patient  PHANTOM0013        2       1
    >>> images[39] = images[0]
    >>> check_leakage(images, splits=([0, 1], [38, 39]))[["train_row", "test_row"]]
       train_row  test_row
    0          0        39
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}.")
    pictures, vectors = read_pictures(
        X, embeddings=embeddings, embedder=embedder, n_jobs=n_jobs
    )
    n_rows = len(pictures)
    patients = None
    if groups is not None:
        check_consistent_length(pictures, groups)
        group_numbers(groups)  # refuses ids that are missing
        names = written_ids(groups)
        patients = group_numbers(names)
    n_by_chance = 0.0
    found: dict[str, list[_Finding]] = {name: [] for name in _KINDS}
    for split, (train, test) in enumerate(_pairs(splits, X, y, groups, n_rows)):
        if patients is not None:
            found["patient"] += _find_shared(split, patients, train, test, np.nan)
            shared = shared_groups(names[test], names[train])
            for doubt in shared.doubts("the test rows", "the training rows"):
                warnings.warn(doubt, LeakageWarning, stacklevel=2)
        found["same picture"] += _find_shared(split, pictures, train, test, 1.0)
        if vectors is not None:
            near = find_near_copies(vectors, pictures, train, test, threshold)
            found["nearly the same"] += [
                _Finding(split, *one[:3], 1, one.cosine) for one in near
            ]
            if patients is not None and near:
                asked = np.random.default_rng(0).permutation(train)[:_N_ASKED]
                # Rows of one patient are taken for one picture, so others are found.
                others = find_near_copies(vectors, patients, train, asked, threshold)
                alike = [one for one in others if len({*pictures[list(one[:2])]}) == 2]
                n_by_chance += len(alike) / len(asked) * len(test)
    given = None if groups is None else np.asarray(groups, dtype=object).ravel()
    table = _tabulate(found, given, max_rows)
    table.attrs["n_by_chance"] = None if patients is None else n_by_chance
    return table


def _find_shared(
    split: int, number: Rows, train: Rows, test: Rows, cosine: float
) -> list[_Finding]:
    """Return the patients or pictures on both sides; -1 stands for neither."""
    sides = [
        pd.DataFrame({"number": number[rows], "row": rows})
        .query("number >= 0")
        .groupby("number")["row"]
        .agg(["first", "size"])
        for rows in (train, test)
    ]
    both = pd.concat(sides, axis=1, join="inner").to_numpy()
    return sorted(_Finding(split, a, b, m, n, cosine) for a, m, b, n in both.tolist())


def _tabulate(
    found: dict[str, list[_Finding]], names: Any, max_rows: int | None
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for kind, findings in found.items():
        for one in findings[:max_rows]:
            group = None if names is None else names[one.test_row]
            rows.append({"kind": kind, "group": group, **one._asdict()})
        if max_rows is not None and len(findings) > max_rows:
            warnings.warn(
                f"{len(findings):,} findings of the kind {kind!r}, of which the first "
                f"{max_rows:,} are listed; max_rows=None lists all.",
                LeakageWarning,
                stacklevel=3,
            )
    frame = pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)
    frame.attrs["n_found"] = {kind: len(findings) for kind, findings in found.items()}
    return frame


def _pairs(
    splits: Any, X: Any, y: Any, groups: Any, n_rows: int
) -> Iterator[tuple[Rows, Rows]]:
    """Yield the rows of both sides of every split."""
    if splits is None:
        raise ValueError(
            "splits is needed: a splitter such as GroupKFold(5), one pair of training "
            "and test rows, or several pairs."
        )
    if hasattr(splits, "split"):
        with warnings.catch_warnings():
            # Splits that do not keep groups together are meant to show in the result.
            warnings.filterwarnings("ignore", "The groups parameter is ignored")
            splits = list(splits.split(np.empty((n_rows, 0)), y, groups))
    elif isinstance(splits, tuple | list) and len(splits) == 2:
        splits = [splits] if all(map(_is_rows, splits)) else splits
    for pair in splits:
        train, test = (_rows(side, n_rows) for side in pair)
        yield train, test


def _is_rows(side: Any) -> bool:
    try:
        rows = np.asarray(side)
    except ValueError:  # two sides of different lengths
        return False
    return rows.ndim == 1 and rows.dtype.kind in "biu"


def _rows(side: Any, n_rows: int) -> Rows:
    if not _is_rows(side):
        raise ValueError(f"a side of a split must be indices or a mask, got {side!r}.")
    try:
        return np.unique(np.arange(n_rows)[np.asarray(side)])
    except IndexError as error:
        raise ValueError(
            f"a side of a split does not fit the {n_rows} rows of X: {error}."
        ) from None
