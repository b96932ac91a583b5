"""``lint_prompts``: what is wrong with prompts, before an image is looked at."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.encoder import find_checkpoint, load_tokenizer
from sk_medsiglip.exceptions import PromptWarning, TruncatedTextWarning
from sk_medsiglip.prompts._class_vectors import encode_question
from sk_medsiglip.prompts._question import Question, check_prompts

__all__ = ["lint_prompts"]

_NEGATIONS = {"absent", "negative", "no", "none", "not", "without"}
_PAIRS_IN_WARNING = 3


def lint_prompts(
    prompts: Mapping[Any, Any],
    *,
    templates: Any = None,
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    similarity: float = 0.98,
    device: str = "auto",
    cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
) -> pd.DataFrame:
    """Report what a model cannot read, or cannot tell apart, in prompts.

    Parameters
    ----------
    prompts : mapping
        As :class:`~sk_medsiglip.ZeroShotClassifier` takes them; a
        :class:`~sk_medsiglip.prompts.PromptSet` is one.
    templates : str, list of str or dict, default=None
        As there.
    model : str or path-like, default="google/medsiglip-448"
        Whose tokenizer counts and whose text tower compares. Its tokenizer must be at
        hand; its weights only for texts that are not in the store.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    similarity : float, default=0.98
        Cosine of two class vectors over which they count as the same; see Notes.
    device : str, default="auto"
        Where texts are encoded.
    cache : bool, str, path-like or EmbeddingCache, default=True
        The store of their vectors, shared with the classifiers.

    Returns
    -------
    DataFrame
        One row a text, templates filled in, with the columns

        - ``label``, ``side``: class or finding; "positive", "negative", or "" for
          classes;
        - ``text``, ``n_tokens``, ``truncated``: whether its end is not read;
        - ``nearest``, ``cosine``: the other class whose vector is nearest to that of
          this class, and how near;
        - ``problem``: what is wrong, "" where nothing is.

    Raises
    ------
    PromptError
        Where a classifier would refuse the prompts.
    ModelAccessError, CheckpointError
        If the model cannot be had.

    Warns
    -----
    PromptWarning
        If class vectors are nearer than ``similarity``.

    See Also
    --------
    check_prompts : What makes prompts invalid, without a model.

    Notes
    -----
    A class is compared with those that it has to be told from. The present side of a
    finding: its absent side, and the present sides of other findings. The absent
    side: its present side; absent sides of several findings may be alike, and share
    texts.

    Cosines of texts differ from model to model, most of all where all texts have the
    same frame, so no one value of ``similarity`` is right. On the demonstration
    checkpoint its own six findings have cosines of at most 0.42, four pairs of
    wordings of one finding 0.84 to 0.98, and a word and its plural 0.995: the default
    finds what is the same text but for little. It has not been measured on MedSigLIP;
    look at how the column ``cosine`` is spread, and lower it to see more.

    The other comparison needs no threshold: a text that is nearer to the vector of
    another class than to that of its own, which it is a part of, pulls its class to
    the wrong side *for this model*, whatever it means to a reader. On 300
    phantoms (one draw), the AUC of the six findings that the demonstration shares with
    ``chest_xray_13`` rose without such texts for four, by up to 0.009, and fell for
    one, by 0.001.

    Examples
    --------
    >>> from sk_medsiglip.prompts import lint_prompts
    >>> report = lint_prompts(
    ...     {"effusion": ["pleural effusion", "Pleural effusion."],
    ...      "normal": "normal chest X-ray"},
    ...     model="demo",
    ... )
    >>> report["problem"].tolist()
    ['', "the same to the model as 'pleural effusion' of this class", '']
    """
    if not 0 < similarity <= 1:
        raise ValueError(
            f"similarity={similarity!r} must be a cosine over 0 and up to 1."
        )
    question = check_prompts(prompts, templates)
    texts = [text for group in question.texts for text in group]
    sizes = list(map(len, question.texts))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    names = _name_groups(question)

    tokens, limit = _tokenize(texts, model, revision)
    embedder = MedSigLIPTextEmbedder(
        model, revision=revision, device=device, cache=cache
    )
    class_vectors, text_vectors = _encode(question, embedder)
    rivals = _find_rivals(question)
    cosines = np.where(rivals, class_vectors @ class_vectors.T, -np.inf)
    problems = [
        _judge_texts(texts, tokens, limit),
        _judge_repeats(texts, tokens, limit, groups, question.is_pairs, names),
        _judge_classes(cosines, groups, similarity, names),
        _judge_sides(text_vectors @ class_vectors.T, rivals, groups, names),
    ]
    _warn_about_alike(cosines, similarity, names)
    sides = ("negative", "positive") if question.is_pairs else ("",)
    nearest = cosines.argmax(axis=1)
    return pd.DataFrame(
        {
            "label": np.repeat(question.labels, len(sides))[groups],
            "side": [sides[group % len(sides)] for group in groups],
            "text": texts,
            "n_tokens": [len(ids) for ids in tokens],
            "truncated": [len(ids) > limit for ids in tokens],
            "nearest": [names[nearest[group]] for group in groups],
            "cosine": cosines.max(axis=1)[groups],
            "problem": [
                "; ".join(filter(None, found)) for found in zip(*problems, strict=True)
            ],
        }
    )


def _name_groups(question: Question) -> list[str]:
    labels = [str(label) for label in question.labels]
    if not question.is_pairs:
        return labels
    return [f"{label} ({s})" for label in labels for s in ("negative", "positive")]


def _tokenize(
    texts: list[str], model: str | os.PathLike[str], revision: str | None
) -> tuple[list[list[int]], int]:
    """Return the tokens of each text, uncut, and how many the model reads."""
    checkpoint = find_checkpoint(model, revision, weights=False)
    tokenizer = load_tokenizer(checkpoint)
    # Not verbose: it would warn that the whole text does not fit.
    ids = tokenizer([text.lower() for text in texts], verbose=False)["input_ids"]
    return ids, checkpoint.text_tokens


def _encode(
    question: Question, embedder: MedSigLIPTextEmbedder
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors of the classes and of the texts, all of length 1."""
    width = len(embedder.get_feature_names_out())
    with warnings.catch_warnings():
        # The report says it, text by text.
        warnings.simplefilter("ignore", TruncatedTextWarning)
        encoded = encode_question(question, width, embedder)
    return encoded.vectors, encoded.prompt_vectors


def _find_rivals(question: Question) -> NDArray[np.bool_]:
    """Return which groups of texts have to be told apart, as a symmetric matrix."""
    index = np.arange(len(question.texts))
    if not question.is_pairs:
        return index[:, None] != index
    finding, present = index // 2, index % 2 == 1
    same_finding = finding[:, None] == finding
    both_present = present[:, None] & present
    return np.where(same_finding, present[:, None] != present, both_present)


def _judge_texts(texts: list[str], tokens: list[list[int]], limit: int) -> list[str]:
    problems = []
    for text, ids in zip(texts, tokens, strict=True):
        found = []
        if len(ids) > limit:
            found.append(
                f"{len(ids)} tokens, the model reads {limit}: the end is not read"
            )
        if "{" in text or "}" in text:
            found.append("holds a brace: a template that nothing was filled into?")
        if text.strip(" .!?").lower() in _NEGATIONS:
            found.append("negates nothing: name the finding")
        problems.append("; ".join(found))
    return problems


def _judge_repeats(
    texts: list[str],
    tokens: list[list[int]],
    limit: int,
    groups: NDArray[np.intp],
    is_pairs: bool,
    names: list[str],
) -> list[str]:
    """Find texts of equal tokens: case and punctuation are not read."""
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(tokens):
        # The last place of a text that is cut holds the sign of its end.
        rows_of.setdefault(tuple(ids[: limit - 1]), []).append(row)
    problems = []
    for row, ids in enumerate(tokens):
        equal = rows_of[tuple(ids[: limit - 1])]
        found = [
            f"the same to the model as {texts[other]!r} of this class"
            for other in equal
            if other < row and groups[other] == groups[row]
        ][:1]
        others = dict.fromkeys(
            group
            for group in groups[equal].tolist()
            if group != groups[row]
            # Absent sides may share what denies several findings: "normal study".
            and not (is_pairs and group % 2 == groups[row] % 2 == 0)
        )
        found += [f"also a prompt of {names[group]}" for group in others]
        problems.append("; ".join(found))
    return problems


def _judge_classes(
    cosines: NDArray[np.floating],
    groups: NDArray[np.intp],
    similarity: float,
    names: list[str],
) -> list[str]:
    of_group = [
        f"class vector nearly that of {names[row.argmax()]} (cosine {row.max():.3f}): "
        "the two can hardly be told apart"
        if row.max() > similarity
        else ""
        for row in cosines
    ]
    return [of_group[group] for group in groups]


def _judge_sides(
    to_classes: NDArray[np.floating],
    rivals: NDArray[np.bool_],
    groups: NDArray[np.intp],
    names: list[str],
) -> list[str]:
    """Find texts that are nearer to another class than to their own."""
    own = to_classes[np.arange(len(groups)), groups]
    others = np.where(rivals[groups], to_classes, -np.inf)
    return [
        f"nearer to {names[row.argmax()]} (cosine {row.max():.2f}) than to its own "
        f"class ({mine:.2f})"
        if row.max() > mine
        else ""
        for row, mine in zip(others, own, strict=True)
    ]


def _warn_about_alike(
    cosines: NDArray[np.floating], similarity: float, names: list[str]
) -> None:
    pairs = np.argwhere(np.triu(cosines > similarity))
    if not len(pairs):
        return
    more = ", ..." if len(pairs) > _PAIRS_IN_WARNING else ""
    named = ", ".join(
        f"{names[a]} and {names[b]} ({cosines[a, b]:.3f})"
        for a, b in pairs[:_PAIRS_IN_WARNING]
    )
    warnings.warn(
        f"Class vectors with a cosine over {similarity:g}: {named}{more}. The model "
        "can hardly tell the two apart; word them differently, or join them.",
        PromptWarning,
        stacklevel=3,
    )
