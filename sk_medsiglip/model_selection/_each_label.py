"""``EachLabel``: a classifier of one question, asked for each of several labels."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sk_medsiglip._classifier import Classifier
from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._labels import check_labels
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._splits import check_groups, with_cv_among
from sk_medsiglip._validation import _fit_context
from sk_medsiglip.model_selection._group_fits import fit_with_groups

__all__ = ["EachLabel", "ask_each_label"]


def ask_each_label(estimator: Any, *, several: bool) -> Any:
    """Return an estimator for what there is to learn: one question, or several.

    Parameters
    ----------
    estimator : classifier
        Not fitted; or a pipeline.
    several : bool
        Whether there are several labels.

    Returns
    -------
    classifier
        As it is, if it is of this package or takes nothing but several labels.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    ours = hasattr(last, "_logits") or type(last).__module__.startswith("sk_medsiglip.")
    if not several or ours or not get_tags(last).target_tags.single_output:
        return estimator
    return EachLabel(estimator)


def _has(name: str) -> Any:
    """Return a check that the wrapped classifier has a method."""

    def check(self: EachLabel) -> bool:
        getattr(self.estimator, name)
        return True

    return check


class EachLabel(VersionedPickle, Classifier, MetaEstimatorMixin, BaseEstimator):
    """Fit a classifier to each label by itself, on the rows where it is known.

    scikit-learn's ``MultiOutputClassifier`` and ``OneVsRestClassifier`` refuse labels
    that are not known, and answer in shapes of their own; this answers as the heads of
    this package do.

    Parameters
    ----------
    estimator : classifier
        Of two classes.

    Attributes
    ----------
    estimators_ : list
        One a label; where all that is known is one value, that value.
    classes_ : ndarray of shape (n_labels, 2)
        A row ``[0, 1]`` each.
    label_names_ : ndarray of shape (n_labels,)
        Names of the columns of ``y``, where it is a DataFrame.
    n_features_in_ : int
        Number of columns of ``X``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sk_medsiglip.model_selection import EachLabel
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> y = np.array([[0, 1], [0, np.nan], [1, 1], [1, 0]])
    >>> EachLabel(KNeighborsClassifier(1)).fit(X, y).predict([[2.9]])
    array([[1, 0]])
    """

    # scikit-learn's routing reads it: groups are asked for unless told otherwise.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"groups": True}

    _parameter_constraints: ClassVar[dict[str, Any]] = {"estimator": "no_validation"}

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Learn every label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples, n_labels)
            1, 0, or NaN where a label is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, for a classifier that takes them.
        groups : array-like of shape (n_samples,), default=None
            Such as patients: for folds in the classifier that ask for groups, as those
            of :class:`~sk_medsiglip.LinearProbe` do.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` is one column: that is a question for the classifier itself.
        """
        rows = check_embeddings(self, X)
        labels = check_labels(self, rows, y, unlabelled=True, blanks=True)
        if labels.classes is not None:
            raise ValueError(
                "EachLabel takes a table of several labels, (n_samples, n_labels); for "
                f"y of shape {np.shape(y)} fit the classifier itself."
            )
        of_groups = None if groups is None else check_groups(groups, len(rows))
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        self.classes_ = labels.classes_attribute
        if labels.names is not None:
            self.label_names_ = labels.names
        self.estimators_: list[Any] = []
        for target in labels.by_label():
            known = ~np.isnan(target) & (weight > 0)
            values = target[known].astype(int)
            if len(np.unique(values)) < 2:
                self.estimators_.append(int(values.any()))
                continue
            own = None if of_groups is None else of_groups[known]
            one = with_cv_among(clone(self.estimator), known, len(rows))
            self.estimators_.append(
                fit_with_groups(
                    one,
                    rows[known],
                    values,
                    own,
                    None if sample_weight is None else weight[known],
                )
            )
        return self

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the probability of each label, ``(n_samples, n_labels)``."""
        return self._ask(X, lambda one, rows: one.predict_proba(rows)[:, 1], 0.0, 1.0)

    @available_if(_has("decision_function"))
    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the score of each label, above 0 where it is likelier than not."""
        return self._ask(X, lambda one, rows: one.decision_function(rows), -1.0, 1.0)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return 1 for every label that its classifier sees, else 0."""
        return self._ask(X, lambda one, rows: one.predict(rows), 0, 1).astype(int)

    def _ask(self, X: ArrayLike, ask: Any, absent: float, present: float) -> Any:
        check_is_fitted(self)
        rows = check_embeddings(self, X, reset=False)
        return np.column_stack(
            [
                np.full(len(rows), present if one else absent)
                if isinstance(one, int)
                else ask(one, rows)
                for one in self.estimators_
            ]
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags
