"""Answers of estimators on a test set, in one form for all metrics.

Scores computed by another program can be passed in place of an estimator.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.pipeline import Pipeline

from sk_medsiglip._labels import Labels, check_columns, check_labels, finding_names

NO_PROBABILITIES = (
    "probabilities from 0 to 1 are needed, and there are only scores. Calibrate the "
    "classifier first, with CalibratedClassifierCV."
)


@dataclass(frozen=True, eq=False)
class Question:
    """True and predicted values of one label for some samples.

    ``rows`` are positions among all samples and may repeat; ``ill`` is True where a
    sample has the label. ``decision`` is None if no threshold is known, and
    ``probability`` is None if the estimator does not return probabilities.
    """

    label: Any
    rows: NDArray[np.intp]
    ill: NDArray[np.bool_]
    score: NDArray[np.float64]
    decision: NDArray[np.bool_] | None
    probability: NDArray[np.float64] | None

    @property
    def risk(self) -> NDArray[np.float64]:
        """Probabilities, which users can compare with a threshold, or else scores."""
        return self.score if self.probability is None else self.probability

    def among(self, chosen: NDArray[np.bool_]) -> Question:
        """Return the question restricted to some samples."""
        kept = chosen[self.rows]
        parts: Any = self.rows, self.ill, self.score, self.decision, self.probability
        of_some: Any = [None if one is None else one[kept] for one in parts]
        return Question(self.label, *of_some)

    def of_patients(self, patients: NDArray[np.intp], how: str) -> Question:
        """Return the question for whole patients, each in the row of its first sample.

        With "max" the highest score counts, and one flagged image flags the patient.
        With "mean" the mean score counts, and more than half of the images must be
        flagged.
        """
        _, first = np.unique(patients, return_index=True)
        ids, who = np.unique(patients[self.rows], return_inverse=True)

        def joined(values: Any, how: str = how) -> Any:
            return values if values is None else pd.Series(values).groupby(who).agg(how)

        decision = joined(self.decision)
        return Question(
            self.label,
            first[ids],
            joined(self.ill, "max").to_numpy(),
            joined(self.score).to_numpy(),
            None if decision is None else decision.to_numpy() > 0.5,
            None if self.probability is None else joined(self.probability).to_numpy(),
        )


@dataclass(frozen=True, eq=False)
class Truth:
    """Names of the labels of a test set, and the labels of each sample.

    ``kind`` is "binary", "classes" or "findings". The target holds indices of classes,
    NaN where a single finding is not known; or 1, 0 and NaN for each finding. The
    second of two classes is the positive one, and ``flipped`` is True if it sorts
    first.
    """

    kind: str
    names: list[Any]
    classes: NDArray[Any]
    target: NDArray[Any]
    flipped: bool = False

    def place(self, label: Any) -> int:
        """Return the position of a label among the names, 0 for two classes."""
        return 0 if label is None or self.kind == "binary" else self.names.index(label)

    def columns(self) -> NDArray[np.float64]:
        """Return 1, 0 and NaN for each name, of shape ``(n_samples, n_names)``."""
        if self.kind == "findings":
            return self.target
        target = self.target[:, None].astype(np.float64)
        known = ~np.isnan(target)
        one_hot = np.where(known, target == np.arange(len(self.classes)), np.nan)
        return one_hot[:, 1:] if self.kind == "binary" else one_hot

    def named_like(self, other: Truth) -> Truth:
        """Return the same labels under the names in another part of the data."""
        if self.kind != other.kind or self.names == other.names:
            return self
        numbers = list(range(len(self.names)))  # the names of unnamed findings
        if self.kind == "findings" and numbers not in (self.names, other.names):
            raise ValueError(
                f"the findings are {self.names} in one part of the data and "
                f"{other.names} in another: pass y[columns] in one order for all parts."
            )
        return replace(self, names=other.names)

    def looking_for(self, label: Any) -> Truth:
        """Return the same labels, with this one as the positive of two classes.

        If the classes are 0 and 1, any string is taken as the name of class 1.
        """
        if label in self.names or (self.kind == "binary" and label == self.classes[1]):
            return self
        if self.classes.tolist() == [0, 1] and self.kind == "binary":
            if isinstance(label, str):
                return replace(self, names=[label])
        if self.kind == "binary" and label == self.classes[0]:
            return replace(
                self,
                names=self.classes.tolist()[:1],
                classes=self.classes[::-1],
                target=1 - self.target,
                flipped=not self.flipped,
            )
        known = self.classes.tolist() if self.kind == "binary" else self.names
        raise ValueError(f"label={label!r} is not one of {known}.")


def read_truth(
    y: ArrayLike,
    estimators: list[Any],
    X: Any,
    *,
    label: Any = None,
    pos_label: Any = None,
) -> Truth:
    """Check labels against those that the estimators know.

    ``label`` must be among them. With two classes, ``label`` or ``pos_label`` is the
    positive one. By default that is the second class, with a warning if its name is the
    absence of the first.
    """
    truth = _read(y, estimators, X)
    if pos_label is not None and truth.kind != "binary":
        raise ValueError(
            f"pos_label={pos_label!r} needs labels of two classes; y has the labels "
            f"{truth.names}."
        )
    label = pos_label if label is None else label
    if label is not None:
        return truth.looking_for(label)
    _warn_of_absence(truth)
    return truth


def _read(y: ArrayLike, estimators: list[Any], X: Any) -> Truth:
    named = [one for one in estimators if hasattr(one, "classes_")]
    if np.asarray(y).ndim == 2 and np.asarray(y).shape[1] > 1:
        labels = check_labels(read_truth, X, y, unlabelled=True)
        names = _names_of_findings(y, labels, named)
        return Truth("findings", names, np.array([0, 1]), labels.target)
    plain = [np.asarray(one.classes_) for one in named if not _has_findings(one)]
    kinds = {own.dtype.kind in "biuf" for own in plain}
    if len(kinds) > 1:
        known = " and ".join(str(own.tolist()) for own in plain)
        raise ValueError(
            f"the classifiers know different classes, {known}: numbers cannot be "
            "matched with names. Train all classifiers on the same labels, or pass "
            "scores in place of some, one column per class in sorted order."
        )
    classes = np.unique(np.concatenate(plain)) if plain else None
    if classes is not None and len(classes) < 2:
        raise ValueError(
            f"the estimators know only {classes.tolist()}; two are needed."
        )
    labels = check_labels(read_truth, X, y, classes, blanks=True)
    assert labels.classes is not None
    if len(labels.classes) == 2:
        findings = [f for one in named for f in getattr(one, "findings_", [])[:1]]
        name = str(findings[0]) if findings else labels.classes.tolist()[1]
        column = getattr(y, "columns", [getattr(y, "name", None)])[0]
        if not findings and labels.classes.tolist() == [0, 1] and column is not None:
            name = str(column)  # y is a Series, or a table with one column
        return Truth("binary", [name], labels.classes, labels.target)
    return Truth("classes", labels.classes.tolist(), labels.classes, labels.target)


def ask(name: str, estimator: Any, X: Any, truth: Truth) -> list[Question]:
    """Return an estimator's answers, one question per label."""
    own = _findings_of(estimator)
    if truth.kind == "findings" and own not in (None, truth.names):
        raise ValueError(
            f"{name} knows the findings {own}, and the labels are {truth.names}, so "
            "columns would be compared with the wrong ones. Train it on y[columns] "
            "with the columns in the same order."
        )
    if hasattr(estimator, "classes_"):
        if _has_findings(estimator) != (truth.kind == "findings"):
            kinds = ("exclusive classes", "findings that can occur together")
            raise ValueError(
                f"{name} predicts {kinds[_has_findings(estimator)]}, and y holds "
                f"{kinds[truth.kind == 'findings']}: they cannot be compared. Evaluate "
                "it on labels of the kind that it was trained on."
            )
    scores, probability, decision = _say(name, estimator, X, truth)
    columns = truth.columns()
    places = [np.flatnonzero(~np.isnan(column)) for column in columns.T]
    questions = []
    for k, (label, known) in enumerate(zip(truth.names, places, strict=True)):
        said: Any = scores, decision, probability
        of_label: Any = [None if one is None else one[known, k] for one in said]
        questions.append(Question(label, known, columns[known, k] == 1, *of_label))
    return questions


def ask_label(name: str, estimator: Any, X: Any, y: ArrayLike, label: Any) -> Question:
    """Return the question for one label, from a classifier, scores or a question.

    With ``label=None`` it is the only label, or the second of two classes.
    """
    if isinstance(estimator, Question):
        return estimator
    truth = read_truth(y, [estimator], X, label=label)
    if label is None and len(truth.names) > 1:
        raise ValueError(
            f"there are several labels: pass label=, one of {truth.names}."
        )
    question = ask(name, estimator, X, truth)[truth.place(label)]
    if question.ill.all() or not question.ill.any():
        raise ValueError(
            f"{question.label!r}: all images are of one kind. Both images with the "
            "label and images without it are needed."
        )
    return question


def ask_probability(
    name: str, estimator: Any, X: Any, y: ArrayLike, label: Any
) -> Question:
    """Return the question of :func:`ask_label`, or raise without probabilities."""
    question = ask_label(name, estimator, X, y, label)
    if question.probability is None:
        raise ValueError(f"{question.label!r}: {NO_PROBABILITIES}")
    return question


def steps(estimator: Any) -> list[Any]:
    """Return the steps of a pipeline, or the estimator itself; none for scores."""
    if not hasattr(estimator, "predict"):
        return []
    pipeline = getattr(estimator, "steps", None)
    return [estimator] if pipeline is None else [step for _, step in pipeline]


def last_step(estimator: Any) -> Any:
    """Return the classifier at the end of a pipeline, or the estimator itself."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def _say(
    name: str, estimator: Any, X: Any, truth: Truth
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None, NDArray[np.bool_] | None]:
    """Return scores, probabilities and decisions, each ``(n_samples, n_names)``."""
    exclusive = truth.kind == "classes"
    if not hasattr(estimator, "predict"):
        given = _columns(name, estimator, truth)
        if (given < 0).any() or (given > 1).any():
            # Such scores have no known threshold; only the best class can be chosen.
            return given, None, _decide(given, truth) if exclusive else None
        return given, given, _decide(given, truth)
    probability: Any = None
    if hasattr(estimator, "predict_proba"):
        said = estimator.predict_proba(X)
        if isinstance(said, list):  # a multi-output classifier of scikit-learn
            said = np.column_stack(
                [_present(*one) for one in zip(said, estimator.classes_, strict=True)]
            )
        probability = _columns(name, said, truth, estimator)
    scores = probability
    if hasattr(estimator, "decision_function") and (scores is None or not exclusive):
        # Probabilities near 0 and 1 tie; decision values do not.
        scores = _columns(name, estimator.decision_function(X), truth, estimator)
    if scores is None:
        raise TypeError(
            f"{name}: {type(estimator).__name__} has neither predict_proba nor "
            "decision_function, so its predictions cannot be ranked."
        )
    if truth.flipped:  # the scores are those of the second class in sorted order
        scores = 1 - scores if scores is probability else -scores
        probability = None if probability is None else 1 - probability
    predicted = np.asarray(estimator.predict(X))
    if truth.kind == "findings":
        return scores, probability, predicted == 1
    names = truth.classes
    own = np.asarray(estimator.classes_)
    if truth.classes.dtype.kind in "iu" and own.dtype.kind not in "iub":
        names = own[names] if truth.kind == "binary" else own  # y holds class indices
    names = names[1:] if truth.kind == "binary" else names
    return scores, probability, predicted[:, None] == names


def _columns(
    name: str, answers: Any, truth: Truth, estimator: Any = None
) -> NDArray[np.float64]:
    """Return scores or probabilities with one column per name."""
    said = np.asarray(answers, dtype=np.float64)
    n_samples, n_names = len(truth.target), len(truth.names)
    if truth.kind == "binary":
        if said.ndim == 2 and said.shape[1] == 2:
            first = estimator is None and truth.flipped
            said = said[:, :1] if first else said[:, 1:]
        said = said.reshape(len(said), -1)
    elif truth.kind == "classes" and estimator is not None:
        own = list(estimator.classes_)
        if said.ndim == 1 and len(own) == 2:  # a decision between its two classes
            said = np.column_stack([-said, said])
        if len(own) < n_names and said.shape[-1] == len(own):
            whole = np.zeros((len(said), n_names))
            whole[:, [truth.names.index(one) for one in own]] = said
            said = whole
    if said.shape != (n_samples, n_names):
        raise ValueError(
            f"{name} returned scores of shape {said.shape}; for these labels the shape "
            f"must be ({n_samples}, {n_names}), with the columns {truth.names}."
        )
    if np.isnan(said).any():
        raise ValueError(f"{name} returned NaN scores: leave those rows out.")
    return said


def _warn_of_absence(truth: Truth) -> None:
    absence, presence = truth.names[0], truth.classes.tolist()[0]
    if truth.kind == "binary" and str(absence).casefold() in (
        f"no {presence}".casefold(),
        f"non-{presence}",
    ):
        warnings.warn(
            f"{absence!r} sorts second, so it is the positive class: sensitivity is "
            f"that of {absence!r}. Pass pos_label={presence!r} (displays: label=) to "
            "choose the other class.",
            UserWarning,
            stacklevel=4,
        )


def _has_findings(estimator: Any) -> bool:
    """Tell whether an estimator predicts several findings rather than classes."""
    classes = estimator.classes_
    several = isinstance(classes, list) or np.ndim(classes) == 2
    return several and len(classes) > 1 and np.ndim(classes[0]) == 1


def _decide(scores: NDArray[np.float64], truth: Truth) -> NDArray[np.bool_]:
    if truth.kind == "classes":
        return scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1])
    return scores > 0.5


def _present(said: NDArray[Any], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the probability of 1; it has no column if no training sample had it."""
    place = np.flatnonzero(np.asarray(classes) == 1)
    return said[:, place[0]] if len(place) else np.zeros(len(said))


def _findings_of(estimator: Any) -> list[Any] | None:
    """Return the names of an estimator's findings, if it has any."""
    own = finding_names(estimator)
    if own is not None:
        return [str(one) for one in own]
    if isinstance(estimator, Pipeline):
        return _findings_of(last_step(estimator))
    # Searches and other meta-estimators hold the estimator that they fitted.
    for name in ("best_estimator_", "estimator_"):
        if hasattr(estimator, name):
            return _findings_of(getattr(estimator, name))
    return None


def _names_of_findings(y: Any, labels: Labels, estimators: list[Any]) -> list[Any]:
    for one in estimators:
        own = _findings_of(one)
        if own is not None and len(own) == labels.target.shape[1]:
            check_columns(y, own)
            return own
    if labels.names is not None:
        return list(labels.names.tolist())
    return list(range(labels.target.shape[1]))
