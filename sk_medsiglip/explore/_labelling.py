"""The rows of a session, their labels, and the rows that are locked for the test."""

from __future__ import annotations

import getpass
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from blake3 import blake3
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length

from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._splits import check_groups
from sk_medsiglip._warning import warn_user
from sk_medsiglip.exceptions import LabelFileWarning, SessionError
from sk_medsiglip.explore._answers import Answers
from sk_medsiglip.explore._label_file import Entry, LabelFile
from sk_medsiglip.explore._locked import check_patients, choose_locked
from sk_medsiglip.explore._task import BLANK, Codes, Task

#: Rows that are hashed at a time.
_HASHED = 4096
#: Lines of a file that one warning names.
_NAMED = 5


class Labelling:
    """Abstract session: what it holds, and how labels come in; it trains nothing."""

    def __init__(
        self,
        X: Any,
        task: Task,
        images: Sequence[Any] | None,
        frame: pd.DataFrame | None,
        groups: ArrayLike | None,
        locked: Any,
        labels_path: str | os.PathLike[str] | None,
        random_state: int,
        user: str | None,
    ) -> None:
        """Check what is held, and read the label file."""
        self.X = _check_rows(X)
        check_consistent_length(self.X, images, frame, groups)
        self.images = images
        self.frame = None if frame is None else frame.reset_index(drop=True)
        self.groups = None if groups is None else check_groups(groups, len(self.X))
        self._task = task
        self.random_state = random_state
        self._lengths = _lengths(self.X)
        path = None if labels_path is None else Path(labels_path)
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(
                f"the folder {path.parent} of labels_path does not exist; make it."
            )
        self._file = LabelFile(path, _user() if user is None else str(user))
        self._answers: Answers | None = None
        self._base = self._labels_of_frame()
        self._open(locked)

    @property
    def columns(self) -> list[str]:
        """Names of the columns to label."""
        return list(self._task.columns)

    @property
    def values(self) -> list[Any]:
        """Answers to each column, beside "unsure": no and yes, or the classes."""
        return self._task.values

    @property
    def labels(self) -> pd.DataFrame:
        """The answers: a table with a row for each image, None where there is none.

        Those of locked rows appear when the training has ended.
        """
        return self._task.words(self._shown)

    @property
    def paths(self) -> list[str] | None:
        """Paths of the images, None where images are given as something else."""
        if self.images is None or not all(
            isinstance(one, str | os.PathLike) for one in self.images
        ):
            return None
        return [os.fspath(one) for one in self.images]

    @property
    def is_ended(self) -> bool:
        """Whether the training has ended, so that locked rows may be labelled."""
        return self._held.is_ended

    @property
    def n_looks(self) -> int:
        """Number of times that the locked rows were judged."""
        return self._held.n_looks

    def label(self, rows: int | Sequence[int], column: str, value: Any) -> None:
        """Give rows a label, which is on the disk when this returns.

        Parameters
        ----------
        rows : int or array-like of int
            Row numbers. An empty list changes nothing.
        column : str
            The column to label.
        value : object
            ``"yes"`` or ``"no"`` for a finding; the name of a class; ``"unsure"``,
            which is not learned from and not asked again; or None, which takes the
            label back.

        Raises
        ------
        SessionError
            If a row is locked; after :meth:`end`, if it is not.
        ValueError
            If there is no such row, column or value.
        OSError
            If the label file cannot be written. The label is then not given.
        """
        self.refresh()
        column = self._task.columns[self._task.column(column)]
        code = self._task.code(value)
        chosen = self._check_numbers(rows)
        if not chosen.size:
            return
        self._check_may_label(chosen)
        word = value if code < 0 else self._task.values[code]
        written = self._append("label", rows=chosen.tolist(), column=column, value=word)
        if not self._held.has(written):
            # Another session ended the training in between.
            self._check_may_label(chosen)
            raise SessionError("the label file was changed by another program.")

    def undo(self) -> Entry | None:
        """Take back the last label of this user, again and again if called again.

        Returns
        -------
        dict or None
            The label that was removed: ``rows``, ``column``, ``value`` and ``at``. None
            if there is nothing to undo. Labels from before :meth:`end` stay after it.
        """
        self.refresh()
        entry = self._held.last_of(self._file.user)
        if entry is None:
            return None
        self._append("undo", of=entry["id"])
        return {name: entry[name] for name in ("rows", "column", "value", "at")}

    def refresh(self) -> None:
        """Read what other sessions have written to the label file.

        Labelling, training and the queue begin with it.

        Warns
        -----
        LabelFileWarning
            If lines of the file cannot be used, with their numbers.
        """
        problems = []
        for number, entry in self._file.read_new():
            try:
                if isinstance(entry, ValueError):
                    raise entry
                self._take(entry)
            except SessionError:
                raise
            except ValueError as error:
                problems.append(f"line {number}: {error}")
        if problems:
            shown = "; ".join(problems[:_NAMED])
            more = f"; and {len(problems) - _NAMED} more" * (len(problems) > _NAMED)
            warn_user(f"{self._file.path}: {shown}{more}.", LabelFileWarning)

    @property
    def _held(self) -> Answers:
        assert self._answers is not None  # __init__ has read or written the start
        return self._answers

    @property
    def _codes(self) -> Codes:
        return self._held.codes

    @property
    def _shown(self) -> Codes:
        """Answers without those of locked rows, until the training has ended."""
        if self.is_ended:
            return self._codes
        return np.where(self.locked[:, None], np.int16(BLANK), self._codes)

    @property
    def _usable(self) -> NDArray[np.bool_]:
        """Rows to train on and to show with a score: readable and not locked."""
        return ~self.locked & (self._lengths > 0)

    def _open(self, locked: Any) -> None:
        """Read the file up to its end, after writing its first line if there is none.

        If two sessions begin at the same time, the first line in the file counts.
        """
        self.refresh()
        given = choose_locked(
            locked, len(self.X), self.groups, self.frame, self.random_state
        )
        if self._answers is None and not self._file.is_empty:
            raise SessionError(
                f"{self._file.path} is not the label file of a session, and nothing is "
                "written to it: name a new file as labels_path."
            )
        if self._answers is None:
            self._append(
                "start",
                digest=self._digest(),
                columns=self.columns,
                values=self.values,
                locked=np.flatnonzero(given).tolist(),
            )
        if np.ndim(locked) > 0 and (given != self.locked).any():
            raise SessionError(
                f"{self._file.path} has other locked rows than locked=, and a test set "
                "is chosen once: leave locked out, or name another file."
            )

    def _take(self, entry: Entry) -> None:
        """Apply a line of the file."""
        if self._answers is not None:
            if entry["what"] != "start":
                self._answers.add(entry)
            return
        if entry["what"] != "start":
            raise ValueError("it comes before the start of a session")
        asked = entry["columns"], entry["values"]
        if asked != (self.columns, self.values):
            raise SessionError(
                f"{self._file.path} holds labels of {asked[0]} with the values "
                f"{asked[1]}; this session asks for {self.columns} with {self.values}. "
                "Name another file as labels_path."
            )
        if entry["digest"] != self._digest():
            raise SessionError(
                f"{self._file.path} was written for other images, or for these in "
                "another order; to begin anew, name another file as labels_path."
            )
        self.locked = np.zeros(len(self.X), dtype=bool)
        self.locked[self._check_numbers(entry["locked"])] = True
        try:
            check_patients(self.locked, self.groups)
        except ValueError as error:  # the groups are others now
            raise SessionError(f"{self._file.path}: {error}") from None
        self._answers = Answers(self._task, self._base, self.locked)

    def _append(self, what: str, **content: Any) -> str:
        written = self._file.append(what, **content)
        self.refresh()
        return written

    def _labels_of_frame(self) -> Codes:
        """Return the labels that ``frame`` holds already."""
        codes = np.full((len(self.X), len(self.columns)), BLANK, dtype=np.int16)
        for place, name in enumerate(self.columns):
            if self.frame is not None and name in self.frame:
                codes[:, place] = self._task.read(self.frame[name], name)
        return codes

    def _digest(self) -> str:
        """Return a digest of what rows there are: names of images, or their vectors."""
        digest = blake3(str(len(self.X)).encode())
        if (paths := self.paths) is not None:
            # Without folders, which may move.
            names = "\0".join(Path(path).name for path in paths)
            digest.update(names.encode("utf-8", "surrogatepass"))
        else:
            for start in range(0, len(self.X), _HASHED):
                rows = self.X[start : start + _HASHED]
                digest.update(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        return digest.hexdigest(length=16)

    def _check_numbers(self, rows: Any) -> NDArray[np.int64]:
        """Return row numbers without repeats, in order, or raise."""
        given = np.atleast_1d(np.asarray(rows))
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(
                f"rows must be row numbers, got {given.dtype}. For a mask pass "
                "numpy.flatnonzero(mask)."
            )
        numbers = np.unique(given.astype(np.int64))
        if numbers.size and not 0 <= numbers[0] <= numbers[-1] < len(self.X):
            odd = numbers[0] if numbers[0] < 0 else numbers[-1]
            raise ValueError(f"row {odd} is none of 0 to {len(self.X) - 1}.")
        return numbers

    def _check_may_label(self, rows: NDArray[np.int64]) -> None:
        """Raise where rows may not be labelled now."""
        wrong = rows[self.locked[rows] != self.is_ended]
        if not wrong.size:
            return
        if self.is_ended:
            raise SessionError(
                f"the training has ended, and row {wrong[0]} is not locked: only "
                "locked rows may be labelled now."
            )
        raise SessionError(
            f"row {wrong[0]} is locked for the test; end() opens locked rows for "
            "labels when the training is over."
        )


def _check_rows(X: Any) -> NDArray[np.floating]:
    if not is_matrix(X):
        raise ValueError(
            "ExploreSession takes embeddings, (n_samples, width): pass "
            "MedSigLIPEmbedder().transform(images) as X, and the images as images=."
        )
    rows: NDArray[np.floating] = check_array(
        X, dtype=[np.float64, np.float32], ensure_all_finite=False, input_name="X"
    )
    return rows


def _lengths(X: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the length of each row, 0 for rows of NaN, images that are unreadable."""
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X))
    odd = np.flatnonzero(~np.isfinite(lengths))
    broken = odd[~np.isnan(X[odd]).all(axis=1)]
    if broken.size:
        raise ValueError(
            f"X holds NaN or infinite values in row {broken[0]}. Only a row of NaN "
            "alone, an image that could not be read, is left out."
        )
    lengths[odd] = 0
    return np.asarray(lengths)


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # an account without a name
        return "unknown"
