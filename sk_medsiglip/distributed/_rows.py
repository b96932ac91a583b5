"""The rows of a user's table, cut into pieces that workers read by themselves.

A piece says where rows lie and holds none of them, except for tables that were in
memory anyway: ten million rows are some thousand small objects in the driver.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sk_medsiglip._optional import import_optional
from sk_medsiglip.distributed._storage import find_file_system


class Piece(Protocol):
    """Some rows of a table."""

    @property
    def n_rows(self) -> int:
        """How many."""

    def tables(self, n: int) -> Iterator[Any]:
        """Yield them as pyarrow tables of at most ``n`` rows."""


@dataclass(frozen=True)
class TablePiece:
    """Rows that were in memory."""

    table: Any

    @property
    def n_rows(self) -> int:
        """How many."""
        return int(self.table.num_rows)

    def tables(self, n: int) -> Iterator[Any]:
        """Yield slices."""
        for start in range(0, self.n_rows, n):
            yield self.table.slice(start, n)


@dataclass(frozen=True)
class CsvPiece:
    """Whole records of a CSV file, by where they begin and end in it."""

    url: str
    start: int
    stop: int
    n_rows: int
    names: tuple[str, ...]
    separator: str

    def tables(self, n: int) -> Iterator[Any]:
        """Yield them with every cell as it is written; blanks are empty strings."""
        csv = import_optional("pyarrow.csv", extra="ray", purpose="Reading tables")
        pa = import_optional("pyarrow", extra="ray", purpose="Reading tables")
        file_system, path = find_file_system(self.url)
        with file_system.open_input_file(path) as file:
            text = file.read_at(self.stop - self.start, self.start)
        table = csv.read_csv(
            io.BytesIO(text),
            csv.ReadOptions(column_names=list(self.names), use_threads=False),
            csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
            csv.ConvertOptions(
                column_types=dict.fromkeys(self.names, pa.string()),
                strings_can_be_null=False,
            ),
        )
        yield from TablePiece(table.combine_chunks()).tables(n)


@dataclass(frozen=True)
class ParquetPiece:
    """Rows of one row group of a Parquet file."""

    url: str
    row_group: int
    start: int
    n_rows: int
    names: tuple[str, ...]

    def tables(self, n: int) -> Iterator[Any]:
        """Yield them; what lies before ``start`` is decoded and dropped."""
        pa = import_optional("pyarrow", extra="ray", purpose="Reading tables")
        parquet = import_optional(
            "pyarrow.parquet", extra="ray", purpose="Reading tables"
        )
        file_system, path = find_file_system(self.url)
        stop = self.start + self.n_rows
        passed = 0
        with file_system.open_input_file(path) as file:
            batches = parquet.ParquetFile(file).iter_batches(
                n, [self.row_group], list(self.names), use_threads=False
            )
            for batch in batches:
                first, last = max(self.start - passed, 0), stop - passed
                passed += batch.num_rows
                wanted = batch.slice(first, max(last - first, 0))
                if wanted.num_rows:
                    yield pa.Table.from_batches([wanted])
                if passed >= stop:
                    return
