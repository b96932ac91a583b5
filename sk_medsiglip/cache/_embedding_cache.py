"""``EmbeddingCache``: the public class of the store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip.cache._files import (
    FileStamp,
    file_stamps,
    forget_files,
    recall_files,
    remember_files,
)
from sk_medsiglip.cache._parquet import ImportReport, export_rows, import_rows
from sk_medsiglip.cache._repair import VerifyReport
from sk_medsiglip.cache._space import Space
from sk_medsiglip.cache._store import Store, open_store
from sk_medsiglip.cache._system import CONVERTED, resolve_location


class EmbeddingCache(Mapping[tuple[Space, bytes], NDArray[np.float32]]):
    """Embeddings on disk: one float32 row per image or text.

    A row is identified by the fingerprint of its content and by its :class:`Space`: the
    model, its revision, the preprocessing and the numeric type. Position and file name
    are irrelevant, so rows are found for shuffled folds, subsets and renamed files.

    Creating an instance does not access the disk; reading from an empty location is a
    miss. Pickles, copies and clones hold the location and no handles, and all caches of
    one location in one process share their handles. Threads, forked and spawned
    processes may use one location at the same time.

    Parameters
    ----------
    location : str, path-like or None, default=None
        Folder of the store. None uses the environment variable ``SK_MEDSIGLIP_CACHE``,
        or else a per-user cache folder. It is resolved on each machine, so a pickle
        made with None uses the folder of the machine where it is loaded.

    Attributes
    ----------
    location : pathlib.Path
        Absolute path of the folder.
    converted : pathlib.Path
        Sub-folder in which engines store converted checkpoints.

    Notes
    -----
    Warm reads take about two to three times as long as a numpy gather of the same rows.
    On disk, a row of 1152 float32 takes 1.02 times its raw size including the index,
    and the record of a file about 100 bytes. Rows stored by :meth:`put_many` survive
    the death of the process. Rows that are lost in a power failure are detected by
    their checksums and computed again.

    Pixels, texts, paths and pickles are never stored. Folders are readable by their
    owner only, unless the folder existed and a group or everybody may write to it: then
    the files created in it are shared in the same way.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from blake3 import blake3
    >>> from sk_medsiglip.cache import EmbeddingCache, Space
    >>> space = Space("text", "demo", "1f0c", "64 tokens", "float32", "torch", 4)
    >>> known, unknown = blake3(b"a rib").digest(), blake3(b"a lung").digest()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache = EmbeddingCache(folder)
    ...     cache.put_many(space, [known], np.ones((1, 4), np.float32))
    ...     out = np.empty((2, 4), np.float32)
    ...     found = cache.get_many(space, [known, unknown], out)
    ...     cache.close()
    >>> found
    array([ True, False])
    >>> out[found]
    array([[1., 1., 1., 1.]], dtype=float32)
    """

    def __init__(self, location: str | os.PathLike[str] | None = None) -> None:
        self._given = None if location is None else os.fspath(location)
        self.location: Path = resolve_location(self._given)
        self.converted: Path = self.location / CONVERTED
        self._shared: Store | None = None

    # ------------------------------------------------------------------- rows, in bulk

    def get_many(
        self,
        space: Space,
        fingerprints: Sequence[bytes],
        out: NDArray[np.float32],
        *,
        any_numeric: bool = False,
    ) -> NDArray[np.bool_]:
        """Fill ``out[i]`` for every fingerprint that is stored.

        Parameters
        ----------
        space : Space
            Model and preprocessing of the rows.
        fingerprints : sequence of bytes
            blake3 digests of the contents, 32 bytes each; they may repeat.
        out : ndarray of shape (len(fingerprints), space.width), float32
            C-contiguous array, written in place. Rows that are not found are undefined.
        any_numeric : bool, default=False
            Whether to accept rows computed with another numeric type or engine, float32
            first.

        Returns
        -------
        found : ndarray of shape (len(fingerprints),), bool
            True where ``out`` holds the row.

        Raises
        ------
        CacheError
            If the store cannot be read, or was written by another version.

        Warns
        -----
        CacheWarning
            If rows are damaged: they count as missing, and the next :meth:`put_many`
            stores them again. Also if rows could not be read because of a system error:
            they count as missing, but are kept.
        """
        return self._store.reader.get_many(
            space, fingerprints, out, any_numeric=any_numeric
        )

    def put_many(
        self, space: Space, fingerprints: Sequence[bytes], vectors: ArrayLike
    ) -> None:
        """Store rows, which survive the process once this method has returned.

        Rows that are already stored are kept, and counted
        (``stats()["repeated_puts"]``).

        Parameters
        ----------
        space : Space
            Model and preprocessing of the rows.
        fingerprints : sequence of bytes
            blake3 digests of the contents, 32 bytes each.
        vectors : array-like of shape (len(fingerprints), space.width)
            The rows, stored as float32.

        Raises
        ------
        CacheError
            If rows cannot be written because the disk is full or the folder read-only.
            The store is then unchanged, and the caller may continue without it.
        """
        self._store.writer.put_many(space, fingerprints, vectors)

    # ------------------------------------------------------------------------- claims

    def claim(self, space: Space, fingerprints: Sequence[bytes]) -> list[bool]:
        """Claim missing rows; return which the caller has to compute, without blocking.

        True means that nobody else is computing the row, and that others who claim it
        from now on get False. Equal fingerprints in one call get equal answers. A claim
        ends with :meth:`release`, or with the death of the process. Claim a batch at a
        time, not a data set: the system searches its list of locks for each of them.

        To avoid deadlock, *never wait while holding a claim*. Compute and store the
        claimed rows, release them, then wait for the rest::

            mine = cache.claim(space, missing)
            # get the claimed rows again: somebody may have stored them just before
            # compute and put the claimed rows, then release them
            cache.wait(space, others)
            # get the others; claim rows that are still missing (their holder died)
        """
        return self._store.claims.claim(space, fingerprints)

    def release(self, space: Space, fingerprints: Sequence[bytes]) -> None:
        """Release claims; those that are not held are ignored."""
        self._store.claims.release(space, fingerprints)

    def wait(
        self,
        space: Space,
        fingerprints: bytes | Sequence[bytes],
        timeout: float | None = None,
    ) -> bool:
        """Block until nobody holds a claim on any of these rows.

        Parameters
        ----------
        space : Space
            Model and preprocessing of the rows.
        fingerprints : bytes or sequence of bytes
            One or several digests.
        timeout : float or None, default=None
            Longest time to wait, in seconds; None waits as long as the holder lives.

        Returns
        -------
        bool
            False after a timeout. True means that the holder has finished or died, not
            that the row is stored: get it again, and claim it if it is missing.
        """
        wanted = [fingerprints] if isinstance(fingerprints, bytes) else fingerprints
        return self._store.claims.wait(space, wanted, timeout)

    @contextmanager
    def claimed(
        self, space: Space, fingerprints: Sequence[bytes]
    ) -> Iterator[list[bool]]:
        """Hold claims for the duration of a ``with`` block.

        The result of :meth:`claim` is yielded, and its claims are always released.
        """
        mine = self.claim(space, fingerprints)
        try:
            yield mine
        finally:
            self.release(
                space, [f for f, ours in zip(fingerprints, mine, strict=True) if ours]
            )

    # --------------------------------------------------------------- files and models

    file_stamps = staticmethod(file_stamps)

    def recall_files(
        self, stamps: Sequence[FileStamp | None], reading: str
    ) -> list[bytes | None]:
        """Return the fingerprints of files that were read before in the same state.

        Parameters
        ----------
        stamps : sequence of FileStamp or None
            Result of :func:`file_stamps`. None gives None.
        reading : str
            Description of how files become pixels (grey values, frame, ...): the same
            file read in another way has another fingerprint.

        Returns
        -------
        list of bytes or None
            None for files that have not been read in this state and this way.
        """
        return recall_files(self._store.index, stamps, reading)

    def remember_files(
        self,
        stamps: Sequence[FileStamp | None],
        reading: str,
        fingerprints: Sequence[bytes | None],
    ) -> None:
        """Record the fingerprints of files in these states.

        ``stamps`` must have been taken *before* the files were read. Pairs with a None
        are skipped, as are files that changed too shortly before (within the resolution
        of the clock), since a second change could have the same time.

        Raises
        ------
        CacheError
            If the store cannot be written.
        """
        remember_files(self._store.index, stamps, reading, fingerprints)

    def forget_files(self, stamps: Sequence[FileStamp], reading: str) -> None:
        """Remove the fingerprints of files in these states.

        Parameters
        ----------
        stamps : sequence of FileStamp
            Result of :func:`file_stamps`.
        reading : str
            As in :meth:`remember_files`.

        Raises
        ------
        CacheError
            If the store cannot be written.
        """
        forget_files(self._store.index, stamps, reading)

    def remember_model(
        self, name: str, requested_revision: str | None, facts: Mapping[str, Any]
    ) -> None:
        """Record facts about a model, so that a filled cache can be used without it.

        Parameters
        ----------
        name : str
            Name given by the user. Only its hash is stored, since it may be a path.
        requested_revision : str or None
            Revision given by the user: ``None``, ``"main"``, a commit.
        facts : mapping
            Facts that JSON can represent: the resolved revision, width, image size,
            logit scale and bias. They replace earlier ones.

        Raises
        ------
        CacheError
            If the store cannot be written.
        """
        self._store.models.remember(name, requested_revision, facts)

    def recall_model(
        self, name: str, requested_revision: str | None
    ) -> dict[str, Any] | None:
        """Return the facts recorded by :meth:`remember_model`, or None."""
        return self._store.models.recall(name, requested_revision)

    # --------------------------------------------------------------------- for people

    def stats(self) -> dict[str, Any]:
        """Return statistics of the store.

        Returns
        -------
        dict
            ``location``; ``network``, the type of a network file system such as
            ``"nfs4"``, else None; the number of ``rows``; ``bytes`` on disk without
            converted models; ``converted_bytes`` of these; the number of ``segments``;
            ``spaces``, a list of dicts, each with the fields of a :class:`Space` and
            its number of ``rows``; the numbers of recorded ``files`` and ``models``;
            ``rows_computed``, all rows ever stored; ``repeated_puts``, rows that were
            computed although they were stored. :meth:`clear` resets the last two.
        """
        return self._store.stats()

    def verify(self) -> VerifyReport:
        """Compare every row with its checksum, and repair the index.

        Damaged rows are removed from the index, so that they are computed again; rows
        that the index has lost are restored; a damaged index is rebuilt.

        Returns
        -------
        VerifyReport
            Counts of intact, damaged and recovered rows.

        Raises
        ------
        CacheError
            If the store was written by another version, or cannot be written.

        Notes
        -----
        The whole store is read, which takes about a second for 200,000 rows of 1152 in
        memory. Other threads of this process wait for it; other processes continue.
        """
        return self._store.verify()

    def export_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        model: str | None = None,
        verbose: int | bool = 0,
    ) -> int:
        """Export rows to one Parquet file, to be imported on another machine.

        Images can so be embedded on a machine with a GPU, and heads trained on a laptop
        without the weights: the file also contains the facts about the models,
        including logit scale and bias.

        Parameters
        ----------
        path : str or path-like
            File to write; it appears, or is replaced, when it is complete.
        model : str or None, default=None
            Model whose rows are exported: its name, or the first characters of a
            revision. By default, all rows are exported.
        verbose : int, default=0
            If positive, show a progress bar.

        Returns
        -------
        int
            Number of rows written.

        Raises
        ------
        CacheError
            If the store holds no rows of the model.
        MissingDependencyError
            If pyarrow is not installed.

        Notes
        -----
        The file has one record per row: space (JSON), fingerprint, checksum, vector.
        Memory is bounded. Rows that are added meanwhile may be missing. Files are not
        exported: the other machine reads its images once to find their fingerprints,
        for which it does not need the model.
        """
        return export_rows(self._store, Path(path), model, int(verbose))

    def import_parquet(
        self, path: str | os.PathLike[str], *, verbose: int | bool = 0
    ) -> ImportReport:
        """Import the rows of a file written by :meth:`export_parquet`.

        Parameters
        ----------
        path : str or path-like
            File to read.
        verbose : int, default=0
            If positive, show a progress bar.

        Returns
        -------
        ImportReport
            Number of rows in the file, and number of new rows.

        Raises
        ------
        CacheError
            If the file is not an export, or is damaged; rows before the damage are
            kept. Also if the store cannot be written.
        MissingDependencyError
            If pyarrow is not installed.

        Notes
        -----
        An import may be repeated, and may run at the same time as other writers. Rows
        are accepted without validation of their values, so only import files from
        people whom you trust with your results.
        """
        return import_rows(self._store, Path(path), int(verbose))

    def prune(self, max_bytes: int) -> int:
        """Delete the least recently used rows until the store fits.

        Use is recorded per block of 256 neighbouring rows. Other processes may read
        meanwhile; segments to which another process is writing are not changed.

        Parameters
        ----------
        max_bytes : int
            Largest size of all segments, in bytes.

        Returns
        -------
        int
            Number of bytes freed.

        Raises
        ------
        TypeError, ValueError
            If ``max_bytes`` is not a non-negative integer.
        """
        if not isinstance(max_bytes, Integral) or isinstance(max_bytes, bool):
            raise TypeError(
                f"max_bytes must be an integer, got {max_bytes!r}; 5 GB is "
                "5_000_000_000."
            )
        if max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative, got {max_bytes}.")
        return self._store.prune(max_bytes)

    def clear(self) -> None:
        """Delete all rows, records of files and models, and converted models."""
        self._store.clear()

    def close(self) -> None:
        """Close the handles on this location; the next use opens them again."""
        if self._shared is not None:
            self._shared.close()

    # -------------------------------------------------------------------- as a mapping

    def __getitem__(self, key: tuple[Space, bytes]) -> NDArray[np.float32]:
        space, fingerprint = key
        out = np.empty((1, space.width), np.float32)
        if not self.get_many(space, [fingerprint], out)[0]:
            raise KeyError(key)
        return out[0]

    def __iter__(self) -> Iterator[tuple[Space, bytes]]:
        return self._store.iterate()

    def __len__(self) -> int:
        return self._store.count_rows()

    def __bool__(self) -> bool:
        # `if cache:` must not mean "if it contains rows".
        return True

    # ------------------------------------------------------------ identity and pickles

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EmbeddingCache):
            return NotImplemented
        return self.location == other.location

    def __hash__(self) -> int:
        return hash(self.location)

    def __repr__(self) -> str:
        return f"EmbeddingCache({str(self.location)!r})"

    def __reduce__(self) -> tuple[type[EmbeddingCache], tuple[str | None]]:
        return EmbeddingCache, (self._given,)

    def __sklearn_clone__(self) -> EmbeddingCache:
        return self

    @property
    def _store(self) -> Store:
        if self._shared is None:
            self._shared = open_store(self.location)
        return self._shared
