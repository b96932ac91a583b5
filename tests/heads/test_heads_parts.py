"""Parts of the room by themselves: settings, the solver's basis, probes of draws."""

import numpy as np
import pytest

from sk_medsiglip import LinearProbe, _labels
from sk_medsiglip.heads import _eigenbasis, _scores, fit_probes


def test_a_setting_is_chosen_for_more_than_chance():
    # Best by .1 on average, but only by one of two folds; then by both.
    unsure = np.array([[-0.5, -0.2], [-0.5, -0.6]])
    sure = np.array([[-0.5, -0.4], [-0.5, -0.41]])
    assert _scores.choose_cautiously(unsure) == 0
    assert _scores.choose_cautiously(sure) == 1
    asked_nobody = np.vstack([sure, [np.nan, np.nan]])
    assert _scores.choose_cautiously(asked_nobody) == 1
    assert _scores.choose_cautiously(sure[:1]) == 1  # of one fold no chance is known


@pytest.mark.parametrize("shape", [(30, 50), (120, 20), (20, 20)])
@pytest.mark.parametrize("scale", [1.0, 1e8, 1e-8])
def test_the_basis_changes_coordinates_only(shape, scale):
    X = scale * np.random.default_rng(0).normal(size=shape) + scale
    basis = _eigenbasis.make_eigenbasis(X, fit_intercept=True)
    rank = basis.basis.shape[1]
    assert rank == min(shape)
    np.testing.assert_allclose(basis.basis.T @ basis.basis, np.eye(rank), atol=1e-12)
    rows = basis.rows[:, :rank]
    np.testing.assert_allclose(rows @ basis.basis.T + basis.mean, X, atol=1e-11 * scale)
    # Columns are orthogonal: that is what makes the preconditioner one.
    gram = rows.T @ rows
    off = gram - np.diag(np.diag(gram))
    assert np.abs(off).max() < 1e-9 * np.abs(gram).max()


@pytest.mark.filterwarnings("ignore:a class.* has fewer than two samples")
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", ["findings", "binary", "classes"])
def test_probes_fitted_together_are_those_fitted_alone(kind, grouped):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 40)).astype(np.float32)
    y = (X[:, :3] + rng.normal(size=(200, 3)) > 0.6).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    patients = np.repeat(np.arange(100), 2)
    if kind == "findings":
        target, classes = y, None
    else:
        target = np.nan_to_num(y).sum(axis=1).astype(int) % (2 + (kind == "classes"))
        classes = np.array(["a", "b", "c"])[: target.max() + 1]
    groups = patients if grouped else None
    # Below, between and above where basis and threads change.
    draws = []
    for n in (7, 25, 160):
        rows = rng.permutation(len(X))[:n]
        if classes is None:
            draws.append((rows, _labels.Labels(None, target[rows])))
        else:
            present, index = np.unique(target[rows], return_inverse=True)
            draws.append((rows, _labels.Labels(classes[present], index)))
    probe = LinearProbe(Cs=5, class_weight="balanced")
    found = list(fit_probes(probe, X, draws, groups))
    for fitted, (rows, labels) in zip(found, draws, strict=True):
        alone = LinearProbe(Cs=5, class_weight="balanced").fit(
            X[rows],
            labels.target if labels.classes is None else labels.classes[labels.target],
            groups=None if groups is None else groups[rows],
        )
        np.testing.assert_array_equal(fitted.classes_, alone.classes_)
        np.testing.assert_allclose(fitted.C_, alone.C_)
        np.testing.assert_allclose(
            fitted.decision_function(X), alone.decision_function(X), atol=0.02
        )
