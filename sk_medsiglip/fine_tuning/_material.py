"""What a run is given, checked before anything is read, loaded or trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._labels import Labels, check_labels
from sk_medsiglip._splits import check_groups
from sk_medsiglip.encoder import Checkpoint, load_tokenizer
from sk_medsiglip.fine_tuning._kept import KeptTexts, kept_texts
from sk_medsiglip.fine_tuning._pairs import (
    Pairs,
    caption_pairs,
    check_lengths,
    prompt_pairs,
)
from sk_medsiglip.fine_tuning._patient_split import (
    one_column_a_class,
    split_patients,
)
from sk_medsiglip.images import image_rows

if TYPE_CHECKING:
    from sk_medsiglip.fine_tuning._fine_tuner import MedSigLIPFineTuner

__all__ = ["Material", "check_material", "positive_weights"]

_FEWEST = 2


@dataclass(frozen=True, eq=False)
class Material:
    """Rows to train on.

    Parameters
    ----------
    sources : sequence
        Images.
    patients : ndarray of shape (n_samples,), int
    labels : Labels or None
        None where ``y`` is captions.
    pairs : Pairs or None
        Texts; None for classification.
    token_ids : ndarray of shape (n_texts, text_tokens), int64, or None
        Of the texts.
    kept : KeptTexts or None
        Texts whose scores of the images are to stay.
    kept_token_ids : ndarray of shape (n_kept, text_tokens), int64, or None
        Of these.
    """

    sources: Sequence[Any]
    patients: NDArray[np.intp]
    labels: Labels | None
    pairs: Pairs | None
    token_ids: NDArray[np.int64] | None
    kept: KeptTexts | None
    kept_token_ids: NDArray[np.int64] | None

    @property
    def targets(self) -> NDArray[Any] | None:
        """What the classifier learns: places of classes; or 1, 0 and NaN."""
        if self.pairs is not None or self.labels is None:
            return None
        target = self.labels.target
        several = self.labels.classes is not None and len(self.labels.classes) > 2
        return target.astype(np.int64 if several else np.float64)

    def split(self, fraction: float | None, seed: int) -> NDArray[np.bool_]:
        """Return which rows validate."""
        if fraction is None:
            return np.zeros(len(self.sources), dtype=bool)
        table, names = self._table()
        return split_patients(self.patients, fraction, table, names, seed)

    def _table(self) -> tuple[NDArray[np.float64] | None, list[str]]:
        labels = self.labels
        if labels is None:
            return None, []
        if labels.classes is None:
            n = labels.target.shape[1]
            names = [f"column {i}" for i in range(n)]
            return labels.target, names if labels.names is None else list(labels.names)
        table = one_column_a_class(labels.target, len(labels.classes))
        return table, [str(one) for one in labels.classes]


def check_material(
    tuner: MedSigLIPFineTuner,
    X: ArrayLike,
    y: Any,
    groups: ArrayLike | None,
    checkpoint: Checkpoint,
) -> Material:
    """Check images, texts or labels, and patients against each other.

    Parameters
    ----------
    tuner : MedSigLIPFineTuner
    X, y, groups
        As for its ``fit``.
    checkpoint : Checkpoint
        Whose tokenizer counts.

    Returns
    -------
    Material

    Raises
    ------
    TypeError, ValueError
        If they do not fit each other, or leave nothing to learn.
    """
    sources = image_rows(X)
    if y is None:
        raise ValueError(
            f"{type(tuner).__name__} requires y to be passed, but the target y is "
            "None. Pass captions, or labels."
        )
    patients = np.arange(len(sources))
    if groups is not None:
        # By name, so that a seed splits them alike whatever order rows come in.
        names = check_groups(groups, len(sources)).astype(str)
        patients = np.unique(names, return_inverse=True)[1]
    labels, pairs = None, None
    if tuner.objective == "classification" or tuner.prompts is not None:
        labels = check_labels(tuner, sources, y)
        _check_counts(labels)
    if tuner.objective == "contrastive":
        pairs = (
            caption_pairs(y, len(sources))
            if labels is None
            else prompt_pairs(tuner.prompts or {}, tuner.templates, y, labels)
        )
    kept = kept_texts(tuner.keep)
    token_ids = None
    if pairs is not None:
        token_ids, counts = _tokens(pairs.texts, checkpoint)
        check_lengths(pairs, counts, checkpoint.text_tokens)
    kept_ids = None
    if kept is not None:
        kept_ids, counts = _tokens(kept.texts, checkpoint)
        _check_kept_lengths(kept.texts, counts, checkpoint.text_tokens)
    return Material(sources, patients, labels, pairs, token_ids, kept, kept_ids)


def _tokens(
    texts: Sequence[str], checkpoint: Checkpoint
) -> tuple[NDArray[np.int64], list[int]]:
    """Return token ids as the text tower takes them, and how many each text has."""
    tokenizer = load_tokenizer(checkpoint)
    texts = [text.lower() for text in texts]
    counts = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    # The padding is attended to, as in SigLIP's own training.
    ids = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=checkpoint.text_tokens,
    )
    return np.array(ids["input_ids"], dtype=np.int64), counts


def _check_kept_lengths(
    texts: Sequence[str], counts: Sequence[int], limit: int
) -> None:
    for text, count in zip(texts, counts, strict=True):
        if count > limit:
            raise ValueError(
                f"keep holds a text of {count} tokens, and the model reads {limit}: "
                f"{text[:60]!r}... Its end would be ignored; shorten it."
            )


def _check_counts(labels: Labels) -> None:
    """Raise if a class has nothing to learn from, or nothing to tell it from."""
    if labels.classes is not None:
        count = np.bincount(labels.target, minlength=len(labels.classes))
        few = np.flatnonzero(count < _FEWEST)
        if few.size:
            row = int(np.flatnonzero(labels.target == few[0])[0])
            name = labels.classes.tolist()[few[0]]
            raise ValueError(
                f"class {name!r} has one image, row {row}. A "
                "class needs two at least, and learns little from less than ten. Add "
                "images, join it with another class, or drop the row."
            )
        return
    for value, word in ((1, "positive"), (0, "negative")):
        count = (labels.target == value).sum(axis=0)
        few = np.flatnonzero(count < _FEWEST)
        if few.size:
            column = few[0] if labels.names is None else labels.names[few[0]]
            raise ValueError(
                f"column {str(column)!r} of y has {count[few[0]]} {word} rows. A label "
                "needs two of either kind at least. Add images, or drop the column."
            )


def positive_weights(
    given: Any, labels: Labels, rows: NDArray[np.intp]
) -> NDArray[np.float32] | None:
    """Return the weights of positives, or of classes, that the loss takes.

    Parameters
    ----------
    given : None, "balanced", float or array-like
        The fine-tuner's ``pos_weight``.
    labels : Labels
    rows : ndarray of int
        Training rows; "balanced" counts them.

    Returns
    -------
    ndarray of shape (n_rows_of_coefficients,), float32, or None

    Raises
    ------
    ValueError
        If numbers are not positive, or not one for each label.
    """
    if given is None:
        return None
    target = labels.target[rows]
    several = labels.classes is not None and len(labels.classes) > 2
    n_needed = labels.n_rows
    if isinstance(given, str):
        if several:
            count = np.bincount(target, minlength=n_needed)
            weights = len(target) / (n_needed * count)
        else:
            table = target.reshape(len(target), -1).astype(np.float64)
            weights = (table == 0).sum(axis=0) / (table == 1).sum(axis=0)
        return weights.astype(np.float32)
    weights = np.asarray(given, dtype=np.float64).ravel()
    if weights.size == 1 and not several:
        weights = np.repeat(weights, n_needed)
    if weights.size != n_needed or not np.isfinite(weights).all() or weights.min() <= 0:
        raise ValueError(
            f"pos_weight must be {n_needed} positive numbers, one for each "
            f"{'class' if several else 'label'}, or 'balanced'; got {given!r}."
        )
    return weights.astype(np.float32)
