"""Frames of one DICOM file as slices: its tags are read once, not once a frame.

An enhanced file of 300 frames says something of each of them before the pixels start;
reading all of that for each frame would be most of the work.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom import decode_dicom, open_dicom
from sk_medsiglip.images._dicom_pixels import PixelElement
from sk_medsiglip.images._held import Held
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._picture import Picture
from sk_medsiglip.images._sources import describe, open_source

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["DicomFrame", "DicomTags"]


@dataclass(frozen=True, eq=False)
class _Read:
    """The tags of a file, and where its pixels are."""

    dataset: Dataset
    element: PixelElement
    offset: int
    inflated: bytes | None


class DicomTags(Held[_Read]):
    """The tags of one multi-frame file, shared by its frames.

    Parameters
    ----------
    source : path, bytes or file object
        The file.
    max_pixels : int
        Larger frames are refused.
    """

    def __init__(self, source: Any, max_pixels: int) -> None:
        super().__init__()
        self.source = source
        self._max_pixels = max_pixels

    def picture(self, index: int) -> Picture:
        """Return one frame."""
        read = self.content()
        # The tags of a frame are written over those of the file: in a copy.
        own = read.dataset[:]
        own.file_meta = read.dataset.file_meta
        with self._pixels(read) as stream:
            stream.seek(read.offset)
            return decode_dicom(own, replace(read.element, stream=stream), index)

    def _load(self) -> _Read:
        with open_source(self.source) as stream:
            dataset, element = open_dicom(stream, max_pixels=self._max_pixels)
            with decoding("its DICOM tags cannot be read", "Copy or export it again."):
                # Each element is parsed when it is first looked at: now, and not in
                # the copy of every frame.
                for _ in dataset:
                    continue
            offset = element.stream.tell()
            inflated = None
            if isinstance(element.stream, io.BytesIO):
                inflated = element.stream.getvalue()
        return _Read(dataset, element, offset, inflated)

    @contextmanager
    def _pixels(self, read: _Read) -> Iterator[BinaryIO]:
        """Give a stream of the reader's own: frames are read by several threads."""
        if read.inflated is not None:
            yield io.BytesIO(read.inflated)
            return
        with open_source(self.source) as stream:
            yield stream


@dataclass(frozen=True, eq=False)
class DicomFrame(LazyImage):
    """One frame of a file."""

    tags: DicomTags
    index: int

    def load(self, *, frame: int | str | None, max_pixels: int) -> Picture:
        """Decode it; the tags are read if they are not in memory."""
        return self.tags.picture(self.index)

    def describe(self) -> str:
        """Return the file and the frame."""
        return f"{describe(self.tags.source)}, frame {self.index}"
