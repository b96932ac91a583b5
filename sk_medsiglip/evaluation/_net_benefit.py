"""Net benefit of decisions at threshold probabilities."""

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
    """Compute the net benefit of acting on probabilities, for a decision curve.

    The action is the consequence of a positive result, such as a second reading, a CT
    or a biopsy. The threshold probability is the risk from which one would act. A
    threshold of 10 % means that one missed patient is considered as bad as nine
    unnecessary actions, so the net benefit is the share of true positives minus a ninth
    of the share of false positives [1]_::

        net benefit = TP / n - FP / n * threshold / (1 - threshold)

    Multiplied by 100, it is the equivalent number of patients found per 100 without any
    unnecessary action.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,) or (n_samples, n_findings)
        1 and 0, NaN where a label is not known. For one of several classes pass
        ``y == "pneumonia"`` and that class's column of ``predict_proba``.
    y_prob : array-like in the same shape
        Probabilities of the finding. If they are not calibrated, the result is the net
        benefit of acting on wrong risks.
    thresholds : array-like of shape (n_thresholds,), default=None
        Threshold probabilities, at least 0 and below 1. Choose the range in which
        reasonable people would act. By default 0.01, 0.02, ..., 0.99.
    prevalence : float, default=None
        Share of patients with the finding where the classifier will be used, if the
        images were selected by their label (a case-control study, an enriched test
        set). Probabilities are not changed, and should be calibrated for that
        prevalence. By default, the share in ``y_true``.
    groups : array-like of shape (n_samples,), default=None
        Patients. Without them each row counts as a patient, and intervals are too
        narrow if patients have several images.
    level : float, default=0.95
        Confidence level of the intervals, at each threshold separately.

    Returns
    -------
    DataFrame
        One row for each finding, threshold and strategy, with the columns ``label``,
        ``threshold``, ``strategy``, ``value``, ``low``, ``high``, ``n`` and
        ``n_positive`` (numbers of images). The strategies are "model"; "treat all";
        "treat none", which is 0 by definition and has no interval; and "model - treat
        all", the gain over acting on everybody. This gain divided by the odds of the
        threshold is the share of unnecessary actions that are avoided.

    Raises
    ------
    ValueError
        If probabilities or thresholds lie outside [0, 1], shapes differ, or all images
        of a finding are of one kind.

    See Also
    --------
    DecisionCurveDisplay : Draw the decision curve.
    evaluate : Compute "net_benefit@threshold=0.1" along with other metrics.

    Notes
    -----
    An image is acted on if its probability is at least the threshold. Values equal
    those of the packages dcurves of R and Python.

    Intervals combine those of the shares TP / n and FP / n (Wilson's, with the
    effective number of patients) by MOVER, using their correlation. They have a width
    even if there are no false positives. With a given prevalence, which is taken as
    known, sensitivity and false positive rate replace the two shares.

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
                f"{finding.words} holds images of one kind only, and net benefit needs "
                "images with the finding and without: add the other kind, or leave the "
                "finding out."
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
                # The avoided false positives minus the missed patients.
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
    """Raise if a prevalence is given and is not between 0 and 1."""
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
    """Return the net benefit of acting on the images in ``treated``.

    ``n_patients`` is that of the whole sample, if some patients have no image here.
    """
    of_all = prevalence is None
    shares = flagged_shares(treated, present, who, n_patients, of_all=of_all)
    ill, well = (1.0, 1.0) if prevalence is None else (prevalence, 1 - prevalence)
    return combine(shares, (ill, -well * threshold / (1 - threshold)))


def flagged_shares(
    flagged: Any, present: Any, who: Any, n_patients: int, *, of_all: bool = False
) -> list[Estimate]:
    """Return the flagged shares of images with the finding and of those without it.

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
    """Return a value without interval, such as a count, with the reason in a note."""
    nothing = np.zeros(n_patients)
    return Estimate(value, nothing, lambda outside: (outside * np.nan,) * 2, note)
