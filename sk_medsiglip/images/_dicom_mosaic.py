"""Mosaics: all slices of a volume side by side in one image, as two vendors write MR.

Only private tags give their number. They fill a square of tiles row by row.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import ImageReadError

if TYPE_CHECKING:
    from pydicom import Dataset


#: The number itself by Siemens; its header of many fields, where the number is one;
#: and the number by United Imaging (UIH).
_SIEMENS, _CSA, _UIH = (0x0019, 0x100A), (0x0029, 0x1010), (0x0065, 0x1050)

MOSAIC_TAGS: tuple[Any, ...] = ("ImageType", _SIEMENS, _CSA, _UIH)

#: The name of the field fills 64 bytes; 36 more come before its value.
_CSA_FIELD = re.compile(rb"NumberOfImagesInMosaic\0.{77}(\d+)", re.DOTALL)


def count_tiles(dataset: Dataset) -> int:
    """Return how many slices an image holds side by side; 1 where it is no mosaic."""
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
        "it is a mosaic of several slices, and its header does not tell how to cut it",
        "Keep the private tags (0019,100A) or (0029,1010) where files are anonymised, "
        "or convert the series to NIfTI by dcm2niix.",
    )


def cut_tile(values: NDArray[Any], n_tiles: int, index: int) -> NDArray[Any]:
    """Return one slice of a mosaic."""
    side = math.ceil(math.sqrt(n_tiles))
    height, width = values.shape[0] // side, values.shape[1] // side
    row, column = divmod(index, side)
    top, left = row * height, column * width
    return np.ascontiguousarray(values[top : top + height, left : left + width])


def _number(dataset: Dataset, tag: tuple[int, int]) -> int:
    """Return a private number, which may be bytes of an unknown type, or 0."""
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
