"""``fit_logistic_path``: every fold, penalty and label of one X in one go."""

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

#: Logits at the beginning of a path are at most about this large: the constant model,
#: but for the order of its answers. Much smaller ones would be rounded to none.
CONSTANT_LOGIT = 1e-3

# Products of fewer multiplications than these are done before a second thread is awake.
SMALL_PRODUCT = 5e7

# Columns go to the solver in parts of so many elements a matrix (of which it holds
# about six): 400 MB in float32.
MOST_ELEMENTS = 2**24


@dataclass(frozen=True, eq=False)
class LogisticPath:
    """Solutions of all problems, ordered by fold, then by penalty.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,) or None
        Sorted labels; None for several labels a sample.
    Cs : ndarray of shape (n_Cs,)
        Inverse strengths of the penalty.
    coef : ndarray of shape (n_folds, n_Cs, n_rows, n_features)
        One row for two classes, else one for each class or label.
    intercept : ndarray of shape (n_folds, n_Cs, n_rows)
        Zeros without an intercept.
    decision : ndarray of shape (n_folds, n_Cs, n_samples, n_rows)
        Logits of all samples, those left out of a fold among them.
    objective : ndarray of shape (n_folds, n_Cs) or (n_folds, n_Cs, n_labels)
        ``C * sum(weights * log loss) + |coef|^2 / 2``, reached.
    n_iter, converged : ndarrays of the same shape
        Steps taken; whether the tolerance was met.
    extra : ndarray of shape (n_folds, n_Cs, n_rows, n_extra) or None
        Coefficients of a prior's extra features.
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
    """Prior beliefs: logits as offsets, and extra features with their deviations."""

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
    products whatever their number. For tuning and learning curves that need hundreds
    of fits, and their scores on what each left out, at the price of a few.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        float32 is computed in float32, everything else in float64.
    y : array-like of shape (n_samples,) or (n_samples, n_labels)
        Classes of any type; or for each label 1, 0, or NaN where it is not known.
    Cs : array-like of shape (n_Cs,)
        Inverse strengths of the penalty, as in scikit-learn.
    folds : iterable of (train, test), bool array, or None, default=None
        Pairs of indices as splitters yield them, of which the first counts; or True
        for the rows to learn from, ``(n_folds, n_samples)``, for folds of each label
        ``(n_folds, n_samples, n_labels)``. None is one fold with all rows.
    sample_weight : array-like of shape (n_samples,) or (n_samples, n_labels)
        Ones by default.
    fit_intercept : bool, default=True
        Whether to add an unpenalised constant.
    tol : float, default=1e-7
        Stop when the objective is about this share above its minimum.
    max_iter : int, default=1000
        Steps at most.
    device : str, default="auto"
        "cpu" computes with numpy; a torch device such as "cuda" with torch. "auto" is
        a GPU if torch is loaded and has one, else "cpu".

    Returns
    -------
    LogisticPath

    Raises
    ------
    ValueError
        If ``y`` has fewer than two classes, a fold no rows, a ``C`` is not positive, or
        torch cannot compute on ``device``.

    See Also
    --------
    LinearProbe : The estimator on top of this.

    Notes
    -----
    Memory: the logits, ``n_samples * n_folds * n_Cs * n_rows`` values, and up to
    400 MB. The problems are solved in coordinates made from all rows; that is a change
    of coordinates only, which tells a fold nothing of the rows that it leaves out.

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
    if given.ndim == 2:  # a single column stays a table
        labels = Labels(None, check_indicator(given))
    else:
        labels = check_labels(fit_logistic_path, rows, y)
    masks = _train_masks(folds, len(rows))
    if not masks.any(axis=1).all():
        raise ValueError("a fold has no rows to learn from.")
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
    n_columns = n_rows // n_labels  # a problem
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
        """Return arrays of (class x problem, ...) as (fold, C, row, ...)."""
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
    """Keep a small product on one thread: two would wait for each other."""
    if n_multiplications > SMALL_PRODUCT:
        return nullcontext()
    return _libraries().limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()  # looks through what is loaded: some ms


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

    The loss is multiplied by C and the penalty is not, so what is believed whatever C
    is must be multiplied too.
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
    """Return the values of ``Cs``, rising, for rows whose sum of squares is given."""
    if isinstance(Cs, Integral):
        constant = CONSTANT_LOGIT / max(squares, 100.0)
        return np.append(constant, np.logspace(-4, 4, int(Cs)))
    return np.unique(_positive(Cs))


def _positive(Cs: Any) -> NDArray[np.float64]:
    values = np.asarray(Cs, dtype=np.float64)
    if not (values.size and np.isfinite(values).all() and (values > 0).all()):
        raise ValueError(f"Cs must be positive numbers, got {Cs!r}.")
    return values
