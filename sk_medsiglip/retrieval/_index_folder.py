"""An exact index on disk: a folder of plain arrays, complete or not visible at all.

Arrays hold nothing that could be executed. A column of text is stored as its UTF-8
bytes, one value after the other, and the end of each; any other column is one array. A
further array marks missing values, if there are any.

Saving writes new arrays aside and then puts ``index.json``, which names them, in place
by one rename. So a reader sees the old index or the new one, even if the process that
writes is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._files import UNFINISHED, new_file, put_in_place, scratch_folder
from sk_medsiglip._json import read_json
from sk_medsiglip.cache import lock_file
from sk_medsiglip.exceptions import SearchIndexError
from sk_medsiglip.retrieval._metadata import dtype_of

INDEX_FILE = "index.json"
FORMAT = 1

_ROWS = "rows-"

#: Arrays that no index names are removed by the next save, unless they are so new that
#: another process may be about to name them.
_OLD_SECONDS = 3600

#: Another process may save between our reading of index.json and of its arrays.
_ATTEMPTS = 5

#: Bytes of vectors that are read when an index is opened, to find NaN and infinity.
_LOOKED_AT = 2**30

_Opened = TypeVar("_Opened")


def write_folder(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    facts: Mapping[str, Any],
    origin: tuple[str, str] | None,
) -> tuple[str, str]:
    """Write an index; return its folder and the name of its arrays.

    ``origin`` is the location that the index was opened from, so that an index which
    another process has saved there since is not replaced.
    """
    replaced = _check_target(path)
    home = os.path.realpath(path)
    if replaced and origin and origin[0] == home and origin[1] != replaced:
        raise saved_meanwhile(path)
    name = f"{_ROWS}{uuid.uuid4().hex}"
    with scratch_folder(path) as draft:
        for stem, values in arrays.items():
            _write_array(draft / f"{stem}.npy", values)
        sizes = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
        named = {"format": FORMAT, "rows": name, "sizes": sizes, **facts}
        with (
            _only_heir(path, replaced),
            new_file(path / INDEX_FILE, durable=True) as file,
        ):
            file.write_text(json.dumps(named, indent=1), encoding="utf-8")
            put_in_place(draft, path / name)
    _clear(path, replaced, name)
    return home, name


def read_folder(
    path: Path,
    build: Callable[[dict[str, Any], dict[str, Any]], _Opened],
) -> _Opened:
    """Return the result of ``build`` for the facts and arrays in a folder."""
    for attempt in range(_ATTEMPTS):
        facts = read_index_file(path)
        try:
            return build(facts, _read_arrays(path / facts["rows"], facts))
        except FileNotFoundError as error:
            if attempt + 1 == _ATTEMPTS or read_index_file(path) == facts:
                raise _damaged(path, error) from error
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(path, error) from error
    raise AssertionError


def read_index_file(path: Path) -> dict[str, Any]:
    """Return the checked content of ``index.json``."""
    file = path / INDEX_FILE
    try:
        facts = read_json(
            file,
            {"format": int},
            {"rows": str, "n_rows": int, "sizes": dict, "next": dict, "storage": str},
        )
        names = [facts["rows"], *facts["sizes"]]
        if any(Path(name).name != name or not name for name in names):
            raise ValueError("it names files outside of its folder")
    except FileNotFoundError:
        raise SearchIndexError(
            f"there is no index in {str(path)!r}: it has no {INDEX_FILE}. "
            "retriever.save(folder) writes one."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    if facts["format"] != FORMAT:
        raise SearchIndexError(
            f"the index in {str(path)!r} has format {facts['format']}; this version of "
            f"sk_medsiglip reads format {FORMAT}. Upgrade sk_medsiglip."
        )
    return facts


def _damaged(path: Path, error: Exception) -> SearchIndexError:
    return SearchIndexError(
        f"the index in {str(path)!r} is damaged: {error}. Copy the whole folder again, "
        "or build the index anew; embeddings come from the cache."
    )


def saved_meanwhile(path: Path) -> SearchIndexError:
    """Return the error for changes that would overwrite those of another process."""
    return SearchIndexError(
        f"another process has saved the index in {str(path)!r} since this one opened "
        "it, and this one has changes of its own: one of the two would be lost. Make "
        f"the changes again after ImageRetriever.load({str(path)!r}), "
        "or save this one to another folder."
    )


def arrays_of_table(
    table: pd.DataFrame, kinds: Mapping[str, str]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the columns as arrays, named by position: a name may hold anything."""
    for place, (name, kind) in enumerate(kinds.items()):
        column = table[name]
        missing = column.isna().to_numpy()
        stem = f"column-{place}"
        if missing.any():
            yield f"{stem}-missing", missing
        if kind == "text":
            encoded = [
                b"" if m else v.encode() for v, m in zip(column, missing, strict=True)
            ]
            ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
            yield stem, np.frombuffer(b"".join(encoded), np.uint8)
            yield f"{stem}-ends", ends
        elif kind in ("time", "time_utc"):
            yield stem, column.to_numpy(dtype="datetime64[us]").view(np.int64)
        elif kind == "number":
            yield stem, np.ascontiguousarray(column.to_numpy(dtype=np.float64))
        else:
            plain = bool if kind == "boolean" else np.int64
            yield stem, column.to_numpy(dtype=plain, na_value=plain(0))


def table_of_arrays(
    arrays: Mapping[str, NDArray[Any]], kinds: Mapping[str, str], n_rows: int
) -> pd.DataFrame:
    """Return the table of :func:`arrays_of_table`."""
    columns = {}
    for place, (name, kind) in enumerate(kinds.items()):
        stem = f"column-{place}"
        values: Any = arrays[stem]
        if kind == "text":
            values = _read_text(values, arrays[f"{stem}-ends"])
        elif kind in ("time", "time_utc"):
            values = pd.Series(values.view("datetime64[us]"))
            values = values.dt.tz_localize("UTC") if kind == "time_utc" else values
        if len(values) != n_rows:
            raise ValueError(f"a column has {len(values)} of {n_rows} rows")
        column = pd.Series(values).astype(dtype_of(kind))
        missing = arrays.get(f"{stem}-missing")
        columns[name] = column if missing is None else column.mask(missing)
    return pd.DataFrame(columns, index=pd.RangeIndex(n_rows))


def _read_text(content: NDArray[np.uint8], ends: NDArray[np.int64]) -> NDArray[Any]:
    if len(ends) and (ends[-1] != len(content) or (np.diff(ends) < 0).any()):
        raise ValueError("the ends of a column of text do not fit its bytes")
    text, stops = content.tobytes(), ends.tolist()
    starts = [0, *stops][:-1]
    values = [text[a:b].decode() for a, b in zip(starts, stops, strict=True)]
    return np.array(values, dtype=object)


def _read_arrays(folder: Path, facts: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arrays by name, vectors mapped from their file."""
    arrays = {}
    for name, size in facts["sizes"].items():
        found = (folder / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found:,} bytes in the place of {size:,}")
        # An empty file cannot be mapped.
        is_mapped = name == "vectors.npy" and facts["n_rows"] > 0
        arrays[name.removesuffix(".npy")] = np.load(
            folder / name, mmap_mode="r" if is_mapped else None, allow_pickle=False
        )
    vectors, numbers = arrays["vectors"], arrays["numbers"]
    width = facts["about"]["width"]
    if vectors.shape != (facts["n_rows"], width) or len(numbers) != len(vectors):
        raise ValueError(f"it holds vectors of shape {vectors.shape}")
    kinds = vectors.dtype.name, numbers.dtype.name
    if kinds != (facts["storage"], "int64") or not kinds[0].startswith("float"):
        raise ValueError(f"vectors and numbers are of the types {kinds}")
    if not vectors.flags.c_contiguous:
        raise ValueError("the vectors are not stored row by row")
    if vectors.nbytes <= _LOOKED_AT and not np.isfinite(vectors).all():
        raise ValueError("a vector holds NaN or infinity")
    return arrays


def _write_array(path: Path, values: NDArray[Any]) -> None:
    """Write one array, and wait until it is on the disk."""
    header = np.lib.format.header_data_from_array_1_0(values)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        # Not array.tofile, whose error does not say why writing failed.
        file.write(values.data)
        file.flush()
        os.fsync(file.fileno())


def _check_target(path: Path) -> str | None:
    """Return the name of the rows to replace; raise if the folder has other files."""
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{str(path)!r} is a file; an index is a folder.")
    if (path / INDEX_FILE).exists():
        return str(read_index_file(path)["rows"])
    others = [] if not path.exists() else [entry.name for entry in path.iterdir()]
    if any(not name.startswith((_ROWS, INDEX_FILE, UNFINISHED)) for name in others):
        raise FileExistsError(
            f"{str(path)!r} holds other files, such as {sorted(others)[0]!r}, and is "
            "not an index. Name a new folder, or an index to replace."
        )
    return None


@contextmanager
def _only_heir(path: Path, replaced: str | None) -> Iterator[None]:
    """Make sure that one process alone replaces an index."""
    claim = path / f"{INDEX_FILE}.after-{replaced}"
    with claim.open("a") as file:
        if not lock_file(file.fileno()):
            raise saved_meanwhile(path)
        try:
            if _check_target(path) != replaced:
                raise saved_meanwhile(path)
            yield
        finally:
            with suppress(OSError):  # Windows keeps open files
                claim.unlink()


def _clear(path: Path, replaced: str | None, kept: str) -> None:
    """Remove the rows that were replaced, and leftovers of killed processes."""
    for entry in path.iterdir():
        is_ours = entry.name.startswith((_ROWS, INDEX_FILE))
        if not is_ours or entry.name in (INDEX_FILE, kept):
            continue
        with suppress(OSError):  # another process was faster
            is_old = time.time() - entry.stat().st_mtime > _OLD_SECONDS
            if is_old and entry.is_file():
                entry.unlink()
            elif is_old or entry.name == replaced:
                # Processes that mapped the files keep them; on Windows they stay
                # until the next save.
                shutil.rmtree(entry, ignore_errors=True)
