"""The folder of a run: what it is a run of, and the checkpoints it can go on from.

A checkpoint counts when its digests have been written, last of all: what a kill or a
full disk left half-written is never read. They are those of this very run, whose
settings and data are on record beside them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from sk_medsiglip._json import read_json
from sk_medsiglip.exceptions import CheckpointError, SkMedSiglipError

__all__ = [
    "RunFolder",
    "RunFolderError",
    "check_complete",
    "mark_complete",
    "run_digest",
]

_RUN = "run.json"
_COMPLETE = "complete.json"
_STATE = "trainer_state.json"
_CHECKPOINTS = "checkpoint-*"
_FORMAT = 1


class RunFolderError(SkMedSiglipError, OSError):
    """A run cannot be written down: the disk is full, or there is no permission."""


def run_digest(facts: Mapping[str, Any]) -> str:
    """Return 32 hexadecimal digits of what decides a run."""
    text = json.dumps(facts, sort_keys=True)
    return blake3(text.encode()).hexdigest(length=16)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Parameters
    ----------
    path : pathlib.Path
        Where.
    facts : mapping
        Settings and data that decide what the run computes; goes to JSON.
    """

    path: Path
    facts: Mapping[str, Any]

    def open(self, *, resume: bool, seed: int) -> int:
        """Make the folder ready, and return the seed of the run.

        Parameters
        ----------
        resume : bool
            Keep checkpoints of this run, and its seed; else they are deleted.
        seed : int
            For a new run.

        Returns
        -------
        int

        Raises
        ------
        CheckpointError
            If it belongs to another run, and says by what that differs.
        RunFolderError
            If it holds something else, or cannot be written.
        """
        record = self.path / _RUN
        if record.is_file():
            known = self._read(record)
            if resume:
                self._delete_incomplete()
                return int(known["seed"])
            self._delete_checkpoints()
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise RunFolderError(
                f"{str(self.path)!r} holds files that are no run of this package's. "
                "Pass an empty or new folder as run_dir=."
            )
        text = json.dumps(
            {"format": _FORMAT, "facts": dict(self.facts), "seed": seed}, indent=1
        )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            scratch = record.with_suffix(".unfinished")
            scratch.write_text(text, "utf-8")
            os.replace(scratch, record)
        except OSError as error:
            raise RunFolderError(
                f"The run's folder {str(self.path)!r} cannot be written ({error}). "
                "Pass another one as run_dir=."
            ) from error
        return seed

    def _read(self, record: Path) -> dict[str, Any]:
        """Return what is on record, if it is of this run."""
        try:
            known = read_json(record, {"facts": dict, "seed": int})
            differ = sorted(
                name
                for name in {*known["facts"], *self.facts}
                if known["facts"].get(name) != self.facts.get(name)
            )
        except ValueError:
            raise CheckpointError(
                f"{str(record)!r} is damaged, so it is not known what run its "
                "checkpoints are of. Delete the folder, or pass another run_dir=."
            ) from None
        if differ:
            was = known["facts"]
            told = "; ".join(
                f"{name} was {was.get(name)!r}, is {self.facts.get(name)!r}"
                for name in differ[:3]
            )
            raise CheckpointError(
                f"{str(self.path)!r} holds another run: {told}. Go on with that one by "
                "its own settings and data, or pass another run_dir=."
            )
        return known

    def last_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, or None.

        Raises
        ------
        CheckpointError
            If a file of it is not what was written.
        """
        complete = [
            path
            for path in self.path.glob(_CHECKPOINTS)
            if (path / _COMPLETE).is_file()
        ]
        if not complete:
            return None
        newest = max(complete, key=_step)
        check_complete(newest)
        return newest

    def checkpoint(self, step: int) -> Path:
        """Return the checkpoint of a step."""
        path = self.path / f"checkpoint-{step}"
        check_complete(path)
        return path

    def _delete_incomplete(self) -> None:
        for path in self.path.glob(_CHECKPOINTS):
            if not (path / _COMPLETE).is_file():
                shutil.rmtree(path, ignore_errors=True)

    def _delete_checkpoints(self) -> None:
        for path in self.path.glob(_CHECKPOINTS):
            shutil.rmtree(path)


def mark_complete(checkpoint: Path) -> None:
    """Write down what a checkpoint's files are, now that all are there."""
    digests = {
        path.name: _digest(path)
        for path in sorted(checkpoint.iterdir())
        if path.is_file() and not path.name.startswith(_COMPLETE)
    }
    scratch = checkpoint / (_COMPLETE + ".unfinished")
    scratch.write_text(json.dumps(digests, indent=1), "utf-8")
    os.replace(scratch, checkpoint / _COMPLETE)


def check_complete(checkpoint: Path) -> None:
    """Raise if a file of a checkpoint is not what was written."""
    try:
        digests = read_json(checkpoint / _COMPLETE)
        read_json(checkpoint / _STATE, {"global_step": int, "log_history": list})
        wrong = [
            name
            for name, digest in digests.items()
            if not (checkpoint / name).is_file() or _digest(checkpoint / name) != digest
        ]
    except (OSError, ValueError) as error:
        wrong = [f"{_COMPLETE} or {_STATE} ({error})"]
    if wrong:
        raise CheckpointError(
            f"The checkpoint {str(checkpoint)!r} is damaged: {wrong[0]} is not what "
            "was written. Delete that folder to go on from the one before it, or all "
            "of the run's folder to start again."
        )


def _digest(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
