"""``BagProbe``: a head for bags, which learns the instances that count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import get_scorer_names
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._bags import check_bags
from sk_medsiglip._validation import Integral, Interval, Real, StrOptions, _fit_context
from sk_medsiglip.heads._bag_loss import pool
from sk_medsiglip.heads._bag_space import BagSpace, make_bag_space, read_bags
from sk_medsiglip.heads._chosen_penalty import PenaltyChooser
from sk_medsiglip.heads._logistic_path import check_Cs

#: Exponents of 10 of the smallest and the largest penalty to choose from.
_EXPONENTS = (-4, 1)


class BagProbe(PenaltyChooser):
    device = "cpu"

    _parameter_constraints: dict[str, Any] = {
        "Cs": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "class_weight": [dict, StrOptions({"balanced"}), list, None],
        "pooled_row": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "refit": ["boolean"],
    }

    def __init__(
        self,
        Cs: int | ArrayLike = 7,
        *,
        cv: Any = 5,
        scoring: str | Callable[..., float] | None = None,
        class_weight: Any = None,
        pooled_row: bool = False,
        tol: float = 1e-5,
        max_iter: int = 300,
        refit: bool = True,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.class_weight = class_weight
        self.pooled_row = pooled_row
        self.tol = tol
        self.max_iter = max_iter
        self.refit = refit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        bags = check_bags(X, estimator=self, values=False)
        self.n_features_in_ = bags.shape[2]
        return self._fit(bags, y, sample_weight, groups)

    def instance_scores(self, X: Any) -> NDArray[np.float64]:
        """Return the logit of each instance, as if it were alone in its bag.

        The score of a bag lies between the mean and the largest of these: it is
        ``log(mean(exp(scores)))``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_instances, width)
            Bags.

        Returns
        -------
        ndarray of shape (n_samples, n_instances[, n_classes or n_labels])
            Logits, the constant and the pooled row included; NaN where there is no
            instance. The pooled row has none of its own. Two classes have one score,
            that of the second.
        """
        check_is_fitted(self)
        bags = self._check(X)
        shape = len(bags), bags.shape[1] - self.pooled_row, len(self.coef_)
        scores = np.full(shape, np.nan)
        for rows, logits, present in self._scored(bags):
            whole = logits[:, -1:]
            scores[rows] = np.where(present[:, :, None], logits[:, :-1] + whole, np.nan)
        return scores[:, :, 0] if len(self.coef_) == 1 else scores

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        return tags

    def _check(self, X: Any) -> Any:
        return check_bags(X, width=self.n_features_in_, estimator=self, values=False)

    def _make_space(self, X: Any, weight: NDArray[np.float64]) -> BagSpace:
        return make_bag_space(X, weight, pooled_row=self.pooled_row)

    def _check_Cs(self, X: Any, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        if isinstance(self.Cs, Integral):
            return np.logspace(*_EXPONENTS, int(self.Cs))
        return check_Cs(self.Cs)

    def _logits(self, X: Any) -> NDArray[np.floating]:
        return np.concatenate(
            [pool(logits, present)[0] for _, logits, present in self._scored(X)]
        )

    def _scored(
        self, X: Any
    ) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.bool_]]]:
        """Return logits of instances, then of the whole, piece by piece."""
        n_instances, width = X.shape[1] - self.pooled_row, X.shape[2]
        coef = self.coef_[:, :width].T.astype(np.float32)
        for rows, block, present in read_bags(X, pooled_row=self.pooled_row):
            logits = np.empty((len(block), n_instances + 1, coef.shape[1]))
            found = block.reshape(-1, width) @ coef
            found = found.reshape(*block.shape[:2], coef.shape[1])
            logits[:, :-1] = found[:, :n_instances]
            logits[:, -1] = self.intercept_
            if self.pooled_row:
                logits[:, -1] += block[:, -1] @ self.coef_[:, width:].T
            yield rows, logits, present
