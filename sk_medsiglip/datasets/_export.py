"""``write_phantoms``: phantoms as PNG and DICOM files with a table of labels."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.utils import Bunch

LABELS_FILE = "labels.csv"

# Black and white in DICOM files are not at the ends of the 16-bit range, as in files of
# detectors, so that an image read without the window is visibly low in contrast.
_BLACK, _WHITE = 6_000, 54_000

# Tags that the standard requires, but that have no value for a drawing.
_BLANK = (
    *("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "StudyID"),
)


def write_phantoms(
    phantoms: Bunch,
    folder: str | PathLike[str],
    *,
    formats: str | Sequence[str] = ("png", "dicom"),
) -> pd.DataFrame:
    """Write phantoms as image files with a table of labels, as from a hospital.

    Parameters
    ----------
    phantoms : :class:`~sklearn.utils.Bunch`
        Result of :func:`make_chest_phantoms`.
    folder : str or path-like
        Folder to write to; it is created if it does not exist. Files of the same names
        are overwritten, others are kept.
    formats : {"png", "dicom"} or sequence of them, default=("png", "dicom")
        Formats, used in turn, with one file per image. PNG files have 8 bits. DICOM
        files have 16 bits and a VOI window that shows the same image; every third one
        is stored inverted, as MONOCHROME1. They have an invented patient ID and no
        name.

    Returns
    -------
    labels : DataFrame of shape (n_samples, n_findings + 3)
        Table with the columns path (relative to ``folder``), one column of 0 and 1 for
        each finding, patient, and caption. It is also written to
        ``folder/labels.csv``.

    Examples
    --------
    >>> import tempfile
    >>> from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms
    >>> phantoms = make_chest_phantoms(4, findings=["effusion"], random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     labels = write_phantoms(phantoms, folder)
    >>> list(labels.columns)
    ['path', 'effusion', 'patient', 'caption']
    >>> [path.rpartition(".")[2] for path in labels["path"]]
    ['png', 'dcm', 'png', 'dcm']
    """
    writers = _check_formats(formats)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    views: dict[str, int] = {}
    for row, (image, patient) in enumerate(
        zip(phantoms.images, phantoms.groups, strict=True)
    ):
        views[patient] = views.get(patient, 0) + 1
        name = f"{patient}_{views[patient]}"
        if writers[row % len(writers)] == "png":
            paths.append(f"{name}.png")
            Image.fromarray(_to_uint8(image)).save(folder / paths[-1])
        else:
            paths.append(f"{name}.dcm")
            turn = row // len(writers)
            _write_dicom(
                folder / paths[-1],
                image,
                patient=patient,
                view=views[patient],
                inverted=turn % 3 == 2,
            )
    labels = pd.DataFrame({"path": paths})
    for column, finding in enumerate(phantoms.target_names):
        labels[finding] = phantoms.target[:, column]
    labels["patient"] = phantoms.groups
    labels["caption"] = phantoms.captions
    labels.to_csv(folder / LABELS_FILE, index=False)
    return labels


def _check_formats(formats: str | Sequence[str]) -> list[str]:
    names = [formats] if isinstance(formats, str) else list(formats)
    if not names or not set(names) <= {"png", "dicom"}:
        raise ValueError(f"formats must be 'png', 'dicom' or both, got {formats!r}.")
    return names


def _to_uint8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    return np.rint(image / 257).astype(np.uint8)


def _write_dicom(
    path: Path, image: np.ndarray, *, patient: str, view: int, inverted: bool
) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import (
        ComputedRadiographyImageStorage,
        ExplicitVRLittleEndian,
        generate_uid,
    )

    share = image / np.iinfo(image.dtype).max
    stored = np.rint(_BLACK + share * (_WHITE - _BLACK)).astype(np.uint16)
    low, high = _BLACK, _WHITE
    if inverted:
        stored = 65_535 - stored
        low, high = 65_535 - _WHITE, 65_535 - _BLACK
    # UIDs depend on the content only, so that writing twice gives the same files.
    study = generate_uid(entropy_srcs=["study", patient])
    instance = generate_uid(entropy_srcs=[patient, str(view), stored.tobytes().hex()])

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian

    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = ComputedRadiographyImageStorage
    data.SOPInstanceUID = instance
    data.StudyInstanceUID = study
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["series", patient])
    data.Modality = "CR"
    data.Manufacturer = "sk_medsiglip phantoms"
    data.PatientID = patient
    for keyword in _BLANK:
        setattr(data, keyword, "")
    data.SeriesNumber = 1
    data.InstanceNumber = view
    data.BodyPartExamined = "CHEST"
    data.ViewPosition = "PA"
    data.PatientOrientation = ["L", "F"]
    data.BurnedInAnnotation = "NO"
    data.ImageComments = "A drawing, not a patient."
    # In the linear window of the standard, centre - 0.5 - (width - 1) / 2 is black.
    data.WindowWidth = high - low + 1
    data.WindowCenter = (low + high) / 2 + 0.5
    meaning = "MONOCHROME1" if inverted else "MONOCHROME2"
    data.set_pixel_data(stored, meaning, bits_stored=16, generate_instance_uid=False)
    data.save_as(path, enforce_file_format=True)
