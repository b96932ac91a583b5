"""The user's collection as pieces of a table, which workers read by themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sk_medsiglip.datasets import list_images, usual_path_column
from sk_medsiglip.distributed._storage import Storage, find_file_system
from sk_medsiglip.exceptions import DatasetError

#: Column of paths, of a folder and of a plain list.
_PATH = "path"

#: Column of the first sub-folders of a folder.
_LABEL = "label"

_CSV, _TSV, _PARQUET = (".csv", ".txt"), (".tsv", ".tab"), (".parquet", ".pq")

#: Bytes that a CSV file is read in; no record may be longer.
_CSV_BLOCK = 2**24


@dataclass(frozen=True)
class TablePiece:
    """Rows of a table in memory."""

    table: Any

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def tables(self, n: int) -> Iterator[Any]:
        """Yield the rows as tables of at most ``n``."""
        for start in range(0, self.n_rows, n):
            yield self.table.slice(start, n)


@dataclass(frozen=True)
class ParquetPiece:
    """Where some rows of one row group of a Parquet file lie."""

    url: str
    row_group: int
    start: int
    n_rows: int
    names: tuple[str, ...]

    def tables(self, n: int) -> Iterator[Any]:
        """Yield the rows as tables of at most ``n``; those before them are dropped."""
        import pyarrow as pa
        from pyarrow import parquet

        file_system, path = find_file_system(self.url)
        stop = self.start + self.n_rows
        passed = 0
        with file_system.open_input_file(path) as file:
            for batch in parquet.ParquetFile(file).iter_batches(
                n, [self.row_group], list(self.names), use_threads=False
            ):
                first, last = max(self.start - passed, 0), stop - passed
                passed += batch.num_rows
                wanted = batch.slice(first, max(last - first, 0))
                if wanted.num_rows:
                    yield pa.Table.from_batches([wanted])
                if passed >= stop:
                    return


Piece = TablePiece | ParquetPiece


@dataclass(frozen=True)
class Collection:
    """Rows with an image each, not read yet.

    ``base`` is the folder that relative paths start from.
    """

    pieces: list[Piece]
    image_column: str
    columns: tuple[str, ...]
    base: str

    @property
    def n_rows(self) -> int:
        """Number of rows of all pieces."""
        return sum(piece.n_rows for piece in self.pieces)


def find_collection(
    source: Any,
    path_column: str | None,
    columns: Sequence[str] | None,
    piece_size: Callable[[int], int],
) -> Collection:
    """Look at a source as far as it takes to cut it into pieces.

    ``piece_size`` returns the number of rows of a piece, given that of the table.
    """
    files: list[str] = []
    base, where = os.getcwd(), "source"
    if isinstance(source, str | os.PathLike):
        where = Storage(os.fspath(source)).url
        table, files, base = _find_stored(where)
    else:
        table = _as_table(source)
    groups, schema = _row_groups(files) if files else ([], table.schema)
    n_rows = sum(n for *_, n in groups) if files else table.num_rows
    if not n_rows:
        raise ValueError(f"{where} holds no rows.")
    names = _choose(schema, path_column, columns, where)
    n = piece_size(n_rows)
    pieces: list[Piece]
    if files:
        pieces = [
            ParquetPiece(url, group, start, min(n, rows - start), tuple(names))
            for url, group, rows in groups
            for start in range(0, rows, n)
        ]
    else:
        chosen = table.select(names)
        # Copied, since a slice is pickled with the whole table that it is part of.
        pieces = [
            TablePiece(chosen.take(np.arange(start, min(start + n, n_rows))))
            for start in range(0, n_rows, n)
        ]
    return Collection(pieces, names[0], tuple(names[1:]), base)


def _find_stored(url: str) -> tuple[Any, list[str], str]:
    """Return a table or the URLs of Parquet files, and the base of relative paths."""
    from pyarrow import fs

    file_system, path = find_file_system(url)
    kind = file_system.get_file_info(path).type
    if kind == fs.FileType.NotFound:
        raise DatasetError(
            f"{url} does not exist. Give a folder of images, or a CSV or Parquet file "
            "with a column of paths or URLs, or of images."
        )
    if kind == fs.FileType.Directory:
        names = sorted(Storage(url).sizes(""))
        tables = [name for name in names if name.lower().endswith(_PARQUET)]
        if tables:
            return None, [f"{url.rstrip('/')}/{name}" for name in tables], url
        return _list_folder(url), [], url
    base = url.rpartition("/")[0]
    suffix = os.path.splitext(url.partition("?")[0])[1].lower()
    if suffix in _PARQUET:
        return None, [url], base
    if suffix in _CSV + _TSV:
        return _read_csv(url, "\t" if suffix in _TSV else ","), [], base
    raise ValueError(
        f"source={url!r} ends in {suffix or 'no suffix'!r}. A table ends in one of "
        f"{', '.join(_CSV + _TSV + _PARQUET)}; of images give their folder, or a list."
    )


def _list_folder(url: str) -> Any:
    """Return a table of the images in a folder, labelled by their sub-folders."""
    if "://" in url:
        raise ValueError(
            f"{url} holds no Parquet file, and folders of images are listed on disks "
            "only. Give a table of the images' URLs."
        )
    inside = [path.relative_to(url) for path in list_images(Path(url))]
    if not inside:
        raise ValueError(
            f"{url} holds no image: no PNG, JPEG, TIFF, WebP, BMP or DICOM file, "
            "here or in a sub-folder; and no Parquet file."
        )
    frame = pd.DataFrame({_PATH: [str(path) for path in inside]})
    labels = [path.parts[0] if len(path.parts) > 1 else None for path in inside]
    if any(labels):
        frame[_LABEL] = pd.Series(labels, dtype=object)
    return _as_table(frame)


def _read_csv(url: str, separator: str) -> Any:
    """Return a CSV file with every cell as it is written; blanks are empty strings."""
    import pyarrow as pa
    from pyarrow import csv

    file_system, path = find_file_system(url)
    read = csv.ReadOptions(block_size=_CSV_BLOCK)
    parse = csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    try:
        with file_system.open_input_stream(path) as stream:
            with csv.open_csv(stream, read, parse) as reader:
                names = reader.schema.names
        if len(set(names)) != len(names):
            raise ValueError(f"its first line must name each column once: {names}")
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        )
        with file_system.open_input_stream(path) as stream:
            return csv.read_csv(stream, read, parse, convert)
    except ValueError as error:
        raise ValueError(f"{url} cannot be read as a CSV file: {error}") from None


def _as_table(source: Any) -> Any:
    """Return rows in memory as a table of pyarrow."""
    import pyarrow as pa

    if isinstance(source, pa.Table):
        return source.replace_schema_metadata(None)
    if isinstance(source, pd.DataFrame):
        table = pa.Table.from_pandas(source, preserve_index=False)
        return table.replace_schema_metadata(None)
    if not isinstance(source, pd.Series | list | tuple | np.ndarray):
        raise TypeError(
            "source must be a folder, a CSV or Parquet file, a DataFrame, a "
            f"pyarrow.Table or a list of paths, got {type(source).__name__}."
        )
    items = [os.fspath(x) if isinstance(x, os.PathLike) else x for x in source]
    kinds = {type(item) for item in items}
    odd = next((kind for kind in kinds if not issubclass(kind, str | bytes)), None)
    if odd is not None:
        raise TypeError(
            "a list as source holds paths, URLs or the bytes of image files, got "
            f"{odd.__name__}. Arrays and PIL images are for MedSigLIPEmbedder, on "
            "one machine."
        )
    if len(kinds) > 1:
        raise TypeError("a list as source holds either str or bytes, got both.")
    return pa.table({_PATH: items})


def _row_groups(urls: Sequence[str]) -> tuple[list[tuple[str, int, int]], Any]:
    """Return file, number and rows of every row group, and the first file's schema."""
    from pyarrow import parquet

    groups, schema = [], None
    for url in urls:
        file_system, path = find_file_system(url)
        with file_system.open_input_file(path) as stream:
            file = parquet.ParquetFile(stream)
            schema = schema or file.schema_arrow
            groups += [
                (url, i, file.metadata.row_group(i).num_rows)
                for i in range(file.num_row_groups)
            ]
    return groups, schema


def _choose(
    schema: Any, path_column: str | None, columns: Sequence[str] | None, where: str
) -> list[str]:
    """Return the image column, and then the others to keep."""
    names = list(schema.names)
    image = path_column or usual_path_column(names) or _only_image_column(schema)
    if image is None:
        raise ValueError(
            f"which column of {where} holds the paths, URLs or images? Pass "
            f"path_column, one of: {', '.join(names)}."
        )
    wanted = names if columns is None else columns
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
    from pyarrow import types

    def holds_images(kind: Any) -> bool:
        if types.is_struct(kind):
            inside: Mapping[str, Any] = {field.name: field.type for field in kind}
            return "bytes" in inside and inside.keys() <= {"bytes", "path"}
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = [field.name for field in schema if holds_images(field.type)]
    return found[0] if len(found) == 1 else None
