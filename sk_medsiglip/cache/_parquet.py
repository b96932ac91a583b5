"""Export of rows to one Parquet file, from a machine that embeds to one that trains.

The file has one record per row, each with a checksum, and the facts about the models in
its metadata. Records of image files are not exported, since paths differ on the other
machine. Vectors are binary values, ``np.frombuffer(value, "<f4")``, since lists of
Parquet take five times as long to read. Cells are unpacked with ``BagPacking``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._files import new_file
from sk_medsiglip._json import read_json
from sk_medsiglip._optional import import_optional
from sk_medsiglip._progress import progress_bar
from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache._segment_layout import row_checksums
from sk_medsiglip.cache._space import FINGERPRINT_BYTES, Space
from sk_medsiglip.cache._store import Store
from sk_medsiglip.exceptions import CacheError, CacheWarning

FORMAT = "1"
ROWS_PER_BATCH = 1024  # decoded and stored at a time
BATCH_BYTES = 16 * 2**20  # limits the number of large rows
EXPORT_COLUMNS = ("space", "fingerprint", "checksum", "vector")

_Part = tuple[Space, list[bytes], NDArray[np.float32]]


@dataclass(frozen=True)
class ImportReport:
    """Result of :meth:`EmbeddingCache.import_parquet`.

    Parameters
    ----------
    rows : int
        Number of rows in the file.
    new : int
        Number of rows that were not in the store.
    models : int
        Number of models whose facts were imported.
    """

    rows: int = 0
    new: int = 0
    models: int = 0


def export_rows(store: Store, path: Path, model: str | None, verbose: int) -> int:
    """See :meth:`EmbeddingCache.export_parquet`."""
    pyarrow, parquet = _pyarrow()
    counts: dict[Space, int] = {}
    for entry in store.stats()["spaces"]:
        n_of_space = entry.pop("rows")
        counts[Space(**entry)] = n_of_space
    wanted = {space for space in counts if model is None or _is_of(space, model)}
    if not wanted:
        held = sorted({space.model for space in counts}) or ["no model"]
        of_model = "" if model is None else f" of model {model!r}"
        raise CacheError(
            f"{store.location} holds no rows{of_model}; it holds rows of "
            f"{', '.join(held)}."
        )
    revisions = {space.revision for space in wanted}
    models = [
        record
        for record in store.models.records()
        if record["facts"].get("revision") in revisions
    ]
    schema = _schema(pyarrow, models)
    total = sum(counts[space] for space in wanted)
    n_rows = 0
    with (
        progress_bar(total, desc="export", unit="row", verbose=verbose) as bar,
        new_file(path, mode=0o600) as draft,
        # Vectors do not compress, and a dictionary for them would cost time.
        parquet.ParquetWriter(
            draft, schema, compression="none", use_dictionary=["space"]
        ) as writer,
    ):
        for space, fingerprints, vectors in store.scan_rows(wanted):
            batch = _to_batch(pyarrow, schema, space, fingerprints, vectors)
            writer.write_batch(batch)
            n_rows += len(fingerprints)
            bar.update(len(fingerprints))
    return n_rows


def import_rows(store: Store, path: Path, verbose: int) -> ImportReport:
    """See :meth:`EmbeddingCache.import_parquet`."""
    pyarrow, parquet = _pyarrow()
    try:
        # Without a memory map, a truncated file is an error and not a signal.
        file = parquet.ParquetFile(path, memory_map=False)
    except FileNotFoundError:
        raise CacheError(f"there is no file {path} to import.") from None
    except (OSError, pyarrow.ArrowException) as error:
        raise CacheError(_damaged(path, str(error))) from error
    with file:
        models = _check_format(path, file.schema_arrow)
        n_rows, n_before = 0, store.count_rows()
        total = file.metadata.num_rows
        with progress_bar(total, desc="import", unit="row", verbose=verbose) as bar:
            try:
                for space, fingerprints, vectors in _read_ahead(path, file):
                    store.writer.put_many(space, fingerprints, vectors)
                    n_rows += len(fingerprints)
                    bar.update(len(fingerprints))
            except (OSError, pyarrow.ArrowException) as error:
                if isinstance(error, CacheError):
                    raise
                raise CacheError(_damaged(path, str(error), n_rows)) from error
    revisions: dict[bool, set[str]] = {True: set(), False: set()}
    for record in models:
        taken = store.models.remember_record(record)
        revisions[taken].add(record["facts"]["revision"])
    if kept := len(revisions[False]):
        warn_user(
            f"This store has {kept} models of {path.name} at another revision, and "
            "keeps using that by default. To use the imported rows, pass revision=.",
            CacheWarning,
        )
    return ImportReport(
        n_rows, store.count_rows() - n_before, len(set().union(*revisions.values()))
    )


def _read_ahead(path: Path, file: Any) -> Iterator[_Part]:
    """Decode and check the next batch while the previous one is stored."""
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    n_bytes = sum(group.total_byte_size for group in groups)
    n_fitting = BATCH_BYTES * file.metadata.num_rows // max(n_bytes, 1)
    n_at_once = min(ROWS_PER_BATCH, max(1, n_fitting))
    batches = file.iter_batches(n_at_once, columns=list(EXPORT_COLUMNS))

    def read() -> list[_Part] | None:
        batch = next(batches, None)
        return None if batch is None else list(_from_batch(path, batch))

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(read)
        while (parts := coming.result()) is not None:
            coming = pool.submit(read)
            yield from parts


def rows_as_table(
    space: Space,
    fingerprints: Sequence[bytes],
    vectors: NDArray[np.float32],
    models: Sequence[Mapping[str, Any]] = (),
) -> Any:
    """Return rows as a table that can be written to a file and imported.

    Parameters
    ----------
    space : Space
        Model and preprocessing of the rows.
    fingerprints : sequence of bytes
        blake3 digests of the contents.
    vectors : ndarray of shape (len(fingerprints), space.width)
        The rows.
    models : sequence of mapping
        Records returned by :func:`model_records`.

    Returns
    -------
    pyarrow.Table
        Table with the columns ``EXPORT_COLUMNS``, and format and models in its
        metadata, for :meth:`EmbeddingCache.import_parquet`.
    """
    pyarrow, _ = _pyarrow()
    schema = _schema(pyarrow, models)
    batch = _to_batch(pyarrow, schema, space, fingerprints, vectors)
    return pyarrow.Table.from_batches([batch])


def _schema(pyarrow: Any, models: Sequence[Mapping[str, Any]]) -> Any:
    return pyarrow.schema(
        {
            "space": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
            "fingerprint": pyarrow.binary(FINGERPRINT_BYTES),
            "checksum": pyarrow.uint32(),
            "vector": pyarrow.binary(),
        },
        metadata={
            "sk_medsiglip.format": FORMAT,
            "sk_medsiglip.models": json.dumps(list(models)),
        },
    )


def _to_batch(
    pyarrow: Any,
    schema: Any,
    space: Space,
    fingerprints: Sequence[bytes],
    vectors: NDArray[np.float32],
) -> Any:
    n = len(fingerprints)
    flat = pyarrow.py_buffer(np.ascontiguousarray(vectors, "<f4"))
    offsets = pyarrow.py_buffer(np.arange(n + 1, dtype=np.int32) * 4 * space.width)
    return pyarrow.record_batch(
        [
            pyarrow.DictionaryArray.from_arrays(
                pyarrow.array(np.zeros(n, np.int32)), pyarrow.array([space.line])
            ),
            pyarrow.array(fingerprints, pyarrow.binary(FINGERPRINT_BYTES)),
            pyarrow.array(row_checksums(_seed(space.line), fingerprints, vectors)),
            pyarrow.BinaryArray.from_buffers(
                pyarrow.binary(), n, [None, offsets, flat]
            ),
        ],
        schema=schema,
    )


def _from_batch(path: Path, batch: Any) -> Iterator[_Part]:
    """Check a batch, and yield the rows of each space."""
    try:
        lines = batch["space"].to_pylist()
    except ValueError as error:  # invalid text
        raise CacheError(_damaged(path, str(error))) from error
    cuts = [i for i in range(1, len(lines)) if lines[i] != lines[i - 1]]
    for start, stop in zip([0, *cuts], [*cuts, len(lines)], strict=True):
        part = batch.slice(start, stop - start)
        try:
            space = Space.from_line(lines[start])
            fingerprints = part["fingerprint"].to_pylist()
            space.keys(fingerprints)  # checks their lengths
            vectors = _vectors(part["vector"], space.width)
            checksums = row_checksums(_seed(lines[start]), fingerprints, vectors)
            good = part["checksum"].to_numpy() == checksums
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CacheError(_damaged(path, str(error))) from error
        if space.kind != "cells" and not np.isfinite(vectors).all():
            raise CacheError(_damaged(path, "it holds values that are not finite"))
        if not good.all():
            raise CacheError(_damaged(path, f"{int((~good).sum())} rows have changed"))
        yield space, fingerprints, vectors


def _vectors(column: Any, width: int) -> NDArray[np.float32]:
    """View binary values as the rows of an array."""
    _, offsets, flat = column.buffers()
    n = len(column)
    places = np.frombuffer(offsets, np.int32, n + 1, 4 * column.offset)
    if column.null_count or (np.diff(places) != 4 * width).any():
        raise ValueError(f"a vector does not have {width} values")
    return np.frombuffer(flat, "<f4", n * width, int(places[0])).reshape(n, width)


def _check_format(path: Path, schema: Any) -> list[dict[str, Any]]:
    """Return the records of models; raise if the file is not an export."""
    metadata = schema.metadata or {}
    found = metadata.get(b"sk_medsiglip.format", b"").decode(errors="replace")
    # Other columns, such as the sources in a shard of a cluster job, are ignored.
    if not found or not set(EXPORT_COLUMNS) <= set(schema.names):
        raise CacheError(
            f"{path} is not an export of an embedding cache. Make one with: "
            "sk-medsiglip cache export FILE"
        )
    if found != FORMAT:
        raise CacheError(
            f"{path} has format {found}; this version of sk_medsiglip reads format "
            f"{FORMAT}. Upgrade sk_medsiglip."
        )
    try:
        models = metadata[b"sk_medsiglip.models"]
        return read_json(b'{"models": ' + models + b"}", {"models": list})["models"]
    except (KeyError, ValueError) as error:
        raise CacheError(_damaged(path, str(error))) from error


def _pyarrow() -> tuple[Any, Any]:
    purpose = "Exporting and importing rows"
    pyarrow = import_optional("pyarrow", extra="parquet", purpose=purpose)
    parquet = import_optional("pyarrow.parquet", extra="parquet", purpose=purpose)
    return pyarrow, parquet


def _damaged(path: Path, reason: str, n_taken: int = 0) -> str:
    kept = f" The {n_taken:,} rows before the damage are imported." if n_taken else ""
    return f"{path} is damaged: {reason}. Export or copy it again.{kept}"


def _seed(line: str) -> int:
    return crc32(line.encode())


def _is_of(space: Space, model: str) -> bool:
    return space.model == model or space.revision.startswith(model)
