"""Headers of compressed frames, and the frames that only GDCM decodes.

Those are JPEG lossless, JPEG-LS, and JPEG of 12 bits per sample. GDCM ends the whole
process if a header is damaged or its sizes differ from those announced. So it is given
only frames whose header is well formed, together with the sizes of the header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError

#: Second bytes of the markers that start a frame: those of JPEG, without DHT, JPG and
#: DAC, and that of JPEG-LS.
_FRAME_STARTS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}

#: Markers without a length: TEM, RST0 to RST7.
_BARE = {0x01, *range(0xD0, 0xD8)}

_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", 0xDA, 0xD9
_HUFFMAN_TABLES, _QUANTISATION_TABLES, _RESTART_INTERVAL = 0xC4, 0xDB, 0xDD
_COMMENT, _APPLICATION = 0xFE, range(0xE0, 0xF0)
_PRESETS = 0xF8  # of JPEG-LS

#: RGB or grey, YCbCr, YCCK.
_ADOBE_CODES = (b"\x00", b"\x01", b"\x02")

_EXTENDED, _LOSSLESS, JPEG_LS = 0xC1, 0xC3, 0xF7

#: Second byte of the first marker of a codestream, which holds its sizes.
JPEG_2000 = 0x51

#: Transfer syntaxes for GDCM, by the process of the frame; its tags may be wrong.
GDCM_SYNTAXES = {
    _EXTENDED: "JPEGExtendedProcess2_4",
    _LOSSLESS: "JPEGLosslessProcess14",
    JPEG_LS: "JPEGLSNearLossless",
}


_BOXES = b"\x00\x00\x00\x0cjP  "  # of a JP2 file, around the codestream
_CODESTREAM_BOX = b"jp2c"

#: Baseline, extended, progressive, lossless, and JPEG-LS. DICOM does not use arithmetic
#: coding or hierarchies.
_FRAMES = {0xC0: "DCT", 0xC1: "DCT", 0xC2: "DCT", 0xC3: "lossless", 0xF7: "LS"}

_AGAIN = "Copy or export it again; if a viewer opens it, export it uncompressed."


class JPEGHeader(NamedTuple):
    """The header of a JPEG, JPEG-LS or JPEG 2000 frame."""

    process: int  # second byte of the start-of-frame marker, or JPEG_2000
    precision: int  # bits a sample
    rows: int
    columns: int
    samples: int


def jpeg_header(frame: bytes) -> JPEGHeader | None:
    """Return the header of a JPEG, JPEG-LS or JPEG 2000 frame, else None."""
    stream = codestream(frame)
    if stream[:4] == b"\xff\x4f\xff\x51" and len(stream) > 42:
        right, lower, left, upper = struct.unpack(">4L", stream[8:24])
        (samples,) = struct.unpack(">H", stream[40:42])
        precision = (stream[42] & 127) + 1
        return JPEGHeader(JPEG_2000, precision, lower - upper, right - left, samples)
    if frame[:2] != b"\xff\xd8":
        return None
    place = 2
    while place < len(frame) - 9:
        if frame[place] != 0xFF:
            return None
        marker = frame[place + 1]
        if marker in _FRAME_STARTS:
            return JPEGHeader(
                marker, *struct.unpack(">BHHB", frame[place + 4 : place + 10])
            )
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return None
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker in _BARE:
            place += 2
        else:
            place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def has_gdcm() -> bool:
    """Whether GDCM is installed."""
    try:
        import gdcm
    except ImportError:
        return False
    return hasattr(gdcm, "Image")


def decode_by_gdcm(
    frame: bytes, header: JPEGHeader
) -> NDArray[np.unsignedinteger[Any]]:
    """Return the unsigned samples of one frame as coded, (H, W) or (H, W, 3)."""
    import gdcm

    # GDCM would print its errors; ours are raised.
    gdcm.Trace.SetDebug(False)
    gdcm.Trace.SetWarning(False)
    gdcm.Trace.SetError(False)
    check_jpeg(frame)
    if header.process != JPEG_LS:
        frame = _without_remarks(frame, header.process)
    # Below 8 bits, GDCM confuses the sizes of its buffers and ends the process.
    if not 8 <= header.precision <= 16:
        raise ImageReadError(
            f"its JPEG pixels have {header.precision} bits, but 8 to 16 are supported",
            "Export it as uncompressed DICOM, or as PNG.",
        )
    syntax = getattr(gdcm.TransferSyntax, GDCM_SYNTAXES[header.process])
    fragments = gdcm.SequenceOfFragments.New()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.columns, header.rows, 1))
    image.SetDataElement(element)
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    colours = "RGB" if header.samples == 3 else "MONOCHROME2"
    kinds = gdcm.PhotometricInterpretation
    image.SetPhotometricInterpretation(kinds(kinds.GetPIType(colours)))
    if header.samples == 3:
        image.SetPlanarConfiguration(0)
    n_bytes = 1 if header.precision <= 8 else 2
    # Given 16 bits, GDCM tries the wrong decoder first, which prints an error.
    is_grey_dct = header.process == _EXTENDED and header.samples == 1
    allocated = header.precision if is_grey_dct else 8 * n_bytes
    bits = allocated, header.precision, header.precision - 1
    image.SetPixelFormat(gdcm.PixelFormat(header.samples, *bits, 0))
    text = image.GetBuffer()
    if text is None:
        raise ValueError("GDCM could not decode the frame")
    # GDCM returns the bytes as a string with surrogates.
    data = text.encode("utf-8", "surrogateescape")
    values = np.frombuffer(data, f"<u{n_bytes}").astype(f"=u{n_bytes}")
    shape = (header.rows, header.columns, header.samples)
    return values.reshape(shape if header.samples > 1 else shape[:2])


def _without_remarks(frame: bytes, process: int) -> bytes:
    """Return a well-formed JPEG frame without comments and application segments.

    GDCM ends the process at an unknown JFIF version or Adobe colour code. Only a known
    Adobe code affects the samples.
    """
    kept, pixels = [frame[:2]], b""
    for marker, content, end in _segments(frame):
        is_adobe = content[:5] == b"Adobe" and content[11:12] in _ADOBE_CODES
        if (marker == _COMMENT or marker in _APPLICATION) and not is_adobe:
            continue
        is_scan = marker == _START_OF_SCAN
        if is_scan and process == _EXTENDED:  # GDCM prints a warning at other values
            content = content[:-3] + b"\x00\x3f\x00"
        length = (len(content) + 2).to_bytes(2, "big")
        kept.append(b"\xff" + bytes([marker]) + length + content)
        if is_scan:
            pixels = frame[end:]
            break
    return b"".join([*kept, pixels])


def check_jpeg(frame: bytes) -> None:
    """Raise unless the header of a frame is intact, up to the first coded byte."""
    kind, n_components = "", 0
    for marker, content, _ in _segments(frame):
        if marker in _FRAMES:
            if kind:
                raise _damaged("has two frame headers")
            kind, n_components = _FRAMES[marker], _components(content)
        elif marker == _HUFFMAN_TABLES:
            _check_huffman_tables(content)
        elif marker == _QUANTISATION_TABLES:
            _check_quantisation_tables(content)
        elif marker == _RESTART_INTERVAL and len(content) != 2:
            raise _damaged("has a restart interval of the wrong length")
        elif marker == _START_OF_SCAN:
            _check_scan(content, kind, n_components)
            return
    raise _damaged("ends before its pixels")


def codestream(frame: bytes) -> bytes:
    """Return a frame without the boxes around a JPEG 2000 codestream."""
    place = 0
    while frame.startswith(_BOXES) and place < len(frame):
        if frame[place + 4 : place + 8] == _CODESTREAM_BOX:
            return frame[place + 8 :]
        length = int.from_bytes(frame[place : place + 4], "big")
        if length < 8:
            raise ImageReadError("its JPEG 2000 frame has a damaged box", _AGAIN)
        place += length
    return frame


def _segments(frame: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, content and end of each segment; every byte belongs to one."""
    if frame[:2] != _START_OF_IMAGE:
        raise _damaged("does not start with a JPEG marker")
    place = 2
    while place + 4 <= len(frame):
        if frame[place] != 0xFF:
            raise _damaged("has bytes between its segments")
        marker = frame[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        known = {_START_OF_SCAN, _HUFFMAN_TABLES, _QUANTISATION_TABLES}
        known |= {_RESTART_INTERVAL, _COMMENT, _PRESETS, *_FRAMES, *_APPLICATION}
        if marker not in known:
            raise _damaged(f"has a segment of unknown kind {marker:#04x}")
        length = int.from_bytes(frame[place + 2 : place + 4], "big")
        end = place + 2 + length
        if length < 2 or end > len(frame):
            raise _damaged("has a segment that is cut short")
        yield marker, frame[place + 4 : end], end
        place = end


def _components(content: bytes) -> int:
    """Return the number of colours in a frame header."""
    if len(content) < 9 or len(content) != 6 + 3 * content[5]:
        raise _damaged("has a damaged frame header")
    for factors in content[7::3]:
        if not (1 <= factors >> 4 <= 4 and 1 <= factors & 15 <= 4):
            raise _damaged("has impossible sampling factors")
    return content[5]


def _check_scan(content: bytes, kind: str, n_components: int) -> None:
    if not kind:
        raise _damaged("has no frame header")
    if not content or len(content) != 4 + 2 * content[0]:
        raise _damaged("has a damaged scan header")
    if not 1 <= content[0] <= n_components:
        raise _damaged("has a scan of components that it does not have")
    predictor, end = content[-3], content[-2]
    if kind == "lossless" and not (1 <= predictor <= 7 and end == 0):
        raise _damaged("has an unknown predictor")


def _check_huffman_tables(content: bytes) -> None:
    place = 0
    while place < len(content):
        counts = content[place + 1 : place + 17]
        place += 17 + sum(counts)
        if len(counts) < 16 or sum(counts) > 256 or place > len(content):
            raise _damaged("has a damaged Huffman table")


def _check_quantisation_tables(content: bytes) -> None:
    place = 0
    while place < len(content):
        precision, table = content[place] >> 4, content[place] & 15
        place += 1 + 64 * (precision + 1)
        if precision > 1 or table > 3 or place > len(content):
            raise _damaged("has a damaged quantisation table")


def _damaged(problem: str) -> ImageReadError:
    return ImageReadError(f"its JPEG frame {problem}", _AGAIN)
