"""``EachLabel``: a classifier of one label, fitted to each of several."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    has_fit_parameter,
)

from sk_medsiglip._classifier import Classifier
from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._labels import check_labels
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._splits import check_groups, with_cv_among
from sk_medsiglip._validation import _fit_context


class EachLabel(VersionedPickle, Classifier, MetaEstimatorMixin, BaseEstimator):
    """Fit a classifier to each label by itself, on the rows where it is known.

    ``MultiOutputClassifier`` and ``OneVsRestClassifier`` of scikit-learn refuse labels
    with blanks, and return shapes of their own. This class returns the shapes of the
    other heads of this package.

    Parameters
    ----------
    estimator : classifier
        The classifier of two classes that is fitted to each label.

    Attributes
    ----------
    estimators_ : list
        The fitted classifiers, one for each label, or the value of a label of which
        only one value is known.
    classes_ : ndarray of shape (n_labels, 2)
        A row ``[0, 1]`` for each label.
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
        """Fit the classifier to every label.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples, n_labels)
            1, 0, or NaN where a label is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, for a classifier that takes them.
        groups : array-like of shape (n_samples,), default=None
            Groups, such as patients, for folds within the classifier that ask for
            them, as those of :class:`~sk_medsiglip.LinearProbe` do.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` has one column: fit the classifier itself.
        """
        rows = check_embeddings(self, X)
        labels = check_labels(self, rows, y, unlabelled=True, blanks=True)
        if labels.classes is not None:
            raise ValueError(
                "EachLabel takes a table of several labels, (n_samples, n_labels); for "
                f"y of shape {np.shape(y)} fit the classifier itself."
            )
        ids = None if groups is None else check_groups(groups, len(rows))
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        own_weight = None if sample_weight is None else weight
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
            one = with_cv_among(clone(self.estimator), known, len(rows))
            given = [
                None if each is None else each[known] for each in (ids, own_weight)
            ]
            self.estimators_.append(fit_with_groups(one, rows[known], values, *given))
        return self

    @available_if(lambda self: hasattr(self.estimator, "predict_proba"))
    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the probability of each label, ``(n_samples, n_labels)``."""
        return self._ask(X, lambda one, rows: one.predict_proba(rows)[:, 1], 0.0, 1.0)

    @available_if(lambda self: hasattr(self.estimator, "decision_function"))
    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return scores, ``(n_samples, n_labels)``, above 0 for predicted labels."""
        return self._ask(X, lambda one, rows: one.decision_function(rows), -1.0, 1.0)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return 1 for every label that its classifier predicts, else 0."""
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


def fit_with_groups(
    estimator: Any,
    X: Any,
    y: Any,
    groups: NDArray[Any] | None,
    sample_weight: NDArray[np.float64] | None = None,
) -> Any:
    """Fit an estimator; groups reach whatever splits by them, weights the last step.

    Groups go to a last step whose ``fit`` names them, else to splitters that request
    them, such as ``GroupKFold`` in a ``GridSearchCV``.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    given = {"sample_weight": sample_weight, "groups": groups}
    own = {
        name: value
        for name, value in given.items()
        if value is not None and has_fit_parameter(last, name)
    }
    if sample_weight is not None and "sample_weight" not in own:
        raise ValueError(
            f"{type(last).__name__} takes no sample_weight: leave it out of the "
            "search, or repeat rows."
        )
    if groups is not None and "groups" not in own and _asks_for_groups(estimator):
        # Without routing CalibratedClassifierCV and others hand them to no splitter.
        with config_context(enable_metadata_routing=True):
            return estimator.fit(X, y, groups=groups, **own)
    # Step by step, since a pipeline passes them on differently with and without
    # metadata routing.
    for _, step in estimator.steps[:-1] if isinstance(estimator, Pipeline) else []:
        if step not in (None, "passthrough"):
            X = step.fit_transform(X, y)
    last.fit(X, y, **own)
    return estimator


def _asks_for_groups(estimator: Any) -> bool:
    """Tell whether something in an estimator requests groups, such as a splitter."""
    try:
        routing = get_routing_for_object(estimator)
    except NotImplementedError:  # AdaBoost, for one, routes nothing
        return False
    return "groups" in routing.consumes("fit", ["groups"])
