"""The decorator of ``fit``, and the only imports of private names of scikit-learn.

Estimators declare ``_parameter_constraints`` and decorate ``fit``, like scikit-learn's
template for third-party estimators. If a release moves these names, only this file
changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from numbers import Integral as Integral
from numbers import Real as Real
from typing import Any

import sklearn.base
from sklearn.utils._param_validation import HasMethods as HasMethods
from sklearn.utils._param_validation import Interval as Interval
from sklearn.utils._param_validation import StrOptions as StrOptions
from sklearn.utils._set_output import _get_output_config as _get_output_config

# Prefixes of attributes in which scikit-learn keeps the settings of set_output,
# set_fit_request and callbacks; the last one exists while a pipeline is fitted.
_SETTINGS = ("_skl", "_metadata_request", "_parent_callback")


def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Any], Any]:
    """Decorate ``fit`` like scikit-learn, and clear the attributes of an earlier fit.

    They are restored if ``fit`` fails, so an estimator holds the result of one fit.
    """
    context = sklearn.base._fit_context(
        prefer_skip_nested_validation=prefer_skip_nested_validation
    )

    def decorate(fit: Any) -> Any:
        in_context = context(fit)

        @wraps(fit)
        def fit_anew(estimator: Any, *args: Any, **kwargs: Any) -> Any:
            earlier = _take_fitted(estimator)
            try:
                return in_context(estimator, *args, **kwargs)
            except BaseException:
                _take_fitted(estimator)
                vars(estimator).update(earlier)
                raise

        return fit_anew

    return decorate


def _take_fitted(estimator: Any) -> dict[str, Any]:
    """Remove and return the attributes set by ``fit``."""
    state, params = vars(estimator), estimator.get_params(deep=False)
    own = [n for n in state if n not in params and not n.startswith(_SETTINGS)]
    return {n: state.pop(n) for n in own if n.startswith("_") or n.endswith("_")}
