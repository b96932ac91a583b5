"""Group ids, such as patients', are checked and dealt to folds in one place for all."""

import numpy as np
import pandas as pd
import polars
import pytest
from sklearn.datasets import make_classification
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from sk_medsiglip import _labels, _shared_groups, _splits


@pytest.mark.parametrize(
    "groups",
    [
        ["a", "b", "a"],
        [7, 9, 7.0],
        np.array([[1], [2], [1]]),
        pd.Series(["a", "b", "a"]),
        pd.Series([1, 2, 1], dtype="Int64"),
        pd.DataFrame({"patient": ["a", "b", "a"]}),
        polars.Series(["a", "b", "a"]),
        polars.DataFrame({"patient": [1, 2, 1]}),
        pd.Categorical(["a", "b", "a"]),
        pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-01"]),
        np.array(["a", "b", "a"], dtype=np.dtypes.StringDType()),
    ],
    ids=lambda groups: type(groups).__name__,
)
def test_group_numbers_of_every_container(groups):
    assert _splits.group_numbers(groups, 3).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "groups",
    [
        [1.0, np.nan, 2.0],
        ["a", None, "b"],
        ["a", np.nan, "b"],
        ["a", "  ", "b"],
        pd.Series(["a", pd.NA, "b"]),
        pd.Series([1, pd.NA, 2], dtype="Int64"),
        pd.Series(["a", None, "b"], dtype="category"),
        pd.DataFrame({"patient": ["a", None, "b"]}),
        polars.Series(["a", None, "b"]),
        np.array(["a", "", "b"]),
        np.array(["a", np.nan, "b"]),
        pd.Series(["a", None, "b"]).astype(object).astype(str),
        pd.to_datetime(["2026-01-01", None, "2026-01-02"]),
    ],
)
def test_missing_ids_are_counted_and_refused(groups):
    with pytest.raises(ValueError, match="1 of"):
        _splits.check_groups(groups, 3)


@pytest.mark.parametrize("groups", [["7", 7], np.array(["a", 1], dtype=object)])
def test_ids_of_several_types_are_refused(groups):
    with pytest.raises(ValueError, match="several types"):
        _splits.check_groups(groups)


def test_wrong_length_and_shape_are_refused():
    with pytest.raises(ValueError, match="2 ids"):
        _splits.check_groups(["a", "b"], 3)
    with pytest.raises(ValueError, match="one id"):
        _splits.check_groups(np.ones((3, 2)), 3)
    with pytest.raises(ValueError, match="one id"):
        _splits.check_groups("patient", 3)


def test_ids_of_two_tables_are_compared_by_what_they_say():
    shared = _shared_groups.shared_groups([7, 8, 9], ["7.0", b"8", " 9 ", "10"])
    assert (shared.shared, shared.doubtful, shared.n_blank) == ([7, 8, 9], [], 0)
    shared = _shared_groups.shared_groups(
        ["P07", "1.05", "a", "x"], ["p7", "1.5", "A", "x"]
    )
    assert shared.shared == ["x"]
    assert shared.doubtful == [("P07", "p7"), ("a", "A")]
    assert not _shared_groups.shared_groups(
        ["007", "7"], ["7"]
    ).doubtful  # 7 is found already
    (said,) = _shared_groups.shared_groups(["007"], [7]).doubts(
        "one", "two", name_ids=False
    )
    assert "7" not in said
    blank = _shared_groups.shared_groups(
        pd.array([1, None], dtype="Int64"), ["<NA>", "None", ""]
    )
    assert (blank.shared, blank.n_blank) == ([], 4)
    assert not _shared_groups.shared_groups([1, 2], ["P1"]).is_alike
    assert _shared_groups.shared_groups([1, 2], ["P1", "3"]).is_alike


# ------------------------------------------------------------------------------- folds


def test_groups_stay_together():
    X, y = make_classification(120, random_state=0)
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 30, 120)
    labels = _labels.Labels(np.array([0, 1]), y)
    folds = _splits.make_folds(labels, 4, groups, X)
    for train, test in zip(folds.train, folds.test, strict=True):
        assert not set(groups[train]) & set(groups[test])
        assert (train | test).all()
    assert folds.test.sum(axis=0).max() == 1
    splitter = _splits.make_folds(labels, GroupKFold(3), groups, X)
    for train, test in zip(splitter.train, splitter.test, strict=True):
        assert not set(groups[train]) & set(groups[test])
    # Every image of the positives is of one patient: nothing to validate with.
    one = np.where(y == 1, 0, 1 + np.arange(120))
    assert _splits.make_folds(labels, 4, one, X) is None


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_folds_by_group_are_scikit_learns(n_classes, seed):
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 120, 400)
    y = rng.integers(0, n_classes, 400)
    y[groups < 40] = 0  # sides of unlike size
    folds = _splits.make_folds(_labels.Labels(np.arange(n_classes), y), 4, groups, y)
    splits = StratifiedGroupKFold(4).split(y, y, groups)
    for train, test, (learns, asked) in zip(
        folds.train, folds.test, splits, strict=True
    ):
        np.testing.assert_array_equal(np.flatnonzero(train), learns)
        np.testing.assert_array_equal(np.flatnonzero(test), asked)


def test_folds_of_each_label_are_scikit_learns_of_its_known_rows():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 150, 500)
    y = rng.integers(0, 2, (500, 5)).astype(float)
    y[rng.random(y.shape) < 0.3] = np.nan
    y[:, 3] = np.where(groups < 3, 1, np.where(groups < 100, 0, np.nan))  # three folds
    y[:, 4] = 0  # none
    folds = _splits.make_folds(_labels.Labels(None, y), 5, groups, y)
    assert folds.test.shape == (5, 500, 5)
    for label, n_folds in enumerate([5, 5, 5, 3, 0]):
        known = np.flatnonzero(~np.isnan(y[:, label]))
        splits = (
            []
            if not n_folds
            else StratifiedGroupKFold(n_folds).split(
                known, y[known, label], groups[known]
            )
        )
        expected = [(known[a], known[b]) for a, b in splits]
        expected += [([], [])] * (5 - n_folds)
        for fold, (learns, asked) in enumerate(expected):
            train, test = folds.train[fold, :, label], folds.test[fold, :, label]
            np.testing.assert_array_equal(np.flatnonzero(train), learns)
            np.testing.assert_array_equal(np.flatnonzero(test), asked)
