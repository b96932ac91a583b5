"""The file of labels: one JSON object a line, appended and never changed.

Every label, undo, and look at the test set is a line with its time and author. A line
is on the disk before the call that wrote it returns.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sk_medsiglip._files import append_line, lock_until_closed
from sk_medsiglip._json import MAX_BYTES, read_json
from sk_medsiglip.exceptions import SessionError

Entry = dict[str, Any]

_MOST_ROWS = 2**31
_COMMON: dict[str, Any] = {"what": str, "id": str, "at": str, "by": str}
#: Kinds of lines, with the types of their own keys.
_KINDS: dict[str, dict[str, Any]] = {
    "start": {"digest": str, "columns": list, "values": list, "locked": list},
    "label": {"column": str, "value": (str, int, float, type(None)), "rows": list},
    "undo": {"of": str},
    "end": {},
    "look": {},
}


class LabelFile:
    """A file that several sessions append to and read; without a path, in memory."""

    def __init__(self, path: Path | None, user: str) -> None:
        self.path, self.user = path, user
        self._memory = b""
        self.n_read = 0  # bytes
        self._n_lines = 0
        self._is_torn = False  # the last line, which was reported already

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found in it when it was last read."""
        return not self.n_read and not self._is_torn

    def append(self, what: str, **content: Any) -> str:
        """Write a line, and return its id once it is on the disk."""
        entry: Entry = {
            "what": what,
            "id": secrets.token_hex(8),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "by": self.user,
            **content,
        }
        line = json.dumps(entry, ensure_ascii=False).encode("utf-8", "surrogatepass")
        if self.path is None:
            self._memory += line + b"\n"
        else:
            append_line(self.path, line)
        return str(entry["id"])

    def read_new(self) -> Iterator[tuple[int, Entry | ValueError]]:
        """Yield the number and content of every line not read before.

        A line that is not ours, or is damaged, is yielded as the error that it raises.
        """
        *whole, last = self._read().split(b"\n")
        for line in whole:
            self.n_read += len(line) + 1
            self._n_lines += 1
            was_torn, self._is_torn = self._is_torn, False
            if line.strip() and not (was_torn and _is_broken(line)):
                yield self._n_lines, _parse(line)
        if not _is_broken(last):  # all of it is there but the newline
            self.n_read += len(last)
            yield self._n_lines + 1, _parse(last)
        elif last.strip() and not self._is_torn:
            # Cut off by a crash, or not written to its end yet on a disk without locks:
            # it stays to be read.
            self._is_torn = True
            yield self._n_lines + 1, ValueError("it is cut off")

    def _read(self) -> bytes:
        if self.path is None:
            return self._memory[self.n_read :]
        try:
            with self.path.open("rb") as file:
                lock_until_closed(file.fileno())  # no line is half written then
                file.seek(self.n_read)
                content = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return b""
        if len(content) > MAX_BYTES:
            raise SessionError(
                f"{self.path} has more than {MAX_BYTES} bytes, which no session "
                "writes: name another file as labels_path."
            )
        return content


def _parse(line: bytes) -> Entry | ValueError:
    """Return the content of a line, or the error that says why it is not ours."""
    try:
        entry = read_json(line, _COMMON)
        if entry["what"] not in _KINDS:
            raise ValueError(f"{entry['what']!r} is not a kind of line")
        own = _KINDS[entry["what"]]
        read_json(line, own)
        unknown = sorted(set(entry) - set(_COMMON) - set(own))
        if unknown:
            raise ValueError(f"it has unknown keys, {unknown}")
        for key in {"rows", "locked"} & set(own):
            if not all(
                type(row) is int and 0 <= row <= _MOST_ROWS for row in entry[key]
            ):
                raise ValueError(f"{key!r} holds something other than row numbers")
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            return ValueError("it is not JSON")
        return error
    return entry


def _is_broken(line: bytes) -> bool:
    return isinstance(_parse(line), ValueError)
