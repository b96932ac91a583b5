"""Fetch MedMNIST's flat sets: twelve kinds of medical pictures, labelled and split."""

from __future__ import annotations

import os
import zipfile
from os import PathLike
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from sk_medsiglip.datasets._download import data_folder, download, md5_of
from sk_medsiglip.datasets._medmnist_facts import MEDMNIST, SIZES, MedMNISTFacts
from sk_medsiglip.exceptions import DatasetError

__all__ = ["fetch_medmnist"]

#: Environment variable that names a mirror: a folder of the same files.
MIRROR = "SK_MEDSIGLIP_MEDMNIST_URL"
#: The files of the record that the authors of MedMNIST point to.
RECORD = "https://zenodo.org/records/10519652/files"
SPLITS = ("train", "val", "test")

_CITATION = "J. Yang et al. MedMNIST v2. Scientific Data 10, 41 (2023)."
_NOT_COMMERCIAL = "It forbids commercial use."
_DESCR = """\
{title}
{underline}

{shows}, {size} x {size} pixels; {task}.
{n_images} images of the official {split} split.
Licence {licence}: name the source wherever you show a picture or a figure. {terms}
For trying out software; not for clinical use. Which pictures are of one patient is not
published, so that a split of your own may put a patient on both sides.

:Cite: {citation}
:and: {source}
:Source: https://zenodo.org/records/10519652
:File: {provenance}
"""
_OFFICIAL = "the official one (its checksum agrees)"
_OTHER = "not the official one (its checksum differs); it was in data_home already"


def fetch_medmnist(
    name: str,
    size: int = 224,
    split: str = "train",
    data_home: str | PathLike[str] | None = None,
    download_if_missing: bool = True,
    *,
    return_X_y: bool = False,
    n_retries: int = 3,
    delay: float = 1.0,
    verbose: int = 0,
) -> Bunch | tuple[np.ndarray, np.ndarray]:
    """Load one of MedMNIST's twelve sets of flat pictures, downloading it once.

    Parameters
    ----------
    name : str
        "pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist",
        "retinamnist", "breastmnist", "bloodmnist", "tissuemnist", "organamnist",
        "organcmnist" or "organsmnist".
    size : {28, 64, 128, 224}, default=224
        Side in pixels. A file of size 224 has up to some 10 GB, and all pictures of a
        split are in memory at once: 150 kB each in colour, 50 kB in grey.
    split : {"train", "val", "test"}, default="train"
        The official one.
    data_home : str, path-like or None, default=None
        Folder that holds, or will hold, files such as ``pathmnist_224.npz``. None
        takes the environment variable ``SK_MEDSIGLIP_DATA``, else a per-user data
        folder. A file that is there already is used if it has the right arrays, also
        when it is not the official one; ``DESCR`` says which.
    download_if_missing : bool, default=True
        If False, a missing file is an error instead of a download.
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

        images : ndarray of shape (n_samples, size, size) or (n_samples, size, size, 3)
            uint8, grey or RGB.
        target : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Classes from 0; 0 and 1 for each of the 14 labels of "chestmnist".
        target_names : list of str
            Names of the classes, or of the labels.
        task : {"binary", "multiclass", "ordinal", "multilabel"}
            What kind of question its labels answer.
        split : str
            The official split that this is.
        licence, citation, source : str
            Under which terms it is, what to cite, and whom beside it.
        commercial_use : bool
            Whether the licence allows it: not that of "dermamnist", CC BY-NC 4.0.
        DESCR : str
            All that in words, and whether the file is the official one.

    Raises
    ------
    DatasetError
        If the file is missing and may not be or could not be downloaded, or if it is
        damaged.

    Notes
    -----
    Files come from the record that the authors name, and are checked against the
    checksums that they publish. ``SK_MEDSIGLIP_MEDMNIST_URL`` in the environment names
    a mirror, a folder of the same files, whose checksums must agree too.

    "dermamnist" was split by picture, and some lesions were photographed several times.

    References
    ----------
    J. Yang et al. MedMNIST v2. Scientific Data 10, 41 (2023).

    Examples
    --------
    >>> from sk_medsiglip.datasets import fetch_medmnist
    >>> bunch = fetch_medmnist("breastmnist", split="test")  # doctest: +SKIP
    >>> bunch.images.shape, bunch.target_names  # doctest: +SKIP
    ((156, 224, 224), ['malignant', 'normal, benign'])
    """
    for parameter, value, allowed in (
        ("name", name, tuple(MEDMNIST)),
        ("size", size, SIZES),
        ("split", split, SPLITS),
    ):
        if value not in allowed:
            raise ValueError(
                f"{parameter} must be one of {list(allowed)}, got {value!r}."
            )
    facts = MEDMNIST[name]
    file = f"{name}.npz" if size == 28 else f"{name}_{size}.npz"
    path = data_folder(data_home) / file
    md5 = facts.md5[SIZES.index(size)]
    if not path.exists():
        if not download_if_missing:
            raise DatasetError(
                f"{file} is not in {path.parent}. Call fetch_medmnist with "
                "download_if_missing=True, or put the file there yourself from "
                f"{RECORD}/{file}"
            )
        url = f"{(os.environ.get(MIRROR) or RECORD).rstrip('/')}/{file}"
        download(
            facts.title,
            url,
            path,
            md5,
            n_retries=n_retries,
            delay=delay,
            verbose=verbose,
        )
    images, target = _read(path, facts, size, split)
    if return_X_y:
        return images, target
    commercial = "-NC" not in facts.licence
    described = _DESCR.format(
        title=facts.title,
        underline="-" * len(facts.title),
        shows=facts.shows[0].upper() + facts.shows[1:],
        size=size,
        task=facts.task,
        n_images=len(images),
        split=split,
        licence=facts.licence,
        terms="" if commercial else _NOT_COMMERCIAL,
        citation=_CITATION,
        source=facts.source,
        provenance=_OFFICIAL if md5_of(path) == md5 else _OTHER,
    )
    return Bunch(
        images=images,
        target=target,
        target_names=list(facts.labels),
        task=facts.task,
        split=split,
        licence=facts.licence,
        commercial_use=commercial,
        citation=_CITATION,
        source=facts.source,
        DESCR=described,
    )


def _read(
    path: Path, facts: MedMNISTFacts, size: int, split: str
) -> tuple[np.ndarray, np.ndarray]:
    try:
        # Opened here: numpy leaves a file that it cannot read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels = arrays[f"{split}_images"], arrays[f"{split}_labels"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path, facts, f"it cannot be read ({error})") from error
    shape = (size, size) if facts.n_channels == 1 else (size, size, 3)
    if images.dtype != np.uint8 or images.shape[1:] != shape:
        raise _damaged(
            path,
            facts,
            f"images are {images.dtype} {images.shape}, expected uint8 {('n', *shape)}",
        )
    several = facts.task == "multilabel"
    n_columns, n_values = (len(facts.labels), 2) if several else (1, len(facts.labels))
    if (
        labels.shape != (len(images), n_columns)
        or not np.isin(labels, np.arange(n_values)).all()
    ):
        raise _damaged(
            path,
            facts,
            f"labels are not {n_columns} of 0 to {n_values - 1} for each of "
            f"{len(images)} images",
        )
    target = labels.astype(np.int64)
    return images, target if several else target[:, 0]


def _damaged(path: Path, facts: MedMNISTFacts, reason: str) -> DatasetError:
    return DatasetError(
        f"{path} is not the {facts.title} file: {reason}. Delete it and call "
        "fetch_medmnist again to download it."
    )
