"""The questions that labels answer, and out-of-fold answers to them."""

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
from sk_medsiglip.audit._rows import Rows
from sk_medsiglip.heads import fit_logistic_path

#: Inverse penalties for rows whose columns have a variance of 1 in the mean.
_CS = np.logspace(-6, 1, 8)
#: Ranks of rows do not change with more exact solutions.
_TOL = 1e-5
#: A probability of 0 is taken for this one.
_LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class Questions:
    """Labels of ``Rows``: a column for each finding, or one of several classes.

    ``values`` are what a target of 0, 1 and so on was in ``y``.
    """

    target: NDArray[np.float64]  # (n_rows, n_findings), NaN where blank
    names: list[Hashable]  # of the columns
    values: NDArray[Any]
    left_out: dict[Hashable, str]  # names of findings that cannot be judged, and why

    @property
    def is_exclusive(self) -> bool:
        """Whether the labels are one of more than two classes."""
        return len(self.values) > 2

    @property
    def labels(self) -> Labels:
        """The labels as folds and solvers read them."""
        if self.is_exclusive:
            return Labels(self.values, self.target[:, 0].astype(np.intp))
        return Labels(None, self.target)


def read_questions(asks: Any, X: Any, y: Any, rows: Rows) -> Questions:
    """Check labels and put them in the order of rows."""
    labels = check_labels(asks, X, y, unlabelled=True, blanks=True)
    target = labels.target.astype(np.float64).reshape(len(labels.target), -1)[rows.row]
    if np.isnan(target).all():
        raise ValueError("y holds no label of a readable image: every entry is blank.")
    if labels.classes is None:
        n_findings = target.shape[1]
        names = list(range(n_findings)) if labels.names is None else list(labels.names)
        return _without_constant(Questions(target, names, np.array([0, 1]), {}))
    values = labels.classes
    if not np.isnan(target).any():  # a class may have had unreadable images alone
        present, place = np.unique(target.astype(np.intp), return_inverse=True)
        values, target = values[present], place.reshape(-1, 1).astype(np.float64)
    return _without_constant(Questions(target, [_name(y)], values, {}))


def _without_constant(questions: Questions) -> Questions:
    """Leave out findings of which one value is known, or none."""
    reasons = {}
    for name, target in zip(questions.names, questions.target.T, strict=True):
        known = np.unique(target[~np.isnan(target)])
        if not known.size:
            reasons[name] = "every label is blank"
        elif known.size == 1:
            value = questions.values[int(known[0])]
            reasons[name] = f"every known label is {value}"
    if len(reasons) == len(questions.names):
        raise ValueError(
            "y cannot be judged, since it needs two different labels: "
            + "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        )
    return _keep(questions, reasons)


def _keep(questions: Questions, reasons: dict[Hashable, str]) -> Questions:
    """Return the questions without some findings."""
    kept = [name not in reasons for name in questions.names]
    names = [name for name in questions.names if name not in reasons]
    left_out = {**questions.left_out, **reasons}
    return Questions(questions.target[:, kept], names, questions.values, left_out)


def _name(y: Any) -> Hashable:
    """Return the name of a single column of labels, 0 if it has none."""
    columns = getattr(y, "columns", None)
    name = getattr(y, "name", None) if columns is None else next(iter(columns))
    return 0 if name is None else name


def deal(
    rows: Rows, questions: Questions, cv: Any, groups: Any
) -> tuple[Questions, Folds]:
    """Return folds by patient, and the questions that have any."""
    labels = questions.labels
    if isinstance(cv, Integral):
        if cv < 2:
            raise ValueError(f"cv must be at least 2 folds, or a splitter; got {cv}.")
        folds = make_folds(labels, cv, rows.patient, rows.X)
    else:
        folds = _split_as_given(rows, questions, cv, groups)
    if folds is None:
        raise ValueError(
            "y cannot be judged: folds need two patients (two images without groups) "
            "with each label, and there are fewer."
        )
    if folds.test.ndim == 2:
        return questions, folds
    has_folds: NDArray[np.bool_] = np.asarray(folds.test.any(axis=(0, 1)))
    reason = "a label has one patient only"
    reasons = {
        name: reason
        for name, any_fold in zip(questions.names, has_folds, strict=True)
        if not any_fold
    }
    folds = Folds(folds.train[..., has_folds], folds.test[..., has_folds])
    return _keep(questions, reasons), folds


def _split_as_given(
    rows: Rows, questions: Questions, cv: Any, groups: Any
) -> Folds | None:
    """Give a splitter the rows in the user's order, since it may hold indices."""
    back = np.full(rows.n_given, -1)
    back[rows.row] = np.arange(len(rows.row))
    read = back >= 0
    target = np.full((rows.n_given, questions.target.shape[1]), np.nan)
    target[read] = questions.target[back[read]]
    patient = None if groups is None else check_groups(groups, rows.n_given)
    classes = questions.labels.classes
    as_given = Labels(classes, target[:, 0] if classes is not None else target)
    found = make_folds(as_given, cv, patient, back[:, None])
    return None if found is None else found.keep(rows.row)


def out_of_fold_logits(
    rows: Rows, questions: Questions, folds: Folds, estimator: Any = None
) -> NDArray[np.float64]:
    """Return logits of rows by classifiers that did not learn from their patients.

    A column for each finding, or for each of several classes (logarithms of
    probabilities). They are NaN where a row is in the test part of no fold.
    """
    test = folds.test if folds.test.ndim == 3 else folds.test[..., None]
    if estimator is None:
        return _by_path(rows.X, questions, folds, test)
    return _by_estimator(estimator, rows, questions, folds, test)


def _by_path(
    X: NDArray[np.floating],
    questions: Questions,
    folds: Folds,
    test: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Fit every fold and penalty at once, and take the best penalty of each finding.

    The penalty is chosen by the same folds. One number chosen from eight cannot learn
    the label of a single row, so it does not favour the labels as they are given.
    """
    spread = np.sqrt(X.var(axis=0, dtype=np.float64).mean())
    scaled = X / max(spread, np.finfo(np.float32).tiny)
    train = folds.train
    if train.ndim == 3:  # a fold that a finding lacks tests nothing: learn from all
        train = train | ~train.any(axis=1, keepdims=True)
    labels = questions.labels
    y = labels.target
    if labels.classes is not None:
        y = labels.classes[labels.target]
    path = fit_logistic_path(scaled, y, _CS, train, tol=_TOL)
    n_tests = np.maximum(test.sum(axis=0), 1)
    tested = np.where(test[:, None], path.decision, 0).sum(axis=0, dtype=np.float64)
    logits = tested / n_tests
    asked = test.any(axis=0) & ~np.isnan(questions.target)
    if questions.is_exclusive:
        logits = log_softmax(logits, axis=2)
        place = questions.target.astype(np.intp)
        loss = -np.take_along_axis(logits, place[None], axis=2)
    else:
        margin = np.where(questions.target == 1, logits, -logits)
        # Without it, a few right answers would choose a classifier sure of all.
        wrong = 1 / (asked.sum(axis=0) + 2)
        loss = np.logaddexp(0, -margin) + wrong * margin
    means = np.where(asked, loss, 0).sum(axis=1) / np.maximum(asked.sum(axis=0), 1)
    best = means.argmin(axis=0)  # (n_findings,)
    best = np.broadcast_to(best, logits.shape[2])
    chosen = np.take_along_axis(logits, best[None, None], axis=0)[0]
    return np.where(test.any(axis=0), chosen, np.nan)


def _by_estimator(
    estimator: Any,
    rows: Rows,
    questions: Questions,
    folds: Folds,
    test: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Ask clones of a classifier, a finding at a time."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"estimator must have predict_proba, and {type(estimator).__name__} has "
            "none: wrap it in sklearn.calibration.CalibratedClassifierCV."
        )
    takes_groups = has_fit_parameter(estimator, "groups")
    n_values = len(questions.values)
    columns = []
    for k, target in enumerate(questions.target.T):
        known = ~np.isnan(target)
        total = np.zeros((len(target), n_values))
        train = folds.train if folds.train.ndim == 2 else folds.train[..., k]
        asked = test[..., min(k, test.shape[2] - 1)]
        for learned, judged in zip(train, asked, strict=True):
            learned = learned & known
            if not judged.any() or len(np.unique(target[learned])) < 2:
                continue
            place = target[learned].astype(np.intp)
            extra = {"groups": rows.patient[learned]} if takes_groups else {}
            model = clone(estimator).fit(
                rows.X[learned], questions.values[place], **extra
            )
            found = np.searchsorted(questions.values, model.classes_)
            proba = np.zeros((int(judged.sum()), n_values))
            proba[:, found] = model.predict_proba(rows.X[judged])
            total[judged] += proba
        with np.errstate(divide="ignore", invalid="ignore"):
            proba = total / total.sum(axis=1, keepdims=True)
        logs = np.log(np.maximum(proba, _LEAST_PROBABILITY))
        columns.append(logs if n_values > 2 else logs[:, [1]] - logs[:, [0]])
    return np.hstack(columns)
