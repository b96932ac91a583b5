"""Fit any estimator, and hand groups to the folds in it that ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

__all__ = ["fit_with_groups"]


def fit_with_groups(
    estimator: Any,
    X: Any,
    y: Any,
    groups: NDArray[Any] | None,
    sample_weight: NDArray[np.float64] | None = None,
) -> Any:
    """Fit an estimator; groups reach what splits rows by them, weights its last step.

    Parameters
    ----------
    estimator : estimator
        Or a pipeline. Groups go to a last step whose ``fit`` names them, as that of
        this package's heads; else to splitters that request them, such as
        ``GroupKFold`` in a ``GridSearchCV``; else to nobody.
    X, y
        As it takes them.
    groups : ndarray of shape (n_samples,) or None
        Such as patients.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    estimator
        The same, fitted.

    Raises
    ------
    ValueError
        If the last step takes no weights.
    """
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    given = {"sample_weight": sample_weight, "groups": groups}
    own = {
        name: value
        for name, value in given.items()
        if value is not None and has_fit_parameter(last, name)
    }
    if sample_weight is not None and "sample_weight" not in own:
        raise ValueError(
            f"{type(last).__name__} takes no sample_weight: leave it out of the "
            "search, or repeat rows."
        )
    if groups is not None and "groups" not in own and _asks_for_groups(estimator):
        # Without routing CalibratedClassifierCV and others hand them to no splitter.
        with config_context(enable_metadata_routing=True):
            return estimator.fit(X, y, groups=groups, **own)
    # By hand: how they travel in a pipeline depends on whether scikit-learn's
    # metadata routing is on.
    for _, step in estimator.steps[:-1] if isinstance(estimator, Pipeline) else []:
        if step not in (None, "passthrough"):
            X = step.fit_transform(X, y)
    last.fit(X, y, **own)
    return estimator


def _asks_for_groups(estimator: Any) -> bool:
    """Tell whether something in an estimator requests groups, such as a splitter."""
    try:
        routing = get_routing_for_object(estimator)
    except NotImplementedError:  # AdaBoost, for one, routes nothing
        return False
    return "groups" in routing.consumes("fit", ["groups"])
