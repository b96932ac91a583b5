"""Mosaics: the slices of a volume side by side in one image."""

import gzip
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian
from study_files import AS_THEY_ARE, dicom, marked, numbers, read_numbers

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image, read_study

SIEMENS = ("SIEMENS MR HEADER", 0x0019, 0x0A, "US")
UIH = ("Image Private Header", 0x0065, 0x50, "DS")
KINDS = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


def mosaic(n=7, *, private=None, implicit=False, keep_creator=True, **tags):
    """Return the bytes of a mosaic of 3 x 3 tiles."""
    tiles = np.zeros((9, 12, 10), np.uint16)
    tiles[:n] = marked(n)
    values = np.block([[tiles[3 * r + c] for c in range(3)] for r in range(3)])
    tags = {"ImageType": KINDS, "InstanceNumber": 1, **tags}
    dataset = pydicom.dcmread(io.BytesIO(dicom(values, **tags)))
    if private is not None:
        creator, group, element, vr = private
        block = dataset.private_block(group, creator, create=True)
        block.add_new(element, vr, n)
        if not keep_creator:
            del dataset[group, 0x0010]
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("keep_creator", [True, False])
@pytest.mark.parametrize("private", [SIEMENS, UIH])
def test_tiles_are_slices(private, implicit, keep_creator):
    content = mosaic(private=private, implicit=implicit, keep_creator=keep_creator)
    assert read_numbers(content) == list(range(7))
    assert read_study(content)[0].shape == (12, 10, 3)
    one = read_image(content, frame=3, intensity=AS_THEY_ARE)
    assert numbers([one]) == [3]
    with pytest.raises(ImageReadError, match="7 frames"):
        read_image(content)


def test_grids_of_another_vendor_carry_no_mosaic_in_their_type():
    content = mosaic(private=UIH, ImageType=["ORIGINAL", "PRIMARY", "M", "VFRAME"])
    assert read_numbers(content) == list(range(7))


def test_a_time_series_of_mosaics_is_read_volume_by_volume(tmp_path):
    for name, instance in (("a", 2), ("b", 1)):
        content = mosaic(private=SIEMENS, InstanceNumber=instance)
        (tmp_path / name).write_bytes(content)
    assert read_numbers(tmp_path) == [*range(7), *range(7)]


def test_mosaics_that_cannot_be_cut_are_refused(tmp_path):
    for content in (mosaic(), mosaic(private=SIEMENS, n=7, Rows=35)):
        with pytest.raises(ImageReadError, match=r"mosaic.*dcm2niix"):
            read_image(content)
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(ImageReadError, match=r"mosaic.*dcm2niix"):
            read_study(tmp_path)


def test_tags_of_one_slice_or_of_other_images_mean_no_mosaic():
    one = mosaic(1, private=SIEMENS)
    assert read_image(one).shape == (36, 30, 3)
    plain = mosaic(private=SIEMENS, ImageType=["ORIGINAL", "PRIMARY"])
    assert read_image(plain).shape == (36, 30, 3)


@pytest.mark.parametrize("only_header", [False, True])
def test_real_mosaic(only_header):
    nibabel = pytest.importorskip("nibabel")
    path = Path(nibabel.__file__).parent / "nicom/tests/data/siemens_dwi_1000.dcm.gz"
    if not path.exists():
        pytest.skip("nibabel is installed without its tests")
    dataset = pydicom.dcmread(io.BytesIO(gzip.decompress(path.read_bytes())))
    if only_header:
        del dataset[0x0019, 0x100A]
    stream = io.BytesIO()
    dataset.save_as(stream)
    slices = read_study(stream.getvalue(), n_slices=None, intensity=AS_THEY_ARE)
    assert len(slices) == 48
    side = 128
    tiles = [(row, column) for row in range(7) for column in range(7)][:48]
    stored = dataset.pixel_array
    volume = [
        stored[side * r : side * (r + 1), side * c : side * (c + 1)] for r, c in tiles
    ]
    expected = np.clip(volume, 0, 255)
    np.testing.assert_array_equal(np.stack(slices)[..., 0], expected)
