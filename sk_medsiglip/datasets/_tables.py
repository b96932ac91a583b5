"""The reading of tables and folders: paths, numbers, labels with blanks.

It is shared by the loaders and the command line.
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
#: Number of rows searched for names of files, since each check may be a network call.
_LOOKED_AT = 10
_PATH_COLUMNS = ("path", "file", "filename", "filepath", "image", "image_path")
#: Folders that systems and network disks add: previews, deleted files.
_SYSTEM_FOLDERS = frozenset(("__macosx", "@eadir", "#recycle", "$recycle.bin"))
#: No-break spaces and invisible characters, which may surround the text of cells.
_INVISIBLE = "\u00a0\u2007\u202f\u200b\u2060\ufeff"
#: Byte order marks; those of UTF-32 first, since one begins like that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
#: First bytes of files that are often mistaken for a table of text.
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook (.xlsx) or another archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls)",
    b"\x1f\x8b": "a gzip archive",
    b"PAR1": "a Parquet file",
}
#: Texts written by programs for a missing 0 or 1.
_MISSING = frozenset(("na", "n/a", "nan", "none", "null", "<na>", "."))
#: Integers below this limit are distinct as floats.
_EXACT = 2**53

#: Meanings that an uncertain or blank label may have.
Meaning = Literal["ignore", "negative", "positive"]
_VALUES = {"ignore": np.nan, "negative": 0.0, "positive": 1.0}


def list_images(folder: Path) -> list[Path]:
    """Return the image files in a folder and its sub-folders, sorted.

    Images are identified by their suffix or, without a common one, by the first bytes
    of a DICOM file. Hidden files and those of systems (``__MACOSX``) are ignored.
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
        return True  # reading this file later raises an error


def read_table(
    source: Path, path_column: str | None = None
) -> tuple[pd.DataFrame, str]:
    """Read a table of images: its cells as strings, and the name of the path column."""
    if not source.is_file():
        raise DatasetError(
            f"{source} is not a file. Pass a CSV file with a column of paths, or load "
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
            f"the column of paths in {source} cannot be found, since none of its "
            "columns has the name of an existing file. Pass path_column, one of: "
            f"{', '.join(cells.columns)}."
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
    """Return the first column with a common name for paths, if any."""
    usual = [name for name in columns if str(name).lower() in _PATH_COLUMNS]
    return str(usual[0]) if usual else None


def _find_path_column(cells: pd.DataFrame, folder: Path) -> str | None:
    """Return the first column with an existing file, trying common names first."""
    first = usual_path_column(cells.columns)
    names = sorted(
        cells.columns, key=lambda name: str(name).lower() not in _PATH_COLUMNS
    )
    for name in names:
        some = [cell for cell in cells[name].head(_LOOKED_AT) if cell.strip()]
        if any("://" in cell or os.path.isfile(locate(cell, folder)) for cell in some):
            return str(name)
    return first  # its files are missing; reading them names the rows


def read_strings(file: Path) -> pd.DataFrame:
    """Read a CSV file, or by its suffix a TSV file, with all cells as strings.

    The text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. The separator is a
    comma, semicolon, tab or bar: that of a first line such as ``sep=;``, else the one
    that fits the first rows best. Blanks, and missing cells at the end of a row, are
    empty strings.
    """
    text = _decode(file.read_bytes())
    stated = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)
    text = text[stated.end() :] if stated else text
    separator = "\t" if file.suffix.lower() == ".tsv" else _separator(text)
    separator = stated[1] if stated else separator
    _refuse_equal_names(_first_rows(text, separator, 1))
    settings: dict[str, Any] = {"sep": separator, "index_col": False, "dtype": str}
    try:
        with warnings.catch_warnings():
            # pandas warns if it drops cells.
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
    """Return the text of a file; raise a ValueError that names another format."""
    for start, format in _OTHER_FILES.items():
        if content.startswith(start):
            raise ValueError(f"it is {format}. Save it as CSV in UTF-8.")
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return content.decode(name)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        odd = content[error.start : error.start + 1]
        raise ValueError(
            f"line {line} is not UTF-8; in cp1252, the encoding of Windows, its first "
            f"special one is {odd.decode('cp1252', 'replace')!r}. Save it as CSV in "
            'UTF-8, or: Path(new).write_text(Path(old).read_text("cp1252"), "utf-8").'
        ) from None
    if "\0" in text:
        raise ValueError(
            "it contains null characters, like UTF-16 without a byte order mark. Save "
            "it as CSV in UTF-8."
        )
    return text


def _first_rows(text: str, separator: str, n_rows: int) -> list[list[str]]:
    """Return the cells of the first rows, or fewer if the text is not a table."""
    rows = filter(None, csv.reader(io.StringIO(text, ""), delimiter=separator))
    found: list[list[str]] = []
    with suppress(csv.Error):  # pandas raises it later
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
    """Raise ValueError if two columns have the same name."""
    names = rows[0] if rows else []
    for place, name in enumerate(names):
        if name.strip() and name in names[:place]:
            raise ValueError(
                f"columns {names.index(name) + 1} and {place + 1} are both called "
                f"{name!r}. Rename one of them."
            )


def _read_rows(text: str, separator: str) -> list[list[str]]:
    """Return the cells of rows whose lengths differ from that of the header."""
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
                    f"{len(row)} cells, but the header has {width} columns. Put a "
                    f"cell that contains {separator!r} in double quotes."
                )
            rows.append(row[:width] + [""] * (width - len(row)))
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from error
    return rows


def locate(name: str, folder: Path) -> str:
    """Return the file to open for a path in a table; a URL is returned unchanged.

    Spaces around a path are ignored, unless there is a file with that name.
    """
    if name != name.strip() and not (folder / name).exists():
        name = name.strip()
    # Path.expanduser fails for files whose names begin with "~".
    return name if "://" in name else str(folder / os.path.expanduser(name))


def parse_numbers(column: pd.Series) -> Any:
    """Convert a column of numbers; names such as ``007`` stay strings.

    Blank cells are missing, as are words such as "NA" in a column of 0, 1 and -1.
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
    """Replace decimal commas by points, in a column where the meaning is clear."""
    words = column.dropna().str.strip()
    words = words[~words.map(_is_missing)]
    commas = words[words.str.contains(",", regex=False)]
    # "1,000" may mean a thousand.
    if (
        commas.str.fullmatch(r"\d{1,3}(,\d{3})+").all()
        or not words.str.fullmatch(r"[+-]?\d+(,\d+)?").all()
    ):
        return column
    return column.str.replace(",", ".", regex=False)


def parse_names(column: pd.Series) -> Any:
    """Convert names of patients or splits to numbers if that loses nothing.

    ``1.10``, ``10E2`` and numbers of twenty digits would be changed, and stay strings.
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

    The result is None if the column holds other values, or none.
    """
    words = {"true": 1, "false": 0}
    gone = column.isna() | column.map(_is_missing)
    values = column.mask(gone).map(
        lambda v: words.get(v.strip().lower(), v) if isinstance(v, str) else v
    )
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers[~gone].isna().any():
        return None
    # -1 means uncertain in the tables of CheXpert and MIMIC-CXR.
    result = numbers.astype(float).mask(numbers == -1, _VALUES[uncertain])
    result = result.mask(gone, _VALUES[blank]).to_numpy()
    known = set(np.unique(result[np.isfinite(result)]))
    return result if known and known <= {0.0, 1.0} else None


def _is_missing(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in _MISSING


def class_name(value: Any) -> str:
    """Return the name of a class as written: ``1`` rather than ``1.0`` for a float."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def some_values(column: pd.Series) -> str:
    """Return the first values of a column, for a message."""
    values = [repr(class_name(value)) for value in column.dropna().unique()[:4]]
    return ", ".join(values) + (", ..." if column.nunique() > 4 else "")
