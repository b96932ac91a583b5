"""Parts of the room by themselves: quantiles, temperatures, maps."""

from math import ceil

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from sk_medsiglip.zero_shot import (
    _calibration,
    _conformal_sets,
    _conformal_split,
    _heatmap,
)

# ------------------------------------------------------------------- conformal sets


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("n", [1, 4, 9, 10, 19, 20, 39, 100])
def test_quantile_of_single_images_is_the_usual_order_statistic(n, alpha):
    scores = np.random.default_rng(n).random(n)
    rank = ceil((n + 1) * (1 - alpha) - 1e-9)
    expected = np.sort(scores)[rank - 1] if rank <= n else np.inf
    assert _conformal_sets.patient_quantile(scores, np.arange(n), alpha) == (
        expected,
        n,
    )
    assert (n >= _conformal_sets.needed_patients(alpha)) == np.isfinite(expected)


def test_weighted_quantile_by_hand():
    # Patients of 1, 2 and 4 images; weights 1/4, 1/8, 1/16 of a total of 1, with 1/4
    # at infinity. Running sums in the order of scores:
    # .1: 1/16, .2: 3/16, .3: 7/16, .4: 9/16, .5: 10/16, .6: 11/16, .7: 12/16
    scores = np.array([0.3, 0.2, 0.4, 0.1, 0.5, 0.6, 0.7])
    patients = np.array([0, 1, 1, 2, 2, 2, 2])
    for alpha, expected in [
        (0.25, 0.7),
        (0.3, 0.7),
        (0.5, 0.4),
        (7 / 16, 0.4),
        (0.57, 0.3),
        (0.2, np.inf),
    ]:
        assert (
            _conformal_sets.patient_quantile(scores, patients, alpha)[0] == expected
        ), alpha


def test_repeated_images_of_a_patient_change_nothing():
    rng = np.random.default_rng(0)
    scores, patients = rng.random(40), np.arange(40)
    repeats = rng.integers(1, 6, 40)
    again = _conformal_sets.patient_quantile(
        np.repeat(scores, repeats), np.repeat(patients, repeats), 0.1
    )
    assert again == _conformal_sets.patient_quantile(scores, patients, 0.1)


def test_scores_by_hand():
    p = np.array([[0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])
    np.testing.assert_allclose(_conformal_sets.score_classes(p, "lac"), 1 - p)
    np.testing.assert_allclose(
        _conformal_sets.score_classes(p, "aps"),
        [[0, 0.8, 0.5], [0.8, 0.9, 0]],
        atol=1e-12,
    )


@pytest.mark.parametrize("seed", range(10))
def test_what_is_rare_is_taught_and_calibrated(seed):
    rng = np.random.default_rng(seed)
    # Patients of one class each: four of 60 are of the rare one.
    y = np.array(["rare"] * 4 + ["common"] * 56)
    learn, calibrate = _conformal_split.split_patients(y, np.arange(60), 0.5, seed)
    assert (y[learn] == "rare").sum() == (y[calibrate] == "rare").sum() == 2
    assert len(learn) == len(calibrate) == 30
    # Findings: each of the rare ones is in two patients, who share them in a ring.
    findings = np.zeros((60, 5))
    for column in range(4):
        findings[[column, (column + 1) % 4], column] = 1
    findings[:, 4] = rng.random(60) < 0.5
    findings[50:, 4] = np.nan
    for_both = _conformal_split.split_patients(findings, np.arange(60), 0.5, seed)
    shares = np.array([(findings[rows] == 1).sum(axis=0) for rows in for_both])
    assert (shares[:, :4] == 1).all()
    assert abs(np.diff(shares[:, 4])) <= 4
    # A patient counts as rare by any of its images, not by the first.
    patients = np.repeat(np.arange(60), 2)
    second = np.where(np.arange(120) % 2, np.repeat(y, 2), "common")
    learn, calibrate = _conformal_split.split_patients(second, patients, 0.5, seed)
    assert (second[learn] == "rare").sum() == (second[calibrate] == "rare").sum() == 2
    assert not set(patients[learn]) & set(patients[calibrate])
    # One patient of a class teaches: unlearned, it could not be in a set.
    learn, _ = _conformal_split.split_patients(y[3:], np.arange(57), 0.9, seed)
    assert "rare" in y[3:][learn]


# --------------------------------------------------------------------- calibration


def calibrated(found, scores):
    return scores / found.temperature + found.bias


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_labels_are_made_likeliest(n_classes, with_bias):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(300, n_classes)) * 40
    target = np.array([rng.choice(n_classes, p=softmax(s / 20 + np.arange(n_classes)))
                       for s in scores])  # fmt: skip
    found = _calibration.fit_to_labels(scores, target, with_bias=with_bias)

    goal = np.eye(n_classes)[target] * 300 / 301 + 1 / 301 / n_classes
    np.testing.assert_allclose(goal.sum(axis=1), 1)

    def loss(p):
        bias = p[1:] if with_bias else 0
        return -(goal * log_softmax(scores / np.exp(p[0]) + bias, axis=1)).mean()

    best = minimize(loss, np.r_[3.0, np.zeros(n_classes)], tol=1e-12)
    ours = np.r_[np.log(found.temperature), found.bias]
    assert loss(ours) <= best.fun + 1e-9
    assert found.temperature == pytest.approx(np.exp(best.x[0]), rel=1e-3)
    assert found.bias.sum() == pytest.approx(0)
    if not with_bias:
        np.testing.assert_array_equal(found.bias, 0)


def test_scores_that_tell_few_samples_apart_do_not_become_certain():
    scores = np.array([[0, -3.0], [0, -2.0], [0, 2.0], [0, 3.0]])
    found = _calibration.fit_to_labels(scores, np.array([0, 0, 1, 1]), with_bias=True)
    proba = softmax(calibrated(found, scores), axis=1)
    assert 0.8 < proba.max() < 0.95


def test_scores_that_mislead_become_even():
    scores = np.array([[0, -3.0], [0, -2.0], [0, 2.0], [0, 3.0]])
    with pytest.warns(UserWarning, match="scores contradict"):
        found = _calibration.fit_to_labels(
            scores, np.array([1, 1, 0, 0]), with_bias=True
        )
    assert np.isfinite(found.temperature)
    np.testing.assert_allclose(
        softmax(calibrated(found, scores), axis=1), 0.5, atol=1e-3
    )


def test_the_unit_of_scores_does_not_matter():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(200, 3))
    target = scores.argmax(axis=1)
    target[::3] = rng.integers(0, 3, len(target[::3]))
    proba = [
        softmax(
            calibrated(
                _calibration.fit_to_labels(unit * scores, target, with_bias=True),
                unit * scores,
            ),
            axis=1,
        )
        for unit in (1e-4, 1, 1e4)
    ]
    np.testing.assert_allclose(proba[0], proba[1], atol=1e-6)
    np.testing.assert_allclose(proba[2], proba[1], atol=1e-6)


def test_mean_probability_is_the_prevalence():
    scores = np.random.default_rng(2).normal(size=(500, 4)) * 10
    shares = np.array([0.7, 0.2, 0.09, 0.01])
    found = _calibration.fit_to_prevalence(scores, shares)
    assert found.temperature == 1
    np.testing.assert_allclose(
        softmax(calibrated(found, scores), axis=1).mean(axis=0), shares, atol=1e-8
    )


# ------------------------------------------------------------------------ heatmaps


def test_map_on_image_interpolates_between_centres():
    heatmap = np.array([[0.0, 1.0], [2.0, 3.0]])
    at = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    found = _heatmap.map_on_image(heatmap, at, at, (4, 4))
    line = np.array([0, 0, 0.5, 1, 1])
    np.testing.assert_allclose(found, 2 * line[:, None] + line)
    assert np.array_equal(
        _heatmap.map_on_image(np.ones((1, 1)), at, at, (4, 4)), np.ones((5, 5))
    )
