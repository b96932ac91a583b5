"""``PromptProbe``: a linear probe that is penalised for departing from prompts."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer_names

from sk_medsiglip._validation import Integral, Interval, Real, StrOptions
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.heads._eigenbasis import make_eigenbasis
from sk_medsiglip.heads._few_shot import FewShotClassifier, Shots
from sk_medsiglip.heads._logistic_path import (
    LogisticPath,
    Prior,
    check_Cs,
    solve_path,
)

# The constants below were chosen by eye on phantoms and PneumoniaMNIST with the
# demonstration checkpoint, five draws each; MedSigLIP may need others.

#: The closed rule: ``C`` times the variance of the rows.
CLOSED_C = 7.0

#: Number of samples (or groups) of the rarest class from which cross-validation is
#: better.
ENOUGH_FOR_FOLDS = 16

#: Prior standard deviations of the factor on the logits of prompts, and of intercepts.
#: The latter keeps the probability of a class without samples.
SCALE_DEVIATION = 0.3
INTERCEPT_DEVIATION = 3.0


class PromptProbe(FewShotClassifier):
    """Logistic regression that is penalised for departing from prompts.

    Without labels of a class it equals the zero-shot classifier, and with many labels
    the linear probe. In between it is better than both if the prompts are informative.

    Parameters
    ----------
    prompts : dict, ZeroShotClassifier or None, default=None
        Prompts as for :class:`~sk_medsiglip.ZeroShotClassifier`, or such a classifier.
        None is a plain probe on embeddings of unit length.
    templates, model, revision, cache
        As in :class:`~sk_medsiglip.ZeroShotClassifier`; ignored if ``prompts`` is such
        a classifier.
    C : float, "auto" or "cv", default="auto"
        Inverse strength of the penalty for departing from the prompts. "cv" chooses
        among ``Cs``. "auto" does so if the rarest class has 16 samples (or groups), and
        otherwise uses 7 divided by the variance of the rows, which needs no validation
        set.
    Cs : int or array-like of float, default=10
        Values to choose from. An int is a number of values from 1e-2 to 1e4, divided by
        the variance of the rows.
    cv : int, splitter or iterable, default=5
        Folds, as in :class:`LinearProbe`.
    scoring : str, callable or None, default=None
        Score to choose by; None is the log loss of smoothed labels, as in
        :class:`LinearProbe`.
    class_weight : dict, "balanced", list of these, or None, default=None
        Weights of classes as in scikit-learn.
    tol : float, default=1e-6
        Relative tolerance: the fit stops when the objective is about this fraction
        above its minimum.
    max_iter : int, default=1000
        Maximum number of steps.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    findings_ : ndarray of shape (n_findings,)
        Names of findings; only for present/absent prompts.
    coef_ : ndarray of shape (1, n_features), (n_classes, ...) or (n_labels, ...)
        Coefficients for embeddings of unit length.
    intercept_ : ndarray of shape (1,), (n_classes,) or (n_labels,)
        Intercepts.
    C_ : float, or ndarray of shape (n_labels,)
        The chosen ``C``.
    n_iter_ : ndarray of shape (1,) or (n_labels,)
        Number of steps of the last fit.
    logit_scale_ : float
        Scale of the logits of prompts, ``logit_scale_ * cosine``.
    n_features_in_ : int
        Width of the embeddings.

    See Also
    --------
    LinearProbe : A probe without prompts, which is faster with many labels.

    Notes
    -----
    With embeddings ``f`` of unit length, vectors ``t_c`` of the prompts, and the scale
    ``s`` of the model, the logits and the objective are ::

        z_c = s f t_c + sum_j d_cj s (f - m) t_j + (f - m) v_c + b_c
        sum_i loss_i + |v|^2 / (2 C) + |d|^2 / (2 * 0.3^2) + |b|^2 / (2 * 3^2)

    where ``m`` is the mean of the rows. The constants (0.3, 3, and 7 and 16 of ``C``)
    were chosen with the demonstration checkpoint on phantoms and PneumoniaMNIST, not
    with embeddings of MedSigLIP: with enough labels, prefer ``C="cv"``.

    CLAP [1]_ is this without ``d`` and with unpenalised ``b``. ``d`` allows the weights
    of the prompts to grow or shrink at a low penalty: zero-shot logits rank images
    well, but may be far too large on images unlike those of the training, and without
    ``d`` labels would be used up to correct that. For two classes ``d`` is one number,
    for the difference of the two. Probabilities are those of a logistic regression.

    References
    ----------
    .. [1] Silva-Rodriguez et al., "A Closer Look at the Few-Shot Adaptation of Large
       Vision-Language Models", CVPR 2024, arXiv:2312.12730.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.heads import PromptProbe
    >>> phantoms = make_chest_phantoms(12, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> prompts = {"effusion": {
    ...     "positive": "pleural effusion", "negative": "no pleural effusion"}}
    >>> probe = PromptProbe(prompts, model="demo").fit(X, phantoms.target[:, 1])
    >>> probe.predict_proba(X).shape
    (12, 2)
    """

    _parameter_constraints: dict[str, Any] = {
        **FewShotClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto", "cv"})],
        "Cs": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        prompts: Any = None,
        *,
        templates: str | Sequence[str] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        C: float | str = "auto",
        Cs: int | ArrayLike = 10,
        cv: Any = 5,
        scoring: str | Callable[..., float] | None = None,
        class_weight: Any = None,
        tol: float = 1e-6,
        max_iter: int = 1000,
    ) -> None:
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.cache = cache
        self.C = C
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def _learn(self, shots: Shots) -> dict[str, Any]:
        solver = _Anchored(shots, self.tol, self.max_iter)
        C = self._choose(shots, solver)
        path = solver.solve(np.array([C]), np.ones((1, len(shots.rows)), dtype=bool))
        if not path.converged.all():
            warnings.warn(
                f"the fit did not converge in {self.max_iter} steps; raise max_iter or "
                "tol.",
                ConvergenceWarning,
                stacklevel=4,
            )
        coef, intercept = solver.coefficients(path)
        n_iter = int(path.n_iter.max())
        return {"coef": coef, "intercept": intercept, "C": C, "n_iter": n_iter}

    def _choose(self, shots: Shots, solver: _Anchored) -> float:
        """Return the given C, or that of the closed rule or of cross-validation."""
        if not isinstance(self.C, str):
            return float(self.C)
        closed = CLOSED_C / solver.variance
        n_rarest = _rarest(shots)
        if self.C == "auto" and n_rarest < ENOUGH_FOR_FOLDS:
            return closed
        folds = shots.folds()
        if folds is None:
            warnings.warn(
                f"a class has {n_rarest:g} samples (or groups), too few to choose C by "
                f"cross-validation; the closed rule gives {closed:.3g}.",
                UserWarning,
                stacklevel=5,
            )
            return closed
        Cs = check_Cs(self.Cs)
        if isinstance(self.Cs, Integral):
            Cs = np.logspace(-2, 4, int(self.Cs)) / solver.variance
        path = solver.solve(Cs, folds.train)
        weight = None if np.ptp(shots.weight) == 0 else shots.weight
        return float(Cs[self._best(path.decision, shots, folds, weight)])

    def _answer(self, learned: Any, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        return unit @ learned["coef"].T + learned["intercept"]

    def _publish(self, learned: list[Any]) -> None:
        def public(name: str) -> NDArray[np.float64]:
            parts = [one[name] for one in learned]
            if len(parts[0]) > 2:
                return parts[0]
            return np.array([part[1] - part[0] for part in parts])

        self.coef_, self.intercept_ = public("coef"), public("intercept")
        Cs = np.array([one["C"] for one in learned])
        self.n_iter_ = np.array([one["n_iter"] for one in learned])
        self.C_ = Cs if self.classes_.ndim == 2 else float(Cs[0])


class _Anchored:
    """The problems of one question, with logits of prompts as offset and features."""

    def __init__(self, shots: Shots, tol: float, max_iter: int) -> None:
        self._shots, self._tol, self._max_iter = shots, tol, max_iter
        self._basis = make_eigenbasis(
            shots.rows, fit_intercept=True, sample_weight=shots.sample_weight
        )
        squares = ((shots.rows - self._basis.mean) ** 2).sum(axis=1)
        # Variance of the rows about their mean, or 1 if it is zero.
        variance = float(np.average(squares, weights=shots.sample_weight))
        self.variance = variance if variance > 1e-12 else 1.0
        anchors = shots.anchors
        if anchors is None:
            anchors = np.zeros((shots.n_classes, shots.rows.shape[1]))
        weights = shots.scale * anchors
        # Two classes are one problem, the second against the first.
        self._weights = weights[1:] - weights[:1] if len(weights) == 2 else weights

    def solve(self, Cs: NDArray[np.float64], masks: NDArray[np.bool_]) -> LogisticPath:
        """Solve all folds and penalties."""
        shots = self._shots
        prior = None
        if shots.anchors is not None:
            offset = shots.rows @ self._weights.T
            prior = Prior(
                offset,
                offset - self._basis.mean @ self._weights.T,
                SCALE_DEVIATION,
                INTERCEPT_DEVIATION,
            )
        return solve_path(
            self._basis,
            shots.target,
            Cs,
            masks,
            classes=np.arange(shots.n_classes),
            sample_weight=shots.weight,
            prior=prior,
            tol=self._tol,
            max_iter=self._max_iter,
            device="cpu",
        )

    def coefficients(
        self, path: LogisticPath
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return weights and constants of all classes, of rows of length 1."""
        coef = path.coef[0, 0] + self._weights
        intercept = path.intercept[0, 0].copy()
        if path.extra is not None:
            shift = path.extra[0, 0] @ self._weights
            coef = coef + shift
            intercept = intercept - shift @ self._basis.mean
        if len(coef) == 1:
            return np.vstack([0 * coef, coef]), np.append(0.0, intercept)
        return coef, intercept


def _rarest(shots: Shots) -> float:
    """Return the total weight, or the number of groups, of the rarest class."""
    labels, groups = shots.target, shots.groups
    if groups is None:
        return float(shots.onehot.sum(axis=0).min())
    return min(len(np.unique(groups[labels == one])) for one in range(shots.n_classes))
