"""The series of a study of DICOM files, and the order of their slices.

Only headers are read here. The identifiers of series never appear in a message.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom import count_frames, inflated, read_tags
from sk_medsiglip.images._dicom_grey import GREY_TAGS, modality_of, numbers, own_scale
from sk_medsiglip.images._dicom_pixels import MOSAIC_TAGS

if TYPE_CHECKING:
    from pydicom import Dataset

_TAGS: tuple[Any, ...] = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "BitsStored"),
    *("ConcatenationUID", "ConcatenationFrameOffsetNumber", "NumberOfFrames"),
    *("SeriesInstanceUID", "SeriesNumber", "InstanceNumber"),
    *("ImageOrientationPatient", "ImagePositionPatient"),
    *MOSAIC_TAGS,
    *GREY_TAGS,
)

#: Modalities whose images are slices of a body even without a position.
_CROSS_SECTIONAL = {"CT", "MR", "NM", "PT"}

#: Modalities of objects that accompany images: segmentations, dose, presentation.
_ACCOMPANYING = {"KO", "PR", "REG", "RTDOSE", "SEG"}

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

#: Direction cosines that differ by less mean the same orientation: half a degree.
_SAME_DIRECTION = 0.01

_LISTED = 20

Numbers = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Header:
    """Tags of a DICOM image that give its place in a study."""

    source: Any
    place: int  # among the files as given; decides when nothing else does
    modality: str  # a code of the standard, or "unknown"
    series: str  # identifiers of the series and of the image; never shown
    uid: str
    number: float  # SeriesNumber; infinite if missing
    instance: float  # InstanceNumber, or the first frame of a part of a divided object
    orientation: Numbers | None  # direction cosines, shared by all frames
    position: Numbers | None  # of the first pixel, in mm; None without an orientation
    depths: Numbers  # place of each frame along the normal, or 0
    is_multi_frame: bool
    scales: frozenset[str]  # grey scales of the frames, by the tags of the file
    is_extra: bool  # a localizer or capture, left out if there are other images


@dataclass(frozen=True, eq=False)
class Stack:
    """Images of one series and one orientation: its files, and its slices in order."""

    headers: tuple[Header, ...]
    slices: tuple[tuple[Header, int | None], ...]

    @classmethod
    def of(cls, headers: Iterable[Header]) -> Stack:
        """Sort the frames of files, independently of the names of the files."""
        places = [
            # Echoes and repetitions share a place, up to rounding by a micrometre.
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
        """Modality of the series."""
        return self.headers[0].modality

    @property
    def is_volume(self) -> bool:
        """Whether its images are slices rather than views such as radiographs."""
        return self.headers[0].position is not None or self.modality in _CROSS_SECTIONAL

    @property
    def is_alike(self) -> bool:
        """Whether the tags of the files show all slices on one grey scale."""
        return len(frozenset().union(*(h.scales for h in self.headers))) == 1

    @property
    def plane(self) -> str | None:
        """Nearest anatomical plane, if the orientation is known."""
        orientation = self.headers[0].orientation
        if orientation is None:
            return None
        normal = [abs(value) for value in _normal(orientation)]
        return ("sagittal", "coronal", "axial")[normal.index(max(normal))]


def read_header(
    stream: BinaryIO, source: Any, place: int, max_pixels: int
) -> Header | None:
    """Read the place of an image in a study; None for DICOM files without an image."""
    with decoding("its DICOM tags cannot be read", "Copy or export it again."):
        dataset = read_tags(inflated(stream, max_pixels), *_TAGS)
        if not dataset.get("Rows") or not dataset.get("Columns"):
            return None
        n_frames = count_frames(dataset)
        if n_frames > stream.seek(0, io.SEEK_END):
            raise ImageReadError(
                f"it announces {n_frames} frames, more than it has bytes",
                "Copy or export it again.",
            )
        groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or [])
        orientation, position, depths = _geometry(dataset, groups, n_frames)
        is_part = bool(dataset.get("ConcatenationUID"))
        instance = "ConcatenationFrameOffsetNumber" if is_part else "InstanceNumber"
        return Header(
            source,
            place,
            modality=modality_of(dataset) or "unknown",
            series=str(dataset.get("SeriesInstanceUID") or ""),
            uid=str(dataset.get("SOPInstanceUID") or ""),
            number=_number(dataset, "SeriesNumber"),
            instance=_number(dataset, instance),
            orientation=orientation,
            position=position,
            depths=depths,
            is_multi_frame=n_frames > 1,
            scales=frozenset(
                repr(own_scale(dataset[:] if groups else dataset, index))
                for index in range(min(n_frames, len(groups) or 1))
            ),
            is_extra=_is_extra(dataset),
        )


def stacks_of(headers: Iterable[Header]) -> list[Stack]:
    """Sort images into stacks, ordered by SeriesNumber, then by the first position.

    The names of the files and their order matter only if two headers are equal.
    """
    series: dict[str, list[Header]] = {}
    known: dict[Any, Header] = {}
    for header in headers:
        if known.setdefault(_identity(header), header) is header:
            series.setdefault(header.series, []).append(header)
    stacks = [stack for members in series.values() for stack in _stacks(members)]
    return sorted(stacks, key=lambda stack: _rank(stack.headers[0]))


def choose_stacks(stacks: Sequence[Stack], series: int | None) -> list[Stack]:
    """Return the stacks to embed: one series, or all the views."""
    shown = [s for s in stacks if not s.headers[0].is_extra] or list(stacks)
    if series is not None:
        if series >= len(shown):
            raise ImageReadError(
                f"series={series} was requested, but it holds {len(shown)} series",
                f"Its series: {_listing(shown)}.",
            )
        return [shown[series]]
    if len(shown) > 1 and any(stack.is_volume for stack in shown):
        raise ImageReadError(
            f"it holds {len(shown)} series, but one is needed",
            f"Choose one by its index, series=: {_listing(shown)}.",
        )
    return shown


def _listing(stacks: Sequence[Stack]) -> str:
    texts = []
    for index, stack in enumerate(stacks[:_LISTED]):
        n = len(stack.slices)
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
    """Return a key that copies of one file share.

    Some programs give the same UID to all files, so position and number are part of it.
    """
    if not header.uid or (header.position is None and math.isinf(header.instance)):
        return header.place
    return header.series, header.uid, header.instance, header.position, header.depths


def _belongs(header: Header, first: Header) -> bool:
    if header.is_extra != first.is_extra:
        return False
    if header.orientation is None or first.orientation is None:
        is_alike = header.is_multi_frame == first.is_multi_frame
        return is_alike and header.orientation is first.orientation
    return _is_parallel(header.orientation, first.orientation)


def _rank(header: Header) -> tuple[Any, ...]:
    position = header.position or (math.inf,)
    return header.number, position, header.instance, header.series, header.place


def _geometry(
    dataset: Dataset, groups: Sequence[Dataset], n_frames: int
) -> tuple[Numbers | None, Numbers | None, Numbers]:
    """Return the orientation, the first position, and the depth of each frame.

    Frames without a plane lie in that of the file. Planes are used only if all are
    known and parallel.
    """
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])[:1]
    per_frame = [[group] for group in groups] if len(groups) == n_frames else [[]]
    planes = [_plane(dataset, [*shared, *own]) for own in per_frame]
    first = planes[0]
    if first is None or not all(
        plane is not None and _is_parallel(plane[0], first[0]) for plane in planes
    ):
        return None, None, (0.0,) * n_frames
    normal = _normal(first[0])
    depths = [
        sum(a * b for a, b in zip(normal, plane[1], strict=True))
        for plane in planes
        if plane is not None
    ]
    return *first, tuple(depths * (n_frames // len(depths)))


def _plane(
    dataset: Dataset, groups: Sequence[Dataset]
) -> tuple[Numbers, Numbers] | None:
    """Return orientation and position; functional groups replace those of the file."""
    orientation = _vector(dataset, "ImageOrientationPatient", 6)
    position = _vector(dataset, "ImagePositionPatient", 3)
    for group in groups:
        for item in list(group.get("PlaneOrientationSequence") or [])[:1]:
            orientation = _vector(item, "ImageOrientationPatient", 6)
        for item in list(group.get("PlanePositionSequence") or [])[:1]:
            position = _vector(item, "ImagePositionPatient", 3)
    return None if orientation is None or position is None else (orientation, position)


def _normal(orientation: Numbers) -> Numbers:
    a, b, c, d, e, f = orientation
    return b * f - c * e, c * d - a * f, a * e - b * d


def _is_parallel(one: Numbers, other: Numbers) -> bool:
    return all(abs(a - b) < _SAME_DIRECTION for a, b in zip(one, other, strict=True))


def _is_extra(dataset: Dataset) -> bool:
    kinds = dataset.get("ImageType") or []
    return (
        "LOCALIZER" in ([kinds] if isinstance(kinds, str) else kinds)
        or dataset.get("Modality") in _ACCOMPANYING
        or str(dataset.get("SOPClassUID") or "").startswith(_SECONDARY_CAPTURE)
    )


def _number(dataset: Dataset, name: str) -> float:
    """Return a number of the header, or infinity if it is missing or invalid."""
    found = numbers(dataset, name)
    return found[0] if len(found) == 1 else math.inf


def _vector(dataset: Dataset, name: str, count: int) -> Numbers | None:
    found = numbers(dataset, name)
    return tuple(found) if len(found) == count else None
