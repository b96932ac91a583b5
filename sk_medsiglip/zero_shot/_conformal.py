"""``ConformalZeroShot``: sets of classes with a guaranteed coverage.

MAPIE and crepes support neither several findings, unknown labels, lists of images nor
patients with several images, and their estimators cannot be cloned.
"""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_sample_weight,
    _estimator_has,
    _num_samples,
    check_consistent_length,
    check_is_fitted,
    has_fit_parameter,
)

from sk_medsiglip._classifier import Classifier
from sk_medsiglip._labels import known_labels
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._resampling import check_level
from sk_medsiglip._splits import group_numbers, with_cv_among
from sk_medsiglip._validation import Interval, Real, StrOptions, _fit_context
from sk_medsiglip.zero_shot._conformal_answers import (
    Answers,
    find_answers,
    list_probabilities,
    match_labels,
)
from sk_medsiglip.zero_shot._conformal_sets import (
    class_quantiles,
    report_coverage,
    say_few,
    score_classes,
)
from sk_medsiglip.zero_shot._conformal_split import learns, split_patients, take


def _weights_of_last_step(estimator: Any, sample_weight: Any) -> dict[str, Any]:
    """Return weights under the name that ``fit`` of the last step expects."""
    last, name = estimator, "sample_weight"
    if isinstance(estimator, Pipeline):
        step, last = estimator.steps[-1]
        name = f"{step}__{name}"
    takes = has_fit_parameter(last, "sample_weight") and sample_weight is not None
    return {name: sample_weight} if takes else {}


class ConformalZeroShot(VersionedPickle, Classifier, MetaEstimatorMixin, BaseEstimator):
    """Predict sets of classes that hold the true class with a chosen probability.

    The set holds the true class for a share of ``1 - alpha`` of new patients' images,
    whatever the quality of the probabilities; poor ones give larger sets. Calibration
    needs labelled images that were not used for training, which for zero-shot
    classifiers are all of them.

    Parameters
    ----------
    estimator : estimator
        A classifier with ``predict_proba``, or a pipeline that ends in one. One that
        needs no labels, such as :class:`ZeroShotClassifier`, is fitted again. One that
        needs labels is trained on a part of the patients, and calibrated on the others.
        To use a classifier that is already trained pass ``FrozenEstimator(clf)``.
    alpha : float, default=0.1
        Share of the images of new patients whose set may miss the true class.
    method : {"lac", "aps"}, default="lac"
        "lac" includes every class that is likely enough; sets are small [3]_ and may be
        empty. "aps" adds classes, the most likely first, until their probabilities
        exceed a sum [4]_; sets are never empty, and larger for difficult images. It
        needs three or more exclusive classes.
    conditional : {"class", "none"}, default="class"
        "class" guarantees the coverage within each class, and for findings within
        present and absent images; labelled patients are needed for each class. "none"
        guarantees it over all images together. This needs fewer labels and often gives
        smaller sets, but a rare finding may be missed most of the time.
    calibration_size : float, default=0.5
        Share of the patients that are used for calibration, if ``estimator`` is trained
        on the others. It has no effect otherwise.
    random_state : int, RandomState or None, default=None
        Seed of the choice of these patients.

    Attributes
    ----------
    estimator_ : estimator
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,) or (n_findings, 2)
        Classes in the order of the last axis of the sets; 0 and 1 for every finding.
    findings_ : ndarray of shape (n_findings,)
        Names of several findings, if the classifier or ``y`` has any.
    quantiles_ : ndarray of shape (n_classes,) or (n_findings, 2)
        Largest score with which a class is in the set. With "lac" the score is 1 minus
        the probability of the class. It is infinite if there are too few labels, so
        that the class is in every set.
    n_calibration_ : ndarray, shaped as ``quantiles_``
        Number of patients for each quantile.
    n_features_in_ : int
        Number of features, if the classifier has it.
    feature_names_in_ : ndarray of str
        Names of the features, if the classifier has them.

    See Also
    --------
    ZeroShotClassifier : The classifier that is usually wrapped.

    Notes
    -----
    The guarantee is for a random image of a random patient from the population of the
    calibration patients. It does not hold for another hospital, scanner or prevalence;
    :meth:`coverage_report` measures the coverage on labelled images from there. It
    holds on average over calibration sets: with a single set of 50 patients the
    coverage can easily be 4 points lower.

    Images of one patient are similar, and not exchangeable with those of others. Each
    patient counts once in the quantile, with a weight that is spread over its images
    [1]_. This keeps the guarantee exact and, unlike drawing one image per patient [2]_,
    uses all images and no random numbers. Without ``groups`` each image counts as a
    patient.

    With several findings each is calibrated separately, so the guarantee is for each
    finding, and not for all findings of an image at once.

    References
    ----------
    .. [1] Lee, Barber and Willett, "Distribution-free inference with hierarchical
       data", 2023, arXiv:2306.06342.
    .. [2] Dunn, Wasserman and Ramdas, "Distribution-Free Prediction Sets for Two-Layer
       Hierarchical Models", Journal of the American Statistical Association, 2022.
    .. [3] Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers With
       Bounded Error Levels", Journal of the American Statistical Association, 2019.
    .. [4] Romano, Sesia and Candès, "Classification with Valid and Adaptive Coverage",
       NeurIPS 2020, here without randomisation.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.zero_shot import ConformalZeroShot
    >>> phantoms = make_chest_phantoms(120, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> clf = ZeroShotClassifier(
    ...     {"effusion": {"positive": "pleural effusion",
    ...                   "negative": "no pleural effusion"}},
    ...     model="demo",
    ... )
    >>> y = phantoms.target[:, 1]
    >>> conformal = ConformalZeroShot(clf).fit(X, y, groups=phantoms.groups)
    >>> conformal.predict_set(X).shape  # absent, present
    (120, 2)
    """

    _parameter_constraints: dict[str, Any] = {
        "estimator": "no_validation",  # fit has a better message
        "alpha": [Interval(Real, 0, 1, closed="neither")],
        "method": [StrOptions({"lac", "aps"})],
        "conditional": [StrOptions({"none", "class"})],
        "calibration_size": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        alpha: float = 0.1,
        method: str = "lac",
        conditional: str = "class",
        calibration_size: float = 0.5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.alpha = alpha
        self.method = method
        self.conditional = conditional
        self.calibration_size = calibration_size
        self.random_state = random_state

    # The wrapped classifier validates its own parameters.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit the classifier and compute the quantiles of the sets.

        Parameters
        ----------
        X : array-like
            Input of the classifier: embeddings, or images for a pipeline.
        y : array-like of shape (n_samples,) or (n_samples, n_findings)
            Classes; or 1 and 0 for each finding. NaN leaves the image out for that
            finding.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the images. They are passed to a classifier that is trained, and
            in the quantile they divide the weight of a patient among its images. They
            do not change the weights of patients, since the weight of a new patient
            would then be needed too. Images with weight 0 are left out.
        groups : array-like of shape (n_samples,), default=None
            Patients, each of whom counts once. With metadata routing, they are passed
            to a classifier that is trained and requests them.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        ValueError
            If ``y`` holds labels that are unknown to the classifier or has another
            shape than its predictions, or if the patient of an image is missing.

        Warns
        -----
        UserWarning
            If a class has too few labelled patients for ``alpha``: it is in every set.
        LabelCodesWarning
            If ``y`` holds the numbers 0 to ``n_classes - 1`` and the classifier has
            names, as in ``cross_val_predict`` of scikit-learn. The numbers are the
            classes then.
        """
        if y is None:
            raise ValueError(
                "ConformalZeroShot requires y to be passed, but the target y is None."
            )
        truth, rows = known_labels(y)
        if not hasattr(self.estimator, "predict_proba"):
            raise TypeError(
                f"estimator must have predict_proba, and {self.estimator!r} does not: "
                "wrap it in CalibratedClassifierCV."
            )
        check_consistent_length(X, y)
        n_samples = _num_samples(X)
        patients = group_numbers(groups, n_samples)
        weight = _check_sample_weight(sample_weight, patients, dtype=np.float64)
        counts = weight[rows] > 0
        truth, rows = truth[counts], rows[counts]
        if learns(self.estimator):
            learn, calibrate = split_patients(
                truth, patients[rows], self.calibration_size, self.random_state
            )
            given = {"sample_weight": sample_weight, "groups": groups}
            given = {name: one for name, one in given.items() if one is not None}
            if get_config()["enable_metadata_routing"]:
                asked = process_routing(self, "fit", **given).estimator.fit
            else:
                asked = _weights_of_last_step(self.estimator, sample_weight)
            taught = truth[learn]
            if taught.ndim == 2 and not np.isnan(taught).any():
                taught = taught.astype(np.intp)
            at = rows[learn]
            asked = {name: take(value, at) for name, value in asked.items()}
            learner = with_cv_among(clone(self.estimator), at, n_samples)
            self.estimator_ = learner.fit(take(X, at), taught, **asked)
            truth, rows = truth[calibrate], rows[calibrate]
        elif isinstance(self.estimator, FrozenEstimator):
            self.estimator_ = self.estimator
        else:
            self.estimator_ = clone(self.estimator).fit(X)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        answers = find_answers(self.estimator_, y)
        if answers.findings is not None:
            self.findings_ = answers.findings
        self.classes_, labels = match_labels(answers, y, truth)
        self._has_codes = self.classes_ is not answers.classes
        scores = self._scores(X if len(rows) == n_samples else take(X, rows))
        self.quantiles_, self.n_calibration_ = class_quantiles(
            scores,
            labels,
            patients[rows],
            weight[rows],
            alpha=self.alpha,
            by_class=self.conditional == "class",
        )
        if np.isinf(self.quantiles_).any():
            few = say_few(
                self._answers(),
                self.quantiles_,
                self.n_calibration_,
                alpha=self.alpha,
                by_class=self.conditional == "class",
            )
            warnings.warn(few, UserWarning, stacklevel=3)
        return self

    def predict_set(self, X: Any) -> NDArray[np.bool_]:
        """Return the sets of classes that may be the true one.

        Parameters
        ----------
        X : array-like
            Input of the classifier.

        Returns
        -------
        ndarray of bool, (n_samples, n_classes) or (n_samples, n_findings, 2)
            True for the classes in the set, in the order of ``classes_`` (absent before
            present for findings). An empty set means that no class is likely enough,
            and a full set that no class can be ruled out.
        """
        check_is_fitted(self)
        return self._scores(X) <= self.quantiles_

    def coverage_report(
        self,
        X: Any,
        y: ArrayLike,
        *,
        groups: ArrayLike | None = None,
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Measure coverage and size of the sets on other labelled images.

        Parameters
        ----------
        X, y, groups
            Data as in :meth:`fit`, of images that were not used for training or
            calibration.
        level : float, default=0.95
            Confidence level of the intervals, which are Wilson's with the effective
            number of patients and Student's t distribution. A single patient has no
            interval.

        Returns
        -------
        DataFrame
            One row for all images ("any") and one for each true class, for each
            finding. The columns are ``n`` (images) and ``n_patients``; ``coverage``
            with ``low`` and ``high``; the mean ``set_size``; and the shares of sets
            with a ``single`` class, no class (``empty``) and all classes (``full``).
            Each patient counts once.
        """
        check_is_fitted(self)
        check_level(level)
        answers = self._answers()
        check_consistent_length(X, y)
        patients = group_numbers(groups, _num_samples(X))
        truth, rows = known_labels(y)
        _, labels = match_labels(answers, y, truth)
        sets = self.predict_set(X if len(rows) == len(patients) else take(X, rows))
        return report_coverage(sets, labels, patients[rows], answers, level)

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the predictions of the classifier.

        Parameters
        ----------
        X : array-like
            Input of the classifier.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_findings)
            Predictions.
        """
        check_is_fitted(self)
        answers = self.estimator_.predict(X)
        if not self._has_codes:
            return answers
        return np.searchsorted(self.estimator_.classes_, answers)

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the probabilities of the classifier.

        Parameters
        ----------
        X : array-like
            Input of the classifier.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples, n_findings)
            Probabilities.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Return the decision function of the classifier.

        Parameters
        ----------
        X : array-like
            Input of the classifier.

        Returns
        -------
        ndarray
            Scores.
        """
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the routing of ``groups`` and other metadata.

        Returns
        -------
        MetadataRouter
            The routing of this estimator and its classifier.
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(
            estimator=self.estimator,
            method_mapping=MethodMapping().add(caller="fit", callee="fit"),
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.classifier_tags = inner.classifier_tags
        tags.target_tags.multi_output = inner.target_tags.multi_output
        return tags

    def _answers(self) -> Answers:
        return Answers(self.classes_, getattr(self, "findings_", None))

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Return the nonconformity scores of all classes."""
        if self.method == "aps" and self.classes_.shape[-1] == 2:
            raise ValueError(
                "method='aps' needs three or more exclusive classes; for two classes "
                "or for findings use method='lac'."
            )
        probabilities = list_probabilities(self.estimator_, X, self._answers())
        return score_classes(probabilities, self.method)
