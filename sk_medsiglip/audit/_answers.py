"""Labels, and what classifiers that did not learn from a patient answer in place."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from sk_medsiglip._labels import Labels, check_labels
from sk_medsiglip._splits import Folds, check_groups, make_folds
from sk_medsiglip.audit._rows import Rows, check_rows
from sk_medsiglip.heads import fit_logistic_path

#: Inverse penalties for rows whose columns have a variance of 1 in the mean, in parts:
#: the weakest take longest, and are tried only where the loss still falls.
_CS = ([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1], [1.0, 10.0])
#: More exact solutions rank labels no better: 1e-3 to 1e-5 were tried.
_TOL = 1e-4
#: A probability of 0 is taken for this one.
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class Answers:
    """Labels of rows, and logits of each by classifiers out of folds.

    ``values`` are what a target of 0, 1 and so on was in ``y``. There is a column of
    logits for each finding, or for each of several classes (logarithms of
    probabilities); they are NaN where a row is in the test part of no fold.
    """

    rows: Rows
    target: NDArray[np.float64]  # (n_rows, n_findings), NaN where blank
    names: list[Hashable]  # of the columns
    values: NDArray[Any]
    left_out: dict[Hashable, str]  # names of findings that cannot be judged, and why
    logits: NDArray[np.float64]

    @property
    def is_exclusive(self) -> bool:
        """Whether the labels are one of more than two classes."""
        return len(self.values) > 2

    def by_finding(
        self,
    ) -> list[tuple[Hashable, NDArray[np.float64], NDArray[np.float64]]]:
        """Return names, labels of 1, 0 and NaN, and logits; classes are findings."""
        names, targets = self.names, self.target.T
        if self.is_exclusive:
            names = self.values.tolist()
            targets = (self.target == np.arange(len(names))).astype(np.float64).T
        return list(zip(names, targets, self.logits.T, strict=True))


def ask(
    asks: Any, X: Any, y: Any, groups: Any, cv: Any = 5, estimator: Any = None
) -> Answers:
    """Check rows, labels and patients, and ask classifiers out of folds."""
    rows = check_rows(X, groups, asks.__name__)
    target, names, values = _read_labels(asks, X, y, rows)
    reasons = [_without_answer(known, values) for known in target.T]
    left_out = {name: why for name, why in zip(names, reasons, strict=True) if why}
    if all(reasons):
        raise ValueError(
            "y cannot be judged, since it needs two different labels: "
            + "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        )
    kept = np.array([not why for why in reasons])
    folds = _deal(target[:, kept], values, rows, cv, groups)
    if folds.test.ndim == 3:
        has_folds = folds.test.any(axis=(0, 1))
        folds = Folds(folds.train[..., has_folds], folds.test[..., has_folds])
        kept[kept] = has_folds
        for name, is_kept in zip(names, kept, strict=True):
            if not is_kept:
                left_out.setdefault(name, "a label has one patient only")
    names = [name for name, is_kept in zip(names, kept, strict=True) if is_kept]
    target = target[:, kept]
    if estimator is None:
        logits = _by_path(rows.X, target, len(values), folds)
    else:
        logits = _by_estimator(estimator, rows, target, values, folds)
    return Answers(rows, target, names, values, left_out, logits)


def _read_labels(
    asks: Any, X: Any, y: Any, rows: Rows
) -> tuple[NDArray[np.float64], list[Hashable], NDArray[Any]]:
    """Return labels in the order of rows, names of their columns, and values."""
    labels = check_labels(asks, X, y, unlabelled=True, blanks=True)
    target = labels.target.astype(np.float64).reshape(len(labels.target), -1)[rows.row]
    if np.isnan(target).all():
        raise ValueError("y holds no label of a readable image: every entry is blank.")
    if labels.classes is None:
        given = range(target.shape[1]) if labels.names is None else labels.names
        return target, list(given), np.array([0, 1])
    values = labels.classes
    if not np.isnan(target).any():  # a class may have had unreadable images alone
        present, place = np.unique(target.astype(np.intp), return_inverse=True)
        values, target = values[present], place.reshape(-1, 1).astype(np.float64)
    columns = getattr(y, "columns", [getattr(y, "name", None)])
    return target, [0 if columns[0] is None else columns[0]], values


def _without_answer(target: NDArray[np.float64], values: NDArray[Any]) -> str:
    """Return why a finding cannot be judged, or nothing."""
    known = np.unique(target[~np.isnan(target)])
    if not known.size:
        return "every label is blank"
    return f"every known label is {values[int(known[0])]}" if known.size == 1 else ""


def _deal(
    target: NDArray[np.float64], values: NDArray[Any], rows: Rows, cv: Any, groups: Any
) -> Folds:
    """Return folds by patient."""
    if not isinstance(cv, Integral):
        # The splitter may hold indices, so it is given rows in the user's order.
        back = np.full(rows.n_given, -1)
        back[rows.row] = np.arange(len(rows.row))
        as_given = np.where(back[:, None] >= 0, target[back], np.nan)
        patient = None if groups is None else check_groups(groups, rows.n_given)
        folds = make_folds(_labels(as_given, values), cv, patient, back[:, None])
        folds = None if folds is None else folds.keep(rows.row)
    elif cv < 2:
        raise ValueError(f"cv must be at least 2 folds, or a splitter; got {cv}.")
    else:
        folds = make_folds(_labels(target, values), cv, rows.patient, rows.X)
    if folds is None:
        raise ValueError(
            "y cannot be judged: folds need two patients (two images without groups) "
            "with each label, and there are fewer."
        )
    return folds


def _labels(target: NDArray[np.float64], values: NDArray[Any]) -> Labels:
    """Return labels as folds read them."""
    if len(values) > 2:
        return Labels(values, target[:, 0])
    return Labels(None, target)


def _by_path(
    X: NDArray[np.floating], target: NDArray[np.float64], n_values: int, folds: Folds
) -> NDArray[np.float64]:
    """Fit all folds and some penalties at once, and take the best of each finding.

    The penalty is chosen by the same folds. One number chosen from eight cannot learn
    the label of a single row, so it does not favour the labels as they are given.
    """
    spread = np.sqrt(X.var(axis=0, dtype=np.float64).mean())
    scaled = X / max(spread, np.finfo(np.float32).tiny)
    is_exclusive = n_values > 2
    n_columns = n_values if is_exclusive else 1  # of logits, for each finding
    chosen = np.full((len(X), target.shape[1] * n_columns), np.nan)
    least = np.full(target.shape[1], np.inf)
    left = np.arange(target.shape[1])  # findings whose loss still falls
    for Cs in _CS:
        y = target[:, 0].astype(np.intp) if is_exclusive else target[:, left]
        some = folds
        if folds.test.ndim == 3:
            some = Folds(folds.train[..., left], folds.test[..., left])
        logits = _logits(scaled, y, Cs, some)  # (n_Cs, n_rows, n_findings * n_columns)
        loss = _mean_loss(logits, target[:, left], is_exclusive)  # (n_Cs, n_findings)
        falls = []
        for place, k in enumerate(left):
            best = int(loss[:, place].argmin())
            if loss[best, place] < least[k]:
                least[k] = loss[best, place]
                ours = logits[best, :, place * n_columns :][:, :n_columns]
                chosen[:, k * n_columns : (k + 1) * n_columns] = ours
                if best == len(Cs) - 1:
                    falls.append(k)
        left = np.array(falls, np.intp)
        if not left.size:
            break
    return chosen


def _logits(
    X: NDArray[np.floating], y: NDArray[Any], Cs: list[float], folds: Folds
) -> NDArray[np.float64]:
    """Return the mean logits of each row where it is tested, NaN where it is not."""
    train = folds.train
    if train.ndim == 3:  # a fold that a finding lacks tests nothing: learn from all
        train = train | ~train.any(axis=1, keepdims=True)
    test = folds.test if folds.test.ndim == 3 else folds.test[..., None]
    path = fit_logistic_path(X, y, Cs, train, tol=_TOL)
    tested = np.where(test[:, None], path.decision, 0).sum(axis=0, dtype=np.float64)
    n_tests = test.sum(axis=0)
    logits = np.where(n_tests > 0, tested / np.maximum(n_tests, 1), np.nan)
    return logits if y.ndim == 2 else log_softmax(logits, axis=2)


def _mean_loss(
    logits: NDArray[np.float64], target: NDArray[np.float64], is_exclusive: bool
) -> NDArray[np.float64]:
    """Return the mean loss of known labels for each penalty and finding."""
    asked = ~np.isnan(target) & ~np.isnan(logits[0, :, : target.shape[1]])
    if is_exclusive:
        loss = -np.take_along_axis(logits, target.astype(np.intp)[None], axis=2)
    else:
        margin = np.where(asked, np.where(target == 1, logits, -logits), 0)
        # Without it, a few right answers would choose a classifier sure of all.
        wrong = 1 / (asked.sum(axis=0) + 2)
        loss = np.logaddexp(0, -margin) + wrong * margin
    return np.where(asked, loss, 0).sum(axis=1) / np.maximum(asked.sum(axis=0), 1)


def _by_estimator(
    estimator: Any,
    rows: Rows,
    target: NDArray[np.float64],
    values: NDArray[Any],
    folds: Folds,
) -> NDArray[np.float64]:
    """Ask clones of a classifier, a finding at a time."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"estimator must have predict_proba, and {type(estimator).__name__} has "
            "none: wrap it in sklearn.calibration.CalibratedClassifierCV."
        )
    takes_groups = has_fit_parameter(estimator, "groups")
    columns = []
    for k, label in enumerate(target.T):
        known = ~np.isnan(label)
        total = np.zeros((len(label), len(values)))
        own = folds.keep(np.arange(len(label)), k)
        for learned, judged in zip(own.train & known, own.test, strict=True):
            if not judged.any() or len(np.unique(label[learned])) < 2:
                continue
            extra = {"groups": rows.patient[learned]} if takes_groups else {}
            model = clone(estimator).fit(
                rows.X[learned], values[label[learned].astype(np.intp)], **extra
            )
            found = np.searchsorted(values, model.classes_)
            total[np.ix_(judged, found)] += model.predict_proba(rows.X[judged])
        with np.errstate(divide="ignore", invalid="ignore"):
            proba = total / total.sum(axis=1, keepdims=True)
        logs = np.log(np.maximum(proba, _LEAST_PROBABILITY))
        columns.append(logs if len(values) > 2 else logs[:, [1]] - logs[:, [0]])
    return np.hstack(columns)
