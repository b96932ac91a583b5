"""``BagProbe``: a head for bags, which learns the instances that count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._bags import check_bags
from sk_medsiglip._validation import Integral, _fit_context
from sk_medsiglip.heads._bag_loss import pool
from sk_medsiglip.heads._bag_space import BagSpace, make_bag_space, read_bags
from sk_medsiglip.heads._chosen_penalty import PenaltyChooser
from sk_medsiglip.heads._logistic_path import check_Cs

#: Exponents of 10 of the smallest and the largest penalty to choose from.
_EXPONENTS = (-3, 0)


class BagProbe(PenaltyChooser):
    """Logistic regression on bags, which learns from their labels which parts count.

    A bag is several vectors of one thing: the parts of an image, the slices of a study,
    the tiles of a slide. All instances are scored by the same weights, and the score of
    a bag is close to that of its highest instances, so that a finding in one part of an
    image, or on one slice of a study, is not lost in the mean. Labels of images or
    studies are enough: the place of the finding need not be known.

    Parameters
    ----------
    Cs : int or array-like of float, default=10
        Inverse strengths of the penalty to choose from. An int is a number of values
        spaced evenly on a logarithmic scale from 1e-3 to 1. Instances are whitened, so
        the values do not depend on their scale.
    cv : int, splitter or iterable, default=5
        Folds. An int gives stratified folds that keep ``groups`` together; it is
        reduced to the number of samples (or groups) of the rarest class. If that is
        one, ``C`` is 1, with a warning. Several labels are split separately.
    scoring : str, callable or None, default=None
        Name of a score of scikit-learn, or scorer, to choose by. None is
        "neg_log_loss", of smoothed labels if ``Cs`` is an int, as in
        :class:`LinearProbe`.
    class_weight : dict, "balanced", list of these, or None, default=None
        Weights of classes as in scikit-learn; a list has one entry per label.
    pooled_row : bool, default=False
        Whether the last instance of each bag is the pooled row of the whole image, as
        ``MedSigLIPPatchEmbedder(pooled_row=True)`` returns it. It has weights of its
        own, and its score is added to that of the parts, which helps with findings that
        fill the image. It must not be missing.
    tol : float, default=1e-4
        Relative tolerance: the fit stops when the objective is about this fraction
        above a minimum.
    max_iter : int, default=300
        Maximum number of steps.
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
        Values to choose from, in increasing order.
    coef_ : ndarray of shape (1, width), (n_classes, width) or (n_labels, width)
        Coefficients of instances as they are passed, not whitened.
    row_coef_ : ndarray of the shape of ``coef_``
        Coefficients of the pooled row. It exists only with ``pooled_row=True``.
    intercept_ : ndarray of shape (1,), (n_classes,) or (n_labels,)
        Intercepts.
    scores_ : ndarray of shape (n_folds, 1, n_Cs) or (n_labels, n_folds, 1, n_Cs)
        Scores on the bags left out by each fold; the axis of length 1 corresponds to
        the ``l1_ratios`` of ``LogisticRegressionCV``. It does not exist if ``C`` could
        not be chosen, and is NaN for a label whose ``C`` could not be chosen.
    n_iter_ : ndarray of the shape of ``scores_``
        Number of steps of each fit of a fold.
    label_names_ : ndarray of shape (n_labels,)
        Names of the columns of ``y``, if it is a DataFrame of several labels.
    n_features_in_ : int
        Width of an instance.

    See Also
    --------
    LinearProbe : Logistic regression on rows, one vector per sample.

    Notes
    -----
    The logit of a bag of ``m`` instances ``x_j`` with a pooled row ``z`` is
    ``log(sum_j exp(4 * w @ x_j) / m) / 4 + u @ z + b``: a smooth maximum [1]_. Because
    of the mean, bags of different sizes can be compared, and repeating all instances of
    a bag changes nothing.

    The penalty is ``|v|^2 / (2 C)``, where ``v`` are the coefficients in whitened
    coordinates, in which instances have unit variance in all directions. To the
    variance of each, ``0.1 * width / n_samples`` of their mean is added, and at most
    all of it. The pooled row has a standard deviation of 0.3. Whitening uses the bags
    of all folds, but not their labels.

    With one instance per bag this is logistic regression on whitened rows. With more,
    the objective is not convex: the solution is the minimum reached from zero, where a
    bag counts by the mean of its instances.

    Each step costs two products of ``X`` with a matrix of all folds, penalties and
    labels, in float32; there are typically 20 to 80 steps. ``X`` is neither copied nor
    whitened. A lazy array, or one of another type, is held in memory as float32 up to
    4 GiB. A larger one is read twice per step, which may take hours: use fewer ``Cs``
    and folds.

    References
    ----------
    .. [1] Ramon and De Raedt, "Multi Instance Neural Networks", ICML 2000 Workshop on
       Attribute-Value and Relational Learning.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip import BagProbe
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(100) % 2
    >>> X = rng.normal(size=(100, 8, 5))  # 100 bags of 8 vectors
    >>> X[y == 1, 3] += 3.0  # a single one tells
    >>> probe = BagProbe().fit(X, y)
    >>> probe.predict_proba(X).shape
    (100, 2)
    >>> int(probe.instance_scores(X)[1].argmax())
    3
    """

    device = "cpu"  # of the solver

    _parameter_constraints: dict[str, Any] = {
        **PenaltyChooser._parameter_constraints,
        "pooled_row": ["boolean"],
    }

    def __init__(
        self,
        Cs: int | ArrayLike = 10,
        *,
        cv: Any = 5,
        scoring: str | Callable[..., float] | None = None,
        class_weight: Any = None,
        pooled_row: bool = False,
        tol: float = 1e-4,
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
        """Choose the penalty and fit the probe.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_instances, width)
            Bags. An instance that consists of NaN only is missing.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes; or 1 and 0 for each of several labels, with NaN for unknown ones.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the bags, in fits and in scores.
        groups : array-like of shape (n_samples,), default=None
            Groups that the folds keep together, such as patients.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``X`` is not an array of bags, a bag is empty, an instance contains some
            NaN or infinity, or ``y`` has fewer than two classes.

        Warns
        -----
        UserWarning
            If a class has too few samples to choose ``C``.
        ConvergenceWarning
            If ``max_iter`` is too small.
        """
        bags = check_bags(X, estimator=self, values=False)
        self.n_features_in_ = bags.shape[2]
        self._fit(bags, y, sample_weight, groups)
        if self.pooled_row:  # they follow those of instances
            self.coef_, self.row_coef_ = np.split(self.coef_, 2, axis=1)
        return self

    def instance_scores(self, X: Any) -> NDArray[np.float64]:
        """Return the logit of each instance, as if it were alone in its bag.

        The score of a bag lies between the mean and the largest of these: it is
        ``log(mean(exp(4 * scores))) / 4``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_instances, width)
            Bags.

        Returns
        -------
        ndarray of shape (n_samples, n_instances[, n_classes or n_labels])
            Logits, with the intercept and the score of the pooled row added; NaN for a
            missing instance. The pooled row has no logit of its own. Two classes have
            one score, that of the second.
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
        coef = self.coef_.T
        for rows, block, present in read_bags(X, pooled_row=self.pooled_row):
            logits = np.empty((len(block), n_instances + 1, coef.shape[1]))
            # In float64: probabilities near 1 have no digits left in float32.
            found = block.reshape(-1, width).astype(np.float64) @ coef
            found = found.reshape(*block.shape[:2], coef.shape[1])
            logits[:, :-1] = found[:, :n_instances]
            logits[:, -1] = self.intercept_
            if self.pooled_row:
                logits[:, -1] += block[:, -1] @ self.row_coef_.T
            yield rows, logits, present
