"""Resamples by patient, and figures of thousands of them at once."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sk_medsiglip._resampling import (
    auc_of_resamples,
    check_resampling,
    draw_counts,
    group_numbers,
    interval,
)


def test_patients_are_drawn_whole():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    counts = draw_counts(6, 50, groups=groups, random_state=0)
    assert counts.shape == (50, 6)
    for name in "abc":
        rows = counts[:, groups == name]
        assert (rows == rows[:, :1]).all()
    patients = counts[:, [0, 1, 3]]
    assert (patients.sum(axis=1) == 3).all()
    assert patients.std() > 0
    np.testing.assert_array_equal(
        counts, draw_counts(6, 50, groups=groups, random_state=0)
    )


def test_samples_are_drawn_one_by_one_without_groups():
    counts = draw_counts(40, 2000, random_state=0)
    assert (counts.sum(axis=1) == 40).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(), 1, atol=0.05)  # of a binomial, 1 - 1/n


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match="ids for"):
        draw_counts(3, 2, groups=["a", "b"])


def test_auc_is_that_of_the_rows_drawn():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(size=60) + y, 1)  # ties
    counts = draw_counts(60, 300, random_state=1)
    aucs = auc_of_resamples(y, scores, counts)
    for drawn, auc in zip(counts[:50], aucs, strict=False):
        rows = np.repeat(np.arange(60), drawn)
        np.testing.assert_allclose(auc, roc_auc_score(y[rows], scores[rows]))
    assert not np.isnan(aucs).any()
    whole = auc_of_resamples(y, scores, np.ones((1, 60), int))
    np.testing.assert_allclose(whole, roc_auc_score(y, scores))


def test_resamples_of_one_class_are_counted():
    y = np.array([1, 0, 0])
    counts = np.array([[0, 2, 1], [3, 0, 0], [1, 1, 1]])
    aucs = auc_of_resamples(y, np.array([0.9, 0.1, 0.2]), counts)
    np.testing.assert_array_equal(aucs, [np.nan, np.nan, 1])
    assert interval(aucs) == (1, 1, 2)
    low, high, undefined = interval([np.nan])
    assert np.isnan([low, high]).all()
    assert undefined == 1


def test_interval_holds_its_share():
    low, high, undefined = interval(np.arange(1001), 0.9)
    assert (low, high) == pytest.approx((50, 950))
    assert undefined == 0


def test_groups_of_any_hashable_kind_have_numbers():
    assert group_numbers(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert group_numbers(pd.Series([7, 7, 9], dtype="Int64")).tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    "blank",
    [
        ["a", None, None],
        np.array([1.0, np.nan, np.nan]),
        pd.Series([1, None, None], dtype="Int64"),
        pd.Series(["a", None, None], dtype="string"),
    ],
)
def test_blank_groups_are_refused(blank):
    with pytest.raises(ValueError, match="groups is missing for 2 of 3 samples"):
        group_numbers(blank)
    with pytest.raises(ValueError, match="groups is missing"):
        draw_counts(3, 2, groups=blank)


def test_percent_and_no_resample_are_refused():
    check_resampling(1, 0.95)
    for level in (95, 1, 0, -0.5, np.nan, "0.95"):
        with pytest.raises(ValueError, match="0.95"):
            check_resampling(10, level)
    for n_bootstrap in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="n_bootstrap"):
            check_resampling(n_bootstrap, 0.95)
