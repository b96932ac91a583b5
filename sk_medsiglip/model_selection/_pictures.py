"""Pictures that are the same, and images that are nearly the same."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length, gen_batches

from sk_medsiglip._bags import bag_means, is_bags
from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.embedding import MedSigLIPEmbedder, plain_rows
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import image_fingerprint, image_rows, read_resized

#: Side in pixels at which pictures are compared without an embedder.
_SIZE = 448
#: Rows of the test and of the training side in one product: 16 MB of float32.
_TEST_BLOCK, _TRAIN_BLOCK = 1024, 4096
Rows = NDArray[np.intp]


class NearCopy(NamedTuple):
    """A test row, its nearest copy in training, and how many reach the threshold."""

    train_row: int
    test_row: int
    n_train: int
    cosine: float


def read_pictures(
    X: Any,
    *,
    embeddings: ArrayLike | None = None,
    embedder: Any = None,
    n_jobs: int | None = None,
) -> tuple[Rows, NDArray[np.float32] | None]:
    """Return numbers of the pictures, equal for equal images, and unit vectors.

    Parameters
    ----------
    X : collection of images, or array-like of shape (n_samples, n_features)
        Images as :class:`~sk_medsiglip.MedSigLIPEmbedder` takes them, or their
        embeddings, or bags of these.
    embeddings : array-like of shape (n_samples, n_features), default=None
        Embeddings of the images in ``X``.
    embedder : MedSigLIPEmbedder, str or None, default=None
        Embedder of the images in ``X``, or the name of its model. Pictures are then
        compared as it reads them.
    n_jobs : int or None, default=None
        Number of threads that read images.

    Returns
    -------
    pictures : ndarray of shape (n_samples,)
        Number of each image's picture; -1 for a row of embeddings with NaN.
    vectors : ndarray of shape (n_samples, n_features) or None
        Embeddings scaled to unit length; rows with NaN have zeros in place of NaN. None
        for images alone.

    Raises
    ------
    ValueError
        If ``X`` holds embeddings and others are passed too, or lengths differ.
    ImageReadError
        If an image cannot be read. The message names its row.

    See Also
    --------
    check_leakage : Pictures on both sides of a split.
    """
    images, vectors = _read_X(X, embeddings, embedder, n_jobs)
    pictures = _number_rows(vectors) if images is None else _fingerprint(images, n_jobs)
    return pictures, None if vectors is None else np.nan_to_num(vectors)


def find_near_copies(
    vectors: NDArray[np.float32],
    pictures: Rows,
    train: Rows,
    test: Rows,
    threshold: float,
) -> list[NearCopy]:
    """Return the test rows that have a near copy in training, the nearest first.

    Parameters
    ----------
    vectors : ndarray of shape (n_samples, n_features)
        Rows scaled to unit length; rows that are skipped are all zeros.
    pictures : ndarray of shape (n_samples,)
        Numbers of the pictures. Rows of one number are not compared.
    train, test : ndarray of int
        Rows of the two sides, which may overlap.
    threshold : float
        Cosine from which two rows are nearly the same.

    Returns
    -------
    list of NearCopy
        For each test row with a near copy ``(train_row, test_row, n_train, cosine)``:
        its nearest training row, and the number of training rows that reach the
        threshold.

    See Also
    --------
    read_pictures : Return the numbers of the pictures, and the vectors.
    """
    findings = []
    for part in gen_batches(len(test), _TEST_BLOCK):
        block = test[part]
        best = np.full(len(block), -np.inf)
        nearest = np.zeros(len(block), np.intp)
        n_near = np.zeros(len(block), np.intp)
        for other_part in gen_batches(len(train), _TRAIN_BLOCK):
            others = train[other_part]
            cosines = vectors[block] @ vectors[others].T
            i, j = np.nonzero(cosines >= threshold)
            apart = pictures[block[i]] != pictures[others[j]]
            i, j = i[apart], j[apart]
            if not i.size:
                continue
            n_near += np.bincount(i, minlength=len(block))
            # The highest of each test row comes last, and overwrites the others.
            order = np.argsort(cosines[i, j], kind="stable")
            here, where = np.full(len(block), -np.inf), np.zeros(len(block), np.intp)
            here[i[order]] = cosines[i, j][order]
            where[i[order]] = others[j[order]]
            nearer = here > best
            best[nearer], nearest[nearer] = here[nearer], where[nearer]
        for row in np.flatnonzero(n_near):
            cosine = min(1.0, float(best[row]))
            findings.append(
                NearCopy(int(nearest[row]), int(block[row]), int(n_near[row]), cosine)
            )
    return sorted(findings, key=lambda one: (-one.cosine, one.test_row))


def _read_X(
    X: Any, embeddings: Any, embedder: Any, n_jobs: int | None
) -> tuple[Any, NDArray[np.float32] | None]:
    """Return images to fingerprint, or None, and unit vectors, or None."""
    if is_bags(X):
        X = bag_means(X)
    if is_matrix(X):
        if embeddings is not None or embedder is not None:
            raise ValueError(
                "X holds embeddings already: leave out embeddings and embedder, or "
                "pass images as X."
            )
        return None, _unit(X)
    if embeddings is not None and embedder is not None:
        raise ValueError("Pass embeddings or an embedder, not both.")
    images = image_rows(X)
    if embedder is not None:
        if isinstance(embedder, str | os.PathLike):
            embedder = MedSigLIPEmbedder(embedder, n_jobs=n_jobs)
        # The same pixels are one row of an embedder, so its rows tell pictures apart.
        return None, _unit(plain_rows(embedder, images))
    if embeddings is None:
        return images, None
    vectors = _unit(embeddings)
    check_consistent_length(images, vectors)
    return images, vectors


def _unit(vectors: Any) -> NDArray[np.float32]:
    rows = np.array(vectors, dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(
            f"embeddings must be of shape (n_samples, n_features), got {rows.shape}."
        )
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(length > 0, length, 1)
    return rows


def _number_rows(vectors: Any) -> Rows:
    """Give equal vectors one number, and -1 to those with NaN."""
    contents = np.array([row.tobytes() for row in vectors], dtype=object)
    contents[~np.isfinite(vectors).all(axis=1)] = None
    return pd.factorize(contents)[0]


def _fingerprint(images: Any, n_jobs: int | None) -> Rows:
    """Give the same pictures one number."""

    def fingerprint(row: int) -> bytes:
        try:
            return image_fingerprint(read_resized(images[row], _SIZE))
        except ImageReadError as error:
            raise error.at_row(row) from error

    found = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(fingerprint)(row) for row in range(len(images))
    )
    return group_numbers(np.array(found, dtype=object))
