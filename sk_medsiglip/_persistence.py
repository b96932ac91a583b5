"""Saved state of estimators: the version of the package, and tables as lists."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
from sklearn.exceptions import InconsistentVersionWarning

from sk_medsiglip._version import __version__

_KEY = "_sk_medsiglip_version"
_TABLE = "_sk_medsiglip_table"


class VersionedPickle:
    """Mixin, left of ``BaseEstimator`` if there is one, for what is saved.

    The version is saved with the state, as scikit-learn does for its own estimators
    only. Tables are saved as lists, since skops does not support their pickles, and are
    restored on loading.
    """

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        return {**_as_lists(state), _KEY: __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        version = state.pop(_KEY, "unknown")
        if version != __version__:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__,
                    current_sklearn_version=f"sk-medsiglip {__version__}",
                    original_sklearn_version=f"sk-medsiglip {version}",
                ),
                stacklevel=2,
            )
        # Only estimators have the method.
        restore = getattr(super(), "__setstate__", self.__dict__.update)
        restore(_from_lists(state))


def _as_lists(value: Any) -> Any:
    """Return a value with all tables and columns in it, also in dicts, as lists."""
    if type(value) is dict:
        return {name: _as_lists(one) for name, one in value.items()}
    if not isinstance(value, pd.DataFrame | pd.Series):
        return value
    table = pd.DataFrame(value)
    return {
        _TABLE: table.to_dict("split"),
        "dtypes": table.dtypes.astype(str).tolist(),
        "is_column": isinstance(value, pd.Series),
        "attrs": _as_lists(value.attrs),
    }


def _from_lists(value: Any) -> Any:
    """Restore the tables and columns of :func:`_as_lists`."""
    if type(value) is not dict:
        return value
    if _TABLE not in value:
        return {name: _from_lists(one) for name, one in value.items()}
    given = value[_TABLE]
    index = given["index"] or None  # a default index if there are no rows
    table = pd.DataFrame(given["data"], index, given["columns"], dtype=object)
    table = table.astype(dict(zip(table, value["dtypes"], strict=True)))
    result = table.iloc[:, 0] if value["is_column"] else table
    result.attrs = _from_lists(value.get("attrs", {}))
    return result
