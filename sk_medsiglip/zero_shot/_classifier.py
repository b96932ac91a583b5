"""``ZeroShotClassifier``: classification by prompts, without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import Tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from sk_medsiglip._bags import check_bags
from sk_medsiglip._classifier import Classifier
from sk_medsiglip._labels import Labels
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._validation import Integral, Interval, StrOptions, _fit_context
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.prompts import (
    ClassVectors,
    Question,
    check_prompts,
    encode_question,
    is_pair,
)
from sk_medsiglip.zero_shot._calibration import calibrate_scores
from sk_medsiglip.zero_shot._instances import (
    AGGREGATES,
    Pooling,
    check_rows_or_bags,
    iter_cosines,
    make_pooling,
)
from sk_medsiglip.zero_shot._scores import SCORINGS, cosines, probabilities, scores

_PAIR = np.array([0, 1])
_CALIBRATIONS = {"temperature", "temperature_bias", "prevalence"}


def _is_ordinal(classifier: ZeroShotClassifier) -> bool:
    if not classifier.ordinal:
        raise AttributeError("this method is for grades: set ordinal=True.")
    return True


class ZeroShotClassifier(VersionedPickle, Classifier, BaseEstimator):
    """Classify image embeddings by their similarity to prompts.

    The input is rows, with one vector per image, or bags, with several vectors per
    image or study, as returned by :class:`~sk_medsiglip.MedSigLIPPatchEmbedder` and
    ``MedSigLIPVolumeEmbedder(pooling=None)``. For bags, prompts score every vector, and
    the scores of a bag are pooled.

    Parameters
    ----------
    prompts : dict or PromptSet
        ``{class: prompts}`` for exclusive classes, or ``{finding: {"positive": prompts,
        "negative": prompts}}`` for one or several findings that are present or absent.
        Prompts are a text, a list of texts, or ``{text: weight}``.
    templates : str, list of str or dict, default=None
        Texts with one ``{}`` each, such as ``"a chest X-ray showing {}"``. Every prompt
        is filled into every template. ``{class: templates}`` sets the templates of each
        class.
    model : str or path-like, default="google/medsiglip-448"
        Model whose text tower encodes the prompts. It must be the one that embedded
        the images.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    scoring : {"softmax", "sigmoid", "cosine"}, default="softmax"
        Formula for probabilities. Rows sum to 1 with all of them. They rank the classes
        of one image in the same order, but may rank images differently.

        - "softmax": softmax of the logits of the prompts, as in the model card [2]_;
        - "sigmoid": sigmoids of the logits, as in the training of SigLIP [1]_, divided
          by their sum;
        - "cosine": cosine of a class minus the mean of the others (for a finding,
          positive minus negative, as in Google's chest X-ray notebooks [3]_), scaled
          linearly to the range from 0 to 1. This is a score rather than a probability.
    ensemble : {"embeddings", "scores", "max"}, default="embeddings"
        Method to combine several prompts of a class. "embeddings" averages their
        normalised vectors and normalises the mean [4]_; "scores" averages their
        cosines; "max" uses the most similar prompt, for classes that vary in
        appearance.
    ordinal : bool, default=False
        Whether classes are grades. Numbers are ordered by size, and other names as in
        ``prompts``. This adds :meth:`predict_grade` and
        :meth:`predict_cumulative_proba`.
    calibrate : {"temperature", "temperature_bias", "prevalence"} or None, default=None
        Calibration that is learned by ``fit``, with ``probabilities = softmax(scores /
        temperature + bias)``. There is one temperature for all classes, and one for
        each of several findings.

        - "temperature" learns the temperature from a few labels. Predicted classes, and
          the ranks of a finding's scores, do not change;
        - "temperature_bias" also learns biases, and so the frequency of classes;
        - "prevalence" needs no labels. It learns biases with which the mean probability
          over ``X`` is ``prevalence``.
    prevalence : float, dict, Series or None, default=None
        Shares for ``calibrate="prevalence"``: ``{class: share}`` for all classes,
        ``{finding: share}``, or a number for a single finding.
    aggregate : {"max", "mean", "top-k mean"} or dict, default="max"
        Method to pool the scores of the instances of a bag, without effect on rows.
        "max" uses the highest score, so that a finding is present if one instance shows
        it. "mean" uses all instances, and "top-k mean" the ``top_k`` highest [5]_.
        ``{finding: aggregate}`` sets the method of each finding. For findings the
        instances are ranked by present minus absent; exclusive classes are ranked
        separately.
    top_k : int, default=5
        Number of instances for "top-k mean". Bags with fewer instances use all of them.
    dtype, device, engine, batch_size, cache, verbose
        Parameters of :class:`~sk_medsiglip.MedSigLIPTextEmbedder`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_findings, 2)
        Sorted class names; ``[0, 1]`` for one finding; one row ``[0, 1]`` per finding
        for several.
    findings_ : ndarray of shape (n_findings,)
        Names of the findings in column order. Only for prompts of findings.
    grades_ : ndarray of shape (n_classes,)
        Classes from the lowest grade to the highest. Only with ``ordinal=True``.
    class_embeddings_ : ndarray
        Vectors of the classes, ``(n_classes, embedding_dim)`` in the order of
        ``classes_``; for several findings ``(n_findings, 2, embedding_dim)``, absent
        before present. They have unit length, or less with ``ensemble="scores"``.
    prompt_embeddings_ : ndarray of shape (n_prompts, embedding_dim)
        Vectors of the prompts with unit length, ordered by class. Only with
        ``ensemble="max"``.
    logit_scale_, logit_bias_ : float
        Scale and bias of the logit ``logit_scale_ * cosine + logit_bias_``.
    temperature_ : float or ndarray of shape (n_findings,)
        Divisor of the scores. Only with ``calibrate``.
    bias_ : ndarray of shape (n_classes,) or (n_findings, 2)
        Biases added after the division. Only with ``calibrate``.
    n_features_in_ : int
        Width of the embeddings.

    See Also
    --------
    make_zero_shot_pipeline : Make a pipeline that classifies images.

    Notes
    -----
    Without ``calibrate`` the probabilities are not calibrated, since the scale was
    learned on pairs of images and captions. ``CalibratedClassifierCV`` and
    ``TunedThresholdClassifierCV`` of scikit-learn work with this classifier. It is not
    a medical device.

    Embeddings of report texts by the same model can be classified in the same way.

    Bags are read in pieces of 32 MiB, including lazy and memory-mapped ones; ``fit``
    reads them only to calibrate. Bags with more instances have higher maxima, so bags
    should have similar lengths with "max".

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [2] MedSigLIP model card,
       https://developers.google.com/health-ai-developer-foundations/medsiglip
    .. [3] Xu et al., "ELIXR: Towards a general purpose X-ray artificial intelligence
       system through alignment of large language models and radiology vision
       encoders", 2023.
    .. [4] Radford et al., "Learning Transferable Visual Models From Natural Language
       Supervision", ICML 2021.
    .. [5] Lu et al., "Visual Language Pretrained Multiple Instance Zero-Shot Transfer
       for Histopathology Images", CVPR 2023.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(4, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> clf = ZeroShotClassifier(
    ...     {"effusion": "pleural effusion", "normal": "normal chest X-ray"},
    ...     model="demo",
    ... )
    >>> clf.fit(X).predict_proba(X).shape
    (4, 2)
    """

    _parameter_constraints: dict[str, Any] = {
        **MedSigLIPTextEmbedder._parameter_constraints,
        "prompts": "no_validation",  # check_prompts has better messages
        "templates": "no_validation",
        "scoring": [StrOptions(SCORINGS)],
        "ensemble": [StrOptions({"embeddings", "scores", "max"})],
        "ordinal": ["boolean"],
        "calibrate": [StrOptions(_CALIBRATIONS), None],
        "prevalence": [Mapping, Real, pd.Series, None],
        "aggregate": [StrOptions(AGGREGATES), Mapping],
        "top_k": [Interval(Integral, 1, None, closed="left")],
    }
    _parameter_constraints.pop("normalize")  # vectors of prompts are always normalised

    def __init__(
        self,
        prompts: Mapping[Any, Any],
        *,
        templates: str | Sequence[str] | Mapping[Any, Any] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        scoring: str = "softmax",
        ensemble: str = "embeddings",
        ordinal: bool = False,
        calibrate: str | None = None,
        prevalence: float | Mapping[Any, float] | pd.Series | None = None,
        aggregate: str | Mapping[Any, str] = "max",
        top_k: int = 5,
        dtype: str = "auto",
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | str = "auto",
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        verbose: int | bool = 0,
    ) -> None:
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.scoring = scoring
        self.ensemble = ensemble
        self.ordinal = ordinal
        self.calibrate = calibrate
        self.prevalence = prevalence
        self.aggregate = aggregate
        self.top_k = top_k
        self.dtype = dtype
        self.device = device
        self.engine = engine
        self.batch_size = batch_size
        self.cache = cache
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        *,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Encode the prompts, and learn the calibration.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, normalised or not; or bags of shape (n_samples,
            n_instances, embedding_dim), with NaN for missing instances. Without
            ``calibrate`` nothing is learned from them.
        y : array-like of shape (n_samples,) or (n_samples, n_findings), default=None
            Labels, needed only to calibrate by labels. If given, they must be among
            those of the prompts. Columns of several findings are in the order of the
            prompts, with NaN where a finding is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in calibration. A weight of 3 equals three copies of
            the sample.

        Returns
        -------
        self
            The fitted classifier.

        Raises
        ------
        PromptError
            If the prompts are malformed.
        ValueError
            If the width of ``X`` differs from that of the text tower, if ``y`` holds
            labels without prompts or is a DataFrame with the findings in another order,
            or if ``calibrate`` lacks labels or shares.
        """
        if self.prevalence is not None and self.calibrate != "prevalence":
            raise ValueError(
                "prevalence is only used with calibrate='prevalence'; set both or "
                "neither."
            )
        rows = check_rows_or_bags(self, X)
        question = self._read_prompts(None if y is None else np.asarray(y))
        # Plain numbers rather than a Pooling, so that skops can save them.
        self._n_best = make_pooling(self.aggregate, self.top_k, question).n_best
        vectors = self._encode_prompts(question)
        n_findings = len(question.labels) if question.is_pairs else 0
        several = n_findings > 1
        self.classes_: NDArray[Any]
        if n_findings:
            self.findings_ = question.labels
            self.classes_ = np.tile([0, 1], (n_findings, 1)) if several else _PAIR
        else:
            self.classes_ = question.labels
        if self.ordinal:
            self.grades_ = self._order_of_grades(question)
            self._column_of_grade = np.searchsorted(question.labels, self.grades_)
        self.logit_scale_, self.logit_bias_ = vectors.logit_scale, vectors.logit_bias
        self.class_embeddings_ = vectors.vectors
        if several:
            self.class_embeddings_ = vectors.vectors.reshape(n_findings, 2, -1)
        self._starts = None
        if self.ensemble == "max":
            self.prompt_embeddings_ = vectors.prompt_vectors
            self._starts = vectors.starts
        labels = None if y is None else question.read_labels(self, rows, y)
        if labels is not None and labels.classes is not None:
            self.classes_ = labels.classes  # indices, if y holds these
        places = np.arange(len(rows))  # bags may be lazy
        weight = _check_sample_weight(sample_weight, places, dtype=np.float64)
        self._is_calibrated = self.calibrate is not None
        if self.calibrate is not None:
            self._learn(rows, labels, self.calibrate, question.labels, weight)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return logits of SigLIP, in the shapes that scikit-learn's scorers expect.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray
            Logits ``logit_scale_ * cosine + logit_bias_`` of shape ``(n_samples,
            n_classes)``. For two classes they are second minus first, ``(n_samples,)``.
            For findings they are present minus absent, ``(n_samples,)`` for one and
            ``(n_samples, n_findings)`` for several. With ``scoring="sigmoid"`` the
            logarithms of their sigmoids are returned, with "cosine" the cosines, and
            with ``calibrate`` calibrated scores, so that the order is that of
            :meth:`predict_proba`.
        """
        values = self._answers(X)
        return values[..., 1] - values[..., 0] if values.shape[-1] == 2 else values

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return probabilities, computed as set by ``scoring`` and ``calibrate``.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray, float64
            Probabilities ``(n_samples, n_classes)``, in rows that sum to 1; for several
            findings ``(n_samples, n_findings)``, the probability that each is present.
        """
        shares = self._probabilities(X)
        return shares[..., 1] if shares.ndim == 3 else shares

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most likely class.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_findings)
            Class names; for findings 1 if present is more likely than absent, else 0.
        """
        best = self._answers(X).argmax(axis=-1)
        return best if best.ndim == 2 else self.classes_[best]

    def instance_scores(self, X: Any) -> NDArray[np.floating]:
        """Return the scores of the instances of bags, before they are pooled.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_instances, embedding_dim)
            Bags.

        Returns
        -------
        ndarray
            Scores of present minus absent, ``(n_samples, n_instances)`` for one finding
            and ``(n_samples, n_instances, n_findings)`` for several;
            :meth:`decision_function` pools these by ``aggregate``. For exclusive
            classes, including two, the scores of all classes ``(n_samples, n_instances,
            n_classes)``. Missing instances are NaN.

        Raises
        ------
        ValueError
            If ``X`` is not an array of bags, or has another width.
        """
        check_is_fitted(self)
        bags = check_bags(X, width=self.n_features_in_, estimator=self, values=False)
        parts = [self._calibrated(part) for part in self._iter_scores(bags)]
        found = np.concatenate(parts)
        is_pairs = hasattr(self, "findings_")
        return found[..., 1] - found[..., 0] if is_pairs else found

    @available_if(_is_ordinal)
    def predict_grade(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the expected grade, which may lie between two grades.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            Mean of the grades, weighted by their probabilities. Grades that are not
            numbers count as their index in ``grades_``.
        """
        shares = self._probabilities_of_grades(X)
        numbers = self.grades_.dtype.kind in "iuf"
        return shares @ (self.grades_ if numbers else np.arange(len(self.grades_)))

    @available_if(_is_ordinal)
    def predict_cumulative_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities that the grade exceeds each grade but the last.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes - 1), float64
            Column ``k`` is the probability of a grade above ``grades_[k]``, so that
            rows decrease. Each column is a score for a referral threshold, such as
            "moderate or worse".
        """
        shares = self._probabilities_of_grades(X)
        # Sums can exceed 1 by rounding.
        return np.minimum(shares[:, ::-1].cumsum(axis=1)[:, -2::-1], 1.0)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.calibrate not in (None, "prevalence")
        tags.input_tags.three_d_array = True
        if isinstance(self.prompts, Mapping) and len(self.prompts) > 1:
            several = all(map(is_pair, self.prompts.values()))
            tags.classifier_tags.multi_label = several
            tags.target_tags.multi_output = several
        return tags

    def _read_prompts(self, y: NDArray[Any] | None) -> Question:
        """Return the question of the prompts; subclasses may use ``y``."""
        return check_prompts(self.prompts, self.templates)

    def _encode_prompts(self, question: Question) -> ClassVectors:
        """Return the class vectors, and the scale and bias of logits."""
        embedder = text_embedder_of(self)
        return encode_question(question, self.n_features_in_, embedder, self.ensemble)

    def _order_of_grades(self, question: Question) -> NDArray[Any]:
        if question.is_pairs:
            raise PromptError(
                "ordinal=True needs grades, {grade: prompts}; findings that are "
                "present or absent have no order."
            )
        if question.labels.dtype.kind in "iuf":
            return question.labels  # sorted
        return np.asarray(list(self.prompts))

    def _learn(
        self,
        X: Any,
        labels: Labels | None,
        how: str,
        names: NDArray[Any],
        weight: NDArray[np.float64],
    ) -> None:
        """Learn temperatures and biases."""
        calibrations = calibrate_scores(
            self._scores(X),
            how,
            labels=labels,
            prevalence=self.prevalence,
            names=names,
            sample_weight=weight,
        )
        temperatures = np.array([one.temperature for one in calibrations])
        biases = np.array([one.bias for one in calibrations])
        several = self.classes_.ndim == 2
        self.temperature_ = temperatures if several else float(temperatures[0])
        self.bias_ = biases if several else biases[0]

    def _scores(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return scores of all answers, (n, n_classes) or (n, n_findings, 2)."""
        check_is_fitted(self)
        given = check_rows_or_bags(self, X, reset=False)
        if len(given.shape) == 2:
            return self._scores_of(cosines(given, *self._vectors()))
        pooling = Pooling(self._n_best, hasattr(self, "findings_"))
        parts = [pooling.pool_all(part) for part in self._iter_scores(given)]
        return np.concatenate(parts)

    def _iter_scores(self, bags: Any) -> Iterator[NDArray[np.floating]]:
        """Yield scores of the instances of a few bags at a time."""
        return map(self._scores_of, iter_cosines(bags, *self._vectors()))

    def _vectors(self) -> tuple[NDArray[np.floating], NDArray[np.intp] | None]:
        """Return the vectors to compare with, and the first index of each answer."""
        if self._starts is not None:
            return self.prompt_embeddings_, self._starts
        return self.class_embeddings_.reshape(-1, self.n_features_in_), None

    def _scores_of(self, flat: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return scores for cosines whose last axis holds all answers."""
        shape = flat.shape[:-1] + self.class_embeddings_.shape[:-1]
        scale, bias = self.logit_scale_, self.logit_bias_
        return scores(flat.reshape(shape), scale, bias, self.scoring)

    def _calibrated(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return scores with calibration applied, if there is one."""
        if not self._is_calibrated:
            return values
        temperature = np.asarray(self.temperature_)[..., None]
        return values.astype(np.float64) / temperature + self.bias_

    def _answers(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the scores of all answers, calibrated if the classifier is."""
        return self._calibrated(self._scores(X))

    def _probabilities(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probabilities of all answers, in the shape of the cosines."""
        return probabilities(
            self._answers(X), self.scoring, calibrated=self._is_calibrated
        )

    def _probabilities_of_grades(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities in the order of ``grades_``."""
        return self._probabilities(X)[:, self._column_of_grade]


def text_embedder_of(estimator: Any) -> MedSigLIPTextEmbedder:
    """Return the text embedder that the parameters of an estimator describe."""
    names = set(MedSigLIPTextEmbedder().get_params()) - {"normalize"}
    return MedSigLIPTextEmbedder(**{name: getattr(estimator, name) for name in names})
