"""What a user points at, as pieces of a table: a file, a folder, or rows in memory."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip._optional import import_optional
from sk_medsiglip.datasets import list_images, usual_path_column
from sk_medsiglip.distributed._rows import CsvPiece, ParquetPiece, Piece, TablePiece
from sk_medsiglip.distributed._storage import Storage, find_file_system
from sk_medsiglip.exceptions import DatasetError

#: Column of paths, of a folder and of a plain list.
_PATH = "path"

#: Column of the first sub-folders of a folder.
_LABEL = "label"

_CSV, _TSV, _PARQUET = (".csv", ".txt"), (".tsv", ".tab"), (".parquet", ".pq")

#: Places in a CSV file are noted every so many records, and pieces cut at these.
_RECORDS_A_MARK = 64

# Given the number of rows, how many a piece should have.
PieceSize = Callable[[int], int]


@dataclass(frozen=True)
class Collection:
    """Rows with an image each, not read yet."""

    pieces: list[Piece]
    image_column: str
    columns: tuple[str, ...]
    base: str

    @property
    def n_rows(self) -> int:
        """Rows in all."""
        return sum(piece.n_rows for piece in self.pieces)


def find_collection(
    source: Any,
    path_column: str | None,
    columns: Sequence[str] | None,
    piece_size: PieceSize,
) -> Collection:
    """Look at a source as far as it takes to share it out."""
    if isinstance(source, str | os.PathLike):
        return _find_stored(os.fspath(source), path_column, columns, piece_size)
    table = _as_table(source)
    names = _choose(table.schema, path_column, columns, "source")
    return Collection(
        _cut(table.select(names), piece_size), names[0], tuple(names[1:]), os.getcwd()
    )


def _find_stored(
    url: str,
    path_column: str | None,
    columns: Sequence[str] | None,
    piece_size: PieceSize,
) -> Collection:
    url = url if "://" in url else os.path.abspath(os.path.expanduser(url))
    suffix = os.path.splitext(url.partition("?")[0])[1].lower()
    kind = _kind_of(url)
    if kind == "nothing":
        raise DatasetError(
            f"{url} does not exist. Give a folder of images, or a CSV or Parquet file "
            "with a column of paths or URLs, or of images."
        )
    if kind == "folder":
        return _find_in_folder(url, path_column, columns, piece_size)
    base = url.rpartition("/")[0]
    if suffix in _PARQUET:
        return _find_parquet([url], base, path_column, columns, piece_size)
    if suffix in _CSV + _TSV:
        separator = "\t" if suffix in _TSV else ","
        return _find_csv(url, base, separator, path_column, columns, piece_size)
    raise ValueError(
        f"source={url!r} ends in {suffix or 'no suffix'!r}. A table ends in one of "
        f"{', '.join(_CSV + _TSV + _PARQUET)}; of images give their folder, or a list."
    )


def _kind_of(url: str) -> str:
    fs = import_optional("pyarrow.fs", extra="ray", purpose="Embedding on a cluster")
    file_system, path = find_file_system(url)
    kind = file_system.get_file_info(path).type
    known = {fs.FileType.NotFound: "nothing", fs.FileType.Directory: "folder"}
    return known.get(kind, "file")


# ---------------------------------------------------------------------------- folders


def _find_in_folder(
    url: str,
    path_column: str | None,
    columns: Sequence[str] | None,
    piece_size: PieceSize,
) -> Collection:
    storage = Storage(url)
    tables = sorted(
        name for name in storage.sizes("") if name.lower().endswith(_PARQUET)
    )
    if tables:
        urls = [f"{url.rstrip('/')}/{name}" for name in tables]
        return _find_parquet(urls, url, path_column, columns, piece_size)
    if "://" in url:
        raise ValueError(
            f"{url} holds no Parquet file, and folders of images are listed on disks "
            "only. Give a table of the images' URLs."
        )
    folder = Path(url)
    files = list_images(folder)
    if not files:
        raise ValueError(
            f"{folder} holds no image: no PNG, JPEG, TIFF, WebP, BMP or DICOM file, "
            "here or in a sub-folder; and no Parquet file."
        )
    inside = [path.relative_to(folder) for path in files]
    frame = pd.DataFrame({_PATH: [str(path) for path in inside]})
    labels = [path.parts[0] if len(path.parts) > 1 else None for path in inside]
    if any(labels):
        frame[_LABEL] = pd.Series(labels, dtype=object)
    table = _as_table(frame)
    names = _choose(table.schema, path_column, columns, url)
    return Collection(
        _cut(table.select(names), piece_size), names[0], tuple(names[1:]), url
    )


# ----------------------------------------------------------------------------- memory


def _as_table(source: Any) -> Any:
    pa = import_optional("pyarrow", extra="ray", purpose="Embedding on a cluster")
    if isinstance(source, pa.Table):
        table = source
    elif isinstance(source, pd.DataFrame):
        table = pa.Table.from_pandas(source, preserve_index=False)
    elif isinstance(source, pd.Series | list | tuple | np.ndarray):
        items = [os.fspath(x) if isinstance(x, os.PathLike) else x for x in source]
        if not all(isinstance(item, str | bytes) for item in items):
            odd = next(type(x) for x in items if not isinstance(x, str | bytes))
            raise TypeError(
                "a list as source holds paths, URLs or the bytes of image files, got "
                f"{odd.__name__}. Arrays and PIL images are for MedSigLIPEmbedder, on "
                "one machine."
            )
        if len({type(item) for item in items}) > 1:
            raise TypeError("a list as source holds either str or bytes, got both.")
        table = pa.table({_PATH: items})
    else:
        raise TypeError(
            "source must be a folder, a CSV or Parquet file, a DataFrame, a "
            f"pyarrow.Table or a list of paths, got {type(source).__name__}."
        )
    if not table.num_rows:
        raise ValueError("source holds no rows.")
    return table.replace_schema_metadata(None)


def _cut(table: Any, piece_size: PieceSize) -> list[Piece]:
    n = piece_size(table.num_rows)
    # Copied, since a slice is pickled with the whole that it is of.
    return [
        TablePiece(table.take(np.arange(start, min(start + n, table.num_rows))))
        for start in range(0, table.num_rows, n)
    ]


# ---------------------------------------------------------------------------- Parquet


def _find_parquet(
    urls: Sequence[str],
    base: str,
    path_column: str | None,
    columns: Sequence[str] | None,
    piece_size: PieceSize,
) -> Collection:
    parquet = import_optional(
        "pyarrow.parquet", extra="ray", purpose="Reading Parquet tables"
    )
    groups: list[tuple[str, int, int]] = []
    schema = None
    for url in urls:
        file_system, path = find_file_system(url)
        with file_system.open_input_file(path) as stream:
            file = parquet.ParquetFile(stream)
            schema = schema or file.schema_arrow
            metadata = file.metadata
            groups += [
                (url, i, metadata.row_group(i).num_rows)
                for i in range(metadata.num_row_groups)
            ]
    total = sum(n for *_, n in groups)
    if not total:
        raise ValueError(f"{urls[0]} holds no rows.")
    names = tuple(_choose(schema, path_column, columns, urls[0]))
    n = piece_size(total)
    pieces: list[Piece] = [
        ParquetPiece(url, group, start, min(n, rows - start), names)
        for url, group, rows in groups
        for start in range(0, rows, n)
    ]
    return Collection(pieces, names[0], names[1:], base)


# -------------------------------------------------------------------------------- CSV


def _find_csv(
    url: str,
    base: str,
    separator: str,
    path_column: str | None,
    columns: Sequence[str] | None,
    piece_size: PieceSize,
) -> Collection:
    try:
        header, marks, total = _find_marks(url, separator)
    except (csv.Error, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{url} cannot be read as a CSV file: {error}") from None
    if not total:
        raise ValueError(f"{url} holds no rows.")
    pa = import_optional("pyarrow", extra="ray", purpose="Reading tables")
    schema = pa.schema(dict.fromkeys(header, pa.string()))
    names = _choose(schema, path_column, columns, url)
    step = -(-piece_size(total) // _RECORDS_A_MARK)
    cuts = [*marks[:-1:step], marks[-1]]
    pieces: list[Piece] = [
        CsvPiece(url, start, stop, last - first, tuple(header), separator)
        for (start, first), (stop, last) in pairwise(cuts)
    ]
    return Collection(pieces, names[0], tuple(names[1:]), base)


def _find_marks(
    url: str, separator: str
) -> tuple[list[str], list[tuple[int, int]], int]:
    """Return the columns, (byte, record) every so many records, and how many there are.

    By the csv module, so that a line break inside quotes is none between records.
    """
    file_system, path = find_file_system(url)
    place = 0

    def lines(stream: Any) -> Iterator[str]:
        nonlocal place
        for number, line in enumerate(io.BufferedReader(stream, 2**20)):
            place += len(line)
            yield line.decode("utf-8" if number else "utf-8-sig")

    with file_system.open_input_stream(path) as stream:
        records = csv.reader(lines(stream), delimiter=separator, strict=True)
        header = next(records, [])
        if len(set(header)) != len(header) or not header:
            raise ValueError(f"its first line must name each column once: {header}")
        marks, n = [(place, 0)], 0
        for record in records:
            if not record:  # an empty line
                continue
            if len(record) != len(header):
                raise ValueError(
                    f"record {n + 1} has {len(record)} cells, and the first line names "
                    f"{len(header)}"
                )
            n += 1
            if n % _RECORDS_A_MARK == 0:
                marks.append((place, n))
    if marks[-1] != (place, n):
        # Empty lines at the end belong to no record, and do no harm in a piece.
        marks = [mark for mark in marks if mark[1] < n or mark[1] == 0]
        marks.append((place, n))
    return header, marks, n


# ---------------------------------------------------------------------------- columns


def _choose(
    schema: Any,
    path_column: str | None,
    columns: Sequence[str] | None,
    where: str,
) -> list[str]:
    """Return the image column, and then the others to keep."""
    names = list(schema.names)
    image = path_column or usual_path_column(names) or _only_image_column(schema)
    if image is None:
        raise ValueError(
            f"which column of {where} holds the paths, URLs or images? Pass "
            f"path_column, one of: {', '.join(names)}."
        )
    wanted = [name for name in names if name != image] if columns is None else columns
    if isinstance(wanted, str):
        raise TypeError(f"columns must be a list of names, got {wanted!r}.")
    for parameter, asked in (("path_column", [image]), ("columns", wanted)):
        missing = [name for name in asked if name not in names]
        if missing:
            raise ValueError(
                f"{parameter}: {where} has no column {missing[0]!r}. The columns are: "
                f"{', '.join(names)}."
            )
    return [image, *(name for name in wanted if name != image)]


def _only_image_column(schema: Any) -> str | None:
    """Return the one column of encoded images, if there is one."""
    pa = import_optional("pyarrow", extra="ray", purpose="Reading tables")

    def holds_images(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            inside: Mapping[str, Any] = {field.name: field.type for field in kind}
            return "bytes" in inside and inside.keys() <= {"bytes", "path"}
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [field.name for field in schema if holds_images(field.type)]
    return found[0] if len(found) == 1 else None
