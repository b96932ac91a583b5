"""The header of a compressed frame, judged before a codec sees it.

GDCM, the free decoder of lossless JPEG and JPEG-LS in DICOM, ends the whole process by
an uncaught C++ exception where a header is damaged. So what it is given is well formed
up to the first coded byte. pydicom searches the boxes around JPEG 2000 without end
where one has no length.
"""

from __future__ import annotations

from collections.abc import Iterator

from sk_medsiglip.exceptions import ImageReadError

__all__ = ["check_jpeg", "codestream"]

_BOXES = b"\x00\x00\x00\x0cjP  "  # of a JP2 file, around the codestream
_CODESTREAM_BOX = b"jp2c"

_START_OF_IMAGE = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_HUFFMAN_TABLES = 0xC4
_QUANTISATION_TABLES = 0xDB
_RESTART_INTERVAL = 0xDD
_COMMENT = 0xFE
_PRESETS = 0xF8  # of JPEG-LS
_APPLICATION = range(0xE0, 0xF0)
#: Baseline, extended, progressive, lossless; arithmetic coding and hierarchies are not
#: used in DICOM.
_FRAMES = {0xC0: "DCT", 0xC1: "DCT", 0xC2: "DCT", 0xC3: "lossless", 0xF7: "LS"}

_AGAIN = "Copy or export it again; if a viewer opens it, export it uncompressed."


def check_jpeg(frame: bytes) -> None:
    """Raise unless the header of a frame is whole, up to the first coded byte.

    Parameters
    ----------
    frame : bytes
        JPEG (baseline, extended, progressive, lossless) or JPEG-LS.

    Raises
    ------
    ImageReadError
        If a segment is damaged, missing or cut short.

    Notes
    -----
    Looked at are some hundred bytes. Damage in the coded pixels is left to the codec,
    which survives it. That the frame has the size that the tags announce is for the
    caller to check.
    """
    kind, n_components = "", 0
    for marker, content in _segments(frame):
        if marker in _FRAMES:
            if kind:
                raise _damaged("has two frame headers")
            kind, n_components = _FRAMES[marker], _components(content)
        elif marker == _HUFFMAN_TABLES:
            _check_huffman_tables(content)
        elif marker == _QUANTISATION_TABLES:
            _check_quantisation_tables(content)
        elif marker == _RESTART_INTERVAL and len(content) != 2:
            raise _damaged("has a restart interval of another length")
        elif marker == _START_OF_SCAN:
            _check_scan(content, kind, n_components)
            return
    raise _damaged("ends before its pixels")


def codestream(frame: bytes) -> bytes:
    """Return a frame without the boxes around a JPEG 2000 codestream.

    Parameters
    ----------
    frame : bytes
        JPEG 2000, as a bare codestream or, against the standard, as a JP2 file; a
        frame of another kind is returned as it is.

    Raises
    ------
    ImageReadError
        If the codestream cannot be found.
    """
    place = 0
    while frame.startswith(_BOXES) and place < len(frame):
        if frame[place + 4 : place + 8] == _CODESTREAM_BOX:
            return frame[place + 8 :]
        length = int.from_bytes(frame[place : place + 4], "big")
        if length < 8:
            raise ImageReadError("its JPEG 2000 frame has a damaged box", _AGAIN)
        place += length
    return frame


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Give marker and content of each segment; every byte belongs to one."""
    if frame[:2] != _START_OF_IMAGE:
        raise _damaged("does not start as one")
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
        yield marker, frame[place + 4 : end]
        place = end


def _components(content: bytes) -> int:
    """Return how many colours a frame header announces."""
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


def _damaged(what: str) -> ImageReadError:
    return ImageReadError(f"its JPEG frame {what}", _AGAIN)
