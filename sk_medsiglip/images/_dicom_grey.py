"""The meaning of the stored values of a DICOM frame, and their display by its tags.

The steps follow the standard (PS3.3 C.11): the modality transformation gives values
their unit, the VOI transformation chooses black and white, and MONOCHROME1 is inverted.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.images._decoded_image import DecodedImage
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._intensity import (
    CTWindows,
    GoogleServing,
    Intensity,
    Percentiles,
    Tone,
    ramp,
)

if TYPE_CHECKING:
    from pydicom import Dataset


GREY_TAGS = (
    *("ImageType", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleIntercept", "RescaleSlope", "RescaleType", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)

#: Modalities whose values are already brightness, made for viewing.
_AS_STORED = {"ES", "GM", "IVUS", "OP", "SM", "US", "XC"}

#: Rescale types that mean Hounsfield units; the tag may be missing.
_HOUNSFIELD = {"", "HU", "HU_MOD"}

#: A rescale type that some devices give to everything.
_UNSPECIFIED = "US"

Unit = Callable[[NDArray[Any]], NDArray[Any]]


def own_scale(dataset: Dataset, index: int) -> Any:
    """Return the tags that decide the grey scale, for comparing two images."""
    modality = dataset.get("Modality")
    if modality == "MR":
        return None
    _bring_up_frame_tags(dataset, index)
    if modality not in _AS_STORED:
        tables = filter(_has_table, dataset.get("VOILUTSequence") or [])
        first = [*map(repr, tables), *_windows(dataset)][:1]
        if first:
            return first, str(dataset.get("VOILUTFunction") or "LINEAR")
    if modality in _AS_STORED or int(dataset.get("BitsStored") or 16) <= 8:
        return [numbers(dataset, f"Rescale{name}") for name in ("Slope", "Intercept")]
    return None


def modality_of(dataset: Dataset) -> str | None:
    """Return the modality if it is a code rather than free text."""
    modality = str(dataset.get("Modality") or "")
    return modality if re.fullmatch(r"[A-Z0-9]{2,16}", modality) else None


def numbers(dataset: Dataset, name: str) -> list[float]:
    """Return the numbers of a tag, or an empty list if one of them is invalid.

    Text is parsed here, since pydicom's objects for numbers take ten times as long.
    """
    from pydicom.datadict import dictionary_VR

    element: Any = dataset.get_item(name)
    if element is None:
        return []
    try:
        if isinstance(element.value, bytes) and (
            element.VR or dictionary_VR(element.tag)
        ) in ("DS", "IS"):
            value: Any = element.value.strip(b" \0").split(b"\\")
        else:
            value = dataset.get(name)
        several = hasattr(value, "__iter__") and not isinstance(value, str)
        found = [float(number) for number in (value if several else [value])]
    except (TypeError, ValueError, OverflowError):
        return []
    return found if all(map(math.isfinite, found)) else []


def dicom_image(dataset: Dataset, values: NDArray[Any], index: int) -> DecodedImage:
    """Return decoded values, (H, W) or RGB (H, W, 3), with their meaning."""
    modality = modality_of(dataset)
    if values.ndim == 3:
        is_shown = values.dtype == np.uint8
        tone = None if is_shown else ramp(0, 2 ** int(dataset.BitsStored) - 1)
        return DecodedImage(values, tone, "DICOM", modality)
    _bring_up_frame_tags(dataset, index)
    padding = _padding(dataset, values)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        # Some programs write NaN outside of the measured area. Show it as the lowest
        # value and, like padding, exclude it from percentiles.
        is_there = np.isfinite(values)
        fill = np.nextafter(values[is_there].min(), values.dtype.type(-np.inf))
        values, padding = np.where(is_there, values, fill), (float(fill), float(fill))
    in_unit = _in_unit(dataset)
    limits = _possible_range(dataset, values, in_unit)
    voi = tuple(_voi_tones(dataset, has_negative=limits[0] < 0))
    return DecodedImage(
        values,
        auto=_auto(dataset, values, in_unit, voi, limits),
        format="DICOM",
        modality=modality,
        in_unit=in_unit,
        inverted=dataset.PhotometricInterpretation == "MONOCHROME1",
        padding=padding,
        voi=voi,
        serving=functools.partial(_served, dataset, values, in_unit)
        if modality in ("CR", "CT", "DX")
        else None,
    )


def _bring_up_frame_tags(dataset: Dataset, index: int) -> None:
    """Copy the tags of one frame of an enhanced object to the top level."""
    groups = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    groups += list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[index:][:1]
    for group in groups:
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in list(group.get(name) or [])[:1]:
                dataset.update(item)


# Modality transformation


def _in_unit(dataset: Dataset) -> Unit | None:
    """Return the modality transformation, for example to Hounsfield units."""
    for item in filter(_has_table, dataset.get("ModalityLUTSequence") or []):
        is_signed = dataset.get("PixelRepresentation") == 1
        return _lookup(dataset, item, is_signed)[0]
    names = "RescaleSlope", "RescaleIntercept"
    given = [numbers(dataset, name) for name in names]
    if not all(len(found) == 1 for found in given):
        # A malformed value like "10,4" matters only if brightness depends on the unit.
        is_needed = dataset.get("Modality") not in {"MR", *_AS_STORED}
        if is_needed and None not in [dataset.get(name) for name in names]:
            raise ValueError("the rescale is not a number")
        return None
    (slope,), (intercept,) = given
    return lambda stored: stored.astype(np.float64) * slope + intercept


def _possible_range(
    dataset: Dataset, values: NDArray[Any], in_unit: Unit | None
) -> tuple[float, float]:
    """Return the smallest and the largest possible value of the pixels, in unit."""
    if values.dtype.kind == "f":
        ends = np.array([values.min(), values.max()], np.float64)
    else:
        bits = int(dataset.get("BitsStored") or 8 * values.dtype.itemsize)
        low = -(2.0 ** (bits - 1)) if values.dtype.kind == "i" else 0.0
        ends = np.array([low, low + 2.0**bits - 1])
    ends = ends if in_unit is None else in_unit(ends)
    return float(ends.min()), float(ends.max())


def _is_hounsfield(dataset: Dataset, lowest: float) -> bool:
    """Whether the values of a CT are Hounsfield units.

    Screen captures have no rescale, or 8 positive bits. Maps of iodine or electron
    density name another rescale type. Maps of perfusion name none, but are DERIVED.
    """
    unit = str(dataset.get("RescaleType") or "").strip().upper()
    if unit == _UNSPECIFIED:
        if "DERIVED" in (dataset.get("ImageType") or []):
            return False
    elif unit not in _HOUNSFIELD:
        return False
    return int(dataset.get("BitsStored") or 16) > 8 or lowest < 0


# Meaning of "auto"


def _auto(
    dataset: Dataset,
    values: NDArray[Any],
    in_unit: Unit | None,
    voi: tuple[Tone, ...],
    limits: tuple[float, float],
) -> Intensity | Tone | None:
    """Return the rule of ``intensity="auto"`` for a grey image of this modality."""
    modality = dataset.get("Modality")
    has_unit = in_unit is not None
    if modality == "CT" and has_unit and _is_hounsfield(dataset, limits[0]):
        return CTWindows()
    if modality == "MR":
        return Percentiles()
    if modality not in _AS_STORED and voi:
        return voi[0]
    bits = int(dataset.get("BitsStored") or 8 * values.dtype.itemsize)
    if values.dtype.kind == "u" and (bits <= 8 or modality in _AS_STORED):
        is_shown = values.dtype == np.uint8 and bits == 8 and not has_unit
        return None if is_shown else ramp(*limits)
    return Percentiles(low=0, high=100)


def _served(
    dataset: Dataset,
    values: NDArray[Any],
    in_unit: Unit | None,
    recipe: GoogleServing,
) -> Tone:
    """Return the tone of Google's serving container for CT and radiographs."""
    is_ct = dataset.Modality == "CT"
    windows = _windows(dataset)
    low, high = -np.inf, np.inf
    if windows or is_ct:
        center, width = windows[0] if windows else (recipe.center, recipe.width)
        low, high = center - width // 2, center + width // 2
    elif values.dtype == np.uint8:
        return ramp(0, 255)
    if not is_ct:
        ends = np.array([values.min(), values.max()])
        ends = ends if in_unit is None else in_unit(ends)
        low, high = np.clip([ends.min(), ends.max()], low, high)
    return ramp(float(low), float(high))


# VOI transformation


def _voi_tones(dataset: Dataset, has_negative: bool) -> Iterator[Tone]:
    """Yield the usable VOI tables of the file, then its windows."""
    for item in filter(_has_table, dataset.get("VOILUTSequence") or []):
        yield _table_tone(dataset, item, has_negative)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    for center, width in _windows(dataset):
        yield _window_tone(center, width, function)


def _windows(dataset: Dataset) -> list[tuple[float, float]]:
    centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    pairs = zip(centers, widths, strict=False)
    return [(center, width) for center, width in pairs if width > 0]


def _table_tone(dataset: Dataset, item: Dataset, has_negative: bool) -> Tone:
    @functools.cache
    def lookup() -> tuple[Unit, Tone]:  # read only if used, since it may be damaged
        with decoding("its lookup table is damaged", "Copy or export it again."):
            table, white = _lookup(dataset, item, has_negative)
            return table, ramp(0, white)

    def tone(values: NDArray[Any]) -> NDArray[np.uint8]:
        table, to_bytes = lookup()
        return to_bytes(table(values))

    return tone


def _window_tone(center: float, width: float, function: str) -> Tone:
    if function == "SIGMOID":  # PS3.3 C.11.2.1.3.1
        return lambda values: _sigmoid((values - center) / width)
    # PS3.3 C.11.2.1.2.1. Windows on fractions, such as ADC or uptake, are narrower than
    # 1, which that formula does not allow; they are taken as LINEAR_EXACT.
    if function != "LINEAR_EXACT" and width >= 1:
        center, width = center - 0.5, width - 1
    if width == 0:
        return lambda values: np.where(values > center, 255, 0).astype(np.uint8)
    return ramp(center - width / 2, center + width / 2)


def _sigmoid(values: NDArray[Any]) -> NDArray[np.uint8]:
    # Beyond 10 widths the result is black or white, and exp would overflow.
    values = np.clip(values, -10, 10)
    return np.rint(255 / (1 + np.exp(-4 * values))).astype(np.uint8)


# Lookup tables and padding


def _has_table(item: Dataset) -> bool:
    """Whether an item of a sequence of tables holds a table."""
    return bool(item.get("LUTDescriptor")) and bool(item.get("LUTData"))


def _lookup(dataset: Dataset, item: Dataset, is_signed: bool) -> tuple[Unit, float]:
    """Return a lookup table of the file as a function, and its white.

    ``is_signed`` tells whether the 16 bits of its first input value have a sign.
    """
    n_entries, first, bits = (int(value) for value in item.LUTDescriptor)
    n_entries = n_entries % 2**16 or 2**16
    if is_signed and first >= 2**15:
        first -= 2**16
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


def _padding(dataset: Dataset, values: NDArray[Any]) -> tuple[float, float] | None:
    """Return the first and the last stored value that mean padding."""
    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int | float):
        return None
    last = dataset.get("PixelPaddingRangeLimit")
    if not isinstance(last, int | float):
        last = first
    if values.dtype.kind in "iu":
        first, last = (_as_stored(dataset, values, value) for value in (first, last))
    return min(first, last), max(first, last)


def _as_stored(dataset: Dataset, values: NDArray[Any], value: float) -> int:
    """Return a padding value as stored in the pixels; some writers drop its sign."""
    bits = int(dataset.get("BitsStored") or 8 * values.dtype.itemsize)
    pattern = int(value) % 2**bits
    if values.dtype.kind == "i" and pattern >= 2 ** (bits - 1):
        pattern -= 2**bits
    return pattern
