"""Colours of the map: of scores and numbers, and of categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

#: Places in every palette: the background, rows without a value, edges of labelled
#: rows, and rings around selected ones.
BACKGROUND, UNKNOWN, INK, RING = range(4)
_FIRST = 4
_FIXED = ("#ffffff", "#b8bcc0", "#1f2328", "#e4007c")
#: Colours for colour-blind readers, from Okabe and Ito's "Color Universal Design"
#: (2008), without yellow, which is too pale on white; the last is for all others.
_CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_OTHERS = "#57606a"
#: Nine colours of viridis from its middle greens to its dark end. Its yellows are too
#: pale on white, and high scores should stand out.
_SCALE = (
    *("#7ad151", "#44bf70", "#22a884", "#21918c", "#2a788e"),
    *("#355f8d", "#414487", "#482475", "#440154"),
)
_N_SHADES = 252  # with the fixed colours, all that a palette can hold
_OUTER = (2, 98)  # percentiles that the ends of the scale stand for
_IN_LEGEND = 5


@dataclass(frozen=True, eq=False)
class Colouring:
    """The place of each row's colour in a palette, and a legend in words."""

    codes: NDArray[np.uint8]
    palette: tuple[str, ...]
    legend: list[dict[str, str]]


def colour_numbers(values: ArrayLike) -> Colouring:
    """Colour numbers from pale to dark; NaN is grey."""
    given = np.asarray(values, dtype=np.float64)
    codes = np.full(len(given), UNKNOWN, dtype=np.uint8)
    shades = _shades()
    known = np.isfinite(given)
    if not known.any():
        return Colouring(codes, (*_FIXED, *shades), [])
    low, high = np.percentile(given[known], _OUTER)
    span = (high - low) or 1.0
    place = np.clip((given[known] - low) / span, 0, 1) * (_N_SHADES - 1)
    codes[known] = _FIRST + place.astype(np.uint8)
    legend = []
    for share in np.linspace(0, 1, _IN_LEGEND):
        text = f"{low + share * span:.3g}"
        text += {0: " or less", 1: " or more"}.get(share, "")
        colour = shades[int(share * (_N_SHADES - 1))]
        legend.append({"colour": colour, "text": text})
    return Colouring(codes, (*_FIXED, *shades), legend)


def colour_categories(values: Any, order: list[Any] | None = None) -> Colouring:
    """Colour words: those in ``order``, else the most common; the rest share one."""
    given = pd.Series(np.asarray(values, dtype=object))
    words = list(given.value_counts().index) if order is None else order
    shown = words[: len(_CATEGORIES)]
    palette = (*_FIXED, *_CATEGORIES[: len(shown)], _OTHERS)
    places = {word: _FIRST + place for place, word in enumerate(shown)}
    found = given.map(places)
    others = _FIRST + len(shown)
    codes = found.fillna(others).to_numpy(np.uint8)
    codes[given.isna().to_numpy()] = UNKNOWN
    legend = [
        {"colour": palette[place], "text": str(word)} for word, place in places.items()
    ]
    if (codes == others).any():
        legend.append({"colour": _OTHERS, "text": "other"})
    if (codes == UNKNOWN).any():
        legend.append({"colour": _FIXED[UNKNOWN], "text": "none"})
    return Colouring(codes, palette, legend)


def _shades() -> tuple[str, ...]:
    """Return the scale in as many steps as a palette holds."""
    ends = np.array([_rgb(colour) for colour in _SCALE], dtype=np.float64)
    at = np.linspace(0, len(ends) - 1, _N_SHADES)
    steps = [np.interp(at, np.arange(len(ends)), ends[:, part]) for part in range(3)]
    return tuple(
        f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.column_stack(steps).astype(int)
    )


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def palette_bytes(palette: tuple[str, ...]) -> bytes:
    """Return a palette as red, green and blue bytes, as Pillow takes it."""
    return b"".join(bytes(_rgb(colour)) for colour in palette)
