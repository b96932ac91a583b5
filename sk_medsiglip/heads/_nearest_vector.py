"""Heads that compare an image with one vector per class, from shots and prompts."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._validation import Interval, Real, StrOptions
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.heads._few_shot import FewShotClassifier, Shots, unit_rows

#: Default weight of the prompts of a class, as a number of images. Chosen on phantoms
#: and PneumoniaMNIST with the demonstration checkpoint: up to 16 shots of each class
#: reduce the AUC of good prompts by .017 for a weight of 8, and by at most .008 for 16.
FAIR_COUNT = 16.0


class NearestVector(FewShotClassifier):
    """Abstract classifier that compares centred images with one vector per class."""

    @abstractmethod
    def _vectors(
        self,
        shots: Shots,
        differences: NDArray[np.float64],
        counts: NDArray[np.float64],
        texts: NDArray[np.float64] | None,
        fair: float,
    ) -> NDArray[np.float64]:
        """Return the vector of each class, of any length."""

    def _learn(self, shots: Shots) -> dict[str, NDArray[np.float64]]:
        onehot = shots.onehot
        counts = onehot.sum(axis=0)
        sums = onehot.T @ shots.rows
        # Images of one kind have most of their direction in common, as have texts.
        # Classes are distinguished by differences from this common direction.
        seen = counts > 0
        center = (sums[seen] / counts[seen, None]).mean(axis=0)
        texts = shots.anchors
        fair = FAIR_COUNT
        if texts is not None:
            texts = texts - texts.mean(axis=0)
            # Prompts may differ from each other more or less than images do.
            spread = _deviation(shots.rows - center, shots.sample_weight)
            if spread > 0 and (of_texts := _deviation(texts)) > 0:
                fair *= spread / of_texts
        differences = sums - counts[:, None] * center
        vectors = self._vectors(shots, differences, counts, texts, fair)
        # The weight of a class changes its prior probability.
        prior = np.log(shots.class_weight)
        return {"center": center, "vectors": unit_rows(vectors), "prior": prior}

    def _answer(self, learned: Any, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        cosines = (unit - learned["center"]) @ learned["vectors"].T
        return self.logit_scale_ * cosines + learned["prior"]

    def _publish(self, learned: list[Any]) -> None:
        vectors = np.array([one["vectors"] for one in learned])
        several = self.classes_.ndim == 2
        self.class_embeddings_ = vectors if several else vectors[0]


class SSTextClassifier(NearestVector):
    """SS-Text: a blend of shots and prompts without training or validation.

    The class vectors minimise a linear approximation of the log loss with a penalty for
    departing from the prompts [1]_::

        w_c = sum_{i in c} f_i / (N lambda_c tau) + t_c,    lambda_c = 1 / n_c

    with ``N`` shots, ``n_c`` of them of class ``c``, their embeddings ``f_i``, the
    vector ``t_c`` of the prompts, and a temperature ``tau``. The more shots a class
    has, the lower is the weight of its prompts.

    Parameters
    ----------
    prompts : dict, ZeroShotClassifier or None, default=None
        Prompts as for :class:`~sk_medsiglip.ZeroShotClassifier`, or such a classifier.
        None omits ``t_c``.
    templates, model, revision, cache
        As in :class:`~sk_medsiglip.ZeroShotClassifier`; ignored if ``prompts`` is such
        a classifier.
    tau : float, "auto" or None, default="auto"
        Temperature; larger values reduce the weight of the shots. "auto" gives the
        prompts of a class the weight of 16 shots if classes are equally frequent, as in
        :class:`PrototypeClassifier`. None is that of the model, ``1 / logit_scale_``,
        as in the paper: one shot of each class then outweighs the prompts.
    class_weight : dict, "balanced", list of these, or None, default=None
        Weights of classes; the logarithm of the weight is added to the logits of a
        class.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    findings_ : ndarray of shape (n_findings,)
        Names of findings; only for present/absent prompts.
    class_embeddings_ : ndarray
        Unit vectors of shape ``(n_classes, n_features)``, or for several labels
        ``(n_labels, 2, n_features)``.
    logit_scale_ : float
        Scale of the logits ``logit_scale_ * cosine``.
    n_features_in_ : int
        Width of the embeddings.

    Notes
    -----
    Vectors are scaled to unit length, since the model compares cosines, and images and
    texts are centred, images on the mean of the class means, texts on theirs. For two
    classes with equally many shots, centring does not change the ranking; if classes
    have different numbers of shots, or none, it makes images and texts comparable.
    A class without shots uses only its prompts. Probabilities are not calibrated. The
    cost is one pass over the shots.

    The temperature of the paper gives shots too much weight if prompts are good: with
    the demonstration checkpoint, the mean AUC of six findings of phantoms at one shot
    of each class is .855 with ``tau=None``, .980 with "auto", and .980 zero-shot. With
    many shots, "auto" may also rank worse than good prompts, by .012 at 64 shots of
    each class for one finding (nodules). With prompts that hardly rank the images, it
    learns more slowly than None.

    References
    ----------
    .. [1] Silva-Rodriguez et al., "Few-Shot, Now for Real: Medical VLMs Adaptation
       without Balanced Sets or Validation", MICCAI 2025, arXiv:2506.17500.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.heads import SSTextClassifier
    >>> X = np.array([[1.0, 0.2], [0.9, 0.1], [0.1, 1.0]])
    >>> SSTextClassifier().fit(X, ["a", "a", "b"]).predict([[0.2, 1.0]])
    array(['b'], dtype='<U1')
    """

    _parameter_constraints: dict[str, Any] = {
        **NearestVector._parameter_constraints,
        "tau": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"}), None],
    }

    def __init__(
        self,
        prompts: Any = None,
        *,
        templates: str | Sequence[str] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        tau: float | str | None = "auto",
        class_weight: Any = None,
    ) -> None:
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.cache = cache
        self.tau = tau
        self.class_weight = class_weight

    def _vectors(
        self,
        shots: Shots,
        differences: NDArray[np.float64],
        counts: NDArray[np.float64],
        texts: NDArray[np.float64] | None,
        fair: float,
    ) -> NDArray[np.float64]:
        # If classes are equally frequent, each has N / n_classes shots.
        tau = fair / shots.n_classes if isinstance(self.tau, str) else self.tau
        tau = 1 / shots.scale if tau is None else tau
        # 1 / (N lambda_c tau), with lambda_c = 1 / n_c.
        share = counts / (counts.sum() * tau)
        vectors = share[:, None] * differences
        return vectors if texts is None else vectors + texts


class PrototypeClassifier(NearestVector):
    """Compare images with the mean of each class, shrunk towards its prompts.

    This is the simple baseline among the heads for few labels: the vector of a class is
    the mean of its ``n_c`` embeddings and of its prompts, which have the weight of
    ``k`` images::

        w_c = (sum_{i in c} (f_i - m) + k (t_c - t)) / (n_c + k)

    where ``m`` is the mean of the class means and ``t`` that of the prompts [1]_.

    Parameters
    ----------
    prompts : dict, ZeroShotClassifier or None, default=None
        Prompts as for :class:`~sk_medsiglip.ZeroShotClassifier`, or such a classifier.
        None compares with the images alone.
    templates, model, revision, cache
        As in :class:`~sk_medsiglip.ZeroShotClassifier`; ignored if ``prompts`` is such
        a classifier.
    shrinkage : float or "auto", default="auto"
        Weight of the prompts of a class as a number of images, ``k`` above. "auto" is
        16, times the deviation of the images from ``m`` divided by that of the prompts
        from ``t``, so that the similarity of the texts has no influence. With prompts
        that hardly rank the images, use 1.
    class_weight : dict, "balanced", list of these, or None, default=None
        Weights of classes; the logarithm of the weight is added to the logits of a
        class.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    findings_ : ndarray of shape (n_findings,)
        Names of findings; only for present/absent prompts.
    class_embeddings_ : ndarray
        Unit vectors of shape ``(n_classes, n_features)``, or for several labels
        ``(n_labels, 2, n_features)``.
    logit_scale_ : float
        Scale of the logits ``logit_scale_ * cosine``.
    n_features_in_ : int
        Width of the embeddings.

    Notes
    -----
    A class without images uses only its prompts. Probabilities are not calibrated. The
    cost is one pass over the images.

    With many images it approaches the nearest class mean, which may rank worse than
    good prompts: with the demonstration checkpoint by at most .008 of AUC up to 16
    images of each class, and by .012 at 64, for the one finding (nodules) whose means
    are close to each other. Use :class:`PromptProbe` then.

    References
    ----------
    .. [1] Snell et al., "Prototypical Networks for Few-shot Learning", NeurIPS 2017,
       for the means without prompts.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.heads import PrototypeClassifier
    >>> X = np.array([[1.0, 0.2], [0.9, 0.1], [0.1, 1.0]])
    >>> PrototypeClassifier().fit(X, ["a", "a", "b"]).predict([[0.2, 1.0]])
    array(['b'], dtype='<U1')
    """

    _parameter_constraints: dict[str, Any] = {
        **NearestVector._parameter_constraints,
        "shrinkage": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    }

    def __init__(
        self,
        prompts: Any = None,
        *,
        templates: str | Sequence[str] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        shrinkage: float | str = "auto",
        class_weight: Any = None,
    ) -> None:
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.cache = cache
        self.shrinkage = shrinkage
        self.class_weight = class_weight

    def _vectors(
        self,
        shots: Shots,
        differences: NDArray[np.float64],
        counts: NDArray[np.float64],
        texts: NDArray[np.float64] | None,
        fair: float,
    ) -> NDArray[np.float64]:
        if texts is None:
            return differences
        # With k = 0, a class without images still needs its prompts. The divisor
        # n_c + k is irrelevant, since vectors are scaled to unit length.
        k = fair if isinstance(self.shrinkage, str) else self.shrinkage
        weight = np.where(counts > 0, k, max(k, 1.0))
        return differences + weight[:, None] * texts


def _deviation(rows: NDArray[np.float64], weights: Any = None) -> float:
    """Return the root mean square length of centred rows."""
    return float(np.sqrt(np.average((rows**2).sum(axis=1), weights=weights)))
