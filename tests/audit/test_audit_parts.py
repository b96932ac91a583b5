"""Parts of the room by themselves: regressions, exchanges, areas over pairs."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from sk_medsiglip.audit import _pair_auc, _permutations, _ridge


@pytest.mark.parametrize("width", [5, 60])
def test_ridge_of_folds_equals_scikit_learn(width):
    rng = np.random.default_rng(0)
    X, targets = rng.normal(size=(40, width)), rng.normal(size=(40, 3))
    fold = rng.permutation(40) % 4
    expected = np.zeros_like(targets)
    for one in range(4):
        train, test = fold != one, fold == one
        alpha = _ridge.PENALTY * (X[train] ** 2).sum() / min(X.shape)
        model = Ridge(alpha=alpha, fit_intercept=False).fit(X[train], targets[train])
        expected[test] = model.predict(X[test])
    found = _ridge.predict_out_of_folds(X, targets, fold)
    assert np.allclose(found, expected)


def test_explained_part_of_a_target_is_that_of_a_regression():
    rng = np.random.default_rng(0)
    X, target = rng.normal(size=(300, 4)), rng.normal(size=300)
    stratum = rng.integers(0, 2, 300)
    explained = ((target @ _ridge.explaining_rows(X, stratum, 300)) ** 2).sum()
    of_target = _ridge.centred(target[:, None], stratum)[:, 0]
    model = LinearRegression(fit_intercept=False).fit(
        _ridge.centred(X, stratum), of_target
    )
    left = ((of_target - model.predict(_ridge.centred(X, stratum))) ** 2).sum()
    assert explained == pytest.approx((of_target**2).sum() - left, rel=1e-4)


def test_patients_with_the_same_labels_exchange_metadata():
    rng = np.random.default_rng(0)
    patient = np.array([0, 1, 1, 2, 2, 2, 3, 4, 4, 5, 6])
    ill = np.array([0, 1, 0, 0, 0, 0, 1, 0, 0, 1, 0], dtype=bool)
    draws = np.array(list(_permutations.exchanges(patient, ill, 200, rng)))
    assert (ill[draws] == ill).all()
    for draw in draws:
        of = {(a, b) for a, b in zip(patient, patient[draw], strict=True)}
        assert len(of) == len(set(patient)) == len({b for _, b in of})
        assert (draw[1:3] == [1, 2]).all()  # no other patient has both labels
    # A patient with as many images as the giver takes each of its images once.
    taken = draws[:, patient == 4][patient[draws[:, 7]] == 4]
    assert (np.sort(taken, axis=1) == [7, 8]).all()
    assert len(np.unique(taken, axis=0)) == 2


def test_areas_over_pairs():
    rng = np.random.default_rng(0)
    ill, level = rng.integers(0, 2, 60), rng.integers(0, 3, 60)
    score = np.round(rng.normal(size=60) + ill, 1)
    rate = np.array([ill[level == one].mean() for one in range(3)])
    won = {"all": [], "within": [], "conflicting": []}
    for i in np.flatnonzero(ill == 1):
        for j in np.flatnonzero(ill == 0):
            wins = (score[i] > score[j]) + (score[i] == score[j]) / 2
            won["all"].append(wins)
            if level[i] == level[j]:
                won["within"].append(wins)
            if rate[level[i]] < rate[level[j]]:
                won["conflicting"].append(wins)
    assert _pair_auc.auc_within(ill, score, level * 0) == pytest.approx(
        np.mean(won["all"])
    )
    assert _pair_auc.auc_within(ill, score, level) == pytest.approx(
        np.mean(won["within"])
    )
    expected = pytest.approx(np.mean(won["conflicting"]))
    assert _pair_auc.auc_conflicting(ill, score, level) == expected
    assert np.isnan(_pair_auc.auc_within(ill * 0, score, level))
