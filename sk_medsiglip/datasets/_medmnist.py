"""MedMNIST's two-dimensional sets: twelve kinds of medical images, with splits."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from sk_medsiglip._json import read_json
from sk_medsiglip.datasets._download import data_folder, download, md5_of
from sk_medsiglip.exceptions import DatasetError

#: Facts published by the authors about each set; the keys of ``md5`` are sizes.
MEDMNIST: dict[str, dict[str, Any]] = read_json(
    Path(__file__).with_name("medmnist.json")
)
SIZES = (28, 64, 128, 224)
SPLITS = ("train", "val", "test")
#: Environment variables that name mirrors: a folder of the same files, and one file.
MIRROR = "SK_MEDSIGLIP_MEDMNIST_URL"
PNEUMONIA_MIRROR = "SK_MEDSIGLIP_PNEUMONIA_MNIST_URL"
#: The official record of MedMNIST, and its files.
RECORD = "https://zenodo.org/records/10519652"
FILES = f"{RECORD}/files"

_CITATION = "J. Yang et al. MedMNIST v2. Scientific Data 10, 41 (2023)."
_NOT_COMMERCIAL = "It forbids commercial use."
_DESCR = """\
{title}
{underline}

{shows}, {size} x {size} pixels; {task}.
{n_images} images of the official {split} split.
Licence {licence}: name the source wherever you show an image or a figure. {terms}
For trying out software; not for clinical use. Patient identifiers are not published, so
a different split may have images of one patient on both sides.

:Cite: {citation}
:and: {source}
:Source: {record}
:File: {provenance}
"""
_PNEUMONIA_DESCR = """\
PneumoniaMNIST
--------------

Chest X-rays of children, 28 x 28 pixels, 0 normal and 1 pneumonia: the set of Kermany
et al. (Cell, 2018) as prepared for MedMNIST v2 (Yang et al., Scientific Data, 2023).
Licence CC BY 4.0: name the source wherever you show it or a figure from it.
For trying out software; not for clinical use.

:Source: {record}
:Subset: {subset}, {n_images} images, {n_positive} with pneumonia
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
    """Load one of MedMNIST's twelve sets of 2-D images, downloading it once.

    Parameters
    ----------
    name : str
        "pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist",
        "retinamnist", "breastmnist", "bloodmnist", "tissuemnist", "organamnist",
        "organcmnist" or "organsmnist".
    size : {28, 64, 128, 224}, default=224
        Side in pixels. A file of size 224 takes up to about 10 GB, and all images of a
        split are in memory at the same time: 150 kB each in colour, 50 kB in grey.
    split : {"train", "val", "test"}, default="train"
        Official split.
    data_home : str, path-like or None, default=None
        Folder for files such as ``pathmnist_224.npz``. None uses the environment
        variable ``SK_MEDSIGLIP_DATA``, or else a per-user data folder. An existing file
        is used if it has the right arrays, even if it is not the official one;
        ``DESCR`` says which it is.
    download_if_missing : bool, default=True
        If False, raise an error if the file is missing.
    return_X_y : bool, default=False
        Whether to return ``(images, target)`` instead of the bunch.
    n_retries : int, default=3
        Number of retries after a failed download.
    delay : float, default=1.0
        Seconds between retries.
    verbose : int, default=0
        If positive, show a progress bar.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n_samples, size, size) or (n_samples, size, size, 3)
            uint8 images, grey or RGB.
        target : ndarray of shape (n_samples,) or (n_samples, n_labels)
            Classes from 0; 0 and 1 for each of the 14 labels of "chestmnist".
        target_names : list of str
            Names of the classes, or of the labels.
        task : {"binary", "multiclass", "ordinal", "multilabel"}
            Kind of classification task.
        split : str
            Name of the official split.
        licence, citation, source : str
            Licence, and the two works to cite.
        commercial_use : bool
            Whether the licence allows commercial use. That of "dermamnist", CC BY-NC
            4.0, does not.
        DESCR : str
            Description of the set, and whether the file is the official one.

    Raises
    ------
    DatasetError
        If the file is missing and ``download_if_missing=False``, if it could not be
        downloaded, or if it is damaged.

    Notes
    -----
    Files are downloaded from the official record and compared with the published
    checksums. The environment variable ``SK_MEDSIGLIP_MEDMNIST_URL`` can name a mirror,
    a folder of the same files, whose checksums must agree too.

    "dermamnist" was split by image, although some lesions were photographed several
    times.

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
    md5 = facts["md5"][str(size)]
    if not path.exists():
        source = f"{FILES}/{file}"
        _check_wanted(download_if_missing, path, source, "fetch_medmnist")
        mirror = os.environ.get(MIRROR)
        url = f"{mirror.rstrip('/')}/{file}" if mirror else source
        download(facts["title"], url, path, md5, n_retries, delay, verbose)
    [(images, target)] = _read(path, facts, size, [split], "fetch_medmnist")
    if return_X_y:
        return images, target
    commercial = "-NC" not in facts["licence"]
    described = _DESCR.format(
        **facts | {"shows": facts["shows"][0].upper() + facts["shows"][1:]},
        underline="-" * len(facts["title"]),
        size=size,
        n_images=len(images),
        split=split,
        terms="" if commercial else _NOT_COMMERCIAL,
        citation=_CITATION,
        record=RECORD,
        provenance=_OFFICIAL if md5_of(path) == md5 else _OTHER,
    )
    return Bunch(
        images=images,
        target=target,
        target_names=list(facts["labels"]),
        task=facts["task"],
        split=split,
        licence=facts["licence"],
        commercial_use=commercial,
        citation=_CITATION,
        source=facts["source"],
        DESCR=described,
    )


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

    The images are real chest X-rays of children, labelled pneumonia or normal, under
    CC BY 4.0. The file is downloaded from the official record of MedMNIST v2 and
    compared with the published checksum.

    Parameters
    ----------
    data_home : str, path-like or None, default=None
        Folder for ``pneumoniamnist.npz``. None uses the environment variable
        ``SK_MEDSIGLIP_DATA``, or else a per-user data folder. An existing file is used
        if it has the right arrays, even if it is not the official one; ``DESCR`` says
        which it is.
    download_if_missing : bool, default=True
        If False, raise an error if the file is missing.
    subset : {"train", "val", "test", "all"}, default="train"
        The official split. ``"all"`` joins them in this order. Copies of one image may
        be both in train and in val.
    return_X_y : bool, default=False
        Whether to return ``(images, target)`` instead of the bunch.
    n_retries : int, default=3
        Number of retries after a failed download.
    delay : float, default=1.0
        Seconds between retries.
    verbose : int, default=0
        If positive, show a progress bar.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch`
        Dictionary-like object with the following attributes.

        images : ndarray of shape (n_samples, 28, 28) and dtype uint8
            Grey images.
        target : ndarray of shape (n_samples,)
            0 for normal, 1 for pneumonia.
        target_names : list of str
            ``["normal", "pneumonia"]``.
        subset : ndarray of shape (n_samples,)
            The official split of each image.
        DESCR : str
            Source, licence, and whether the file is the official one.

    Raises
    ------
    DatasetError
        If the file is missing and ``download_if_missing=False``, if it could not be
        downloaded, or if it is damaged.

    Notes
    -----
    The environment variable ``SK_MEDSIGLIP_PNEUMONIA_MNIST_URL`` can name a mirror,
    whose file must have the published checksum too.

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
    if subset not in (*SPLITS, "all"):
        raise ValueError(f"subset must be one of {[*SPLITS, 'all']}, got {subset!r}.")
    facts = MEDMNIST["pneumoniamnist"]
    path = data_folder(data_home) / "pneumoniamnist.npz"
    md5 = facts["md5"]["28"]
    if not path.exists():
        source = f"{FILES}/{path.name}?download=1"
        _check_wanted(download_if_missing, path, source, "fetch_pneumonia_mnist")
        url = os.environ.get(PNEUMONIA_MIRROR) or source
        download(facts["title"], url, path, md5, n_retries, delay, verbose)
    splits = SPLITS if subset == "all" else (subset,)
    parts = _read(path, facts, 28, splits, "fetch_pneumonia_mnist")
    images, target = (np.concatenate(part) for part in zip(*parts, strict=True))
    if return_X_y:
        return images, target
    return Bunch(
        images=images,
        target=target,
        target_names=list(facts["labels"]),
        subset=np.repeat(splits, [len(labels) for _, labels in parts]),
        DESCR=_PNEUMONIA_DESCR.format(
            record=RECORD,
            subset=subset,
            n_images=len(images),
            n_positive=int(target.sum()),
            provenance=_OFFICIAL if md5_of(path) == md5 else _OTHER,
        ),
    )


def _check_wanted(download: bool, path: Path, source: str, function: str) -> None:
    if not download:
        raise DatasetError(
            f"{path.name} is not in {path.parent}. Call {function} with "
            f"download_if_missing=True, or download it there yourself from {source}"
        )


def _read(
    path: Path, facts: dict[str, Any], size: int, splits: Sequence[str], function: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and labels of each split; raise if the file does not fit."""

    def damaged(reason: str) -> DatasetError:
        return DatasetError(
            f"{path} is not the {facts['title']} file: {reason}. Delete it and call "
            f"{function} again to download it."
        )

    try:
        # Open it here, since numpy does not close a file that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            parts = [(arrays[f"{s}_images"], arrays[f"{s}_labels"]) for s in splits]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise damaged(f"it cannot be read ({error})") from error
    shape = (size, size) if facts["n_channels"] == 1 else (size, size, 3)
    several = facts["task"] == "multilabel"
    n_labels = len(facts["labels"])
    n_columns, n_values = (n_labels, 2) if several else (1, n_labels)
    found = []
    for images, labels in parts:
        if images.dtype != np.uint8 or images.shape[1:] != shape:
            raise damaged(
                f"images are {images.dtype} {images.shape}, expected uint8 "
                f"{('n', *shape)}"
            )
        if (
            labels.shape != (len(images), n_columns)
            or not np.isin(labels, np.arange(n_values)).all()
        ):
            raise damaged(
                f"labels are not {n_columns} of 0 to {n_values - 1} for each of "
                f"{len(images)} images"
            )
        target = labels.astype(np.int64)
        found.append((images, target if several else target[:, 0]))
    return found
