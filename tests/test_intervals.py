"""Intervals by patient: formulas by hand, coverage, p-values; resamples of patients."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, norm, t
from sklearn.metrics import roc_auc_score

from sk_medsiglip import _intervals, _resampling
from sk_medsiglip.evaluation import delong_test


def area(y, score, patients=None):
    y = np.asarray(y, dtype=bool)
    patients = np.arange(len(y)) if patients is None else np.asarray(patients)
    return _intervals.area_estimate(
        y, np.asarray(score, float), patients, patients.max() + 1
    )


# ------------------------------------------------------------------------------- shares


def test_share_has_wilsons_interval_with_the_effective_number_and_t():
    hits, base = np.array([1, 1, 0, 1, 1, 0.0]), np.ones(6)
    share = _intervals.share_estimate(hits, base)
    low, high, note = share.interval(0.9)
    # One image a patient: m - 1 of them, by the unbiased variance.
    q = t.ppf(0.95, 5)
    for bound in (low, high):  # where Wilson's score test is just rejected
        assert abs(4 / 6 - bound) == pytest.approx(q * np.sqrt(bound * (1 - bound) / 5))
    assert low < 4 / 6 < high
    assert note == ""


def test_images_of_one_patient_that_are_alike_count_once():
    once = _intervals.share_estimate(np.array([1, 1, 0, 1.0]), np.ones(4))
    often = _intervals.share_estimate(np.array([9, 9, 0, 9.0]), np.full(4, 9.0))
    assert often.interval() == pytest.approx(once.interval()[:2] + ("",))
    # Patients that are the same inside are worth their images at most, never certainty.
    halves = _intervals.share_estimate(np.ones(5), np.full(5, 2.0))
    low, high, _ = halves.interval()
    assert high - low > 0.5


@pytest.mark.parametrize("k", [0, 7])
def test_none_and_all_have_the_exact_bound_of_as_many_patients(k):
    base = np.array([3, 1, 1, 2, 1, 1, 1, 0.0])  # seven patients, who count once
    low, high, _ = _intervals.share_estimate(base * (k > 0), base).interval()
    exact = beta.ppf(0.975, 1, 7), beta.ppf(0.025, 7, 1)
    assert (low, high) == pytest.approx((exact[1], 1) if k else (0, exact[0]))


@pytest.mark.parametrize("n", [0, 1])
def test_of_one_patient_nothing_is_said(n):
    share = _intervals.share_estimate(np.r_[2.0 * n, 0], np.r_[3.0 * n, 0])
    low, high, note = share.interval()
    assert np.isnan([low, high]).all()
    assert note == ("1 patient of a kind" if n else "")  # of none there is no value
    assert np.isnan(share.p_value())


# -------------------------------------------------------------------------------- areas


def test_area_has_newcombes_interval_where_scores_have_one_shape():
    rng = np.random.default_rng(0)
    y = np.r_[np.ones(6), np.zeros(40)]
    score = y + rng.standard_normal(46)
    estimate = area(y, score)
    assert estimate.value == pytest.approx(roc_auc_score(y, score))
    low, high, _ = estimate.interval()
    value, half = estimate.value, (6 + 40) / 2 - 1
    for bound in (low, high):
        more = half * (1 - bound) / (2 - bound) + half * bound / (1 + bound)
        spread = np.sqrt(bound * (1 - bound) * (1 + more) / (6 * 40))
        assert abs(value - bound) >= norm.ppf(0.975) * spread * (1 - 1e-6)
        assert abs(value - bound) <= t.ppf(0.975, 5) * spread
    # The square sum of what patients contribute is DeLong's variance.
    other = area(y, score + rng.standard_normal(46))
    moved = estimate.influence - other.influence
    z = (estimate.value - other.value) / np.sqrt((moved**2).sum())
    difference, p_value = delong_test(y, score, score)
    assert (difference, p_value) == (0, 1)
    assert 2 * norm.sf(abs(z)) > 0


def test_variance_of_areas_is_delongs():
    rng = np.random.default_rng(1)
    y = rng.random(80) < 0.3
    a, b = y + rng.standard_normal(80), y + rng.standard_normal(80)
    moved = area(y, a).influence - area(y, b).influence
    z = (area(y, a).value - area(y, b).value) / np.sqrt((moved**2).sum())
    assert 2 * norm.sf(abs(z)) == pytest.approx(delong_test(y, a, b)[1])


def test_a_kind_of_disease_that_is_missed_widens_the_interval():
    rng = np.random.default_rng(0)
    y = np.r_[np.ones(20), np.zeros(80)]
    even = y * 1.05 + rng.standard_normal(100)
    missed = np.r_[np.full(13, 9.0), np.full(7, -1.0), np.zeros(80)]
    missed += rng.standard_normal(100)
    wide, narrow = (area(y, one).interval() for one in (missed, even))
    assert wide.high - wide.low > 1.1 * (narrow.high - narrow.low)


def test_images_of_one_patient_do_not_narrow_an_area():
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], [8, 40])
    score = y + rng.standard_normal(48)
    once = area(y, score).interval()
    often = area(np.repeat(y, 5), np.repeat(score, 5), np.repeat(np.arange(48), 5))
    assert often.interval()[:2] == pytest.approx(once[:2], abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_perfect_separation_has_the_bound_of_the_smaller_side(sign):
    y = np.r_[np.ones(3), np.zeros(30)]
    low, high, _ = area(y, sign * y).interval()
    bound = 0.025 ** (1 / 3)
    assert (low, high) == pytest.approx((bound, 1) if sign == 1 else (0, 1 - bound))


@pytest.mark.parametrize("n_positive", [4, 12])
@pytest.mark.parametrize("missed", [0, 0.3])
def test_intervals_of_areas_hold_the_truth(n_positive, missed):
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], [n_positive, 50])
    true = (1 - missed) * norm.cdf(1.8 / 2**0.5) + missed / 2
    inside = 0
    for _ in range(250):
        seen = y * (rng.random(len(y)) >= missed)
        low, high, _ = area(y, 1.8 * seen + rng.standard_normal(len(y))).interval()
        inside += low <= true <= high
    assert inside / 250 >= 0.92


# -------------------------------------------------------------- sums and their p-values


def test_sum_is_as_wide_as_its_parts_make_it():
    # Of two shares of different patients, by Zou and Donner.
    one, other = np.r_[np.ones(8), np.zeros(12)], np.r_[np.zeros(8), np.ones(12)]
    a = _intervals.share_estimate(one * (np.arange(20) < 5), one)
    b = _intervals.share_estimate(other * (np.arange(20) < 17), other)
    (la, ua, _), (lb, ub, _) = a.interval(), b.interval()
    low, high, _ = _intervals.combine([a, b], [1, -1]).interval()
    d = a.value - b.value
    assert low == pytest.approx(d - np.hypot(a.value - la, ub - b.value))
    assert high == pytest.approx(d + np.hypot(ua - a.value, b.value - lb))
    low, high, _ = _intervals.combine([a, b], [0.5, 0.5]).interval()
    middle = (a.value + b.value) / 2
    assert low == pytest.approx(middle - np.hypot(a.value - la, b.value - lb) / 2)
    assert high == pytest.approx(middle + np.hypot(ua - a.value, ub - b.value) / 2)


def test_two_perfect_classifiers_may_differ():
    y = np.r_[np.ones(5), np.zeros(60)]
    rng = np.random.default_rng(0)
    a, b = (area(y, 9 * y + rng.standard_normal(65)) for _ in "ab")
    difference = _intervals.combine([a, b], [1, -1])
    low, high, _ = difference.interval()
    assert difference.value == 0
    assert low == pytest.approx(0.025 ** (1 / 5) - 1)
    assert high == pytest.approx(-low)
    assert difference.p_value() == 1


def test_the_same_answers_have_no_interval():
    rng = np.random.default_rng(0)
    y = rng.random(50) < 0.4
    one = area(y, y + rng.standard_normal(50))
    same = _intervals.combine([one, one], [1, -1])
    low, high, note = same.interval()
    assert np.isnan([low, high, same.p_value()]).all()
    assert note == "both answer alike"


@pytest.mark.parametrize("kind", ["area", "share", "resampled"])
def test_p_value_is_below_5_percent_where_0_is_outside(kind):
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(60):
        y = rng.random(70) < 0.4
        a, b = (k * y + rng.standard_normal(70) for k in (2.2, 1.2))
        if kind == "area":
            pair = [area(y, a), area(y, b)]
        elif kind == "share":
            pair = [
                _intervals.share_estimate(1.0 * (y & (s > 1)), 1.0 * y) for s in (a, b)
            ]
        else:
            pair = [_intervals.resampled_estimate(0.5, s * 0.4 + 0.5) for s in (a, b)]
        difference = _intervals.combine(pair, [1, -1])
        low, high, _ = difference.interval()
        assert (difference.p_value() < 0.05) == (low > 0 or high < 0)
        small += difference.p_value() < 0.05
    assert kind == "resampled" or 0 < small < 60


def test_p_values_of_resamples_count_those_on_the_other_side():
    draws = np.r_[np.full(1990, 0.1), np.full(9, -0.1)] + np.linspace(0, 0.01, 1999)
    assert _intervals.resampled_estimate(0.1, draws).p_value() == pytest.approx(
        2 * 10 / 2000, rel=1e-3
    )
    assert _intervals.resampled_estimate(0.1, np.abs(draws)).p_value() == pytest.approx(
        2 / 2000, rel=1e-3
    )


def test_resamples_that_do_not_vary_or_are_few_have_no_interval():
    low, high, note = _intervals.resampled_estimate(1.0, np.ones(500)).interval()
    assert np.isnan([low, high]).all()
    assert note == "all resamples are alike"
    draws = np.random.default_rng(0).random(39)
    assert (
        _intervals.resampled_estimate(0.5, draws).interval().note == "too few resamples"
    )
    some = _intervals.resampled_estimate(0.5, np.r_[draws, 0.5, np.nan]).interval()
    assert (some.low, some.high) == pytest.approx((draws.min(), draws.max()))


def test_holm_is_its_definition():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    np.testing.assert_allclose(_intervals.holm(p), [0.04, np.nan, 0.09, 0.09, 0.5])
    assert len(_intervals.holm(np.empty(0))) == 0


# ----------------------------------------------------------------------- resamples


def test_patients_are_drawn_whole():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    counts = _resampling.draw_counts(6, 50, groups=groups, random_state=0)
    assert counts.shape == (50, 6)
    for name in "abc":
        rows = counts[:, groups == name]
        assert (rows == rows[:, :1]).all()
    patients = counts[:, [0, 1, 3]]
    assert (patients.sum(axis=1) == 3).all()
    assert patients.std() > 0
    np.testing.assert_array_equal(
        counts, _resampling.draw_counts(6, 50, groups=groups, random_state=0)
    )


def test_samples_are_drawn_one_by_one_without_groups():
    counts = _resampling.draw_counts(40, 2000, random_state=0)
    assert (counts.sum(axis=1) == 40).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.1)
    np.testing.assert_allclose(counts.var(), 1, atol=0.05)  # of a binomial, 1 - 1/n


def test_groups_of_another_length_are_refused():
    with pytest.raises(ValueError, match="ids for"):
        _resampling.draw_counts(3, 2, groups=["a", "b"])


def test_auc_is_that_of_the_rows_drawn():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(size=60) + y, 1)  # ties
    counts = _resampling.draw_counts(60, 300, random_state=1)
    aucs = _resampling.auc_of_resamples(y, scores, counts)
    for drawn, auc in zip(counts[:50], aucs, strict=False):
        rows = np.repeat(np.arange(60), drawn)
        np.testing.assert_allclose(auc, roc_auc_score(y[rows], scores[rows]))
    assert not np.isnan(aucs).any()
    whole = _resampling.auc_of_resamples(y, scores, np.ones((1, 60), int))
    np.testing.assert_allclose(whole, roc_auc_score(y, scores))


def test_resamples_of_one_class_are_counted():
    y = np.array([1, 0, 0])
    counts = np.array([[0, 2, 1], [3, 0, 0], [1, 1, 1]])
    aucs = _resampling.auc_of_resamples(y, np.array([0.9, 0.1, 0.2]), counts)
    np.testing.assert_array_equal(aucs, [np.nan, np.nan, 1])
    assert _resampling.interval(aucs) == (1, 1, 2)
    low, high, undefined = _resampling.interval([np.nan])
    assert np.isnan([low, high]).all()
    assert undefined == 1


def test_interval_holds_its_share():
    low, high, undefined = _resampling.interval(np.arange(1001), 0.9)
    assert (low, high) == pytest.approx((50, 950))
    assert undefined == 0


def test_groups_of_any_hashable_kind_have_numbers():
    assert _resampling.group_numbers(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert _resampling.group_numbers(pd.Series([7, 7, 9], dtype="Int64")).tolist() == [
        0,
        0,
        1,
    ]


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
    with pytest.raises(ValueError, match="2 of"):
        _resampling.group_numbers(blank)
    with pytest.raises(ValueError, match="groups"):
        _resampling.draw_counts(3, 2, groups=blank)


def test_percent_and_no_resample_are_refused():
    _resampling.check_resampling(1, 0.95)
    for level in (95, 1, 0, -0.5, np.nan, "0.95"):
        with pytest.raises(ValueError, match="0.95"):
            _resampling.check_resampling(10, level)
    for n_bootstrap in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="n_bootstrap"):
            _resampling.check_resampling(n_bootstrap, 0.95)
