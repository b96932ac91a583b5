"""DICOM files: one frame, its stored values, and what the tags say about them.

Of a file only the tags named here are kept, and no patient's among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._intensity import (
    CTWindows,
    Intensity,
    Percentiles,
    Tone,
    ramp,
)
from sk_medsiglip.images._picture import Picture, refuse_too_large
from sk_medsiglip.images._pillow import choose_frame

if TYPE_CHECKING:
    from pydicom import Dataset

__all__ = ["is_dicom", "load_dicom"]

_TAGS = [
    "SOPClassUID",
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
]

#: Pictures that were made to be looked at: their values are brightness already.
_AS_STORED = {"ES", "GM", "IVUS", "OP", "SM", "US", "XC"}

_AGAIN = "Copy or export it again."
_CODECS = 'Install the codecs for it: pip install "sk-medsiglip[dicom]"'


def is_dicom(head: bytes) -> bool:
    """Whether a file's first bytes are DICOM, with or without the preamble."""
    if head[128:132] == b"DICM":
        return True
    # Without it, as old archives export: the first tag is of group 2 or 8, its
    # element low, little or big endian.
    group, element = head[0:2], head[2:4]
    little = group in (b"\x02\x00", b"\x08\x00") and element[1:] == b"\x00"
    big = group in (b"\x00\x02", b"\x00\x08") and element[:1] == b"\x00"
    return (little or big) and len(head) >= 16


def load_dicom(
    stream: BinaryIO, *, frame: int | str | None, max_pixels: int
) -> Picture:
    """Decode one frame of a DICOM file."""
    pydicom = import_optional("pydicom", extra="dicom", purpose="Reading DICOM files")
    with decoding("its DICOM tags cannot be read", _AGAIN):
        dataset = pydicom.dcmread(stream, force=True, specific_tags=_TAGS)
        _check_has_pixels(dataset)
        n_frames = int(dataset.get("NumberOfFrames") or 1)
        index = choose_frame(frame, n_frames)
        refuse_too_large(int(dataset.Rows), int(dataset.Columns), max_pixels)
        _check_codec(dataset)
    with decoding(
        "its pixels are damaged, cut short, or unlike its tags", _hint(dataset)
    ):
        values = _decode(dataset, index)
    with decoding("its tags on grey values are damaged", _AGAIN):
        _bring_up_frame_tags(dataset, index)
        return _picture(dataset, values)


def _check_has_pixels(dataset: Dataset) -> None:
    has_data = any(
        name in dataset
        for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
    )
    if has_data and dataset.get("Rows") and dataset.get("Columns"):
        return
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    # The dictionary's name of the kind of object; an unknown one stays unnamed.
    kind = uid.name if uid and uid.name != uid else "DICOM"
    if has_data:
        raise ImageReadError(f"it is a {kind} object without rows and columns", _AGAIN)
    if dataset.get("Rows") or "Image" in kind:
        raise ImageReadError("its pixels are missing or cut short", _AGAIN)
    raise ImageReadError(
        f"it holds no pixels: it is a {kind} object",
        "Leave it out; only DICOM files with an image can be embedded.",
    )


def _check_codec(dataset: Dataset) -> None:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import (
        UID,
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    )

    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian
            if implicit
            else ExplicitVRLittleEndian
            if little
            else ExplicitVRBigEndian
        )
    syntax: UID = dataset.file_meta.TransferSyntaxUID
    name = syntax.name if syntax.name != syntax else "a private transfer syntax"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageReadError(
            f"its pixels are stored as {name}, which is not read",
            "Export it as uncompressed DICOM, or as PNG.",
        ) from error
    if not decoder.is_available:
        raise ImageReadError(
            f"its pixels are stored as {name}, and no codec for it is installed",
            _CODECS,
        )


def _hint(dataset: Dataset) -> str:
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return f"If a viewer opens it: {_CODECS[0].lower()}{_CODECS[1:]}"
    return _AGAIN


def _decode(dataset: Dataset, index: int) -> NDArray[Any]:
    """Return stored values (H, W), or RGB (H, W, 3)."""
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    values = pixel_array(dataset, index=index)
    interpretation = dataset.PhotometricInterpretation
    if interpretation == "PALETTE COLOR":
        colours = apply_color_lut(values, dataset)[..., :3]
        # Entries of 16 bits hold the colour in the high byte; some devices put it
        # into the low one.
        values = (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)
    elif values.ndim == 2 and not interpretation.startswith("MONOCHROME"):
        raise ImageReadError("its tags announce colours, its pixels are grey", _AGAIN)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageReadError("it holds NaN or infinite values", _AGAIN)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _bring_up_frame_tags(dataset: Dataset, index: int) -> None:
    """Copy what enhanced objects say per frame to where others say it."""
    groups = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    groups += list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[index:][:1]
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in list(group.get(name) or [])[:1]:
                dataset.update(item)


def _picture(dataset: Dataset, values: NDArray[Any]) -> Picture:
    modality = str(dataset.get("Modality") or "")
    # A code of the standard; anything else has no business in a table of results.
    known = modality if re.fullmatch(r"[A-Z0-9]{2,16}", modality) else None
    if values.ndim == 3:
        return Picture(values, _colour_tone(dataset, values), "DICOM", known)
    in_unit = _in_unit(dataset)
    return Picture(
        values,
        auto=_auto(dataset, values, known, in_unit),
        format="DICOM",
        modality=known,
        in_unit=in_unit,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        padding=_padding(dataset),
    )


def _colour_tone(dataset: Dataset, values: NDArray[Any]) -> Tone | None:
    if values.dtype == np.uint8:
        return None
    return ramp(0, 2 ** int(dataset.BitsStored) - 1)


def _in_unit(dataset: Dataset) -> Callable[[NDArray[Any]], NDArray[Any]] | None:
    """Return the modality transformation: stored values to Hounsfield units, say."""
    if dataset.get("ModalityLUTSequence"):
        table, _ = _lookup(dataset, dataset.ModalityLUTSequence[0])
        return table
    if dataset.get("RescaleSlope") is None or dataset.get("RescaleIntercept") is None:
        return None
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return lambda stored: stored.astype(np.float64) * slope + intercept


def _auto(
    dataset: Dataset,
    values: NDArray[Any],
    modality: str | None,
    in_unit: Callable[[NDArray[Any]], NDArray[Any]] | None,
) -> Intensity | Tone | None:
    """Return what ``intensity="auto"`` is for a grey image of this modality."""
    # A CT that was captured from a screen has no rescale and no Hounsfield units.
    if modality == "CT" and in_unit is not None:
        return CTWindows()
    if modality == "MR":
        return Percentiles()
    if modality not in _AS_STORED:
        tone = _voi_tone(dataset)
        if tone is not None:
            return tone
    bits = int(dataset.get("BitsStored") or values.dtype.itemsize * 8)
    if values.dtype.kind == "u" and (bits <= 8 or modality in _AS_STORED):
        if values.dtype == np.uint8 and bits == 8:
            return None
        full = np.array([0, 2**bits - 1])
        low, high = full if in_unit is None else in_unit(full)
        return ramp(float(low), float(high))
    return Percentiles(low=0, high=100)


def _voi_tone(dataset: Dataset) -> Tone | None:
    """Return the first VOI LUT or window of the file; None where none is usable."""
    if dataset.get("VOILUTSequence"):
        table, white = _lookup(dataset, dataset.VOILUTSequence[0])
        to_bytes = ramp(0, white)
        return lambda values: to_bytes(table(values))
    center, width = _first(dataset, "WindowCenter"), _first(dataset, "WindowWidth")
    if center is None or width is None:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "LINEAR":  # PS3.3 C.11.2.1.2.1
        center, width = center - 0.5, width - 1
    if width < 0 or (width == 0 and function != "LINEAR"):
        return None
    if function == "SIGMOID":  # PS3.3 C.11.2.1.3.1
        return lambda values: _sigmoid((values - center) / width)
    if width == 0:
        return lambda values: np.where(values > center, 255, 0).astype(np.uint8)
    return ramp(center - width / 2, center + width / 2)


def _sigmoid(values: NDArray[Any]) -> NDArray[np.uint8]:
    # Beyond 10 widths the result is black or white, and exp would overflow.
    values = np.clip(values, -10, 10)
    return np.rint(255 / (1 + np.exp(-4 * values))).astype(np.uint8)


def _first(dataset: Dataset, name: str) -> float | None:
    value = dataset.get(name)
    if isinstance(value, list | tuple) or hasattr(value, "__getitem__"):
        value = value[0] if len(value) else None
    return None if value is None else float(value)


def _lookup(
    dataset: Dataset, item: Dataset
) -> tuple[Callable[[NDArray[Any]], NDArray[Any]], float]:
    """Return a lookup table of the file as a function, and its white."""
    n_entries, first, bits = (int(value) for value in item.LUTDescriptor)
    n_entries = n_entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        little = dataset.file_meta.TransferSyntaxUID.is_little_endian
        one_byte = bits == 8 and len(data) < 2 * n_entries
        data = np.frombuffer(data, "u1" if one_byte else "<u2" if little else ">u2")
    table = np.asarray(data)[:n_entries].astype(np.float64)

    def look_up(values: NDArray[Any]) -> NDArray[Any]:
        entries = np.rint(values).astype(np.int64) - first
        return table[np.clip(entries, 0, len(table) - 1)]

    # Some devices announce fewer bits than their entries use.
    return look_up, max(2.0**bits - 1, float(table.max()))


def _padding(dataset: Dataset) -> tuple[float, float] | None:
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int | float):
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    if not isinstance(last, int | float):
        last = first
    return min(first, last), max(first, last)
