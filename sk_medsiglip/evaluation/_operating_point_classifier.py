"""``OperatingPointClassifier``: a classifier with chosen thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._classifier import Classifier
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip.evaluation._operating_point import OperatingPoint
from sk_medsiglip.zero_shot import Answers, find_answers, list_probabilities


class OperatingPointClassifier(
    VersionedPickle, Classifier, MetaEstimatorMixin, BaseEstimator
):
    """Classifier that predicts by thresholds on the probabilities of another one.

    ``FixedThresholdClassifier`` of scikit-learn does this for two classes. This class
    also supports several findings, so that one saved file holds a classifier and its
    operating points.

    Parameters
    ----------
    estimator : classifier
        Classifier of two classes or several findings, or a pipeline that ends in one.
        It is fitted again, unless it is a ``FrozenEstimator``.
    operating_points : OperatingPoint, float, or mapping or sequence of these
        Thresholds, as returned by :func:`choose_operating_point`. Several findings need
        one each, by name or in the order of the columns.

    Attributes
    ----------
    estimator_ : classifier
        The fitted classifier.
    classes_ : ndarray of shape (2,) or (n_findings, 2)
        Classes of ``estimator_``.
    findings_ : ndarray of shape (n_findings,)
        Names of the findings, if ``estimator_`` has them.
    thresholds_ : ndarray of shape (1,) or (n_findings,)
        Lowest probability with which the second class, or each finding, is predicted.

    See Also
    --------
    choose_operating_point : Choose a threshold for a required sensitivity.

    Examples
    --------
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sk_medsiglip import LinearProbe
    >>> from sk_medsiglip.evaluation import OperatingPointClassifier
    >>> X, y = [[0.0], [1.0], [2.0], [3.0]] * 3, [0, 0, 1, 1] * 3
    >>> probe = LinearProbe(Cs=[1.0]).fit(X, y)
    >>> careful = OperatingPointClassifier(FrozenEstimator(probe), 0.01).fit(X, y)
    >>> int(probe.predict([[1.2]])[0]), int(careful.predict([[1.2]])[0])
    (0, 1)
    """

    def __init__(self, estimator: Any, operating_points: Any) -> None:
        self.estimator = estimator
        self.operating_points = operating_points

    def fit(self, X: Any, y: ArrayLike | None = None, **params: Any) -> Self:
        """Fit the classifier, and match the thresholds with its findings.

        Parameters
        ----------
        X : array-like
            Input of the classifier.
        y : array-like of shape (n_samples,) or (n_samples, n_findings), default=None
            Labels.
        **params : dict
            Parameters that are passed to ``fit`` of the classifier.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        ValueError
            If the classifier has three or more exclusive classes, or if there are too
            few or too many thresholds, or NaN among them.
        """
        self.estimator_ = clone(self.estimator).fit(X, y, **params)
        answers = find_answers(self.estimator_, y)
        if not answers.several and len(answers.classes) != 2:
            raise ValueError(
                "operating points are for two classes or several findings; the "
                f"classifier has the classes {answers.classes.tolist()}."
            )
        self.classes_ = answers.classes
        if answers.findings is not None:
            self.findings_ = answers.findings
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        self.thresholds_ = self._read_points(answers)
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """Return predictions by the thresholds.

        Parameters
        ----------
        X : array-like
            Input of the classifier.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_findings)
            The second class, or 1, if its probability is at least the threshold.
        """
        check_is_fitted(self)
        answers = Answers(self.classes_, getattr(self, "findings_", None))
        shares = list_probabilities(self.estimator_, X, answers)[..., 1]
        if answers.several:
            return (shares >= self.thresholds_).astype(np.intp)
        return self.classes_[(shares >= self.thresholds_).astype(np.intp)]

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the probabilities of the classifier.

        Parameters
        ----------
        X : array-like
            Input of the classifier.

        Returns
        -------
        ndarray of shape (n_samples, 2) or (n_samples, n_findings)
            Probabilities.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.classifier_tags = inner.classifier_tags
        tags.classifier_tags.multi_class = False
        tags.target_tags = inner.target_tags
        return tags

    def _read_points(self, answers: Answers) -> NDArray[np.float64]:
        """Return the thresholds in the order of the columns."""
        given = self.operating_points
        names = answers.finding_names if answers.several else [None]
        if isinstance(given, Mapping):
            if set(given) != set(names):
                raise ValueError(
                    f"operating_points has the findings {sorted(map(str, given))}; the "
                    f"classifier has {sorted(map(str, names))}."
                )
            given = [given[name] for name in names]
        elif not isinstance(given, Sequence | np.ndarray):
            given = [given]
        if len(given) != len(names):
            raise ValueError(
                f"operating_points holds {len(given)} thresholds, and the classifier "
                f"needs {len(names)}, one for each finding."
            )
        values = [
            one.threshold if isinstance(one, OperatingPoint) else one for one in given
        ]
        thresholds = np.asarray(values, dtype=np.float64)
        if np.isnan(thresholds).any():  # infinite ones are allowed
            raise ValueError(f"thresholds must be numbers; got {values}.")
        return thresholds
