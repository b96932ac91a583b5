"""Checks of prompts for exclusive classes, or for findings present or absent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._labels import Labels, check_labels
from sk_medsiglip.exceptions import PromptError

_PAIR = {"positive", "negative"}


@dataclass(frozen=True)
class Question:
    """Checked prompts in the order of their vectors.

    Parameters
    ----------
    labels : ndarray
        Sorted names of classes, or names of findings in the given order.
    texts : tuple of tuple of str
        Texts of each vector, after filling in templates. There is one entry per class,
        or two per finding, absent before present.
    is_pairs : bool
        Whether the labels are findings, each present or absent.
    weights : tuple of tuple of float, or None
        Weights of the texts, or None if all are equal.
    """

    labels: NDArray[Any]
    texts: tuple[tuple[str, ...], ...]
    is_pairs: bool
    weights: tuple[tuple[float, ...], ...] | None = None

    @property
    def findings(self) -> NDArray[Any] | None:
        """Names of the findings, or None for exclusive classes."""
        return self.labels if self.is_pairs else None

    @property
    def classes(self) -> NDArray[Any] | None:
        """Sorted classes, 0 and 1 for one finding, or None for several findings."""
        if not self.is_pairs:
            return self.labels
        return np.array([0, 1]) if len(self.labels) == 1 else None

    def read_labels(self, asker: Any, X: Any, y: Any) -> Labels:
        """Check ``y`` against the classes or findings with ``check_labels``."""
        return check_labels(
            asker,
            X,
            y,
            self.classes,
            findings=self.findings,
            unlabelled=True,
            blanks=self.is_pairs,
        )


def check_prompts(prompts: Mapping[Any, Any], templates: Any = None) -> Question:
    """Check prompts, fill in templates, and sort the classes.

    Parameters
    ----------
    prompts : mapping
        ``{class: prompts}`` for exclusive classes, or ``{finding: {"positive":
        prompts, "negative": prompts}}`` for findings that are present or absent
        independently. Prompts are a text, a list of texts, or ``{text: weight}``.
    templates : str, sequence of str or mapping, default=None
        Texts with one ``{}`` each, to be filled with every prompt. With ``{class:
        templates}`` the prompts of other classes are not changed.

    Returns
    -------
    Question
        The checked prompts.

    Raises
    ------
    PromptError
        If a prompt is empty or not a text, or if classes and findings are mixed.

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
        hint = (
            f"For a prompt set pass load_prompt_set({prompts!r}). "
            if isinstance(prompts, str)
            else ""
        )
        raise PromptError(
            f"prompts must be a dict, got {type(prompts).__name__}. {hint}Write "
            '{"effusion": ["pleural effusion"], "normal": ["normal chest X-ray"]} or '
            '{"effusion": {"positive": [...], "negative": [...]}}.'
        )
    if not prompts:
        raise PromptError("prompts is empty: pass at least two classes or one finding.")
    pairs = [is_pair(value) for value in prompts.values()]
    if any(pairs) and not all(pairs):
        raise PromptError(
            "prompts mixes classes and findings. Write every entry as texts (exclusive "
            'classes), or every entry as {"positive": ..., "negative": ...} '
            "(findings). Weights of texts must be numbers."
        )
    of_label = _check_templates(templates, prompts)
    labels, asked = (_check_pairs if all(pairs) else _check_classes)(prompts, of_label)
    texts, weights = zip(*asked, strict=True)
    alike = all(len(set(one)) == 1 for one in weights)
    return Question(labels, texts, all(pairs), None if alike else weights)


#: Texts of one vector, and their weights.
_Prompts = tuple[tuple[str, ...], tuple[float, ...]]


def is_pair(value: Any) -> bool:
    """Tell whether prompts are a dict of two sides rather than of weights."""
    return isinstance(value, Mapping) and not _are_weighted(value)


def _are_weighted(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(weight, Real) for weight in value.values())
    )


def _check_classes(
    prompts: Mapping[Any, Any], templates: Mapping[Any, list[str]]
) -> tuple[NDArray[Any], list[_Prompts]]:
    if len(prompts) < 2:
        raise PromptError(
            f"prompts has one class, {next(iter(prompts))!r}, and needs two or more. "
            'For a finding write {finding: {"positive": ..., "negative": ...}}.'
        )
    names = list(prompts)
    if any(name != name for name in names):
        raise PromptError("a class of prompts is NaN; pass a name.")
    if len({str if isinstance(n, str) else type(n) for n in names}) > 1:
        raise PromptError(
            f"the classes {names!r} have different types; use the labels in y, all str "
            "or all int."
        )
    # Sorted, like classes_ in scikit-learn.
    labels = np.unique(np.asarray(names))
    by_label = dict(zip(np.asarray(names).tolist(), names, strict=True))
    return labels, [
        _fill(prompts[name], templates[name], f"class {name!r}")
        for name in (by_label[label] for label in labels.tolist())
    ]


def _check_pairs(
    prompts: Mapping[Any, Any], templates: Mapping[Any, list[str]]
) -> tuple[NDArray[Any], list[_Prompts]]:
    asked = []
    for finding, pair in prompts.items():
        if set(pair) != _PAIR:
            raise PromptError(
                f"finding {finding!r} has the keys {sorted(map(str, pair))}; it needs "
                '"positive" and "negative", each a text or a list of texts.'
            )
        asked += [
            _fill(pair[side], templates[finding], f"{side} of {finding!r}")
            for side in ("negative", "positive")
        ]
    return np.asarray(list(prompts)), asked


def _fill(prompts: Any, templates: list[str], where: str) -> _Prompts:
    """Return all templates filled with all texts of a class, and the weights."""
    weights: list[float] = []
    texts = prompts
    if _are_weighted(prompts):
        texts = list(prompts)
        try:
            weights = [float(weight) for weight in prompts.values()]
        except OverflowError:  # an int that is too large for a float
            weights = [np.inf]
    texts = check_texts(texts, where)
    if weights and not (
        np.isfinite(weights).all() and min(weights) >= 0 < sum(weights)
    ):
        raise PromptError(
            f"{where}: the weights {weights} must be finite, at least 0, and not all 0."
        )
    return (
        tuple(template.replace("{}", text) for template in templates for text in texts),
        tuple(weights or [1.0] * len(texts)) * len(templates),
    )


def check_texts(texts: Any, where: str) -> list[str]:
    """Return one or several texts as a list, or raise PromptError."""
    listed = [texts] if isinstance(texts, str) else texts
    if isinstance(listed, bytes) or not (
        isinstance(listed, Sequence | np.ndarray | set) and len(listed)
    ):
        raise PromptError(
            f"{where}: expected a text or a non-empty list of texts, got {texts!r}."
        )
    for text in listed:
        if not isinstance(text, str) or not text.strip():
            raise PromptError(f"{where}: {text!r} is not a text with words in it.")
    return [str(text) for text in listed]


def _check_templates(
    templates: Any, prompts: Mapping[Any, Any]
) -> Mapping[Any, list[str]]:
    """Return the templates of every label."""
    if not isinstance(templates, Mapping):
        return dict.fromkeys(prompts, _check_some(templates))
    unknown = [name for name in templates if name not in prompts]
    if unknown:
        raise PromptError(
            f"templates names {unknown[0]!r}, which has no prompts; there are prompts "
            f"for {list(prompts)}."
        )
    return {name: _check_some(templates.get(name)) for name in prompts}


def _check_some(templates: str | Sequence[str] | None) -> list[str]:
    if templates is None:
        return ["{}"]
    if not isinstance(templates, str | Sequence | np.ndarray):
        raise PromptError(
            f"templates must be a text, a list of texts or a dict of these, got "
            f"{templates!r}."
        )
    listed = [templates] if isinstance(templates, str) else list(templates)
    if not listed:
        raise PromptError("templates is empty; pass None to use prompts without them.")
    for template in listed:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise PromptError(
                f"template {template!r} must be a text with exactly one {{}}, such as "
                '"a chest X-ray showing {}".'
            )
        if left := re.search(r"[{}][^{}]*[}]?", template.replace("{}", "", 1)):
            raise PromptError(
                f"template {template!r} holds {left[0]!r}, which cannot be filled: "
                f"{{}} is the only placeholder."
            )
    return listed
