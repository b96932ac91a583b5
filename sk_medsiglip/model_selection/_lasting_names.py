"""Names of functions and objects that are the same in every process."""

from __future__ import annotations

import functools
import re
from typing import Any

__all__ = ["lasting_name", "lasting_repr"]

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def lasting_name(value: Any) -> str:
    """Return by what a function or an object can be known again.

    Parameters
    ----------
    value : object
        Functions are known by their module and name, partials by their arguments as
        well, other objects by what they print, or else by their attributes.

    Returns
    -------
    str
    """
    if isinstance(value, functools.partial):
        settings = sorted(value.keywords.items())
        parts = [lasting_name(one) for one in (value.func, *value.args)]
        parts += [f"{name}={lasting_name(one)}" for name, one in settings]
        return f"partial({', '.join(parts)})"
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value).__repr__ is object.__repr__:
        attributes = sorted(getattr(value, "__dict__", {}).items())
        parts = [f"{name}={lasting_repr(one)}" for name, one in attributes]
        return f"{lasting_name(type(value))}({', '.join(parts)})"
    return lasting_repr(value)


def lasting_repr(value: Any) -> str:
    """Return what an object prints, without the addresses that change."""
    return _ADDRESS.sub("", repr(value))
