"""What an error says of a file is true, and names a way out."""

import gzip
import warnings

import numpy as np
import pytest
from dicom_files import drawn
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2K
from study_files import dicom, geometry, marked

from sk_medsiglip.exceptions import ImageReadError, SkMedSiglipWarning
from sk_medsiglip.images import check_images, read_image, read_study

OTHER_FORMATS = {
    "HEIC": b"\0\0\0\x1cftypheic",
    "HEIC or AVIF": b"\0\0\0\x18ftypmif1",
    "AVIF": b"\0\0\0\x20ftypavif",
    "JPEG XL": b"\xff\x0a",
    "a JPEG XL": b"\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG 2000": b"\xff\x4f\xff\x51",
    "a JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
    "a video": b"\0\0\0\x20ftypisom",
    "gzip": gzip.compress(b"nothing"),
}


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_other_formats_are_named(name):
    content = OTHER_FORMATS[name] + bytes(300)
    with pytest.raises(ImageReadError, match=rf"{name}.*not supported"):
        read_image(content)


@pytest.mark.parametrize("last", [110, 112])
def test_jpeg_xl_in_dicom_is_named(last):
    content = drawn(
        np.zeros((4, 4), np.uint8),
        syntax=HTJ2K,
        PixelData=encapsulate([b"\xff\x0a" + bytes(20)]),
    ).replace(HTJ2K.encode(), f"{HTJ2K[:-3]}{last}".encode())
    with pytest.raises(ImageReadError, match="JPEG XL"):
        read_image(content)


def test_a_volume_is_not_called_no_image(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    for name in ("v.nii", "v.nii.gz"):
        nibabel.Nifti1Image(marked().T, np.eye(4)).to_filename(tmp_path / name)
        with pytest.raises(ImageReadError, match="NIfTI.*read_study"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("name", ["c.dcm.gz", "c.gz", "C.DCM.GZ"])
def test_packed_dicom_files_are_not_passed_over(tmp_path, name):
    for i, values in enumerate(marked(3)):
        (tmp_path / f"{i}.dcm").write_bytes(dicom(values, **geometry(i)))
    (tmp_path / name).write_bytes(gzip.compress(dicom(marked(4)[3], **geometry(3))))
    with pytest.raises(ImageReadError, match="gzip"):
        read_study(tmp_path)
    with pytest.raises(ImageReadError, match="gzip"):
        read_study(tmp_path / name)


def test_paths_of_windows_are_told_so():
    table = check_images([r"data\images\a.png", r"C:\data\a.png", "missing.png"])
    assert "as on Windows" in table.reason[0]
    assert "as on Windows" in table.reason[1]
    assert "replace" in table.hint[0]
    assert "working directory" in table.hint[2]


def phase(kind):
    rng = np.random.default_rng(0)
    values = rng.integers(-4096, 4096, (20, 20, 10))
    if kind == "masked":
        values[:12] = 0
    return values / (1 if kind != "radians" else 1304)


def ct(kind):
    rng = np.random.default_rng(0)
    values = rng.normal(40, 30, (20, 20, 10))
    values[:8] = -1000
    if kind == "clipped":
        values[-1] = 1000
    if kind == "metal":
        values[-1, 0] = 3071
    return values


@pytest.mark.parametrize(
    ("values", "is_warned"),
    [
        (phase("whole"), False),
        (phase("masked"), False),
        (phase("radians"), False),
        (ct("plain"), True),
        (ct("clipped"), True),
        (ct("metal"), True),
    ],
)
def test_phase_images_are_not_taken_for_ct(tmp_path, values, is_warned):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "v.nii"
    nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)).to_filename(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_study(path)
    found = [w for w in caught if issubclass(w.category, SkMedSiglipWarning)]
    assert bool(found) == is_warned
