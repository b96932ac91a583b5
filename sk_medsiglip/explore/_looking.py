"""Which images a session shows: selections, the queue, neighbours, suspects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch

from sk_medsiglip.audit import find_copies, find_label_issues
from sk_medsiglip.exceptions import SessionError
from sk_medsiglip.explore._learning import Learning
from sk_medsiglip.explore._map import Projection, inside
from sk_medsiglip.explore._queue import choose_next, together
from sk_medsiglip.explore._task import BLANK


class Looking(Learning):
    """Abstract session that chooses images, locked ones never."""

    _points: NDArray[np.floating] | None = None
    _projection: Projection | None = None  # None for points that a user has set

    def select(
        self,
        *,
        mask: ArrayLike | None = None,
        where: Mapping[str, Any] | None = None,
        scores: ArrayLike | None = None,
        low: float = -np.inf,
        high: float = np.inf,
        polygon: ArrayLike | None = None,
    ) -> NDArray[np.intp]:
        """Return the rows that meet all conditions, locked ones apart.

        Parameters
        ----------
        mask : array-like of shape (n_samples,), bool, default=None
            Rows to choose from.
        where : dict, default=None
            Conditions on ``frame``: ``{"view": ["PA", "AP"]}`` lists values,
            ``{"age": (40, 60)}`` is a range that includes both ends.
        scores : array-like of shape (n_samples,), default=None
            Scores that ``low`` and ``high`` are for. By default, the first column of
            :attr:`scores`.
        low, high : float
            Range of the scores, both ends included. Rows without a score are outside.
        polygon : array-like of shape (n_corners, 2), default=None
            Corners of an area of the map, in the coordinates of :attr:`points`.

        Returns
        -------
        ndarray of int
            Row numbers, in rising order.

        Raises
        ------
        ValueError
            If a condition does not fit the rows or ``frame``.
        """
        chosen = self._usable.copy()
        if mask is not None:
            given = np.asarray(mask)
            if given.dtype != bool or given.shape != chosen.shape:
                raise ValueError(
                    f"mask must be True or False for each of {len(chosen)} rows; got "
                    f"{given.dtype} of shape {given.shape}."
                )
            chosen &= given
        for name, allowed in (where or {}).items():
            chosen &= self._meets(name, allowed)
        if scores is not None or low > -np.inf or high < np.inf:
            values = self.scores.iloc[:, 0] if scores is None else scores
            values = np.asarray(values, dtype=np.float64)
            if values.shape != chosen.shape:
                raise ValueError(
                    f"scores must be one for each of {len(chosen)} rows; got shape "
                    f"{values.shape}."
                )
            chosen &= (values >= low) & (values <= high)
        if polygon is not None:
            chosen &= inside(self.points, polygon)
        return np.flatnonzero(chosen)

    @property
    def points(self) -> NDArray[np.floating]:
        """Map of the rows, ``(n_samples, 2)``, NaN for locked and unreadable ones.

        Two principal components, until other coordinates are set, such as UMAP's.
        Neighbours on a map need not be neighbours: see :meth:`neighbours`.
        """
        if self._points is None:
            rows = np.flatnonzero(self._usable)
            self._projection = Projection(self.X, rows, self.random_state)
            self._points = self._projection.of(self.X)
            self._points[~self._usable] = np.nan
        return self._points

    @points.setter
    def points(self, given: ArrayLike) -> None:
        points = np.array(given, dtype=np.float32)
        if points.shape != (len(self.X), 2):
            raise ValueError(
                f"points must have the shape ({len(self.X)}, 2); got {points.shape}."
            )
        points[~self._usable] = np.nan
        self._points, self._projection = points, None

    def queue(self, k: int = 8, *, column: str | None = None) -> NDArray[np.intp]:
        """Return the images to label next.

        Rows that the classifier is least sure of are clustered, and one of each cluster
        is taken. Half of the first 32 are those that the prompts score highest; without
        prompts half of the first 64 are random.

        Parameters
        ----------
        k : int, default=8
            Number of images.
        column : str, default=None
            The column to label. By default, images with any column unanswered.

        Returns
        -------
        ndarray of int
            Row numbers, images of one patient next to each other. There are fewer than
            ``k`` where fewer are left. After :meth:`end`, locked rows without a label,
            in random order.
        """
        self.refresh()
        if k < 1:
            raise ValueError(f"k must be 1 or more, got {k}.")
        columns = slice(None) if column is None else [self._task.column(column)]
        asked = (self._codes == BLANK)[:, columns]
        if self.is_ended:
            asked &= self.locked[:, None]
            rng = np.random.default_rng(self.random_state)
            left = rng.permutation(np.flatnonzero(asked.any(axis=1)))
            return together(left, self.groups)[:k]
        asked &= self._usable[:, None]
        n_answered = int((self._codes != BLANK)[self._usable].any(axis=1).sum())
        by_column = columns if self._task.classes is None else slice(None)
        scores, by_prompts = (
            None if found is None else found[:, by_column]
            for found in (self._scores if self._trained else None, self._prompt_scores)
        )
        chosen = choose_next(
            k, self.X, self._lengths, asked, scores, by_prompts, n_answered,
            self.random_state,
        )  # fmt: skip
        return together(chosen, self.groups)

    def neighbours(self, row: int, k: int = 12) -> pd.DataFrame:
        """Return the images nearest to one, in the space of the embeddings.

        Parameters
        ----------
        row : int
            Number of the row; not a locked one.
        k : int, default=12
            Number of neighbours, locked rows apart.

        Returns
        -------
        DataFrame
            ``row``, ``cosine``, the nearest first, and the labels; ``group`` too if
            there are groups.

        Raises
        ------
        SessionError
            If the row is locked.
        """
        self.refresh()
        (row,) = self._check_numbers([row])
        if not self._usable[row]:
            why = "locked for the test" if self.locked[row] else "unreadable"
            raise SessionError(f"row {row} is {why}, and has no neighbours here.")
        with np.errstate(invalid="ignore", divide="ignore"):  # unreadable rows
            cosines = self.X @ self.X[row] / (self._lengths * self._lengths[row])
        cosines[~self._usable] = -np.inf
        cosines[row] = -np.inf
        k = min(k, int(self._usable.sum()) - 1)
        nearest = np.argsort(-cosines, kind="stable")[:k]
        table = self.labels.iloc[nearest].reset_index(drop=True)
        table.insert(0, "row", nearest)
        table.insert(1, "cosine", cosines[nearest])
        if self.groups is not None:
            table.insert(2, "group", self.groups[nearest])
        return table

    def suspects(self) -> Bunch:
        """Return the labels that look wrong, and the labelled images that are copies.

        Returns
        -------
        Bunch
            ``labels``, as :func:`~sk_medsiglip.audit.find_label_issues` returns them,
            empty while there are too few labels; and ``copies``, as
            :func:`~sk_medsiglip.audit.find_copies` does. Row numbers are those of the
            session.
        """
        self.refresh()
        rows = self._labelled_rows()
        labelled = self._labelled(rows)
        columns = labelled.trainable()
        issues = pd.DataFrame(columns=["row", "finding", "given", "suggested", "score"])
        if columns:
            known = (labelled.codes[:, columns] >= 0).any(axis=1)
            some, places = labelled.keep(known), rows[known]
            target = self._task.target(some.codes, columns)
            try:
                issues = find_label_issues(some.X, target, groups=some.groups)
            except ValueError as error:  # a label of one patient
                issues.attrs["notes"] = [str(error)]
            issues["row"] = places[issues["row"].to_numpy(int)]
        copies = pd.DataFrame(columns=["kind", "row", "other_row", "cosine"])
        if rows.size > 1:
            words = self.labels.iloc[rows]
            copies = find_copies(labelled.X, words, groups=labelled.groups)
            for name in ("row", "other_row"):
                copies[name] = rows[copies[name].to_numpy(int)]
        return Bunch(labels=issues, copies=copies)

    def _meets(self, name: str, allowed: Any) -> NDArray[np.bool_]:
        """Tell which rows meet a condition on a column of ``frame``."""
        if self.frame is None or name not in self.frame:
            known = [] if self.frame is None else list(self.frame.columns)
            raise ValueError(f"frame has no column {name!r}; it has {known}.")
        column = self.frame[name]
        if isinstance(allowed, tuple):
            if len(allowed) != 2:
                raise ValueError(f"{name!r}: a range is (low, high), got {allowed}.")
            return column.between(*allowed).to_numpy(bool)
        listed = [allowed] if isinstance(allowed, str) else list(allowed)
        return column.isin(listed).to_numpy(bool)
