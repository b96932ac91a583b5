"""The check of embeddings, the ``X`` of all estimators that do not read images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

_FOR_IMAGES = (
    "X must be embeddings. For images put a MedSigLIPEmbedder before the classifier "
    "in a pipeline, or use make_zero_shot_pipeline."
)


def check_embeddings(
    estimator: Any, X: Any, *, reset: bool = True
) -> NDArray[np.floating]:
    """Return embeddings as a matrix of floats, checked by ``validate_data``.

    The error for images names the remedy. ``reset`` is True in ``fit``, where columns
    and their names are recorded.
    """
    types = [np.float64, np.float32]
    try:
        # The last digits of a sum depend on the order in memory.
        return validate_data(estimator, X, dtype=types, order="C", reset=reset)
    except (TypeError, ValueError) as error:
        if is_matrix(X):
            raise
        raise type(error)(f"{error}\n{_FOR_IMAGES}") from None


def is_matrix(X: Any) -> bool:
    """Return whether ``X`` is a matrix of numbers, which images are not."""
    if getattr(X, "ndim", 2) != 2:  # images, which may have to be read from disk
        return False
    given = np.asarray(X[:1] if isinstance(X, list | tuple) else X)
    return given.ndim == 2 and given.dtype.kind in "biufc"
