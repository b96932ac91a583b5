"""Import an optional library, or say which command installs it."""

from __future__ import annotations

import importlib
from types import ModuleType

from sk_medsiglip.exceptions import MissingDependencyError


def import_optional(name: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a module that belongs to an extra of this package.

    Parameters
    ----------
    name : str
        Module to import, dotted where needed: ``"matplotlib.pyplot"``.
    extra : str
        The extra in ``pyproject.toml`` that installs it.
    purpose : str
        What needs it, as the subject of a sentence: ``"Drawing the overview"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingDependencyError
        If it is not installed; the message holds the install command.
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
