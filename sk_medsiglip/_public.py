"""Give public objects the name of their room, as saved files then do too.

A pickle or a skops file names the module of each class in it. With the room in place of
the private file, files can be moved without breaking what users have saved.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]


def name_by_room(namespace: Mapping[str, Any]) -> None:
    """Set ``__module__`` of what a room exports, given the room's ``globals()``."""
    room = namespace["__name__"]
    for name in namespace["__all__"]:
        module = getattr(namespace[name], "__module__", None)
        if isinstance(module, str) and module.startswith(f"{room}._"):
            namespace[name].__module__ = room


class _RetiredFiles:
    """Last finder of ``sys.meta_path``: explain a private file that is no longer there.

    Releases up to 0.1 wrote the private file into what they saved.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Raise for a private file of this package that no other finder knows."""
        if name.startswith(f"{_PACKAGE}.") and name.rpartition(".")[2][:1] == "_":
            raise ModuleNotFoundError(
                f"No module named {name!r}. If this comes from loading a saved "
                "estimator, an earlier version of sk-medsiglip saved it under the name "
                "of a file that has moved since: fit it again here, with the "
                "parameters that get_params() returns in that version.",
                name=name,
            )
        return None


sys.meta_path.append(_RetiredFiles)
