"""Decisions, probabilities and classes from logits, in the shapes of scikit-learn.

Logits have one column for two exclusive classes, else one for each class or label.
``classes`` is sorted, ``(n_classes,)``, or ``(n_labels, 2)`` for several labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, softmax


def decision(
    logits: NDArray[np.floating], classes: NDArray[Any]
) -> NDArray[np.floating]:
    """Return ``(n_samples,)`` for two classes, else the logits."""
    return logits[:, 0] if _is_binary(classes) else logits


def probabilities(
    logits: NDArray[np.floating], classes: NDArray[Any]
) -> NDArray[np.floating]:
    """Return ``(n_samples, n_classes)``, or the probability of each of several labels.

    For two classes both are computed, so that neither loses digits near 0.
    """
    if classes.ndim == 2:
        return expit(logits)
    return expit(_both(logits)) if _is_binary(classes) else softmax(logits, axis=1)


def log_probabilities(
    logits: NDArray[np.floating], classes: NDArray[Any]
) -> NDArray[np.floating]:
    """Return the logarithms of the probabilities, exact even if these underflow."""
    if classes.ndim == 2:
        return log_expit(logits)
    if _is_binary(classes):
        return log_expit(_both(logits))
    return log_softmax(logits, axis=1)


def likeliest(logits: NDArray[np.floating], classes: NDArray[Any]) -> NDArray[Any]:
    """Return the most likely class, or 1 for each label likelier than not."""
    if classes.ndim == 2:
        return (logits > 0).astype(int)
    if _is_binary(classes):
        return classes[(logits[:, 0] > 0).astype(int)]
    return classes[logits.argmax(axis=1)]


def _is_binary(classes: NDArray[Any]) -> bool:
    return classes.ndim == 1 and len(classes) == 2


def _both(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return logits of both classes, from those of the second."""
    return np.column_stack([-logits[:, 0], logits[:, 0]])
