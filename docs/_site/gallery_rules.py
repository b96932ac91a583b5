"""What holds while the gallery's examples run."""

from __future__ import annotations

import warnings
from typing import Any

__all__ = ["warnings_are_errors"]


def warnings_are_errors(gallery_conf: dict[str, Any], name: str) -> None:
    """Let an example that warns fail, as a test would.

    sphinx-gallery calls this before each example.
    """
    for kind in (UserWarning, FutureWarning, RuntimeWarning):
        warnings.filterwarnings("error", category=kind)
    # tqdm misses ipywidgets, for bars that nobody looks at here.
    warnings.filterwarnings("ignore", message="IProgress not found")
