"""A folder on a disk or in an object store: whole files put, listed, read, removed.

Everything goes through pyarrow's file systems, and fsspec's where pyarrow knows none,
so that a path and ``s3://bucket/folder`` are the same to the rest of the room.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sk_medsiglip._optional import import_optional

T = TypeVar("T")

#: File systems on which a file is visible while it is being written.
_NOT_ATOMIC = ("local", "hdfs")

#: Number of simultaneous requests to an object store.
_REQUESTS = 32


def find_file_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL or path, and the path there."""
    fs = _pyarrow_fs()
    if "://" not in url:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(url))
    pyarrow = import_optional(
        "pyarrow", extra="ray", purpose="Reading and writing URLs"
    )
    try:
        return fs.FileSystem.from_uri(url)
    except pyarrow.ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise
    core = import_optional("fsspec.core", extra="remote", purpose="This kind of URL")
    file_system, path = core.url_to_fs(url)
    return fs.PyFileSystem(fs.FSSpecHandler(file_system)), path


class Storage:
    """One folder, and the files below it by their names with ``/``.

    Pickles hold the URL alone; each process opens its own connection.
    """

    def __init__(self, url: str) -> None:
        self._file_system, path = find_file_system(url)
        self._root = path.rstrip("/")
        # A relative path would mean another folder in a worker.
        self.url = url if "://" in url else path

    def put(self, name: str, content: Any) -> None:
        """Write a whole file: others find all of it, the file before it, or none."""
        path = self._path(name)
        if self._file_system.type_name not in _NOT_ATOMIC:
            # An object appears when it is complete.
            self._write(path, content)
            return
        folder, _, last = path.rpartition("/")
        draft = f"{folder}/.{last}.{uuid.uuid4().hex}"
        self._file_system.create_dir(folder, recursive=True)
        try:
            self._write(draft, content)
            self._file_system.move(draft, path)
        except BaseException:
            if self._exists(draft):
                self._file_system.delete_file(draft)
            raise

    def check_writable(self) -> None:
        """Write a file and remove it, before hours of work and not after."""
        name = f".{uuid.uuid4().hex}"
        try:
            self.put(name, b"0")
            self.remove([name])
        except OSError as error:
            raise OSError(
                f"{self.url} cannot be written to: {error}. Give as out a folder, or "
                "the URL of one in an object store, that this and all nodes may write."
            ) from error

    def put_table(self, name: str, table: Any, **options: Any) -> int:
        """Write a table as a Parquet file; return its size in bytes."""
        import pyarrow as pa
        from pyarrow import parquet

        sink = pa.BufferOutputStream()
        parquet.write_table(table, sink, **options)
        content = sink.getvalue()
        self.put(name, content)
        return int(content.size)

    def read_table(self, name: str) -> Any:
        """Return the table in a Parquet file."""
        from pyarrow import parquet

        with self.open(name) as file:
            return parquet.read_table(file)

    def get(self, name: str) -> bytes:
        """Return the content of a file."""
        with self._file_system.open_input_stream(self._path(name)) as stream:
            return stream.read()

    def open(self, name: str) -> Any:
        """Return a file that can seek, for readers that need only parts of it."""
        return self._file_system.open_input_file(self._path(name))

    def sizes(self, folder: str) -> dict[str, int]:
        """Return name -> bytes of the files in a folder below this one.

        Drafts, whose names start with a dot, are left out.
        """
        selector = _pyarrow_fs().FileSelector(self._path(folder), allow_not_found=True)
        found = self._file_system.get_file_info(selector)
        return {
            info.base_name: info.size
            for info in found
            if info.is_file and not info.base_name.startswith(".")
        }

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that another job has removed are passed over."""
        list(self.at_once(self._remove, names))

    def at_once(self, work: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
        """Do one thing with many files, some at a time; yield results in order."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            yield from pool.map(work, names)

    def __reduce__(self) -> tuple[type[Storage], tuple[str]]:
        return Storage, (self.url,)

    def _remove(self, name: str) -> None:
        path = self._path(name)
        try:
            self._file_system.delete_file(path)
        except OSError:
            if self._exists(path):
                raise

    def _write(self, path: str, content: Any) -> None:
        with self._file_system.open_output_stream(path) as stream:
            stream.write(content)

    def _exists(self, path: str) -> bool:
        missing = _pyarrow_fs().FileType.NotFound
        return self._file_system.get_file_info(path).type != missing

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _pyarrow_fs() -> Any:
    return import_optional("pyarrow.fs", extra="ray", purpose="Embedding on a cluster")
