"""``fit_logistic_path``: all folds, penalties and labels of one X at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import _check_sample_weight
from threadpoolctl import ThreadpoolController

from sk_medsiglip._labels import Labels, check_indicator, check_labels
from sk_medsiglip._validation import Integral
from sk_medsiglip.heads._bag_space import BagSpace
from sk_medsiglip.heads._device import minimize_on
from sk_medsiglip.heads._eigenbasis import Eigenbasis, make_eigenbasis
from sk_medsiglip.heads._logistic_loss import BinaryLoss, SoftmaxLoss

#: Approximate size of the largest logit of the constant model, the first of a path.
#: Much smaller ones would be lost to rounding, and with them the ranking.
CONSTANT_LOGIT = 1e-3

# Products with fewer multiplications finish before a second thread has started.
SMALL_PRODUCT = 5e7

# Number of elements per matrix in one call of the solver, which holds about six
# matrices: 400 MB in float32.
MOST_ELEMENTS = 2**24


@dataclass(frozen=True, eq=False)
class LogisticPath:
    """Solutions of all problems, ordered by fold, then by penalty.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,) or None
        Sorted classes; None for several labels per sample.
    Cs : ndarray of shape (n_Cs,)
        Inverse strengths of the penalty.
    coef : ndarray of shape (n_folds, n_Cs, n_rows, n_features)
        Coefficients, with one row for two classes, else one per class or label.
    intercept : ndarray of shape (n_folds, n_Cs, n_rows)
        Intercepts; zeros if ``fit_intercept=False``.
    decision : ndarray of shape (n_folds, n_Cs, n_samples, n_rows)
        Logits of all samples, including those left out by the fold.
    objective : ndarray of shape (n_folds, n_Cs) or (n_folds, n_Cs, n_labels)
        Final value of ``C * sum(weights * log loss) + |coef|^2 / 2``.
    n_iter : ndarray of the same shape
        Number of steps.
    converged : ndarray of the same shape
        Whether the tolerance was reached.
    extra : ndarray of shape (n_folds, n_Cs, n_rows, n_extra) or None
        Coefficients of the extra features of a prior.
    """

    classes: NDArray[Any] | None
    Cs: NDArray[np.float64]
    coef: NDArray[np.floating]
    intercept: NDArray[np.floating]
    decision: NDArray[np.floating]
    objective: NDArray[np.float64]
    n_iter: NDArray[np.intp]
    converged: NDArray[np.bool_]
    extra: NDArray[np.floating] | None = None


@dataclass(frozen=True, eq=False)
class Prior:
    """A prior: logits as offsets, and extra features with their standard deviations."""

    offset: NDArray[np.floating]
    extra: NDArray[np.floating]
    extra_deviation: float
    intercept_deviation: float


def fit_logistic_path(
    X: ArrayLike,
    y: ArrayLike,
    Cs: Sequence[float] | NDArray[np.floating],
    folds: Iterable[tuple[Any, Any]] | NDArray[np.bool_] | None = None,
    *,
    sample_weight: ArrayLike | None = None,
    fit_intercept: bool = True,
    tol: float = 1e-7,
    max_iter: int = 1000,
    device: str = "auto",
) -> LogisticPath:
    """Fit L2-penalised logistic regressions for all folds, penalties and labels.

    All problems share ``X``, so they are solved together: each step costs two matrix
    products for any number of problems. Tuning and learning curves that need hundreds
    of fits, with scores on the rows left out, so cost as much as a few fits.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows. float32 is processed in float32, other types in float64.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Classes of any type; or 1 and 0 for each label, with NaN for unknown ones.
    Cs : array-like of shape (n_Cs,)
        Inverse strengths of the penalty, as in scikit-learn.
    folds : iterable of (train, test), bool array, or None, default=None
        Pairs of indices from a splitter, of which only the first is used; or a mask of
        the training rows, of shape ``(n_folds, n_samples)``, or with separate folds per
        label ``(n_folds, n_samples, n_labels)``. None is one fold with all rows.
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_labels)
        Weights of the samples; by default, ones.
    fit_intercept : bool, default=True
        Whether to add an unpenalised intercept.
    tol : float, default=1e-7
        Relative tolerance: fits stop when the objective is about this fraction above
        its minimum.
    max_iter : int, default=1000
        Maximum number of steps.
    device : str, default="auto"
        "cpu" uses numpy, and a torch device such as "cuda" uses torch. "auto" is a GPU
        if torch is loaded and has one, else "cpu".

    Returns
    -------
    LogisticPath

    Raises
    ------
    ValueError
        If ``y`` has fewer than two classes, a fold has no rows, a ``C`` is not
        positive, or torch cannot compute on ``device``.

    See Also
    --------
    LinearProbe : The estimator based on this function.

    Notes
    -----
    Memory: the logits, ``n_samples * n_folds * n_Cs * n_rows`` values, and up to
    400 MB. The problems are solved in coordinates computed from all rows, which is only
    a change of coordinates and does not leak the rows left out into a fold.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import StratifiedKFold
    >>> from sk_medsiglip.heads import fit_logistic_path
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["normal", "effusion"], 50)
    >>> X = rng.normal(size=(100, 8)) + 2.0 * (y == "effusion")[:, None]
    >>> folds = StratifiedKFold(5).split(X, y)
    >>> path = fit_logistic_path(X, y, [0.01, 1.0], folds)
    >>> path.coef.shape, path.decision.shape
    ((5, 2, 1, 8), (5, 2, 100, 1))
    """
    rows: NDArray[np.floating] = check_array(X, dtype=[np.float64, np.float32])
    check_consistent_length(rows, y)
    Cs = _positive(np.reshape(Cs, -1))
    given = np.asarray(y)
    if given.ndim == 2:  # a single column is several labels, too
        labels = Labels(None, check_indicator(given))
    else:
        labels = check_labels(fit_logistic_path, rows, y)
    masks = _train_masks(folds, len(rows))
    if not masks.any(axis=1).all():
        raise ValueError("a fold has no training rows.")
    weights = None
    if sample_weight is not None:
        weights = np.asarray(sample_weight, dtype=np.float64)
        if weights.ndim == 1:
            weights = _check_sample_weight(weights, rows, dtype=np.float64)
    return solve_path(
        make_eigenbasis(rows, fit_intercept=fit_intercept),
        labels.target,
        Cs,
        masks,
        classes=labels.classes,
        sample_weight=weights,
        tol=tol,
        max_iter=max_iter,
        device=device,
    )


def solve_path(
    basis: Eigenbasis | BagSpace,
    target: NDArray[Any],
    Cs: NDArray[np.float64],
    masks: NDArray[np.bool_],
    *,
    classes: NDArray[Any] | None,
    sample_weight: NDArray[np.float64] | None = None,
    prior: Prior | None = None,
    tol: float,
    max_iter: int,
    device: str,
) -> LogisticPath:
    """Solve checked problems; see :func:`fit_logistic_path`."""
    features: Any = basis.rows
    if prior is not None:
        features = np.hstack([features, prior.extra])
    dtype = features.dtype
    n_labels = target.shape[1] if classes is None else 1
    n_rows = n_labels if classes is None or len(classes) == 2 else len(classes)
    n_columns = n_rows // n_labels  # per problem
    share = _shares(target, masks, sample_weight, n_labels)
    shape = (len(masks), len(Cs), n_labels)
    # Problems in the order of fold, C and label.
    fold, at, label = np.indices(shape, dtype=np.intp).reshape(3, -1)
    most = MOST_ELEMENTS * basis.parts_at_once
    step = max(1, most // (features.shape[0] * n_columns))
    parts = []
    for start in range(0, len(fold), step):
        some = slice(start, start + step)
        C = Cs[at[some]]
        weights = share[fold[some], :, label[some]].T * C
        loss = basis.wrap(
            _make_loss(target, classes, label[some], weights.astype(dtype))
        )
        offset = None
        penalty = basis.penalty[:, None]
        if prior is not None:
            offset = np.repeat(prior.offset.astype(dtype), len(C), axis=1)
            penalty = np.tile(_penalties(basis.penalty, prior, C), n_columns).astype(
                dtype
            )
        with _threads_for(math.prod(features.shape) * len(C) * n_columns):
            part = minimize_on(
                device, features, loss, penalty, offset, basis.energy, tol, max_iter
            )
        part.logits = basis.decision(part.logits)
        parts.append(part)

    def gather(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        """Reshape arrays of (class x problem, ...) to (fold, C, row, ...)."""
        apart = [one.reshape(n_columns, -1, *one.shape[1:]) for one in arrays]
        whole = np.concatenate(apart, axis=1).swapaxes(0, 1)
        return whole.reshape(*shape[:2], n_rows, *whole.shape[2:])

    coefs, intercepts = zip(
        *(basis.coefficients(part.weights[: basis.width]) for part in parts),
        strict=True,
    )
    by_problem = shape if classes is None else shape[:2]
    return LogisticPath(
        classes=classes,
        Cs=Cs,
        coef=gather(list(coefs)),
        intercept=gather(list(intercepts)),
        decision=gather([part.logits.T for part in parts]).swapaxes(2, 3),
        objective=np.concatenate([p.objective for p in parts]).reshape(by_problem),
        n_iter=np.concatenate([p.n_iter for p in parts]).reshape(by_problem),
        converged=np.concatenate([p.converged for p in parts]).reshape(by_problem),
        extra=None
        if prior is None
        else gather([part.weights[basis.width :].T for part in parts]),
    )


def _threads_for(n_multiplications: int) -> AbstractContextManager[Any]:
    """Limit a small product to one thread, since two would wait for each other."""
    if n_multiplications > SMALL_PRODUCT:
        return nullcontext()
    return _libraries().limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # takes some ms, since it inspects loaded libraries


def _make_loss(
    target: NDArray[Any],
    classes: NDArray[Any] | None,
    label: NDArray[np.intp],
    weights: NDArray[np.floating],
) -> BinaryLoss | SoftmaxLoss:
    weights = np.ascontiguousarray(weights)
    if classes is not None and len(classes) > 2:
        return SoftmaxLoss(np.eye(len(classes), dtype=weights.dtype)[target], weights)
    # Unknown labels have weight 0, and may have any value.
    known = np.nan_to_num(target.reshape(len(target), -1))
    signs = (2 * known - 1).astype(weights.dtype)[:, label]
    return BinaryLoss(np.ascontiguousarray(signs), weights)


def _penalties(
    penalty: NDArray[np.floating], prior: Prior, C: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the penalty of each feature in each problem.

    The loss is multiplied by C, so the penalties of a prior, which do not depend on C,
    must be multiplied too.
    """
    free = penalty == 0
    own = np.where(free, 0, penalty)[:, None] + free[:, None] * (
        C / prior.intercept_deviation**2
    )
    extra = np.broadcast_to(
        C / prior.extra_deviation**2, (prior.extra.shape[1], len(C))
    )
    return np.vstack([own, extra])


def _train_masks(folds: Any, n_samples: int) -> NDArray[np.bool_]:
    if folds is None:
        return np.ones((1, n_samples), dtype=bool)
    if isinstance(folds, np.ndarray) and folds.dtype == bool:
        return folds
    pairs = list(folds)
    masks = np.zeros((len(pairs), n_samples), dtype=bool)
    for mask, (train, _) in zip(masks, pairs, strict=True):
        mask[train] = True
    return masks


def _shares(
    target: NDArray[Any],
    masks: NDArray[np.bool_],
    sample_weight: NDArray[np.float64] | None,
    n_labels: int,
) -> NDArray[np.float64]:
    """Return the weight of each sample in each fold and label, before C."""
    share = masks.astype(np.float64).reshape(len(masks), len(target), -1)
    share = np.broadcast_to(share, (len(masks), len(target), n_labels))
    if sample_weight is not None:
        share = share * sample_weight.reshape(len(target), -1)
    if target.ndim == 2:
        share = share * ~np.isnan(target)
    return share


def check_Cs(Cs: Any, squares: float = 0.0) -> NDArray[np.float64]:
    """Return the sorted values of ``Cs``, for rows with this sum of squares."""
    if isinstance(Cs, Integral):
        constant = CONSTANT_LOGIT / max(squares, 100.0)
        return np.append(constant, np.logspace(-4, 4, int(Cs)))
    return np.unique(_positive(Cs))


def _positive(Cs: Any) -> NDArray[np.float64]:
    values = np.asarray(Cs, dtype=np.float64)
    if not (values.size and np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"Cs must be positive numbers, got {Cs!r}.")
    return values
