"""Bags: several vectors of one thing, such as the parts of an image.

An array of bags is ``(n_samples, n_instances, width)``. Short bags are padded with rows
of NaN: an instance whose values are all NaN is not there. The array may be lazy, which
is anything with such a ``shape``, a ``dtype``, a length, and slices that NumPy reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

#: Values of one piece that is read at a time: 64 MB of float32.
_PIECE = 2**24


def is_bags(X: Any) -> bool:
    """Tell bags from rows, and from a stack of grey images, which are whole numbers."""
    floats = getattr(getattr(X, "dtype", None), "kind", "") == "f"
    return floats and len(getattr(X, "shape", ())) == 3


def check_bags(
    X: Any, *, width: int | None = None, estimator: Any = None, values: bool = True
) -> Any:
    """Return bags as an array of three axes, without copying an array or a lazy one.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_instances, width)
        Bags; an instance of NaN alone is not there.
    width : int, default=None
        Width that is expected. By default, any.
    estimator : estimator or str, default=None
        Named by the messages.
    values : bool, default=True
        Whether to read all of ``X`` once to check its values. A caller that reads it
        by :func:`iter_bags` anyway, which checks them too, passes False.

    Returns
    -------
    array-like of shape (n_samples, n_instances, width)
        ``X`` itself where it has a shape, else an ndarray.

    Raises
    ------
    TypeError
        If ``X`` is sparse.
    ValueError
        If ``X`` has other than three axes, an empty one, another width, or values that
        are not numbers; and as in :func:`iter_bags`.
    """
    name = _name(estimator)
    if scipy.sparse.issparse(X):
        raise TypeError(
            f"{name} takes bags in dense arrays; got a sparse one. Use X.toarray()."
        )
    bags = X if hasattr(X, "shape") and hasattr(X, "dtype") else _as_array(X, name)
    shape = tuple(bags.shape)
    if len(shape) == 2:
        raise ValueError(
            f"{name} takes bags, (n_samples, n_instances, width); got shape "
            f"{shape}, one row a sample. Use LinearProbe for rows, or make bags of one "
            "instance by X[:, None]. Reshape your data if it holds flattened bags."
        )
    if len(shape) != 3:
        raise ValueError(
            f"{name} takes bags, (n_samples, n_instances, width); got shape "
            f"{shape}. Images become bags by MedSigLIPPatchEmbedder, and studies by "
            "MedSigLIPVolumeEmbedder(pooling=None)."
        )
    if not all(shape):
        raise ValueError(
            f"Found array with {shape[0]} sample(s), {shape[1]} instance(s) and "
            f"{shape[2]} feature(s) (shape={shape}) while a minimum of 1 is required "
            f"by {name}."
        )
    if getattr(bags.dtype, "kind", "f") not in "biuf":
        raise ValueError(f"{name} takes bags of real numbers; got {bags.dtype}.")
    if width is not None and shape[2] != width:
        raise ValueError(
            f"X has {shape[2]} features, but {name} is expecting {width} features as "
            "input. These bags come from other weights: embed them with the model "
            "that made those of fit."
        )
    if values:
        for _ in iter_bags(bags, _bags_a_piece(bags)):
            pass
    return bags


def bag_means(X: Any) -> NDArray[np.float32]:
    """Return the mean of the instances of each bag, so that bags compare as rows do.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_instances, width)
        Bags as :func:`check_bags` returns them, read piece by piece.

    Returns
    -------
    ndarray of shape (n_samples, width), float32

    Raises
    ------
    ValueError
        As in :func:`iter_bags`.
    """
    means = np.empty((len(X), X.shape[2]), np.float32)
    for rows, block, present in iter_bags(X, _bags_a_piece(X)):
        means[rows] = block.sum(axis=1) / present.sum(axis=1, keepdims=True)
    return means


def iter_bags(
    X: Any, batch: int
) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.bool_]]]:
    """Read bags piece by piece, and check their values.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_instances, width)
        Bags as :func:`check_bags` returns them. Only slices of the first axis are
        taken, so a lazy or memory-mapped array is read once.
    batch : int
        Number of bags in a piece.

    Yields
    ------
    rows : slice
        The place of the piece in ``X``.
    block : ndarray of shape (n, n_instances, width), float32
        The bags, zeros where there is no instance. It may be a part of ``X``: do not
        write to it.
    present : ndarray of shape (n, n_instances), bool
        Which instances are there.

    Raises
    ------
    ValueError
        If a bag holds no instance, or an instance holds NaN in part, or infinity.
    """
    for start in range(0, len(X), batch):
        rows = slice(start, min(start + batch, len(X)))
        with np.errstate(over="ignore"):  # too large for float32: refused below
            block = np.asarray(X[rows]).astype(np.float32, copy=False)
        block, present = _without_padding(block, start)
        yield rows, block, present


def _without_padding(
    block: NDArray[np.float32], start: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return bags with zeros for missing instances, and which are there."""
    with np.errstate(over="ignore", invalid="ignore"):
        # One number an instance tells whether its values need a look: cheap where
        # all is well.
        present = np.isfinite(block.sum(axis=2))
    if present.all():
        return block, present
    bag, instance = np.nonzero(~present)
    suspects = block[bag, instance]
    missing = np.isnan(suspects).all(axis=1)
    broken = ~(missing | np.isfinite(suspects).all(axis=1))
    if broken.any():
        first = broken.argmax()
        raise ValueError(
            f"bag {start + bag[first]}, instance {instance[first]} of X contains NaN "
            "in part, or infinity. An instance that is not there is NaN in all of its "
            "values; others must be finite."
        )
    present[bag, instance] = ~missing
    empty = np.flatnonzero(~present.any(axis=1))
    if empty.size:
        shown = ", ".join(map(str, (start + empty[:5]).tolist()))
        raise ValueError(
            f"Input X contains NaN: bags without an instance, in rows {shown}"
            f"{', ...' if empty.size > 5 else ''}. Leave these rows out."
        )
    if missing.any():
        block = np.where(present[:, :, None], block, np.float32(0))
    return block, present


def _bags_a_piece(X: Any) -> int:
    return max(1, _PIECE // (X.shape[1] * X.shape[2]))


def _as_array(X: Any, name: str) -> NDArray[Any]:
    """Return an array of nested lists, or say that bags differ in length."""
    try:
        return np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"{name} takes bags of one length; pad short ones with rows of NaN "
            f"({error})."
        ) from error


def _name(estimator: Any) -> str:
    if estimator is None or isinstance(estimator, str):
        return estimator or "This estimator"
    return getattr(estimator, "__name__", type(estimator).__name__)
