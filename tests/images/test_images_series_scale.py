"""One scale a series: the same value is the same grey in every slice."""

import numpy as np
import pytest
from pydicom.dataset import Dataset
from study_files import dicom, enhanced, write_series

from sk_medsiglip.images import VOI, read_image, read_study

SLOPES = np.array([1.0, 4, 16, 64])


def stored():
    return np.random.default_rng(0).integers(0, 1000, (4, 12, 10)).astype(np.uint16)


def by_percentiles(volume):
    limits = np.percentile(volume, [1, 99])
    return np.rint(np.interp(volume, limits, (0, 255)))


def shown(item, **options):
    return np.stack(read_study(item, **options))[..., 0].astype(int)


@pytest.mark.parametrize("modality", ["PT", "NM", "MR"])
def test_windows_and_slopes_of_single_slices(tmp_path, modality):
    folder = write_series(
        tmp_path / "pet",
        stored(),
        Modality=modality,
        RescaleSlope=lambda i: SLOPES[i],
        RescaleIntercept=0,
        WindowCenter=lambda i: 500 * SLOPES[i],
        WindowWidth=lambda i: 1000 * SLOPES[i],
    )
    expected = by_percentiles(stored() * SLOPES[:, None, None])
    assert np.abs(shown(folder) - expected).max() <= 1
    some = shown(folder, n_slices=2)
    assert np.abs(some - expected[[0, 3]]).max() <= 1


def test_one_window_of_all_slices_is_kept(tmp_path):
    folder = write_series(
        tmp_path / "pet",
        stored(),
        Modality="PT",
        RescaleSlope=lambda i: SLOPES[i],
        RescaleIntercept=0,
        WindowCenter=2000,
        WindowWidth=4001,
    )
    expected = np.clip(stored() * SLOPES[:, None, None] / 4000 * 255, 0, 255)
    assert np.abs(shown(folder) - expected).max() <= 1


@pytest.mark.parametrize("modality", ["XA", "NM", "RF"])
def test_windows_of_single_frames(modality):
    tags = enhanced(range(4)) | {"Modality": modality}
    for index, group in enumerate(tags["PerFrameFunctionalGroupsSequence"]):
        item = Dataset()
        item.WindowCenter, item.WindowWidth = 100 * (index + 1), 50
        group.FrameVOILUTSequence = [item]
    content = dicom(stored(), **tags)
    assert np.abs(shown(content) - by_percentiles(stored())).max() <= 1


def test_some_slices_without_a_window(tmp_path):
    folder = write_series(
        tmp_path / "nm",
        stored(),
        Modality="NM",
        WindowCenter=lambda i: 500 if i else None,
        WindowWidth=lambda i: 1000 if i else None,
    )
    assert np.abs(shown(folder) - by_percentiles(stored())).max() <= 1


def test_ultrasound_is_as_stored_whatever_its_windows():
    values = (stored() // 4).astype(np.uint8)
    tags = enhanced(range(4)) | {"Modality": "US"}
    for index, group in enumerate(tags["PerFrameFunctionalGroupsSequence"]):
        item = Dataset()
        item.WindowCenter, item.WindowWidth = 100 * (index + 1), 50
        group.FrameVOILUTSequence = [item]
    np.testing.assert_array_equal(shown(dicom(values, **tags)), values)


def test_ct_and_what_is_asked_for_stay_as_they_are(tmp_path):
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowWidth": 100}
    series = {"WindowCenter": lambda i: 100 * i, **tags}
    folder = write_series(tmp_path / "ct", stored(), Modality="CT", **series)
    one = dicom(stored()[2], Modality="CT", WindowCenter=200, **tags)
    for options in ({}, {"intensity": VOI()}):
        slices = read_study(folder, **options)
        np.testing.assert_array_equal(slices[2], read_image(one, **options))
