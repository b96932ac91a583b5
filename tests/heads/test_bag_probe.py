"""BagProbe: its objective in a few lines, and what must not change its answers."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_expit, logsumexp
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict

from sk_medsiglip.heads import BagProbe, LinearProbe, _bag_space, _logistic_loss

CS = [0.01, 0.1, 1.0]


def make_bags(n, *, shape=(4, 6), random_state=0):
    """Return bags of noise; in half of them one instance differs."""
    rng = np.random.default_rng(random_state)
    X = rng.normal(size=(n, *shape)).astype(np.float32)
    y = np.arange(n) % 2
    place = rng.integers(shape[0], size=n)
    X[np.arange(n), place, 0] += 4.0 * y
    return X @ rng.normal(size=(shape[1], shape[1])).astype(np.float32), y, place


@pytest.fixture(scope="module")
def made():
    return make_bags(120)


@pytest.fixture(scope="module")
def X(made):
    return made[0]


@pytest.fixture(scope="module")
def y(made):
    return made[1]


@pytest.fixture
def padded(X):
    X = X.copy()
    X[::3, 1] = np.nan
    X[1::5, 2:] = np.nan
    return X


class LazyBags:
    """Bags that are read when they are sliced, as those of a store are."""

    longest_read = 0

    def __init__(self, X, rows=None):
        self._X = X
        self._rows = np.arange(len(X)) if rows is None else rows
        self.shape, self.dtype = (len(self._rows), *X.shape[1:]), X.dtype

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, key):
        key = key[0] if isinstance(key, tuple) else key
        return LazyBags(self._X, self._rows[key])

    def __array__(self, dtype=None, copy=None):
        LazyBags.longest_read = max(LazyBags.longest_read, len(self))
        return np.asarray(self._X[self._rows], dtype=dtype)


def pool(scores):
    """Return the smooth maximum of each bag; NaN is not there."""
    n = (~np.isnan(scores)).sum(axis=1)
    top = logsumexp(np.where(np.isnan(scores), -np.inf, 4 * scores), axis=1)
    return (top - np.log(n)) / 4


def whiten(instances):
    """Return mean and a matrix after which the variance is 1, but for shrinkage."""
    n, width = instances.shape
    mean, covariance = instances.mean(0), np.cov(instances.T, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    return mean, vectors / np.sqrt(values + 0.1 * width / n * values.mean())


def same(one, other, atol=2e-3):
    np.testing.assert_allclose(one, other, atol=atol)


# ---------------------------------------------------------------------- the objective


@pytest.mark.parametrize("pooled_row", [False, True])
def test_gradient_is_that_of_the_objective_by_differences(padded, y, pooled_row):
    X = padded.copy()
    if pooled_row:
        X[:, -1] = np.nan_to_num(X).sum(axis=1)
    space = _bag_space.make_bag_space(X, np.ones(len(X)), pooled_row=pooled_row)
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(space.width, 1)).astype(np.float32)

    def objective(v):
        coef, intercept = space.coefficients(v.astype(np.float64))
        n_parts = X.shape[1] - pooled_row
        scores = X[:, :n_parts].astype(float) @ coef[0, : X.shape[2]]
        logits = pool(scores) + intercept[0]
        if pooled_row:
            logits += X[:, -1].astype(float) @ coef[0, X.shape[2] :]
        return -log_expit(np.where(y == 1, logits, -logits)).sum()

    signs = (2.0 * y - 1)[:, None].astype(np.float32)
    loss = space.wrap(_logistic_loss.BinaryLoss(signs, np.ones_like(signs)))
    way = space.rows @ weights
    point = loss.look(np.zeros_like(way), way, np.ones(1, np.float32))
    found = (space.rows.T @ point.residuals)[:, 0]
    expected = []
    for step in 1e-5 * np.eye(space.width):
        step = step[:, None]
        expected.append((objective(weights + step) - objective(weights - step)) / 2e-5)
    same(point.loss, objective(weights), atol=1e-3)
    same(found, expected, atol=1e-3)


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_one_instance_is_a_row(X, y, C):
    rows = X[:, 0]
    mean, basis = whiten(rows.astype(float))
    plain = LogisticRegression(C=C, tol=1e-10).fit((rows - mean) @ basis, y)
    probe = BagProbe([C], tol=1e-9).fit(X[:, :1], y)
    same(
        probe.decision_function(X[:, :1]),
        plain.decision_function((rows - mean) @ basis),
        atol=1e-4,
    )


def test_it_finds_what_a_mean_loses():
    X, y, place = make_bags(400, shape=(8, 6), random_state=1)
    train, test = slice(300), slice(300, None)
    probe = BagProbe().fit(X[train], y[train])
    of_means = LinearProbe().fit(X[train].mean(axis=1), y[train])
    found = roc_auc_score(y[test], probe.decision_function(X[test]))
    lost = roc_auc_score(y[test], of_means.decision_function(X[test].mean(axis=1)))
    assert found > max(0.9, lost + 0.05)
    ill = np.flatnonzero(y[test])
    where = probe.instance_scores(X[test])[ill].argmax(axis=1)
    assert (where == place[test][ill]).mean() > 0.8


def test_a_bag_scores_between_the_mean_and_the_largest_instance(padded, y):
    probe = BagProbe([1.0]).fit(padded, y)
    scores = probe.instance_scores(padded)
    assert scores.shape == padded.shape[:2]
    np.testing.assert_array_equal(np.isnan(scores), np.isnan(padded).all(axis=2))
    same(probe.decision_function(padded), pool(scores), atol=1e-5)


# ------------------------------------------------------------- what must change nothing


@pytest.mark.parametrize("pooled_row", [False, True])
def test_order_and_padding_of_instances_change_nothing(padded, y, pooled_row):
    last = np.nan_to_num(padded).sum(axis=1, keepdims=True)
    bags = np.concatenate([padded, last], axis=1) if pooled_row else padded
    probe = BagProbe(CS, pooled_row=pooled_row, tol=1e-8).fit(bags, y)
    rng = np.random.default_rng(0)
    shuffled = np.stack([bag[rng.permutation(len(bag))] for bag in padded])
    longer = np.concatenate([shuffled, np.full_like(padded, np.nan)], axis=1)
    if pooled_row:
        longer = np.concatenate([longer, last], axis=1)
    same(probe.decision_function(longer), probe.decision_function(bags), atol=1e-5)
    again = BagProbe(CS, pooled_row=pooled_row, tol=1e-8).fit(longer, y)
    assert again.C_ == probe.C_
    same(again.decision_function(bags), probe.decision_function(bags))


def test_repeated_instances_change_nothing(X, y):
    probe = BagProbe([0.1], tol=1e-8).fit(X, y)
    twice = np.concatenate([X, X], axis=1)
    same(probe.decision_function(twice), probe.decision_function(X), atol=1e-5)
    again = BagProbe([0.1], tol=1e-8).fit(twice, y)
    same(again.decision_function(X), probe.decision_function(X))


def test_weights_are_repeats_and_zero_is_absence(padded, y):
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    folds = np.arange(len(y)) % 3
    rows = np.repeat(np.arange(len(y)), weight)

    def cv(of):
        return [(np.flatnonzero(of != k), np.flatnonzero(of == k)) for k in range(3)]

    weighted = BagProbe(CS, cv=cv(folds), tol=1e-8)
    weighted.fit(padded, y, sample_weight=weight)
    repeated = BagProbe(CS, cv=cv(folds[rows]), tol=1e-8).fit(padded[rows], y[rows])
    assert weighted.C_ == repeated.C_
    same(weighted.scores_, repeated.scores_)
    same(weighted.decision_function(padded), repeated.decision_function(padded))


@pytest.mark.parametrize("pooled_row", [False, True])
def test_lazy_bags_are_dense_ones(X, y, monkeypatch, pooled_row):
    monkeypatch.setattr("sk_medsiglip.heads._bag_space._PIECE", 20 * X[0].size)
    X = X.copy()
    X[::3, 1] = np.nan
    dense = BagProbe(CS, pooled_row=pooled_row).fit(X, y)
    monkeypatch.setattr(LazyBags, "longest_read", 0)
    for held in (2**30, 0):  # kept in memory, or read at every step
        monkeypatch.setattr("sk_medsiglip.heads._bag_space._MOST_HELD", held)
        lazy = BagProbe(CS, pooled_row=pooled_row).fit(LazyBags(X), y)
        same(lazy.scores_, dense.scores_, atol=1e-5)
        same(lazy.predict_proba(LazyBags(X)), dense.predict_proba(X), atol=1e-5)
        same(lazy.instance_scores(LazyBags(X)), dense.instance_scores(X), atol=1e-4)
    assert LazyBags.longest_read == 20


def test_memory_maps_and_other_types_are_read(X, y, tmp_path):
    np.save(tmp_path / "bags.npy", X)
    mapped = np.load(tmp_path / "bags.npy", mmap_mode="r")
    dense = BagProbe(CS).fit(X, y)
    for other in (mapped, X.astype(np.float64), X.tolist()):
        again = BagProbe(CS).fit(other, y)
        same(again.decision_function(other), dense.decision_function(X), atol=1e-4)


# ------------------------------------------------------------------------------ labels


def test_several_classes(X, y):
    names = np.where(y == 1, np.where(np.arange(len(y)) % 3, "a", "b"), "none")
    probe = BagProbe(CS).fit(X, names)
    assert probe.classes_.tolist() == ["a", "b", "none"]
    assert probe.coef_.shape == (3, X.shape[2])
    assert probe.instance_scores(X).shape == (*X.shape[:2], 3)
    proba = probe.predict_proba(X)
    same(proba.sum(axis=1), 1, atol=1e-9)
    assert set(probe.predict(X)) <= set(names)
    same(np.exp(probe.predict_log_proba(X)), proba, atol=1e-9)


def test_several_findings_with_blanks_are_probes_side_by_side(X, y):
    rng = np.random.default_rng(0)
    Y = np.column_stack([y, rng.permutation(y)]).astype(float)
    Y[rng.random(Y.shape) < 0.2] = np.nan
    together = BagProbe(CS, tol=1e-8).fit(X, pd.DataFrame(Y, columns=["spot", "noise"]))
    assert together.label_names_.tolist() == ["spot", "noise"]
    assert together.predict_proba(X).shape == Y.shape
    assert together.instance_scores(X).shape == (*X.shape[:2], 2)
    for k, target in enumerate(Y.T):
        alone = BagProbe(CS, tol=1e-8).fit(X, target)
        assert together.C_[k] == alone.C_
        # Whitening sees the bags whose label is blank, too, where there are others.
        same(together.decision_function(X)[:, k], alone.decision_function(X), atol=0.2)


def test_groups_stay_together(X, y):
    groups = np.arange(len(y)) // 6
    folds = GroupKFold(4)
    by_splitter = BagProbe(CS, cv=folds).fit(X, y, groups=groups)
    by_hand = BagProbe(CS, cv=list(folds.split(X, y, groups))).fit(X, y)
    same(by_splitter.scores_, by_hand.scores_, atol=1e-6)
    assert BagProbe(CS).fit(X, y, groups=groups).scores_.shape == (5, 1, 3)
    with pytest.raises(ValueError, match="groups"):
        BagProbe().fit(X, y, groups=groups[:-1])


def test_few_labels_never_raise(X):
    with pytest.warns(UserWarning, match="fewer"):
        probe = BagProbe().fit(X[:5], [0, 1, 1, 1, 1])
    assert not hasattr(probe, "scores_")
    assert np.isfinite(probe.predict_proba(X)).all()


@pytest.mark.parametrize("scoring", ["roc_auc", "accuracy"])
def test_scoring_and_averaged_folds(X, y, scoring):
    probe = BagProbe(CS, scoring=scoring, refit=False).fit(X, y)
    assert probe.scores_.max() <= 1
    assert probe.score(X, y) > 0.7


def test_class_weights(X, y):
    rare = np.r_[np.flatnonzero(y == 0), np.flatnonzero(y == 1)[:20]]
    plain, balanced = (
        BagProbe([0.1], class_weight=one).fit(X[rare], y[rare])
        for one in (None, "balanced")
    )
    assert balanced.predict(X).mean() > plain.predict(X).mean()


# --------------------------------------------------------------- the pooled row, errors


def test_the_pooled_row_has_weights_of_its_own(X, y):
    rng = np.random.default_rng(0)
    row = rng.normal(size=(len(y), 1, X.shape[2])).astype(np.float32)
    row[:, 0, 1] += 3.0 * y
    noise = rng.normal(size=X.shape).astype(np.float32)
    bags = np.concatenate([noise, row], axis=1)
    probe = BagProbe(pooled_row=True).fit(bags[:80], y[:80])
    assert probe.coef_.shape == probe.row_coef_.shape == (1, X.shape[2])
    assert probe.instance_scores(bags).shape == noise.shape[:2]
    found = roc_auc_score(y[80:], probe.decision_function(bags[80:]))
    without = BagProbe().fit(noise[:80], y[:80]).decision_function(noise[80:])
    assert found > max(0.85, roc_auc_score(y[80:], without) + 0.2)


def test_a_missing_pooled_row_is_named(padded, y):
    padded[7, -1] = np.nan
    with pytest.raises(ValueError, match="bag 1"):
        BagProbe(pooled_row=True).fit(padded, y)
    with pytest.raises(ValueError, match="bag 0"):
        BagProbe(pooled_row=True).fit(padded[:, :1], y)


def test_what_are_not_bags_is_refused(X, y):
    with pytest.raises(ValueError, match="LinearProbe"):
        BagProbe().fit(X[:, 0], y)
    probe = BagProbe(CS).fit(X, y)
    with pytest.raises(ValueError, match="weights"):
        probe.predict(X[:, :, :3])
    gone = X.copy()
    gone[3] = np.nan
    with pytest.raises(ValueError, match="rows 3"):
        probe.predict(gone)
    with pytest.raises(ValueError, match="rows 3"):
        BagProbe().fit(gone, y)


# ------------------------------------------------------------------- among scikit-learn


def test_in_searches_and_saved(X, y):
    search = GridSearchCV(BagProbe(cv=3), {"Cs": [[0.01], [1.0]]}, cv=3)
    search.fit(LazyBags(X), y)
    best = search.best_estimator_
    again = pickle.loads(pickle.dumps(clone(best).fit(X, y)))
    same(again.predict_proba(X), best.predict_proba(X), atol=1e-5)
    held_out = cross_val_predict(BagProbe(CS), LazyBags(X), y, method="predict_proba")
    assert roc_auc_score(y, held_out[:, 1]) > 0.8


def test_nothing_but_coefficients_is_kept(X, y):
    probe = BagProbe(CS).fit(X, y)
    assert len(pickle.dumps(probe)) < 3000
