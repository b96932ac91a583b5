"""Calibration error, and the slope and intercept of recalibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit, stdtrit
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_consistent_length

from sk_medsiglip._intervals import Estimate
from sk_medsiglip._validation import Integral
from sk_medsiglip.evaluation._known_labels import check_labels_and_scores

#: Sums of float32 probabilities exceed 1 by up to this much.
_ROUNDING = 1e-6
#: Probabilities of 0 and 1 have no finite logit and are moved by this much.
_NEAREST = float(np.finfo(np.float32).eps)


def expected_calibration_error(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    n_bins: int = 15,
    strategy: str = "uniform",
    classes: ArrayLike | None = None,
    average: str | None = "macro",
) -> float | NDArray[np.float64]:
    """Compute the expected calibration error.

    Images are put into bins by their probability. The error is the mean over images of
    the distance between the mean probability of the bin and the share of the bin's
    images for which the prediction was right [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
        1 and 0, and NaN where a label is not known; or labels of exclusive classes.
    y_prob : array-like
        Probabilities in one of three shapes:

        - ``(n_samples,)``: the probability that a finding is present, compared with
          the share of images in which it is;
        - ``(n_samples, n_classes)``, with one label per image: the probability of the
          most likely class, compared with the share of images of that class, as in the
          reference;
        - ``(n_samples, n_findings)``, with as many columns of labels: each finding
          separately, as in the first case.
    n_bins : int, default=15
        Number of bins. The fewer images a bin holds, the larger the error, however
        good the probabilities.
    strategy : {"uniform", "quantile"}, default="uniform"
        Method of binning. "uniform" divides the range from 0 to 1 into bins of equal
        width, which include their upper ends; "quantile" gives all bins about the same
        number of images.
    classes : array-like of shape (n_classes,), default=None
        Class labels in the order of the columns of ``y_prob``, usually
        ``clf.classes_``. By default 0, 1, 2, ...
    average : {"macro", None}, default="macro"
        Whether to return the mean over several findings, or one error per finding.

    Returns
    -------
    float or ndarray of shape (n_findings,)
        Calibration error, from 0 (best) to 1.

    See Also
    --------
    sklearn.calibration.CalibrationDisplay : The bins as a curve.

    Notes
    -----
    The first two forms differ for two classes: the probability of the most likely class
    is never below 0.5, so that a classifier that never predicts a rare finding looks
    well calibrated in the second form.

    References
    ----------
    .. [1] Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import expected_calibration_error
    >>> y_true = [0, 0, 1, 1]
    >>> expected_calibration_error(y_true, [0.0, 0.0, 1.0, 1.0])
    0.0
    >>> expected_calibration_error(y_true, [0.25, 0.25, 0.75, 0.75])  # too careful
    0.25
    """
    if not isinstance(n_bins, Integral) or n_bins < 1:
        raise ValueError(f"n_bins must be a positive int, got {n_bins!r}.")
    if strategy not in ("uniform", "quantile"):
        raise ValueError(f"strategy must be 'uniform' or 'quantile', got {strategy!r}.")
    if average not in ("macro", None):
        raise ValueError(f"average must be 'macro' or None, got {average!r}.")
    probabilities = check_probabilities(y_prob)
    if probabilities.ndim == 2 and np.ndim(y_true) == 1:
        right = _is_right(y_true, probabilities, classes)
        return binned_error(right, probabilities.max(axis=1), int(n_bins), strategy)
    # y_prob rather than the array, since a DataFrame has column names.
    findings = check_labels_and_scores(y_true, y_prob)
    errors = np.array(
        [
            binned_error(one.present, np.clip(one.score, 0, 1), int(n_bins), strategy)
            for one in findings
        ]
    )
    if findings[0].name is None or average == "macro":
        return float(errors.mean())
    return errors


def calibration_line(
    ill: NDArray[np.bool_],
    probability: NDArray[np.float64],
    who: NDArray[np.intp],
    n_patients: int,
) -> dict[str, Estimate]:
    """Return the slope and the intercept of logistic recalibration.

    The slope is that of a logistic regression of the labels on the logit of the
    probabilities. It is 1 if they are calibrated, below 1 if they are too extreme, and
    above 1 if they are not extreme enough. The intercept is that of a regression with
    the slope fixed at 1 (calibration in the large). It is 0 if they are calibrated, and
    above 0 if the finding is more frequent than predicted [1]_.

    Intervals are based on Student's t distribution, whose degrees of freedom are the
    number of patients on the smaller side minus one, and on a variance that leaves out
    each patient in turn (a one-step approximation, CR3) [2]_. Both are NaN if the
    regression has no solution.

    References
    ----------
    .. [1] Van Calster et al., "Calibration: the Achilles heel of predictive analytics",
       BMC Medicine 2019.
    .. [2] Bell and McCaffrey, "Bias reduction in standard errors for linear regression
       with multi-stage samples", Survey Methodology 2002.
    """
    x = logit(np.clip(probability, _NEAREST, 1 - _NEAREST))
    scale = x.std() or 1.0
    Z = np.column_stack([np.ones_like(x), (x - x.mean()) / scale])
    smaller = min(len(np.unique(who[side])) for side in (ill, ~ill))

    def estimate(value: float, Z: Any, logits: Any, scale: float = 1) -> Estimate:
        """Return the last coefficient, and its change without each patient."""
        moved, variance = np.zeros(n_patients), np.nan
        if smaller > 1 and not np.isnan(value):
            p = expit(logits)
            scores = np.zeros((n_patients, Z.shape[1]))
            information = np.zeros((n_patients, Z.shape[1], Z.shape[1]))
            np.add.at(scores, who, Z * (ill - p)[:, None])
            np.add.at(information, who, np.einsum("i,ij,ik->ijk", p * (1 - p), Z, Z))
            # Without one patient the matrix may be singular, so no plain inverse.
            rest = np.linalg.pinv(information.sum(axis=0) - information, hermitian=True)
            moved = (rest @ scores[:, :, None])[:, -1, 0] / scale
            variance = (1 - 1 / len(np.unique(who))) * (moved**2).sum()

        def bounds(outside: Any) -> tuple[Any, Any]:
            half = -stdtrit(max(1, smaller - 1), outside / 2) * np.sqrt(variance)
            return value / scale - half, value / scale + half

        few = f"{smaller} patient{'s' * (smaller != 1)} of a kind"
        return Estimate(float(value / scale), moved, bounds, few if smaller < 2 else "")

    slope = intercept = start = np.nan
    if smaller:
        low, high = logit(ill.mean()) - np.array([x.max() + 1, x.min() - 1])
        intercept = brentq(lambda a: (ill - expit(a + x)).sum(), low, high)
        if x[ill].min() < x[~ill].max() and x[~ill].min() < x[ill].max():
            line = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
            line.fit(Z[:, 1:], ill)
            start, slope = line.intercept_[0], line.coef_[0, 0]
    return {
        "calibration_slope": estimate(slope, Z, start + slope * Z[:, 1], scale),
        "calibration_intercept": estimate(intercept, Z[:, :1], intercept + x),
    }


def check_probabilities(y_prob: ArrayLike) -> NDArray[np.float64]:
    """Return probabilities, or raise where one is outside [0, 1]."""
    probabilities = np.asarray(y_prob, dtype=np.float64)
    outside = (probabilities < -_ROUNDING) | (probabilities > 1 + _ROUNDING)
    if outside.any():
        raise ValueError(
            f"y_prob must lie in [0, 1], got {probabilities[outside][0]:g}: pass the "
            "output of predict_proba, not of decision_function."
        )
    return np.clip(probabilities, 0, 1)


def _is_right(
    y_true: ArrayLike, probabilities: NDArray[np.float64], classes: Any
) -> NDArray[np.bool_]:
    """Tell whether the most likely class is the true one."""
    labels = np.asarray(y_true)
    check_consistent_length(labels, probabilities)
    if np.isnan(probabilities).any():
        raise ValueError("y_prob holds NaN: leave those images out.")
    n_classes = probabilities.shape[1]
    known = np.arange(n_classes) if classes is None else np.asarray(classes)
    if known.shape != (n_classes,):
        raise ValueError(
            f"classes has shape {known.shape}, and y_prob has {n_classes} columns: "
            "pass the classifier's classes_."
        )
    strange = labels[~np.isin(labels, known)]
    if strange.size:
        raise ValueError(
            f"y_true holds {strange.tolist()[0]!r}, which is not one of the classes "
            f"{known.tolist()}: pass classes=clf.classes_, and leave out images whose "
            "class is not known."
        )
    return known[probabilities.argmax(axis=1)] == labels


def binned_error(
    came_true: NDArray[np.bool_],
    probability: NDArray[np.float64],
    n_bins: int,
    strategy: str = "uniform",
) -> float:
    """Return the mean distance between probabilities and outcomes over all images."""
    cuts = np.linspace(0, 1, n_bins + 1)
    edges = cuts if strategy == "uniform" else np.quantile(probability, cuts)
    bins = np.searchsorted(edges[1:-1], probability, side="left")
    gaps = np.bincount(bins, weights=came_true - probability, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(probability))
