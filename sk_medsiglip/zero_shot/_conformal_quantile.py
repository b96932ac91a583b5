"""The arithmetic of conformal sets: scores, and the quantile where patients count once.

Only ``ConformalZeroShot`` imports this.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.zero_shot._conformal_answers import Answers

#: A sum of a few thousand weights is off by less than this.
_ROUNDING = 1e-9


def score_classes(
    probabilities: NDArray[np.float64], method: str
) -> NDArray[np.float64]:
    """Return how badly each class fits each image.

    Parameters
    ----------
    probabilities : ndarray of shape (..., n_classes)
        Sum to 1 over the last axis.
    method : {"lac", "aps"}
        "lac": what the class lacks to 1. "aps": what the likelier classes take
        together, so that the likeliest is in every set.

    Returns
    -------
    ndarray in the same shape
        0 is the best fit, 1 the worst.
    """
    if method == "lac":
        return 1 - probabilities
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=-1)
    sums = np.zeros_like(ranked)
    np.cumsum(ranked[..., :-1], axis=-1, out=sums[..., 1:])
    scores = np.empty_like(sums)
    np.put_along_axis(scores, order, sums, axis=-1)
    return scores


def class_quantiles(
    scores: NDArray[np.float64],
    labels: NDArray[np.intp],
    patients: NDArray[np.intp],
    weight: NDArray[np.float64] | None = None,
    *,
    alpha: float,
    by_class: bool,
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the quantile of every class, of each finding, and the patients behind it.

    Parameters
    ----------
    scores : ndarray of shape (n_samples, n_classes) or (n_samples, n_findings, 2)
        From :func:`score_classes`.
    labels : ndarray of shape (n_samples, 1) or (n_samples, n_findings)
        Column of the true class, -1 where it is not known.
    patients : ndarray of shape (n_samples,)
        Number of each image's patient.
    weight : ndarray of shape (n_samples,), default=None
        Weights of a patient's images among each other.
    alpha : float
        Share of new patients' images that may lie above.
    by_class : bool
        Whether each class has a quantile of its own, or all have one together.

    Returns
    -------
    quantiles, n_patients : ndarray of shape (n_classes,) or (n_findings, 2)
    """
    n_classes = scores.shape[-1]
    weight = np.ones(len(patients)) if weight is None else weight
    quantiles = np.empty((labels.shape[1], n_classes))
    counts = np.empty(quantiles.shape, dtype=np.intp)
    for column, truth in enumerate(labels.T):
        of_one = scores[:, column] if scores.ndim == 3 else scores
        of_truth = of_one[np.arange(len(truth)), truth]
        for at in range(n_classes):
            which = truth == at if by_class else truth >= 0
            quantiles[column, at], counts[column, at] = patient_quantile(
                of_truth[which], patients[which], alpha, weight[which]
            )
    return quantiles.reshape(scores.shape[1:]), counts.reshape(scores.shape[1:])


def patient_quantile(
    scores: NDArray[np.float64],
    patients: NDArray[np.intp],
    alpha: float,
    weight: NDArray[np.float64] | None = None,
) -> tuple[float, int]:
    """Return the score that a new patient's image stays within, and of how many.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Of the true classes.
    patients : ndarray of shape (n_samples,)
        Number of each image's patient.
    alpha : float
        Share of new patients' images that may lie above.
    weight : ndarray of shape (n_samples,), default=None
        Weights of a patient's images among each other; ones by default.

    Returns
    -------
    quantile : float
        Infinite where there are too few patients to say.
    n_patients : int

    Notes
    -----
    The weighted quantile of Lee, Barber and Willett (2023): of K patients, each
    spreads a weight of 1 / (K + 1) over its images, and the rest lies at infinity, for
    the new patient. With one image each this is the usual
    ceil((K + 1) (1 - alpha))-th smallest score.
    """
    weight = np.ones(len(patients)) if weight is None else weight
    member = np.unique(patients, return_inverse=True)[1]
    sizes = np.bincount(member, weight)
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum((weight / sizes[member])[order])
    wanted = (1 - alpha - _ROUNDING) * (len(sizes) + 1)
    at = int(np.searchsorted(reached, wanted))
    quantile = float(scores[order[at]]) if at < len(order) else np.inf
    return quantile, len(sizes)


def needed_patients(alpha: float) -> int:
    """Return how many patients a finite quantile takes at least."""
    return max(1, ceil((1 - alpha) / alpha - _ROUNDING))


def say_few(
    answers: Answers,
    quantiles: NDArray[np.float64],
    n_patients: NDArray[np.intp],
    *,
    alpha: float,
    by_class: bool,
) -> str:
    """Return which classes have too few patients, and how many it takes.

    Parameters
    ----------
    answers : Answers
        Names them.
    quantiles, n_patients : ndarray of shape (n_classes,) or (n_findings, 2)
        From :func:`class_quantiles`; infinite where there are too few.
    alpha, by_class
        As there.

    Returns
    -------
    str
    """
    n_classes = quantiles.shape[-1]
    counts = n_patients.reshape(-1, n_classes)
    found = []
    for column, at in np.argwhere(np.isinf(quantiles).reshape(-1, n_classes)).tolist():
        words = [str(answers.finding_names[column])] if answers.several else []
        if by_class:
            words.append(str([0, 1][at] if answers.several else answers.classes[at]))
        found.append(f"{' '.join(words) or 'all classes'}: {counts[column, at]}")
    return (
        f"alpha={alpha:g} needs {needed_patients(alpha)} labelled patients (images, "
        f"without groups); there are fewer of {', '.join(dict.fromkeys(found))}. Every "
        "set holds these classes: label more, or raise alpha."
    )
