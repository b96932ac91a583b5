"""Folds and held-out parts of whole patients, with labels spread evenly."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedGroupKFold,
    cross_val_score,
)

from sk_medsiglip.heads import LinearProbe
from sk_medsiglip.model_selection import (
    MultilabelStratifiedGroupKFold,
    MultilabelStratifiedGroupShuffleSplit,
)

SPLITTERS = [
    MultilabelStratifiedGroupKFold(4),
    MultilabelStratifiedGroupKFold(4, shuffle=True, random_state=3),
    MultilabelStratifiedGroupShuffleSplit(4, test_size=0.3, random_state=3),
]


def make_labels(n_groups=150, n_labels=5, blanks=0.0, seed=0):
    """Findings that stay with a patient, and few patients with many images."""
    rng = np.random.default_rng(seed)
    sizes = 1 + np.minimum(40, np.floor(2 * rng.pareto(1.5, n_groups))).astype(int)
    groups = np.repeat(np.arange(n_groups), sizes)
    risk = rng.normal(-1.5, 1, (n_groups, n_labels))[groups]
    y = (rng.random(risk.shape) < 1 / (1 + np.exp(-risk))).astype(float)
    y[rng.random(y.shape) < blanks] = np.nan
    order = rng.permutation(len(y))  # rows of a patient need not lie together
    return y[order], groups[order]


def spread(y, pairs):
    """How far shares of labels are from those of all rows, at worst, relatively."""
    shares = np.array([np.nanmean(y[test], axis=0) for _, test in pairs])
    return np.abs(shares / np.nanmean(y, axis=0) - 1).max()


# --- what holds of every split ----------------------------------------------------


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_no_group_is_on_both_sides(splitter):
    y, groups = make_labels()
    pairs = list(splitter.split(y, y, groups))
    assert len(pairs) == splitter.get_n_splits() == 4
    for train, test in pairs:
        assert not set(groups[train]) & set(groups[test])
        assert np.intersect1d(train, test).size == 0
        assert len(train) + len(test) == len(y)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_labels_and_groups_are_split_into_whole_groups(data):
    n_rows = data.draw(st.integers(3, 40))
    n_labels = data.draw(st.integers(1, 4))
    cell = st.sampled_from([0.0, 1.0, np.nan])
    row = st.lists(cell, min_size=n_labels, max_size=n_labels)
    y = np.array(data.draw(st.lists(row, min_size=n_rows, max_size=n_rows)))
    groups = data.draw(st.lists(st.integers(0, 8), min_size=n_rows, max_size=n_rows))
    groups = np.array(groups)
    n_groups = len(np.unique(groups))
    n_splits = data.draw(st.integers(2, 5))
    shuffle = data.draw(st.booleans())
    folds = MultilabelStratifiedGroupKFold(
        n_splits, shuffle=shuffle, random_state=0 if shuffle else None
    )
    if n_groups < n_splits:
        with pytest.raises(ValueError, match="greater"):
            next(folds.split(y, y, groups))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pairs = list(folds.split(y, y, groups))
    assert_array_equal(
        np.sort(np.concatenate([test for _, test in pairs])), np.arange(n_rows)
    )
    for train, test in pairs:
        assert train.size
        assert test.size
        assert not set(groups[train]) & set(groups[test])


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=15),
    test_size=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_both_sides_of_a_held_out_part_hold_somebody(sizes, test_size, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    splitter = MultilabelStratifiedGroupShuffleSplit(
        2, test_size=test_size, random_state=seed
    )
    y = np.random.default_rng(seed).integers(0, 2, (len(groups), 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for train, test in splitter.split(y, y, groups):
            assert train.size
            assert test.size
            assert not set(groups[train]) & set(groups[test])


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_same_splits_at_every_call(splitter):
    y, groups = make_labels(blanks=0.2)
    first, second = (list(splitter.split(y, y, groups)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert_array_equal(one[1], other[1])


def test_other_seeds_give_other_splits():
    y, groups = make_labels()
    for kind in (MultilabelStratifiedGroupKFold, MultilabelStratifiedGroupShuffleSplit):
        shuffle = {"shuffle": True} if kind is MultilabelStratifiedGroupKFold else {}
        tests = [
            next(kind(5, random_state=seed, **shuffle).split(y, y, groups))[1]
            for seed in (0, 1)
        ]
        assert set(tests[0]) != set(tests[1])


def test_draws_of_one_splitter_differ():
    y, groups = make_labels()
    splitter = MultilabelStratifiedGroupShuffleSplit(5, random_state=0)
    tests = {tuple(test) for _, test in splitter.split(y, y, groups)}
    assert len(tests) == 5


def test_everybody_is_held_out_now_and_then():
    y, groups = make_labels(n_groups=40)
    splitter = MultilabelStratifiedGroupShuffleSplit(60, test_size=0.3, random_state=0)
    seen = [set(groups[test]) for _, test in splitter.split(y, y, groups)]
    assert set.union(*seen) == set(groups)


# --- how even ---------------------------------------------------------------------


def test_labels_and_sizes_are_more_even_than_with_sklearns_folds():
    for seed in range(3):
        y, groups = make_labels(seed=seed)
        ours = list(MultilabelStratifiedGroupKFold(5).split(y, y, groups))
        plain = list(GroupKFold(5).split(y, y, groups))
        sets = np.unique(y, axis=0, return_inverse=True)[1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            by_set = list(StratifiedGroupKFold(5).split(y, sets, groups))
        assert spread(y, ours) < 0.5 * spread(y, plain)
        assert spread(y, ours) < 0.5 * spread(y, by_set)
        sizes = [len(test) for _, test in ours]
        assert max(sizes) - min(sizes) <= 0.02 * len(y)


def test_rows_without_groups_are_spread_to_the_single_image():
    y = (
        np.random.default_rng(0).random((500, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
    ) + 0
    for splitter in (SPLITTERS[0], SPLITTERS[1]):
        counts = np.array([y[test].sum(axis=0) for _, test in splitter.split(y, y)])
        assert (counts.max(axis=0) - counts.min(axis=0) <= 1).all()


def test_what_is_known_is_spread_too():
    rng = np.random.default_rng(0)
    y, groups = make_labels(n_groups=300)
    # A label that only one hospital gave.
    y[groups % 3 == 0, 2] = np.nan
    y[rng.random(len(y)) < 0.5, 3] = np.nan
    pairs = list(MultilabelStratifiedGroupKFold(5).split(y, y, groups))
    known = np.array([np.isfinite(y[test]).sum(axis=0) for _, test in pairs])
    assert (np.abs(known / known.mean(axis=0) - 1) < 0.05).all()
    assert spread(y, pairs) < 0.05


def test_a_blank_is_neither_positive_nor_negative():
    # Eight patients are known, of whom four have it; eight are not.
    y = np.array([[1.0]] * 4 + [[0.0]] * 4 + [[np.nan]] * 8)
    for _, test in MultilabelStratifiedGroupKFold(4).split(y, y):
        held_out = y[test, 0]
        assert (held_out == 1).sum() == 1
        assert (held_out == 0).sum() == 1
        assert len(test) == 4


def test_classes_are_spread_as_by_sklearn():
    rng = np.random.default_rng(0)
    y = rng.choice(["a", "b", "c"], 400, p=[0.6, 0.3, 0.1])
    groups = rng.integers(0, 80, 400)
    ours = MultilabelStratifiedGroupKFold(5).split(y, y, groups)
    theirs = StratifiedGroupKFold(5).split(y, y, groups)

    def worst(pairs):
        parts = [[(y[t] == c).mean() for c in "abc"] for _, t in pairs]
        return np.abs(np.array(parts) - [(y == c).mean() for c in "abc"]).max()

    assert worst(ours) <= worst(theirs)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, (0.8, 0.2)),
        ({"test_size": 0.35}, (0.65, 0.35)),
        ({"train_size": 0.35}, (0.35, 0.65)),
        ({"test_size": 50, "train_size": 0.5}, (0.5, None)),
    ],
    ids=str,
)
def test_sizes_are_shares_of_images(sizes, expected):
    y, groups = make_labels(n_groups=300)
    splitter = MultilabelStratifiedGroupShuffleSplit(3, random_state=0, **sizes)
    for train, test in splitter.split(y, y, groups):
        held_out = 50 / len(y) if expected[1] is None else expected[1]
        assert len(train) / len(y) == pytest.approx(expected[0], abs=0.01)
        assert len(test) / len(y) == pytest.approx(held_out, abs=0.01)
    assert spread(y, splitter.split(y, y, groups)) < 0.15


def test_a_patient_with_most_images_is_kept_whole():
    groups = np.array([0] * 80 + list(range(1, 21)))
    y = np.zeros((100, 2))
    y[:80:2, 0] = 1
    y[::3, 1] = 1
    with pytest.warns(UserWarning, match="fewer"):
        pairs = list(MultilabelStratifiedGroupKFold(3).split(y, y, groups))
    sizes = sorted(len(test) for _, test in pairs)
    assert sizes[-1] == 80
    assert sizes[0] >= 8


# --- inputs -----------------------------------------------------------------------


def test_forms_of_y_and_groups_give_the_same_folds():
    y, groups = make_labels()
    names = np.array([f"patient {g}" for g in groups])
    folds = MultilabelStratifiedGroupKFold(3)
    expected = [test for _, test in folds.split(y, y, groups)]
    for target in (
        pd.DataFrame(y, columns=list("abcde")),
        y.astype(bool),
        csr_array(y),
        pd.DataFrame(y).astype("Int64"),
        y.astype(object),
    ):
        found = [test for _, test in folds.split(list(range(len(y))), target, names)]
        for one, other in zip(expected, found, strict=True):
            assert_array_equal(one, other)


def test_one_label_with_blanks_may_be_flat():
    y = np.array([0, 1, np.nan, 0, 1, np.nan, 1, 0])
    folds = MultilabelStratifiedGroupKFold(2)
    for _, test in folds.split(y, y):
        assert np.nansum(y[test]) in (1, 2)
        assert np.isnan(y[test]).sum() == 1


def test_rare_labels_are_named():
    y = pd.DataFrame(np.zeros((40, 3)), columns=["edema", "hernia", "fibrosis"])
    y.loc[:20, "edema"] = 1
    y.loc[:1, "hernia"] = 1  # fibrosis is in nobody, which is another matter
    with pytest.warns(UserWarning, match=r"'hernia' \(2\)"):
        list(MultilabelStratifiedGroupKFold(5).split(y, y))
    with pytest.warns(UserWarning, match=r"1 \(2\)"):
        list(MultilabelStratifiedGroupKFold(5).split(y, 1 - y.to_numpy()[:, :2]))
    classes = ["a", "b"] * 10 + ["c"]
    with pytest.warns(UserWarning, match=r"'c' \(1\)"):
        list(MultilabelStratifiedGroupKFold(5).split(classes, classes))
    y.loc[1, "hernia"] = 0
    with pytest.warns(UserWarning, match=r"'hernia' \(1\)"):
        list(MultilabelStratifiedGroupShuffleSplit(2, random_state=0).split(y, y))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_splits": 1}, ValueError, "2 or more, got 1"),
        ({"n_splits": 2.5}, ValueError, "integer"),
        ({"shuffle": 1}, TypeError, "shuffle must be True or False"),
        ({"random_state": 0}, ValueError, "pass shuffle=True"),
    ],
    ids=str,
)
def test_parameters_of_folds_that_make_no_sense(arguments, error, message):
    with pytest.raises(error, match=message):
        MultilabelStratifiedGroupKFold(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"test_size": 1.0}, "test_size must be a share"),
        ({"test_size": 10}, "between 1 and 9; got 10"),
        ({"train_size": -0.1}, "train_size must be a share"),
        ({"test_size": True}, "test_size must be a share"),
        ({"test_size": "half"}, "test_size must be a share"),
        ({"test_size": 0.6, "train_size": 0.6}, "exceed"),
        ({"test_size": 6, "train_size": 0.6}, "exceed"),
    ],
    ids=str,
)
def test_sizes_that_make_no_sense(arguments, message):
    y = np.tile([[0, 1], [1, 0]], (5, 1))
    with pytest.raises(ValueError, match=message):
        next(MultilabelStratifiedGroupShuffleSplit(**arguments).split(y, y))
    with pytest.raises(ValueError, match="got 0"):
        MultilabelStratifiedGroupShuffleSplit(0)


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        (None, None, "y is needed"),
        ([[0, 1], [1, -1], [0, 0]], None, r"got -1.*y\.replace\(-1, np\.nan\)"),
        ([0.5, 0.1, 0.7], None, "continuous"),
        ([[0, 1], [1, 0], [0, 0]], [1, 1, 1], "greater than the number of groups: 1"),
        ([[0, 1], [1, 0], [0, 0]], ["a", None, "b"], "missing for 1 of 3"),
        ([[0, 1], [1, 0], [0, 0]], [1.0, 2.0, np.nan], "missing for 1 of 3"),
        ([[0, 1], [1, 0], [0, 0]], [1, 2], "inconsistent numbers of samples"),
        (np.zeros((3, 2, 2)), None, "one or two dimensions"),
        ([["a", "b"], ["c", "d"], ["e", "f"]], None, "such as 'a'"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_bad_labels_and_groups_are_named(y, groups, message):
    with pytest.raises(ValueError, match=message):
        next(MultilabelStratifiedGroupKFold(2).split(np.zeros((3, 1)), y, groups))


def test_one_group_cannot_be_held_out():
    y = np.ones((3, 2))
    with pytest.raises(ValueError, match="group"):
        next(MultilabelStratifiedGroupShuffleSplit().split(y, y, [7, 7, 7]))


# --- in scikit-learn --------------------------------------------------------------


def make_problem():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    X = rng.normal(size=(120, 5))
    y = (X[:, :3] + rng.normal(size=(120, 3)) > 0).astype(int)
    return X, y, groups


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_is_a_cv_of_cross_val_score_and_grid_search(splitter):
    X, y, groups = make_problem()
    head = LogisticRegression()
    scores = cross_val_score(head, X, y[:, 0], groups=groups, cv=splitter)
    assert scores.shape == (4,)
    search = GridSearchCV(head, {"C": [0.1, 1]}, cv=splitter)
    assert search.fit(X, y[:, 0], groups=groups).n_splits_ == 4


@pytest.mark.parametrize("splitter", SPLITTERS, ids=str)
def test_groups_are_routed(splitter):
    X, y, groups = make_problem()
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=splitter)
        search.fit(X, y[:, 0], groups=groups)
        routed = cross_val_score(
            LogisticRegression(), X, y[:, 0], params={"groups": groups}, cv=splitter
        )
        deaf = clone(splitter, safe=False).set_split_request(groups=False)
        plain = cross_val_score(LogisticRegression(), X, y[:, 0], cv=deaf)
    expected = cross_val_score(
        LogisticRegression(), X, y[:, 0], groups=groups, cv=splitter
    )
    assert_array_equal(routed, expected)
    assert not np.array_equal(plain, expected)


def test_is_a_cv_of_a_probe_of_several_labels():
    X, y, groups = make_problem()
    probe = LinearProbe(Cs=[0.1, 1], cv=MultilabelStratifiedGroupKFold(3))
    assert probe.fit(X, y, groups=groups).scores_.shape == (3, 3, 1, 2)


def test_repr_shows_the_parameters():
    assert repr(MultilabelStratifiedGroupKFold(3)) == (
        "MultilabelStratifiedGroupKFold(n_splits=3, random_state=None, shuffle=False)"
    )
    assert "test_size=0.3" in repr(SPLITTERS[2])
