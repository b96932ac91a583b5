"""Base class of the probes: logistic regressions with a penalty chosen by CV."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import get_scorer_names
from sklearn.utils.validation import _check_sample_weight

from sk_medsiglip._classifier import LogitClassifier
from sk_medsiglip._labels import Labels, check_labels
from sk_medsiglip._scoring import best_settings, mean_of_known
from sk_medsiglip._splits import Folds, check_groups, make_folds
from sk_medsiglip._validation import Integral, Interval, Real, StrOptions
from sk_medsiglip._warning import warn_user
from sk_medsiglip.heads._logistic_path import LogisticPath, solve_path
from sk_medsiglip.heads._scores import score_decisions

#: The penalty if there are too few labels to choose one: scikit-learn's default.
FIXED_C = 1.0


class PenaltyChooser(LogitClassifier):
    """Abstract probe: folds, scores and the refit, in any coordinates."""

    # For metadata routing of scikit-learn: groups are requested by default.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"groups": True}

    _parameter_constraints: dict[str, Any] = {
        "Cs": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "class_weight": [dict, StrOptions({"balanced"}), list, None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "refit": ["boolean"],
    }

    Cs: Any
    cv: Any
    scoring: Any
    class_weight: Any
    tol: float
    max_iter: int
    device: str
    refit: bool

    @abstractmethod
    def _make_space(self, X: Any, weight: NDArray[np.float64]) -> Any:
        """Return the coordinates for ``solve_path``."""

    @abstractmethod
    def _check_Cs(self, X: Any, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the penalties to choose from, in rising order."""

    def _fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
    ) -> Self:
        """Choose the penalty and fit checked samples."""
        labels = check_labels(self, X, y, blanks=True)
        weight = _check_sample_weight(sample_weight, labels.target, dtype=np.float64)
        of_groups = None if groups is None else check_groups(groups, len(X))
        counts = labels.counted(weight)
        folds = make_folds(labels, self.cv, of_groups, X, counts)
        if not counts.all():  # after the folds, which are made from the rows as passed
            X, weight, labels = X[counts], weight[counts], labels.keep(counts)
            folds = None if folds is None else folds.keep(counts)
        self.classes_ = labels.classes_attribute
        if labels.names is not None:
            self.label_names_ = labels.names
        self.Cs_ = self._check_Cs(X, weight)
        weights = labels.weights(self.class_weight, weight)
        space = self._make_space(X, weight)
        if folds is None:
            best = np.full(len(labels.by_label()), FIXED_C)
            self._warn_of_few(np.ones(len(best), dtype=bool))
        else:
            path = self._solve(space, labels, self.Cs_, folds.train, weights)
            asked = None if sample_weight is None else weight
            scores, log_scores = self._score(path.decision, labels, folds, asked)
            self.scores_ = scores[..., None, :]
            n_iter = path.n_iter[:, None]
            self.n_iter_ = n_iter if n_iter.ndim == 3 else np.moveaxis(n_iter, -1, 0)
            best = self._choose(scores, log_scores)
            if not self.refit:
                return self._average(path, best_settings(scores, -log_scores))
        return self._refit(space, labels, weights, best)

    def _solve(
        self,
        space: Any,
        labels: Labels,
        Cs: NDArray[np.float64],
        masks: NDArray[np.bool_],
        weights: NDArray[np.float64],
    ) -> LogisticPath:
        path = solve_path(
            space,
            labels.target,
            Cs,
            masks,
            classes=labels.classes,
            sample_weight=weights,
            tol=self.tol,
            max_iter=self.max_iter,
            device=self.device,
        )
        if not path.converged.all():
            warn_user(
                f"{int((~path.converged).sum())} of {path.converged.size} fits did not "
                f"converge in {self.max_iter} steps; raise max_iter or tol.",
                ConvergenceWarning,
            )
        return path

    def _score(
        self,
        decision: NDArray[np.floating],
        labels: Labels,
        folds: Folds,
        weight: NDArray[np.float64] | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the scores to choose by, and the log losses that decide ties."""
        log_loss = None if isinstance(self.Cs, Integral) else "neg_log_loss"
        log_scores = score_decisions(decision, labels, folds, log_loss, weight)
        if self.scoring in (None, log_loss):
            return log_scores, log_scores
        return score_decisions(
            decision, labels, folds, self.scoring, weight
        ), log_scores

    def _choose(
        self, scores: NDArray[np.float64], log_scores: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the best C of each label."""
        means, log_means = (
            mean_of_known(one.reshape(-1, *one.shape[-2:]), axis=1)
            for one in (scores, log_scores)
        )
        unknown = np.asarray(np.isnan(means).all(axis=1))
        self._warn_of_few(unknown)
        best = best_settings(means, -log_means)
        return np.where(unknown, FIXED_C, self.Cs_[best])

    def _refit(
        self,
        space: Any,
        labels: Labels,
        weights: NDArray[np.float64],
        best: NDArray[np.float64],
    ) -> Self:
        """Fit all samples, each label at its best C.

        The weights are multiplied by C, so that one path with one penalty is enough.
        """
        n_samples = len(labels.target)
        path = self._solve(
            space,
            labels,
            np.ones(1),
            np.ones((1, n_samples), dtype=bool),
            weights.reshape(n_samples, -1) * best,
        )
        self.coef_, self.intercept_ = path.coef[0, 0], path.intercept[0, 0]
        self.C_: Any = best if labels.classes is None else float(best[0])
        return self

    def _average(self, path: LogisticPath, best: NDArray[np.intp]) -> Self:
        """Average the coefficients of the folds, each at its best C."""
        each = np.arange(len(path.coef))
        if best.ndim == 1:
            self.C_ = float(self.Cs_[best].mean())
            self.coef_ = path.coef[each, best].mean(axis=0)
            self.intercept_ = path.intercept[each, best].mean(axis=0)
            return self
        self.C_ = self.Cs_[best].mean(axis=1)
        labels = range(len(best))
        self.coef_ = np.array([path.coef[each, best[i], i].mean(0) for i in labels])
        intercepts = [path.intercept[each, best[i], i].mean() for i in labels]
        self.intercept_ = np.array(intercepts)
        return self

    def _warn_of_few(self, unknown: NDArray[np.bool_]) -> None:
        if unknown.any():
            columns = f" of columns {np.flatnonzero(unknown)}"
            where = "" if unknown.size == 1 else columns
            warn_user(
                f"a class{where} has fewer than two samples (or groups), so the "
                "penalty cannot be chosen by cross-validation; "
                f"C={FIXED_C:g} is used.",
                UserWarning,
            )
