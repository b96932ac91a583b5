"""Processes of a launcher, ``torchrun`` or ``accelerate launch``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

# One process reads all images while the others wait.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Processes:
    """The number of processes, and the rank of this one overall and on its machine."""

    n: int = 1
    rank: int = 0
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.rank == 0

    @property
    def is_first_here(self) -> bool:
        """Whether this process reads images for the others of its machine."""
        return self.local_rank == 0

    def share(self, value: T, *, here: bool = False) -> T:
        """Return the value of the first process, overall or on this machine."""
        if self.n == 1:
            return value
        from torch import distributed

        values: list[T | None] = [None] * self.n
        distributed.all_gather_object(values, value)
        return values[self.rank - self.local_rank if here else 0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.share(None)


def start_processes(device: str) -> Processes:
    """Join the other processes of a launcher, if there is one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    from accelerate import PartialState  # type: ignore[import-untyped]

    state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
    return Processes(
        state.num_processes, state.process_index, state.local_process_index
    )
