"""The one place that touches scikit-learn's private validation names.

Estimators declare ``_parameter_constraints`` and decorate ``fit``, as scikit-learn's
own template for third-party estimators does. Should a release move these names, this
file is what changes.
"""

from __future__ import annotations

from numbers import Integral, Real

from sklearn.base import _fit_context
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

__all__ = ["HasMethods", "Integral", "Interval", "Real", "StrOptions", "_fit_context"]
