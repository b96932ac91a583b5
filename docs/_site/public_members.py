"""Which members of a class the API pages show: ours, and not scikit-learn's again.

Every estimator inherits ``get_params``, ``set_params``, metadata requests and the like.
Repeating their texts would bury what a class adds, and they point at pages of
scikit-learn that are not here. The template says that they are there.
"""

from __future__ import annotations

from typing import Any

__all__ = ["setup"]


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}


def _skip(
    app: Any, kind: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what another package defines; None keeps autodoc's own judgement."""
    module = getattr(member, "__module__", None) or getattr(
        getattr(member, "fget", None), "__module__", None
    )
    if kind == "class" and (module is None or not module.startswith("sk_medsiglip")):
        return True
    return None
