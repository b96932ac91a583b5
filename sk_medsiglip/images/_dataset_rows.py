"""A column of a Hugging Face data set as a sequence, whose images are read lazily.

The ``datasets`` library is not imported here: whoever holds one of its objects has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Features whose rows are sources as they are stored: paths, URLs, the bytes of files.
_PLAIN = ("string", "large_string", "binary", "large_binary")

#: Features whose rows are pixels.
_ARRAYS = ("Array2D", "Array3D", "List", "LargeList", "Sequence")


class DatasetColumn(Sequence[Any]):
    """Images of one column, fetched row by row; several threads may do so at once."""

    def __init__(self, rows: Any, name: str | None) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        row = self._rows[int(index)]
        return encoded_image(row if self._name is None else row[self._name])


def encoded_image(row: Any) -> Any:
    """Return what an undecoded ``{"bytes": ..., "path": ...}`` holds, or the row."""
    if not isinstance(row, dict) or not row or not row.keys() <= {"bytes", "path"}:
        return row
    content = row.get("bytes")
    return row.get("path") if content is None else content


def column_of(X: Any) -> DatasetColumn | None:
    """Return the rows of an object of the ``datasets`` library, None of any other."""
    if type(X).__module__.partition(".")[0] != "datasets":
        return None
    kind = type(X).__name__
    if kind == "Column":
        if type(X.source).__name__ != "Dataset":
            return DatasetColumn(X, None)
        return _of_dataset(X.source, X.column_name)
    if kind == "Dataset":
        if len(X.column_names) == 1:
            return _of_dataset(X, X.column_names[0])
        raise ValueError(
            f"X is a data set of {len(X.column_names)} columns, {X.column_names}, and "
            'one column of images is needed. Pick it: X["image"].'
        )
    hint = (
        f' Pick one split and column: X["{next(iter(X))}"]["image"].'
        if isinstance(X, dict) and X
        else " Make it a list of images, of the first rows perhaps: list(X.take(100))."
    )
    raise TypeError(f"X must be a column of a data set, got {kind}.{hint}")


def _of_dataset(dataset: Any, name: str) -> DatasetColumn:
    if dataset.format["type"] == "custom":
        # Its own transform makes the images, from other columns perhaps.
        return DatasetColumn(dataset, name)
    feature = dataset.features[name]
    dataset = dataset.select_columns([name])
    if type(feature).__name__ == "Image":
        # The bytes of the files: 16 bits, DICOM and all that Pillow would change.
        undecoded = type(feature)(decode=False)
        return DatasetColumn(
            dataset.with_format(None).cast_column(name, undecoded), name
        )
    kind = type(feature).__name__
    if kind == "Value" and feature.dtype in _PLAIN:
        return DatasetColumn(dataset.with_format(None), name)
    if isinstance(feature, dict) and feature.keys() == {"bytes", "path"}:
        return DatasetColumn(dataset.with_format(None), name)
    if kind in _ARRAYS and _number_type(feature).startswith(("int", "uint", "float")):
        # Its own type, where the library's choice would be int64.
        as_arrays = dataset.with_format("numpy", dtype=np.dtype(_number_type(feature)))
        return DatasetColumn(as_arrays, name)
    raise TypeError(
        f"X is a column of {getattr(feature, 'dtype', kind)} values, and images are "
        'needed: a column of images, of paths or of bytes. Pick another: X["image"].'
    )


def _number_type(feature: Any) -> str:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return str(feature.dtype)
