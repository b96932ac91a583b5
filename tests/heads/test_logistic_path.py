"""The batched solver against scikit-learn's, on inputs that are kind and unkind."""

import numpy as np
import pytest
from scipy.special import expit, log_expit, log_softmax
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

from sk_medsiglip.heads import fit_logistic_path

CS = np.array([1e-4, 1e-2, 1.0, 1e2, 1e4])


def make_data(n, d, n_classes=2, random_state=0):
    X, y = make_classification(
        n,
        d,
        n_informative=min(d - 1, 6),
        n_redundant=0,
        n_classes=n_classes,
        class_sep=0.7,
        flip_y=0.1,
        random_state=random_state,
    )
    return X, y


def objective(X, y, weight, coef, intercept, C):
    """Return scikit-learn's objective of one problem, in float64."""
    X = X.astype(np.float64)
    logits = X @ coef.T + intercept
    if logits.shape[1] == 1:
        losses = -log_expit(np.where(y == 1, logits[:, 0], -logits[:, 0]))
    else:
        losses = -log_softmax(logits, axis=1)[np.arange(len(y)), y]
    return C * (weight * losses).sum() + 0.5 * (coef**2).sum()


def reference(X, y, weight, C, fit_intercept=True):
    """Return scikit-learn's best objective."""
    model = LogisticRegression(
        C=C, tol=1e-10, max_iter=100_000, fit_intercept=fit_intercept
    )
    model.fit(X.astype(np.float64), y, sample_weight=weight)
    return model, objective(X, y, weight, model.coef_, model.intercept_, C)


def kinds():
    """Yield names and data, each unkind in one way."""
    rng = np.random.default_rng(0)
    X, y = make_data(200, 12)
    yield "well conditioned", X, y
    yield "badly conditioned", X * np.logspace(0, -6, 12), y
    yield "unscaled columns", X * np.logspace(-3, 3, 12), y
    yield "scaled by 1e-8", X * 1e-8, y
    yield "scaled by 1e8", X * 1e8, y
    yield "far from the origin", X + 1000.0, y
    yield "collinear", np.hstack([X, X[:, :4] + X[:, 4:8], X[:, :1]]), y
    yield "constant columns", np.hstack([X, np.ones((200, 2)), np.zeros((200, 1))]), y
    yield "separable", np.hstack([X, (y * 2.0 - 1)[:, None]]), y
    yield "more columns than rows", rng.normal(size=(40, 200)), y[:40]
    yield "many rows", *make_data(4000, 10)
    rare = np.flatnonzero(y == 1)[5:]
    yield "imbalanced", np.delete(X, rare, 0), np.delete(y, rare)
    yield "three classes", *make_data(200, 12, 3)
    yield "five classes, separable", rng.normal(size=(60, 100)), np.arange(60) % 5
    yield "one column", X[:, :1], y
    yield "no column says anything", np.zeros((50, 3)), y[:50]


KINDS = {name: (X, y) for name, X, y in kinds()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::RuntimeWarning:sklearn")
@pytest.mark.filterwarnings("ignore::scipy.optimize.OptimizeWarning")
def test_objective_is_that_of_scikit_learn(kind):
    X, y = KINDS[kind]
    path = fit_logistic_path(X, y, CS)
    for i, C in enumerate(CS):
        _, best = reference(X, y, np.ones(len(y)), C)
        coef, intercept = path.coef[0, i], path.intercept[0, i]
        reached = objective(X, y, np.ones(len(y)), coef, intercept, C)
        # Rounding in X @ coef itself is the floor where logits are huge.
        assert reached <= best * (1 + 1e-6) + 1e-12, C
        assert path.objective[0, i] == pytest.approx(reached, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_coefficients_and_probabilities_agree(n_classes):
    X, y = make_data(300, 15, n_classes)
    folds = list(StratifiedKFold(3).split(X, y))
    path = fit_logistic_path(X, y, CS[:4], folds, tol=1e-12)
    for f, (train, test) in enumerate(folds):
        for i, C in enumerate(CS[:4]):
            model = LogisticRegression(C=C, tol=1e-10, max_iter=100_000)
            model.fit(X[train], y[train])
            np.testing.assert_allclose(path.coef[f, i], model.coef_, atol=1e-4)
            np.testing.assert_allclose(
                path.intercept[f, i] - path.intercept[f, i].mean() * (n_classes > 2),
                model.intercept_ - model.intercept_.mean() * (n_classes > 2),
                atol=1e-4,
            )
            logits = path.decision[f, i][test]
            expected = model.decision_function(X[test])
            if n_classes == 2:
                np.testing.assert_allclose(
                    expit(logits[:, 0]), expit(expected), atol=1e-4
                )
            else:
                np.testing.assert_allclose(
                    log_softmax(logits, 1), log_softmax(expected, 1), atol=1e-3
                )


def test_without_intercept():
    X, y = make_data(200, 12)
    X = X + 0.5
    path = fit_logistic_path(X, y, CS, fit_intercept=False)
    assert not path.intercept.any()
    for i, C in enumerate(CS):
        _, best = reference(X, y, np.ones(200), C, fit_intercept=False)
        reached = objective(X, y, np.ones(200), path.coef[0, i], 0.0, C)
        assert reached <= best * (1 + 1e-6)


def test_sample_weights_count():
    X, y = make_data(200, 12)
    weight = np.random.default_rng(0).integers(0, 4, 200).astype(float)
    path = fit_logistic_path(X, y, CS, sample_weight=weight)
    repeated = np.repeat(np.arange(200), weight.astype(int))
    again = fit_logistic_path(X[repeated], y[repeated], CS)
    np.testing.assert_allclose(path.objective, again.objective, rtol=1e-6)
    np.testing.assert_allclose(path.coef, again.coef, atol=1e-3)


@pytest.mark.parametrize("shape", [(30, 50), (120, 20)])
def test_rows_that_a_fold_leaves_out_do_not_touch_its_fit(shape):
    X, y = make_data(*shape)
    folds = list(KFold(3, shuffle=True, random_state=0).split(X))
    path = fit_logistic_path(X, y, [1.0], folds, tol=1e-12)
    for f, (train, test) in enumerate(folds):
        # What is left out may be anything, even in other directions and scales.
        other = X.copy()
        other[test] = 50 * np.random.default_rng(f).normal(size=X[test].shape)
        labels = y.copy()
        labels[test] = 1 - labels[test]
        changed = fit_logistic_path(other, labels, [1.0], [folds[f]], tol=1e-12)
        np.testing.assert_allclose(path.coef[f], changed.coef[0], atol=1e-4)
        alone = fit_logistic_path(X[train], y[train], [1.0], tol=1e-12)
        np.testing.assert_allclose(path.coef[f], alone.coef[0], atol=1e-4)


def test_several_labels_are_solved_each_by_itself():
    X, _ = make_data(150, 10)
    rng = np.random.default_rng(0)
    Y = (X @ rng.normal(size=(10, 3)) + rng.normal(size=(150, 3)) > 0).astype(float)
    Y[rng.random(Y.shape) < 0.3] = np.nan
    folds = list(KFold(3).split(X))
    path = fit_logistic_path(X, Y, CS, folds, tol=1e-12)
    assert path.classes is None
    assert path.coef.shape == (3, 5, 3, 10)
    assert path.decision.shape == (3, 5, 150, 3)
    assert path.objective.shape == path.n_iter.shape == (3, 5, 3)
    for f, (train, _) in enumerate(folds):
        for label in range(3):
            known = train[~np.isnan(Y[train, label])]
            one = fit_logistic_path(X[known], Y[known, label], CS, tol=1e-12)
            np.testing.assert_allclose(
                path.objective[f, :, label], one.objective[0], rtol=1e-6
            )
            np.testing.assert_allclose(
                path.coef[f, :, label], one.coef[0, :, 0], atol=1e-3
            )


def test_parts_make_the_whole(monkeypatch):
    X, y = make_data(100, 10, 3)
    Y = np.column_stack([y == 0, y == 1]).astype(float)
    folds = list(StratifiedKFold(3).split(X, y))
    whole = fit_logistic_path(X, y, CS, folds), fit_logistic_path(X, Y, CS, folds)
    monkeypatch.setattr("sk_medsiglip.heads._logistic_path.MOST_ELEMENTS", 100 * 3 * 4)
    parts = fit_logistic_path(X, y, CS, folds), fit_logistic_path(X, Y, CS, folds)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.coef, other.coef, atol=1e-2)
        np.testing.assert_allclose(one.decision, other.decision, atol=1e-2)
        np.testing.assert_allclose(one.objective, other.objective, rtol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_float32_is_computed_in_float32(n_classes):
    X, y = make_data(500, 30, n_classes)
    small = fit_logistic_path(X.astype(np.float32), y, CS)
    exact = fit_logistic_path(X, y, CS)
    assert small.decision.dtype == np.float32
    assert exact.decision.dtype == np.float64
    assert small.converged.all()
    np.testing.assert_allclose(small.objective, exact.objective, rtol=1e-5)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_torch_agrees_with_numpy(n_classes, dtype, monkeypatch):
    X, y = make_data(200, 12, n_classes)
    folds = list(StratifiedKFold(3).split(X, y))
    ours = fit_logistic_path(X.astype(dtype), y, CS, folds)
    # "cpu" is numpy's; "cpu:0" is torch's name for the same processor.
    torchs = fit_logistic_path(X.astype(dtype), y, CS, folds, device="cpu:0")
    tight = 1e-6 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(ours.objective, torchs.objective, rtol=tight)
    np.testing.assert_allclose(ours.decision, torchs.decision, atol=0.05)
    assert torchs.decision.dtype == dtype


def test_too_few_steps_are_reported():
    X, y = make_data(200, 12)
    path = fit_logistic_path(X, y, [1e4], max_iter=2)
    assert not path.converged.any()
    assert (path.n_iter == 2).all()


def test_a_fold_without_one_of_the_classes():
    X, y = make_data(90, 5, 3)
    train = np.flatnonzero(y != 2)
    path = fit_logistic_path(X, y, [1.0], [(train, [])])
    assert np.isfinite(path.coef).all()
    assert path.decision[0, 0].argmax(1).max() == 1
    only = np.flatnonzero(y == 1)
    binary = np.isin(y, [1, 2]).astype(int)
    path = fit_logistic_path(X, binary, [1.0, 1e4], [(only, [])])
    assert (path.decision > 0).all()
    assert np.isfinite(path.intercept).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"Cs": [0.0]}, "Cs must be positive"),
        ({"Cs": []}, "Cs must be positive"),
        ({"Cs": [np.inf]}, "Cs must be positive"),
        ({"y": np.zeros(20)}, "one class"),
        ({"y": np.full((20, 2), 2)}, "got 2"),
        ({"y": [0, 1]}, "inconsistent numbers"),
        ({"folds": [([], [])]}, "rows"),
        ({"sample_weight": np.ones(3)}, "sample_weight.shape"),
    ],
)
def test_wrong_arguments_are_refused(change, match):
    X, y = make_data(20, 5)
    arguments = {"X": X, "y": y, "Cs": [1.0]} | change
    with pytest.raises(ValueError, match=match):
        fit_logistic_path(**arguments)
