"""Thresholds for a wanted sensitivity: hand-computed, with ties and infinities."""

import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, norm, t
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier

from sk_medsiglip.evaluation import OperatingPoint, choose_operating_point

INF = np.inf
# Positives .9 .8 .8 .6 .3, negatives .8 .5 .3 .2 .1
Y = [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
SCORES = [0.9, 0.8, 0.8, 0.6, 0.3, 0.8, 0.5, 0.3, 0.2, 0.1]

few_here = pytest.mark.filterwarnings("ignore:y_true has 5:UserWarning")


@few_here
@pytest.mark.parametrize(
    ("sensitivity", "threshold", "found", "spared"),
    [
        (0.1, 0.9, 0.2, 1.0),
        (0.16, 0.9, 0.2, 1.0),  # one of five is promised to be 1 / 6
        (0.17, 0.8, 0.6, 0.8),  # tied at .8: both or neither
        (0.5, 0.8, 0.6, 0.8),
        (0.51, 0.6, 0.8, 0.8),
        (0.66, 0.6, 0.8, 0.8),
        (0.83, 0.3, 1.0, 0.4),
        (0.84, -INF, 1.0, 0.0),  # 5 / 6 is the most that five can promise
    ],
)
def test_highest_threshold_that_finds_enough(sensitivity, threshold, found, spared):
    point = choose_operating_point(Y, SCORES, sensitivity=sensitivity)
    assert point.threshold == threshold
    assert point.sensitivity == pytest.approx(found)
    assert point.specificity == pytest.approx(spared)
    assert (point.n_positive, point.n_negative) == (5, 5)
    assert point.target == ("sensitivity", sensitivity)
    assert point.finding is None


@few_here
@pytest.mark.parametrize(
    ("specificity", "threshold", "spared", "found"),
    [
        (0.16, 0.2, 0.2, 1.0),
        (0.3, 0.3, 0.4, 1.0),
        (0.5, 0.5, 0.6, 0.8),
        (0.51, 0.6, 0.8, 0.8),
        (0.66, 0.6, 0.8, 0.8),  # between .5 and .8 the lowest score there is
        (0.67, 0.9, 1.0, 0.2),
        (0.84, INF, 1.0, 0.0),
    ],
)
def test_lowest_threshold_that_spares_enough(specificity, threshold, spared, found):
    point = choose_operating_point(Y, SCORES, specificity=specificity)
    assert point.threshold == threshold
    assert point.specificity == pytest.approx(spared)
    assert point.sensitivity == pytest.approx(found)


@few_here
def test_infinite_scores_and_thresholds():
    scores = [INF, 2, 1, 0, -INF, INF, 0, 0, -INF, -INF]
    low = choose_operating_point(Y, scores, sensitivity=0.8)
    assert (low.threshold, low.sensitivity, low.specificity) == (-INF, 1, 0)
    top = choose_operating_point(Y, scores, sensitivity=0.1)
    assert (top.threshold, top.sensitivity, top.specificity) == (INF, 0.2, 0.8)
    # The worst negative scores as high as anything: only flagging nothing spares it.
    none = choose_operating_point(Y, SCORES[::-1], specificity=0.8)
    assert (none.threshold, none.sensitivity, none.specificity) == (INF, 0, 1)
    assert none.predict(SCORES).sum() == 0


def test_thresholds_are_the_best_of_all_that_there_are():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 12, 80) / 4  # many ties
        y = rng.integers(0, 2, 80)
        share = rng.uniform(0.1, 0.9)
        candidates = np.append(np.unique(scores), INF)
        ill, well = scores[y == 1], scores[y == 0]
        found = np.array([(ill >= t).sum() for t in candidates]) / (len(ill) + 1)
        spared = np.array([(well < t).sum() for t in candidates]) / (len(well) + 1)
        by_sensitivity = choose_operating_point(y, scores, sensitivity=share)
        assert by_sensitivity.threshold == candidates[found >= share].max()
        by_specificity = choose_operating_point(y, scores, specificity=share)
        assert by_specificity.threshold == candidates[spared >= share].min()


def test_rounding_does_not_move_the_threshold():
    # 0.95 * 20 and 0.7 * 10 are no integers in floating point.
    for n, share, kept in [(19, 0.95, 19), (9, 0.7, 7), (99, 0.57, 57)]:
        y = np.ones(n + 1)
        y[-1] = 0
        point = choose_operating_point(y, np.arange(n + 1.0), sensitivity=share)
        assert point.threshold == n - kept


@pytest.mark.parametrize(("n", "rank"), [(45, 1), (76, 1), (77, 2), (200, 6)])
def test_confidence_takes_the_rank_of_a_tolerance_bound(n, rank):
    # 77 of 95 % with confidence 90 % is a known table's entry for the second smallest.
    y, scores = np.r_[np.ones(n), 0], np.arange(n + 1.0)
    point = choose_operating_point(y, scores, sensitivity=0.95, confidence=0.9)
    assert point.threshold == rank - 1
    exact = [beta.sf(0.95, n + 1 - k, k) >= 0.9 for k in (rank, rank + 1)]
    assert exact == [True, False]
    spared = choose_operating_point(1 - y, -scores, specificity=0.95, confidence=0.9)
    # A negative is spared below the threshold: the next higher score is needed.
    assert spared.threshold == -(rank - 2 if rank > 1 else -INF)


def test_patients_count_once_whatever_the_number_of_their_images():
    rng = np.random.default_rng(0)
    scores, y = rng.normal(size=90), np.ones(90)
    for confidence in (None, 0.9):
        share = {"sensitivity": 0.9, "confidence": confidence}
        alone = choose_operating_point(y, scores, groups=np.arange(90), **share)
        assert alone.threshold == choose_operating_point(y, scores, **share).threshold
        # The same image three times is one opinion.
        repeated = choose_operating_point(
            np.repeat(y, 3), np.repeat(scores, 3), groups=np.arange(270) // 3, **share
        )
        assert repeated.threshold == alone.threshold
    # A patient of a hundred images that nothing finds is one of ten.
    y, groups = np.ones(109), np.r_[np.arange(9), np.full(100, 9)]
    scores = np.r_[np.arange(9.0), np.full(100, -1.0)]
    point = choose_operating_point(y, scores, sensitivity=0.8, groups=groups)
    assert point.threshold == 0


@pytest.mark.parametrize("kind", ["sensitivity", "specificity"])
@pytest.mark.parametrize("several", [False, True])
def test_promises_are_kept_on_new_patients(kind, several):
    reached: dict = {None: [], 0.9: []}
    sign = 1 if kind == "sensitivity" else -1
    for draw in range(300):
        rng = np.random.default_rng([draw, several])
        n_images = rng.integers(1, 6, 120) if several else np.ones(120, int)
        groups = np.repeat(np.arange(120), n_images)
        ill = (groups < 60).astype(int)
        scores = np.sqrt(0.6) * rng.normal(size=120)[groups]
        scores += np.sqrt(0.4) * rng.normal(size=len(groups)) + ill
        centre = 1.0 if kind == "sensitivity" else 0.0
        for confidence, found in reached.items():
            point = choose_operating_point(
                ill, scores, groups=groups, confidence=confidence, **{kind: 0.9}
            )
            found.append(norm.sf(sign * (point.threshold - centre)))
    # Three standard errors below what is promised.
    assert np.mean(reached[None]) > 0.9 - 3 * np.std(reached[None]) / 300**0.5
    assert np.mean(reached[None]) < 0.93
    assert np.mean(np.array(reached[0.9]) < 0.9) < 0.1 + 3 * (0.09 / 300) ** 0.5


def test_the_promise_is_said():
    y, scores = Y * 20, np.arange(200)
    plain = choose_operating_point(y, scores, sensitivity=0.9)
    assert plain.promise.startswith("In the mean over such thresholds, the sens")
    sure = choose_operating_point(y, scores, specificity=0.9, confidence=0.8)
    assert sure.promise.startswith("With confidence 0.8, the specificity on new")
    assert sure.confidence == 0.8


def test_several_findings_and_unknown_labels():
    rng = np.random.default_rng(0)
    y = pd.DataFrame({"effusion": rng.integers(0, 2, 200), "nodule": 1.0})
    y.loc[::2, "nodule"] = 0.0
    y.loc[:99, "nodule"] = np.nan
    scores = rng.normal(size=(200, 2)) + y.fillna(0).to_numpy()
    points = choose_operating_point(y, scores, sensitivity=0.9)
    assert list(points) == ["effusion", "nodule"]
    assert points["nodule"].finding == "nodule"
    assert (points["nodule"].n_positive, points["nodule"].n_negative) == (50, 50)
    alone = choose_operating_point(y["nodule"][100:], scores[100:, 1], sensitivity=0.9)
    assert points["nodule"].threshold == alone.threshold
    report = points["nodule"].report(y["nodule"], scores[:, 1])
    assert report.loc["prevalence", "n"] == 100
    pd.testing.assert_frame_equal(
        report, alone.report(y["nodule"][100:], scores[100:, 1])
    )
    numbered = choose_operating_point(y.to_numpy(), scores, sensitivity=0.9)
    assert list(numbered) == [0, 1]
    assert numbered[1].threshold == points["nodule"].threshold
    nullable = y.astype({"nodule": "Int64"})
    again = choose_operating_point(nullable, scores, sensitivity=0.9)
    assert again["nodule"].threshold == points["nodule"].threshold
    wrong = pd.DataFrame(scores, columns=["nodule", "effusion"])
    with pytest.raises(ValueError, match="scores") as e:
        choose_operating_point(y, wrong, sensitivity=0.9)
    assert "y_score[['effusion', 'nodule']]" in str(e.value)
    other = wrong.rename(columns={"nodule": "p_effusion", "effusion": "p_nodule"})
    by_place = choose_operating_point(y, other, sensitivity=0.9)
    assert by_place["nodule"].threshold == points["nodule"].threshold


def test_too_few_positives_are_told():
    with pytest.warns(UserWarning, match="5 positive.*19"):
        choose_operating_point(Y, SCORES, sensitivity=0.95)
    with pytest.warns(UserWarning, match="5 negative.*9"):
        choose_operating_point(Y, SCORES, specificity=0.9)
    with pytest.warns(UserWarning, match="45"):
        choose_operating_point(Y * 8, SCORES * 8, sensitivity=0.95, confidence=0.9)
    y, scores = Y * 20, SCORES * 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_operating_point(y, scores, sensitivity=0.95)
        choose_operating_point(y, scores, sensitivity=0.95, confidence=0.9)
    # A hundred positive images, but of ten patients.
    groups = np.repeat(np.arange(10), 20)
    with pytest.warns(UserWarning, match="10 positive"):
        choose_operating_point(y, scores, sensitivity=0.95, groups=groups)


def test_report_by_hand():
    point = OperatingPoint(0.6, ("sensitivity", 0.8), 0.8, 0.8, 5, 5)
    report = point.report(Y, SCORES)
    # Flagged: four positives and the negative at .8.
    expected = {
        "sensitivity": (4, 5),
        "specificity": (4, 5),
        "ppv": (4, 5),
        "npv": (4, 5),
        "prevalence": (5, 10),
        "flagged": (5, 10),
    }
    assert list(report.index) == list(expected)
    for name, (k, n) in expected.items():
        row, q = report.loc[name], t.ppf(0.975, n - 1)
        assert row["value"] == k / n
        assert row["n"] == n
        for bound in row[["low", "high"]]:  # Wilson's, of n - 1 and with t
            spread = q * np.sqrt(bound * (1 - bound) / (n - 1))
            assert abs(k / n - bound) == pytest.approx(spread)
    wide = point.report(Y, SCORES, level=0.99)
    assert (wide["low"] < report["low"]).all()


def test_report_of_nothing_flagged_has_no_ppv():
    never = OperatingPoint(INF, ("specificity", 1.0), 0.0, 1.0, 5, 5)
    for groups in (None, np.arange(10)):
        report = never.report(Y, SCORES, groups=groups)
        assert report.loc["ppv", ["value", "low", "high"]].isna().all()
        assert report.loc["ppv", "n"] == 0
        assert report.loc["sensitivity", "value"] == 0
        # 0 of 5: between 0 and 52%, however often patients are drawn again.
        assert report.loc["sensitivity", "high"] == pytest.approx(1 - 0.025 ** (1 / 5))
        assert report.loc["specificity", "low"] == pytest.approx(0.025 ** (1 / 5))


def test_patients_widen_intervals():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 5)
    y = np.repeat(rng.integers(0, 2, 60), 5)
    scores = y + np.repeat(rng.normal(size=60), 5)  # alike within a patient
    point = choose_operating_point(y, scores, sensitivity=0.8)
    exact = point.report(y, scores)
    grouped = point.report(y, scores, groups=patients)
    np.testing.assert_array_equal(grouped["value"], exact["value"])
    width = grouped["high"] - grouped["low"]
    assert (width > 1.5 * (exact["high"] - exact["low"])).all()
    # One image a patient is as good as no patients.
    single = point.report(y[::5], scores[::5], groups=patients[::5])
    alone = point.report(y[::5], scores[::5])
    pd.testing.assert_frame_equal(single, alone)


def test_sklearn_takes_the_threshold_with_the_same_comparison():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    X = rng.normal(size=(300, 3)) + y[:, None]
    clf = LogisticRegression().fit(X, y)
    for method, scores in [
        ("predict_proba", clf.predict_proba(X)[:, 1]),
        ("decision_function", clf.decision_function(X)),
    ]:
        point = choose_operating_point(y, scores, sensitivity=0.9)
        fixed = FixedThresholdClassifier(
            FrozenEstimator(clf), threshold=point.threshold, response_method=method
        ).fit(X, y)
        # The chosen score itself is among them: >, not >=, would differ.
        np.testing.assert_array_equal(fixed.predict(X), point.predict(scores))
        assert point.predict(scores)[scores == point.threshold].all()


def test_errors_say_what_was_wrong():
    def choose(y, scores, **share):
        return choose_operating_point(y, scores, **(share or {"sensitivity": 0.5}))

    for share in ({"sensitivity": 0.9, "specificity": 0.9}, {"sensitivity": None}):
        with pytest.raises(ValueError, match="exactly"):
            choose(Y, SCORES, **share)
    for value in (0, 1, 1.1, 95):
        with pytest.raises(ValueError, match="above"):
            choose(Y, SCORES, sensitivity=value)
        with pytest.raises(ValueError, match="confidence"):
            choose(Y, SCORES, sensitivity=0.5, confidence=value)
    with pytest.raises(ValueError, match="positive image"):
        choose([0, 0], [0.1, 0.2])
    with pytest.raises(ValueError, match="finding 1"):
        choose(np.array([[1, 0], [1, 0], [0, 0]]), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="known"):
        choose([np.nan, np.nan], [0.1, 0.2])
    with pytest.raises(ValueError, match="-1.*replace"):
        choose([1, 0, -1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="values.*'yes'"):
        choose(["yes", "no"], [0.1, 0.2])
    for swapped in ([0.1, 0.9], [-3.5, 2.0], [np.nan, 0.5]):
        with pytest.raises(ValueError, match="swapped"):
            choose(swapped, [0, 1])
    with pytest.raises(ValueError, match="hold NaN"):
        choose([1, 0], [np.nan, 0.2])
    with pytest.raises(ValueError, match=r"predict_proba\(X\)\[:, 1\]"):
        choose([1, 0], np.full((2, 2), 0.5))
    point = choose([1, 1, 0, 0], [4, 3, 2, 1])
    with pytest.raises(ValueError, match="one finding"):
        point.report(np.eye(2), np.eye(2))
    for groups in (None, np.arange(4)):
        with pytest.raises(ValueError, match="level"):
            point.report([1, 1, 0, 0], [4, 3, 2, 1], groups=groups, level=95)
    blank = ["a", None, "b", "b"]
    with pytest.raises(ValueError, match="1 of"):
        point.report([1, 1, 0, 0], [4, 3, 2, 1], groups=blank)
    with pytest.raises(ValueError, match="1 NaN"):
        point.predict([np.nan, 1])
    with pytest.raises(FrozenInstanceError):
        point.threshold = 0.5


def test_scores_of_unknown_labels_may_be_anything():
    point = choose_operating_point(
        [1, 1, 0, np.nan], [3, 2, 1, np.nan], sensitivity=0.3
    )
    assert point.threshold == 3
