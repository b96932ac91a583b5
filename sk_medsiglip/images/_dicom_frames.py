"""Frames of one DICOM file as slices, whose tags are read once.

The header of an enhanced file describes all of its frames; reading it again for each
frame would be most of the work.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom import decode_dicom, open_dicom
from sk_medsiglip.images._dicom_pixels import PixelElement
from sk_medsiglip.images._lazy import Held, LazyImage
from sk_medsiglip.images._picture import Picture
from sk_medsiglip.images._sources import describe, open_source

if TYPE_CHECKING:
    from pydicom import Dataset


class _Tags(NamedTuple):
    """The tags of a file, and where its pixels are."""

    dataset: Dataset
    element: PixelElement
    offset: int
    source: Any  # the file, or its inflated content


class DicomTags(Held[_Tags]):
    """The tags of one multi-frame file, shared by its frames."""

    def __init__(self, source: Any, max_pixels: int) -> None:
        super().__init__()
        self.source = source
        self._max_pixels = max_pixels

    def picture(self, index: int) -> Picture:
        """Return one frame."""
        tags = self.content()
        # The tags of a frame are written over those of the file: in a copy.
        own = tags.dataset[:]
        own.file_meta = tags.dataset.file_meta
        # Frames are read by several threads: each opens the file itself.
        with open_source(tags.source) as stream:
            stream.seek(tags.offset)
            return decode_dicom(own, replace(tags.element, stream=stream), index)

    def _load(self) -> _Tags:
        with open_source(self.source) as stream:
            dataset, element = open_dicom(stream, max_pixels=self._max_pixels)
            with decoding("its DICOM tags cannot be read", "Copy or export it again."):
                # pydicom parses an element at its first use: now, and not in the copy
                # of every frame.
                for _ in dataset:
                    continue
            source, offset = self.source, element.stream.tell()
            if isinstance(element.stream, io.BytesIO):
                source = element.stream.getvalue()
            return _Tags(dataset, element, offset, source)


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
