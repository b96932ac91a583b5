"""Calibration of scores by a temperature and biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from sk_medsiglip._labels import Labels
from sk_medsiglip._warning import warn_user

# Range of the temperature, as a factor on the one with which scores differ by about 1.
# Beyond it probabilities are 0 and 1, or all equal.
_RANGE = 1e3


class Calibration(NamedTuple):
    """Parameters of ``softmax(scores / temperature + bias)``."""

    temperature: float
    bias: NDArray[np.float64]  # (n_classes,), their sum is 0


def calibrate_scores(
    scores: NDArray[np.floating],
    how: str,
    *,
    labels: Labels | None,
    prevalence: float | Mapping[Any, float] | pd.Series | None,
    names: NDArray[Any],
    sample_weight: NDArray[np.float64] | None = None,
) -> list[Calibration]:
    """Calibrate one question, or several findings separately.

    ``scores`` are ``(n_samples, n_classes)`` or ``(n_samples, n_findings, 2)``.
    """
    weight = np.ones(len(scores)) if sample_weight is None else sample_weight
    questions = [scores] if scores.ndim == 2 else list(scores.swapaxes(0, 1))
    if how == "prevalence":
        shares = _check_prevalence(
            prevalence, names, scores.shape[-1], several=scores.ndim == 3
        )
        pairs = zip(questions, shares, strict=True)
        return [fit_to_prevalence(one, share, weight) for one, share in pairs]
    if labels is None:
        raise ValueError(
            f"calibrate={how!r} requires y to be passed, but the target y is None. "
            "Without labels use calibrate='prevalence' with prevalence=..., if the "
            "prevalence is known."
        )
    calibrations = []
    for i, (one, target) in enumerate(zip(questions, labels.by_label(), strict=True)):
        known = ~np.isnan(target.astype(np.float64)) & (weight > 0)
        index = target[known].astype(np.intp)
        if len(np.unique(index)) < 2:
            if scores.ndim == 2:
                raise ValueError(
                    "all labels of y are of one class; calibrating needs two."
                )
            warn_user(
                f"finding {str(names[i])!r} has labels of one kind only, or none: its "
                "scores are not calibrated.",
                UserWarning,
            )
            calibrations.append(Calibration(1.0, np.zeros(2)))
            continue
        with_bias = how == "temperature_bias"
        calibrations.append(
            fit_to_labels(one[known], index, weight[known], with_bias=with_bias)
        )
    return calibrations


def fit_to_labels(
    scores: NDArray[np.floating],
    target: NDArray[np.intp],
    sample_weight: NDArray[np.float64] | None = None,
    *,
    with_bias: bool,
) -> Calibration:
    """Fit a temperature, and a bias per class, by maximum likelihood.

    This is temperature scaling (Guo et al., ICML 2017), with biases the bias-corrected
    variant (Alexandari et al., ICML 2020). A share of ``1 / (n_samples + 1)`` of each
    label is spread over all classes, since otherwise a few separable samples would give
    a temperature of 0. Platt's larger shares made probabilities too uniform: among four
    amounts this one had the lowest log loss with 8 to 200 labels of drawn phantoms, and
    none was better on PneumoniaMNIST by more than 0.02.
    """
    n_samples, n_classes = scores.shape
    weight = np.ones(n_samples) if sample_weight is None else sample_weight
    doubt = 1 / (weight.sum() + 1)
    smoothed = np.full((n_samples, n_classes), doubt / n_classes)
    smoothed[np.arange(n_samples), target] += 1 - doubt
    return _maximise(
        scores, smoothed, weight, with_temperature=True, with_bias=with_bias
    )


def fit_to_prevalence(
    scores: NDArray[np.floating],
    prevalence: NDArray[np.floating],
    sample_weight: NDArray[np.float64] | None = None,
) -> Calibration:
    """Fit biases so that the mean probability of each class is its prevalence."""
    shares = np.broadcast_to(prevalence, scores.shape)
    weight = np.ones(len(scores)) if sample_weight is None else sample_weight
    return _maximise(scores, shares, weight, with_temperature=False, with_bias=True)


def _check_prevalence(
    prevalence: float | Mapping[Any, float] | pd.Series | None,
    names: NDArray[Any],
    n_answers: int,
    *,
    several: bool,
) -> list[NDArray[np.float64]]:
    """Return the shares of the answers to each question."""
    if prevalence is None:
        raise ValueError(
            "calibrate='prevalence' needs prevalence: {class or finding: share}."
        )
    if isinstance(prevalence, pd.Series):
        prevalence = prevalence.to_dict()
    if not isinstance(prevalence, Mapping):
        if len(names) > 1:
            raise ValueError(
                f"prevalence is {prevalence!r}; pass a dict with the share of each of "
                f"{names.tolist()}."
            )
        prevalence = {names[0]: prevalence}
    if set(prevalence) != set(names.tolist()):
        raise ValueError(
            f"prevalence has shares for {list(prevalence)}, and the prompts are for "
            f"{names.tolist()}; pass a share for each of these."
        )
    shares = np.array([float(prevalence[name]) for name in names.tolist()])
    if not ((shares > 0) & (shares < 1)).all():
        raise ValueError(
            f"prevalence must lie between 0 and 1, got {shares.tolist()}; leave out "
            "the prompts of classes that cannot occur."
        )
    if len(names) != n_answers or several:
        return [np.array([1 - share, share]) for share in shares]
    if abs(shares.sum() - 1) > 1e-6:
        raise ValueError(
            f"the shares of prevalence add up to {shares.sum():.4g}; those of "
            "exclusive classes must add up to 1."
        )
    return [shares]


def _maximise(
    scores: NDArray[np.floating],
    shares: NDArray[np.floating],
    weight: NDArray[np.float64],
    *,
    with_temperature: bool,
    with_bias: bool,
) -> Calibration:
    """Maximise the mean of ``sum(shares * log softmax(slope * scores + bias))``.

    At the optimum of the biases the mean probabilities equal the mean shares, as
    required for a known prevalence.
    """
    n_classes = scores.shape[1]
    weight = weight / weight.sum()
    centred = scores.astype(np.float64)
    centred = centred - centred.mean(axis=1, keepdims=True)
    # Rows sum to 0, so the mean square is the variance.
    unit = float(np.sqrt(weight @ (centred**2).mean(axis=1))) or 1.0
    scaled = centred / unit if with_temperature else centred
    means = weight @ shares
    slope_of = float(weight @ (shares * scaled).sum(axis=1))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, bias = parameters[0], parameters[1:]
        logits = slope * scaled + bias
        answers = softmax(logits, axis=1)
        value = weight @ logsumexp(logits, axis=1) - slope * slope_of - bias @ means
        gradient = np.empty_like(parameters)
        gradient[0] = weight @ (answers * scaled).sum(axis=1) - slope_of
        gradient[1:] = weight @ answers - means
        return float(value), gradient

    free = (1 / _RANGE, _RANGE) if with_temperature else (1.0, 1.0)
    bounds = [free] + [(None, None) if with_bias else (0.0, 0.0)] * n_classes
    start = np.zeros(1 + n_classes)
    start[0] = 1.0
    found = minimize(
        loss,
        start,
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-15, "gtol": 1e-10},
    ).x
    if with_temperature and found[0] <= 1.01 / _RANGE:
        warn_user(
            "labels and scores contradict each other or are unrelated, so all "
            "calibrated probabilities are equal. Check that the prompts describe the "
            "labels.",
            UserWarning,
        )
    temperature = unit / found[0] if with_temperature else 1.0
    return Calibration(float(temperature), found[1:] - found[1:].mean())
