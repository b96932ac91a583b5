"""Tables and folders as they are handed out: paths, numbers, labels with blanks.

What the loaders and the command line share. Nothing here speaks to the user: the
callers know whether a parameter or an option is to be named.
"""

from __future__ import annotations

import csv
import os
import warnings
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
    "locate",
    "parse_names",
    "parse_numbers",
    "read_binary",
    "read_strings",
    "usual_path_column",
]

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
)
_PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "image_path")
#: Folders that systems and network disks put beside images: previews, what was deleted.
_SYSTEM_FOLDERS = frozenset(("__macosx", "@eadir", "#recycle", "$recycle.bin"))
#: What programs write for a missing 0 or 1.
_MISSING = frozenset(("na", "n/a", "nan", "none", "null", "<na>", "."))
#: Whole numbers below are apart as floats, too.
_EXACT = 2**53

#: What an uncertain or blank label may be taken for.
Meaning = Literal["ignore", "negative", "positive"]
_VALUES = {"ignore": np.nan, "negative": 0.0, "positive": 1.0}


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder and its sub-folders, sorted.

    Parameters
    ----------
    folder : pathlib.Path
        Hidden files and folders in it are left out, and those of systems, such as
        ``__MACOSX`` and ``@eaDir``.

    Returns
    -------
    list of pathlib.Path
        By suffix; without a usual one, what begins as a DICOM file does.
    """
    return sorted(path for path in folder.rglob("*") if _is_image(path, folder))


def _is_image(path: Path, folder: Path) -> bool:
    for part in path.relative_to(folder).parts:
        if part.startswith(".") or part.lower() in _SYSTEM_FOLDERS:
            return False
    if not path.is_file():
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
        In UTF-8. Semicolons and tabs separate where no comma does in the line of
        names.

    Returns
    -------
    pandas.DataFrame
        Of strings; blanks, and what a row lacks at its end, are empty strings. Names
        of columns are without spaces around them. Separators at the end of a row that
        nothing follows are passed over.

    Raises
    ------
    ValueError
        If it is no such file, or a row has more cells than there are names.
    OSError
        If it cannot be opened.
    """
    separator = _separator(file)
    settings: dict[str, Any] = {"sep": separator, "index_col": False, "dtype": str}
    try:
        with warnings.catch_warnings():
            # pandas' way to say that it leaves cells out.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(file, keep_default_na=False, **settings)
    except (pd.errors.ParserError, pd.errors.ParserWarning):
        names = pd.read_csv(file, nrows=0, **settings).columns
        frame = pd.DataFrame(_read_rows(file, separator), columns=names, dtype=str)
    names = [str(name).strip() for name in frame.columns]
    if len(set(names)) == len(names):
        frame.columns = pd.Index(names)
    return frame.fillna("")


def _separator(file: Path) -> str:
    """Return what stands between the names of columns."""
    if file.suffix.lower() == ".tsv":
        return "\t"
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for separator in (",", ";", "\t"):
            lines.seek(0)
            rows = csv.reader(lines, delimiter=separator)
            try:
                if len(next(filter(None, rows), [])) > 1:
                    return separator
            except csv.Error:  # no table: pandas says why
                break
    return ","


def _read_rows(file: Path, separator: str) -> list[list[str]]:
    """Return the cells of rows that are not all as long as the line of names."""
    rows: list[list[str]] = []
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        try:
            width = len(next(filter(None, reader)))
            for row in reader:
                if len(row) < 2 and not "".join(row).strip():  # as pandas does
                    continue
                if "".join(row[width:]).strip():
                    raise ValueError(
                        f"row {len(rows) + 1} (line {reader.line_num}) holds "
                        f"{len(row)} cells, for {width} columns that have a name. A "
                        f"cell that holds {separator!r} belongs in double quotes."
                    )
                rows.append(row[:width] + [""] * (width - len(row)))
        except csv.Error as error:
            raise ValueError(f"line {reader.line_num}: {error}") from error
    return rows


def locate(name: str, folder: Path) -> str:
    """Return what to open for a path in a table.

    Parameters
    ----------
    name : str
        A path, or a URL, which stays as it is.
    folder : pathlib.Path
        Where relative paths begin.

    Returns
    -------
    str
    """
    # Not Path.expanduser: it fails for files whose names begin with "~".
    return name if "://" in name else str(folder / os.path.expanduser(name))


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
        Of numbers or strings, in both missing where the cell was blank; of 0, 1 and -1
        missing also where it was a word for that, such as "NA".
    """
    blank = column.str.strip() == ""
    filled = column.mask(blank)
    numbers = pd.to_numeric(filled, errors="coerce")
    is_name = column.str.match(r"\s*[+-]?0\d").any()
    words = filled[numbers.isna() & ~blank]
    if blank.all() or is_name:
        return filled
    if len(words):
        rest = numbers.dropna()
        is_binary = len(rest) > 0 and rest.isin((0, 1, -1)).all()
        return numbers if is_binary and words.map(_is_missing).all() else filled
    return numbers


def parse_names(column: pd.Series) -> Any:
    """Turn names into numbers where that loses nothing: names of patients, of splits.

    Parameters
    ----------
    column : pandas.Series
        Of strings, or missing.

    Returns
    -------
    pandas.Series
        Of numbers if each can be read back, as ``12`` can, and ``1.10``, ``10E2`` and
        numbers of twenty digits cannot; else of strings, without spaces around them.
        Missing where the cell was blank.
    """
    texts = column.fillna("").astype(str).str.strip()
    numbers = parse_numbers(texts)
    known = numbers.notna()
    if pd.api.types.is_numeric_dtype(numbers) and all(
        map(_reads_back, numbers[known], texts[known])
    ):
        return numbers
    return texts.mask(texts == "")


def _reads_back(number: Any, text: str) -> bool:
    whole = abs(number) < _EXACT and number == int(number)
    return str(number) == text or (whole and text in (f"{number:.0f}", f"{number:.1f}"))


def read_binary(
    column: pd.Series, uncertain: Meaning, blank: Meaning
) -> NDArray[np.float64] | None:
    """Read a column of present and absent.

    Parameters
    ----------
    column : pandas.Series
        0 and 1, or true and false in words; -1 is uncertain, and "NA", "N/A", "NaN",
        "None", "null" and "." are missing.
    uncertain, blank : {"ignore", "negative", "positive"}
        What -1 and a missing value mean.

    Returns
    -------
    ndarray of 0, 1 and NaN, or None
        None if the column holds something else, or nothing.
    """
    words = {"true": 1, "false": 0}
    gone = column.isna() | column.map(_is_missing)
    values = column.mask(gone).map(
        lambda v: words.get(v.strip().lower(), v) if isinstance(v, str) else v
    )
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers[~gone].isna().any():
        return None
    # -1 is "uncertain" in CheXpert's and MIMIC-CXR's tables.
    result = numbers.astype(float).mask(numbers == -1, _VALUES[uncertain])
    result = result.mask(gone, _VALUES[blank]).to_numpy()
    known = set(np.unique(result[np.isfinite(result)]))
    return result if known and known <= {0.0, 1.0} else None


def _is_missing(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in _MISSING


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
