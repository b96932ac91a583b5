"""What a dict of prompts asks: one of several classes, or present or absent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import PromptError

__all__ = ["Question", "check_columns", "check_prompts"]

_PAIR = {"positive", "negative"}


@dataclass(frozen=True)
class Question:
    """Prompts in the order of the vectors they become.

    Parameters
    ----------
    labels : ndarray
        Class names, sorted; or names of findings, in the order given.
    texts : tuple of tuple of str
        Texts of each vector, templates filled in: one entry a class, or two a
        finding, absent before present.
    is_pairs : bool
        Whether the labels are findings, each present or absent.
    """

    labels: NDArray[Any]
    texts: tuple[tuple[str, ...], ...]
    is_pairs: bool


def check_prompts(
    prompts: Mapping[Any, Any], templates: str | Sequence[str] | None = None
) -> Question:
    """Check a dict of prompts and put it in order.

    Parameters
    ----------
    prompts : mapping
        ``{class: prompt or list of prompts}`` for exclusive classes, or
        ``{finding: {"positive": ..., "negative": ...}}`` for findings that are
        present or absent independently.
    templates : str or sequence of str, default=None
        Texts with one ``{}`` each, filled with every prompt in turn.

    Returns
    -------
    Question

    Raises
    ------
    PromptError
        If anything in it is not a text, is empty, or the two forms are mixed.

    Examples
    --------
    >>> from sk_medsiglip.prompts import check_prompts
    >>> question = check_prompts(
    ...     {"normal": "a normal lung", "effusion": ["effusion", "pleural fluid"]},
    ...     templates="a chest X-ray showing {}",
    ... )
    >>> question.labels.tolist()
    ['effusion', 'normal']
    >>> question.texts[0][1]
    'a chest X-ray showing pleural fluid'
    """
    if not isinstance(prompts, Mapping):
        raise PromptError(
            f"prompts must be a dict, got {type(prompts).__name__}. Write "
            '{"effusion": ["pleural effusion"], "normal": ["normal chest X-ray"]} or '
            '{"effusion": {"positive": [...], "negative": [...]}}.'
        )
    if not prompts:
        raise PromptError("prompts is empty: name at least two classes or one finding.")
    filled = _check_templates(templates)
    pairs = [isinstance(value, Mapping) for value in prompts.values()]
    if all(pairs):
        return _check_pairs(prompts, filled)
    if any(pairs):
        raise PromptError(
            "prompts mixes classes and present/absent pairs. Give every entry as "
            'texts (exclusive classes) or every entry as {"positive": ..., '
            '"negative": ...} (independent findings).'
        )
    return _check_classes(prompts, filled)


def check_columns(y: Any, findings: Iterable[Any]) -> None:
    """Raise if ``y`` names the findings, but in another order than the prompts.

    Parameters
    ----------
    y : array-like
        A DataFrame names its columns; anything else is passed over.
    findings : iterable
        Names in the order of the prompts.

    Raises
    ------
    ValueError
        If the same names stand in another order.
    """
    named = [str(name) for name in getattr(y, "columns", ())]
    wanted = [str(name) for name in findings]
    if sorted(named) == sorted(wanted) and named != wanted:
        raise ValueError(
            f"the columns of y are {named}, the findings {wanted}: scores would "
            f"compare the wrong ones. Pass y[{wanted}]."
        )


def _check_classes(prompts: Mapping[Any, Any], templates: list[str]) -> Question:
    if len(prompts) < 2:
        raise PromptError(
            f"prompts has one class, {next(iter(prompts))!r}; a choice needs two. For "
            'present or absent write {finding: {"positive": ..., "negative": ...}}.'
        )
    names = list(prompts)
    if len({str if isinstance(n, str) else type(n) for n in names}) > 1:
        raise PromptError(
            f"the classes {names!r} are of different types; use the labels as they "
            "are in y, all str or all int."
        )
    labels = np.unique(np.asarray(names))
    # Sorted, as scikit-learn has classes_, whatever the order of the dict.
    by_label = dict(zip(np.asarray(names).tolist(), prompts.values(), strict=True))
    texts = tuple(
        _fill(by_label[label], templates, f"class {label!r}")
        for label in labels.tolist()
    )
    return Question(labels, texts, is_pairs=False)


def _check_pairs(prompts: Mapping[Any, Any], templates: list[str]) -> Question:
    texts = []
    for finding, pair in prompts.items():
        if set(pair) != _PAIR:
            raise PromptError(
                f"finding {finding!r} has the keys {sorted(map(str, pair))}; it needs "
                '"positive" and "negative", each a text or a list of texts.'
            )
        for side in ("negative", "positive"):
            texts.append(_fill(pair[side], templates, f"{side} of {finding!r}"))
    return Question(np.asarray(list(prompts)), tuple(texts), is_pairs=True)


def _fill(prompt: Any, templates: list[str], where: str) -> tuple[str, ...]:
    """Return every template filled with every text of one class."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence | np.ndarray | set) or not len(texts):
        raise PromptError(
            f"{where}: expected a text or a non-empty list of texts, got {prompt!r}."
        )
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise PromptError(f"{where}: {text!r} is not a text with words in it.")
    return tuple(
        template.replace("{}", text) for template in templates for text in texts
    )


def _check_templates(templates: str | Sequence[str] | None) -> list[str]:
    if templates is None:
        return ["{}"]
    listed = [templates] if isinstance(templates, str) else list(templates)
    if not listed:
        raise PromptError("templates is empty; leave it None to use prompts as is.")
    for template in listed:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise PromptError(
                f"template {template!r} must be a text with exactly one {{}}, such as "
                '"a chest X-ray showing {}".'
            )
    return listed
