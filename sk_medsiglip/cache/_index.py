"""The index: the place of each row, in one SQLite file.

It holds no embeddings, and can be rebuilt from the segments except for conveniences
(which files were read, when rows were used). Every answer is checked against a segment
or a checksum, so damage that SQLite does not notice causes a miss, never a wrong
vector.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cache._recent_rows import RECENT_SCHEMA, RecentRows
from sk_medsiglip.cache._space import Space
from sk_medsiglip.cache._system import network_file_system, open_file, share
from sk_medsiglip.exceptions import CacheError, CacheFormatError

INDEX_FORMAT = 2  # format 1 had no recent rows; it is updated when it is opened

# A place is the number of a segment times 2**32 plus the number of the row in it; a
# block is 256 neighbouring places. Keys are 64-bit integers, which SQLite finds fastest
# and packs into 20 bytes per row.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS rows (key INTEGER PRIMARY KEY, place INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS segments
    (id INTEGER PRIMARY KEY, space TEXT NOT NULL, n_rows INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS uses (block INTEGER PRIMARY KEY, used INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS files (key INTEGER PRIMARY KEY, entry BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
{RECENT_SCHEMA}
PRAGMA user_version = {INDEX_FORMAT};
"""

FILE_KEY_BYTES = 32
BUSY_TIMEOUT = 60.0  # seconds to wait for another writer; transactions take ms
KEYS_PER_QUERY = 500  # measured: 0.94 us per key; 1.66 at 100, 1.09 at 5000
CHECKPOINT_PAGES = 4000  # 16 MB of log; a fifth faster than 1000 for small batches

# SQLite codes that mean damage, as do errors without a code.
DAMAGE_CODES = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,  # no such table: damage in the schema
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_CONSTRAINT,  # only a damaged schema refuses the values written here
    sqlite3.SQLITE_TOOBIG,
}


class DamagedIndex(Exception):
    """The index cannot be used as it is; it can be rebuilt."""


class Index:
    """One connection to the index of a store."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        self.path = path
        self.writable = True
        # A write-ahead log needs memory shared by all processes. Processes on two
        # machines do not share memory, and would corrupt the file.
        self._journal_mode = "TRUNCATE" if network_file_system(path) else "WAL"
        if create:
            os.close(open_file(path, os.O_RDWR | os.O_CREAT))
        status = os.stat(path)
        # An inode is not reused while this connection is open, so this identifies
        # the file even if another one takes its path.
        self.identity = (status.st_dev, status.st_ino)
        try:
            self._connect("mode=rw", create=create)
        except CacheError as error:
            if create or isinstance(error, CacheFormatError):
                raise
            self.writable = False
            # The last resort ignores the log, which cannot be opened.
            try:
                self._connect("mode=ro")
            except CacheError:
                self._connect("immutable=1")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # ---------------------------------------------------------------------------- rows

    def places(self, keys: Sequence[int]) -> dict[int, int]:
        """Return the places of known keys."""
        # Recent rows first, so that a row that another process moves into the tree
        # meanwhile is found there.
        with _noticing_damage():
            recent = self._recent.places()
        found = {key: recent[key] for key in keys if key in recent} if recent else {}
        rest = [key for key in keys if key not in found] if found else keys
        found.update(self._find("SELECT key, place FROM rows WHERE key IN ", rest))
        if not all(type(place) is int and place >= 0 for place in found.values()):
            raise DamagedIndex("invalid place")
        return found

    def all_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the keys and places of all rows, ordered by place."""
        with _noticing_damage():
            rows = dict(self._recent.places())
            # If a key is in both, the place in the tree is right.
            rows.update(self._connection.execute("SELECT key, place FROM rows"))
            pairs = np.array(list(rows.items()), dtype=np.int64).reshape(-1, 2)
        pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]
        return pairs[:, 0], pairs[:, 1]

    def count_rows(self) -> int:
        """Return the number of rows."""
        with _noticing_damage():
            recent = list(self._recent.places())
        in_tree = self._find("SELECT key FROM rows WHERE key IN ", recent)
        in_both = sum(1 for _ in in_tree)
        return self._number("SELECT count(*) FROM rows") + len(recent) - in_both

    def append_rows(self, keys: Sequence[int], first_place: int) -> None:
        """Record rows with new keys, at consecutive places of a segment."""
        with _noticing_damage():
            self._recent.add(keys, first_place)

    def add_rows(self, keys: Iterable[int], places: Iterable[int]) -> int:
        """Record the places of rows with new keys; return their number."""
        self._settle()
        return self._many(
            "INSERT OR IGNORE INTO rows VALUES (?, ?)", zip(keys, places, strict=True)
        )

    def move_rows(self, keys: Iterable[int], places: Iterable[int]) -> None:
        """Record the new places of rows."""
        self._settle()
        self._many(
            "INSERT OR REPLACE INTO rows VALUES (?, ?)", zip(keys, places, strict=True)
        )

    def drop_rows(self, keys: Iterable[int], places: Iterable[int]) -> None:
        """Remove rows, unless they have moved meanwhile."""
        self._settle()
        self._many(
            "DELETE FROM rows WHERE key = ? AND place = ?",
            zip(keys, places, strict=True),
        )

    # ------------------------------------------------------------------------ segments

    def segments(self) -> dict[int, tuple[Space, int]]:
        """Return the space of each segment, and the number of its indexed rows."""
        with _noticing_damage():
            found = self._connection.execute("SELECT id, space, n_rows FROM segments")
            return {
                int(number): (Space.from_line(space), int(n_rows))
                for number, space, n_rows in found
            }

    def note_segment(self, number: int, space: Space, n_rows: int) -> None:
        """Record a segment whose first ``n_rows`` rows are indexed."""
        with _noticing_damage():
            self._connection.execute(
                "INSERT OR REPLACE INTO segments VALUES (?, ?, ?)",
                (number, space.line, n_rows),
            )

    def drop_segment(self, number: int) -> None:
        """Remove a segment and the use of its blocks, but not its rows."""
        self._many("DELETE FROM segments WHERE id = ?", [(number,)])
        self._many(
            "DELETE FROM uses WHERE block >> 24 = ?",
            [(number,)],
        )

    # ---------------------------------------------------------------- use and counters

    def uses(self) -> dict[int, int]:
        """Return the time of the last use of each block."""
        with _noticing_damage():
            found = self._connection.execute("SELECT block, used FROM uses")
            return {int(block): int(used) for block, used in found}

    def note_uses(self, uses: Iterable[tuple[int, int]]) -> None:
        """Record the times of use of blocks."""
        self._many("INSERT OR REPLACE INTO uses VALUES (?, ?)", uses)

    def counter(self, name: str) -> int:
        """Return a counter, which starts at 0."""
        return self._number(
            "SELECT coalesce((SELECT value FROM counters WHERE name = ?), 0)", name
        )

    def count(self, name: str, increment: int) -> None:
        """Increase a counter."""
        if increment:
            self._many(
                "INSERT INTO counters VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                [(name, increment)],
            )

    # --------------------------------------------------------------------------- files

    def find_files(self, file_keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the fingerprint recorded for each file key, or None."""
        numbers = [_file_number(key) for key in file_keys]
        entries = dict(
            self._find("SELECT key, entry FROM files WHERE key IN ", numbers)
        )
        fingerprints: list[bytes | None] = []
        with _noticing_damage():
            for number, key in zip(numbers, file_keys, strict=True):
                entry = entries.get(number, b"")
                fingerprint = entry[FILE_KEY_BYTES:-4]
                # The entry repeats the key, since its number alone is not unique.
                known = entry == _file_entry(key, fingerprint)
                fingerprints.append(fingerprint if known else None)
        return fingerprints

    def add_files(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Record the fingerprints of file keys."""
        self._many(
            "INSERT OR REPLACE INTO files VALUES (?, ?)",
            [(_file_number(key), _file_entry(key, value)) for key, value in pairs],
        )

    def drop_files(self, file_keys: Iterable[bytes]) -> None:
        """Remove the fingerprints of file keys."""
        self._many(
            "DELETE FROM files WHERE key = ?",
            [(_file_number(key),) for key in file_keys],
        )

    def drop_damaged_files(self) -> int:
        """Remove damaged records of files; return their number."""
        with _noticing_damage():
            found = self._connection.execute("SELECT key, entry FROM files").fetchall()
            damaged = [
                (number,)
                for number, entry in found
                if entry
                != _file_entry(entry[:FILE_KEY_BYTES], entry[FILE_KEY_BYTES:-4])
                or number != _file_number(entry)
            ]
        return self._many("DELETE FROM files WHERE key = ?", damaged) if damaged else 0

    def count_files(self) -> int:
        """Return the number of recorded file states."""
        return self._number("SELECT count(*) FROM files")

    # --------------------------------------------------------------------- the whole

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Apply all changes of a ``with`` block, or none."""
        with _noticing_damage():
            self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with _noticing_damage():
                self._connection.execute("COMMIT")
        except BaseException:
            self._recent.forget()
            if self._connection.in_transaction:
                with _noticing_damage():
                    self._connection.execute("ROLLBACK")
            raise

    def check(self) -> None:
        """Read the whole file; raise ``DamagedIndex`` if SQLite finds an error."""
        with _noticing_damage():
            answer = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
        if answer != ("ok",):
            raise DamagedIndex(str(answer))

    def _connect(self, mode: str, *, create: bool = False) -> None:
        with _noticing_damage():
            self._connection = sqlite3.connect(
                f"{self.path.as_uri()}?{mode}",
                uri=True,
                timeout=BUSY_TIMEOUT,
                isolation_level=None,  # transactions are started explicitly
                check_same_thread=False,  # the store's lock serialises its threads
            )
            try:
                self._prepare(create)
                for suffix in ("-wal", "-shm") if self.writable else ():
                    share(self.path.with_name(self.path.name + suffix))
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, create: bool) -> None:
        run = self._connection.execute
        run("PRAGMA mmap_size = 0")  # an error rather than a signal, as for segments
        run("PRAGMA cell_size_check = ON")
        run("PRAGMA cache_size = -32768")  # KiB
        run("PRAGMA synchronous = NORMAL")
        run(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        run(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
        found = int(run("PRAGMA user_version").fetchone()[0])
        if found == 1 and self.writable:
            self._connection.executescript(SCHEMA)
            found = INDEX_FORMAT
        if found == 1:
            raise CacheFormatError(
                f"the index {self.path} is of an earlier version and cannot be "
                "updated, because it is read-only. Use the cache once where it can be "
                "written, or copy it to a writable folder."
            )
        if found not in (0, INDEX_FORMAT):
            raise CacheFormatError(
                f"the index {self.path} has format {found}; this version of "
                f"sk_medsiglip reads format {INDEX_FORMAT}. Upgrade sk_medsiglip, or "
                "set SK_MEDSIGLIP_CACHE to another folder. If no other version has "
                "been used here, the file is damaged; to repair it, run: sk-medsiglip "
                "cache verify"
            )
        if create and found == 0:
            run(f"PRAGMA journal_mode = {self._journal_mode}")
            self._connection.executescript(SCHEMA)
        elif found == 0:
            raise DamagedIndex("unfinished")
        elif self._journal_mode != "WAL" and self.writable:
            # The store was copied to a network disk. This has no effect if the mode is
            # right already; otherwise nobody else may have the file open.
            run(f"PRAGMA journal_mode = {self._journal_mode}")
        run("SELECT count(*) FROM segments").fetchone()
        self._recent = RecentRows(self._connection)

    def _settle(self) -> None:
        with _noticing_damage():
            self._recent.settle()

    def _find(self, query: str, keys: Sequence[int]) -> Iterator[tuple]:
        with _noticing_damage():
            for start in range(0, len(keys), KEYS_PER_QUERY):
                some = keys[start : start + KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                yield from self._connection.execute(f"{query}({marks})", some)

    def _number(self, query: str, *values: object) -> int:
        with _noticing_damage():
            return int(self._connection.execute(query, values).fetchone()[0])

    def _many(self, statement: str, values: Iterable[tuple]) -> int:
        with _noticing_damage():
            return self._connection.executemany(statement, values).rowcount


@contextmanager
def _noticing_damage() -> Iterator[None]:
    """Turn SQLite errors into DamagedIndex if a rebuild helps, else CacheError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code & 0xFF in DAMAGE_CODES or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            raise DamagedIndex(str(error)) from error
        raise CacheError(f"the index of the embedding cache: {error}") from error
    except (ValueError, TypeError, OverflowError, UnicodeError) as error:
        # A value that this class never writes is damaged.
        raise DamagedIndex(str(error)) from error


def _file_number(key: bytes) -> int:
    return int.from_bytes(key[:8], "little", signed=True)


def _file_entry(key: bytes, fingerprint: bytes) -> bytes:
    entry = key + fingerprint
    return entry + crc32(entry).to_bytes(4, "little")
