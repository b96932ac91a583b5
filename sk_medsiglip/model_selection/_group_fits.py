"""Fit any estimator, and hand groups to the folds in it that ask for them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from sklearn import config_context
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

__all__ = ["fit_with_groups"]


def fit_with_groups(estimator: Any, X: Any, y: Any, groups: NDArray[Any] | None) -> Any:
    """Fit an estimator; groups reach what splits rows by them.

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

    Returns
    -------
    estimator
        The same, fitted.
    """
    if groups is None:
        return estimator.fit(X, y)
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    if has_fit_parameter(last, "groups"):
        # By hand: how groups travel in a pipeline depends on whether scikit-learn's
        # metadata routing is on.
        for _, step in estimator.steps[:-1] if isinstance(estimator, Pipeline) else []:
            if step not in (None, "passthrough"):
                X = step.fit_transform(X, y)
        last.fit(X, y, groups=groups)
        return estimator
    if _asks_for_groups(estimator):
        # Without routing CalibratedClassifierCV and others hand them to no splitter.
        with config_context(enable_metadata_routing=True):
            return estimator.fit(X, y, groups=groups)
    return estimator.fit(X, y)


def _asks_for_groups(estimator: Any) -> bool:
    """Tell whether something in an estimator requests groups, such as a splitter."""
    try:
        routing = get_routing_for_object(estimator)
    except NotImplementedError:  # AdaBoost, for one, routes nothing
        return False
    return "groups" in routing.consumes("fit", ["groups"])
