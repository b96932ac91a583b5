"""Checkpoints converted for another engine, kept on disk under their content.

A conversion takes a minute and the memory of a whole checkpoint, so it is done once: a
folder for each checkpoint, numeric type and version of the engine, put in its place by
one rename when it is complete. A digest of every file is checked before it is used.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from sk_medsiglip._json import read_json
from sk_medsiglip.exceptions import CheckpointError

_FACTS = "facts.json"


def store_converted(
    folder: Path, write: Callable[[Path], None], facts: dict[str, Any]
) -> None:
    """Write a conversion to its folder; nobody ever sees half of it."""
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkdtemp makes folders that only their owner can open.
    scratch = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        write(scratch)
        files = {path.name: _digest(path) for path in sorted(scratch.iterdir())}
        whole: dict[str, Any] = {"files": files, "facts": facts}
        whole["digest"] = _digest_of_facts(whole)
        (scratch / _FACTS).write_text(json.dumps(whole, indent=2), "utf-8")
        try:
            os.rename(scratch, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def load_converted(folder: Path) -> dict[str, Any] | None:
    """Return the facts of a conversion, or None where there is none."""
    if not folder.is_dir():
        return None
    try:
        whole = read_json(
            folder / _FACTS, {"files": dict, "facts": dict, "digest": str}
        )
    except (FileNotFoundError, ValueError):
        raise CheckpointError(_damaged(folder, _FACTS)) from None
    if _digest_of_facts(whole) != whole["digest"]:
        raise CheckpointError(_damaged(folder, _FACTS))
    for name, digest in whole["files"].items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise CheckpointError(_damaged(folder, name))
    return whole["facts"]


def _digest_of_facts(whole: dict[str, Any]) -> str:
    """Return the digest of a record: one flipped bit would scale every logit."""
    said = json.dumps([whole["files"], whole["facts"]], sort_keys=True)
    return blake3(said.encode()).hexdigest()


def _digest(path: Path) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def _damaged(folder: Path, name: str) -> str:
    return (
        f"The converted model in {folder} is damaged: {name} is not what was written. "
        "Delete that folder; it is made again from the checkpoint."
    )
