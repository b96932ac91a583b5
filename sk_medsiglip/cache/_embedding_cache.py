"""``EmbeddingCache``: the store of embeddings as its users see it."""

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
    """Embeddings on disk: one float32 row for one image or text.

    A row is found by its content's fingerprint and by its :class:`Space`: the model,
    its revision, the preprocessing and the numeric type. It is never found by position
    or file name, so shuffled folds, other subsets and renamed files all meet it.

    Creating one touches no disk; reading where nothing was written is a miss. Pickles,
    copies and clones carry the location and no handle, and all caches of one location
    in one process share their handles. Threads, forked and spawned processes may use
    one location at once.

    Parameters
    ----------
    location : str, path-like or None, default=None
        Folder of the store. None takes the environment variable
        ``SK_MEDSIGLIP_CACHE``, else a per-user cache folder, each time on the machine
        at hand: a pickle made with None uses the other machine's own folder there.

    Attributes
    ----------
    location : pathlib.Path
        The folder, absolute.
    converted : pathlib.Path
        Folder inside it in which engines keep what they made of a checkpoint.

    Notes
    -----
    Warm reads cost about two to three times a numpy gather of the same rows. On disk a
    row of 1152 float32 takes 1.02 times its raw size, index included, and a remembered
    file about 100 bytes. What
    :meth:`put_many` stored survives the death of the process, not a power cut: rows
    that one loses are noticed by their checksums and computed again.

    Nothing on disk holds a pixel, a text, a path or a pickle. Folders are readable by
    their owner only, unless the folder existed and a group or everybody may write into
    it: then so they may into what is made there.

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
            Where to look.
        fingerprints : sequence of bytes
            blake3 digests of the contents, 32 bytes each; they may repeat.
        out : ndarray of shape (len(fingerprints), space.width), float32
            C-contiguous; written in place. Rows that are not found are undefined.
        any_numeric : bool, default=False
            Accept rows that another numeric type or engine computed, float32 first.

        Returns
        -------
        found : ndarray of shape (len(fingerprints),), bool
            True where ``out`` holds the row.

        Raises
        ------
        CacheError
            If the store cannot be read at all, or another version wrote it.

        Warns
        -----
        CacheWarning
            If rows failed their checksum. They count as not found, and the next
            :meth:`put_many` of them stores them afresh. Also if rows could not be read
            now, for an error of the system: they count as not found and are kept.
        """
        return self._store.reader.get_many(
            space, fingerprints, out, any_numeric=any_numeric
        )

    def put_many(
        self, space: Space, fingerprints: Sequence[bytes], vectors: ArrayLike
    ) -> None:
        """Store rows; they outlive the process as soon as this returns.

        Rows that are there already are left as they are, and counted
        (``stats()["repeated_puts"]``).

        Parameters
        ----------
        space : Space
            Model and preprocessing that computed them.
        fingerprints : sequence of bytes
            blake3 digests of the contents, 32 bytes each.
        vectors : array-like of shape (len(fingerprints), space.width)
            Kept as float32.

        Raises
        ------
        CacheError
            If nothing can be written: the disk is full, the folder is read-only. The
            store is then as it was before, and the caller may go on without it.
        """
        self._store.writer.put_many(space, fingerprints, vectors)

    # ------------------------------------------------------------------------- claims

    def claim(self, space: Space, fingerprints: Sequence[bytes]) -> list[bool]:
        """Say which of the missing rows are the caller's to compute; never blocks.

        True means: nobody else is computing it, and everybody who asks from now on is
        told to wait. Equal fingerprints in one call get equal answers. A claim ends
        with :meth:`release`, or with the death of the process. Claim a batch at a time,
        not a data set: the system looks through its list of locks at each of them.

        The rule that rules out deadlock: *never wait while holding a claim*. Compute
        and store what is yours, release it, then wait for the rest::

            mine = cache.claim(space, missing)
            # read once more what is mine: somebody may have stored it just before
            # compute and put what is mine, then release it
            cache.wait(space, others)
            # get the others; claim again whatever is still missing (its holder died)
        """
        return self._store.claims.claim(space, fingerprints)

    def release(self, space: Space, fingerprints: Sequence[bytes]) -> None:
        """Give claims back; those not held are ignored."""
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
            Model and preprocessing that compute them.
        fingerprints : bytes or sequence of bytes
            One, or several.
        timeout : float or None, default=None
            Seconds to wait at most; None waits as long as the holder lives.

        Returns
        -------
        bool
            False if the time ran out. True says that the holder is done or dead, not
            that the row is there: look again, and claim it if it is not.
        """
        wanted = [fingerprints] if isinstance(fingerprints, bytes) else fingerprints
        return self._store.claims.wait(space, wanted, timeout)

    @contextmanager
    def claimed(
        self, space: Space, fingerprints: Sequence[bytes]
    ) -> Iterator[list[bool]]:
        """Hold claims for the length of a ``with`` block.

        Yields what :meth:`claim` returns, and releases those on every way out.
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
        """Return the fingerprint of each file, known from an earlier reading.

        Parameters
        ----------
        stamps : sequence of FileStamp or None
            From :func:`file_stamps`. None is answered by None.
        reading : str
            How files become pixels (grey values, frame, ...): the same file read in
            another way has another fingerprint.

        Returns
        -------
        list of bytes or None
            None where this very state of the file was never read in this way.
        """
        return recall_files(self._store.index, stamps, reading)

    def remember_files(
        self,
        stamps: Sequence[FileStamp | None],
        reading: str,
        fingerprints: Sequence[bytes | None],
    ) -> None:
        """Note what files in these states were found to contain.

        ``stamps`` must have been taken *before* the files were read. Files that
        changed too shortly before that (within the clock's grain) are passed over,
        since a second change could bear the same time; so are pairs with a None.

        Raises
        ------
        CacheError
            If nothing can be written.
        """
        remember_files(self._store.index, stamps, reading, fingerprints)

    def forget_files(self, stamps: Sequence[FileStamp], reading: str) -> None:
        """Forget what files in these states were found to contain.

        Parameters
        ----------
        stamps : sequence of FileStamp
            From :func:`file_stamps`.
        reading : str
            As in :meth:`remember_files`.

        Raises
        ------
        CacheError
            If nothing can be written.
        """
        forget_files(self._store.index, stamps, reading)

    def remember_model(
        self, name: str, requested_revision: str | None, facts: Mapping[str, Any]
    ) -> None:
        """Keep what is known of a model, so that a filled cache needs no model.

        Parameters
        ----------
        name : str
            As the user gave it. Only its hash is kept: it may be a path.
        requested_revision : str or None
            As the user gave it: ``None``, ``"main"``, a commit.
        facts : mapping
            JSON-able: the resolved revision, width, image size, logit scale and bias.
            Replaces what was known.

        Raises
        ------
        CacheError
            If nothing can be written.
        """
        self._store.models.remember(name, requested_revision, facts)

    def recall_model(
        self, name: str, requested_revision: str | None
    ) -> dict[str, Any] | None:
        """Return the facts of :meth:`remember_model`, or None."""
        return self._store.models.recall(name, requested_revision)

    # --------------------------------------------------------------------- for people

    def stats(self) -> dict[str, Any]:
        """Return what the store holds.

        Returns
        -------
        dict
            ``location``; ``network``, the type of its file system where that is one
            over a network (``"nfs4"``), else None; ``rows``; ``bytes`` on disk, all
            files but converted models; ``converted_bytes``, these; ``segments``;
            ``spaces``, a list of dicts, each the fields of a :class:`Space` with its
            ``rows``; ``files`` and ``models`` remembered; ``rows_computed``, all rows
            ever stored; ``repeated_puts``, rows that were computed though they were
            there. The last two are zero again after :meth:`clear`.
        """
        return self._store.stats()

    def verify(self) -> VerifyReport:
        """Read every row against its checksum, and mend the index.

        Damaged rows are taken out of the index, so that they are computed again; rows
        that the index lost are put back; a damaged index is built anew.

        Returns
        -------
        VerifyReport
            Counts of intact, damaged and recovered rows.

        Raises
        ------
        CacheError
            If another version wrote the store, or it cannot be written.

        Notes
        -----
        Reads the whole store, about a second for 200,000 rows of 1152 in memory; other
        threads of this process wait for it, other processes work on.
        """
        return self._store.verify()

    def export_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        model: str | None = None,
        verbose: int | bool = 0,
    ) -> int:
        """Write rows to one Parquet file, for another machine to import.

        Embed where there is a GPU, train on a laptop without the weights: the file
        also carries what is known of the models, logit scale and bias included.

        Parameters
        ----------
        path : str or path-like
            File to write; it appears, or is replaced, when it is complete.
        model : str or None, default=None
            Only rows of this model: its name, or the first characters of a revision.
        verbose : int, default=0
            Over 0 shows a progress bar.

        Returns
        -------
        int
            Rows written.

        Raises
        ------
        CacheError
            If the store holds no rows of the model.
        MissingDependencyError
            If pyarrow is not installed.

        Notes
        -----
        One record a row: space (JSON), fingerprint, checksum, vector. Memory is
        bounded. Rows that others add meanwhile may be left out. Which files the rows
        belong to is not part of it: the other machine reads its images once to find
        out, and needs no model for that.
        """
        return export_rows(self._store, Path(path), model, int(verbose))

    def import_parquet(
        self, path: str | os.PathLike[str], *, verbose: int | bool = 0
    ) -> ImportReport:
        """Add the rows of a file that :meth:`export_parquet` wrote.

        Parameters
        ----------
        path : str or path-like
            The file.
        verbose : int, default=0
            Over 0 shows a progress bar.

        Returns
        -------
        ImportReport
            How many rows there were, and how many are new.

        Raises
        ------
        CacheError
            If it is not an export, or damaged: rows before the damage are kept. Also
            if the store cannot be written.
        MissingDependencyError
            If pyarrow is not installed.

        Notes
        -----
        May be repeated, and run beside other writers. Rows are taken as they are:
        import files of people whom you trust with your results.
        """
        return import_rows(self._store, Path(path), int(verbose))

    def prune(self, max_bytes: int) -> int:
        """Delete the least recently used rows until the store fits.

        Use is recorded by blocks of 256 neighbouring rows. Other processes may read
        meanwhile; segments that another process is writing to are left alone.

        Parameters
        ----------
        max_bytes : int
            Bytes that the segments may take.

        Returns
        -------
        int
            Bytes freed.

        Raises
        ------
        TypeError, ValueError
            If ``max_bytes`` is not a whole number from 0.
        """
        if not isinstance(max_bytes, Integral) or isinstance(max_bytes, bool):
            raise TypeError(
                f"max_bytes must be a whole number of bytes, got {max_bytes!r}; "
                "5 GB are 5_000_000_000."
            )
        if max_bytes < 0:
            raise ValueError(f"max_bytes must be 0 or more, got {max_bytes}.")
        return self._store.prune(max_bytes)

    def clear(self) -> None:
        """Delete everything that is stored: rows, files and models remembered.

        Models that an engine has converted go too.
        """
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
        # An empty store is a store: `if cache:` must not mean "if it holds rows".
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
