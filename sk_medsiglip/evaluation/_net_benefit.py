"""Net benefit of decisions at a threshold."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._intervals import Estimate, combine, share_estimate
from sk_medsiglip._resampling import check_resampling
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.evaluation._calibration import check_probabilities
from sk_medsiglip.evaluation._known_labels import check_labels_and_scores


def net_benefit(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    *,
    thresholds: ArrayLike | None = None,
    prevalence: float | None = None,
    groups: ArrayLike | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the net benefit of acting on probabilities, for a decision curve.

    Acting means whatever a positive answer leads to: a second reading, a CT, a biopsy.
    The threshold probability is the risk at which one would begin to act. Acting from
    10 % on means that one missed patient is considered as bad as nine needless actions,
    so the net benefit counts those rightly acted on, and subtracts a ninth of the
    needless actions [1]_::

        net benefit = TP / n - FP / n * threshold / (1 - threshold)

    Multiplied by 100 it is the number of patients found per 100, without any needless
    action.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
        1 and 0, NaN where a label is not known. For one of several classes pass
        ``y == "pneumonia"`` and that class's column of ``predict_proba``.
    y_prob : array-like in the same shape
        Probabilities of the finding. Those that are not calibrated give the net benefit
        of acting on wrong risks.
    thresholds : array-like of shape (n_thresholds,), default=None
        Threshold probabilities, at least 0 and below 1. Take those that reasonable
        people would act at. By default 0.01, 0.02, ..., 0.99.
    prevalence : float, default=None
        Share of patients with the finding where the classifier will be used, if the
        images were chosen by their label (a case-control study, an enriched test set).
        Probabilities are taken as they are, and should be those for there. By default,
        the share in ``y_true``.
    groups : array-like of shape (n_samples,), default=None
        Patients. Without them each row counts as one, and intervals are too narrow
        where patients have several images.
    level : float, default=0.95
        Confidence level of the intervals, at each threshold by itself.

    Returns
    -------
    DataFrame
        One row for each finding, threshold and strategy; columns ``label``,
        ``threshold``, ``strategy``, ``value``, ``low``, ``high``, ``n`` and
        ``n_positive`` (images). Strategies are "model"; "treat all"; "treat none",
        which is 0 by definition and has no interval; and "model - treat all", the gain
        over acting on everybody, which divided by the odds of the threshold is the
        share of needless actions that are spared.

    Raises
    ------
    ValueError
        If probabilities or thresholds lie outside [0, 1], shapes differ, or all images
        of a finding are of one kind.

    See Also
    --------
    DecisionCurveDisplay : Draws it.
    evaluate : The metric "net_benefit@threshold=0.1", with the other figures.

    Notes
    -----
    An image is acted on where its probability reaches the threshold (``>=``). Values
    equal those of the packages dcurves of R and Python.

    Intervals are those of the shares TP / n and FP / n (Wilson's, with the effective
    number of patients), joined as differences are (MOVER) with their correlation. They
    have a width even where there are no needless actions. With a given prevalence,
    which is taken as known, sensitivity and false positive rate take the shares'
    place.

    References
    ----------
    .. [1] Vickers and Elkin, "Decision Curve Analysis: A Novel Method for Evaluating
       Prediction Models", Medical Decision Making 2006.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import net_benefit
    >>> table = net_benefit([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], thresholds=[0.2])
    >>> table.set_index("strategy")["value"].round(2).to_dict()
    {'model': 0.44, 'treat all': 0.38, 'treat none': 0.0, 'model - treat all': 0.06}
    """
    check_resampling(1, level)
    check_probabilities(y_prob)
    at = np.arange(1, 100) / 100 if thresholds is None else np.asarray(thresholds)
    if at.ndim != 1 or not at.size or not ((at >= 0) & (at < 1)).all():
        raise ValueError(
            "thresholds must be a list of probabilities from 0 to below 1, such as "
            f"[0.05, 0.1, 0.2]; got {thresholds!r}."
        )
    check_prevalence(prevalence)
    patients = group_numbers(groups, np.shape(y_prob)[0])
    rows = []
    for finding in check_labels_and_scores(y_true, y_prob):
        present, who = finding.present, patients[finding.rows]
        if present.all() or not present.any():
            raise ValueError(
                f"{finding.words} holds images of one kind only, and net benefit "
                "weighs those with the finding against those without: add the other "
                "kind, or leave the finding out."
            )
        n = len(present), int(present.sum())
        share = share_estimate(np.bincount(who, present), np.bincount(who))
        share = share if prevalence is None else fixed(prevalence)
        for threshold in at.tolist():
            treated, odds = finding.score >= threshold, threshold / (1 - threshold)
            kinds = present, who, threshold, prevalence
            strategies = {
                "model": benefit_estimate(treated, *kinds),
                "treat all": share.mapped(partial(_treating_all, odds)),
                "treat none": fixed(0.0),
                # Needless actions that are spared, less the patients that are missed.
                "model - treat all": combine(
                    [benefit_estimate(~treated, *kinds)], [-1]
                ),
            }
            rows += [
                (finding.name, threshold, name, one.value, *one.interval(level)[:2], *n)
                for name, one in strategies.items()
            ]
    names = ["label", "threshold", "strategy", "value", "low", "high", "n"]
    return pd.DataFrame(rows, columns=[*names, "n_positive"])


def _treating_all(odds: float, prevalence: Any) -> Any:
    return prevalence - (1 - prevalence) * odds


def check_prevalence(prevalence: float | None) -> None:
    """Raise if a prevalence is given that is not between 0 and 1."""
    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(
            "prevalence must be a share between 0 and 1, such as 0.05 for 5%; got "
            f"{prevalence!r}."
        )


def benefit_estimate(
    treated: NDArray[np.bool_],
    present: NDArray[np.bool_],
    who: NDArray[np.intp],
    threshold: float,
    prevalence: float | None = None,
    n_patients: int = 0,
) -> Estimate:
    """Return the net benefit of acting on some images.

    The number of patients is that of the whole sample, if some have none of these.
    """
    of_all = prevalence is None
    shares = flagged_shares(treated, present, who, n_patients, of_all=of_all)
    ill, well = (1.0, 1.0) if prevalence is None else (prevalence, 1 - prevalence)
    return combine(shares, (ill, -well * threshold / (1 - threshold)))


def flagged_shares(
    flagged: Any, present: Any, who: Any, n_patients: int, *, of_all: bool = False
) -> list[Estimate]:
    """Return the shares that are flagged of those with the finding, and without it.

    With ``of_all`` they are shares of all images.
    """
    return [
        share_estimate(
            np.bincount(who, flagged & side, n_patients),
            np.bincount(who, side | of_all, n_patients),
        )
        for side in (present, ~present)
    ]


def fixed(value: float, n_patients: int = 0, note: str = "") -> Estimate:
    """Return a figure that has no interval, such as a count, and the reason why."""
    nothing = np.zeros(n_patients)
    return Estimate(value, nothing, lambda outside: (outside * np.nan,) * 2, note)
