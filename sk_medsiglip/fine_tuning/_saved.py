"""A fitted fine-tuner as JSON: parameters and what fit learned, without a pickle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.fine_tuning._augmentation import Augmentation
from sk_medsiglip.images import CTWindows, Percentiles, Window

__all__ = ["from_json", "to_json"]

_CLASSES = {one.__name__: one for one in (Augmentation, CTWindows, Percentiles, Window)}
_IS = "__is__"


def to_json(value: Any) -> Any:
    """Return what :func:`from_json` makes the value of again.

    Parameters
    ----------
    value : object
        A parameter or an attribute of the fine-tuner.

    Returns
    -------
    object
        Of JSON's types.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, EmbeddingCache):
        return os.fspath(value.location)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return {_IS: "array", "dtype": value.dtype.str, "values": _listed(value)}
    if isinstance(value, pd.DataFrame):
        columns = {name: to_json(list(column)) for name, column in value.items()}
        return {_IS: "table", "columns": columns}
    if isinstance(value, Mapping):
        # Keys of JSON are texts only; classes may be numbers.
        pairs = [[to_json(key), to_json(one)] for key, one in value.items()]
        return {_IS: "mapping", "pairs": pairs}
    if isinstance(value, list | tuple | set):
        return {_IS: type(value).__name__, "items": [to_json(one) for one in value]}
    if type(value).__name__ in _CLASSES:
        given = {
            one.name: to_json(getattr(value, one.name))
            for one in dataclasses.fields(value)
        }
        return {_IS: type(value).__name__, "fields": given}
    raise TypeError(f"{value!r} cannot be saved as JSON.")


def from_json(value: Any) -> Any:
    """Return the object that :func:`to_json` was given.

    Raises
    ------
    CheckpointError
        If it is of a kind that is not known.
    """
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
    raise CheckpointError(f"a saved fine-tuner holds {kind!r}, which is not known.")


def _listed(array: NDArray[Any]) -> Any:
    # Not tolist alone: arrays of objects hold numbers of numpy's.
    return [
        _listed(one) if isinstance(one, np.ndarray) else to_json(one) for one in array
    ]


def _array(values: list[Any], dtype: str) -> NDArray[Any]:
    if dtype not in ("|O", "O") and np.dtype(dtype).hasobject:
        raise CheckpointError(f"a saved fine-tuner holds an array of type {dtype!r}.")
    return np.array(values, dtype=dtype)
