"""Tables and prompts as JSON has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as objects."""
    return [
        {str(name): plain(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def plain(value: Any) -> Any:
    """Return a value of Python's own type; None for NaN and infinity."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def texts_by_side(prompts: Mapping[Any, Any]) -> dict[str, Any]:
    """Return prompts with a list of texts for each class, or each side of a finding."""
    return {
        str(name): {side: _listed(one) for side, one in texts.items()}
        if isinstance(texts, Mapping) and "positive" in texts
        else _listed(texts)
        for name, texts in prompts.items()
    }


def _listed(texts: Any) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)
