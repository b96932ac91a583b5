"""One slice of a series: its own pixels, the grey limits of the whole series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._arrays import meaning_of_values
from sk_medsiglip.images._grey_range import GreyRange
from sk_medsiglip.images._intensity import CTWindows, Percentiles
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._picture import Picture
from sk_medsiglip.images._read import load_picture
from sk_medsiglip.images._sources import describe

__all__ = ["SeriesSlice", "series_of"]


@dataclass(frozen=True, eq=False)
class SeriesSlice(LazyImage):
    """A file, a frame of one, or a plane of an array, as part of a series.

    Parameters
    ----------
    source : path, bytes, file object or array
        What it is read from.
    frame : int or None
        Which frame of a multi-frame file.
    name : str
        How messages name it.
    grey_range : GreyRange
        Of the series.
    is_alike : bool
        Whether the DICOM files' own tags show all of its slices on one scale.
    """

    source: Any
    frame: int | None
    name: str
    grey_range: GreyRange
    is_alike: bool

    def load(self, *, frame: int | str | None, max_pixels: int) -> Picture:
        """Decode it; ``frame`` has no meaning here, since a slice is one already."""
        picture = load_picture(self.source, frame=self.frame, max_pixels=max_pixels)
        auto = picture.auto
        is_judged = auto is not None and picture.format != "DICOM"
        if is_judged and np.isfinite(picture.values).all():
            # What values mean is judged by the range of the series, or a slice whose
            # values happen to be small would be brighter than its neighbours.
            extremes = np.array(self.grey_range.extremes(), picture.values.dtype)
            auto = meaning_of_values(extremes)
        is_grey = picture.values.ndim == 2 and picture.format == "DICOM"
        if is_grey and not self.is_alike and not isinstance(auto, CTWindows):
            # A window a slice would make the same value another grey in each.
            auto = Percentiles()
        return replace(picture, auto=auto, limits=self.grey_range.limits)

    def describe(self) -> str:
        """Return its file and frame, or its place in the array."""
        return self.name


def series_of(
    parts: Sequence[tuple[Any, int | None]], max_pixels: int, *, is_alike: bool = True
) -> list[Any]:
    """Return sources that belong together as slices; a single one as it is.

    Parameters
    ----------
    parts : sequence of (source, frame)
        In their order.
    max_pixels : int
        Limit for the slices that are decoded for the grey range only.
    is_alike : bool, default=True
        Whether the DICOM files' own tags show all of them on one scale.
    """
    if len(parts) == 1 and parts[0][1] is None:
        return [parts[0][0]]

    def pictures() -> Iterator[Picture]:
        for source, frame in parts:
            try:
                yield load_picture(source, frame=frame, max_pixels=max_pixels)
            except ImageReadError:
                # Left out here; when its own turn comes, it says what is wrong.
                continue

    grey_range = GreyRange(pictures)
    return [
        SeriesSlice(source, frame, _name(source, frame, place), grey_range, is_alike)
        for place, (source, frame) in enumerate(parts)
    ]


def _name(source: Any, frame: int | None, place: int) -> str:
    if isinstance(source, np.ndarray):
        return f"slice {place}, {describe(source)}"
    return describe(source) if frame is None else f"{describe(source)}, frame {frame}"
