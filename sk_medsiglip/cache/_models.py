"""What is known of each model, one small file for each: name -> commit, width, scale.

Plain files beside the index rather than a table in it: the index can be rebuilt from
the segments, and these facts are not in the segments.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3

from sk_medsiglip.cache._location import make_private_folder
from sk_medsiglip.exceptions import CacheError

__all__ = ["Models"]


class Models:
    """The facts on models that one location keeps.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the files; made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remember(
        self, name: str, requested_revision: str | None, facts: Mapping[str, Any]
    ) -> None:
        """Write the facts, all at once or not at all."""
        self._write(self._path(name, requested_revision), facts)

    def _write(self, path: Path, facts: Mapping[str, Any]) -> None:
        line = json.dumps(dict(facts), sort_keys=True)
        entry = json.dumps({"facts": line, "checksum": _checksum(line)})
        try:
            make_private_folder(self.folder.parent)
            make_private_folder(self.folder)
            fd, draft = tempfile.mkstemp(dir=self.folder)  # mode 0600
            try:
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    file.write(entry)
                os.replace(draft, path)
            except BaseException:
                os.unlink(draft)
                raise
        except OSError as error:
            raise CacheError(
                f"what is known of the model cannot be kept in {self.folder}: {error}"
            ) from error

    def recall(
        self, name: str, requested_revision: str | None
    ) -> dict[str, Any] | None:
        """Return the facts; None where there are none, or they are damaged."""
        return self._read(self._path(name, requested_revision))

    def records(self) -> list[dict[str, Any]]:
        """Return all that is known, to be carried to another store."""
        found = ((path.stem, self._read(path)) for path in self.paths())
        return [{"name": name, "facts": facts} for name, facts in found if facts]

    def remember_record(self, record: Mapping[str, Any]) -> None:
        """Write what another store's :meth:`records` returned.

        Raises
        ------
        CacheError
            If it is no such record, or cannot be written.
        """
        try:
            name, facts = str(record["name"]), dict(record["facts"])
        except (KeyError, TypeError, ValueError) as error:
            raise CacheError(f"no record of a model: {error}") from error
        # A name becomes a file's: it must be the hash that this class makes.
        if re.fullmatch(r"[0-9a-f]{32}", name) is None:
            raise CacheError(f"{name!r} is no record of a model.")
        self._write(self.folder / f"{name}.json", facts)

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            entry = json.loads(path.read_bytes())
            line = entry["facts"]
            if entry["checksum"] != _checksum(line):
                return None
            return dict(json.loads(line))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def paths(self) -> list[Path]:
        """Return the files, one a model."""
        return sorted(self.folder.glob("*.json"))

    def _path(self, name: str, requested_revision: str | None) -> Path:
        # The name may be a path on this machine, so only its hash is kept.
        asked = json.dumps([name, requested_revision])
        return self.folder / f"{blake3(asked.encode()).hexdigest()[:32]}.json"


def _checksum(line: str) -> str:
    return blake3(line.encode()).hexdigest()
