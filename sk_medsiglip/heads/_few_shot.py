"""Base class of heads for few labels, which may start from prompts.

A question is a choice among classes; several labels per sample are several questions of
two classes. Rows are scaled to unit length, since the model compares cosines.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import _check_sample_weight

from sk_medsiglip._classifier import LogitClassifier
from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._labels import Labels, check_labels
from sk_medsiglip._scoring import best_settings
from sk_medsiglip._splits import Folds, check_groups, make_folds
from sk_medsiglip._validation import StrOptions, _fit_context
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.heads._anchors import make_anchors
from sk_medsiglip.heads._scores import choose_cautiously, score_decisions

#: Scale that turns cosines into logits if there is no model to provide one.
DEFAULT_SCALE = 5.0


@dataclass(frozen=True, eq=False)
class Shots:
    """The labelled samples of one question."""

    rows: NDArray[np.float64]  # (n_samples, n_features), of unit length
    target: NDArray[np.intp]  # (n_samples,), index of the class
    n_classes: int  # including classes without a sample
    sample_weight: NDArray[np.float64]  # (n_samples,)
    class_weight: NDArray[np.float64]  # (n_classes,)
    anchors: NDArray[np.float64] | None  # (n_classes, n_features), of the prompts
    scale: float  # of logits per cosine
    groups: NDArray[Any] | None
    folds: Callable[[], Folds | None]  # None if the samples cannot be split

    @property
    def weight(self) -> NDArray[np.float64]:
        """Weights of the samples, multiplied by those of their classes."""
        return self.sample_weight * self.class_weight[self.target]

    @property
    def onehot(self) -> NDArray[np.float64]:
        """Indicators of the classes, times the weight of each sample."""
        return np.eye(self.n_classes)[self.target] * self.sample_weight[:, None]


class FewShotClassifier(LogitClassifier):
    """Abstract classifier that learns each question from its shots."""

    # For metadata routing of scikit-learn: groups are requested by default.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"groups": True}

    _parameter_constraints: dict[str, Any] = {
        "prompts": "no_validation",  # checked by make_anchors, with better messages
        "templates": "no_validation",
        "model": [str, os.PathLike],
        "revision": [str, None],
        "cache": ["boolean", str, os.PathLike, EmbeddingCache],
        "class_weight": [dict, StrOptions({"balanced"}), list, None],
    }

    prompts: Any
    templates: str | Sequence[str] | None
    model: str | os.PathLike[str]
    revision: str | None
    cache: bool | str | os.PathLike[str] | EmbeddingCache
    class_weight: Any
    scoring: Any  # of heads that choose by folds

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit the head to labelled embeddings.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes; or 1 and 0 for each of several labels, with NaN for unknown ones.
            With prompts, classes must be among theirs, and columns in the order of the
            findings.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.
        groups : array-like of shape (n_samples,), default=None
            Groups that inner folds keep together, such as patients.

        Returns
        -------
        self

        Raises
        ------
        PromptError
            If the prompts are malformed.
        ValueError
            If ``y`` holds a class without a prompt.
        """
        rows = check_embeddings(self, X)
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        labels = self._read_labels(rows, y)
        of_groups = None if groups is None else check_groups(groups, len(rows))
        counts = labels.counted(weight)
        # Made once for all labels, from the rows as passed, and only if a head asks.
        cv = getattr(self, "cv", None)
        deal = cache(partial(make_folds, labels, cv, of_groups, rows, counts))
        if not counts.all():
            rows, weight = rows[counts], weight[counts]
            of_groups = None if of_groups is None else of_groups[counts]
            if self.prompts is None:
                labels = labels.keep(counts)
            else:  # classes of the prompts are kept, even without a sample
                labels = replace(labels, target=labels.target[counts])
        kept = np.flatnonzero(counts)
        self.classes_ = labels.classes_attribute
        if labels.names is not None:
            self.label_names_ = labels.names
        unit = unit_rows(rows.astype(np.float64))
        class_weights = labels.class_weights(self.class_weight, weight)
        self._learned = []
        for i, target in enumerate(labels.by_label()):
            known = np.flatnonzero(~np.isnan(target.astype(np.float64)))
            shots = Shots(
                unit[known],
                target[known].astype(np.intp),
                len(class_weights[i]),
                weight[known],
                class_weights[i],
                None if self._anchors is None else self._anchors[i],
                self.logit_scale_,
                None if of_groups is None else of_groups[known],
                partial(_folds_of, deal, kept[known], i),
            )
            self._learned.append(self._learn(shots))
        self._publish(self._learned)
        return self

    @abstractmethod
    def _learn(self, shots: Shots) -> Any:
        """Learn one question; return what :meth:`_answer` needs."""

    @abstractmethod
    def _answer(self, learned: Any, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logits of all classes of one question, for unit rows."""

    def _publish(self, learned: list[Any]) -> None:
        """Set public attributes from the results of :meth:`_learn`."""

    def _best(
        self,
        decision: NDArray[np.floating],
        shots: Shots,
        folds: Folds,
        weight: NDArray[np.float64] | None,
        *,
        cautious: bool = False,
    ) -> int:
        """Return the setting with the best logits on the rows left out by folds.

        A cautious choice is the first setting within one standard error of the best.
        """
        classes = self.classes_ if self.classes_.ndim == 1 else np.array([0, 1])
        labels = Labels(classes, shots.target)
        scores, log_scores = (
            score_decisions(decision, labels, folds, one, weight)
            for one in (self.scoring, None)
        )
        if cautious:
            return choose_cautiously(scores)
        means = np.nanmean([scores, log_scores], axis=1)
        return int(best_settings(means[0], -means[1]))

    def _read_labels(self, rows: NDArray[np.floating], y: ArrayLike) -> Labels:
        """Encode the prompts, if any, and check ``y`` against them."""
        self._anchors: NDArray[np.float64] | None = None
        self.logit_scale_ = DEFAULT_SCALE
        if self.prompts is None:
            return check_labels(self, rows, y, blanks=True)
        anchors = make_anchors(
            self.prompts,
            templates=self.templates,
            model=self.model,
            revision=self.revision,
            cache=self.cache,
            n_features=rows.shape[1],
        )
        self._anchors, self.logit_scale_ = anchors.vectors, anchors.logit_scale
        if anchors.findings is not None:
            self.findings_ = anchors.findings
        return check_labels(
            self, rows, y, anchors.classes, findings=anchors.findings, blanks=True
        )

    def _logits(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        unit = unit_rows(X.astype(np.float64))
        answers = [self._answer(learned, unit) for learned in self._learned]
        if self.classes_.ndim == 2:
            return np.column_stack([one[:, 1] - one[:, 0] for one in answers])
        (logits,) = answers
        return logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        if isinstance(self.prompts, Mapping):
            several = len(self.prompts) > 1 and all(
                isinstance(pair, Mapping) for pair in self.prompts.values()
            )
            tags.classifier_tags.multi_label = several
            tags.target_tags.multi_output = several
        return tags


def _folds_of(
    deal: Callable[[], Folds | None], rows: NDArray[np.intp], label: int
) -> Folds | None:
    """Return the folds of some rows for one label; None if they leave nothing out."""
    dealt = deal()
    folds = None if dealt is None else dealt.keep(rows, label)
    return folds if folds is not None and folds.test.any() else None


def unit_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to unit length; rows of length 0 stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(np.float64).tiny)
