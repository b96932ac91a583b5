"""The question of a dict of prompts: one of several classes, or present or absent."""

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
    """Prompts in the order of their vectors.

    Parameters
    ----------
    labels : ndarray
        Class names, sorted; or names of findings, in the order given.
    texts : tuple of tuple of str
        Texts of each vector, templates filled in: one entry a class, or two a
        finding, absent before present.
    is_pairs : bool
        Whether the labels are findings, each present or absent.
    weights : tuple of tuple of float, or None
        Weight of each text; None if all count alike.
    """

    labels: NDArray[Any]
    texts: tuple[tuple[str, ...], ...]
    is_pairs: bool
    weights: tuple[tuple[float, ...], ...] | None = None

    @property
    def findings(self) -> NDArray[Any] | None:
        """Names of the findings; None for exclusive classes."""
        return self.labels if self.is_pairs else None

    @property
    def classes(self) -> NDArray[Any] | None:
        """Sorted classes, 0 and 1 for one finding; None for several findings."""
        if not self.is_pairs:
            return self.labels
        return np.array([0, 1]) if len(self.labels) == 1 else None

    def read_labels(self, asker: Any, X: Any, y: Any) -> Labels:
        """Check ``y`` against the classes or findings; see :func:`check_labels`."""
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
    """Check a dict of prompts and put it in order.

    Parameters
    ----------
    prompts : mapping
        ``{class: prompts}`` for exclusive classes, or ``{finding: {"positive":
        prompts, "negative": prompts}}`` for findings that are present or absent
        independently. Prompts are a text, a list of texts, or ``{text: weight}``.
    templates : str, sequence of str or mapping, default=None
        Texts with one ``{}`` each, filled with every prompt in turn. As ``{class:
        templates}``, classes that it does not name keep their prompts as they are.

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
        hint = (
            f"For a set that ships pass load_prompt_set({prompts!r}). "
            if isinstance(prompts, str)
            else ""
        )
        raise PromptError(
            f"prompts must be a dict, got {type(prompts).__name__}. {hint}Write "
            '{"effusion": ["pleural effusion"], "normal": ["normal chest X-ray"]} or '
            '{"effusion": {"positive": [...], "negative": [...]}}.'
        )
    if not prompts:
        raise PromptError("prompts is empty: name at least two classes or one finding.")
    pairs = [is_pair(value) for value in prompts.values()]
    if any(pairs) and not all(pairs):
        raise PromptError(
            "prompts mixes classes and present/absent pairs. Give every entry as "
            'texts (exclusive classes) or every entry as {"positive": ..., '
            '"negative": ...} (independent findings). Weights of texts are numbers.'
        )
    of_label = _check_templates(templates, prompts)
    labels, asked = (_check_pairs if all(pairs) else _check_classes)(prompts, of_label)
    texts, weights = zip(*asked, strict=True)
    alike = all(len(set(one)) == 1 for one in weights)
    return Question(labels, texts, all(pairs), None if alike else weights)


#: Texts of one vector, and their weights.
_Prompts = tuple[tuple[str, ...], tuple[float, ...]]


def is_pair(value: Any) -> bool:
    """Tell a pair of sides from texts with weights, which is a dict of numbers."""
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
            f"prompts has one class, {next(iter(prompts))!r}; a choice needs two. For "
            'present or absent write {finding: {"positive": ..., "negative": ...}}.'
        )
    names = list(prompts)
    if any(name != name for name in names):
        raise PromptError("a class of prompts is NaN; name it.")
    if len({str if isinstance(n, str) else type(n) for n in names}) > 1:
        raise PromptError(
            f"the classes {names!r} are of different types; use the labels as they "
            "are in y, all str or all int."
        )
    # Sorted, as scikit-learn has classes_, whatever the order of the dict.
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
    """Return every template filled with every text of one class."""
    weights: list[float] = []
    texts = prompts
    if _are_weighted(prompts):
        texts = list(prompts)
        try:
            weights = [float(weight) for weight in prompts.values()]
        except OverflowError:  # a whole number beyond all floats
            weights = [np.inf]
    texts = check_texts(texts, where)
    if weights and not (
        np.isfinite(weights).all() and min(weights) >= 0 < sum(weights)
    ):
        raise PromptError(
            f"{where}: the weights {weights} must be 0 or more, and not all 0."
        )
    return (
        tuple(template.replace("{}", text) for template in templates for text in texts),
        tuple(weights or [1.0] * len(texts)) * len(templates),
    )


def check_texts(texts: Any, where: str) -> list[str]:
    """Return a text or several as a list; raise PromptError where one is empty."""
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
        raise PromptError("templates is empty; leave it None to use prompts as is.")
    for template in listed:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise PromptError(
                f"template {template!r} must be a text with exactly one {{}}, such as "
                '"a chest X-ray showing {}".'
            )
        if left := re.search(r"[{}][^{}]*[}]?", template.replace("{}", "", 1)):
            raise PromptError(
                f"template {template!r} holds {left[0]!r}, which nothing fills: the "
                "prompt goes where {} is, and there is no other placeholder."
            )
    return listed
