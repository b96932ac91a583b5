"""DICOM files for tests: the real ones that pydicom ships, and drawn ones."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import DATA_ROOT
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from sk_medsiglip.images import read_image

#: Where the files of the installed packages lie. Nothing is ever downloaded.
FOLDERS = [Path(DATA_ROOT)]
try:
    import data_store
except ImportError:
    pass
else:
    FOLDERS.append(Path(data_store.__file__).parent / "data")

PATIENT = "Doe^Jane"


def real(name):
    for folder in (FOLDERS[0] / "test_files", *FOLDERS[1:]):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is not installed: pip install pydicom-data")


def drawn(values, *, syntax=ExplicitVRLittleEndian, preamble=True, **tags):
    """Return the bytes of a DICOM file."""
    values = np.asarray(values)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = "1.2.3"
    dataset.PatientName = PATIENT
    dataset.Modality = "DX"
    is_colour = values.ndim >= 3 and values.shape[-1] == 3
    n_axes = values.ndim - is_colour
    dataset.Rows, dataset.Columns = values.shape[n_axes - 2 : n_axes]
    if n_axes == 3:
        dataset.NumberOfFrames = len(values)
    dataset.BitsAllocated = values.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if values.dtype.itemsize == 2 else "OB"
    for name, value in tags.items():
        setattr(dataset, name, value)
        if value is None:
            delattr(dataset, name)
    stream = io.BytesIO()
    if preamble:
        dataset.save_as(stream, enforce_file_format=True)
    else:
        del dataset.file_meta
        pydicom.dcmwrite(
            stream,
            dataset,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
        )
    return stream.getvalue()


def row(content, **options):
    """Return the first channel of a one-row image as a list."""
    pixels = read_image(content, **options)
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


RAMP = np.array([[0, 1000, 2000, 3000, 4000]], np.uint16)
