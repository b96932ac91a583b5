"""DeLong's test of the difference between two areas under the ROC curve."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm
from sklearn.utils import check_consistent_length

from sk_medsiglip._intervals import placements


def delong_test(
    y_true: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike
) -> tuple[float, float]:
    """Compare the areas under two ROC curves of the same, independent samples.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        1 or True for positive samples, 0 or False for negative ones. Samples must be
        independent: pass one image per patient.
    scores_a, scores_b : array-like of shape (n_samples,)
        Two scores of each sample, higher if a positive is more likely.

    Returns
    -------
    difference : float
        The first area minus the second.
    p_value : float
        Two-sided p-value. It is 1 if both scores order the samples alike. It is NaN if
        fewer than two samples are positive or negative, or if the placements do not
        vary, as with areas of 1 and 0.5.

    Raises
    ------
    ValueError
        If labels are not 0 and 1, or if lengths differ.

    References
    ----------
    .. [1] DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More
       Correlated Receiver Operating Characteristic Curves", Biometrics 1988.
    .. [2] Sun and Xu, "Fast Implementation of DeLong's Algorithm for Comparing the
       Areas Under Correlated Receiver Operating Characteristic Curves", IEEE Signal
       Processing Letters 2014: the placements as ranks.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import delong_test
    >>> difference, p = delong_test([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6],
    ...                             [1, 5, 3, 2, 4, 6])
    >>> round(difference, 3), round(p, 2)
    (0.333, 0.22)
    """
    check_consistent_length(y_true, scores_a, scores_b)
    labels = np.asarray(y_true)
    if labels.dtype != bool and not np.isin(labels, (0, 1)).all():
        raise ValueError(
            "y_true must hold 1 for positive and 0 for negative samples, got "
            f"{np.unique(labels)[:4].tolist()}."
        )
    ill = labels.astype(bool)
    placed = [placements(ill, np.asarray(s, float)) for s in (scores_a, scores_b)]
    areas = [of_ill.mean() for of_ill, _ in placed]
    difference = float(areas[0] - areas[1])
    n_ill, n_well = int(ill.sum()), int((~ill).sum())
    if min(n_ill, n_well) < 2:
        return difference, np.nan
    by_ill = placed[0][0] - placed[1][0]
    by_well = placed[0][1] - placed[1][1]
    variance = by_ill.var(ddof=1) / n_ill + by_well.var(ddof=1) / n_well
    if variance <= 0:
        return difference, 1.0 if difference == 0 else np.nan
    return difference, float(2 * norm.sf(abs(difference) / np.sqrt(variance)))
