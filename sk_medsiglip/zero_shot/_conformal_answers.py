"""What a classifier answers and what ``y`` says, in one shape for conformal sets.

Any classifier may be wrapped: exclusive classes or several findings, in the shapes that
scikit-learn's classifiers and ours have for them. Only ``ConformalZeroShot`` imports
this.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from sk_medsiglip._labels import check_indicator, check_labels
from sk_medsiglip.prompts import check_columns


class Answers(NamedTuple):
    """What a classifier may answer.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,) or (n_findings, 2)
        Exclusive classes; or 0 and 1 of each finding.
    findings : ndarray of shape (n_findings,) or None
        Names of the findings, where they have any.
    """

    classes: NDArray[Any]
    findings: NDArray[Any] | None = None

    @property
    def several(self) -> bool:
        """Whether there are several findings."""
        return self.classes.ndim == 2

    @property
    def finding_names(self) -> list[Any]:
        """Names of the findings, or their numbers."""
        if self.findings is None:
            return list(range(len(self.classes)))
        return list(self.findings.tolist())


def check_discrete_labels(y: Any) -> NDArray[Any]:
    """Return ``y`` as an array of discrete labels, NaN or None where one is unknown."""
    if y is None:
        raise ValueError(
            "ConformalZeroShot requires y to be passed, but the target y is None."
        )
    target: NDArray[Any]
    target = y.toarray() if scipy.sparse.issparse(y) else np.asarray(y)
    if target.ndim == 2 and target.shape[1] == 1:
        target = column_or_1d(target, warn=True)
    if target.ndim not in (1, 2):
        raise ValueError(
            "y must be (n_samples,), a class an image, or (n_samples, n_findings); "
            f"got shape {target.shape}."
        )
    unknown = pd.isna(target)
    if unknown.all():
        raise ValueError("y holds no label: every entry is missing (NaN or None).")
    if target.ndim == 2:
        values = check_indicator(target)
        return values if unknown.any() else values.astype(np.intp)
    # Through a list: an array of objects has a type of its own again.
    known = np.array(target[~unknown].tolist())
    assert_all_finite(known, input_name="y")
    check_classification_targets(known)
    if target.dtype == object:
        target = target.copy()
        target[unknown] = None  # pandas' NA has no truth value
    return target


def find_answers(estimator: Any, y: ArrayLike) -> Answers:
    """Return what a fitted classifier may answer.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    y : array-like
        Tells apart what ``classes_`` alone does not, and may name the findings.

    Returns
    -------
    Answers
    """
    classes = estimator.classes_
    several = isinstance(classes, list) or np.ndim(classes) == 2
    last = estimator
    while isinstance(last, Pipeline | FrozenEstimator):
        last = last[-1] if isinstance(last, Pipeline) else last.estimator
    if not several and not _numbers_labels(last):
        return Answers(np.asarray(classes))
    named = [
        getattr(last, "findings_", None),
        getattr(last, "label_names_", None),
        getattr(y, "columns", None),
    ]
    findings = next((np.asarray(names) for names in named if names is not None), None)
    return Answers(np.tile([0, 1], (len(classes), 1)), findings)


def match_labels(
    answers: Answers, y: Any, target: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the classes as ``y`` has them, and where each label stands among them.

    Parameters
    ----------
    answers : Answers
        What the classifier may answer.
    y : array-like
        As the user gave it: a DataFrame's columns must be in the findings' order.
    target : ndarray
        From :func:`check_discrete_labels`.

    Returns
    -------
    classes : ndarray of shape (n_classes,) or (n_findings, 2)
        Those of the answers; or 0 to ``n_classes - 1``, with a warning, where they are
        names and ``y`` numbers them so.
    labels : ndarray of shape (n_samples, 1) or (n_samples, n_findings)
        -1 where the label is not known.
    """
    expected = target.shape[:1] + answers.classes.shape[:-1]
    if target.shape != expected:
        wanted = (
            f"a column of 1 and 0 for each of the findings {answers.finding_names}"
            if answers.several
            else f"one of the classes {answers.classes.tolist()} an image"
        )
        raise ValueError(
            f"y has shape {target.shape}, the classifier answers {expected}: {wanted}."
        )
    if answers.findings is not None:
        check_columns(y, answers.findings)
    labels = np.full(target.shape, -1, dtype=np.intp)
    is_known = ~pd.isna(target)
    if answers.several:
        labels[is_known] = target[is_known]
        return answers.classes, labels
    known = np.array(target[is_known].tolist())
    matches = known[:, None] == answers.classes
    if matches.any(axis=1).all():
        labels[is_known] = matches.argmax(axis=1)
        return answers.classes, labels[:, None]
    classes = _codes(known, answers.classes)
    if classes is None:
        strange = known[~matches.any(axis=1)].tolist()
        raise ValueError(
            f"y holds the labels {list(dict.fromkeys(strange))[:5]}, the classes are "
            f"{answers.classes.tolist()}, and NaN is a label not known. For -1 as "
            "'uncertain' replace it first: y.replace(-1, np.nan)."
        )
    labels[is_known] = known
    return classes, labels[:, None]


def list_probabilities(estimator: Any, X: Any, answers: Answers) -> NDArray[np.float64]:
    """Return the probability of every class, for findings absent and present.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : array-like
        What it takes.
    answers : Answers
        From :func:`find_answers`.

    Returns
    -------
    ndarray of shape (n_samples, n_classes) or (n_samples, n_findings, 2)
    """
    given: Any = estimator.predict_proba(X)
    if isinstance(given, list):  # one array a label, as forests have it
        pairs = zip(given, estimator.classes_, strict=True)
        given = np.stack([_absent_and_present(*pair) for pair in pairs], axis=1)
    probabilities = np.asarray(given, dtype=np.float64)
    if answers.several and probabilities.ndim == 2:
        probabilities = np.stack([1 - probabilities, probabilities], axis=-1)
    if probabilities.shape[1:] != answers.classes.shape:
        raise ValueError(
            f"predict_proba returned shape {probabilities.shape}, which does not fit "
            f"the classes {answers.classes.tolist()}."
        )
    return probabilities


def _numbers_labels(classifier: Any) -> bool:
    """Tell whether a flat ``classes_`` holds the numbers of several labels."""
    # scikit-learn's OneVsRestClassifier, and its MLPClassifier.
    return getattr(classifier, "multilabel_", False) or (
        getattr(classifier, "out_activation_", None) == "logistic"
        and classifier.n_outputs_ > 1
    )


def _codes(known: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any] | None:
    """Return 0 to ``n_classes - 1`` if labels are these in the place of names."""
    try:
        found = check_labels(None, known, known, classes).classes
    except ValueError:
        return None
    codes = np.arange(len(classes))
    return codes if found is not None and np.array_equal(found, codes) else None


def _absent_and_present(
    shares: NDArray[np.floating], classes: NDArray[Any]
) -> NDArray[np.float64]:
    """Return both columns of a label of which one value may never have been seen."""
    if not np.isin(classes, [0, 1]).all():
        raise ValueError(
            f"the classifier's classes are {np.asarray(classes).tolist()}; of each of "
            "several findings they must be 0 and 1."
        )
    both = np.zeros((len(shares), 2))
    both[:, np.asarray(classes).astype(np.intp)] = shares
    return both
