"""Linear probes of many draws from one ``X``, in coordinates that are made once.

The draws share the eigenbasis. One made from more rows than a draw has is a change of
coordinates only, so the draw learns nothing of the rows that it does not hold.
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

# Shares of the width of X. A smaller draw's own basis, as small as it, is cheaper; and
# smaller problems are too quick for threads.
_OWN_BASIS, _ONE_THREAD = 0.75, 0.2


def fit_probes(
    probe: LinearProbe,
    X: NDArray[np.floating],
    draws: Iterable[tuple[NDArray[np.intp], Labels]],
    groups: NDArray[Any] | None,
) -> Iterator[LinearProbe]:
    """Fit a probe to each draw; the solutions are those of ``probe.fit`` on its rows.

    Parameters
    ----------
    probe : LinearProbe
        Not fitted; its parameters are those of all.
    X : ndarray of shape (n_samples, n_features), float32 or float64
        Rows that draws are taken from.
    draws : iterable of (rows, labels)
        Rows of a draw and their labels.
    groups : ndarray of shape (n_samples,) or None
        Patients, which the inner folds keep whole.

    Yields
    ------
    LinearProbe
        One a draw, in order.
    """
    probe._validate_params()
    shared: Eigenbasis | None = None
    for rows, labels in draws:
        of_groups = None if groups is None else groups[rows]
        one = with_cv_among(clone(probe), rows, len(X))
        folds = make_folds(labels, one.cv, of_groups, X[rows]) if one.refit else None
        if folds is None:  # nothing to choose by, or nothing to share
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
    """Fit a probe as ``LinearProbe.fit`` does, with coordinates and folds as given."""
    n_samples = len(basis.rows)
    probe.classes_ = labels.classes_attribute
    probe.n_features_in_ = len(basis.mean)
    weights = labels.weights(probe.class_weight, np.ones(n_samples))

    def solve(Cs: NDArray[np.float64]) -> NDArray[np.floating]:
        return probe._solve(basis, labels, Cs, folds.train, weights).decision

    # A block fits a core's cache, and its problems end at about the same time. The
    # hardest, with the weakest penalties, go first.
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
