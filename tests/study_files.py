"""Studies for tests: the real exports that pydicom ships, and drawn series."""

import io
import os
import time
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import DATA_ROOT
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian

from sk_medsiglip.images import Window, read_study

REAL = Path(DATA_ROOT) / "test_files"
EXPORTS = REAL / "dicomdirtests"

PATIENT = "Doe^Jane"
SERIES = "1.2.826.0.1.3680043.8.498.1"

#: Shows the values 0 to 255 as they are.
AS_THEY_ARE = Window(center=127.5, width=255)


def dicom(values, **tags):
    """Return the bytes of a DICOM file; tags given as None are left out."""
    values = np.asarray(values)
    grey = values[0] if "NumberOfFrames" in tags else values
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = tags.pop("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientName = PATIENT
    dataset.PatientID = "SECRET-7"
    dataset.SeriesDescription = "of Jane"
    dataset.SeriesInstanceUID = SERIES
    dataset.SeriesNumber = 2
    dataset.Modality = "MR"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = grey.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = values.dtype.itemsize * 8
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = values.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in tags.items():
        setattr(dataset, name, value)
        if value is None:
            delattr(dataset, name)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def marked(n=7, height=12, width=10):
    """Draw slices that carry their number, and an L that no flip or turn leaves."""
    volume = np.zeros((n, height, width), np.uint16)
    volume[:, 2:9, 2] = 200
    volume[:, 8, 2:6] = 120
    volume[:, 1, 7] = 10 * (1 + np.arange(n))
    return volume


def numbers(slices):
    """Return the number that each slice carries, and check how it lies."""
    for pixels in slices:
        assert (pixels[2:8, 2] == 200).all()
        assert (pixels[8, 3:6] == 120).all()
    return [int(pixels[1, 7, 0]) // 10 - 1 for pixels in slices]


def read_numbers(item, **options):
    return numbers(read_study(item, intensity=AS_THEY_ARE, **options))


def geometry(index, orientation=(1, 0, 0, 0, 1, 0), spacing=2.5):
    """Return the tags of slice ``index`` along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    position = np.array([-40.0, 25.5, -310.25]) + spacing * index * normal
    return {
        "ImageOrientationPatient": [f"{value:.8f}" for value in orientation],
        "ImagePositionPatient": [f"{value:.8f}" for value in position],
    }


def write_series(folder, volume=None, *, seed=0, **tags):
    """Write slices under shuffled names, InstanceNumber against the positions."""
    volume = marked() if volume is None else volume
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(len(volume))
    for index, values in enumerate(volume):
        every = {"InstanceNumber": len(volume) - index, **geometry(index), **tags}
        own = {key: f(index) if callable(f) else f for key, f in every.items()}
        (folder / f"IM{names[index]:03d}").write_bytes(dicom(values, **own))
    return folder


def enhanced(positions, **tags):
    """Return the items that tell where each frame of an enhanced object lies."""
    groups = []
    for position in positions:
        group, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = [0, 0, position]
        group.PlanePositionSequence = [plane]
        groups.append(group)
    shared, plane = Dataset(), Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [plane]
    return {
        "NumberOfFrames": len(positions),
        "SOPClassUID": EnhancedMRImageStorage,
        "SharedFunctionalGroupsSequence": [shared],
        "PerFrameFunctionalGroupsSequence": groups,
        **tags,
    }


def noise(n, seed=0, dtype=np.uint8):
    """Return slices of random values."""
    values = np.random.default_rng(seed).integers(0, 256, (n, 24, 20))
    return values.astype(dtype)


def settle(folder):
    """Give files the age at which their state is trusted."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_file():
            os.utime(path, (1_600_000_000, 1_600_000_000))
    time.sleep(0.06)
