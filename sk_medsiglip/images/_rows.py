"""The containers accepted as ``X``, and the images in them, one per row."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from sk_medsiglip.images._region import Region

_FORMS = (
    "X must be a list, tuple, array, pandas Series or one-column DataFrame with one "
    "image per row"
)

_CHANNELS = (1, 3, 4)

#: Columns of a DataFrame of regions; the level is optional.
_BOX = ("x", "y", "width", "height")
_LEVEL = "level"

#: Features whose rows are sources: paths, URLs, the bytes of files.
_PLAIN = ("string", "large_string", "binary", "large_binary")

#: Features whose rows are pixels.
_ARRAYS = ("Array2D", "Array3D", "List", "LargeList", "Sequence")

#: Columns of pandas; the last is the type of ``Series.array``.
_COLUMNS = (pd.Series, pd.Index, pd.api.extensions.ExtensionArray)


def image_rows(X: Any) -> Sequence[Any]:
    """Return the images of ``X``, one per row.

    Parameters
    ----------
    X : sequence
        A list, tuple or other sequence, an object or string array of shape (n,) or
        (n, 1), an array of pandas or pyarrow, a pandas or polars Series or one-column
        DataFrame, a DataFrame of regions (one column of images, and ``x``, ``y``,
        ``width``, ``height``), a column of a Hugging Face data set, or a numeric array
        of shape (n, H, W), (n, H, W, 1), (n, H, W, 3) or (n, H, W, 4).

    Returns
    -------
    list or DatasetColumn
        Sources for ``read_image``, which are not checked here. Those of a data set are
        fetched when they are indexed.

    Raises
    ------
    TypeError
        If ``X`` is another container.
    ValueError
        If it is empty, a single image, or of another shape.
    """
    rows = _rows_of(X)
    if not len(rows):
        raise ValueError(
            "Found array with 0 sample(s) while a minimum of 1 is required: X is empty."
        )
    return rows


def _rows_of(X: Any) -> Sequence[Any]:
    column = column_of(X)
    if column is not None:
        return column
    if isinstance(X, str | os.PathLike | bytes | bytearray | Image.Image):
        raise TypeError(
            f"{_FORMS}, got a single {type(X).__name__}. Reshape it into a list: [X]."
        )
    if isinstance(X, np.ndarray):
        return _array_rows(X)
    if isinstance(X, pd.DataFrame) or _is_polars(X, "DataFrame"):
        return _frame_rows(X)
    if isinstance(X, _COLUMNS) or _is_polars(X, "Series"):
        return [encoded_image(row) for row in X]
    if hasattr(X, "to_pylist") and not hasattr(X, "column_names"):  # of pyarrow
        return [encoded_image(row) for row in X.to_pylist()]
    if isinstance(X, DatasetColumn):  # already rows
        return X
    if isinstance(X, Sequence) and not isinstance(X, range):
        return [encoded_image(row) for row in X]
    raise TypeError(f"{_FORMS}, got {type(X).__name__}.{_mend(X)}")


def _mend(X: Any) -> str:
    if type(X).__module__ == "torch" and type(X).__name__ == "Tensor":
        return (
            " A tensor of images with the channels first, (n, C, H, W), is "
            "X.permute(0, 2, 3, 1).cpu().numpy()."
        )
    if hasattr(X, "read"):
        return " An open file is one image: [X]."
    if isinstance(X, Iterator):
        return " Make it a list: list(X)."
    if isinstance(X, Set):
        return " A set has no order: sorted(X)."
    if isinstance(X, Mapping):
        return " Its values as a list: list(X.values())."
    if hasattr(X, "toarray"):
        return " A sparse matrix holds no images."
    if hasattr(X, "__array__"):
        return " Make it an array: np.asarray(X)."
    return ""


def _is_polars(X: Any, name: str) -> bool:
    return type(X).__module__.startswith("polars.") and type(X).__name__ == name


def _frame_rows(X: Any) -> list[Any]:
    names = list(X.columns)
    if set(_BOX) & set(names) and len(names) > 1:
        return _region_rows(X, names)
    if len(names) != 1:
        raise ValueError(
            f"X is a DataFrame of {len(names)} columns, {names}, but one column of "
            f"images is needed. Select it, X[[{names[0] if names else 'path'!r}]], or "
            "put the embedder into a ColumnTransformer with that column."
        )
    return [encoded_image(row) for row in X[names[0]]]


def _region_rows(X: Any, names: list[Any]) -> list[Any]:
    """Return a region per row; its numbers are checked when it is read."""
    missing = [name for name in _BOX if name not in names]
    if missing:
        raise ValueError(
            f"X is a DataFrame with the columns {names}. Regions need "
            f"{', '.join(_BOX)}, of which {', '.join(missing)} is missing."
        )
    if len(set(names)) != len(names):
        raise ValueError(f"X is a DataFrame with duplicate column names: {names}.")
    others = [name for name in names if name not in (*_BOX, _LEVEL)]
    if len(others) != 1:
        raise ValueError(
            f"X is a DataFrame of regions ({', '.join(_BOX)}) and must have one more "
            f"column, the images; it has {len(others)}: {others}. Select the columns: "
            'X[["path", "x", "y", "width", "height"]].'
        )
    images = (encoded_image(row) for row in X[others[0]])
    boxes = [list(X[name]) for name in _BOX]
    levels = list(X[_LEVEL]) if _LEVEL in names else [0] * len(boxes[0])
    return [Region(*numbers) for numbers in zip(images, *boxes, levels, strict=True)]


def _array_rows(X: NDArray[Any]) -> list[Any]:
    shape = X.shape
    if X.dtype.kind in "OUT":
        if X.ndim == 2 and shape[1] == 1:
            X = X[:, 0]
        if X.ndim != 1:
            raise ValueError(
                f"X is an array of objects of shape {shape}, but (n_samples,) is "
                "needed. If its items are pixels, convert it: X.astype(np.uint8)."
            )
        return [encoded_image(row) for row in X]
    if X.dtype.kind not in "biufc":
        raise TypeError(f"{_FORMS}, got an array of type {X.dtype}.")
    if X.ndim == 3 and shape[2] in _CHANNELS:
        raise ValueError(
            f"X is an array of shape {shape}: one colour image, or {shape[0]} grey "
            f"images of {shape[2]} columns? Pass one image as X[None]."
        )
    if X.ndim == 4 and shape[3] not in _CHANNELS:
        channels_first = shape[1] in _CHANNELS
        raise ValueError(
            f"X is an array of shape {shape}, but its last axis, the channels, must "
            "have length 1, 3 or 4."
            + (" Move it there: np.moveaxis(X, 1, -1)." if channels_first else "")
        )
    if X.ndim == 2:
        raise ValueError(
            f"X is a numeric array of shape {shape}: this looks like embeddings or "
            "other features, not like images. Pass them to the head without the "
            "embedder; one grey image is X[None]."
        )
    if X.ndim not in (3, 4):
        raise ValueError(
            f"X is a numeric array of shape {shape}; images are (n, H, W) or "
            "(n, H, W, channels)."
        )
    return list(X)


def study_rows(X: Any) -> Sequence[Any]:
    """Return the studies of ``X``, one per row.

    Parameters
    ----------
    X : sequence
        As for ``image_rows``, with studies in place of images; or a numeric array of
        shape (n, n_slices, H, W) or (n, n_slices, H, W, channels).

    Returns
    -------
    sequence
        Items for ``open_study``, which are not checked here.

    Raises
    ------
    TypeError
        If ``X`` is another container.
    ValueError
        If it is empty or a single volume.
    """
    if not isinstance(X, np.ndarray) or X.dtype.kind not in "biufc" or not X.size:
        return image_rows(X)
    is_colour = X.ndim > 3 and X.shape[-1] in _CHANNELS
    if X.ndim == 3 or (X.ndim == 4 and is_colour):
        raise ValueError(
            f"X is an array of shape {X.shape}: one volume of {X.shape[0]} slices, or "
            f"{X.shape[0]} studies of one image? Pass one volume as X[None], studies "
            "of one image as list(X)."
        )
    if X.ndim == 4 or (X.ndim == 5 and is_colour):
        return list(X)
    return image_rows(X)


# ------------------------------------------------------------ Hugging Face data sets

# The ``datasets`` library is not imported here: its objects exist only if it is loaded.


class DatasetColumn(Sequence[Any]):
    """Images of one column, fetched row by row; thread-safe."""

    def __init__(self, rows: Any, name: str | None) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} is out of range for {len(self)} rows")
        row = self._rows[int(index)]
        return encoded_image(row if self._name is None else row[self._name])


def encoded_image(row: Any) -> Any:
    """Return the content of an undecoded ``{"bytes": ..., "path": ...}``, else row."""
    if not isinstance(row, dict) or not row or not row.keys() <= {"bytes", "path"}:
        return row
    content = row.get("bytes")
    return row.get("path") if content is None else content


def column_of(X: Any) -> DatasetColumn | None:
    """Return the rows of an object of the ``datasets`` library, else None."""
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
            f"X is a data set of {len(X.column_names)} columns, {X.column_names}, but "
            'one column of images is needed. Select it: X["image"].'
        )
    hint = (
        f' Select one split and column: X["{next(iter(X))}"]["image"].'
        if isinstance(X, dict) and X
        else " Pass a list of images, for example list(X.take(100))."
    )
    raise TypeError(f"X must be a column of a data set, got {kind}.{hint}")


def _of_dataset(dataset: Any, name: str) -> DatasetColumn:
    if dataset.format["type"] == "custom":
        # A custom transform makes the images, possibly from other columns.
        return DatasetColumn(dataset, name)
    feature = dataset.features[name]
    dataset = dataset.select_columns([name])
    if type(feature).__name__ == "Image":
        # Take the bytes of the files, since Pillow would lose 16 bits and DICOM.
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
        # Keep the stored type; the library would choose int64.
        as_arrays = dataset.with_format("numpy", dtype=np.dtype(_number_type(feature)))
        return DatasetColumn(as_arrays, name)
    raise TypeError(
        f"X is a column of {getattr(feature, 'dtype', kind)} values, but a column of "
        'images, paths or bytes is needed. Select another: X["image"].'
    )


def _number_type(feature: Any) -> str:
    while hasattr(feature, "feature"):
        feature = feature.feature
    return str(feature.dtype)
