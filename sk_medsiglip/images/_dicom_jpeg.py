"""The headers of compressed frames, and those that only GDCM decodes.

These are JPEG lossless, JPEG-LS, and JPEG of 12 bits a sample.

GDCM trusts its caller: sizes that differ from the frame's own end the process instead
of raising. So the frame's header is read here first, and GDCM is told what stands in
it. pydicom, which hands it the DICOM tags, also refuses 12 bits, which GDCM decodes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._jpeg_header import check_jpeg, codestream

__all__ = [
    "GDCM_SYNTAXES",
    "JPEG_2000",
    "JPEG_LS",
    "JPEGHeader",
    "decode_by_gdcm",
    "has_gdcm",
    "jpeg_header",
]

#: Second bytes of the markers that start a frame: JPEG's but DHT, JPG and DAC, and
#: that of JPEG-LS.
_FRAME_STARTS = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}

#: Markers without a length: TEM, RST0 to RST7.
_BARE = {0x01, *range(0xD0, 0xD8)}

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9

#: RGB or grey, YCbCr, YCCK.
_ADOBE_CODES = (b"\x00", b"\x01", b"\x02")

_EXTENDED, _LOSSLESS, JPEG_LS = 0xC1, 0xC3, 0xF7

#: The marker of the sizes of a codestream, which comes first.
JPEG_2000 = 0x51

#: What GDCM is told, by process: what a frame is decides, not what the tags call it.
GDCM_SYNTAXES = {
    _EXTENDED: "JPEGExtendedProcess2_4",
    _LOSSLESS: "JPEGLosslessProcess14",
    JPEG_LS: "JPEGLSNearLossless",
}


@dataclass(frozen=True)
class JPEGHeader:
    """What the header of a JPEG, JPEG-LS or JPEG 2000 frame says.

    Parameters
    ----------
    process : int
        Second byte of the start-of-frame marker: 0xC0 is baseline, 0xC1 extended,
        0xC3 lossless, 0xF7 JPEG-LS; 0x51 stands for JPEG 2000.
    precision : int
        Bits a sample.
    rows, columns, samples : int
        Size in pixels, and values a pixel.
    """

    process: int
    precision: int
    rows: int
    columns: int
    samples: int


def jpeg_header(frame: bytes) -> JPEGHeader | None:
    """Return the header of a frame; None if it is none of these three."""
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
    """Return the samples of one frame, (H, W) or (H, W, 3), as they were coded.

    Unsigned, of 8 or 16 bits; no colour is converted.
    """
    import gdcm

    # What is wrong becomes an error of ours; GDCM would print it too.
    gdcm.Trace.SetDebug(False)
    gdcm.Trace.SetWarning(False)
    gdcm.Trace.SetError(False)
    check_jpeg(frame)
    if header.process != JPEG_LS:
        frame = _without_remarks(frame, header.process)
    # Below 8 bits it mixes the sizes of its buffers up, and ends the process.
    if not 8 <= header.precision <= 16:
        raise ImageReadError(
            f"its JPEG pixels have {header.precision} bits, and 8 to 16 are read",
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
    image.SetPhotometricInterpretation(
        gdcm.PhotometricInterpretation(
            gdcm.PhotometricInterpretation.GetPIType(colours)
        )
    )
    if header.samples == 3:
        image.SetPlanarConfiguration(0)
    n_bytes = 1 if header.precision <= 8 else 2
    # Told of 16 bits, it tries the wrong one of its decoders first, which prints that.
    is_grey_dct = header.process == _EXTENDED and header.samples == 1
    allocated = header.precision if is_grey_dct else 8 * n_bytes
    image.SetPixelFormat(
        gdcm.PixelFormat(
            header.samples, allocated, header.precision, header.precision - 1, 0
        )
    )
    text = image.GetBuffer()
    if text is None:
        raise ValueError("GDCM could not decode the frame")
    # Bytes come out of it as a text of surrogates.
    data = text.encode("utf-8", "surrogateescape")
    values = np.frombuffer(data, f"<u{n_bytes}").astype(f"=u{n_bytes}")
    shape = (header.rows, header.columns, header.samples)
    return values.reshape(shape if header.samples > 1 else shape[:2])


def _without_remarks(frame: bytes, process: int) -> bytes:
    """Return a well-formed JPEG frame without comments and application segments.

    GDCM ends the process at a JFIF version or an Adobe colour code that it does not
    know. Only a known Adobe code says something about the samples.
    """
    kept, place = [frame[:2]], 2
    while frame[place + 1] != _START_OF_SCAN:
        if frame[place + 1] == 0xFF:
            place += 1
            continue
        marker = frame[place + 1]
        end = place + 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        segment = frame[place:end]
        is_remark = marker == 0xFE or 0xE0 <= marker <= 0xEF
        is_adobe = segment[4:9] == b"Adobe" and segment[15:16] in _ADOBE_CODES
        if not is_remark or is_adobe:
            kept.append(segment)
        place = end
    end = place + 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    scan = frame[place:end]
    if process == _EXTENDED:  # what else stands there is ignored, and printed
        scan = scan[:-3] + b"\x00\x3f\x00"
    return b"".join([*kept, scan, frame[end:]])
