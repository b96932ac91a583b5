"""Studies: grey values that are judged by the whole series, and what is in memory."""

import numpy as np
import pydicom
import pytest
from study_files import REAL, dicom, geometry, write_series

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    Percentiles,
    read_image,
    read_study,
)

# ------------------------------------------------------------------------ brightness


def stack_with_one_bright_slice(dtype=np.int16):
    volume = np.random.default_rng(0).integers(-50, 400, (9, 16, 14))
    volume[4] += 3000
    return volume.astype(dtype)


def expected_by_percentiles(volume, low, high):
    limits = np.percentile(volume, [low, high])
    return np.rint(np.clip(np.interp(volume, limits, (0, 255)), 0, 255))


@pytest.mark.parametrize("n_slices", [None, 2])
def test_mr_percentiles_are_those_of_all_slices(tmp_path, n_slices):
    volume = stack_with_one_bright_slice()
    folder = write_series(tmp_path / "mr", volume)
    found = np.stack(read_study(folder, n_slices=n_slices))[..., 0]
    expected = expected_by_percentiles(volume, 1, 99)
    expected = expected if n_slices is None else expected[[0, 8]]
    np.testing.assert_allclose(found, expected, atol=0.51)
    assert found[0].max() < 60  # alone, the first slice would reach white


def test_percentiles_that_were_asked_for_are_those_of_the_series(tmp_path):
    volume = stack_with_one_bright_slice()
    tags = {"Modality": "CT", "RescaleSlope": 2, "RescaleIntercept": -1024}
    folder = write_series(tmp_path / "ct", volume, **tags)
    found = read_study(folder, intensity=Percentiles(10, 100))
    expected = expected_by_percentiles(volume, 10, 100)
    np.testing.assert_allclose(np.stack(found)[..., 0], expected, atol=0.51)


def test_slopes_of_single_slices_and_padding_are_heeded(tmp_path):
    stored = np.random.default_rng(1).integers(0, 1000, (6, 20, 20)).astype(np.int16)
    stored[:, :4] = -2000
    slopes = np.arange(1, 7) / 2
    folder = write_series(
        tmp_path / "pet",
        stored,
        Modality="PT",
        RescaleSlope=lambda i: slopes[i],
        RescaleIntercept=0,
        PixelPaddingValue=-2000,
    )
    found = np.stack(read_study(folder, intensity=Percentiles(0, 90)))[..., 0]
    in_unit = stored * slopes[:, None, None]
    low, high = np.percentile(in_unit[:, 4:], [0, 90])
    expected = np.rint(np.interp(in_unit, (low, high), (0, 255)))
    np.testing.assert_allclose(found, expected, atol=1)


def test_ct_slices_are_what_read_image_gives(tmp_path):
    volume = stack_with_one_bright_slice()
    tags = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    folder = write_series(tmp_path / "ct", volume, **tags, InstanceNumber=None)
    alone = [
        read_image(dicom(values, **tags, **geometry(i)))
        for i, values in enumerate(volume)
    ]
    np.testing.assert_array_equal(read_study(folder), alone)


@pytest.mark.parametrize(
    "name", ["MR_small.dcm", "CT_small.dcm", "examples_palette.dcm"]
)
def test_a_study_of_one_image_is_that_image(name):
    expected = read_image(REAL / name)
    for item in (REAL / name, [str(REAL / name)], (REAL / name).read_bytes()):
        [pixels] = read_study(item)
        np.testing.assert_array_equal(pixels, expected)


def test_an_unreadable_slice_does_not_change_the_limits_of_others(tmp_path):
    volume = stack_with_one_bright_slice()
    folder = write_series(tmp_path / "mr", volume)
    expected = np.stack(read_study(folder, n_slices=2))
    for path in sorted(folder.iterdir()):
        if pydicom.dcmread(path).InstanceNumber == 4:
            path.write_bytes(path.read_bytes()[:-30])
    without = np.stack(read_study(folder, n_slices=2))
    assert np.abs(without.astype(int) - expected).max() < 8


def test_meaning_of_an_array_is_judged_by_the_whole():
    volume = np.zeros((3, 5, 6), np.uint16)
    volume[0], volume[1], volume[2] = 100, 200, 4000
    shown = [pixels[0, 0, 0] for pixels in read_study(volume)]
    assert shown == [6, 12, 249]  # of 4095; alone, 100 would be shown as of 255
    assert [p[0, 0, 0] for p in read_study(volume.astype(np.uint8) // 2)][:2] == [
        50,
        100,
    ]
    with pytest.raises(ImageReadError, match="int16.*4000"):
        read_study(volume.astype(np.int16))


def test_images_of_a_list_keep_their_own_brightness():
    dark, bright = np.full((4, 4), 200, np.uint16), np.full((4, 4), 4000, np.uint16)
    shown = [pixels[0, 0, 0] for pixels in read_study([dark, bright])]
    assert shown == [200, 249]
