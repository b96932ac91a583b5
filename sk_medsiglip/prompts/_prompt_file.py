"""A YAML file -> the fields of a prompt set, checked."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.prompts._question import check_prompts

__all__ = ["read_prompt_file"]

_REQUIRED = {
    "title": str,
    "version": int,
    "modality": str,
    "source": str,
    "notes": str,
    "prompts": dict,
}
_OPTIONAL = ("ordinal", "templates")


def read_prompt_file(path: Path) -> dict[str, Any]:
    """Read one file of a prompt set.

    Parameters
    ----------
    path : Path
        YAML in UTF-8.

    Returns
    -------
    dict
        Arguments of :class:`PromptSet`, its name apart.

    Raises
    ------
    PromptError
        If it cannot be read, or is not a valid set.
    """
    content = _read(path)
    _check_header(content, path)
    ordinal = content.get("ordinal", False)
    if not isinstance(ordinal, bool):
        raise PromptError(f"{path}: ordinal is {ordinal!r}; write true or false.")
    prompts = {
        name: _check_class(value, name, path)
        for name, value in content["prompts"].items()
    }
    _check_names(list(prompts), ordinal, path)
    templates = content.get("templates") or ()
    templates = (templates,) if isinstance(templates, str) else templates
    if not isinstance(templates, list | tuple):
        raise PromptError(f"{path}: templates is {templates!r}; write a list of texts.")
    try:
        check_prompts(prompts, templates or None)
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from None
    return {
        **{key: content[key] for key in _REQUIRED},
        "prompts": prompts,
        "templates": tuple(templates),
        "ordinal": ordinal,
    }


def _read(path: Path) -> dict[Any, Any]:
    try:
        text = path.read_text("utf-8-sig")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except UnicodeDecodeError:
        raise PromptError(f"{path} is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise PromptError(
            f"{path} cannot be read: {error.strerror or error}."
        ) from error
    except (
        yaml.YAMLError,
        ValueError,
    ) as error:  # ValueError: a date such as 2025-99-99
        raise PromptError(f"{path} is not valid YAML: {error}") from None
    _refuse_repeated_keys(node, path, set())
    if not isinstance(content, dict):
        raise PromptError(
            f"{path} must hold keys such as title: and prompts:, and holds "
            f"{'nothing' if content is None else 'a ' + type(content).__name__}."
        )
    return content


def _refuse_repeated_keys(node: yaml.Node | None, path: Path, seen: set[int]) -> None:
    """Raise where a key comes twice: PyYAML would keep the last one in silence."""
    if node is None or id(node) in seen:  # an alias is met again at every use
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    raise PromptError(
                        f"{path}: the key {key.value!r} of line {lines[key.value]} "
                        f"comes again in line {line}. Join the two."
                    )
                lines[key.value] = line
            _refuse_repeated_keys(value, path, seen)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repeated_keys(item, path, seen)


def _check_header(content: dict[Any, Any], path: Path) -> None:
    known = [*_REQUIRED, *_OPTIONAL]
    for key in content:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise PromptError(
                f"{path}: the key {key!r} is none of {', '.join(known)}{hint}"
            )
    missing = [key for key in _REQUIRED if key not in content]
    if missing:
        raise PromptError(
            f"{path} lacks {', '.join(missing)}. A set says what it is: it needs "
            f"{', '.join(_REQUIRED)}."
        )
    for key, wanted in _REQUIRED.items():
        value = content[key]
        if isinstance(value, bool) or not isinstance(value, wanted):
            expected = {str: "a text", int: "a whole number", dict: "a mapping"}[wanted]
            raise PromptError(f"{path}: {key} is {value!r}; it must be {expected}.")
        if isinstance(value, str) and not value.strip():
            raise PromptError(f"{path}: {key} is empty.")


def _check_class(value: Any, name: Any, path: Path) -> Any:
    """Return texts, or two of them by side."""
    if isinstance(value, dict) and not _are_weights(value):
        return {
            side: _check_texts(texts, f"{name!r}, {side}", path)
            for side, texts in value.items()
        }
    return _check_texts(value, repr(name), path)


def _check_texts(value: Any, where: str, path: Path) -> Any:
    """Return a tuple of texts, or of texts with weights a dict."""
    weighted = isinstance(value, dict) and _are_weights(value)
    listed = value if isinstance(value, list) or weighted else [value]
    for text in listed:
        if not isinstance(text, str):
            raise PromptError(
                f"{path}: {where}: YAML reads {text!r} ({type(text).__name__}) where a "
                'text is expected. Put it in quotes: "no", "1".'
            )
    return dict(value) if weighted else tuple(listed)


def _are_weights(value: dict[Any, Any]) -> bool:
    return all(
        isinstance(weight, int | float) and not isinstance(weight, bool)
        for weight in value.values()
    )


def _check_names(names: list[Any], ordinal: bool, path: Path) -> None:
    for name in names:
        grade = ordinal and isinstance(name, int) and not isinstance(name, bool)
        if not isinstance(name, str) and not grade:
            raise PromptError(
                f"{path}: YAML reads the class {name!r} as {type(name).__name__}, not "
                'as a text. Put it in quotes: "no", "1". Whole numbers are for grades, '
                "with ordinal: true."
            )
    numbers = [name for name in names if not isinstance(name, str)]
    if numbers != sorted(numbers):
        raise PromptError(
            f"{path}: the grades {names} are numbers and go by their size; write them "
            "in that order."
        )
