"""``LinearProbe``: logistic regression with a penalty chosen by cross-validation."""

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
    """Logistic regression on embeddings, with a penalty chosen by cross-validation.

    The solutions are those of scikit-learn's ``LogisticRegressionCV`` with an L2
    penalty, but several times faster: all folds, penalties and labels share ``X`` and
    are solved together.

    Parameters
    ----------
    Cs : int or array-like of float, default=10
        Inverse strengths of the penalty to choose from. An int is a number of values
        spaced evenly on a logarithmic scale from 1e-4 to 1e4, preceded by a smaller
        one, 1e-3 divided by the sum of squares of ``X`` (at most 1e-5). With the
        smallest value the probe predicts only the frequency of the classes, which is
        best if embeddings do not separate them.
    cv : int, splitter or iterable, default=5
        Folds. An int gives stratified folds that keep ``groups`` together; it is
        reduced to the number of samples (or groups) of the rarest class. If that is
        one, ``C`` is 1, with a warning. Several labels are split separately.
    scoring : str, callable or None, default=None
        Name of a score of scikit-learn, or scorer, to choose by. None is
        "neg_log_loss", which unlike accuracy distinguishes settings that make the same
        decisions; it also decides ties of other scores. Scores such as "f1" are those
        of the second of two classes. If ``Cs`` is an int, None smooths the labels: with
        ``m`` labels, a fraction ``1 / (m + 2)`` of each is taken to be wrong, so that a
        few correct predictions do not select an overconfident probe. For the choice of
        ``LogisticRegressionCV``, pass "neg_log_loss", or ``Cs`` as values.
    class_weight : dict, "balanced", list of these, or None, default=None
        Weights of classes as in scikit-learn; a list has one entry per label.
    fit_intercept : bool, default=True
        Whether to add an unpenalised intercept.
    tol : float, default=1e-7
        Relative tolerance: the fit stops when the objective is about this fraction
        above its minimum.
    max_iter : int, default=1000
        Maximum number of steps.
    device : str, default="auto"
        "cpu" uses numpy, and a torch device such as "cuda" uses torch. "auto" is a GPU
        if torch is loaded in this process and has one, else "cpu".
    refit : bool, default=True
        Whether to fit all samples with the best ``C``. False averages the coefficients
        of the folds, each at its best ``C``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    C_ : float, or ndarray of shape (n_labels,)
        The chosen ``C``; with ``refit=False``, its mean over the folds.
    Cs_ : ndarray of shape (n_Cs,)
        Values to choose from, in increasing order. If ``Cs`` is an int, the first of
        ``n_Cs = Cs + 1`` is the constant model.
    coef_ : ndarray of shape (1, n_features), (n_classes, ...) or (n_labels, ...)
        Coefficients.
    intercept_ : ndarray of shape (1,), (n_classes,) or (n_labels,)
        Intercepts.
    scores_ : ndarray of shape (n_folds, 1, n_Cs) or (n_labels, n_folds, 1, n_Cs)
        Scores on the rows left out by each fold; the axis of length 1 corresponds to
        the ``l1_ratios`` of ``LogisticRegressionCV``. It does not exist if ``C`` could
        not be chosen, and is NaN for a label whose ``C`` could not be chosen.
    n_iter_ : ndarray of the shape of ``scores_``
        Number of steps of each fit of a fold.
    label_names_ : ndarray of shape (n_labels,)
        Names of the columns of ``y``, if it is a DataFrame of several labels.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of str
        Names of the columns of ``X``, if it has names.

    See Also
    --------
    fit_logistic_path : The underlying function: all folds and penalties in one call.
    PromptProbe : A probe that starts from prompts, which is better with few labels.

    Notes
    -----
    Each step costs two products of ``X`` with a matrix of all problems. There are
    typically 10 to 40 steps, and one eigendecomposition of size
    ``min(n_samples, n_features)``. float32 rows are processed in float32.

    To split by patient, pass ``groups`` to ``fit``, or in a pipeline
    ``pipe.fit(X, y, linearprobe__groups=patients)``.

    Since the probe chooses its penalty itself, nested cross-validation costs only one
    fit per outer fold.

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
        """Choose the penalty and fit the probe.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes; or 1 and 0 for each of several labels, with NaN for unknown ones.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, in fits and in scores.
        groups : array-like of shape (n_samples,), default=None
            Groups that the folds keep together, such as patients.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` has fewer than two classes, or values that are not labels.

        Warns
        -----
        UserWarning
            If a class has too few samples to choose ``C``.
        ConvergenceWarning
            If ``max_iter`` is too small.
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
        # float64, since float32 has no digits left for probabilities near 1.
        return X.astype(np.float64, copy=False) @ self.coef_.T + self.intercept_
