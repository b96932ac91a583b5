"""Tables and folders as they are handed out: paths, numbers, labels with blanks.

What the loaders and the command line share. Nothing here speaks to the user: the
callers know whether a parameter or an option is to be named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

__all__ = [
    "IMAGE_SUFFIXES",
    "Meaning",
    "class_name",
    "list_images",
    "parse_numbers",
    "read_binary",
    "read_strings",
    "usual_path_column",
]

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
)
_PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "image_path")

#: What an uncertain or blank label may be taken for.
Meaning = Literal["ignore", "negative", "positive"]
_VALUES = {"ignore": np.nan, "negative": 0.0, "positive": 1.0}


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder and its sub-folders, sorted.

    Parameters
    ----------
    folder : pathlib.Path
        Hidden files and folders in it are left out.

    Returns
    -------
    list of pathlib.Path
        By suffix; without a usual one, what begins as a DICOM file does.
    """
    return sorted(path for path in folder.rglob("*") if _is_image(path, folder))


def _is_image(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    if hidden or not path.is_file():
        return False
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    # Scanners and archives export DICOM files as "IM0001" or "1.2.840.113.5".
    if path.suffix and not path.suffix[1:].isdigit():
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return True  # whoever reads it says why that fails, and goes on


def read_strings(file: Path) -> pd.DataFrame:
    """Read a CSV file, or by its suffix a TSV file, every cell as it is written.

    Parameters
    ----------
    file : pathlib.Path
        In UTF-8.

    Returns
    -------
    pandas.DataFrame
        Of strings; blanks are empty strings.

    Raises
    ------
    ValueError
        If it is no such file.
    OSError
        If it cannot be opened.
    """
    separator = "\t" if file.suffix.lower() == ".tsv" else ","
    return pd.read_csv(file, sep=separator, dtype=str, keep_default_na=False)


def usual_path_column(columns: Sequence[str]) -> str | None:
    """Return the column whose name says that it holds paths, None if none does."""
    usual = [name for name in columns if str(name).lower() in _PATH_COLUMNS]
    return str(usual[0]) if usual else None


def parse_numbers(column: pd.Series) -> Any:
    """Turn a column of numbers into numbers; ``007`` names something, and stays.

    Parameters
    ----------
    column : pandas.Series
        Of strings.

    Returns
    -------
    pandas.Series
        Of numbers or strings, in both missing where the cell was blank.
    """
    blank = column.str.strip() == ""
    filled = column.mask(blank)
    numbers = pd.to_numeric(filled, errors="coerce")
    is_name = column.str.match(r"\s*[+-]?0\d").any()
    if blank.all() or is_name or numbers[~blank].isna().any():
        return filled
    return numbers


def read_binary(
    column: pd.Series, uncertain: Meaning, blank: Meaning
) -> NDArray[np.float64] | None:
    """Read a column of present and absent.

    Parameters
    ----------
    column : pandas.Series
        0 and 1, or true and false in words; -1 is uncertain.
    uncertain, blank : {"ignore", "negative", "positive"}
        What -1 and a missing value mean.

    Returns
    -------
    ndarray of 0, 1 and NaN, or None
        None if the column holds something else, or nothing.
    """
    words = {"true": 1, "false": 0}
    values = column.map(lambda v: words.get(v.lower(), v) if isinstance(v, str) else v)
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers[column.notna()].isna().any():
        return None
    # -1 is "uncertain" in CheXpert's and MIMIC-CXR's tables.
    result = numbers.astype(float).mask(numbers == -1, _VALUES[uncertain])
    result = result.mask(column.isna(), _VALUES[blank]).to_numpy()
    known = set(np.unique(result[np.isfinite(result)]))
    return result if known and known <= {0.0, 1.0} else None


def class_name(value: Any) -> str:
    """Return a class as it was written: ``1``, not the ``1.0`` of a column of floats.

    Parameters
    ----------
    value : object
        A cell.

    Returns
    -------
    str
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
