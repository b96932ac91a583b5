"""What every ``fit`` has in common; and the place of scikit-learn's private names.

Estimators declare ``_parameter_constraints`` and decorate ``fit``, as scikit-learn's
own template for third-party estimators does. Should a release move these names, this
file is what changes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import sklearn.base

# How the names begin under which scikit-learn keeps what set_output, set_fit_request
# and callbacks say; the last one is there while a pipeline fits.
_SETTINGS = ("_skl", "_metadata_request", "_parent_callback")


def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Any], Any]:
    """Decorate ``fit``: as scikit-learn does, and with nothing of an earlier fit.

    Parameters
    ----------
    prefer_skip_nested_validation : bool
        As in scikit-learn: False where parameters are estimators of the user's.

    Returns
    -------
    callable
        The decorator. What an earlier fit has set is put aside before ``fit`` begins,
        and comes back if it fails: an estimator holds one fit, whole.
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
    """Remove what ``fit`` has set, and return it."""
    state, params = vars(estimator), estimator.get_params(deep=False)
    own = [n for n in state if n not in params and not n.startswith(_SETTINGS)]
    return {n: state.pop(n) for n in own if n.startswith("_") or n.endswith("_")}
