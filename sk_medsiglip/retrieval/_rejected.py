"""Rows that have no vector: told once, with reasons."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from sk_medsiglip.exceptions import UnreadableImageWarning

_NAMED_IN_WARNING = 5


@dataclass(frozen=True)
class Rejected:
    """One row that was kept out, and why."""

    row: int
    id: Any
    source: Any
    reason: str

    def __str__(self) -> str:
        has_source = self.source is not None and not pd.isna(self.source)
        source = f"{self.source}: " if has_source else ""
        return f"row {self.row}: {source}{self.reason}"


def rejected_table(rejected: list[Rejected]) -> pd.DataFrame:
    """Return them as a table, for ``rejected_``."""
    columns = ["row", "id", "source", "reason"]
    return pd.DataFrame([asdict(one) for one in rejected], columns=columns)


def warn_about_rejected(rejected: list[Rejected], n_rows: int) -> None:
    """Warn once, if there are any."""
    if not rejected:
        return
    shown = [str(one) for one in rejected[:_NAMED_IN_WARNING]]
    if len(rejected) > len(shown):
        shown.append(f"and {len(rejected) - len(shown)} more")
    warnings.warn(
        f"{len(rejected)} of {n_rows} rows are kept out of the index:\n  "
        + "\n  ".join(shown)
        + "\nrejected_ holds them all.",
        UnreadableImageWarning,
        stacklevel=4,
    )
