"""Imports of optional libraries."""

from __future__ import annotations

import importlib
from types import ModuleType

from sk_medsiglip.exceptions import MissingDependencyError


def import_optional(name: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module, or raise an error that holds the command to install it.

    ``extra`` is the extra of this package that installs it; ``purpose`` begins the
    message, such as "Drawing the overview".
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) or (
            error.name and error.name.partition(".")[0] != name.partition(".")[0]
        ):
            raise MissingDependencyError(
                f"{purpose} needs {name.partition('.')[0]}, which is installed but "
                f"cannot be imported ({error}). Install it again, with what it needs: "
                f'pip install --force-reinstall "sk-medsiglip[{extra}]"'
            ) from error
        raise MissingDependencyError(
            f"{purpose} needs {name.partition('.')[0]}, which is not installed. "
            f'Install it with: pip install "sk-medsiglip[{extra}]"'
        ) from error
