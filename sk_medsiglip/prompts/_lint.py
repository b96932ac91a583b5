"""``lint_prompts``: problems of prompts that can be found without images."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPTextEmbedder
from sk_medsiglip.encoder import (
    count_tokens,
    find_checkpoint,
    load_tokenizer,
    tokenize,
)
from sk_medsiglip.exceptions import PromptWarning, TruncatedTextWarning
from sk_medsiglip.prompts._class_vectors import encode_question
from sk_medsiglip.prompts._question import Question, check_prompts

_NEGATIONS = {"absent", "negative", "no", "none", "not", "without"}
_PAIRS_IN_WARNING = 3

#: Number of characters of a text that are read, and that are shown in messages.
_READ, _SHOWN = 10_000, 80

#: Number of rows that are compared with all classes at once.
_ROWS_AT_ONCE = 1024


def lint_prompts(
    prompts: Mapping[Any, Any],
    *,
    templates: Any = None,
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    similarity: float = 0.98,
    device: str = "auto",
    cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
    verbose: int | bool = 0,
) -> pd.DataFrame:
    """Find prompts that a model cannot read or distinguish.

    Parameters
    ----------
    prompts : mapping
        Prompts, as in :class:`~sk_medsiglip.ZeroShotClassifier`, for example a
        :class:`~sk_medsiglip.prompts.PromptSet`.
    templates : str, list of str or dict, default=None
        Templates, as in :class:`~sk_medsiglip.ZeroShotClassifier`.
    model : str or path-like, default="google/medsiglip-448"
        Model whose tokenizer and text tower are used. Its tokenizer must be available;
        its weights are only needed for texts that are not in the store.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    similarity : float, default=0.98
        Cosine of two class vectors above which they count as the same (see Notes).
    device : str, default="auto"
        Device on which texts are encoded.
    cache : bool, str, path-like or EmbeddingCache, default=True
        Store of the vectors of texts, shared with the classifiers.
    verbose : int, default=0
        Verbosity. Values above 0 show a progress bar while texts are encoded.

    Returns
    -------
    DataFrame
        One row per text, after filling in templates, with the columns

        - ``label``: class or finding;
        - ``side``: "positive", "negative", or "" for classes;
        - ``text``, ``n_tokens``: the text, and its number of tokens. Only the first
          10,000 characters are read;
        - ``truncated``: whether the model ignores the end of the text;
        - ``nearest``, ``cosine``: the other class with the nearest vector, and the
          cosine of the two;
        - ``problem``: the problems found, or "".

    Raises
    ------
    PromptError
        If the prompts are not valid for a classifier.
    ModelAccessError, CheckpointError
        If the model cannot be loaded.

    Warns
    -----
    PromptWarning
        If class vectors have a cosine above ``similarity``.

    See Also
    --------
    check_prompts : Check prompts without a model.

    Notes
    -----
    A class is compared with the classes that it must be distinguished from. The present
    side of a finding is compared with its absent side and the present sides of other
    findings. The absent side is compared with its present side only, since absent sides
    of several findings may share texts.

    Cosines of texts depend on the model, in particular if all texts have the same
    frame, so there is no single right value of ``similarity``. For the demonstration
    checkpoint its six findings have cosines of up to 0.42, four pairs of wordings of a
    finding 0.84 to 0.98, and a word and its plural 0.995, so the default finds texts
    that are nearly the same. It has not been measured on MedSigLIP. Look at the
    distribution of the column ``cosine``, and lower the value to find more.

    A second comparison needs no threshold. A text that is nearer to the vector of
    another class than to that of its own class shifts its class in the wrong direction
    *for this model*, whatever it means to a reader. On 300 phantoms (one draw), leaving
    such texts out raised the AUC of four of the six findings that the demonstration
    shares with ``chest_xray_13`` by up to 0.009, and lowered that of one by 0.001.

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
            f"similarity={similarity!r} must be a cosine above 0 and at most 1."
        )
    question = check_prompts(prompts, templates)
    # Long texts are cut off, far beyond the last token that a model reads.
    read = tuple(tuple(map(_read, group)) for group in question.texts)
    question = replace(question, texts=read)
    texts = [text for group in question.texts for text in group]
    sizes = list(map(len, question.texts))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    names = _name_groups(question)

    checkpoint = find_checkpoint(model, revision, weights=False)
    tokenizer, limit = load_tokenizer(checkpoint), checkpoint.text_tokens
    n_tokens = [n_all for n_all, _ in count_tokens(tokenizer, texts)]
    # The input of the model, which is equal for texts that it cannot distinguish.
    tokens = tokenize(tokenizer, texts, limit)
    embedder = MedSigLIPTextEmbedder(
        model, revision=revision, device=device, cache=cache, verbose=verbose
    )
    width = len(embedder.get_feature_names_out())
    with warnings.catch_warnings():
        # The report lists truncated texts.
        warnings.simplefilter("ignore", TruncatedTextWarning)
        encoded = encode_question(question, width, embedder)
    classes, vectors = encoded.vectors, encoded.prompt_vectors
    is_pairs = question.is_pairs
    nearest = _find_nearest(
        classes, np.arange(len(sizes)), classes, is_pairs, similarity
    )
    of_texts = _find_nearest(vectors, groups, classes, is_pairs)
    problems = [
        _judge_texts(texts, n_tokens, limit),
        _judge_repeats(texts, tokens, groups, question.is_pairs, names),
        _judge_classes(nearest, groups, similarity, names),
        _judge_sides(of_texts, np.vecdot(vectors, classes[groups]), names),
    ]
    if nearest.alike:
        _warn_about_alike(nearest.alike, similarity, names)
    sides = ("negative", "positive") if question.is_pairs else ("",)
    return pd.DataFrame(
        {
            "label": np.repeat(question.labels, len(sides))[groups],
            "side": [sides[group % len(sides)] for group in groups],
            "text": texts,
            "n_tokens": n_tokens,
            "truncated": [n > limit for n in n_tokens],
            "nearest": [names[group] for group in nearest.group[groups]],
            "cosine": nearest.cosine[groups],
            "problem": [
                "; ".join(filter(None, found)) for found in zip(*problems, strict=True)
            ],
        }
    )


def _read(text: str) -> str:
    return text if len(text) <= _READ else text.strip()[:_READ]


def _name_groups(question: Question) -> list[str]:
    labels = [str(label) for label in question.labels]
    if not question.is_pairs:
        return labels
    return [f"{label} ({s})" for label in labels for s in ("negative", "positive")]


def _find_rivals(
    groups: NDArray[np.intp], n_groups: int, is_pairs: bool
) -> NDArray[np.bool_]:
    """Return a mask of the groups from which each group must be distinguished."""
    index, groups = np.arange(n_groups), groups[:, None]
    if not is_pairs:
        return groups != index
    same_finding = groups // 2 == index // 2
    both_present = (groups % 2 == 1) & (index % 2 == 1)
    return np.where(same_finding, groups % 2 != index % 2, both_present)


@dataclass(frozen=True, eq=False)
class _Nearest:
    """The nearest rival of each vector, and the first pairs above the similarity."""

    group: NDArray[np.intp]
    cosine: NDArray[np.floating]
    alike: list[tuple[int, int, float]]


def _find_nearest(
    vectors: NDArray[np.floating],
    groups: NDArray[np.intp],
    classes: NDArray[np.floating],
    is_pairs: bool,
    similarity: float = np.inf,
) -> _Nearest:
    """Compare vectors of groups with their rivals, in blocks."""
    found = _Nearest(groups.copy(), np.empty(len(groups), classes.dtype), [])
    for start in range(0, len(groups), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        cosines = vectors[some] @ classes.T
        cosines[~_find_rivals(groups[some], len(classes), is_pairs)] = -np.inf
        found.group[some], found.cosine[some] = cosines.argmax(1), cosines.max(1)
        if len(found.alike) <= _PAIRS_IN_WARNING:
            pairs = np.argwhere(cosines > similarity)
            found.alike.extend(
                (int(a + start), int(b), float(cosines[a, b]))
                for a, b in pairs[pairs[:, 1] > pairs[:, 0] + start]
            )
    return found


def _judge_texts(texts: list[str], n_tokens: list[int], limit: int) -> list[str]:
    problems = []
    for text, n in zip(texts, n_tokens, strict=True):
        found = []
        if n > limit:
            found.append(f"{n} tokens, the model reads {limit}: the end is ignored")
        if "{" in text or "}" in text:
            found.append("holds a brace: is it a template that was not filled in?")
        if text.strip(" .!?").lower() in _NEGATIONS:
            found.append("is only a negation: name the finding")
        problems.append("; ".join(found))
    return problems


def _judge_repeats(
    texts: list[str],
    tokens: NDArray[np.int64],
    groups: NDArray[np.intp],
    is_pairs: bool,
    names: list[str],
) -> list[str]:
    """Find texts with equal tokens, since case and punctuation are ignored."""
    keys = [ids.tobytes() for ids in tokens]
    first_of: dict[bytes, dict[int, int]] = {}
    for row, key in enumerate(keys):
        first_of.setdefault(key, {}).setdefault(int(groups[row]), row)
    problems = []
    for row, key in enumerate(keys):
        own, first = int(groups[row]), first_of[key]
        found = []
        if first[own] != row:
            found = [
                f"the same to the model as {_shown(texts[first[own]])!r} of this class"
            ]
        others = (
            group
            for group in first
            if group != own
            # Absent sides may share texts such as "normal study".
            and not (is_pairs and group % 2 == own % 2 == 0)
        )
        named = [names[group] for group in islice(others, _PAIRS_IN_WARNING + 1)]
        if len(named) > _PAIRS_IN_WARNING:
            named[-1] = "others"
        found += [f"also a prompt of {name}" for name in named]
        problems.append("; ".join(found))
    return problems


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _judge_classes(
    nearest: _Nearest,
    groups: NDArray[np.intp],
    similarity: float,
    names: list[str],
) -> list[str]:
    of_group = [
        f"class vector nearly equal to that of {names[group]} (cosine {cosine:.3f}): "
        "the two can hardly be distinguished"
        if cosine > similarity
        else ""
        for group, cosine in zip(nearest.group, nearest.cosine, strict=True)
    ]
    return [of_group[group] for group in groups]


def _judge_sides(
    nearest: _Nearest, own: NDArray[np.floating], names: list[str]
) -> list[str]:
    """Find texts that are nearer to another class than to their own."""
    return [
        f"nearer to {names[group]} (cosine {cosine:.2f}) than to its own class "
        f"({mine:.2f})"
        if cosine > mine + 1e-6
        else ""
        for group, cosine, mine in zip(nearest.group, nearest.cosine, own, strict=True)
    ]


def _warn_about_alike(
    pairs: list[tuple[int, int, float]], similarity: float, names: list[str]
) -> None:
    more = ", ..." if len(pairs) > _PAIRS_IN_WARNING else ""
    named = ", ".join(
        f"{names[a]} and {names[b]} ({cosine:.3f})"
        for a, b, cosine in pairs[:_PAIRS_IN_WARNING]
    )
    warnings.warn(
        f"Class vectors with a cosine above {similarity:g}: {named}{more}. The model "
        "can hardly distinguish them; use other words, or merge the classes.",
        PromptWarning,
        stacklevel=3,
    )
