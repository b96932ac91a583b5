"""Facts about models, in one small file per model: name -> commit, width, scale.

They are files next to the index rather than a table in it, since the index can be
rebuilt from the segments, which do not contain these facts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from sk_medsiglip._files import new_file
from sk_medsiglip._json import read_json
from sk_medsiglip.cache._system import make_folder, share
from sk_medsiglip.exceptions import CacheError

_SIZES = ("embedding_dim", "image_size", "patch_size", "text_tokens")
_LOGIT = ("logit_scale", "logit_bias")


class Models:
    """The facts about models at one location."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remember(
        self, name: str, requested_revision: str | None, facts: Mapping[str, Any]
    ) -> None:
        """Write the facts for the requested revision and for its commit."""
        found = facts.get("revision", requested_revision)
        for revision in dict.fromkeys((requested_revision, found)):
            path = self._path(name, revision)
            if self._read(path) != facts:  # the file may belong to another user
                self._write(path, facts)

    def _write(self, path: Path, facts: Mapping[str, Any]) -> None:
        line = json.dumps(dict(facts), sort_keys=True)
        entry = json.dumps({"facts": line, "checksum": _checksum(line)})
        try:
            make_folder(self.folder.parent)
            make_folder(self.folder, inside=True)
            with new_file(path, mode=0o600) as draft:
                draft.write_text(entry, "utf-8")
                share(draft)
        except OSError as error:
            raise CacheError(
                f"facts about the model cannot be written to {self.folder}: {error}"
            ) from error

    def recall(
        self, name: str, requested_revision: str | None
    ) -> dict[str, Any] | None:
        """Return the facts, or None if they are missing or damaged."""
        return self._read(self._path(name, requested_revision))

    def records(self) -> list[dict[str, Any]]:
        """Return all records, for export to another store."""
        found = ((path.stem, self._read(path)) for path in self.paths())
        return [{"name": name, "facts": facts} for name, facts in found if facts]

    def count(self) -> int:
        """Return the number of models, each of which may have several records."""
        return len({r["facts"].get("revision", r["name"]) for r in self.records()})

    def remember_record(self, record: Any) -> bool:
        """Write a record from another store."""
        name = record.get("name") if isinstance(record, dict) else None
        # The name becomes that of a file, so it must be a hash made by this class.
        if not isinstance(name, str) or re.fullmatch(r"[0-9a-f]{32}", name) is None:
            raise CacheError(f"{name!r} is not a record of a model.")
        facts = record.get("facts")
        if not _are_facts(facts):
            raise CacheError(f"the record of a model holds {str(facts)[:100]}.")
        path = self.folder / f"{name}.json"
        known = self._read(path)
        if known is not None and known.get("revision") != facts["revision"]:
            return False
        self._write(path, facts)
        return True

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            entry = read_json(path, {"facts": str, "checksum": str})
            intact = entry["checksum"] == _checksum(entry["facts"])
            return read_json(entry["facts"]) if intact else None
        except (OSError, ValueError):
            return None

    def paths(self) -> list[Path]:
        """Return the files of all records."""
        return sorted(self.folder.glob("*.json"))

    def _path(self, name: str, requested_revision: str | None) -> Path:
        return self.folder / f"{_record_name(name, requested_revision)}.json"


def model_records(
    name: str, requested_revision: str | None, facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the records with which a store can be used without a model.

    Parameters
    ----------
    name : str
        Name given by the user. The records contain only its hash.
    requested_revision : str or None
        Revision given by the user.
    facts : mapping
        Facts as for :meth:`EmbeddingCache.remember_model`.

    Returns
    -------
    list of dict
        Records for the requested revision, for its commit, and for None.
    """
    revisions = {None, requested_revision, facts["revision"]}
    names = sorted(_record_name(name, revision) for revision in revisions)
    return [{"name": one, "facts": dict(facts)} for one in names]


def _record_name(name: str, requested_revision: str | None) -> str:
    # The name may be a path on this machine, so only its hash is stored.
    asked = json.dumps([name, requested_revision])
    return blake3(asked.encode()).hexdigest()[:32]


def _are_facts(facts: Any) -> bool:
    """Whether facts have the expected types."""
    if not isinstance(facts, dict) or not isinstance(facts.get("revision"), str):
        return False
    sizes = [facts.get(key) for key in _SIZES]
    logits = [facts.get(key) for key in _LOGIT]
    return all(type(one) is int and one > 0 for one in sizes) and all(
        one is None or (type(one) in (int, float) and math.isfinite(one))
        for one in logits
    )


def _checksum(line: str) -> str:
    return blake3(line.encode()).hexdigest()
