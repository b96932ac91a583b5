"""Comparison of the groups, such as patients, of two tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._splits import BLANKS, one_column


@dataclass(frozen=True)
class SharedGroups:
    """Groups that two tables share, according to their ids.

    ``doubtful`` ids differ only in leading zeros, capitals or spaces. ``n_blank``
    counts samples without an id, or with a float too large to be exact. ``is_alike`` is
    False if the ids of one table are all numbers and those of the other are not.
    """

    shared: list[Any]
    doubtful: list[tuple[Any, Any]]
    n_blank: int
    is_alike: bool

    def doubts(self, here: str, there: str, *, name_ids: bool = True) -> list[str]:
        """Return sentences about groups that may also be shared, if any."""
        sentences = []
        if self.doubtful:
            pair = ", such as {!r} and {!r}".format(*self.doubtful[0])
            sentences.append(
                f"{len(self.doubtful):,} patients of {here} may be in {there}: the ids "
                f"differ only in leading zeros, capitals or spaces{pair * name_ids}."
            )
        if self.n_blank:
            sentences.append(
                f"{self.n_blank:,} of the images of {here} and {there} have no patient "
                "id to compare, or a float too large to be exact."
            )
        if not self.is_alike:
            sentences.append(
                f"patients of {here} and {there} could not be compared: the ids of one "
                "are numbers, those of the other are not."
            )
        return sentences


def shared_groups(groups: ArrayLike, others: ArrayLike) -> SharedGroups:
    """Compare the groups of two tables by the text of their ids, not by their types.

    7, 7.0, "7" and "7.0" are the same id. Blanks, which turn a column of numbers into
    floats, are ignored and counted.
    """
    sides, n_blank = [], 0
    for given in map(one_column, (groups, others)):
        written = written_ids(given)
        blank = written == "nan"
        if given.dtype.kind == "f":
            blank |= np.abs(np.nan_to_num(given)) > 2 / np.finfo(given.dtype).eps
        n_blank += int(blank.sum())
        sides.append(dict(zip(written[~blank], given[~blank].tolist(), strict=True)))
    here, there = sides
    left = {_loosely(one): one for one in there if one not in here}
    doubtful = [
        (here[one], there[left[_loosely(one)]])
        for one in here
        if one not in there and _loosely(one) in left
    ]
    kinds = [{bool(re.fullmatch(r"[\d.+-]+", one)) for one in side} for side in sides]
    is_alike = bool(kinds[0] & kinds[1]) or not all(kinds)
    shared = [here[one] for one in here if one in there]
    return SharedGroups(shared, doubtful, n_blank, is_alike)


def written_ids(groups: ArrayLike) -> NDArray[np.object_]:
    """Return ids as texts, with integers without decimals and blanks as "nan"."""
    given = one_column(groups)
    if given.dtype.kind in "iu":
        return given.astype(str).astype(object)
    codes, ids = pd.factorize(given.astype(object))
    return np.array([*map(_written, ids), "nan"], dtype=object)[codes]


def _written(value: Any) -> str:
    """Return an id as text."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    text = re.sub(r"^([+-]?\d+)\.0*$", r"\1", text.strip())
    return "nan" if text.casefold() in BLANKS else text


def _loosely(text: str) -> str:
    """Return a text without leading zeros, capitals and spaces."""
    return re.sub(r"(?<![\d.])0+(?=\d)|\s", "", text.casefold())
