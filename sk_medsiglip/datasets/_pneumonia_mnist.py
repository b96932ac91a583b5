"""Fetch PneumoniaMNIST: small real chest X-rays of children."""

from __future__ import annotations

import os
import zipfile
from os import PathLike
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sk_medsiglip.datasets._download import data_folder, download, md5_of
from sk_medsiglip.exceptions import DatasetError

__all__ = ["fetch_pneumonia_mnist"]

FILE = "pneumoniamnist.npz"
# The record of MedMNIST v2 and the checksum that its authors publish.
URL = "https://zenodo.org/records/10519652/files/pneumoniamnist.npz?download=1"
MD5 = "28209eda62fecd6e6a2d98b1501bb15f"
SUBSETS = ("train", "val", "test")
SIDE = 28

_DESCR = """\
PneumoniaMNIST
--------------

Chest X-rays of children, 28 x 28 pixels, 0 normal and 1 pneumonia: the set of Kermany
et al. (Cell, 2018) as prepared for MedMNIST v2 (Yang et al., Scientific Data, 2023).
Licence CC BY 4.0: name the source wherever you show it or a figure from it.
For trying out software; not for clinical use.

:Source: https://zenodo.org/records/10519652
:Subset: {subset}, {n_images} images, {n_positive} with pneumonia
:File: {provenance}
"""

_OFFICIAL = "the official one (its checksum agrees)"
_OTHER = "not the official one (its checksum differs); it was in data_home already"


def fetch_pneumonia_mnist(
    data_home: str | PathLike[str] | None = None,
    download_if_missing: bool = True,
    *,
    subset: str = "train",
    return_X_y: bool = False,
    n_retries: int = 3,
    delay: float = 1.0,
    verbose: int = 0,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load PneumoniaMNIST, downloading it once (4 MB).

    Real chest X-rays of children with the label pneumonia or normal, under CC BY 4.0.
    The file comes from the official record of MedMNIST v2 and is checked against the
    published checksum.

    Parameters
    ----------
    data_home : str, path-like or None, default=None
        Folder that holds, or will hold, ``pneumoniamnist.npz``. None takes the
        environment variable ``SK_MEDSIGLIP_DATA``, else a per-user data folder. A
        file that is there already is used if it has the right arrays, also when it
        is not the official one; ``DESCR`` says which.
    download_if_missing : bool, default=True
        If False, a missing file is an error instead of a download.
    subset : {"train", "val", "test", "all"}, default="train"
        The official split. ``"all"`` joins them in this order. Copies of one picture
        may be both in train and in val.
    return_X_y : bool, default=False
        Whether to return ``(images, target)`` instead of the bunch.
    n_retries : int, default=3
        How often to try again after a failed download.
    delay : float, default=1.0
        Seconds between tries.
    verbose : int, default=0
        A progress bar if positive.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        With the entries

        images : ndarray of shape (n_samples, 28, 28) and dtype uint8
            Grey.
        target : ndarray of shape (n_samples,)
            0 normal, 1 pneumonia.
        target_names : list of str
            ``["normal", "pneumonia"]``.
        subset : ndarray of shape (n_samples,)
            The official split that each image belongs to.
        DESCR : str
            Source, licence, and whether the file is the official one.

    Raises
    ------
    DatasetError
        If the file is missing and may not be or could not be downloaded, or if it
        is damaged.

    Notes
    -----
    ``SK_MEDSIGLIP_PNEUMONIA_MNIST_URL`` in the environment names a mirror; what comes
    from there must have the published checksum too.

    References
    ----------
    J. Yang et al. MedMNIST v2. Scientific Data 10, 41 (2023).
    D. Kermany et al. Cell 172(5), 1122-1131 (2018).

    Examples
    --------
    >>> from sk_medsiglip.datasets import fetch_pneumonia_mnist
    >>> bunch = fetch_pneumonia_mnist(subset="test")  # doctest: +SKIP
    >>> bunch.images.shape  # doctest: +SKIP
    (624, 28, 28)
    """
    if subset not in (*SUBSETS, "all"):
        raise ValueError(f"subset must be one of {[*SUBSETS, 'all']}, got {subset!r}.")
    path = data_folder(data_home) / FILE
    if not path.exists():
        if not download_if_missing:
            raise DatasetError(
                f"{FILE} is not in {path.parent}. Call fetch_pneumonia_mnist with "
                "download_if_missing=True, or put the file there yourself from "
                f"{URL}"
            )
        url = os.environ.get("SK_MEDSIGLIP_PNEUMONIA_MNIST_URL") or URL
        download(
            "PneumoniaMNIST",
            url,
            path,
            MD5,
            n_retries=n_retries,
            delay=delay,
            verbose=verbose,
        )
    images, target, parts = _read(path, SUBSETS if subset == "all" else (subset,))
    if return_X_y:
        return images, target
    official = md5_of(path) == MD5
    return Bunch(
        images=images,
        target=target,
        target_names=["normal", "pneumonia"],
        subset=parts,
        DESCR=_DESCR.format(
            subset=subset,
            n_images=len(images),
            n_positive=int(target.sum()),
            provenance=_OFFICIAL if official else _OTHER,
        ),
    )


def _read(
    path: Path, subsets: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    images, target, parts = [], [], []
    try:
        # Opened here: numpy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in subsets:
                images.append(arrays[f"{name}_images"])
                target.append(arrays[f"{name}_labels"].reshape(-1).astype(np.int64))
                parts.append(np.full(len(images[-1]), name))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, f"it cannot be read ({error})") from error
    for pictures, labels in zip(images, target, strict=True):
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (SIDE, SIDE):
            shape = f"{pictures.dtype} {pictures.shape}"
            raise _damaged(path, f"images are {shape}, expected uint8 (n, 28, 28)")
        if len(labels) != len(pictures) or not np.isin(labels, (0, 1)).all():
            raise _damaged(path, "labels are not one 0 or 1 an image")
    return np.concatenate(images), np.concatenate(target), np.concatenate(parts)


def _damaged(path: Path, reason: str) -> DatasetError:
    return DatasetError(
        f"{path} is not the PneumoniaMNIST file: {reason}. Delete it and call "
        "fetch_pneumonia_mnist again to download it."
    )
