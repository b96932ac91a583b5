"""Pickles that say when another version of this package wrote them."""

from __future__ import annotations

import warnings
from typing import Any

from sklearn.exceptions import InconsistentVersionWarning

from sk_medsiglip._version import __version__

__all__ = ["VersionedPickle"]

_KEY = "_sk_medsiglip_version"


class VersionedPickle:
    """Mixin, left of ``BaseEstimator``: the version travels with the state.

    Scikit-learn does the same for its own estimators only.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), _KEY: __version__}  # type: ignore[dict-item]

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
        super().__setstate__(state)  # type: ignore[misc]
