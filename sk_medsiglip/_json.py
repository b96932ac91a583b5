"""Reading untrusted JSON, with limits on size and depth and checks of types."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Depth and size far beyond those of the files of this package and of transformers.
MAX_DEPTH = 32
MAX_BYTES = 64 * 2**20

_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}


def read_json(
    source: Path | str | bytes,
    required: Mapping[str, type | tuple[type, ...]] | None = None,
    optional: Mapping[str, type | tuple[type, ...]] | None = None,
) -> dict[str, Any]:
    """Return a JSON object from a file or a text, or raise ValueError with the reason.

    ``required`` and ``optional`` give the types of values by key; other keys are not
    checked. An int is accepted as a float, but True is not a number.
    """
    if isinstance(source, Path):
        if (size := source.stat().st_size) > MAX_BYTES:
            raise ValueError(f"it has {size} bytes, more than the {MAX_BYTES} allowed")
        source = source.read_bytes()
    try:
        content = json.loads(source)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_json(content)
    if not isinstance(content, dict):
        raise ValueError(f"it is {_name_of(type(content))}, not an object")
    for key, kinds in {**(required or {}), **(optional or {})}.items():
        if key not in content:
            if optional is None or key not in optional:
                raise ValueError(f"{key!r} is missing")
        elif not _is_of(content[key], kinds):
            wanted = kinds if isinstance(kinds, tuple) else (kinds,)
            raise ValueError(
                f"{key!r} is {_name_of(type(content[key]))}, not "
                f"{' or '.join(map(_name_of, wanted))}"
            )
    return content


def check_json(content: Any) -> None:
    """Raise ValueError if a JSON value is nested more than ``MAX_DEPTH`` deep."""
    layer, depth = [content], 0
    while layer:
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        inner: list[Any] = []
        for one in layer:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        layer, depth = [i for i in inner if isinstance(i, dict | list)], depth + 1


def _is_of(value: Any, kinds: type | tuple[type, ...]) -> bool:
    """Whether a value has one of these types; a boolean is not a number."""
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    if isinstance(value, bool):
        return bool in wanted
    return isinstance(value, (*wanted, int) if float in wanted else wanted)


def _name_of(kind: type) -> str:
    """Return the name of a type for messages."""
    if kind in (int, float):
        return "a number" if kind is float else "a whole number"
    return "null" if kind is type(None) else _NAMES.get(kind, kind.__name__)
