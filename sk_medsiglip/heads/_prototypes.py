"""``PrototypeClassifier``: the mean image of each class, pulled towards its prompts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._validation import Interval, Real, StrOptions
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.heads._few_shot import NearestVector, Shots


class PrototypeClassifier(NearestVector):
    """Compare images with the mean of each class, shrunk towards its prompts.

    The plain baseline among the heads for few labels: a class's vector is the mean of
    its ``n_c`` embeddings and of its prompts, which count as ``shrinkage`` images::

        w_c = (sum_{i in c} (f_i - m) + k (t_c - t)) / (n_c + k)

    where ``m`` is the mean of the classes' means and ``t`` that of the prompts [1]_.

    Parameters
    ----------
    prompts : dict, ZeroShotClassifier or None, default=None
        As :class:`~sk_medsiglip.ZeroShotClassifier` takes them, or such a classifier.
        None compares with the images alone.
    templates, model, revision, cache
        As in :class:`~sk_medsiglip.ZeroShotClassifier`; not looked at if ``prompts``
        is one.
    shrinkage : float or "auto", default="auto"
        How many images the prompts of a class count as, ``k`` above. "auto" is 16,
        times the deviation of the images from ``m`` over that of the prompts from
        ``t``, so that it makes no difference how alike texts are. With prompts that
        hardly rank the images, take 1.
    class_weight : dict, "balanced", list of these, or None, default=None
        Raises the logits of a class by the logarithm of its weight.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    findings_ : ndarray of shape (n_findings,)
        Names of findings; only for present/absent prompts.
    class_embeddings_ : ndarray
        Vectors of length 1, ``(n_classes, n_features)``, or for several labels
        ``(n_labels, 2, n_features)``.
    logit_scale_ : float
        Of the logits ``logit_scale_ * cosine``.
    n_features_in_ : int
        Width of the embeddings.

    Notes
    -----
    A class without images keeps its prompts. Probabilities are not calibrated. Cost:
    one pass over the images.

    With many images it becomes the nearest mean, which may rank worse than good
    prompts: with the demonstration checkpoint by at most .008 of AUC up to 16 images of
    each class, and by .012 at 64, for the one finding (nodules) whose means lie close.
    Take :class:`PromptProbe` there.

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
        # With k = 0 a class without images has nothing but its prompts. The divisor
        # n_c + k is lost where vectors are brought to one length.
        k = fair if isinstance(self.shrinkage, str) else self.shrinkage
        weight = np.where(counts > 0, k, max(k, 1.0))
        return differences + weight[:, None] * texts
