"""Colours of the map: of scores and numbers, and of categories."""

from __future__ import annotations

from collections.abc import Sequence
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


def colour_categories(values: pd.Series) -> Colouring:
    """Colour the most common values of a column; the rest share a colour."""
    places, words = pd.factorize(values)
    n_each = np.bincount(places[places >= 0], minlength=len(words))
    order = np.argsort(-n_each, kind="stable")
    ranks = np.append(np.argsort(order), -1)  # the last is for blanks
    return colour_words(ranks[places], [words[place] for place in order])


def colour_words(places: NDArray[np.integer], words: Sequence[Any]) -> Colouring:
    """Colour rows by their places among words, -1 for none; later words share one."""
    n_shown = min(len(words), len(_CATEGORIES))
    palette = (*_FIXED, *_CATEGORIES[:n_shown], _OTHERS)
    codes = (_FIRST + np.minimum(places, n_shown)).astype(np.uint8)
    codes[places < 0] = UNKNOWN
    counts = np.bincount(codes, minlength=len(palette))
    named = [*enumerate(map(str, words[:n_shown]), _FIRST)]
    named += [(_FIRST + n_shown, "other")] if counts[_FIRST + n_shown] else []
    named += [(UNKNOWN, "none")] if counts[UNKNOWN] else []
    legend = [{"colour": palette[place], "text": text} for place, text in named]
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
