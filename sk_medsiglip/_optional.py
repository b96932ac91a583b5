"""Imports of optional libraries."""

from __future__ import annotations

import importlib
from types import ModuleType

from sk_medsiglip.exceptions import MissingDependencyError


def import_optional(name: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module, or raise an error with the command to install it.

    ``extra`` is the extra of this package that installs it; ``purpose`` is the subject
    of the message, such as "Drawing the overview".
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        missing = (error.name or library).partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and missing == library:
            raise MissingDependencyError(
                f"{purpose} needs {library}, which is not installed. Install it with: "
                f'pip install "sk-medsiglip[{extra}]"'
            ) from error
        raise MissingDependencyError(
            f"{purpose} needs {library}, which is installed but cannot be imported "
            f"({error}). Install it again, with its dependencies: "
            f'pip install --force-reinstall "sk-medsiglip[{extra}]"'
        ) from error
