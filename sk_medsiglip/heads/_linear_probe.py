"""``LinearProbe``: logistic regression whose penalty chooses itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._validation import _fit_context
from sk_medsiglip.heads._chosen_penalty import PenaltyChooser
from sk_medsiglip.heads._eigenbasis import Eigenbasis, make_eigenbasis
from sk_medsiglip.heads._logistic_path import check_Cs


class LinearProbe(PenaltyChooser):
    """Logistic regression on embeddings, its penalty chosen by cross-validation.

    The same solutions as scikit-learn's ``LogisticRegressionCV`` with an L2 penalty,
    several times faster: all folds, penalties and labels are solved together, since
    they share ``X``.

    Parameters
    ----------
    Cs : int or array-like of float, default=10
        Inverse strengths of the penalty to choose from. A number of them is spread
        over 1e-4 to 1e4, evenly in the logarithm, and a smaller one is put before
        them, 1e-3 divided by the sum of squares of ``X`` (1e-5 at most): there the
        probe says how frequent a class is and no more, the best answer where embeddings
        do not tell classes apart.
    cv : int, splitter or iterable, default=5
        Folds. A number is stratified, keeps ``groups`` together, and shrinks to the
        number of samples (or groups) of the rarest class; with one there, ``C`` is 1
        and a warning says so. With several labels each is split by itself.
    scoring : str, callable or None, default=None
        Score to choose by: a name or scorer of scikit-learn. None is "neg_log_loss",
        which unlike accuracy tells apart settings that make the same decisions, and
        decides between settings of equal scores. "f1" and the like ask how well the
        second of two classes is found. Where ``Cs`` is a number, None smooths the
        labels: after ``m`` answers a share ``1 / (m + 2)`` of each is taken to be
        wrong, so that a few right answers do not choose a probe that is sure of
        everything. Name "neg_log_loss", or give ``Cs`` as values, for the choice of
        ``LogisticRegressionCV``.
    class_weight : dict, "balanced", list of these, or None, default=None
        As in scikit-learn; with several labels a list holds one for each.
    fit_intercept : bool, default=True
        Whether to add an unpenalised constant.
    tol : float, default=1e-7
        Stop when the objective is about this share above its minimum.
    max_iter : int, default=1000
        Steps at most.
    device : str, default="auto"
        "cpu" computes with numpy, a torch device such as "cuda" with torch. "auto" is
        a GPU if torch is loaded in this process and has one, else "cpu".
    refit : bool, default=True
        Fit all samples with the best ``C``. False averages the coefficients of the
        folds, each at its best ``C``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted labels; for several labels a row ``[0, 1]`` each.
    C_ : float, or ndarray of shape (n_labels,)
        The ``C`` chosen. With ``refit=False`` the mean over the folds.
    Cs_ : ndarray of shape (n_Cs,)
        Values to choose from, in rising order. If ``Cs`` is a number, the first of
        ``n_Cs = Cs + 1`` is the constant model.
    coef_ : ndarray of shape (1, n_features), (n_classes, ...) or (n_labels, ...)
        Coefficients.
    intercept_ : ndarray of shape (1,), (n_classes,) or (n_labels,)
        Constants.
    scores_ : ndarray of shape (n_folds, 1, n_Cs) or (n_labels, n_folds, 1, n_Cs)
        Scores on what each fold left out; the axis of length 1 stands for the
        ``l1_ratios`` of ``LogisticRegressionCV``. Absent where ``C`` was fixed, and
        NaN for a label whose ``C`` was.
    n_iter_ : ndarray, shaped as ``scores_``
        Steps taken by each fit of a fold.
    label_names_ : ndarray of shape (n_labels,)
        Names of the columns of ``y``, where it is a DataFrame of several labels.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of str
        Names of the columns, where ``X`` has any.

    See Also
    --------
    fit_logistic_path : The function underneath: all folds and penalties in one call.
    PromptProbe : The same, started from prompts: better with few labels.

    Notes
    -----
    Cost: two products of ``X`` with a matrix of all problems a step, some 10 to 40
    steps, and once an eigendecomposition of size ``min(n_samples, n_features)``.
    float32 rows are computed in float32.

    Split by patient: pass ``groups`` to ``fit``, in a pipeline as
    ``pipe.fit(X, y, linearprobe__groups=patients)``.

    Unlike logistic regression at a fixed ``C``, a probe chooses: nested
    cross-validation costs no more than the folds you ask for.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.heads import LinearProbe
    >>> phantoms = make_chest_phantoms(60, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> probe = LinearProbe().fit(X, phantoms.target)
    >>> probe.coef_.shape
    (6, 192)
    >>> probe.predict_proba(X).shape
    (60, 6)
    """

    _parameter_constraints: dict[str, Any] = {
        **PenaltyChooser._parameter_constraints,
        "fit_intercept": ["boolean"],
        "device": [str],
    }

    def __init__(
        self,
        Cs: int | ArrayLike = 10,
        *,
        cv: Any = 5,
        scoring: str | Callable[..., float] | None = None,
        class_weight: Any = None,
        fit_intercept: bool = True,
        tol: float = 1e-7,
        max_iter: int = 1000,
        device: str = "auto",
        refit: bool = True,
    ) -> None:
        self.Cs = Cs
        self.cv = cv
        self.scoring = scoring
        self.class_weight = class_weight
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.refit = refit

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Choose the penalty and learn.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes; or 1 and 0 for each of several labels, NaN where it is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, in learning and in scoring.
        groups : array-like of shape (n_samples,), default=None
            Groups that the folds keep together, such as patients.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` holds fewer than two classes, or anything but labels.

        Warns
        -----
        UserWarning
            If a class has too few samples to choose ``C``.
        ConvergenceWarning
            If ``max_iter`` was too few.
        """
        return self._fit(check_embeddings(self, X), y, sample_weight, groups)

    def _make_space(
        self, X: NDArray[np.floating], weight: NDArray[np.float64]
    ) -> Eigenbasis:
        return make_eigenbasis(X, fit_intercept=self.fit_intercept)

    def _check_Cs(
        self, X: NDArray[np.floating], weight: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return check_Cs(self.Cs, float(weight @ np.einsum("ij,ij->i", X, X)))

    def _logits(self, X: NDArray[np.floating]) -> NDArray[np.floating]:
        # In float64: probabilities near 1 have no digits left in float32.
        return X.astype(np.float64, copy=False) @ self.coef_.T + self.intercept_
