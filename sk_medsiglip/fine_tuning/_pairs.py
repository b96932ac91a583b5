"""Which texts are true of which row: captions, or the prompts of its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip._labels import Labels
from sk_medsiglip.prompts import check_columns, check_prompts

__all__ = ["Pairs", "caption_pairs", "check_lengths", "prompt_pairs"]

_ROWS_IN_ERROR = 5

# Apart from the random numbers that change the same row's picture.
_TEXTS = 1 << 60


@dataclass(frozen=True, eq=False)
class Pairs:
    """Texts, and what they are to each row.

    Parameters
    ----------
    texts : list of str
        Each once.
    true : list of ndarray of int64
        By row: places of the texts that are true of it, in ``texts``.
    n_main : ndarray of shape (n_samples,), int
        By row: how many of these, from the front, say what there is. The others say
        what there is not, and are shown at most every second time.
    unknown : list of ndarray of int64
        By row: texts of which it is not known.
    """

    texts: list[str]
    true: list[NDArray[np.int64]]
    n_main: NDArray[np.intp]
    unknown: list[NDArray[np.int64]]

    def shown(self, row: int, epoch: int | None, seed: int) -> int:
        """Return the text that a row shows in an epoch.

        Parameters
        ----------
        row : int
        epoch : int or None
            None is the first one, whatever the seed.
        seed : int
            Of the run.

        Returns
        -------
        int
            Its place in ``texts``.
        """
        true, n_main = self.true[row], int(self.n_main[row])
        if epoch is None or len(true) == 1:
            return int(true[0])
        rng = np.random.Generator(
            np.random.Philox(key=[seed, _TEXTS + (epoch << 32) + row])
        )
        if n_main < len(true) and n_main and rng.random() < 0.5:
            return int(true[rng.integers(n_main)])
        return int(true[rng.integers(len(true))])


def caption_pairs(y: Any, n_samples: int) -> Pairs:
    """Check captions and put them in order.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        A text for each row, or a list of texts that are all true of it.
    n_samples : int
        Rows of ``X``.

    Returns
    -------
    Pairs

    Raises
    ------
    TypeError
        If something else than texts is in it.
    ValueError
        If the lengths differ, a caption is empty, or all are the same.
    """
    if isinstance(y, str):
        raise TypeError(f"y is one text; pass a caption for each row: [{y[:40]!r}].")
    if isinstance(y, pd.DataFrame):
        if y.shape[1] != 1:
            raise ValueError(
                f"y has {y.shape[1]} columns; captions are one column. For labels "
                "pass prompts=, which say what each of them looks like in words."
            )
        y = y.iloc[:, 0]
    rows = list(y)
    if len(rows) != n_samples:
        raise ValueError(
            f"X has {n_samples} rows and y has {len(rows)} captions; each image needs "
            "its own."
        )
    places: dict[str, int] = {}
    true = []
    for row, given in enumerate(rows):
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, Sequence | np.ndarray | set) or isinstance(
            texts, bytes
        ):
            raise TypeError(
                f"row {row} of y is {given!r}, not a caption (str) or a list of "
                "captions. For labels pass prompts=, which say what each of them "
                "looks like in words, or objective='classification'."
            )
        own = [_check_text(text, row) for text in texts]
        if not own:
            raise ValueError(f"row {row} of y is an empty list; it needs a caption.")
        ids = [places.setdefault(text, len(places)) for text in own]
        true.append(np.array(list(dict.fromkeys(ids)), np.int64))
    if len(places) == 1:
        raise ValueError(
            f"all rows have the one caption {next(iter(places))!r}: there is nothing "
            "to tell apart. Add images that show something else."
        )
    nothing = np.empty(0, np.int64)
    n_main = np.array([len(ids) for ids in true])
    return Pairs(list(places), true, n_main, [nothing] * n_samples)


def prompt_pairs(
    prompts: Mapping[Any, Any], templates: Any, y: Any, labels: Labels
) -> Pairs:
    """Let the prompts of each row's labels be its texts.

    Parameters
    ----------
    prompts : mapping
        As :class:`~sk_medsiglip.ZeroShotClassifier` takes them: of classes, or a pair
        of present and absent for each finding.
    templates : str, sequence of str, mapping or None
        As there.
    y : array-like
        As given, for the names of its columns.
    labels : Labels
        Of ``y``.

    Returns
    -------
    Pairs

    Raises
    ------
    PromptError
        If the prompts are malformed.
    ValueError
        If ``y`` holds other labels than the prompts, or a row has none that is known.
    """
    question = check_prompts(prompts, templates)
    texts = list(dict.fromkeys(text for group in question.texts for text in group))
    place = {text: i for i, text in enumerate(texts)}
    groups = [
        np.array([place[text] for text in group], np.int64) for group in question.texts
    ]
    if question.is_pairs:
        return _finding_pairs(texts, groups, question.labels, y, labels)
    if labels.classes is None:
        raise ValueError(
            f"y has {labels.target.shape[1]} columns, but prompts names exclusive "
            'classes. Write {finding: {"positive": ..., "negative": ...}} for each '
            "column."
        )
    missing = np.setdiff1d(labels.classes, question.labels)
    if missing.size:
        raise ValueError(
            f"y holds the labels {missing[:5].tolist()}, which no prompt stands for; "
            f"the prompts' classes are {question.labels.tolist()}."
        )
    of_class = np.searchsorted(question.labels, labels.classes)
    true = [groups[of_class[i]] for i in labels.target]
    nothing = np.empty(0, np.int64)
    return Pairs(
        texts, true, np.array([len(ids) for ids in true]), [nothing] * len(true)
    )


def _finding_pairs(
    texts: list[str],
    groups: list[NDArray[np.int64]],
    findings: NDArray[Any],
    y: Any,
    labels: Labels,
) -> Pairs:
    """Return the texts of what is present, then of what is absent."""
    target = labels.target
    if labels.classes is not None:
        if len(findings) != 1 or not np.isin(labels.classes, [0, 1]).all():
            raise ValueError(
                f"prompts asks for {len(findings)} findings, so y needs a column of 1, "
                f"0 and NaN for each; got the classes {labels.classes.tolist()}."
            )
        target = labels.classes[target].astype(np.float64)[:, None]
    if target.shape[1] != len(findings):
        raise ValueError(
            f"y has {target.shape[1]} columns, the prompts ask for {len(findings)} "
            f"findings: {findings.tolist()}."
        )
    check_columns(y, findings)
    true, unknown, n_main = [], [], []
    for row, line in enumerate(target):
        present = [groups[2 * i + 1] for i in np.flatnonzero(line == 1)]
        absent = [groups[2 * i] for i in np.flatnonzero(line == 0)]
        blank = [np.concatenate(groups[2 * i : 2 * i + 2]) for i in _blank(line)]
        if not present and not absent:
            raise ValueError(
                f"row {row} of y is blank in every column: no text is known to be true "
                "of it. Drop such rows."
            )
        true.append(np.concatenate([*present, *absent]))
        n_main.append(sum(map(len, present)))
        unknown.append(np.concatenate([np.empty(0, np.int64), *blank]))
    return Pairs(texts, true, np.array(n_main), unknown)


def _blank(line: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.flatnonzero(np.isnan(line))


def _check_text(text: Any, row: int) -> str:
    if not isinstance(text, str):
        raise TypeError(
            f"row {row} of y holds {text!r}, which is not a caption (str). For labels "
            "pass prompts=, or objective='classification'."
        )
    if not text.strip():
        raise ValueError(
            f"row {row} of y is an empty caption. Drop such rows, or write what the "
            "image shows."
        )
    return str(text)


def check_lengths(pairs: Pairs, n_tokens: Sequence[int], limit: int) -> None:
    """Raise if a text has more tokens than the model reads.

    Parameters
    ----------
    pairs : Pairs
    n_tokens : sequence of int
        Of each of ``pairs.texts``.
    limit : int
        Tokens that the model reads.

    Raises
    ------
    ValueError
        With the rows that show it.
    """
    too_long = np.flatnonzero(np.asarray(n_tokens) > limit)
    if not too_long.size:
        return
    rows = [row for row, ids in enumerate(pairs.true) if np.isin(ids, too_long).any()]
    more = ", ..." if len(rows) > _ROWS_IN_ERROR else ""
    first = pairs.texts[too_long[0]]
    raise ValueError(
        f"{len(too_long)} captions are longer than the {limit} tokens that the model "
        f"reads, in rows {', '.join(map(str, rows[:_ROWS_IN_ERROR]))}{more}: "
        f"{first[:60]!r}... has {n_tokens[too_long[0]]}. Their ends would be ignored. "
        "Pass a list of shorter texts for an image, such as its sentences: "
        'y = [re.split(r"(?<=[.!?])\\s+", text) for text in y]'
    )
