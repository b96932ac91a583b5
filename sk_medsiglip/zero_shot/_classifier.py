"""``ZeroShotClassifier``: classes from prompts, no labels needed."""

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
        raise AttributeError("only grades have an order: set ordinal=True.")
    return True


class ZeroShotClassifier(VersionedPickle, Classifier, BaseEstimator):
    """Classify image embeddings by their similarity to prompts.

    Takes rows, one vector an image, or bags: several vectors of one image or study, as
    :class:`~sk_medsiglip.MedSigLIPPatchEmbedder` and
    ``MedSigLIPVolumeEmbedder(pooling=None)`` make them. Prompts then score every
    vector, and the scores of a bag are pooled.

    Parameters
    ----------
    prompts : dict or PromptSet
        One of several classes: ``{class: prompts}``. Present or absent: ``{finding:
        {"positive": prompts, "negative": prompts}}``, one finding or several. Prompts
        are a text, a list of texts, or ``{text: weight}``.
    templates : str, list of str or dict, default=None
        Texts with one ``{}`` each, such as ``"a chest X-ray showing {}"``; every
        prompt is filled into every template. ``{class: templates}`` gives each class
        its own.
    model : str or path-like, default="google/medsiglip-448"
        Model whose text tower encodes the prompts. It must be the one that embedded
        the images.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    scoring : {"softmax", "sigmoid", "cosine"}, default="softmax"
        How similarities become probabilities; rows sum to 1 under all of them. They
        rank the classes of one image alike; across images they rank differently.
        "softmax" over the prompts' logits, as the model card does [2]_. "sigmoid" of
        each, as SigLIP was trained [1]_, divided by their sum. "cosine" is the cosine
        of a class less the mean of the others', for a finding positive minus negative
        as in Google's chest X-ray notebooks [3]_, brought linearly to a number from 0
        to 1: a score, not a probability.
    ensemble : {"embeddings", "scores", "max"}, default="embeddings"
        How several prompts of a class become one. "embeddings" averages their
        normalised vectors and normalises the mean [4]_; "scores" averages their
        cosines; "max" takes the most similar prompt, for classes with several faces.
    ordinal : bool, default=False
        Whether classes are grades: numbers in order of size, other names in the order
        of ``prompts``. Adds :meth:`predict_grade` and
        :meth:`predict_cumulative_proba`.
    calibrate : {"temperature", "temperature_bias", "prevalence"} or None, default=None
        Calibration that ``fit`` learns from its data, with ``probabilities =
        softmax(scores / temperature + bias)``. "temperature" from a few labels:
        predicted classes, and the ranks of a finding's scores, stay as they are.
        "temperature_bias" also learns how frequent classes are. "prevalence" needs no
        labels: biases that make the mean probability over ``X`` the ``prevalence``. One
        temperature for all classes; several findings have one each.
    prevalence : float, dict, Series or None, default=None
        Shares for ``calibrate="prevalence"``: ``{class: share}`` of all classes, or
        ``{finding: share}``; one number for one finding.
    aggregate : {"max", "mean", "top-k mean"} or dict, default="max"
        How the scores of a bag's instances become one; without effect on rows. "max"
        takes the highest score: a finding is present where some instance shows it.
        "mean" takes all instances, "top-k mean" the ``top_k`` highest [5]_. ``{finding:
        aggregate}`` gives each finding its own. The highest are those where present
        exceeds absent most; for exclusive classes each class has its own.
    top_k : int, default=5
        Number of instances behind "top-k mean"; a bag with fewer uses all of them.
    dtype, device, engine, batch_size, cache, verbose
        As in :class:`~sk_medsiglip.MedSigLIPTextEmbedder`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_findings, 2)
        Sorted class names; ``[0, 1]`` for one finding; for several findings a row
        ``[0, 1]`` each.
    findings_ : ndarray of shape (n_findings,)
        Names of the findings in column order; only for present/absent prompts.
    grades_ : ndarray of shape (n_classes,)
        Classes from the lowest grade to the highest; only with ``ordinal=True``.
    class_embeddings_ : ndarray
        ``(n_classes, embedding_dim)`` in the order of ``classes_``; for several
        findings ``(n_findings, 2, embedding_dim)``, absent before present. Of length
        1, under ``ensemble="scores"`` of at most 1.
    prompt_embeddings_ : ndarray of shape (n_prompts, embedding_dim)
        Vectors of the prompts, of length 1, class after class; only with
        ``ensemble="max"``.
    logit_scale_, logit_bias_ : float
        Scale and bias of the logit ``logit_scale_ * cosine + logit_bias_``.
    temperature_ : float or ndarray of shape (n_findings,)
        Number that scores are divided by; only with ``calibrate``.
    bias_ : ndarray of shape (n_classes,) or (n_findings, 2)
        Numbers that are added after the division; only with ``calibrate``.
    n_features_in_ : int
        Width of the embeddings.

    See Also
    --------
    make_zero_shot_pipeline : The same for images.

    Notes
    -----
    Without ``calibrate`` the probabilities are not calibrated: the scale was learned
    on pairs of images and captions. scikit-learn's ``CalibratedClassifierCV`` and
    ``TunedThresholdClassifierCV`` take this classifier as any other. Not a medical
    device.

    Embeddings of report texts by the same model are classified in the same way.

    Bags are read piece by piece, 32 MiB at a time, also where they are lazy or mapped
    into memory; ``fit`` reads them only to calibrate. Bags of more instances have
    higher maxima: under "max", compare bags of about one length.

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
        "prompts": "no_validation",  # judged by check_prompts, which says more
        "templates": "no_validation",
        "scoring": [StrOptions(SCORINGS)],
        "ensemble": [StrOptions({"embeddings", "scores", "max"})],
        "ordinal": ["boolean"],
        "calibrate": [StrOptions(_CALIBRATIONS), None],
        "prevalence": [Mapping, Real, pd.Series, None],
        "aggregate": [StrOptions(AGGREGATES), Mapping],
        "top_k": [Interval(Integral, 1, None, closed="left")],
    }
    _parameter_constraints.pop("normalize")  # vectors of prompts always are

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
        """Encode the prompts, and calibrate if asked to.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, normalised or not; or bags of shape (n_samples,
            n_instances, embedding_dim), NaN where there is no instance. Without
            ``calibrate`` nothing is learned from them.
        y : array-like of shape (n_samples,) or (n_samples, n_findings), default=None
            Needed only to calibrate by labels. If given, its labels must be among
            those of the prompts; the columns of several findings are in the order of
            the prompts, NaN where one is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples that calibrate; a weight of 3 is the sample three
            times.

        Returns
        -------
        self

        Raises
        ------
        PromptError
            If the prompts are malformed.
        ValueError
            If the width of ``X`` is not the text tower's, or ``y`` holds labels that
            no prompt stands for, or is a DataFrame of the findings in another order,
            or ``calibrate`` lacks its labels or shares.
        """
        if self.prevalence is not None and self.calibrate != "prevalence":
            raise ValueError(
                "prevalence is only used with calibrate='prevalence'; set both, or "
                "neither."
            )
        rows = check_rows_or_bags(self, X)
        question = self._read_prompts(None if y is None else np.asarray(y))
        # Plain numbers, which a saved file may hold.
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
            self.classes_ = labels.classes  # places, if y holds these
        places = np.arange(len(rows))  # bags may be lazy
        weight = _check_sample_weight(sample_weight, places, dtype=np.float64)
        self._is_calibrated = self.calibrate is not None
        if self.calibrate is not None:
            self._learn(rows, labels, self.calibrate, question.labels, weight)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return SigLIP logits, in the shapes that scikit-learn's scorers expect.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray
            ``(n_samples, n_classes)``: ``logit_scale_ * cosine + logit_bias_``. For
            two classes ``(n_samples,)``: second minus first; for one finding
            ``(n_samples,)`` and for several ``(n_samples, n_findings)``: present minus
            absent. In the place of logits stand the logarithms of their sigmoids under
            ``scoring="sigmoid"``, the cosines under "cosine", and with ``calibrate``
            calibrated scores: it ranks as :meth:`predict_proba` does.
        """
        values = self._answers(X)
        return values[..., 1] - values[..., 0] if values.shape[-1] == 2 else values

    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return probabilities; see ``scoring`` and ``calibrate``.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray, float64
            ``(n_samples, n_classes)``, rows sum to 1; for several findings
            ``(n_samples, n_findings)``, the probability that each is present.
        """
        shares = self._probabilities(X)
        return shares[..., 1] if shares.ndim == 3 else shares

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_findings)
            Class names; for findings 1 where present is likelier than absent.
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
            For one finding ``(n_samples, n_instances)`` and for several ``(n_samples,
            n_instances, n_findings)``: present minus absent, of which ``aggregate``
            makes :meth:`decision_function`. For exclusive classes ``(n_samples,
            n_instances, n_classes)``, also where there are two: the score of each. NaN
            where a bag has no instance.

        Raises
        ------
        ValueError
            If ``X`` is not an array of bags, or of another width.
        """
        check_is_fitted(self)
        bags = check_bags(X, width=self.n_features_in_, estimator=self, values=False)
        parts = [self._calibrated(part) for part in self._iter_scores(bags)]
        found = np.concatenate(parts)
        is_pairs = hasattr(self, "findings_")
        return found[..., 1] - found[..., 0] if is_pairs else found

    @available_if(_is_ordinal)
    def predict_grade(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the expected grade, which may lie between two.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,), float64
            The mean of the grades under their probabilities: of their numbers, or of
            their places in ``grades_`` from 0 on if they are names.
        """
        shares = self._probabilities_of_grades(X)
        numbers = self.grades_.dtype.kind in "iuf"
        return shares @ (self.grades_ if numbers else np.arange(len(self.grades_)))

    @available_if(_is_ordinal)
    def predict_cumulative_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return how likely the grade is above each but the last.

        Parameters
        ----------
        X : array-like of shape (n_samples, embedding_dim), or bags
            Image embeddings, or bags as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples, n_classes - 1), float64
            Column ``k`` is the probability of a grade above ``grades_[k]``; rows fall.
            One column is the score of one referral question, such as "moderate or
            worse".
        """
        shares = self._probabilities_of_grades(X)
        # Sums of shares may end a digit above 1, which no probability may.
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
        """Return the question of the prompts; a subclass may use ``y``."""
        return check_prompts(self.prompts, self.templates)

    def _encode_prompts(self, question: Question) -> ClassVectors:
        """Return the class vectors, and scale and bias of the logit."""
        embedder = text_embedder_of(self)
        return encode_question(question, self.n_features_in_, embedder, self.ensemble)

    def _order_of_grades(self, question: Question) -> NDArray[Any]:
        if question.is_pairs:
            raise PromptError(
                "ordinal=True is for grades, {grade: prompts}; findings that are "
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
        """Choose temperatures and biases."""
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
        """Yield scores of the instances, some bags at a time."""
        return map(self._scores_of, iter_cosines(bags, *self._vectors()))

    def _vectors(self) -> tuple[NDArray[np.floating], NDArray[np.intp] | None]:
        """Return the vectors that are compared, and where each answer begins."""
        if self._starts is not None:
            return self.prompt_embeddings_, self._starts
        return self.class_embeddings_.reshape(-1, self.n_features_in_), None

    def _scores_of(self, flat: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return the scores of cosines whose last axis holds all answers."""
        shape = flat.shape[:-1] + self.class_embeddings_.shape[:-1]
        scale, bias = self.logit_scale_, self.logit_bias_
        return scores(flat.reshape(shape), scale, bias, self.scoring)

    def _calibrated(self, values: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return scores as calibration left them, or as they are without it."""
        if not self._is_calibrated:
            return values
        temperature = np.asarray(self.temperature_)[..., None]
        return values.astype(np.float64) / temperature + self.bias_

    def _answers(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return the score of every answer, calibrated if it is."""
        return self._calibrated(self._scores(X))

    def _probabilities(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of every answer, of the shape of the cosines."""
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
