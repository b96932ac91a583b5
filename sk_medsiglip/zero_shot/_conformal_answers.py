"""Answers of any classifier and labels of any kind in one shape, for conformal sets.

Exclusive classes or several findings may come in the shapes of scikit-learn's
classifiers or of ours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sk_medsiglip._labels import check_columns, check_labels


class Answers(NamedTuple):
    """The possible answers of a classifier: exclusive classes, or 0 and 1 a finding."""

    classes: NDArray[Any]  # (n_classes,) or (n_findings, 2)
    findings: NDArray[Any] | None = None  # names, if there are any

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


def find_answers(estimator: Any, y: ArrayLike | None) -> Answers:
    """Return the possible answers of a fitted classifier; ``y`` may name findings."""
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
    answers: Answers, y: Any, truth: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the classes as ``y`` has them, and the place of each label among them.

    The classes are 0 to ``n_classes - 1``, with a warning, where ``y`` holds these
    numbers in the place of names. A place of -1 stands for an unknown label.
    """
    expected = truth.shape[:1] + answers.classes.shape[:-1]
    if truth.shape != expected:
        wanted = (
            f"a column of 1 and 0 for each of the findings {answers.finding_names}"
            if answers.several
            else f"one of the classes {answers.classes.tolist()} an image"
        )
        raise ValueError(
            f"y has shape {truth.shape}, the classifier answers {expected}: {wanted}."
        )
    if answers.findings is not None:
        check_columns(y, answers.findings)
    if answers.several:
        return answers.classes, np.nan_to_num(truth, nan=-1).astype(np.intp)
    labels = check_labels(match_labels, truth, truth, answers.classes)
    assert labels.classes is not None
    return labels.classes, labels.target[:, None]


def list_probabilities(estimator: Any, X: Any, answers: Answers) -> NDArray[np.float64]:
    """Return the probability of every class, for findings absent and present."""
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


def _absent_and_present(
    shares: NDArray[np.floating], classes: NDArray[Any]
) -> NDArray[np.float64]:
    """Return both columns of a label, of which one value may not have been seen."""
    if not np.isin(classes, [0, 1]).all():
        raise ValueError(
            f"the classifier's classes are {np.asarray(classes).tolist()}; of each of "
            "several findings they must be 0 and 1."
        )
    both = np.zeros((len(shares), 2))
    both[:, np.asarray(classes).astype(np.intp)] = shares
    return both
