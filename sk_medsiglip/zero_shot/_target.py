"""Labels in the shape that a question of prompts asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length

from sk_medsiglip._labels import Labels, check_indicator, check_labels
from sk_medsiglip.prompts import Question, check_columns

__all__ = ["check_target"]


def check_target(asker: Any, X: ArrayLike, y: Any, question: Question) -> Labels:
    """Check labels against the classes or findings of prompts.

    Parameters
    ----------
    asker : object
        Whose class the message names if there is no ``y``.
    X : array-like of shape (n_samples, n_features)
        What the labels belong to.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Names of classes; 0 and 1 for findings, NaN where one is not known. May be
        sparse.
    question : Question
        What the prompts ask.

    Returns
    -------
    Labels

    Raises
    ------
    ValueError
        If shape, values, or the order of named columns do not fit.
    """
    names = question.labels
    if scipy.sparse.issparse(y):
        y = y.toarray()
    shape = np.asarray(y).shape
    if not (question.is_pairs and len(names) > 1):
        classes = np.array([0, 1]) if question.is_pairs else names
        if np.prod(shape[1:]) > 1:
            raise ValueError(
                f"y has shape {shape}; with these prompts it must be (n_samples,), one "
                "label a sample."
            )
        if question.is_pairs and y is not None and pd.isna(np.asarray(y)).any():
            check_consistent_length(X, y)
            column = np.asarray(y).reshape(len(shape) and shape[0], 1)
            return Labels(None, check_indicator(column))
        return check_labels(asker, X, y, classes)
    if y is not None and shape[1:] != (len(names),):
        raise ValueError(
            f"y has shape {shape}; with {len(names)} findings it must be (n_samples, "
            f"{len(names)}), columns in the order {names.tolist()}."
        )
    labels = check_labels(asker, X, y, unlabelled=True)
    check_columns(y, names)
    return labels
