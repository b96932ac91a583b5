"""Parts of the room by themselves: the choice of a setting, the solver's basis."""

import numpy as np
import pytest

from sk_medsiglip.heads import _eigenbasis, _scores


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
