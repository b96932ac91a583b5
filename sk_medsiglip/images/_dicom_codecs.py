"""Compressed DICOM pixels: the choice of a codec, and the stored bits.

GDCM ends the whole process on some damaged files. So it is called only for frames that
no other free codec decodes, by ``_dicom_jpeg.py``, which checks them first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._dicom_jpeg import (
    GDCM_SYNTAXES,
    JPEG_2000,
    JPEG_LS,
    JPEGHeader,
    decode_by_gdcm,
    has_gdcm,
    jpeg_header,
)

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.pixels.decoders.base import Decoder


#: Plugins of pydicom, best first. "pylibjpeg" covers its plugins openjpeg and rle,
#: which are in our extra, and libjpeg, which is GPL and used only if installed.
_PLUGINS = ("pyjpegls", "pylibjpeg", "pillow", "pydicom")

#: Second byte of the marker that starts a lossless frame.
_LOSSLESS = 0xC3

#: Transfer syntaxes of the standard that are unknown to pydicom 3.
_JPEG_XL = {f"1.2.840.10008.1.2.4.{last}" for last in (110, 111, 112)}

_AGAIN = "Copy or export it again."
_CODECS = 'Install the codecs: pip install "sk-medsiglip[dicom]"'


def check_codec(dataset: Dataset) -> None:
    """Raise ``ImageReadError`` unless an installed codec decodes the pixels."""
    try:
        decoder = _decoder(dataset)
    except NotImplementedError as error:
        raise ImageReadError(
            f"its pixels are stored as {_syntax_name(dataset)}, which is not supported",
            "Export it as uncompressed DICOM, or as PNG.",
        ) from error
    if decoder.is_encapsulated:
        by_gdcm = _is_jpeg(dataset) and has_gdcm()
        if not (_plugins(decoder) or by_gdcm):
            raise _no_codec(dataset)


def hint_for(dataset: Dataset) -> str:
    """Return the hint for pixels that could not be decoded."""
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return _AGAIN
    has_all = (
        has_gdcm() if _is_jpeg(dataset) else "pylibjpeg" in _plugins(_decoder(dataset))
    )
    if has_all:
        return "If a viewer opens it, export it from there as uncompressed DICOM."
    return f"If a viewer opens it: {_CODECS[0].lower()}{_CODECS[1:]}"


def decode_frame(dataset: Dataset, stream: BinaryIO, index: int) -> NDArray[Any]:
    """Return one frame of compressed pixels: grey (H, W), or RGB (H, W, 3)."""
    from pydicom.encaps import get_frame
    from pydicom.pixels.utils import as_pixel_options

    options = as_pixel_options(dataset, pixel_keyword="PixelData")
    frame = get_frame(
        _WholeReads(stream),
        index,
        number_of_frames=options.pop("number_of_frames"),
        extended_offsets=options.pop("extended_offsets", None),
    )
    header = jpeg_header(frame)
    if header is not None:
        _check_header(header, dataset)
    decoder = _decoder(dataset, header)
    failure: Exception | None = None
    for plugin in _plugins(decoder):
        try:
            return _by_pydicom(dataset, decoder, frame, plugin, options)
        except Exception as error:  # codecs raise anything; the next one may work
            failure = error
    if header is not None and header.process in GDCM_SYNTAXES:
        if not has_gdcm():
            raise _no_codec(dataset) from failure
        return _by_gdcm(dataset, frame, header)
    raise failure or ValueError("not a frame of its transfer syntax")


def _decoder(dataset: Dataset, header: JPEGHeader | None = None) -> Decoder:
    """Return the decoder for a file, or for its frame if the tags are wrong."""
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    if header is None:
        return get_decoder(syntax)
    if header.process == JPEG_2000:
        ours = list(uid.JPEG2000TransferSyntaxes)
    elif header.process == JPEG_LS:
        ours = list(uid.JPEGLSTransferSyntaxes)
    elif header.process == _LOSSLESS:
        ours = [uid.JPEGLossless, uid.JPEGLosslessSV1]
    else:
        ours = [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit]
    return get_decoder(syntax if syntax in ours else ours[0])


def _plugins(decoder: Decoder) -> list[str]:
    return [name for name in _PLUGINS if name in decoder.available_plugins]


def _is_jpeg(dataset: Dataset) -> bool:
    from pydicom.uid import JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

    syntaxes = [*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes]
    return dataset.file_meta.TransferSyntaxUID in syntaxes


def _syntax_name(dataset: Dataset) -> str:
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.name != syntax:
        return syntax.name
    if syntax in _JPEG_XL:
        return "JPEG XL"
    is_standard = syntax.startswith("1.2.840.10008.")
    return f"a {'newer' if is_standard else 'private'} transfer syntax"


def _no_codec(dataset: Dataset) -> ImageReadError:
    name = _syntax_name(dataset)
    return ImageReadError(
        f"its pixels are stored as {name}, but no codec for it is installed", _CODECS
    )


class _WholeReads:
    """A stream that raises at its end, so that a truncated frame is noticed."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, n_bytes: int = -1, /) -> bytes:
        data = self._stream.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError("the file ends within its pixels")
        return data


def _check_header(header: JPEGHeader, dataset: Dataset) -> None:
    coded = header.rows, header.columns, header.samples
    tags = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    if coded != tags:
        raise ImageReadError(
            f"its compressed pixels are {' x '.join(map(str, coded))}, but its tags "
            f"announce {' x '.join(map(str, tags))}",
            _AGAIN,
        )


def _by_pydicom(
    dataset: Dataset,
    decoder: Decoder,
    frame: bytes,
    plugin: str,
    options: dict[str, Any],
) -> NDArray[Any]:
    from pydicom.encaps import encapsulate
    from pydicom.uid import RLELossless

    is_rle = decoder.UID == RLELossless
    options = options | {"number_of_frames": 1}
    if is_rle:  # stored as they are, so HighBit applies, which pydicom ignores
        options["correct_unused_bits"] = False
    values, _ = decoder.as_array(
        encapsulate([frame], has_bot=False),
        index=0,
        decoding_plugin=plugin,
        **options,
    )
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if is_rle:
        return keep_stored_bits(values, int(dataset.BitsStored), dataset.get("HighBit"))
    return values


def _by_gdcm(dataset: Dataset, frame: bytes, header: JPEGHeader) -> NDArray[Any]:
    samples = decode_by_gdcm(frame, header)
    kind = "i" if dataset.PixelRepresentation == 1 else "u"
    n_bits = int(dataset.BitsStored)
    # JPEG-LS has no signs, so its number of bits gives the place of the sign.
    if header.process == JPEG_LS:
        n_bits = min(n_bits, header.precision)
    values = keep_stored_bits(samples.view(f"{kind}{samples.itemsize}"), n_bits)
    if values.ndim == 3 and dataset.PhotometricInterpretation.startswith("YBR_FULL"):
        from pydicom.pixels.processing import convert_color_space

        return convert_color_space(values, "YBR_FULL", "RGB")
    return values


def keep_stored_bits(
    values: NDArray[Any], n_bits: int, high_bit: int | None = None
) -> NDArray[Any]:
    """Clear overlays from the unused bits of values, and extend signs."""
    available = 8 * values.dtype.itemsize
    highest = n_bits - 1 if high_bit is None else high_bit
    if not n_bits - 1 <= highest < available:  # the tag is wrong
        highest = n_bits - 1
    above = available - 1 - highest
    unused = available - n_bits
    if unused <= 0 or (above == unused and _is_clean(values, n_bits)):
        return values
    values = np.left_shift(values, above)
    return np.right_shift(values, unused, out=values)


def _is_clean(values: NDArray[Any], n_bits: int) -> bool:
    if values.dtype.kind == "u":
        return bool(values.max() < 2**n_bits)
    limit = 2 ** (n_bits - 1)
    return bool(-limit <= values.min() and values.max() < limit)
