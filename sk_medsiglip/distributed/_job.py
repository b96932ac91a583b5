"""One call of ``embed_dataset``: attempts, until every row is accounted for."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.distributed._cluster import Pool, choose_pool
from sk_medsiglip.distributed._encoding import BlockReport, may_pass, unpack_error
from sk_medsiglip.distributed._manifest import Commit, Manifest
from sk_medsiglip.distributed._pipeline import run_pipeline
from sk_medsiglip.distributed._reading import Reader, Settings
from sk_medsiglip.distributed._shards import NewTable
from sk_medsiglip.distributed._source import Collection

#: Seconds between commits: what a driver that dies can lose the record of.
_COMMIT_SECONDS = 5.0

#: Attempts that bring nothing, one after another, before the job gives up.
_FRUITLESS = 3

#: Tasks that may fail for good in the first attempt: a file that kills its readers must
#: not hold up the others. Their images are read again, one by one.
_MAY_LOSE = 16

#: Patches of a block's images, on a CPU: 8 images of MedSigLIP, 128 of the demo.
_BLOCK_PATCHES_CPU = 8192

#: Images of a block for a GPU: 39 MB of MedSigLIP's pixels.
_BLOCK_GPU = 64

#: Images of a piece: what a reading task that dies reads again at most.
_MOST_PIECE = 4096

#: Pieces a core, so that cores end together.
_PIECES_A_CORE = 8


class Job:
    """One call of ``embed_dataset``: attempts until every row is accounted for."""

    def __init__(
        self,
        settings: Settings,
        concurrency: int | tuple[int, int] | str,
        verbose: int,
    ) -> None:
        self._settings = settings
        self._concurrency = concurrency
        self._verbose = verbose
        self._pool = self._choose_pool()
        self.manifest = Manifest(settings.storage, settings.recipe)
        self._table = NewTable(settings.storage)
        self.n_embedded = 0
        self.n_failed = 0
        self.n_restarts = 0
        self.pace = _Pace()

    @property
    def _n_block(self) -> int:
        if self._pool.n_gpus:
            return _BLOCK_GPU
        return max(1, min(128, _BLOCK_PATCHES_CPU // self._settings.facts.n_patches))

    def _choose_pool(self) -> Pool:
        settings = self._settings
        return choose_pool(self._concurrency, settings.embedder.device, settings.facts)

    def piece_size(self, n_rows: int) -> int:
        """Return how many rows a reading task gets: whole blocks."""
        blocks = -(-n_rows // (_PIECES_A_CORE * self._pool.n_cores * self._n_block))
        return min(blocks * self._n_block, max(_MOST_PIECE, self._n_block))

    def run(self, collection: Collection) -> None:
        """Go through the collection until every row of it is accounted for."""
        # Before anything is computed: an output that cannot be written is refused here,
        # and one of another model.
        self._settings.storage.check_writable()
        self.manifest.load()
        fruitless = 0
        with progress_bar(
            collection.n_rows, desc="embedding", unit="image", verbose=self._verbose
        ) as bar:
            while True:
                before = self.n_embedded
                try:
                    if self._attempt(collection, bar) >= collection.n_rows:
                        self.manifest.commit(Commit(table=self._table.name))
                        return
                except Exception as error:
                    fruitless = 0 if self.n_embedded > before else fruitless + 1
                    if fruitless >= _FRUITLESS or not _may_pass(error):
                        out = self._settings.storage.url
                        error.add_note(
                            f"What is embedded is kept in {out}: run the job again and "
                            "only the rest is computed."
                        )
                        raise
                self.n_restarts += 1
                # The cluster may be another by now.
                self._pool = self._choose_pool()

    def _attempt(self, collection: Collection, bar: Any) -> int:
        """Send missing images through the cluster; return the number of rows done."""
        state = self.manifest.adopt(self.manifest.load())
        reader = Reader(
            self._settings,
            replace(collection, pieces=[]),
            self._n_block,
            # An image may have ended the workers; then each is read by itself.
            isolated=self.n_restarts > 0,
            table=self._table,
        )
        self.n_failed = 0
        bar.reset()
        reports = run_pipeline(
            collection.pieces,
            reader,
            self._pool,
            state.keys(),
            # A job that is run again may find that nothing is missing.
            is_urgent=not state.shards,
            may_lose=0 if self.n_restarts else _MAY_LOSE,
        )
        n_rows = 0
        waiting: list[BlockReport] = []
        since = time.monotonic()
        with closing(reports):
            try:
                for report in reports:
                    if report.error is not None:
                        raise unpack_error(report.error)
                    waiting.append(report)
                    bar.update(report.n_rows)
                    n_rows += report.n_rows
                    if report.shard is not None:
                        self.pace.note(report.shard.n_rows)
                    if time.monotonic() - since > _COMMIT_SECONDS:
                        self._commit(waiting)
                        waiting, since = [], time.monotonic()
            finally:
                # Also when the user interrupts: shards are not written twice.
                self._commit(waiting)
        return n_rows

    def _commit(self, reports: Sequence[BlockReport]) -> None:
        shards = tuple(r.shard for r in reports if r.shard is not None)
        failures = tuple(f for report in reports for f in report.failures)
        if shards or failures:
            self.manifest.commit(Commit(shards, failures))
        self.n_embedded += sum(shard.n_rows for shard in shards)
        self.n_failed += len(failures)


@dataclass
class _Pace:
    """Times at which blocks were done."""

    first: float = math.nan
    _last: float = math.nan
    _n_after_first: int = 0

    def note(self, n: int) -> None:
        """Note that a block of ``n`` images is done."""
        self._last = time.perf_counter()
        if math.isnan(self.first):
            self.first = self._last
        else:
            self._n_after_first += n

    @property
    def images_per_second(self) -> float:
        """From the first block to the last, which leaves out the start of workers."""
        spent = self._last - self.first
        return self._n_after_first / spent if spent > 0 else float("nan")


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed; what Ray raises, it has tried to mend."""
    return may_pass(error) or type(error).__module__.partition(".")[0] == "ray"
