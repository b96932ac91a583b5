"""Linear probes of many subsets of one ``X``, in coordinates that are computed once.

The subsets share the eigenbasis of ``X``. That is only a change of coordinates, so a
subset does not learn from the other rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from joblib import cpu_count
from numpy.typing import NDArray
from sklearn.base import clone
from threadpoolctl import threadpool_limits

from sk_medsiglip._labels import Labels
from sk_medsiglip._splits import Folds, make_folds, with_cv_among
from sk_medsiglip.heads._eigenbasis import Eigenbasis, make_eigenbasis
from sk_medsiglip.heads._linear_probe import LinearProbe
from sk_medsiglip.heads._logistic_path import check_Cs

# Fractions of the width of X. For smaller subsets a basis of their own is cheaper, and
# even smaller ones are too fast for threads.
_OWN_BASIS, _ONE_THREAD = 0.75, 0.2


def fit_probes(
    probe: LinearProbe,
    X: NDArray[np.floating],
    draws: Iterable[tuple[NDArray[np.intp], Labels]],
    groups: NDArray[Any] | None,
) -> Iterator[LinearProbe]:
    """Fit a probe to each subset, with the same solutions as ``probe.fit``.

    Parameters
    ----------
    probe : LinearProbe
        Probe whose parameters are used; it is not fitted.
    X : ndarray of shape (n_samples, n_features), float32 or float64
        All rows.
    draws : iterable of (rows, labels)
        Indices of the rows of each subset, and their labels.
    groups : ndarray of shape (n_samples,) or None
        Patients, which are kept together by inner folds.

    Yields
    ------
    LinearProbe
        Fitted probe of each subset, in order.
    """
    probe._validate_params()
    shared: Eigenbasis | None = None
    for rows, labels in draws:
        of_groups = None if groups is None else groups[rows]
        one = with_cv_among(clone(probe), rows, len(X))
        folds = make_folds(labels, one.cv, of_groups, X[rows]) if one.refit else None
        if folds is None:  # without folds there is nothing to share
            yield one.fit(X[rows], _values(labels), groups=of_groups)
            continue
        if len(rows) < _OWN_BASIS * X.shape[1]:
            basis = make_eigenbasis(X[rows], fit_intercept=probe.fit_intercept)
        else:
            if shared is None:
                shared = make_eigenbasis(X, fit_intercept=probe.fit_intercept)
            basis = replace(shared, rows=np.ascontiguousarray(shared.rows[rows]))
        n_threads = 1 if len(rows) < _ONE_THREAD * X.shape[1] else cpu_count()
        one.Cs_ = check_Cs(one.Cs, float(np.linalg.norm(X[rows])) ** 2)
        yield _fit_in(basis, one, labels, folds, n_threads)


def _fit_in(
    basis: Eigenbasis, probe: LinearProbe, labels: Labels, folds: Folds, n_threads: int
) -> LinearProbe:
    """Fit a probe like ``LinearProbe.fit``, with given coordinates and folds."""
    n_samples = len(basis.rows)
    probe.classes_ = labels.classes_attribute
    probe.n_features_in_ = len(basis.mean)
    weights = labels.weights(probe.class_weight, np.ones(n_samples))

    def solve(Cs: NDArray[np.float64]) -> NDArray[np.floating]:
        return probe._solve(basis, labels, Cs, folds.train, weights).decision

    # A block fits into the cache of a core, and its problems take about the same time.
    # The hardest ones, with the weakest penalties, come first.
    blocks = np.array_split(probe.Cs_[::-1], len(probe.Cs_) if n_threads > 1 else 1)
    if len(blocks) == 1:
        decision = solve(probe.Cs_)
    else:
        each = max(1, n_threads // len(blocks))
        with threadpool_limits(each, "blas"), ThreadPoolExecutor(n_threads) as threads:
            found = list(threads.map(solve, blocks))
        decision = np.concatenate(found[::-1], axis=1)
    best = probe._choose(*probe._score(decision, labels, folds, None))
    return probe._refit(basis, labels, weights, best)


def _values(labels: Labels) -> NDArray[Any]:
    return labels.target if labels.classes is None else labels.classes[labels.target]
