"""``index="exact"``: every row is compared, in memory or from a mapped file.

On disk an index is a folder: ``index.json``, and a folder of plain arrays that it
names. Saving writes new arrays aside and then puts ``index.json`` in place by one
rename, so a reader, and whoever comes after a process that was killed, sees the old
index or the new one, whole.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._json import read_json
from sk_medsiglip.retrieval._column_files import (
    arrays_of_table,
    read_array,
    read_table,
    table_of_arrays,
    write_array,
    write_rows,
    write_table,
)
from sk_medsiglip.retrieval._condition import Condition
from sk_medsiglip.retrieval._errors import SearchIndexError
from sk_medsiglip.retrieval._index import About, Found, Index, NextFree, Rows
from sk_medsiglip.retrieval._metadata import conform
from sk_medsiglip.retrieval._row_blocks import RowBlocks
from sk_medsiglip.retrieval._where_mask import rows_where

__all__ = ["INDEX_FILE", "ExactIndex"]

INDEX_FILE = "index.json"
FORMAT = 1

_ROWS = "rows-"

#: Arrays that no index names are removed by the next save, unless they are so new that
#: another process may still be writing them.
_DRAFT_SECONDS = 3600

#: Another process may save between our reading of index.json and of what it names.
_ATTEMPTS = 5

_ROWS_AT_ONCE = 8192

#: Bytes of vectors that are read when an index is opened, to find values that are none.
_LOOKED_AT = 2**30


class ExactIndex(Index):
    """Rows in memory, or in a folder that they are mapped from.

    Parameters
    ----------
    about : About
        Of the rows.
    storage : {"float32", "float16"}
        How vectors are kept.
    device : str, default="cpu"
        Where products are computed.
    """

    def __init__(self, about: About, storage: str, device: str = "cpu") -> None:
        super().__init__(about)
        self.device = device
        self._vectors = RowBlocks(about.width, storage)
        self._numbers = [np.empty(0, np.int64)]
        self._tables: list[pd.DataFrame] = []
        self._place_of: pd.Index | None = None
        # Where these very rows are stored, if they are: (folder, name of the arrays).
        self._stored: tuple[str, str] | None = None
        # Where they were stored last, changed since or not.
        self._origin: tuple[str, str] | None = None
        self._next_free = NextFree()

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def storage(self) -> str:
        """How vectors are kept."""
        return self._vectors.dtype.name

    @property
    def next_free(self) -> NextFree:  # noqa: D102
        return self._next_free

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Of the rows, in their order."""
        if len(self._numbers) > 1:
            self._numbers = [np.concatenate(self._numbers)]
        return self._numbers[0]

    @property
    def table(self) -> pd.DataFrame:
        """Ids, sources and metadata of the rows, in their order."""
        if len(self._tables) != 1:
            parts = self._tables or [conform(None, self.about.columns, 0)]
            self._tables = [pd.concat(parts, ignore_index=True)]
        return self._tables[0]

    def append(self, batches: Iterable[Rows]) -> None:  # noqa: D102
        before = len(self)
        n_tables, n_numbers = len(self._tables), len(self._numbers)
        try:
            for rows in batches:
                self._vectors.append(rows.vectors)
                self._numbers.append(rows.numbers)
                self._tables.append(rows.table)
        except BaseException:
            self._vectors.keep(np.arange(len(self)) < before)
            del self._tables[n_tables:], self._numbers[n_numbers:]
            raise
        self._count(self._numbers[n_numbers:], self._tables[n_tables:])
        self._changed()

    def remove(self, ids: list[Any]) -> None:  # noqa: D102
        wanted = np.ones(len(self), bool)
        wanted[self._places(ids)] = False
        self._vectors.keep(wanted)
        self._numbers = [self.numbers[wanted]]
        self._tables = [self.table[wanted].reset_index(drop=True)]
        self._changed()

    def replace(self, batches: Iterable[Rows]) -> None:  # noqa: D102
        new = list(batches)  # so that an error comes before anything is taken out
        self.remove([one for rows in new for one in rows.table["id"]])
        self.append(new)

    def known(self, ids: list[Any]) -> NDArray[np.bool_]:  # noqa: D102
        return self._places(ids) >= 0

    def get(self, ids: list[Any], *, vectors: bool = True) -> Rows:  # noqa: D102
        return self._rows(self._places(ids), vectors)

    def scan(self, *, vectors: bool = True) -> Iterator[Rows]:  # noqa: D102
        order = np.argsort(self.numbers, kind="stable")
        for start in range(0, len(order), _ROWS_AT_ONCE):
            yield self._rows(order[start : start + _ROWS_AT_ONCE], vectors)

    def nearest(  # noqa: D102
        self,
        queries: NDArray[np.float32],
        n: int,
        *,
        where: Condition | None = None,
        table: bool = False,
        vectors: bool = False,
    ) -> list[Found]:
        mask = None if where is None else rows_where(where, self.table)
        scores, positions = self._vectors.top(queries, n, mask=mask, device=self.device)
        return [
            Found(
                some,
                self.numbers[places],
                self.table.iloc[places].reset_index(drop=True) if table else None,
                self._vectors.take(places) if vectors else None,
            )
            for some, places in zip(scores, positions, strict=True)
        ]

    def refresh(self) -> None:  # noqa: D102
        if self._origin is None:
            return
        folder, name = self._origin
        if _read_index_file(Path(folder))["rows"] == name:
            return
        if self._stored is None:
            raise _saved_meanwhile(Path(folder))
        self.__dict__.update(ExactIndex.load(folder, self.device).__dict__)

    def configure(self, params: Mapping[str, Any]) -> None:  # noqa: D102
        self.device = params["device"]

    def begin_change(self) -> None:
        """Do nothing: rows in memory are this process's own."""

    def optimize(self, keep_days: float) -> None:
        """Do nothing: rows lie side by side at all times."""

    def _rows(self, places: NDArray[np.int64], vectors: bool) -> Rows:
        width = self.about.width
        return Rows(
            self.numbers[places],
            self._vectors.take(places) if vectors else np.empty((0, width), np.float32),
            self.table.iloc[places].reset_index(drop=True),
        )

    def _places(self, ids: list[Any]) -> NDArray[np.int64]:
        """Return the position of every id, -1 where there is none."""
        dtype = np.int64 if self.about.id_kind == "integer" else object
        if self._place_of is None:
            self._place_of = pd.Index(self.table["id"].to_numpy(dtype))
        return self._place_of.get_indexer(np.array(ids, dtype=dtype))

    def _count(
        self, numbers: list[NDArray[np.int64]], tables: list[pd.DataFrame]
    ) -> None:
        """Note numbers and ids that are taken for good."""
        has_numbers = self.about.id_kind == "integer"
        for some, table in zip(numbers, tables, strict=True):
            self._next_free = self._next_free.after(
                some, table["id"].to_numpy(np.int64) if has_numbers else []
            )

    def _changed(self) -> None:
        self._place_of = None
        self._stored = None

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the index; see the module."""
        path = Path(folder)
        replaced = _check_target(path)
        home = os.path.realpath(path)
        opened, name = self._origin or ("", "")
        if replaced and opened == home and name != replaced:
            raise _saved_meanwhile(path)
        path.mkdir(parents=True, exist_ok=True)
        name = f"{_ROWS}{uuid.uuid4().hex}"
        draft = path / name
        draft.mkdir()
        try:
            shape = (len(self), self.about.width)
            write_rows(
                draft / "vectors.npy", self._vectors.scan(), shape, self._vectors.dtype
            )
            write_array(draft / "numbers.npy", self.numbers)
            write_table(draft, self.table, self.about.columns)
            facts = {
                "format": FORMAT,
                "rows": name,
                "n_rows": len(self),
                "next": asdict(self._next_free),
                "storage": self._vectors.dtype.name,
                "sizes": _sizes(draft),
                "about": self.about.as_dict(),
            }
            with _only_heir(path, replaced):
                _put_in_place(path / INDEX_FILE, facts)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        self._stored = self._origin = (home, name)
        _clear(path, replaced, name)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], device: str = "cpu") -> ExactIndex:
        """Open what :meth:`save` wrote; vectors stay in their file."""
        path = Path(folder)
        for attempt in range(_ATTEMPTS):
            facts = _read_index_file(path)
            try:
                return cls._open(path, facts, device)
            except FileNotFoundError as error:
                if attempt + 1 == _ATTEMPTS or _read_index_file(path) == facts:
                    raise SearchIndexError(
                        f"the index in {str(path)!r} lacks a file: {error.filename}. "
                        "Copy the whole folder again, or build the index anew."
                    ) from error
            except (
                OSError, ValueError, LookupError, TypeError, AttributeError
            ) as error:  # fmt: skip
                raise SearchIndexError(
                    f"the index in {str(path)!r} is damaged: {error}. Copy it again, "
                    "or build it anew; embeddings come from the cache."
                ) from error
        raise AssertionError

    @classmethod
    def _open(cls, path: Path, facts: dict[str, Any], device: str) -> ExactIndex:
        about = About.from_json(json.dumps(facts["about"]))
        index = cls(about, facts["storage"], device)
        rows = path / facts["rows"]
        n_rows = facts["n_rows"]
        for name, size in facts["sizes"].items():
            found = (rows / name).stat().st_size
            if found != size:
                raise ValueError(f"{name} has {found:,} bytes in the place of {size:,}")
        # An empty file cannot be mapped.
        vectors = read_array(rows / "vectors.npy", mapped=n_rows > 0)
        numbers = read_array(rows / "numbers.npy")
        if vectors.shape != (n_rows, index.about.width) or len(numbers) != n_rows:
            raise ValueError(f"it holds vectors of shape {vectors.shape}")
        kinds = vectors.dtype.name, numbers.dtype.name
        if kinds != (facts["storage"], "int64") or not kinds[0].startswith("float"):
            raise ValueError(f"vectors and numbers are of the types {kinds}")
        if vectors.nbytes <= _LOOKED_AT and not np.isfinite(vectors).all():
            raise ValueError("a vector holds NaN or infinity")
        index._vectors = RowBlocks.around(vectors)
        index._numbers = [numbers]
        index._tables = [read_table(rows, index.about.columns, n_rows)]
        index._next_free = NextFree(**facts.get("next", {}))
        index._count(index._numbers, index._tables)
        index._stored = index._origin = (os.path.realpath(path), facts["rows"])
        return index

    def __getstate__(self) -> dict[str, Any]:
        """Return where the rows are stored, if they are, else the rows."""
        if self._stored is not None:
            return {"stored": self._stored, "device": self.device}
        columns = dict(arrays_of_table(self.table, self.about.columns))
        return {**self.__dict__, "_place_of": None, "_tables": columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "stored" not in state:
            self.__dict__.update(state)
            kinds = self.about.columns
            self._tables = [table_of_arrays(dict(state["_tables"]), kinds, len(self))]
            return
        folder, name = state["stored"]
        facts = _read_index_file(Path(folder))
        if facts["rows"] != name:
            raise SearchIndexError(
                f"the index in {folder!r} was saved anew since this was pickled, with "
                "other rows. Open what is there now: ImageRetriever.load("
                f"{folder!r})."
            )
        self.__dict__.update(
            ExactIndex._open(Path(folder), facts, state["device"]).__dict__
        )


def _check_target(path: Path) -> str | None:
    """Return the rows that will be replaced; refuse to mix with other files."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{str(path)!r} is a file; an index is a folder.")
    if (path / INDEX_FILE).exists():
        return str(_read_index_file(path)["rows"])
    others = [] if not path.exists() else [entry.name for entry in path.iterdir()]
    if any(not name.startswith((_ROWS, INDEX_FILE)) for name in others):
        raise FileExistsError(
            f"{str(path)!r} holds other things, {sorted(others)[0]!r} for one, and no "
            "index. Name a new folder, or an index to replace."
        )
    return None


@contextmanager
def _only_heir(path: Path, replaced: str | None) -> Iterator[None]:
    """Let one process alone put an index in the place of another."""
    claim = path / f"{INDEX_FILE}.after-{replaced}"
    with claim.open("a") as file:
        if not _lock(file):
            raise _saved_meanwhile(path)
        try:
            if _check_target(path) != replaced:
                raise _saved_meanwhile(path)
            yield
        finally:
            claim.unlink(missing_ok=True)


def _lock(file: Any) -> bool:
    """Lock a file until it is closed or its process killed; say if another has it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows, or a disk without locks
        return True
    return True


def _saved_meanwhile(path: Path) -> SearchIndexError:
    return SearchIndexError(
        f"another process has saved the index in {str(path)!r} since this one opened "
        "it, and this one has changes of its own: one of the two would be lost. Make "
        f"the changes again on what is stored now, ImageRetriever.load({str(path)!r}), "
        "or save this one to another folder."
    )


def _sizes(folder: Path) -> dict[str, int]:
    return {entry.name: entry.stat().st_size for entry in sorted(folder.iterdir())}


def _put_in_place(path: Path, facts: dict[str, Any]) -> None:
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(facts, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _clear(path: Path, replaced: str | None, kept: str) -> None:
    """Remove the rows that were replaced, and what killed processes left behind."""
    for entry in path.iterdir():
        if entry.name in (INDEX_FILE, kept) or not entry.name.startswith(
            (_ROWS, INDEX_FILE)
        ):
            continue
        if entry.name == replaced or _is_old(entry):
            # Whoever has them mapped keeps them; Windows waits for the next save.
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _is_old(entry: Path) -> bool:
    try:
        times = [e.stat().st_mtime for e in (entry, *entry.glob("*"))]
    except OSError:
        return False
    return time.time() - max(times) > _DRAFT_SECONDS


def _read_index_file(path: Path) -> dict[str, Any]:
    file = path / INDEX_FILE
    try:
        facts = read_json(
            file,
            {"format": int},
            {"rows": str, "n_rows": int, "sizes": dict, "next": dict, "storage": str},
        )
        found = facts["format"]
        names = [facts["rows"], *facts["sizes"]]
        if any(Path(name).name != name or not name for name in names):
            raise ValueError("it names files outside of its folder")
    except FileNotFoundError:
        raise SearchIndexError(
            f"there is no index in {str(path)!r}: it has no {INDEX_FILE}. "
            "retriever.save(folder) writes one."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchIndexError(
            f"{str(file)!r} is damaged: {error}. Copy the index again, or build it "
            "anew; embeddings come from the cache."
        ) from error
    if found != FORMAT:
        raise SearchIndexError(
            f"the index in {str(path)!r} has format {found}; this version of "
            f"sk_medsiglip reads format {FORMAT}. Upgrade sk_medsiglip."
        )
    return dict(facts)
