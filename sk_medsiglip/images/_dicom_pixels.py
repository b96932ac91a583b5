"""The pixels of one DICOM frame: stored grey values, or RGB.

Uncompressed pixels are read straight into their array: a copy would double the work
for a radiograph. Compressed pixels go to a codec.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._dicom_codecs import decode_frame, keep_stored_bits

if TYPE_CHECKING:
    from pydicom import Dataset


PIXEL_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *(
        name.format(colour)
        for colour in ("Red", "Green", "Blue")
        for name in (
            "{}PaletteColorLookupTableDescriptor",
            "{}PaletteColorLookupTableData",
            "Segmented{}PaletteColorLookupTableData",
        )
    ),
)

#: Bits per sample that are read here; other sizes are left to pydicom.
_PLAIN = {8, 16, 32}

_FLOATS = {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}

_GREYS = {"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"}

#: Supported colours, by their names in the standard.
_COLOURS = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}

#: Unsupported colours of the standard: those of video, and retired ones.
_OTHER_COLOURS = {"ARGB", "CMYK", "HSV", "XYB", "YBR_PARTIAL_420", "YBR_PARTIAL_422"}

#: Private tags for the number of slices in a mosaic: Siemens' own, the Siemens header
#: in which it is one field of many, and that of United Imaging (UIH).
_SIEMENS, _CSA, _UIH = (0x0019, 0x100A), (0x0029, 0x1010), (0x0065, 0x1050)

MOSAIC_TAGS: tuple[Any, ...] = ("ImageType", _SIEMENS, _CSA, _UIH)

#: The name of the field fills 64 bytes; 36 more come before its value.
_CSA_FIELD = re.compile(rb"NumberOfImagesInMosaic\0.{77}(\d+)", re.DOTALL)

_AGAIN = "Copy or export it again."


@dataclass(frozen=True)
class PixelElement:
    """Place of the pixels in a file."""

    keyword: str  # "PixelData", "FloatPixelData" or "DoubleFloatPixelData"
    vr: str  # "OB", "OW", ...
    stream: BinaryIO  # at the first byte of the value
    length: int | None  # in bytes; None for compressed pixels


def stored_values(
    dataset: Dataset, element: PixelElement, index: int
) -> NDArray[np.number[Any]]:
    """Return one frame: stored grey values (H, W), or RGB (H, W, 3)."""
    interpretation = _interpretation(dataset)
    stored, allocated = dataset.get("BitsStored"), dataset.get("BitsAllocated")
    if stored and allocated and stored > allocated:
        raise ImageReadError(
            f"its tags announce {stored} stored bits of {allocated} allocated", _AGAIN
        )
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        values = decode_frame(dataset, element.stream, index)
    elif _is_plain(dataset, element):
        values = _plain(dataset, element, index)
    else:
        values = _by_pydicom(dataset, element, index)
    if interpretation == "PALETTE COLOR":
        return _palette(dataset, values)
    if values.ndim == 2 and not interpretation.startswith("MONOCHROME"):
        reason = "its tags announce colours, but its pixels are grey"
        raise ImageReadError(reason, _AGAIN)
    if values.dtype.kind == "f" and not np.isfinite(values).any():
        raise ImageReadError("it holds only NaN or infinite values", _AGAIN)
    return values


def _interpretation(dataset: Dataset) -> str:
    name = str(dataset.PhotometricInterpretation)
    if name in _GREYS or name in _COLOURS:
        return name
    kind = name if name in _OTHER_COLOURS else "colours of an unknown kind"
    raise ImageReadError(
        f"its pixels are {kind}, which is not supported",
        "Export it as RGB or MONOCHROME2.",
    )


def _is_plain(dataset: Dataset, element: PixelElement) -> bool:
    """Whether the bytes in the file equal those of the array in memory."""
    if element.keyword in _FLOATS:
        return True
    # Bytes that were written as big-endian words are swapped in pairs.
    swapped = (
        dataset.BitsAllocated == 8 and element.vr == "OW" and not _is_little(dataset)
    )
    return (
        dataset.BitsAllocated in _PLAIN
        and dataset.PhotometricInterpretation != "YBR_FULL_422"
        and not swapped
    )


def _plain(dataset: Dataset, element: PixelElement, index: int) -> NDArray[Any]:
    n_samples = int(dataset.SamplesPerPixel)
    if n_samples not in (1, 3):
        reason = f"it has {n_samples} values per pixel, not 1 or 3"
        raise ImageReadError(reason, _AGAIN)
    shape: tuple[int, ...] = (int(dataset.Rows), int(dataset.Columns))
    by_plane = n_samples == 3 and int(dataset.get("PlanarConfiguration") or 0) == 1
    if n_samples == 3:
        shape = (3, *shape) if by_plane else (*shape, 3)
    values = np.empty(shape, _dtype(dataset, element.keyword))
    _fill(values, element, index)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if by_plane:
        values = values.transpose(1, 2, 0)
    if element.keyword == "PixelData":
        values = keep_stored_bits(
            values, int(dataset.BitsStored), dataset.get("HighBit")
        )
    if dataset.PhotometricInterpretation == "YBR_FULL":
        from pydicom.pixels.processing import convert_color_space

        values = convert_color_space(values, "YBR_FULL", "RGB")
    return values


def _dtype(dataset: Dataset, keyword: str) -> np.dtype[Any]:
    if keyword in _FLOATS:
        dtype = np.dtype(_FLOATS[keyword])
    else:
        kind = "i" if dataset.PixelRepresentation == 1 else "u"
        dtype = np.dtype(f"{kind}{dataset.BitsAllocated // 8}")
    return dtype.newbyteorder("<" if _is_little(dataset) else ">")


def _is_little(dataset: Dataset) -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)


def _fill(values: NDArray[Any], element: PixelElement, index: int) -> None:
    """Read the bytes of one frame into ``values``."""
    start = index * values.nbytes
    if element.length is not None and element.length < start + values.nbytes:
        raise ImageReadError("its pixels are missing or cut short", _AGAIN)
    element.stream.seek(start, 1)
    target = values.reshape(-1).view(np.uint8).data
    stream: Any = element.stream
    if stream.readinto(target) != len(target):
        raise ImageReadError("its pixels are missing or cut short", _AGAIN)


def _by_pydicom(dataset: Dataset, element: PixelElement, index: int) -> NDArray[Any]:
    """Decode uncompressed pixels that are not a plain array, such as masks of bits."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
    # Pass all frames, so that pydicom compares the whole length with the tags.
    options: dict[str, Any] = as_pixel_options(
        dataset, pixel_keyword=element.keyword, pixel_vr=element.vr
    )
    value = element.stream.read(-1 if element.length is None else element.length)
    values, _ = decoder.as_array(value, index=index, **options)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _palette(dataset: Dataset, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the colours of 8 or 16-bit indices."""
    from pydicom.pixels.processing import apply_color_lut

    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        raise ImageReadError("its palette does not fit the type of its pixels", _AGAIN)
    # Convert the whole palette, since the image may use only its dark end.
    levels = np.arange(256**values.dtype.itemsize).astype(values.dtype)
    palette = apply_color_lut(levels[None], dataset)[0, :, :3]
    # Entries of 16 bits hold the colour in the high byte; some devices put it into the
    # low byte.
    if palette.max() > 255:
        palette = palette >> 8
    return palette.astype(np.uint8).take(values, axis=0)


# -------------------------------------------------------------------------- mosaics

# Two vendors write all slices of an MR volume side by side into one image, as a square
# of tiles, row by row. Only private tags give their number.


def count_tiles(dataset: Dataset) -> int:
    """Return the number of slices side by side in an image; 1 if it is not a mosaic."""
    n_tiles = _number(dataset, _UIH)
    if not n_tiles and "MOSAIC" in (dataset.get("ImageType") or []):
        n_tiles = _number(dataset, _SIEMENS) or _csa_number(dataset)
    elif n_tiles < 2:
        return 1
    side = math.ceil(math.sqrt(n_tiles))
    if n_tiles == 1 or (
        n_tiles and not int(dataset.Rows) % side and not int(dataset.Columns) % side
    ):
        return n_tiles
    raise ImageReadError(
        "it is a mosaic of several slices, but its header does not say how to cut it",
        "Keep the private tags (0019,100A) or (0029,1010) when anonymising files, or "
        "convert the series to NIfTI with dcm2niix.",
    )


def cut_tile(values: NDArray[Any], n_tiles: int, index: int) -> NDArray[Any]:
    """Return one slice of a mosaic."""
    side = math.ceil(math.sqrt(n_tiles))
    height, width = values.shape[0] // side, values.shape[1] // side
    row, column = divmod(index, side)
    top, left = row * height, column * width
    return np.ascontiguousarray(values[top : top + height, left : left + width])


def _number(dataset: Dataset, tag: tuple[int, int]) -> int:
    """Return the number in a private tag, which may be raw bytes, or 0."""
    if tag not in dataset:
        return 0
    value = dataset[tag].value
    try:
        if isinstance(value, bytes):  # text by one vendor, binary by the other
            is_text = tag == _UIH
            value = value.strip(b" \0") if is_text else int.from_bytes(value, "little")
        return max(int(float(value)), 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def _csa_number(dataset: Dataset) -> int:
    header = dataset[_CSA].value if _CSA in dataset else None
    found = _CSA_FIELD.search(header) if isinstance(header, bytes) else None
    return int(found[1]) if found else 0
