"""Tables and folders as they are handed out: paths, numbers, labels with blanks.

The loaders and the command line share them.
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

from sk_medsiglip.exceptions import DatasetError

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm", ".dicom")
)
#: Rows in which names of files are looked for: a check of each may be a network call.
_LOOKED_AT = 10
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
#: First bytes of files that people take for a table of text.
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook (.xlsx) or another archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
    b"\x1f\x8b": "a gzip archive",
    b"PAR1": "a Parquet file",
}
#: Texts that programs write for a missing 0 or 1.
_MISSING = frozenset(("na", "n/a", "nan", "none", "null", "<na>", "."))
#: Whole numbers below are apart as floats, too.
_EXACT = 2**53

#: Meanings that an uncertain or blank label may have.
Meaning = Literal["ignore", "negative", "positive"]
_VALUES = {"ignore": np.nan, "negative": 0.0, "positive": 1.0}


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder and its sub-folders, sorted.

    Images are known by their suffix or, without a usual one, by the first bytes of a
    DICOM file. Hidden files and those of systems (``__MACOSX``) are left out.
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
        return True  # the reader reports the reason later, for this file alone


def read_table(
    source: Path, path_column: str | None = None
) -> tuple[pd.DataFrame, str]:
    """Read a table of images: cells as they are written, and the column of paths."""
    if not source.is_file():
        raise DatasetError(
            f"{source} is not a file. Give a CSV file with a column of paths, or load "
            "a folder of images with load_image_folder."
        )
    try:
        cells = read_strings(source)
    except ValueError as error:
        raise ValueError(f"{source} cannot be read as a CSV file: {error}") from error
    if cells.empty:
        raise ValueError(f"{source} holds no rows.")
    chosen = path_column or _find_path_column(cells, source.parent)
    if chosen is None:
        raise ValueError(
            f"which column of {source} holds the paths? None holds names of files that "
            f"exist. Pass path_column, one of: {', '.join(cells.columns)}."
        )
    check_columns(cells, [chosen], "path_column")
    empty = np.flatnonzero(cells[chosen].str.strip() == "")
    if empty.size:
        raise ValueError(
            f"{source}: row {empty[0] + 1} has no path in column {chosen!r}."
        )
    return cells, chosen


def check_columns(frame: pd.DataFrame, names: Sequence[str], parameter: str) -> None:
    """Raise ValueError if a column is missing."""
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(
            f"{parameter}: there is no column {missing[0]!r}. The columns are: "
            f"{', '.join(map(str, frame.columns))}."
        )


def usual_path_column(columns: Sequence[str]) -> str | None:
    """Return the first column whose name says that it holds paths, if any."""
    usual = [name for name in columns if str(name).lower() in _PATH_COLUMNS]
    return str(usual[0]) if usual else None


def _find_path_column(cells: pd.DataFrame, folder: Path) -> str | None:
    """Return the first column with a file that exists, those of usual names first."""
    first = usual_path_column(cells.columns)
    names = sorted(
        cells.columns, key=lambda name: str(name).lower() not in _PATH_COLUMNS
    )
    for name in names:
        some = [cell for cell in cells[name].head(_LOOKED_AT) if cell.strip()]
        if any("://" in cell or os.path.isfile(locate(cell, folder)) for cell in some):
            return str(name)
    return first  # its files are missing: the reader names the rows


def read_strings(file: Path) -> pd.DataFrame:
    """Read a CSV file, or by its suffix a TSV file, every cell as it is written.

    The text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. Commas, semicolons,
    tabs or bars separate: as a first line ``sep=;`` says, else whichever fits the first
    rows. Blanks, and cells that a row lacks at its end, are empty strings.
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
            # pandas warns where it leaves cells out.
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
    """Return the text of a file, or raise ValueError that names its true format."""
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
    """Return the separator that fits most of the first rows."""
    best, most = ",", (0, 1)
    for separator in (",", ";", "\t", "|"):
        names, *rows = _first_rows(text, separator, 50) or [[]]
        fits = sum(len(row) == len(names) for row in rows)
        if len(names) > 1 and (fits, len(names)) > most:
            best, most = separator, (fits, len(names))
    return best


def _refuse_equal_names(rows: list[list[str]]) -> None:
    """Raise ValueError if two columns have one name."""
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
    """Return the file to open for a path in a table, or the URL as it is.

    Spaces around a path do not count, unless a file is so called.
    """
    if name != name.strip() and not (folder / name).exists():
        name = name.strip()
    # Not Path.expanduser: it fails for files whose names begin with "~".
    return name if "://" in name else str(folder / os.path.expanduser(name))


def parse_numbers(column: pd.Series) -> Any:
    """Turn a column of numbers into numbers; ``007`` is a name, and stays.

    Blank cells are missing; in a column of 0, 1 and -1 so are words such as "NA".
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
    """Turn names of patients or splits into numbers where that loses nothing.

    ``12`` can be read back from a number; ``1.10``, ``10E2`` and numbers of twenty
    digits cannot, and stay strings.
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
    """Read a column of 0 and 1 (or true and false) as 0, 1 and NaN.

    Returns None if the column holds anything else, or nothing.
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
    """Return a class as it was written: ``1``, not the ``1.0`` of a float."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def some_values(column: pd.Series) -> str:
    """Return the first values of a column, for a message."""
    values = [repr(class_name(value)) for value in column.dropna().unique()[:4]]
    return ", ".join(values) + (", ..." if column.nunique() > 4 else "")
