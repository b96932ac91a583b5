"""Rows found by a column of the table, or by words, as a page asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.explore._session import ExploreSession


def rows_with_values(session: ExploreSession, name: str, wanted: Any) -> Any:
    """Tell which rows have one of some values, or a number between low and high.

    Values come from a box of text: they are compared as numbers where the column has
    numbers, else as text.
    """
    frame = session.frame
    if frame is None or name not in frame:
        raise ValueError(f"the table has no column {name!r}.")
    column = frame[name]
    if isinstance(wanted, Mapping):
        low, high = wanted.get("low"), wanted.get("high")
        numbers = pd.to_numeric(column, errors="coerce")
        return numbers.between(
            -np.inf if low is None else float(low),
            np.inf if high is None else float(high),
        ).to_numpy(bool)
    listed = [wanted] if isinstance(wanted, str | int | float) else list(wanted)
    if pd.api.types.is_numeric_dtype(column) and column.dtype != bool:
        return column.isin([float(one) for one in listed]).to_numpy(bool)
    return column.astype(str).isin([str(one) for one in listed]).to_numpy(bool)


def rows_with_text(
    session: ExploreSession, captions: list[str], text: str
) -> NDArray[np.bool_]:
    """Tell which rows have a text in the name of their file, or are of that patient.

    ``row:12`` is the row of that number.
    """
    if text.startswith("row:"):
        return np.arange(len(captions)) == int(text.removeprefix("row:"))
    wanted = text.casefold()
    found = np.array([wanted in caption.casefold() for caption in captions])
    if session.groups is not None:
        found |= np.array([str(one).casefold() == wanted for one in session.groups])
    return found
