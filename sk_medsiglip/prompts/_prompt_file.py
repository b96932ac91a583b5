"""Fields of a prompt set from a YAML or JSON file, checked."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import yaml

from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.prompts._question import check_prompts

_HEADER = {"title": str, "version": int, "modality": str, "source": str, "notes": str}
_KNOWN = (*_HEADER, "prompts", "ordinal", "templates")

#: Largest number of characters after expanding aliases; our sets have 10,000.
_LONGEST = 1_000_000
_LONGEST_NUMBER = 1000


def read_prompt_file(path: Path) -> dict[str, Any]:
    """Read the file of a prompt set; errors begin with its path."""
    try:
        return _check_set(_read(path), "JSON" if _is_json(path) else "YAML")
    except PromptError as error:
        raise PromptError(f"{path}: {error}") from None


def _check_set(content: dict[Any, Any], kind: str) -> dict[str, Any]:
    """Return the fields of a set from the content of a file."""
    is_bare = not any(key in content for key in _KNOWN)
    if is_bare:
        content = {"prompts": content}
    _check_header(content)
    ordinal = content.get("ordinal", False)
    if not isinstance(ordinal, bool):
        raise PromptError(f"ordinal is {brief(ordinal)}; it must be true or false.")
    prompts = {
        name: _check_class(value, name, kind)
        for name, value in content["prompts"].items()
    }
    _check_names(list(prompts), ordinal, is_bare)
    templates = content.get("templates") or ()
    templates = (templates,) if isinstance(templates, str) else templates
    if not isinstance(templates, list | tuple):
        raise PromptError(
            f"templates is {brief(templates)}; it must be a list of texts."
        )
    check_prompts(prompts, templates or None)
    return {
        **{key: content[key] for key in _HEADER if key in content},
        "prompts": prompts,
        "templates": tuple(templates),
        "ordinal": ordinal,
    }


def _is_json(path: Path) -> bool:
    return path.suffix.lower() == ".json"


def _read(path: Path) -> dict[Any, Any]:
    parse = _parse_json if _is_json(path) else _parse_yaml
    try:
        content = parse(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise PromptError("the file is not UTF-8 text; save it as UTF-8.") from None
    except OSError as error:
        raise PromptError(f"cannot be read: {error.strerror or error}.") from error
    except RecursionError:
        raise PromptError("the content is nested too deeply for prompts.") from None
    except PromptError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # ValueError for JSON and YAML dates
        kind = "JSON" if _is_json(path) else "YAML"
        raise PromptError(f"not valid {kind}: {error}") from None
    if not isinstance(content, dict):
        raise PromptError(
            'a prompt file must hold names and prompts, such as effusion: ["pleural '
            'effusion"], and this one '
            f"{'is empty' if content is None else 'holds a ' + type(content).__name__}."
        )
    return content


def _parse_json(text: str) -> Any:
    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise PromptError(f"the key {brief(key)} is repeated. Merge the two.")
            content[key] = value
        return content

    return json.loads(text, object_pairs_hook=check)


def _parse_yaml(text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of characters of a node after expanding its aliases.

    Raises if there are too many, as in recursive aliases, and on repeated keys, of
    which PyYAML would silently keep the last.
    """
    if id(node) in known:  # an alias, which is the same node each time
        return known[id(node)]
    known[id(node)] = _LONGEST + 1
    length = 1
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                if key.value in lines:
                    raise PromptError(
                        f"the key {brief(key.value)} of line {lines[key.value]} is "
                        f"repeated in line {line}. Merge the two."
                    )
                lines[key.value] = line
            length += _measure(key, known) + _measure(value, known)
    elif isinstance(node, yaml.SequenceNode):
        length += sum(_measure(item, known) for item in node.value)
    else:
        length += len(node.value)
        # Python cannot convert numbers of more than 4,300 digits to text.
        if node.tag == "tag:yaml.org,2002:int" and length > _LONGEST_NUMBER:
            raise PromptError(
                f"line {node.start_mark.line + 1} holds a number of {length - 1:,} "
                "characters. Put texts in quotes."
            )
    if length > _LONGEST:
        raise PromptError(
            f"line {node.start_mark.line + 1} holds more than {_LONGEST:,} characters "
            "after expanding its aliases (*name). Write shorter prompts."
        )
    known[id(node)] = length
    return length


def _check_header(content: dict[Any, Any]) -> None:
    if "prompts" not in content:
        given = ", ".join(key for key in _KNOWN if key in content)
        raise PromptError(
            f"there are {given} but no prompts: put the classes under the key prompts."
        )
    for key in content:
        if key not in _KNOWN:
            close = get_close_matches(str(key), _KNOWN, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise PromptError(
                f"the key {brief(key)} is not one of {', '.join(_KNOWN)}{hint}"
            )
    for key, wanted in {**_HEADER, "prompts": dict}.items():
        if key not in content:
            continue
        value = content[key]
        if isinstance(value, bool) or not isinstance(value, wanted):
            expected = {str: "a text", int: "a whole number", dict: "a mapping"}[wanted]
            raise PromptError(f"{key} is {brief(value)}; it must be {expected}.")
        if isinstance(value, str) and not value.strip():
            raise PromptError(f"{key} is empty.")


def _check_class(value: Any, name: Any, kind: str) -> Any:
    """Return the texts of a class, or those of each side of a finding."""
    if isinstance(value, dict) and not _are_weights(value):
        return {
            side: _check_texts(texts, f"{brief(name)}, {side}", kind)
            for side, texts in value.items()
        }
    return _check_texts(value, brief(name), kind)


def _check_texts(value: Any, where: str, kind: str) -> Any:
    """Return a tuple of texts, or a dict of texts with weights."""
    weighted = isinstance(value, dict) and _are_weights(value)
    listed = value if isinstance(value, list) or weighted else [value]
    for text in listed:
        if not isinstance(text, str):
            raise PromptError(
                f"{where}: {kind} reads {brief(text)} ({type(text).__name__}) "
                'instead of a text. Put it in quotes: "no", "1".'
            )
    return dict(value) if weighted else tuple(listed)


def _are_weights(value: dict[Any, Any]) -> bool:
    return all(
        isinstance(weight, int | float) and not isinstance(weight, bool)
        for weight in value.values()
    )


def _check_names(names: list[Any], ordinal: bool, is_bare: bool) -> None:
    for name in names:
        # Files without a header cannot declare grades, so numbers are accepted.
        whole = isinstance(name, int) and not isinstance(name, bool)
        if not isinstance(name, str) and not (whole and (ordinal or is_bare)):
            raise PromptError(
                f"YAML reads the class {brief(name)} as {type(name).__name__} instead "
                'of a text. Put it in quotes: "no", "1". Whole numbers are for grades, '
                "with ordinal: true."
            )
    numbers = [name for name in names if not isinstance(name, str)]
    if ordinal and numbers != sorted(numbers):
        raise PromptError(
            f"the grades {brief(names)} are numbers, which must be in increasing order."
        )
