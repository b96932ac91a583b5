"""``NoveltyGate``: tells images unlike those that a classifier has learned from."""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    OneToOneFeatureMixin,
    OutlierMixin,
    TransformerMixin,
)
from sklearn.covariance import LedoitWolf
from sklearn.model_selection import GroupKFold
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._splits import group_numbers
from sk_medsiglip._validation import (
    Integral,
    Interval,
    Real,
    StrOptions,
    _fit_context,
)
from sk_medsiglip._warning import warn_user
from sk_medsiglip.exceptions import NoveltyWarning

#: Bounds on false alarms in ``transform``: two standard deviations above the mean.
_DEVIATIONS = 2.0
#: Columns that decide the order of rows, on which folds depend.
_N_ORDERING = 4


class NoveltyGate(
    VersionedPickle,
    OneToOneFeatureMixin,
    TransformerMixin,
    OutlierMixin,
    BaseEstimator,
):
    """Tell images that are unlike the training images, before a classifier sees them.

    A classifier of chest radiographs answers for a photograph, too. The gate measures
    how far an embedding lies from those of the training images, and calls it novel
    where that is rare among images of patients it has not learned from. In a pipeline
    it stands before the classifier: it passes embeddings on as they are, and warns or
    raises where some are novel.

    Parameters
    ----------
    false_alarm_rate : float, default=0.05
        Share of ordinary images that are called novel, in the mean over patients. It
        needs ``1 / false_alarm_rate - 1`` patients: 19 for .05.
    cv : int, default=10
        Number of folds by patient from which the distances of ordinary images are
        known; fewer where there are fewer patients.
    on_novel : {"warn", "raise", "ignore"}, default="warn"
        Action of ``transform``: "warn" does where more images are novel than
        ``false_alarm_rate`` explains, and "raise" raises where any is.

    Attributes
    ----------
    location_ : ndarray of shape (n_features,)
        The mean of the training rows.
    whitening_ : ndarray of shape (n_features, n_features), float32
        Matrix that turns differences from the mean into uncorrelated columns of
        variance 1, as far as the shrunk covariance knows.
    calibration_scores_ : ndarray of shape (n_samples,)
        Scores of the training rows by gates that did not learn from their patients,
        sorted.
    calibration_weights_ : ndarray of shape (n_samples,)
        Weights of these scores; those of a patient sum to 1.
    offset_ : float
        Score from which a row is not novel.
    n_features_in_ : int
        Width of the training rows.
    feature_names_in_ : ndarray of str
        Names of the columns, if ``X`` had any.

    See Also
    --------
    drift_test : Whether a set of images as a whole differs from another.

    Notes
    -----
    The score is the negative Mahalanobis distance with the covariance of Ledoit and
    Wolf [1]_. The p-value of an image is conformal by patient [2]_: the share of
    patients (each by the share of its images) whose images are as far out, the new one
    counted among them. The distances of training images come from folds, which learned
    from a little less, so the false alarm rate is kept or slightly undercut.

    The gate is made for another body part, another modality, inverted grey values,
    turned images and pages of text. Do **not** rely on it for an unknown disease. The
    demonstration checkpoint, which learned from phantoms with these findings, places
    phantoms with a finding that the training images lack far out; that says nothing
    about MedSigLIP, for which others report that such scores do not separate them. The
    gate does not say whether the classifier is right.

    Cost: ``cv + 1`` covariances and their decompositions; ``score_samples`` is one
    matrix product.

    References
    ----------
    .. [1] Ledoit and Wolf, "A well-conditioned estimator for large-dimensional
       covariance matrices", Journal of Multivariate Analysis 88, 2004; as a detector:
       Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples
       and Adversarial Attacks", NeurIPS 2018.
    .. [2] Bates, Candes, Lei, Romano and Sesia, "Testing for outliers with conformal
       p-values", Annals of Statistics 51, 2023; for patients with several images: Dunn,
       Wasserman and Ramdas, "Distribution-Free Prediction Sets for Two-Layer
       Hierarchical Models", Journal of the American Statistical Association 118, 2023.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.audit import NoveltyGate
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(150, random_state=0)
    >>> embedder = MedSigLIPEmbedder("demo")
    >>> gate = NoveltyGate().fit(
    ...     embedder.transform(phantoms.images), groups=phantoms.groups
    ... )
    >>> others = make_chest_phantoms(2, random_state=1).images
    >>> gate.predict(embedder.transform([others[0], 255 - others[1]]))
    array([ 1, -1])
    """

    _parameter_constraints: dict[str, Any] = {
        "false_alarm_rate": [Interval(Real, 0, 1, closed="neither")],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "on_novel": [StrOptions({"warn", "raise", "ignore"})],
    }

    def __init__(
        self,
        false_alarm_rate: float = 0.05,
        *,
        cv: int = 10,
        on_novel: Literal["warn", "raise", "ignore"] = "warn",
    ) -> None:
        self.false_alarm_rate = false_alarm_rate
        self.cv = cv
        self.on_novel = on_novel

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """Learn what ordinary embeddings are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings of ordinary images, without bad ones as far as possible.
        y : None
            Ignored.
        groups : array-like of shape (n_samples,), default=None
            Patients. By default, each row is a patient.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are fewer than two patients, or ``X`` holds NaN.

        Warns
        -----
        NoveltyWarning
            If there are too few patients for the false alarm rate.
        """
        rows = check_embeddings(self, X).astype(np.float64)
        patient = group_numbers(groups, len(rows))
        order = np.lexsort(rows[:, :_N_ORDERING].T[::-1])
        rows, patient = rows[order], group_numbers(patient[order])
        n_patients = int(patient.max()) + 1
        if n_patients < 2:
            raise ValueError(
                f"NoveltyGate needs two patients or more; got n_samples={len(rows)} of "
                "1 patient."
            )
        scores = np.empty(len(rows))
        folds = GroupKFold(min(self.cv, n_patients))
        for learned, left_out in folds.split(rows, groups=patient):
            scores[left_out] = novelty_scores(rows[left_out], *whiten(rows[learned]))
        self.location_, self.whitening_ = whiten(rows)
        by_score = np.argsort(scores, kind="stable")
        self.calibration_scores_ = scores[by_score]
        self.calibration_weights_ = (1 / np.bincount(patient)[patient])[by_score]
        self.offset_ = self._offset(n_patients)
        return self

    def _offset(self, n_patients: int) -> float:
        """Return the score from which p-values exceed the false alarm rate."""
        allowed = self.false_alarm_rate * (n_patients + 1) - 1
        if allowed < -1e-9:
            needed = int(np.ceil(1 / self.false_alarm_rate - 1 - 1e-9))
            warn_user(
                f"a false alarm rate of {self.false_alarm_rate:g} needs {needed} "
                f"patients, and there are {n_patients}: no image will be called novel. "
                "Fit more patients, or raise false_alarm_rate.",
                NoveltyWarning,
            )
            return -np.inf
        as_far = np.cumsum(self.calibration_weights_)
        first = int(np.searchsorted(as_far, allowed + 1e-9, side="right"))
        return float(self.calibration_scores_[min(first, len(as_far) - 1)])

    def fit_transform(self, X: ArrayLike, y: Any = None, **params: Any) -> Any:
        """Fit, and return the rows as they are, without looking for novel ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : None
            Ignored.
        **params : dict
            ``groups``, as in :meth:`fit`.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The embeddings.
        """
        on_novel = self.on_novel
        try:
            self.fit(X, y, **params).on_novel = "ignore"
            return self.transform(X)
        finally:
            self.on_novel = on_novel

    def transform(self, X: ArrayLike) -> Any:
        """Return the rows as they are; warn or raise where some are novel.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The embeddings.

        Raises
        ------
        ValueError
            If ``on_novel="raise"`` and a row is novel.

        Warns
        -----
        NoveltyWarning
            If ``on_novel="warn"`` and more rows are novel than chance explains.
        """
        check_is_fitted(self)
        rows = check_embeddings(self, X, reset=False)
        if self.on_novel == "ignore":
            return rows
        novel = np.flatnonzero(self._score(rows) < self.offset_)
        expected = self.false_alarm_rate * len(rows)
        by_chance = _DEVIATIONS * np.sqrt(expected * (1 - self.false_alarm_rate))
        shown = ", ".join(map(str, novel[:5].tolist())) + ", ..." * (len(novel) > 5)
        message = (
            f"{len(novel)} of {len(rows)} images are unlike the training images (rows "
            f"{shown}); {expected:.1f} are expected by chance. Look at them, or at "
            "NoveltyGate.p_values."
        )
        if len(novel) and self.on_novel == "raise":
            raise ValueError(message)
        if len(novel) > expected + by_chance:
            warn_user(message, NoveltyWarning)
        return rows

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return how ordinary rows are: the negative Mahalanobis distance.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            At most 0; the lower, the more novel.
        """
        check_is_fitted(self)
        return self._score(check_embeddings(self, X, reset=False))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return scores less ``offset_``: negative for novel rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            Infinite where too few patients were fitted.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return 1 for ordinary rows and -1 for novel ones.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        answers : ndarray of shape (n_samples,)
            1 or -1.
        """
        return np.where(self.score_samples(X) < self.offset_, -1, 1)

    def p_values(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return conformal p-values: small for novel rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.

        Returns
        -------
        p_values : ndarray of shape (n_samples,)
            The probability that an ordinary image of a new patient is as far out. The
            smallest is ``1 / (n_patients + 1)``.
        """
        scores = self.score_samples(X)
        as_far = np.r_[0.0, np.cumsum(self.calibration_weights_)]
        found = np.searchsorted(self.calibration_scores_, scores, side="right")
        return (1 + as_far[found]) / (1 + as_far[-1])

    def _score(self, rows: NDArray[np.floating]) -> NDArray[np.float64]:
        return novelty_scores(rows, self.location_, self.whitening_)


def whiten(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the mean, and a matrix that makes the shrunk covariance the identity."""
    fitted = LedoitWolf(store_precision=False).fit(rows)
    values, vectors = np.linalg.eigh(fitted.covariance_)
    # Rows that are all alike have no direction to differ in.
    least = max(values[-1] * len(values) * np.finfo(np.float64).eps, 1e-60)
    # Half as long in a saved gate, and as exact as embeddings are.
    whitening = (vectors / np.sqrt(np.maximum(values, least))).astype(np.float32)
    return fitted.location_, whitening


def novelty_scores(
    rows: NDArray[np.floating],
    location: NDArray[np.float64],
    whitening: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Return negative distances from the mean."""
    return -np.linalg.norm((rows - location) @ whitening, axis=1)
