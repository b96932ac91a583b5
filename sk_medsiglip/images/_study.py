"""One study of any kind, as slices in order."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoded_image import DecodedImage
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom import DicomTags
from sk_medsiglip.images._dicom_series import (
    Header,
    Stack,
    choose_stacks,
    read_header,
    stacks_of,
)
from sk_medsiglip.images._grey_range import series_of
from sk_medsiglip.images._kinds import DICOM, NIFTI, PACKED_DICOM, kind_of
from sk_medsiglip.images._lazy import Part
from sk_medsiglip.images._nifti import NiftiVolume
from sk_medsiglip.images._read import as_array
from sk_medsiglip.images._sources import (
    alone_with,
    describe,
    folder_path,
    is_readable_stream,
    list_files,
    naming,
    open_source,
)
from sk_medsiglip.images._tiles import count_directories

#: Suffixes of DICOM images, so that a damaged copy is reported rather than skipped.
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")


@dataclass(frozen=True, eq=False)
class Study:
    """Slices of a study in order, a few bytes each until they are read."""

    slices: list[Any]  # sources for ``read_image``
    damaged: list[Any] = field(default_factory=list)  # files without a readable header
    volumes: list[NiftiVolume] = field(default_factory=list)  # that slices belong to

    def take(self, n_slices: int | None) -> list[Any]:
        """Return evenly spaced slices with the first and the last, or the middle one.

        Damaged files come last, so that reading them raises their error.
        """
        n = len(self.slices)
        if n_slices is None or n <= n_slices:
            return [*self.slices, *self.damaged]
        if n_slices == 1:
            return [self.slices[n // 2], *self.damaged]
        places = np.rint(np.linspace(0, n - 1, n_slices)).astype(int)
        return [*(self.slices[place] for place in places), *self.damaged]


class StudyParts(NamedTuple):
    """Sources of a study: the files of a folder, the images of a list, or the item."""

    kind: Literal["folder", "list", "item"]
    sources: list[Any]


def study_parts(item: Any) -> StudyParts:
    """Return the sources of a study, without opening a file.

    Raises
    ------
    ImageReadError
        If a folder cannot be listed.
    """
    folder = folder_path(item)
    if folder is not None:
        with naming(item):
            return StudyParts("folder", list_files(folder))
    items = _items(item)
    return StudyParts("item", [item]) if items is None else StudyParts("list", items)


def _items(item: Any) -> list[Any] | None:
    """Return the images of a study that is a collection of them, else None."""
    is_array = isinstance(item, np.ndarray)
    if is_array and item.dtype.kind in "OU" and item.ndim == 1:
        return list(item)
    return list(item) if isinstance(item, list | tuple | pd.Series) else None


def open_study(
    item: Any,
    parts: StudyParts,
    *,
    plane: str,
    series: int | None,
    max_pixels: int,
) -> Study:
    """Find the slices of one study and their order; pixels are not decoded.

    Parameters
    ----------
    item : folder, file, list of images, array or image
        See ``MedSigLIPVolumeEmbedder.transform``.
    parts : StudyParts
        From :func:`study_parts`.
    plane, series, max_pixels
        See :func:`~sk_medsiglip.images.read_study`.

    Raises
    ------
    ImageReadError
        If it holds no image, or several series and ``series`` is None.
    """
    opening = _Opening(plane, series, max_pixels)
    try:
        study = opening.open(item, parts)
        if not study.slices and not study.damaged:
            raise ImageReadError("it holds no image", "Remove it from X.")
        return study
    except ImageReadError as error:
        if not error.source:
            items = _items(item)
            kind = type(item).__name__
            error.source = (
                describe(item) if items is None else f"{kind} of {len(items)} images"
            )
        raise


@dataclass(frozen=True)
class _Opening:
    """Open studies with these options."""

    plane: str
    series: int | None
    max_pixels: int

    def open(self, item: Any, parts: StudyParts) -> Study:
        if parts.kind == "list":
            return self._open_list(parts.sources)
        if parts.kind == "folder":
            return self._open_folder(parts.sources)
        if is_readable_stream(item):
            return self._open_file(item)
        return self._open_values(item)

    def _open_folder(self, files: Sequence[str]) -> Study:
        headers: list[Header] = []
        volumes: list[str] = []
        images: list[tuple[str, str]] = []
        damaged: list[Any] = []
        for place, path in enumerate(files):
            has_dicom_name = path.lower().removesuffix(".gz").endswith(_DICOM_SUFFIXES)
            try:
                kind, header = self._look_at(path, place)
            except ImageReadError as error:
                # An empty file is not a lost image, unless its name says so.
                if error.reason != "the file is empty" or has_dicom_name:
                    damaged.append(path)
                continue
            if header is not None:
                headers.append(header)
            elif kind == NIFTI:
                volumes.append(path)
            elif kind == PACKED_DICOM or (kind is None and has_dicom_name):
                damaged.append(path)
            elif kind not in (None, DICOM):
                images.append((path, str(kind)))
        # Other images beside the DICOM files of an export are icons of a viewer.
        if headers:
            slices = self._slices_of(choose_stacks(stacks_of(headers), self.series))
            return Study(slices, damaged)
        if volumes:
            return self._one_volume(volumes, damaged)
        parts = [part for path, kind in images for part in _frames(path, kind)]
        return self._one_series(parts, damaged) if parts else Study([], damaged)

    def _look_at(self, item: Any, place: int) -> tuple[str | None, Header | None]:
        """Return the kind of a file, and the header of a DICOM image."""
        with open_source(item) as stream:
            kind = kind_of(stream)
            if kind != DICOM:
                return kind, None
            return kind, read_header(stream, item, place, self.max_pixels)

    def _open_list(self, items: Sequence[Any]) -> Study:
        """Keep the order of the list, except for the slices of one series."""
        studies: dict[int, Study] = {}
        headers: list[Header] = []
        for place, item in enumerate(items):
            header = self._header_of(item, place)
            if header is None:
                studies[place] = self._open_item(item)
            else:
                headers.append(header)
        stacks = stacks_of(headers)
        if self.series is not None and headers:
            stacks = choose_stacks(stacks, self.series)
        for stack in stacks:
            slices = iter(self._slices_of([stack]))
            for header in sorted(stack.headers, key=lambda header: header.place):
                studies[header.place] = Study([next(slices) for _ in header.depths])
        found = [studies[place] for place in sorted(studies)]
        return Study(
            [source for study in found for source in study.slices],
            volumes=[volume for study in found for volume in study.volumes],
        )

    def _open_item(self, item: Any) -> Study:
        if folder_path(item) is not None or _items(item) is not None:
            return Study([item])  # reading it raises an error that names it
        try:
            return replace(self, series=None).open(item, StudyParts("item", [item]))
        except ImageReadError as error:
            return Study([_unreadable(item, error)])

    def _open_file(self, item: Any) -> Study:
        if _is_url(item):
            return Study([item])
        kind, header = self._look_at(item, 0)
        if kind == NIFTI:
            return self._one_volume([item], [])
        if header is not None:
            stacks = choose_stacks(stacks_of([header]), self.series)
            return Study(self._slices_of(stacks))
        is_image = kind not in (None, DICOM, PACKED_DICOM)
        return self._one_series(
            _frames(item, str(kind)) if is_image else [(item, None)]
        )

    def _open_values(self, item: Any) -> Study:
        """Open an array or an image in memory, or a part of something bigger."""
        has_values = hasattr(item, "__array__") and not np.isscalar(item)
        if not has_values or isinstance(item, Image.Image):
            return Study([item])
        with alone_with(item):
            values = as_array(item)
        if not _is_volume(values):
            return Study([item])
        return self._one_series([(part, None) for part in values])

    def _one_volume(self, paths: Sequence[Any], damaged: Sequence[Any]) -> Study:
        index = self.series
        if index is None and len(paths) > 1:
            raise ImageReadError(
                f"it holds {len(paths)} NIfTI files, but one is needed",
                "Choose one by series=, its index in the order of their names, or pass "
                "the file itself.",
            )
        if (index or 0) >= len(paths):
            raise ImageReadError(
                f"series={index} was requested, but it holds {len(paths)} NIfTI files",
                f"Use an index below {len(paths)}.",
            )
        volume = NiftiVolume(paths[index or 0], self.plane)
        return Study(volume.slices(), [*damaged], [volume])

    def _one_series(
        self, parts: Sequence[tuple[Any, int | None]], damaged: Sequence[Any] = ()
    ) -> Study:
        """Return images, or planes of an array, whose axes are unknown."""
        if self.plane != "axial" and len(parts) > 1:
            raise ImageReadError(
                f'plane="{self.plane}" was requested, but its axes are unknown',
                "Only NIfTI volumes can be cut in any plane: transpose the array "
                "instead.",
            )
        if self.series:
            raise ImageReadError(
                f"series={self.series} was requested, but it is not a DICOM series",
                "Leave series out for it.",
            )
        return Study(series_of(parts, self.max_pixels), [*damaged])

    def _slices_of(self, stacks: Sequence[Stack]) -> list[Any]:
        slices: list[Any] = []
        for stack in stacks:
            tags = {
                header: DicomTags(header.source, self.max_pixels)
                for header in stack.headers
                if header.is_multi_frame
            }
            sources = [
                header.source if frame is None else tags[header].frame(frame)
                for header, frame in stack.slices
            ]
            if stack.is_volume or tags:
                self._check_acquired_plane(stack)
                parts = [(source, None) for source in sources]
                slices += series_of(parts, self.max_pixels, is_alike=stack.is_alike)
            else:
                slices += sources
        return slices

    def _check_acquired_plane(self, stack: Stack) -> None:
        acquired = stack.plane
        if self.plane != "axial" and acquired not in (None, self.plane):
            raise ImageReadError(
                f'plane="{self.plane}" was requested, but its slices are {acquired}',
                "DICOM slices are shown as acquired: leave plane out, or convert the "
                "series to NIfTI.",
            )

    def _header_of(self, item: Any, place: int) -> Header | None:
        """Return the header of an item of a list if it is a DICOM image, else None."""
        if not is_readable_stream(item) or _is_url(item) or folder_path(item):
            return None
        try:
            return self._look_at(item, place)[1]
        except ImageReadError:
            return None  # reading it raises the same error, with its place in the list


def _unreadable(item: Any, error: ImageReadError) -> Part:
    """Return an image of a list that raises the error only when it is read."""

    def read(max_pixels: int) -> DecodedImage:
        raise ImageReadError(error.reason, error.hint)

    return Part(describe(item), read)


def _is_url(item: Any) -> bool:
    """Whether an item is remote, and so taken as one image without being opened."""
    return isinstance(item, str) and "://" in item


def _is_volume(values: NDArray[Any]) -> bool:
    """Whether an array holds slices rather than one image with colours as last axis."""
    if values.ndim == 4:
        return values.shape[3] in (1, 3, 4)
    return values.ndim == 3 and values.shape[2] not in (1, 3, 4)


def _frames(source: Any, format: str) -> list[tuple[Any, int | None]]:
    """Return the frames of an image file that is not DICOM."""
    if format in ("JPEG", "BMP"):  # phones append previews to a JPEG
        return [(source, None)]
    try:
        with (
            open_source(source) as stream,
            decoding("its frames cannot be counted", "Copy it again."),
            Image.open(stream, formats=[format]) as image,
        ):
            n_frames = (
                count_directories(stream)
                if format == "TIFF"
                else getattr(image, "n_frames", 1)
            )
            n_bytes = stream.seek(0, io.SEEK_END)
    except ImageReadError:
        return [(source, None)]  # reading it raises the error
    if n_frames > n_bytes:
        raise ImageReadError(
            f"it announces {n_frames} frames, more than it has bytes", "Copy it again."
        )
    if n_frames == 1:
        return [(source, None)]
    return [(source, frame) for frame in range(n_frames)]
