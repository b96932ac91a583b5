"""The stream through the cluster: pieces -> blocks of pixels -> reports on shards.

Ray Data moves it: tasks read on every CPU, a pool of actors encodes and writes, and
tasks wait while actors have enough to do. A block of pixels crosses the object store
once; vectors go from the actor that made them to the output and nowhere else.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.distributed._cluster import Pool, quiet_context, ray_module
from sk_medsiglip.distributed._encoding import (
    BlockReport,
    ShardEncoder,
    may_pass,
    pack_error,
)
from sk_medsiglip.distributed._reading import ERROR, Reader
from sk_medsiglip.distributed._source import Piece

#: CPUs that a reading task reserves: under one, so that it fits beside an encoder.
_READER_CPUS = 0.9

#: Number of times that Ray repeats a reading task whose worker or node died. With the
#: unlimited number of Ray Data, a file that kills its reader would never let a job end.
_READER_RETRIES = 3


def run_pipeline(
    pieces: Sequence[Piece],
    reader: Reader,
    pool: Pool,
    done: NDArray[np.bytes_],
    *,
    is_urgent: bool,
    may_lose: int = 0,
) -> Generator[BlockReport, None, None]:
    """Yield a report on each block, as they come."""
    ray = ray_module()
    # A little less than a block, so that each is handed over as soon as it is read.
    settings = reader.settings
    block_bytes = int(0.8 * reader.n_block * settings.facts.image_size**2 * 3)
    with quiet_context(block_bytes, may_lose):
        # In shared memory once a machine, however many tasks look into it.
        done_there = ray.put(done)
        numbered = [
            {"number": number, "piece": pickle.dumps(piece)}
            for number, piece in enumerate(pieces)
        ]
        dataset = ray.data.from_items(numbered, override_num_blocks=len(pieces))
        dataset = dataset.map_batches(
            _read_pieces,
            fn_args=(reader, done_there),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=_READER_CPUS,
            max_retries=_READER_RETRIES,
        ).map_batches(
            ShardEncoder,
            fn_constructor_args=(
                settings,
                reader.collection.columns,
                pool.n_threads,
                is_urgent,
            ),
            batch_size=reader.n_block if pool.n_gpus else None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=pool.least,
                max_size=pool.most,
                max_concurrent_calls_per_actor=pool.calls,
                enable_true_multi_threading=True,
            ),
            **pool.resources,
        )
        batches = dataset.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        )
        # Closing the stream ends its tasks at once.
        with closing(iter(batches)) as stream:
            for batch in stream:
                for row in batch.to_pylist():
                    yield BlockReport.from_row(row)


def _read_pieces(batch: Any, reader: Reader, done_there: Any) -> Iterator[Any]:
    """Yield the blocks of pieces: the work of one task, whose batch holds one piece."""
    try:
        done = ray_module().get(done_there)
        for row in batch.to_pylist():
            yield from reader.blocks(pickle.loads(row["piece"]), done, row["number"])
    except Exception as error:
        if may_pass(error):
            raise
        import pyarrow as pa

        yield pa.table({ERROR: [pack_error(error)]})
