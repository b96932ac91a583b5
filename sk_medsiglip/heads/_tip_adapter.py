"""``TipAdapterClassifier``: zero-shot logits and those of a cache of shots."""

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

#: What inner cross-validation chooses from, with prompts 0 beside. The shots' term is a
#: sum over them: with hundreds its weight must be small.
ALPHAS: tuple[float, ...] = (0.01, 0.05, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
BETAS = (1.0, 3.0, 5.5, 10.0, 20.0, 50.0)
#: The authors' starting values; taken where shots are too few to choose and there are
#: no prompts.
ALPHA, BETA = 1.0, 5.5

# The authors' recipe for fine-tuning the keys, AdamW with a cosine schedule.
LEARNING_RATE, EPOCHS, BATCH = 1e-3, 20, 256
DECAY, MOMENTS, EPSILON = 0.01, (0.9, 0.999), 1e-4


class TipAdapterClassifier(FewShotClassifier):
    """Zero-shot logits plus what similar shots say, Tip-Adapter and Tip-Adapter-F.

    The logits of an embedding ``f`` of length 1 are [1]_::

        alpha * exp(-beta * (1 - f F')) L + logit_scale * f W'

    with the shots' embeddings ``F`` (the keys), their labels one-hot ``L``, and the
    prompts' vectors ``W``.

    Parameters
    ----------
    prompts : dict, ZeroShotClassifier or None, default=None
        As :class:`~sk_medsiglip.ZeroShotClassifier` takes them, or such a classifier.
        None leaves the second term out.
    templates, model, revision, cache
        As in :class:`~sk_medsiglip.ZeroShotClassifier`; not looked at if ``prompts``
        is one.
    alpha, beta : float or "cv", default="cv"
        Weight of the shots, and how near a shot must be to count. "cv" chooses by
        cross-validation, with prompts also an ``alpha`` of 0, which is zero-shot: the
        smallest ``alpha`` is taken that is not worse than the best by more than one
        standard error over the folds. With fewer than two shots (or groups) of a class
        nothing can be compared: ``alpha`` is 0 with prompts and 1 without.
    fine_tune : bool, default=False
        Train the keys by gradient descent (Tip-Adapter-F).
    cv : int, splitter or iterable, default=5
        Folds for choosing, as in :class:`LinearProbe`.
    scoring : str, callable or None, default=None
        Score to choose by; None is the log loss of smoothed labels, as in
        :class:`LinearProbe`.
    class_weight : dict, "balanced", list of these, or None, default=None
        Shots of a class count so many times.
    random_state : int, RandomState or None, default=None
        Order of the shots in fine-tuning.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    findings_ : ndarray of shape (n_findings,)
        Names of findings; only for present/absent prompts.
    alpha_, beta_ : float, or ndarray of shape (n_labels,)
        The chosen values. An ``alpha_`` of 0 says that the shots have not been shown to
        help, and the answers are those of zero-shot.
    keys_ : ndarray of shape (n_shots, n_features), or list of these
        The shots, fine-tuned or not; one for each of several labels.
    logit_scale_ : float
        Scale of the prompts' logits.
    n_features_in_ : int
        Width of the embeddings.

    Notes
    -----
    Keeps all shots: prediction costs ``n_samples * n_shots * n_features``, a pickle
    holds their embeddings. Probabilities are not calibrated.

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
        if self.fine_tune and alpha:  # the keys of zero-shot are not looked at
            random = check_random_state(self.random_state)
            learned["keys"] = _train_keys(learned, shots, random)
        return learned

    def _choose(
        self, shots: Shots, weights: NDArray[np.float64]
    ) -> tuple[float, float]:
        """Return alpha and beta, by cross-validation where they are not given."""
        few, offered = 0.0, (0.0, *ALPHAS)
        if shots.anchors is None:  # an alpha of 0 would say nothing at all
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
            said = [np.exp(-beta * near) @ values for beta in betas]
            decision.append(
                [alpha * one + zero_shot for alpha in alphas for one in said]
            )
        logits = np.array(decision)
        if shots.n_classes == 2:
            logits = logits[..., 1:] - logits[..., :1]
        weight = None if np.ptp(shots.sample_weight) == 0 else shots.sample_weight
        cautious = alphas[0] == 0  # with a zero-shot classifier to stay with
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
    """Return the keys after some epochs of AdamW on the shots' own log loss."""
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
            # A shot of weight 3 is three alike, whose keys have a third of it each.
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
