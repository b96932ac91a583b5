"""The folder of a run: the facts that identify it, and checkpoints to resume from.

The digests of a checkpoint are written last, so that one that is incomplete because of
a kill or a full disk is never read. The settings and data of the run are recorded
beside it, so that it is resumed by the same run only.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from sk_medsiglip._files import make_scratch_folder, new_file
from sk_medsiglip._json import read_json
from sk_medsiglip.embedding import open_cache
from sk_medsiglip.encoder import Checkpoint
from sk_medsiglip.exceptions import CheckpointError, RunFolderError
from sk_medsiglip.fine_tuning._as_json import to_json
from sk_medsiglip.fine_tuning._examples import Examples
from sk_medsiglip.fine_tuning._processes import Processes
from sk_medsiglip.fine_tuning._settings import Settings

_RUN = "run.json"
_COMPLETE = "complete.json"
_STATE = "trainer_state.json"
_CHECKPOINTS = "checkpoint-*"
_FORMAT = 1

# Settings that do not affect the result of a run, or are recorded by their content.
_NOT_FACTS = frozenset({"embedder", "random_state", "resume", "run_dir", "verbose"})
_READING = ("resize", "pad", "intensity", "frame")


def run_facts(
    settings: Settings,
    examples: Examples,
    images_digest: str,
    checkpoint: Checkpoint,
    n_processes: int,
) -> dict[str, Any]:
    """Return the facts that identify a run as JSON, without texts and paths."""
    given = vars(settings) | {name: vars(settings.embedder)[name] for name in _READING}
    facts = {k: to_json(v) for k, v in given.items() if k not in _NOT_FACTS}
    facts["random_state"] = int(settings.random_state) if settings.has_seed else None
    for name in ("prompts", "keep"):
        facts[name] = facts[name] and _digest_of({name: facts[name]})
    content = blake3()
    if examples.texts is not None:
        for ids in (*examples.texts.true, *examples.texts.unknown):
            content.update(ids.tobytes() + b"|")
        content.update("\0".join(examples.texts.texts).encode())
    if examples.labels is not None:
        content.update(examples.labels.target.tobytes())
        content.update(repr(examples.labels.classes_attribute.tolist()).encode())
    return facts | {
        "base": checkpoint.revision,
        "device type": settings.device,
        "images": images_digest,
        "y": content.hexdigest(length=16),
        "groups": blake3(examples.patients.tobytes()).hexdigest(length=16),
        "processes": n_processes,
    }


def _digest_of(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, sort_keys=True)
    return blake3(text.encode()).hexdigest(length=16)


@contextmanager
def open_run(
    settings: Settings, facts: Mapping[str, Any], seed: int, processes: Processes
) -> Iterator[tuple[RunFolder, int]]:
    """Yield the folder of a run and its seed, that of the stopped run on resuming."""
    beside_store = runs_folder(settings.embedder.cache)
    named = settings.run_path
    if named is not None:
        path = named
    elif beside_store is not None:
        path = beside_store / _digest_of(facts)
    elif settings.resume:
        raise ValueError(
            "resume=True with cache=False needs run_dir=, the folder with the "
            "checkpoints of the run that was stopped."
        )
    else:
        made = str(make_private_folder(None)) if processes.is_first else ""
        path = Path(processes.share(made))
    folder = RunFolder(path, facts)
    if processes.is_first:
        seed = folder.open(resume=settings.resume, seed=seed)
    seed = processes.share(seed)
    try:
        yield folder, seed
    except BaseException:
        if named is None and beside_store is None and processes.is_first:
            # A temporary folder could not be found again for resume=True.
            shutil.rmtree(path, ignore_errors=True)
        raise
    processes.wait()
    if named is None and processes.is_first:
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, and the facts that identify it."""

    path: Path
    facts: Mapping[str, Any]

    def open(self, *, resume: bool, seed: int) -> int:
        """Prepare the folder, and return the seed of the run."""
        record = self.path / _RUN
        if record.is_file():
            known = self._read(record)
            for path in self.path.glob(_CHECKPOINTS):
                if not resume:
                    shutil.rmtree(path)
                elif not (path / _COMPLETE).is_file():
                    shutil.rmtree(path, ignore_errors=True)
            if resume:
                return int(known["seed"])
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise RunFolderError(
                f"{str(self.path)!r} holds files that no run of this package wrote. "
                "Pass an empty or new folder as run_dir=."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            whole = {"format": _FORMAT, "facts": dict(self.facts), "seed": seed}
            _write_json(record, whole)
        except OSError as error:
            raise RunFolderError(
                f"The run's folder {str(self.path)!r} cannot be written ({error}). "
                "Pass another one as run_dir=."
            ) from error
        return seed

    def _read(self, record: Path) -> dict[str, Any]:
        """Return the record of the folder, or raise if it belongs to another run."""
        try:
            known = read_json(record, {"facts": dict, "seed": int})
        except ValueError:
            raise CheckpointError(
                f"{str(record)!r} is damaged, so it is unknown which run wrote the "
                "checkpoints. Delete the folder, or pass another run_dir=."
            ) from None
        was, now = known["facts"], self.facts
        differ = sorted(k for k in {*was, *now} if was.get(k) != now.get(k))
        if differ:
            told = "; ".join(
                f"{name} was {was.get(name)!r}, is {now.get(name)!r}"
                for name in differ[:3]
            )
            raise CheckpointError(
                f"{str(self.path)!r} holds another run: {told}. Resume that one with "
                "its own settings and data, or pass another run_dir=."
            )
        return known

    def last_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        complete = [one.parent for one in self.path.glob(f"{_CHECKPOINTS}/{_COMPLETE}")]
        if not complete:
            return None
        return self.checkpoint(max(map(_step, complete)))

    def checkpoint(self, step: int) -> Path:
        """Return the checkpoint of a step."""
        path = self.path / f"checkpoint-{step}"
        check_complete(path)
        return path


def mark_complete(checkpoint: Path) -> None:
    """Write the digests of a checkpoint's files, after all others."""
    digests = {
        path.name: _digest(path)
        for path in sorted(checkpoint.iterdir())
        if path.is_file() and path.name != _COMPLETE
    }
    _write_json(checkpoint / _COMPLETE, digests)


def check_complete(checkpoint: Path) -> None:
    """Raise if a file of a checkpoint has changed since it was written."""
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
            f"The checkpoint {str(checkpoint)!r} is damaged: {wrong[0]} has changed "
            "since it was written. Delete that folder to resume from the checkpoint "
            "before it, or the whole folder of the run to start again."
        )


def runs_folder(cache: Any) -> Path | None:
    """Return the folder of runs beside a store, or None without a store."""
    store = open_cache(cache)
    return None if store is None else store.location / "runs"


def make_private_folder(parent: Path | None) -> Path:
    """Make a private folder in a parent folder, or in that of temporary files."""
    return make_scratch_folder(parent or Path(tempfile.gettempdir()), mode=0o700)


def check_space(folder: Path, n_bytes: int, purpose: str, advice: str = "") -> None:
    """Raise if there is too little free space on the disk of a folder."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise RunFolderError(
            f"{purpose} need {n_bytes / 1e9:.1f} GB, and the disk of {str(folder)!r} "
            f"has {free / 1e9:.1f} GB free. Free some space, or choose another disk "
            f"with run_dir={advice}."
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with new_file(path) as draft:
        draft.write_text(json.dumps(content, indent=1), "utf-8")


def _digest(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def _step(path: Path) -> int:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1
