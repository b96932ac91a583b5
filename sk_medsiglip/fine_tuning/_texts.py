"""Texts of a run: those true of each row, and those whose scores are kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone

from sk_medsiglip._labels import Labels, check_columns
from sk_medsiglip.embedding import plain_rows
from sk_medsiglip.encoder import Checkpoint, count_tokens, load_tokenizer, tokenize
from sk_medsiglip.fine_tuning._settings import Settings
from sk_medsiglip.prompts import check_prompts

_ROWS_IN_ERROR = 5

# Keys that separate these random numbers from those of augmentation.
_SHOWN = 1 << 60
_DRAWN = 1 << 61

# Lower limit of the spread of a score between images, to avoid a division by 0.
_LEAST_SPREAD = 1e-4

_NO_TEXT = np.empty(0, np.int64)

_FOR_LABELS = (
    "For labels pass prompts=, which describe each label in words, or "
    "objective='classification'."
)


@dataclass(frozen=True, eq=False)
class TrueTexts:
    """Distinct texts, and the indices of those that are true or unknown for each row.

    The first ``n_main`` true texts of a row describe findings that are present. The
    others describe absent ones, and are shown at most half of the time.
    """

    texts: list[str]
    true: list[NDArray[np.int64]]
    n_main: NDArray[np.intp]
    unknown: list[NDArray[np.int64]]

    def shown(self, row: int, epoch: int | None, seed: int) -> int:
        """Return the text that a row shows in an epoch, or its first without epoch."""
        true, n_main = self.true[row], int(self.n_main[row])
        if epoch is None or len(true) == 1:
            return int(true[0])
        rng = np.random.Generator(
            np.random.Philox(key=[seed, _SHOWN + (epoch << 32) + row])
        )
        if n_main < len(true) and n_main and rng.random() < 0.5:
            return int(true[rng.integers(n_main)])
        return int(true[rng.integers(len(true))])


@dataclass(frozen=True, eq=False)
class KeptTexts:
    """Distinct texts, and the matrix that turns their cosines into scores.

    The score of a finding is the cosine of its presence minus that of its absence. The
    score of a class is its cosine minus the mean over classes, and that of a plain text
    is its cosine.
    """

    texts: list[str]
    mix: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class KeptScores:
    """Scores of all images before fine-tuning, and their spread.

    ``vectors`` are those of the texts, scaled to unit length.
    """

    mix: NDArray[np.float32]
    vectors: NDArray[np.float32]
    scores: NDArray[np.float32]
    spread: NDArray[np.float32]

    def draw(
        self, rows: NDArray[np.intp], epoch: int, seed: int
    ) -> dict[str, NDArray[Any]]:
        """Draw scores for a batch with at most as many texts as it has images.

        At least one score is drawn. The spread is reduced to give the drawn scores the
        weight of all.
        """
        key = [seed, _DRAWN + (epoch << 32) + int(rows[0])]
        rng = np.random.Generator(np.random.Philox(key=key))
        order = rng.permutation(len(self.mix))
        n_texts = np.logical_or.accumulate(self.mix[order] != 0).sum(axis=1)
        drawn = np.sort(order[: max(1, int((n_texts <= len(rows)).sum()))])
        ids = np.flatnonzero((self.mix[drawn] != 0).any(axis=0))
        return {
            "kept_ids": ids,
            "kept_mix": self.mix[np.ix_(drawn, ids)],
            "kept_scores": self.scores[np.ix_(rows, drawn)],
            "kept_spread": self.spread[drawn] * (len(drawn) / len(self.mix)) ** 0.5,
        }


def caption_texts(y: Any, n_samples: int) -> TrueTexts:
    """Return the captions of each row, given a text or a list of true texts."""
    if isinstance(y, str):
        raise TypeError(
            f"y is a single text; pass a list with a caption per row: [{y[:40]!r}]."
        )
    if isinstance(y, pd.DataFrame):
        if y.shape[1] != 1:
            raise ValueError(f"y has {y.shape[1]} columns, not captions. {_FOR_LABELS}")
        y = y.iloc[:, 0]
    rows = [_captions_of(given, row) for row, given in enumerate(y)]
    if len(rows) != n_samples:
        raise ValueError(
            f"X has {n_samples} rows and y has {len(rows)} captions; pass one per "
            "image."
        )
    texts, true = _number(rows)
    if len(texts) == 1:
        raise ValueError(
            f"all rows have the caption {texts[0]!r}, so there is nothing to "
            "distinguish. Add images with other captions."
        )
    return _all_main(texts, true)


def _captions_of(given: Any, row: int) -> list[str]:
    """Return the distinct captions of a row, or raise."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence | np.ndarray | set) or isinstance(texts, bytes):
        raise TypeError(
            f"row {row} of y is {given!r}, not a caption (str) or a list of captions. "
            + _FOR_LABELS
        )
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(
                f"row {row} of y holds {text!r}, not a caption (str). {_FOR_LABELS}"
            )
    if not len(texts) or not all(text.strip() for text in texts):
        kind = "caption" if len(texts) else "list, without a caption"
        raise ValueError(
            f"row {row} of y is an empty {kind}. Drop such rows, or add a caption."
        )
    return [str(text) for text in dict.fromkeys(texts)]


def prompt_texts(
    prompts: Mapping[Any, Any], templates: Any, y: Any, labels: Labels
) -> TrueTexts:
    """Return the prompts of each row's labels; ``y`` gives the column names."""
    question = check_prompts(prompts, templates)
    texts, groups = _number(question.texts)
    if question.is_pairs:
        return _finding_texts(texts, groups, question.labels, y, labels)
    if labels.classes is None:
        raise ValueError(
            f"y has {labels.target.shape[1]} columns, but prompts names exclusive "
            'classes. Write {finding: {"positive": ..., "negative": ...}} for each '
            "column."
        )
    missing = np.setdiff1d(labels.classes, question.labels)
    if missing.size:
        raise ValueError(
            f"y holds the labels {missing[:5].tolist()}, which have no prompt; the "
            f"classes of the prompts are {question.labels.tolist()}."
        )
    of_class = np.searchsorted(question.labels, labels.classes)
    return _all_main(texts, [groups[of_class[i]] for i in labels.target])


def _finding_texts(
    texts: list[str],
    groups: list[NDArray[np.int64]],
    findings: NDArray[Any],
    y: Any,
    labels: Labels,
) -> TrueTexts:
    """Return the texts of present findings, followed by those of absent ones."""
    target = labels.target
    if labels.classes is not None:
        if len(findings) != 1 or not np.isin(labels.classes, [0, 1]).all():
            raise ValueError(
                f"prompts describes {len(findings)} findings, so y needs a column of "
                "1, 0 and NaN for each; got the classes "
                f"{labels.classes.tolist()}."
            )
        target = labels.classes[target].astype(np.float64)[:, None]
    if target.shape[1] != len(findings):
        raise ValueError(
            f"y has {target.shape[1]} columns, and prompts describes {len(findings)} "
            f"findings: {findings.tolist()}."
        )
    check_columns(y, findings)
    true, unknown, n_main = [], [], []
    for row, line in enumerate(target):
        # For each finding the prompts for its absence come first.
        present = [groups[2 * i + 1] for i in np.flatnonzero(line == 1)]
        absent = [groups[2 * i] for i in np.flatnonzero(line == 0)]
        blank = np.flatnonzero(np.isnan(line))
        if not present and not absent:
            raise ValueError(
                f"row {row} of y is blank in every column, so no text is known to be "
                "true of it. Drop such rows."
            )
        true.append(np.concatenate([*present, *absent]))
        n_main.append(sum(map(len, present)))
        either = [group for i in blank for group in groups[2 * i : 2 * i + 2]]
        unknown.append(np.concatenate([_NO_TEXT, *either]))
    return TrueTexts(texts, true, np.array(n_main), unknown)


def _all_main(texts: list[str], true: list[NDArray[np.int64]]) -> TrueTexts:
    n_main = np.array([len(ids) for ids in true])
    return TrueTexts(texts, true, n_main, [_NO_TEXT] * len(true))


def _number(
    groups: Iterable[Sequence[str]],
) -> tuple[list[str], list[NDArray[np.int64]]]:
    """Return the distinct texts of all groups, and their indices for each group."""
    groups = list(groups)
    texts = list(dict.fromkeys(text for group in groups for text in group))
    place = {text: i for i, text in enumerate(texts)}
    return texts, [
        np.array([place[text] for text in group], np.int64) for group in groups
    ]


def kept_texts(keep: Any) -> KeptTexts | None:
    """Return the texts and scores that ``keep`` describes."""
    if keep is None:
        return None
    if not isinstance(keep, Mapping):
        texts, _ = _number((text,) for text in _check_kept(keep))
        return KeptTexts(texts, np.eye(len(texts), dtype=np.float32))
    question = check_prompts(keep)
    texts, groups = _number(question.texts)
    weights = question.weights or [(1.0,) * len(group) for group in groups]
    means = np.zeros((len(groups), len(texts)), np.float32)
    for row, group, weight in zip(means, groups, weights, strict=True):
        np.add.at(row, group, np.array(weight, np.float32) / sum(weight))
    if question.is_pairs:
        # The prompts for absence come first.
        return KeptTexts(texts, means[1::2] - means[::2])
    return KeptTexts(texts, means - means.mean(axis=0))


def _check_kept(keep: Any) -> list[str]:
    texts = list(keep)
    strange = [text for text in texts if not isinstance(text, str)]
    if isinstance(keep, str) or strange:
        raise TypeError(
            "keep must be a list of texts, or prompts as for ZeroShotClassifier; got "
            f"{keep if isinstance(keep, str) else strange[0]!r}."
        )
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(
            "keep is empty, or holds an empty text. Use keep=None to keep nothing."
        )
    return texts


def measure_kept(
    settings: Settings, sources: Sequence[Any], kept: KeptTexts
) -> KeptScores:
    """Return the scores of images before training, using stored embeddings."""
    texts = settings.text_embedder().set_params(normalize=True)
    vectors = plain_rows(texts, kept.texts)
    embedder = clone(settings.embedder).set_params(normalize=True)
    scores = plain_rows(embedder, sources) @ (kept.mix @ vectors).T
    spread = np.maximum(scores.std(axis=0), _LEAST_SPREAD)
    return KeptScores(kept.mix, vectors, scores, spread)


def text_tokens(
    texts: TrueTexts | KeptTexts, checkpoint: Checkpoint
) -> NDArray[np.int64]:
    """Return the token ids of texts, or raise if a text is too long for the model."""
    limit, tokenizer = checkpoint.text_tokens, load_tokenizer(checkpoint)
    counts = np.array([n for n, _ in count_tokens(tokenizer, texts.texts)])
    too_long = np.flatnonzero(counts > limit)
    if not too_long.size:
        return tokenize(tokenizer, texts.texts, limit)
    first = f"{texts.texts[too_long[0]][:60]!r}... has {counts[too_long[0]]} tokens"
    if isinstance(texts, KeptTexts):
        raise ValueError(
            f"keep holds a text that is too long: {first}, and the model reads "
            f"{limit}. Its end would be ignored, so shorten it."
        )
    rows = [row for row, ids in enumerate(texts.true) if np.isin(ids, too_long).any()]
    more = ", ..." if len(rows) > _ROWS_IN_ERROR else ""
    raise ValueError(
        f"{len(too_long)} captions are longer than the {limit} tokens that the model "
        f"reads, in rows {', '.join(map(str, rows[:_ROWS_IN_ERROR]))}{more}: {first}. "
        "Their ends would be ignored. Pass a list of shorter texts per image, such as "
        'sentences: y = [re.split(r"(?<=[.!?])\\s+", text) for text in y]'
    )
