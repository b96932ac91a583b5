"""``TipAdapterClassifier``: zero-shot logits plus those of a cache of shots."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import get_scorer_names
from sklearn.utils import check_random_state

from sk_medsiglip._validation import Interval, Real, StrOptions
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.heads._few_shot import FewShotClassifier, Shots

#: Values for inner cross-validation, with prompts also 0. The term of the shots is a
#: sum over them, so with hundreds its weight must be small.
ALPHAS: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
BETAS = (1.0, 3.0, 5.5, 10.0, 20.0, 50.0)
#: Initial values of the authors, used without prompts if there are too few shots to
#: choose.
ALPHA, BETA = 1.0, 5.5

# Recipe of the authors for fine-tuning the keys: AdamW with a cosine schedule.
LEARNING_RATE, EPOCHS, BATCH = 1e-3, 20, 256
DECAY, MOMENTS, EPSILON = 0.01, (0.9, 0.999), 1e-4


class TipAdapterClassifier(FewShotClassifier):
    """Zero-shot logits plus a vote of similar shots: Tip-Adapter and Tip-Adapter-F.

    The logits of an embedding ``f`` of unit length are [1]_::

        alpha * exp(-beta * (1 - f F')) L + logit_scale * f W'

    with the embeddings ``F`` of the shots (the keys), their one-hot labels ``L``, and
    the vectors ``W`` of the prompts.

    Parameters
    ----------
    prompts : dict, ZeroShotClassifier or None, default=None
        Prompts as for :class:`~sk_medsiglip.ZeroShotClassifier`, or such a classifier.
        None omits the second term.
    templates, model, revision, cache
        As in :class:`~sk_medsiglip.ZeroShotClassifier`; ignored if ``prompts`` is such
        a classifier.
    alpha, beta : float or "cv", default="cv"
        Weight of the shots, and sharpness of the similarity. "cv" chooses them by
        cross-validation. With prompts, an ``alpha`` of 0 (zero-shot) is also tried, and
        the smallest ``alpha`` within one standard error of the best is used. With fewer
        than two shots (or groups) of a class, cross-validation is impossible, and
        ``alpha`` is 0 with prompts and 1 without.
    fine_tune : bool, default=False
        Whether to train the keys by gradient descent (Tip-Adapter-F).
    cv : int, splitter or iterable, default=5
        Folds for choosing, as in :class:`LinearProbe`.
    scoring : str, callable or None, default=None
        Score to choose by; None is the log loss of smoothed labels, as in
        :class:`LinearProbe`.
    class_weight : dict, "balanced", list of these, or None, default=None
        Weights of the shots of each class.
    random_state : int, RandomState or None, default=None
        Seed of the order of the shots in fine-tuning.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    findings_ : ndarray of shape (n_findings,)
        Names of findings; only for present/absent prompts.
    alpha_, beta_ : float, or ndarray of shape (n_labels,)
        The chosen values. If ``alpha_`` is 0, the shots have not been shown to help,
        and predictions are those of zero-shot.
    keys_ : ndarray of shape (n_shots, n_features), or list of these
        The shots, fine-tuned or not; one array for each of several labels.
    logit_scale_ : float
        Scale of the logits of prompts.
    n_features_in_ : int
        Width of the embeddings.

    Notes
    -----
    All shots are kept: prediction costs ``n_samples * n_shots * n_features``, and a
    pickle contains their embeddings. Probabilities are not calibrated.

    References
    ----------
    .. [1] Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot
       Classification", ECCV 2022, arXiv:2207.09519.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.heads import TipAdapterClassifier
    >>> X = np.array([[1.0, 0.2], [0.9, 0.1], [0.1, 1.0], [0.0, 1.0]])
    >>> head = TipAdapterClassifier().fit(X, ["a", "a", "b", "b"])
    >>> head.predict([[0.2, 1.0]])
    array(['b'], dtype='<U1')
    """

    _parameter_constraints: dict[str, Any] = {
        **FewShotClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left"), StrOptions({"cv"})],
        "beta": [Interval(Real, 0, None, closed="neither"), StrOptions({"cv"})],
        "fine_tune": ["boolean"],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        prompts: Any = None,
        *,
        templates: str | Sequence[str] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        alpha: float | str = "cv",
        beta: float | str = "cv",
        fine_tune: bool = False,
        cv: Any = 5,
        scoring: str | Callable[..., float] | None = None,
        class_weight: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.cache = cache
        self.alpha = alpha
        self.beta = beta
        self.fine_tune = fine_tune
        self.cv = cv
        self.scoring = scoring
        self.class_weight = class_weight
        self.random_state = random_state

    def _learn(self, shots: Shots) -> dict[str, Any]:
        weights = np.zeros((shots.n_classes, shots.rows.shape[1]))
        if shots.anchors is not None:
            weights = shots.scale * shots.anchors
        alpha, beta = self._choose(shots, weights)
        learned = {
            "keys": shots.rows,
            "values": shots.onehot * shots.class_weight,
            "weights": weights,
            "alpha": alpha,
            "beta": beta,
        }
        if self.fine_tune and alpha:  # zero-shot does not use keys
            random = check_random_state(self.random_state)
            learned["keys"] = _train_keys(learned, shots, random)
        return learned

    def _choose(
        self, shots: Shots, weights: NDArray[np.float64]
    ) -> tuple[float, float]:
        """Return alpha and beta, chosen by cross-validation unless given."""
        few, offered = 0.0, (0.0, *ALPHAS)
        if shots.anchors is None:  # an alpha of 0 would give constant logits
            few, offered = ALPHA, ALPHAS
        alphas = np.array(offered if self.alpha == "cv" else [self.alpha], dtype=float)
        betas = np.array(BETAS if self.beta == "cv" else [self.beta], dtype=float)
        if len(alphas) == len(betas) == 1:
            return float(alphas[0]), float(betas[0])
        folds = shots.folds()
        if folds is None:
            return (
                few if self.alpha == "cv" else float(alphas[0]),
                BETA if self.beta == "cv" else float(betas[0]),
            )
        near = 1 - shots.rows @ shots.rows.T
        zero_shot = shots.rows @ weights.T
        decision = []
        for train in folds.train:
            values = shots.onehot * shots.class_weight * train[:, None]
            votes = [np.exp(-beta * near) @ values for beta in betas]
            decision.append(
                [alpha * one + zero_shot for alpha in alphas for one in votes]
            )
        logits = np.array(decision)
        if shots.n_classes == 2:
            logits = logits[..., 1:] - logits[..., :1]
        weight = None if np.ptp(shots.sample_weight) == 0 else shots.sample_weight
        cautious = alphas[0] == 0  # zero-shot is the default
        best = self._best(logits, shots, folds, weight, cautious=cautious)
        at_alpha = best // len(betas)
        of_alpha = logits[:, at_alpha * len(betas) :][:, : len(betas)]
        at_beta = self._best(of_alpha, shots, folds, weight)
        return float(alphas[at_alpha]), float(betas[at_beta])

    def _answer(self, learned: Any, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        near = np.exp(-learned["beta"] * (1 - unit @ learned["keys"].T))
        return learned["alpha"] * near @ learned["values"] + unit @ learned["weights"].T

    def _publish(self, learned: list[Any]) -> None:
        several = self.classes_.ndim == 2
        alphas, betas, keys = (
            [one[name] for one in learned] for name in ("alpha", "beta", "keys")
        )
        self.alpha_ = np.array(alphas) if several else alphas[0]
        self.beta_ = np.array(betas) if several else betas[0]
        self.keys_ = keys if several else keys[0]


def _train_keys(
    learned: dict[str, Any], shots: Shots, random: np.random.RandomState
) -> NDArray[np.float64]:
    """Return the keys after some epochs of AdamW on the log loss of the shots."""
    target, weight = shots.target, shots.sample_weight[:, None]
    rows, values, weights = (learned[name] for name in ("keys", "values", "weights"))
    alpha, beta = learned["alpha"], learned["beta"]
    keys = rows.copy()
    first, second = np.zeros_like(keys), np.zeros_like(keys)
    n_steps = EPOCHS * -(-len(rows) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        order = random.permutation(len(rows))
        for start in range(0, len(rows), BATCH):
            some = order[start : start + BATCH]
            near = np.exp(-beta * (1 - rows[some] @ keys.T))
            logits = alpha * near @ values + rows[some] @ weights.T
            wrong = softmax(logits, axis=1)
            wrong[np.arange(len(some)), target[some]] -= 1
            # d near / d key is beta near f.
            slopes = alpha * beta * near * (wrong @ values.T)
            # A shot of weight 3 equals three copies, each with a third of the gradient.
            whole = slopes.T @ (weight[some] * rows[some]) / weight[some].sum()
            gradient = whole / weight
            step += 1
            rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * (step - 1) / n_steps))
            first = MOMENTS[0] * first + (1 - MOMENTS[0]) * gradient
            second = MOMENTS[1] * second + (1 - MOMENTS[1]) * gradient**2
            moved = first / (1 - MOMENTS[0] ** step)
            spread = np.sqrt(second / (1 - MOMENTS[1] ** step)) + EPSILON
            keys = keys * (1 - rate * DECAY) - rate * moved / spread
    return keys
