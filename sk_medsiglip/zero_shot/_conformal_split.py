"""Split of patients into those for training and those for calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_random_state, get_tags

from sk_medsiglip._dealing import deal_groups


def learns(estimator: Any) -> bool:
    """Tell whether ``fit`` learns anything from its data."""
    if isinstance(estimator, FrozenEstimator):
        return False
    if isinstance(estimator, Pipeline):
        *before, last = [step for _, step in estimator.steps]
        return learns(last) or any(map(_adapts, before))
    return (
        bool(get_tags(estimator).target_tags.required)
        # Zero-shot classifiers with calibration learn, at least from images.
        or getattr(estimator, "calibrate", None) is not None
        # Searches and other meta-estimators may learn, whatever they hold.
        or hasattr(estimator, "estimator")
    )


def split_patients(
    target: NDArray[Any],
    patients: NDArray[np.intp],
    calibration_size: float,
    random_state: int | np.random.RandomState | None,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return training rows, and calibration rows of other patients.

    Both have their share of every class, or of every finding present and absent.
    """
    who, member = np.unique(patients, return_inverse=True)
    kinds = _kinds(target)
    has = np.zeros((len(who), kinds.shape[1]), dtype=bool)
    np.logical_or.at(has, member, kinds)
    shares = np.array([1 - calibration_size, calibration_size])
    counts = np.column_stack([np.ones(len(who)), has])
    random = check_random_state(random_state)
    calibrates = deal_groups(counts, shares, random, at_random=True) == 1
    # The only patient of a class is for training, or the class could not be predicted.
    calibrates[has[:, has.sum(axis=0) == 1].any(axis=1)] = False
    chosen = calibrates[member]
    if not chosen.any():
        raise ValueError(
            f"{len(target)} sample(s) of {len(who)} patient(s) are too few to train "
            "the estimator on some patients and calibrate with others."
        )
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def take(X: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows of any input of a classifier."""
    if scipy.sparse.issparse(X):
        X = X.tocsr()
    elif not hasattr(X, "__getitem__"):
        X = np.asarray(X)
    return _safe_indexing(X, rows)


def _adapts(step: Any) -> bool:
    """Tell whether a transformer learns anything from its data."""
    if step in (None, "passthrough") or isinstance(step, FrozenEstimator):
        return False
    return bool(get_tags(step).requires_fit)


def _kinds(target: NDArray[Any]) -> NDArray[np.bool_]:
    """Return a mask of the class of each image, or of its findings and absences."""
    if target.ndim == 2:
        return np.hstack([target == 1, target == 0])
    classes, index = np.unique(target, return_inverse=True)
    return index[:, None] == np.arange(len(classes))
