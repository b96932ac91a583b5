"""Predictions of any classifier and labels in one shape, for conformal sets.

Exclusive classes and several findings have other shapes in scikit-learn's classifiers
than in ours.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sk_medsiglip._labels import check_columns, check_labels, finding_names


class Answers(NamedTuple):
    """Possible answers of a classifier: exclusive classes, or 0 and 1 per finding."""

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
    names = finding_names(last, getattr(y, "columns", None))
    findings = None if names is None else np.asarray(names)
    return Answers(np.tile([0, 1], (len(classes), 1)), findings)


def match_labels(
    answers: Answers, y: Any, truth: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the classes as in ``y``, and the index of each label among them.

    If ``y`` holds the numbers 0 to ``n_classes - 1`` in place of names, these are the
    classes, with a warning. Unknown labels have the index -1.
    """
    expected = truth.shape[:1] + answers.classes.shape[:-1]
    if truth.shape != expected:
        wanted = (
            f"a column of 1 and 0 for each of the findings {answers.finding_names}"
            if answers.several
            else f"one of the classes {answers.classes.tolist()} per image"
        )
        raise ValueError(
            f"y has shape {truth.shape}, and the classifier needs {expected}: {wanted}."
        )
    if answers.findings is not None:
        check_columns(y, answers.findings)
    if answers.several:
        return answers.classes, np.nan_to_num(truth, nan=-1).astype(np.intp)
    labels = check_labels(match_labels, truth, truth, answers.classes)
    assert labels.classes is not None
    return labels.classes, labels.target[:, None]


def list_probabilities(estimator: Any, X: Any, answers: Answers) -> NDArray[np.float64]:
    """Return the probabilities of all classes; for findings of absent and present."""
    given: Any = estimator.predict_proba(X)
    if isinstance(given, list):  # one array per label, as in forests
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
    """Tell whether a 1-D ``classes_`` holds the numbers of several labels."""
    # OneVsRestClassifier and MLPClassifier of scikit-learn.
    return getattr(classifier, "multilabel_", False) or (
        getattr(classifier, "out_activation_", None) == "logistic"
        and classifier.n_outputs_ > 1
    )


def _absent_and_present(
    shares: NDArray[np.floating], classes: NDArray[Any]
) -> NDArray[np.float64]:
    """Return both columns of a label, also if only one value was seen in training."""
    if not np.isin(classes, [0, 1]).all():
        raise ValueError(
            f"the classifier's classes are {np.asarray(classes).tolist()}; for several "
            "findings they must be 0 and 1."
        )
    both = np.zeros((len(shares), 2))
    both[:, np.asarray(classes).astype(np.intp)] = shares
    return both
