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
    """Mixin, left of ``BaseEstimator``, that saves the version with the state.

    scikit-learn does so for its own estimators only. Tables are saved as lists, since
    skops does not support their pickles, and are restored on loading.
    """

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        plain = {name: _as_lists(value) for name, value in state.items()}
        return {**plain, _KEY: __version__}

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
        state = {name: _from_lists(value) for name, value in state.items()}
        super().__setstate__(state)  # type: ignore[misc]


def _as_lists(value: Any) -> Any:
    """Return a table or a column as lists, other values unchanged."""
    if not isinstance(value, pd.DataFrame | pd.Series):
        return value
    table = pd.DataFrame(value)
    dtypes = table.dtypes.astype(str).tolist()
    is_column = isinstance(value, pd.Series)
    return {_TABLE: table.to_dict("split"), "dtypes": dtypes, "is_column": is_column}


def _from_lists(value: Any) -> Any:
    """Restore a table or column from :func:`_as_lists`."""
    if not isinstance(value, dict) or _TABLE not in value:
        return value
    given = value[_TABLE]
    index = given["index"] or None  # a default index if there are no rows
    table = pd.DataFrame(given["data"], index, given["columns"], dtype=object)
    table = table.astype(dict(zip(table, value["dtypes"], strict=True)))
    return table.iloc[:, 0] if value["is_column"] else table
