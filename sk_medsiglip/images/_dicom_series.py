"""Which DICOM files of a study are one series, and in which order its slices lie.

Of a file only its header is read here. The identifiers that tell series apart stay
inside this module: no message holds them.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom import count_frames, inflated, tags_of
from sk_medsiglip.images._dicom_grey import GREY_TAGS, own_scale
from sk_medsiglip.images._dicom_mosaic import MOSAIC_TAGS

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["Header", "Stack", "choose_stacks", "read_header", "stacks_of"]

_TAGS: list[Any] = [
    "SOPClassUID",
    "SOPInstanceUID",
    "ConcatenationUID",
    "ConcatenationFrameOffsetNumber",
    "Modality",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "NumberOfFrames",
    "Rows",
    "Columns",
    *MOSAIC_TAGS,
    "BitsStored",
    *GREY_TAGS,
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
    series, uid : str
        Identifiers of the series and of the image; never shown.
    number, instance : float
        SeriesNumber and InstanceNumber; infinite where missing. The parts of one
        object that was divided count by their first frame.
    orientation : tuple of 6 float or None
        Direction cosines of a row and of a column, which all frames share.
    position : tuple of 3 float or None
        Of the first pixel, mm. None unless there is an orientation.
    depths : tuple of float
        Place of each frame along the normal; 0 where that is not told.
    is_multi_frame : bool
        Whether it is to be read frame by frame.
    scales : frozenset
        How the file's own tags show its frames; one element if all alike.
    is_extra : bool
        A localizer, a capture of the screen, a segmentation: left out where there is
        something else.
    """

    source: Any
    place: int
    modality: str
    series: str
    uid: str
    number: float
    instance: float
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    depths: tuple[float, ...]
    is_multi_frame: bool
    scales: frozenset[str]
    is_extra: bool


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one series and one orientation.

    Parameters
    ----------
    headers : tuple of Header
        Its files.
    slices : tuple of (Header, int or None)
        Each file, or each frame of one, in order.
    """

    headers: tuple[Header, ...]
    slices: tuple[tuple[Header, int | None], ...]

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Stack:
        """Put the frames of files in order, which no renaming changes."""
        places = [
            # Echoes and repetitions lie at one place; a micrometre is rounding.
            (round(depth, 3), header.instance, header.place, frame, header)
            for header in headers
            for frame, depth in enumerate(header.depths)
        ]
        places.sort(key=lambda place: place[:4])
        slices = tuple(
            (header, frame if header.is_multi_frame else None)
            for *_, frame, header in places
        )
        return cls(tuple(dict.fromkeys(header for header, _ in slices)), slices)

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
        return len(self.slices)

    @property
    def is_alike(self) -> bool:
        """Whether the files' own tags show all slices on one scale."""
        return len(frozenset().union(*(h.scales for h in self.headers))) == 1

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
            specific_tags=tags_of(*_TAGS),
            stop_before_pixels=True,
        )
        if not dataset.get("Rows") or not dataset.get("Columns"):
            return None
        modality = str(dataset.get("Modality") or "")
        n_frames = count_frames(dataset)
        n_bytes = stream.seek(0, io.SEEK_END)
        if n_frames > n_bytes:
            raise ImageReadError(
                f"it announces {n_frames} frames, more than it has bytes",
                "Copy or export it again.",
            )
        groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
        planes = _planes(dataset, groups, n_frames)
        first = planes[0] if planes else None
        is_part = bool(dataset.get("ConcatenationUID"))
        offset = _number(dataset, "ConcatenationFrameOffsetNumber")
        return Header(
            source,
            place,
            modality if re.fullmatch(r"[A-Z0-9]{2,16}", modality) else "unknown",
            str(dataset.get("SeriesInstanceUID") or ""),
            str(dataset.get("SOPInstanceUID") or ""),
            _number(dataset, "SeriesNumber"),
            offset if is_part else _number(dataset, "InstanceNumber"),
            first.orientation if first else None,
            first.position if first else None,
            tuple(plane.depth for plane in planes) or (0.0,) * n_frames,
            n_frames > 1,
            frozenset(
                repr(own_scale(dataset[:] if groups else dataset, index))
                for index in range(min(n_frames, len(groups) or 1))
            ),
            _is_extra(dataset, modality),
        )


def stacks_of(headers: Iterable[Header]) -> list[Stack]:
    """Sort images into stacks, by SeriesNumber, then by where the first image lies.

    Neither the names of the files nor the order in which they are given count, unless
    the headers leave two images without any difference.
    """
    series: dict[str, list[Header]] = {}
    known: dict[Any, Header] = {}
    for header in headers:
        if known.setdefault(_identity(header), header) is not header:
            continue
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
    """Divide one series by orientation."""
    groups: list[list[Header]] = []
    for header in sorted(members, key=_rank):
        home = next((group for group in groups if _belongs(header, group[0])), None)
        if home is None:
            groups.append([header])
        else:
            home.append(header)
    return [Stack.of(group) for group in groups]


def _identity(header: Header) -> Any:
    """Return what copies of one file share; some programs give one UID to all files."""
    if not header.uid or (header.position is None and math.isinf(header.instance)):
        return header.place
    return header.series, header.uid, header.instance, header.position, header.depths


def _belongs(header: Header, first: Header) -> bool:
    if header.is_extra != first.is_extra:
        return False
    if header.orientation is None or first.orientation is None:
        is_alike = header.is_multi_frame == first.is_multi_frame
        return is_alike and header.orientation is first.orientation
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


def _normal(orientation: tuple[float, ...]) -> np.ndarray:
    return np.cross(orientation[:3], orientation[3:])


@dataclass(frozen=True)
class _Plane:
    """Where one frame lies; its depth is that along the normal of the first."""

    orientation: tuple[float, ...]
    position: tuple[float, ...]
    depth: float


def _planes(dataset: Dataset, groups: Sequence[Dataset], n_frames: int) -> list[_Plane]:
    """Return the plane of each frame; none at all unless all are told and parallel.

    Where nothing is said frame by frame, all of them lie in that of the file.
    """
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    per_frame = groups if len(groups) == n_frames else [None]
    planes: list[_Plane] = []
    for group in per_frame:
        orientation = _numbers(dataset, "ImageOrientationPatient", 6)
        position = _numbers(dataset, "ImagePositionPatient", 3)
        for holder in [*shared, *([] if group is None else [group])]:
            for item in list(holder.get("PlaneOrientationSequence") or [])[:1]:
                orientation = _numbers(item, "ImageOrientationPatient", 6)
            for item in list(holder.get("PlanePositionSequence") or [])[:1]:
                position = _numbers(item, "ImagePositionPatient", 3)
        if orientation is None or position is None:
            return []
        if not planes:
            first, normal = orientation, _normal(orientation)
        elif np.abs(np.subtract(orientation, first)).max() >= _SAME_DIRECTION:
            return []
        depth = float(normal @ np.array(position))
        planes.append(_Plane(orientation, position, depth))
    return planes if len(planes) == n_frames else planes * n_frames


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
