"""The stream through the cluster: pieces -> blocks of pixels -> reports on shards.

Ray Data moves it: tasks read on every CPU, a pool of actors encodes and writes, and
tasks wait while actors have enough to do. A block of pixels crosses the object store
once; vectors go from the actor that made them to the output and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.distributed._cluster import Pool, quiet_context, ray_module
from sk_medsiglip.distributed._encoding import EncoderSettings, ShardEncoder
from sk_medsiglip.distributed._reading import ERROR, Reader
from sk_medsiglip.distributed._reports import BlockReport, may_pass, pack_error
from sk_medsiglip.distributed._source import Piece

#: CPUs that a reading task reserves: under one, so that it fits beside an encoder.
_READER_CPUS = 0.9

#: Times that Ray begins a reading task again whose worker or node died. Without end, as
#: Ray Data has it, a file that kills its reader would stop the job for good.
_READER_RETRIES = 3


def run_pipeline(
    pieces: Sequence[Piece],
    reader: Reader,
    encoder: EncoderSettings,
    pool: Pool,
    done: NDArray[np.bytes_],
    *,
    may_lose: int = 0,
) -> Generator[BlockReport, None, None]:
    """Yield a report on each block, as they come."""
    ray = ray_module()
    # A little less than a block, so that each is handed over as soon as it is read.
    block_bytes = int(0.8 * reader.n_block * reader.facts.image_size**2 * 3)
    with quiet_context(block_bytes, may_lose):
        # In shared memory once a machine, however many tasks look into it.
        reference = ray.put(done)
        reads = [
            _read_piece(reader, piece, number, reference)
            for number, piece in enumerate(pieces)
        ]
        source = _datasource(reads, pieces)
        dataset = ray.data.read_datasource(
            source,
            override_num_blocks=len(pieces),
            num_cpus=_READER_CPUS,
            ray_remote_args={"max_retries": _READER_RETRIES},
        ).map_batches(
            ShardEncoder,
            fn_constructor_args=(encoder,),
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
        # Closed, the stream ends its tasks at once, whatever stopped it.
        with closing(iter(batches)) as stream:
            for batch in stream:
                for row in batch.to_pylist():
                    yield BlockReport.from_row(row)


def _read_piece(
    reader: Reader, piece: Piece, number: int, done: Any
) -> Callable[[], Iterator[Any]]:
    def read() -> Iterator[Any]:
        try:
            yield from reader.blocks(piece, ray_module().get(done), number)
        except Exception as error:
            if may_pass(error):
                raise
            import pyarrow as pa

            yield pa.table({ERROR: [pack_error(error)]})

    return read


def _datasource(
    functions: Sequence[Callable[[], Iterator[Any]]], pieces: Sequence[Piece]
) -> Any:
    """Return what Ray Data reads from; made here since its base class is Ray's."""
    data = ray_module().data

    class Images(data.Datasource):  # type: ignore[name-defined]
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            from ray.data.block import BlockMetadata

            return [
                data.ReadTask(
                    function,
                    BlockMetadata(
                        num_rows=piece.n_rows,
                        size_bytes=None,
                        input_files=None,
                        exec_stats=None,
                    ),
                )
                for function, piece in zip(functions, pieces, strict=True)
            ]

    return Images()
