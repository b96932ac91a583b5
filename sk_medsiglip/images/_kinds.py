"""The kind of a file, by its first bytes; its name and suffix are ignored."""

from __future__ import annotations

import gzip
import zlib
from typing import BinaryIO

from sk_medsiglip.exceptions import ImageReadError

#: Number of first bytes that distinguish the formats of images.
HEAD_BYTES = 132

_NIFTI_HEADER_BYTES = 540

DICOM, NIFTI, PACKED_DICOM = "DICOM", "NIfTI", "packed DICOM"

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
    b"BM": "BMP",
}

#: Unsupported formats, by their first bytes, so that the error can name them.
_OTHER_FORMATS = {
    b"GIF8": "a GIF image",
    b"\x00\x00\x00\x0cjP": "a JPEG 2000 image outside of DICOM",
    b"\xff\x4f\xff\x51": "a JPEG 2000 image outside of DICOM",
    b"\xff\x0a": "a JPEG XL image",
    b"\x00\x00\x00\x0cJXL": "a JPEG XL image",
    b"ftypavi": "an AVIF image",
    b"ftyphei": "a HEIC image",
    b"ftyphev": "a HEIC image",
    b"ftypmif1": "a HEIC or AVIF image",
    b"ftypmsf1": "a HEIC or AVIF image",
    b"ftyp": "a video",
    b"8BPS": "a Photoshop file",
    b"NRRD": "an NRRD volume",
    b"%PDF": "a PDF document",
    b"\x93NUMPY": "a NumPy file",
    b"\x1f\x8b": "a gzip archive (unpack it by gunzip)",
    b"PK\x03\x04": "a zip archive",
    b"\x89HDF": "an HDF5 file",
}


def kind_of(stream: BinaryIO) -> str | None:
    """Return the kind of a file, or None if it is unknown; rewind the stream."""
    try:
        head = stream.read(HEAD_BYTES)
        stream.seek(0)
    except OSError as error:
        raise ImageReadError(
            f"it cannot be read ({error.strerror})", "Check the disk."
        ) from error
    # A DICOM file may carry a TIFF header in its preamble.
    if head[128:132] == b"DICM":
        return DICOM
    return (
        _image_format(head)
        or _volume_kind(stream)
        or (DICOM if _is_dicom(head) else None)
    )


def refuse_other(head: bytes) -> None:
    """Raise ``ImageReadError`` if these are not the first bytes of an image."""
    if _image_format(head) or _is_dicom(head):
        return
    # The box "ftyp" follows its own length.
    other = next(
        (
            name
            for start, name in _OTHER_FORMATS.items()
            if head.startswith(start) or head.startswith(start, 4) and b"ftyp" in start
        ),
        "",
    )
    raise ImageReadError(
        f"it is {other}, which is not supported"
        if other
        else "it is not an image file",
        "PNG, JPEG, TIFF, WebP, BMP and DICOM are supported; the content decides, not "
        "the name. Convert other formats in a viewer, or with ImageMagick: "
        "magick in.heic out.png.",
    )


def _image_format(head: bytes) -> str | None:
    """Return the format if Pillow reads it, else None."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((n for start, n in _SIGNATURES.items() if head.startswith(start)), None)


def _is_dicom(head: bytes) -> bool:
    """Whether the first bytes are DICOM, with or without the preamble."""
    if head[128:132] == b"DICM":
        return True
    # Old archives export files without the preamble. Their first tag has group 2 or 8
    # and a low element, in little or big endian.
    group, element = head[0:2], head[2:4]
    little = group in (b"\x02\x00", b"\x08\x00") and element[1:] == b"\x00"
    big = group in (b"\x00\x02", b"\x00\x08") and element[:1] == b"\x00"
    return (little or big) and len(head) >= 16


def _volume_kind(stream: BinaryIO) -> str | None:
    """Recognise NIfTI, gzipped or not, and gzipped DICOM."""
    head = stream.read(_NIFTI_HEADER_BYTES)
    is_packed = head.startswith(b"\x1f\x8b")
    if is_packed:
        stream.seek(0)
        try:
            head = gzip.GzipFile(fileobj=stream).read(_NIFTI_HEADER_BYTES)
        except (OSError, EOFError, zlib.error):
            head = b""
    stream.seek(0)
    if is_packed and head[128:132] == b"DICM":
        return PACKED_DICOM
    is_first = head[344:348] in (b"n+1\0", b"ni1\0")
    return NIFTI if is_first or head[4:8] in (b"n+2\0", b"ni2\0") else None
