"""One frame of a DICOM file, as an image or as a slice.

Only the tags named here are kept; none identifies a patient. Only the header and the
bytes of one frame are read, however many frames there are. Slices share the header:
reading it again for each frame of an enhanced file would be most of the work.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoded_image import (
    DecodedImage,
    choose_frame,
    refuse_too_large,
)
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom_codecs import check_codec, hint_for
from sk_medsiglip.images._dicom_grey import GREY_TAGS, dicom_image
from sk_medsiglip.images._dicom_pixels import (
    MOSAIC_TAGS,
    PIXEL_TAGS,
    PixelElement,
    count_tiles,
    cut_tile,
    stored_values,
)
from sk_medsiglip.images._lazy import Held, Part
from sk_medsiglip.images._sources import describe, open_source

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID


_TAGS: tuple[Any, ...] = (
    *("SOPClassUID", "Modality", "NumberOfFrames"),
    *PIXEL_TAGS,
    *GREY_TAGS,
    *MOSAIC_TAGS,
)

#: The elements that hold pixels, by group and element.
_PIXEL_KEYWORDS = {
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
    (0x7FE0, 0x0010): "PixelData",
}

#: Value of the length of compressed pixels, which is not known in advance.
_UNDEFINED = 0xFFFFFFFF

#: Enough for the file header, which is group 2.
_HEAD_BYTES = 2048

#: First element of that group, up to its value: the number of bytes that follow.
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"

#: Deflated and plain explicit little endian, padded to the same length.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_NOT_DEFLATED = b"1.2.840.10008.1.2.1\0\0\0"

#: Limits for an inflated file: three colours of 16 bits per pixel, and tags.
_PIXEL_BYTES, _TAG_BYTES = 6, 2**24

_AGAIN = "Copy or export it again."


def load_dicom(
    stream: BinaryIO, *, frame: int | str | None, max_pixels: int
) -> DecodedImage:
    """Decode one frame of a DICOM file."""
    dataset, element = open_dicom(stream, max_pixels=max_pixels)
    with decoding("its DICOM tags cannot be read", _AGAIN):
        index = choose_frame(frame, count_frames(dataset))
    return decode_dicom(dataset, element, index)


def count_frames(dataset: Dataset) -> int:
    """Return the number of frames, or of slices in a mosaic; at least 1."""
    n_tiles = count_tiles(dataset)
    return n_tiles if n_tiles > 1 else max(1, int(dataset.get("NumberOfFrames") or 1))


def open_dicom(stream: BinaryIO, *, max_pixels: int) -> tuple[Dataset, PixelElement]:
    """Read the tags of a DICOM image, and find its pixels."""
    with decoding("its DICOM tags cannot be read", _AGAIN):
        dataset, element = _read(stream, max_pixels)
        if element is None or not (dataset.get("Rows") and dataset.get("Columns")):
            raise _no_pixels(dataset, has_data=element is not None)
        refuse_too_large(int(dataset.Rows), int(dataset.Columns), max_pixels)
        check_codec(dataset)
        return dataset, element


def decode_dicom(dataset: Dataset, element: PixelElement, index: int) -> DecodedImage:
    """Decode one frame; the tags of the frame replace those of the file, in place."""
    with decoding(
        "its pixels are damaged, cut short, or differ from its tags", hint_for(dataset)
    ):
        n_tiles = count_tiles(dataset)
        values = stored_values(dataset, element, 0 if n_tiles > 1 else index)
        if n_tiles > 1:
            values = cut_tile(values, n_tiles, index)
    with decoding("its tags on grey values are damaged", _AGAIN):
        return dicom_image(dataset, values, index)


def read_tags(stream: BinaryIO, *tags: Any) -> Dataset:
    """Read some tags of a file, up to its pixels."""
    pydicom = import_optional("pydicom", extra="dicom", purpose="Reading DICOM files")
    return pydicom.dcmread(
        stream, force=True, stop_before_pixels=True, specific_tags=_tags_of(*tags)
    )


@functools.cache
def _tags_of(*names: Any) -> list[Any]:
    """Look up tags once, since it takes longer than reading a small file."""
    from pydicom.tag import Tag

    return [Tag(name) for name in names]


def _read(stream: BinaryIO, max_pixels: int) -> tuple[Dataset, PixelElement | None]:
    """Return the tags before the pixels, and the place of the pixels, if any."""
    stream = inflated(stream, max_pixels)
    dataset = read_tags(stream, *_TAGS)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        dataset.file_meta.TransferSyntaxUID = _syntax_of(dataset)
    return dataset, _pixel_element(stream, dataset)


def inflated(stream: BinaryIO, max_pixels: int) -> BinaryIO:
    """Return the stream, inflated if the file is deflated.

    pydicom inflates without a limit: two megabytes may become two gigabytes.
    """
    head = stream.read(_HEAD_BYTES)
    stream.seek(0)
    start = 132 if head[128:132] == b"DICM" else 0
    group_length = head[start + 8 : start + 12]
    if head[start : start + 8] != _GROUP_LENGTH or len(group_length) < 4:
        if _DEFLATED in head:
            raise ImageReadError("its file header has no length", _AGAIN)
        return stream
    end = start + 12 + int.from_bytes(group_length, "little")
    if _DEFLATED not in head[:end]:
        return stream
    content = stream.read()
    limit = _TAG_BYTES + _PIXEL_BYTES * max_pixels
    inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[end:], limit)
    if len(inflated) == limit:
        raise ImageReadError(
            f"it inflates to more than {limit} bytes, the limit for "
            f"max_pixels={max_pixels}",
            "If the file can be trusted, raise max_pixels.",
        )
    return io.BytesIO(content[:end].replace(_DEFLATED, _NOT_DEFLATED) + inflated)


def _syntax_of(dataset: Dataset) -> UID:
    """Return the transfer syntax of a file that does not name it."""
    from pydicom import uid

    implicit, little = dataset.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _pixel_element(stream: BinaryIO, dataset: Dataset) -> PixelElement | None:
    """Read the head of the element at the position of ``stream``."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    keyword = _PIXEL_KEYWORDS.get(struct.unpack(f"{order}HH", head[:4]))
    if keyword is None:
        return None
    # A length of four bytes follows in both encodings; in the explicit one, after two
    # letters and two zeros. Some writers change to the implicit one within a file.
    vr, length = "OW", head[4:]
    if not implicit and head[4:6].isalpha():
        vr, length = head[4:6].decode("ascii"), stream.read(4)
        if len(length) < 4:
            return None
    (n_bytes,) = struct.unpack(f"{order}L", length)
    return PixelElement(keyword, vr, stream, None if n_bytes == _UNDEFINED else n_bytes)


def _no_pixels(dataset: Dataset, *, has_data: bool) -> ImageReadError:
    """Return an error that names the kind of object."""
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    # The name in the dictionary; the name of an unknown UID is the UID itself.
    kind = uid.name if uid and uid.name != uid else "DICOM"
    if has_data:
        return ImageReadError(f"it is a {kind} object without rows and columns", _AGAIN)
    if dataset.get("Rows") or "Image" in kind:
        return ImageReadError("its pixels are missing or cut short", _AGAIN)
    return ImageReadError(
        f"it holds no pixels: it is a {kind} object",
        "Leave it out; only DICOM files with an image can be embedded.",
    )


class _Tags(NamedTuple):
    """Tags of a file, and the place of its pixels."""

    dataset: Dataset
    element: PixelElement
    offset: int
    source: Any  # the file, or its inflated content


class DicomTags(Held[_Tags]):
    """Tags of one multi-frame file, shared by its frames."""

    def __init__(self, source: Any, max_pixels: int) -> None:
        super().__init__()
        self.source = source
        self._max_pixels = max_pixels

    def frame(self, index: int) -> Part:
        """Return one frame, to be read later."""
        name = f"{describe(self.source)}, frame {index}"
        return Part(name, lambda max_pixels: self._read(index))

    def _read(self, index: int) -> DecodedImage:
        tags = self.content()
        # Decoding overwrites tags of the file by those of the frame: use a copy.
        own = tags.dataset[:]
        own.file_meta = tags.dataset.file_meta
        # Several threads read frames, so each opens the file itself.
        with open_source(tags.source) as stream:
            stream.seek(tags.offset)
            return decode_dicom(own, replace(tags.element, stream=stream), index)

    def _load(self) -> _Tags:
        with open_source(self.source) as stream:
            dataset, element = open_dicom(stream, max_pixels=self._max_pixels)
            with decoding("its DICOM tags cannot be read", _AGAIN):
                # pydicom parses an element when it is first used: do it once here, not
                # in the copy for each frame.
                for _ in dataset:
                    continue
            source, offset = self.source, element.stream.tell()
            if isinstance(element.stream, io.BytesIO):
                source = element.stream.getvalue()
            return _Tags(dataset, element, offset, source)
