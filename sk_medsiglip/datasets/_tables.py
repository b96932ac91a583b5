"""Tables and folders as they are handed out: paths, numbers, labels with blanks.

What the loaders and the command line share. Nothing here speaks to the user: the
callers know whether a parameter or an option is to be named.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
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
#: No-break spaces and characters that show nothing: they stand in cells unseen.
_INVISIBLE = "\u00a0\u2007\u202f\u200b\u2060\ufeff"
#: Byte order marks; the longer first, since it begins as the other does.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: First bytes of what people take for a table of text.
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook (.xlsx) or another archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
    b"\x1f\x8b": "a gzip archive",
    b"PAR1": "a Parquet file",
}
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
        In UTF-8, or in UTF-16 or UTF-32 with a byte order mark. Commas, semicolons,
        tabs or bars separate: as a first line ``sep=;`` says, else what fits the first
        rows.

    Returns
    -------
    pandas.DataFrame
        Of strings; blanks, and what a row lacks at its end, are empty strings. Names
        of columns are without spaces around them, cells without no-break spaces and
        invisible characters. Separators at the end of a row that nothing follows are
        passed over.

    Raises
    ------
    ValueError
        If it is no such file, two columns have one name, or a row has more cells than
        there are names.
    OSError
        If it cannot be opened.
    """
    text = _decode(file.read_bytes())
    said = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)
    text = text[said.end() :] if said else text
    separator = "\t" if file.suffix.lower() == ".tsv" else _separator(text)
    separator = said[1] if said else separator
    _refuse_equal_names(_first_rows(text, separator, 1))
    settings: dict[str, Any] = {"sep": separator, "index_col": False, "dtype": str}
    try:
        with warnings.catch_warnings():
            # pandas' way to say that it leaves cells out.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(io.StringIO(text), keep_default_na=False, **settings)
    except (pd.errors.ParserError, pd.errors.ParserWarning):
        names = pd.read_csv(io.StringIO(text), nrows=0, **settings).columns
        frame = pd.DataFrame(_read_rows(text, separator), columns=names, dtype=str)
    names = [str(name).strip() for name in frame.columns]
    if len(set(names)) == len(names):
        frame.columns = pd.Index(names)
    return frame.fillna("").apply(lambda column: column.str.strip(_INVISIBLE))


def _decode(content: bytes) -> str:
    """Return the text of a file; raise ValueError that says what it is instead."""
    for start, what in _OTHER_FILES.items():
        if content.startswith(start):
            raise ValueError(f"it is {what}. Save it as CSV in UTF-8.")
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return content.decode(name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        odd = content[error.start : error.start + 1]
        raise ValueError(
            f"line {line} is not UTF-8; in cp1252, as Windows writes, its first odd "
            f"character is {odd.decode('cp1252', 'replace')!r}. Save it as CSV in "
            'UTF-8, or: Path(new).write_text(Path(old).read_text("cp1252"), "utf-8").'
        ) from None
    if "\0" in text:
        raise ValueError(
            "it holds null characters, as UTF-16 without a byte order mark does. Save "
            "it as CSV in UTF-8."
        )
    return text


def _first_rows(text: str, separator: str, n_rows: int) -> list[list[str]]:
    """Return the cells of the first rows, fewer where it is not a table."""
    rows = filter(None, csv.reader(io.StringIO(text, ""), delimiter=separator))
    found: list[list[str]] = []
    with suppress(csv.Error):  # pandas says why
        found.extend(itertools.islice(rows, n_rows))
    return found


def _separator(text: str) -> str:
    """Return what cuts most of the first rows into as many cells as there are names."""
    best, most = ",", (0, 1)
    for separator in (",", ";", "\t", "|"):
        names, *rows = _first_rows(text, separator, 50) or [[]]
        fits = sum(len(row) == len(names) for row in rows)
        if len(names) > 1 and (fits, len(names)) > most:
            best, most = separator, (fits, len(names))
    return best


def _refuse_equal_names(rows: list[list[str]]) -> None:
    """Raise ValueError if two columns have one name: which is meant is not known."""
    names = rows[0] if rows else []
    for place, name in enumerate(names):
        if name.strip() and name in names[:place]:
            raise ValueError(
                f"columns {names.index(name) + 1} and {place + 1} are both called "
                f"{name!r}. Rename one of them."
            )


def _read_rows(text: str, separator: str) -> list[list[str]]:
    """Return the cells of rows that are not all as long as the line of names."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, ""), delimiter=separator, strict=True)
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
        A path, or a URL. Spaces around it do not count, unless a file is so called.
    folder : pathlib.Path
        Where relative paths begin.

    Returns
    -------
    str
    """
    if name != name.strip() and not (folder / name).exists():
        name = name.strip()
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
    numbers = pd.to_numeric(_with_points(filled), errors="coerce")
    is_name = column.str.match(r"\s*[+-]?0\d").any()
    words = filled[numbers.isna() & ~blank]
    if blank.all() or is_name:
        return filled
    if len(words):
        rest = numbers.dropna()
        is_binary = len(rest) > 0 and rest.isin((0, 1, -1)).all()
        return numbers if is_binary and words.map(_is_missing).all() else filled
    return numbers


def _with_points(column: pd.Series) -> pd.Series:
    """Return decimal commas as points, in a column where commas can be nothing else."""
    words = column.dropna().str.strip()
    words = words[~words.map(_is_missing)]
    commas = words[words.str.contains(",", regex=False)]
    # "1,000" may be a thousand.
    if (
        commas.str.fullmatch(r"\d{1,3}(,\d{3})+").all()
        or not words.str.fullmatch(r"[+-]?\d+(,\d+)?").all()
    ):
        return column
    return column.str.replace(",", ".", regex=False)


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
