"""Conversion of parameters and attributes of a fine-tuner to JSON and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.fine_tuning._augmentation import Augmentation
from sk_medsiglip.images import CTWindows, Percentiles, Window

_CLASSES = {
    one.__name__: one
    for one in (Augmentation, CTWindows, MedSigLIPEmbedder, Percentiles, Window)
}
# Parameters of an embedder that depend on the machine.
_OF_A_MACHINE = ("cache", "n_jobs", "verbose")
_IS = "__is__"


def to_json(value: Any) -> Any:
    """Return a value of JSON types that :func:`from_json` converts back."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return {_IS: "array", "dtype": value.dtype.str, "values": _listed(value)}
    if isinstance(value, pd.DataFrame):
        columns = {name: to_json(list(column)) for name, column in value.items()}
        return {_IS: "table", "columns": columns}
    if isinstance(value, Mapping):
        # A list of pairs, since JSON keys are strings and classes may be numbers.
        pairs = [[to_json(key), to_json(one)] for key, one in value.items()]
        return {_IS: "mapping", "pairs": pairs}
    if isinstance(value, list | tuple | set):
        return {_IS: type(value).__name__, "items": [to_json(one) for one in value]}
    if type(value).__name__ in _CLASSES:
        is_embedder = isinstance(value, MedSigLIPEmbedder)
        given = value.get_params() if is_embedder else vars(value)
        saved = {k: to_json(v) for k, v in given.items() if k not in _OF_A_MACHINE}
        return {_IS: type(value).__name__, "fields": saved}
    raise TypeError(f"{value!r} cannot be saved as JSON.")


def from_json(value: Any) -> Any:
    """Return the value that :func:`to_json` converted."""
    if not isinstance(value, dict):
        return value
    kind = value.get(_IS)
    if kind == "array":
        return _array(value["values"], value["dtype"])
    if kind == "table":
        return pd.DataFrame(
            {name: from_json(column) for name, column in value["columns"].items()}
        )
    if kind == "mapping":
        return {from_json(key): from_json(one) for key, one in value["pairs"]}
    if kind in ("list", "tuple", "set"):
        items = [from_json(one) for one in value["items"]]
        return {"list": list, "tuple": tuple, "set": set}[kind](items)
    if kind in _CLASSES:
        given = {name: from_json(one) for name, one in value["fields"].items()}
        return _CLASSES[kind](**given)
    raise CheckpointError(
        f"a saved fine-tuner holds an object of the unknown type {kind!r}."
    )


def _listed(array: NDArray[Any]) -> Any:
    # Not tolist(), which leaves numpy scalars in arrays of objects.
    return [
        _listed(one) if isinstance(one, np.ndarray) else to_json(one) for one in array
    ]


def _array(values: list[Any], dtype: str) -> NDArray[Any]:
    if dtype not in ("|O", "O") and np.dtype(dtype).hasobject:
        raise CheckpointError(f"a saved fine-tuner holds an array of type {dtype!r}.")
    return np.array(values, dtype=dtype)
