"""Which DICOM files of a study are one series, and in which order its slices lie.

Of a file only its header is read here. The identifiers that tell series apart stay
inside this module: no message holds them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom import inflated

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Header", "Stack", "choose_stacks", "read_header", "stacks_of"]

_TAGS = [
    "SOPClassUID",
    "ImageType",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]

#: Modalities whose images are slices of a body even where no position is told.
_CROSS_SECTIONAL = {"CT", "MR", "NM", "PT"}

#: What lies beside the images of a study: segmentations, dose, presentation.
_NO_PICTURES = {"KO", "PR", "REG", "RTDOSE", "SEG"}

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

#: Direction cosines that differ by less are one orientation: half a degree.
_SAME_DIRECTION = 0.01

_LISTED = 20


@dataclass(frozen=True, eq=False)
class Header:
    """What a DICOM image says of its place in a study.

    Parameters
    ----------
    source : path, bytes or file object
        The file.
    place : int
        Among the files as given: the last resort of every order.
    modality : str
        A code of the standard, or ``"unknown"``.
    series : str
        Identifier; never shown.
    number, instance : float
        SeriesNumber and InstanceNumber; infinite where missing.
    orientation : tuple of 6 float or None
        Direction cosines of a row and of a column.
    position : tuple of 3 float or None
        Of the first pixel, mm. None unless there is an orientation.
    frames : tuple of int, or None
        Of a multi-frame file, in the order of their positions where these are told.
    is_extra : bool
        A localizer, a capture of the screen, a segmentation: left out where there is
        something else.
    """

    source: Any
    place: int
    modality: str
    series: str
    number: float
    instance: float
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    frames: tuple[int, ...] | None
    is_extra: bool


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one series and one orientation, in order."""

    headers: tuple[Header, ...]

    @property
    def modality(self) -> str:
        """Of the first; a series has one."""
        return self.headers[0].modality

    @property
    def is_volume(self) -> bool:
        """Whether its images are slices, and not views such as radiographs."""
        first = self.headers[0]
        return first.position is not None or first.modality in _CROSS_SECTIONAL

    @property
    def n_slices(self) -> int:
        """Images in it, frames counted."""
        return sum(len(header.frames or (None,)) for header in self.headers)

    @property
    def plane(self) -> str | None:
        """Return the anatomical plane that it is nearest to, if that is told."""
        orientation = self.headers[0].orientation
        if orientation is None:
            return None
        axis = int(np.argmax(np.abs(_normal(orientation))))
        return ("sagittal", "coronal", "axial")[axis]


def read_header(
    stream: BinaryIO, source: Any, place: int, max_pixels: int
) -> Header | None:
    """Read where an image belongs; None for DICOM files that hold no image."""
    pydicom = import_optional("pydicom", extra="dicom", purpose="Reading DICOM files")
    with decoding("its DICOM tags cannot be read", "Copy or export it again."):
        dataset = pydicom.dcmread(
            inflated(stream, max_pixels),
            force=True,
            specific_tags=_TAGS,
            stop_before_pixels=True,
        )
        if not dataset.get("Rows") or not dataset.get("Columns"):
            return None
        modality = str(dataset.get("Modality") or "")
        orientation = _numbers(dataset, "ImageOrientationPatient", 6)
        position = _numbers(dataset, "ImagePositionPatient", 3)
        return Header(
            source,
            place,
            modality if re.fullmatch(r"[A-Z0-9]{2,16}", modality) else "unknown",
            str(dataset.get("SeriesInstanceUID") or ""),
            _number(dataset, "SeriesNumber"),
            _number(dataset, "InstanceNumber"),
            orientation if position else None,
            position if orientation else None,
            _frames(dataset),
            _is_extra(dataset, modality),
        )


def stacks_of(headers: Iterable[Header]) -> list[Stack]:
    """Sort images into stacks, by SeriesNumber, then by where the first image lies.

    Neither the names of the files nor the order in which they are given count, unless
    the headers leave two images without any difference.
    """
    series: dict[str, list[Header]] = {}
    for header in headers:
        series.setdefault(header.series, []).append(header)
    stacks = [stack for members in series.values() for stack in _stacks(members)]
    return sorted(stacks, key=lambda stack: _rank(stack.headers[0]))


def choose_stacks(stacks: Sequence[Stack], series: int | None) -> list[Stack]:
    """Return what is to be embedded: one series, or all the views.

    Raises
    ------
    ImageReadError
        If several series are there and none is asked for, or not the one asked for.
    """
    shown = [s for s in stacks if not s.headers[0].is_extra] or list(stacks)
    if series is not None:
        if series >= len(shown):
            raise ImageReadError(
                f"series={series} is asked for, and it holds {len(shown)} series",
                f"Its series: {_listing(shown)}.",
            )
        return [shown[series]]
    if len(shown) > 1 and any(stack.is_volume for stack in shown):
        raise ImageReadError(
            f"it holds {len(shown)} series, and one is needed",
            f"Say which by series=, an index: {_listing(shown)}.",
        )
    return shown


def _listing(stacks: Sequence[Stack]) -> str:
    texts = []
    for index, stack in enumerate(stacks[:_LISTED]):
        n = stack.n_slices
        texts.append(f"{index} is {stack.modality}, {n} slice{'s' if n > 1 else ''}")
    if len(stacks) > _LISTED:
        texts.append(f"and {len(stacks) - _LISTED} more")
    return "; ".join(texts)


def _stacks(members: list[Header]) -> list[Stack]:
    """Divide one series by orientation; a multi-frame file is a stack of its own."""
    groups: list[list[Header]] = []
    for header in sorted(members, key=_rank):
        home = next((group for group in groups if _belongs(header, group[0])), None)
        if home is None:
            groups.append([header])
        else:
            home.append(header)
    return [Stack(tuple(sorted(group, key=_depth))) for group in groups]


def _belongs(header: Header, first: Header) -> bool:
    if header.frames is not None or first.frames is not None:
        return False
    if header.is_extra != first.is_extra:
        return False
    if header.orientation is None or first.orientation is None:
        return header.orientation is first.orientation
    difference = np.subtract(header.orientation, first.orientation)
    return bool(np.abs(difference).max() < _SAME_DIRECTION)


def _rank(header: Header) -> tuple[Any, ...]:
    return (
        header.number,
        header.position or (math.inf,),
        header.instance,
        header.series,
        header.place,
    )


def _depth(header: Header) -> tuple[float, float, int]:
    """Return the place along the normal of the slices, which no renaming changes."""
    depth = 0.0
    if header.orientation is not None and header.position is not None:
        depth = float(_normal(header.orientation) @ np.array(header.position))
    # Echoes and repetitions lie at one place; a micrometre is rounding.
    return round(depth, 3), header.instance, header.place


def _normal(orientation: tuple[float, ...]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


def _frames(dataset: Dataset) -> tuple[int, ...] | None:
    n_frames = _number(dataset, "NumberOfFrames")
    if not 1 < n_frames < math.inf:
        return None
    order = list(range(int(n_frames)))
    depths = _frame_depths(dataset)
    if len(depths) == len(order) and None not in depths:
        order.sort(key=lambda frame: (depths[frame], frame))
    return tuple(order)


def _frame_depths(dataset: Dataset) -> list[float | None]:
    """Return the place of each frame along the normal that all of them share."""
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    depths: list[float | None] = []
    first: tuple[float, ...] | None = None
    for group in dataset.get("PerFrameFunctionalGroupsSequence") or []:
        directions = positions = None
        for holder in [*shared, group]:
            for item in list(holder.get("PlaneOrientationSequence") or [])[:1]:
                directions = _numbers(item, "ImageOrientationPatient", 6)
            for item in list(holder.get("PlanePositionSequence") or [])[:1]:
                positions = _numbers(item, "ImagePositionPatient", 3)
        first = first or directions
        if directions is None or positions is None or first is None:
            depths.append(None)
        elif np.abs(np.subtract(directions, first)).max() >= _SAME_DIRECTION:
            depths.append(None)
        else:
            depths.append(round(float(_normal(first) @ np.array(positions)), 3))
    return depths


def _is_extra(dataset: Dataset, modality: str) -> bool:
    kinds = dataset.get("ImageType") or []
    names = [kinds] if isinstance(kinds, str) else [str(kind) for kind in kinds]
    return (
        "LOCALIZER" in names
        or modality in _NO_PICTURES
        or str(dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
    )


def _number(dataset: Dataset, name: str) -> float:
    """Return a number of the header, infinite where there is no usable one."""
    try:
        number = float(dataset.get(name))
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return number if math.isfinite(number) else math.inf


def _numbers(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(value) for value in dataset.get(name) or ())
    except (TypeError, ValueError, OverflowError):
        return None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        return None
    return numbers
