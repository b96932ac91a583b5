"""Public objects carry the name of their room, so that saved files do too.

A pickle or a skops file names the module of each class in it. With the room in place of
the private file, files can be moved without breaking saved estimators.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.machinery import ModuleSpec
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]


def name_by_room(namespace: Mapping[str, Any]) -> None:
    """Set ``__module__`` of the exports of a room, given its ``globals()``."""
    room = namespace["__name__"]
    for name in namespace["__all__"]:
        module = getattr(namespace[name], "__module__", None)
        if isinstance(module, str) and module.startswith(f"{room}._"):
            namespace[name].__module__ = room


class _RetiredFiles:
    """Last finder of ``sys.meta_path``, which explains missing private files.

    Releases up to 0.1 saved the names of private files.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Raise for a private file of this package that does not exist."""
        if name.startswith(f"{_PACKAGE}.") and name.rpartition(".")[2][:1] == "_":
            raise ModuleNotFoundError(
                f"No module named {name!r}. If you are loading a saved estimator, it "
                "was saved by an earlier version of sk-medsiglip, under the name of a "
                "file that has been moved: fit it again here, with the parameters that "
                "get_params() returns in that version.",
                name=name,
            )
        return None


sys.meta_path.append(_RetiredFiles)
