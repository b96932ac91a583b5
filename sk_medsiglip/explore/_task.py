"""The question of a session: the columns to be labelled, and the answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.prompts import check_prompts

#: Codes of a cell that nobody has answered, and of one where the answer is "unsure".
#: Other codes are places among the values of the task.
BLANK, UNSURE = -1, -2
_UNSURE_WORD = "unsure"
_FINDING = ("no", "yes")
#: Other ways in which tables say whether a finding is there.
_IN_TABLES = {0: 0, 1: 1, -1: UNSURE, "0": 0, "1": 1, "-1": UNSURE}

Codes = NDArray[np.int16]  # (n_rows, n_columns)


@dataclass(frozen=True, eq=False)
class Task:
    """Findings that are present or absent, one a column; or one column of classes."""

    columns: list[str]
    classes: NDArray[Any] | None = None  # sorted; None for findings

    @property
    def values(self) -> list[Any]:
        """Answers in the order of their codes."""
        return list(_FINDING) if self.classes is None else self.classes.tolist()

    @property
    def is_binary(self) -> bool:
        """Whether each column has one score: of yes, or of the second class."""
        return len(self.values) == 2

    @property
    def names(self) -> list[Any]:
        """Names of the scores."""
        if self.classes is None:
            return list(self.columns)
        return self.values[1:] if self.is_binary else self.values

    def column(self, name: Any) -> int:
        """Return the place of a column."""
        if name not in self.columns:
            raise ValueError(f"there is no column {name!r}; there is {self.columns}.")
        return self.columns.index(name)

    def code(self, value: Any) -> int:
        """Return the code of an answer; None takes an answer back."""
        if value is None:
            return BLANK
        if isinstance(value, str) and value == _UNSURE_WORD:
            return UNSURE
        if isinstance(value, np.generic):
            value = value.item()
        if value not in self.values or isinstance(value, bool):
            allowed = [*self.values, _UNSURE_WORD, None]
            raise ValueError(f"{value!r} is not an answer; answers are {allowed}.")
        return self.values.index(value)

    def words(self, codes: Codes) -> pd.DataFrame:
        """Return answers as a table of words, None where there is none."""
        words = np.array([*self.values, _UNSURE_WORD, None], dtype=object)
        return pd.DataFrame(words[codes], columns=self.columns)

    def numbers(self, codes: Codes) -> pd.DataFrame:
        """Return answers as tables of labels have them: 1, 0, -1 and blank; classes."""
        words = self.words(codes)
        if self.classes is not None:
            return words
        numbers = np.array([0, 1, -1, None], dtype=object)
        return pd.DataFrame(numbers[codes], columns=self.columns)

    def read(self, values: Any, column: str) -> NDArray[np.int16]:
        """Return the codes of a user's column of labels, blanks included."""
        place, found = pd.factorize(pd.Series(np.asarray(values, dtype=object)))
        codes = np.full(len(found) + 1, BLANK, dtype=np.int16)  # the last is NaN
        for i, value in enumerate(found.tolist()):
            if isinstance(value, str) and not value.strip():
                continue
            try:
                known = self.classes is None and value in _IN_TABLES
                codes[i] = _IN_TABLES[value] if known else self.code(value)
            except ValueError as error:
                raise ValueError(f"column {column!r}: {error}") from None
        return codes[place]

    def target(self, codes: Codes, columns: Sequence[int]) -> Any:
        """Return labels of some columns as estimators take them.

        Several findings have NaN where one is unknown. Of one finding, or of classes,
        the caller has left these rows out.
        """
        if self.classes is not None:
            return self.classes[codes[:, 0]]
        if len(columns) == 1:
            return pd.Series(codes[:, columns[0]], name=self.columns[columns[0]])
        known = np.where(codes < 0, np.nan, codes)[:, columns]
        return pd.DataFrame(known, columns=[self.columns[c] for c in columns])


def task_of(prompts: Mapping[Any, Any], columns: list[str]) -> Task:
    """Return the task that prompts pose: findings, or classes in the first column."""
    question = check_prompts(prompts)
    if question.is_pairs:
        return Task([str(name) for name in prompts])
    return Task(columns[:1], question.labels)


def make_task(label: Any, classes: Any, prompts: Any) -> Task:
    """Return the task that the parameters of a session describe."""
    asked = None if prompts is None else task_of(prompts, ["label"])
    if classes is None and asked is not None and asked.classes is not None:
        classes = asked.classes
    if label is None:
        label = ["label"] if asked is None else asked.columns
    columns = list(label) if np.iterable(label) else [label]
    columns = [label] if isinstance(label, str) else columns
    if not columns or not all(isinstance(one, str) and one for one in columns):
        raise ValueError(f"label must be a name or a list of names; got {label!r}.")
    if len(set(columns)) < len(columns):
        raise ValueError(f"label names a column twice: {columns}.")
    if classes is None:
        return Task(columns)
    if len(columns) > 1:
        raise ValueError(
            f"classes exclude each other and need one column; label names {columns}."
        )
    sorted_classes = np.unique(np.asarray(classes))
    reserved = {_UNSURE_WORD} & set(sorted_classes.tolist())
    if len(sorted_classes) < 2 or reserved:
        raise ValueError(
            f"classes must be two or more names other than {_UNSURE_WORD!r}; got "
            f"{list(classes)}."
        )
    return Task(columns, sorted_classes)
