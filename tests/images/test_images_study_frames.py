"""Multi-frame files as studies: TIFF and DICOM."""

import numpy as np
import pydicom
import pytest
from dicom_files import FOLDERS
from PIL import Image
from pydicom.dataset import Dataset
from study_files import REAL, dicom, enhanced, marked, read_numbers

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import Window, read_image, read_study


def test_frames_of_a_tiff_are_slices(tmp_path):
    path = tmp_path / "stack.tif"
    frames = [Image.fromarray(values) for values in marked() * 16]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    shown = read_study(path)  # white is 4095 for all, by the brightest of them
    assert [s[1, 7, 0] for s in shown] == [
        round(160 * (i + 1) / 4095 * 255) for i in range(7)
    ]


def test_frames_of_a_dicom_file_are_slices():
    path = REAL / "rtdose.dcm"
    slices = read_study(path, n_slices=None)
    assert len(slices) == 15
    stored = pydicom.dcmread(path).pixel_array
    low, high = stored.min(), stored.max()
    expected = np.rint((stored.astype(float) - low) / (float(high) - low) * 255)
    np.testing.assert_allclose(np.stack(slices)[..., 0], expected, atol=1)


def test_frames_are_ordered_by_their_positions():
    volume = marked()
    order = np.random.default_rng(0).permutation(7)
    content = dicom(volume[order], **enhanced([3.0 * index for index in order]))
    assert read_numbers(content) == list(range(7))
    unplaced = dicom(volume[order], NumberOfFrames=7)
    assert read_numbers(unplaced) == order.tolist()


def halves(volume, **tags):
    """Return two multi-frame files of one series, the upper slices first."""
    order = [[4, 6, 5], [1, 0, 3, 2]]
    return [
        dicom(volume[own], **enhanced([2.0 * i for i in own]), **tags) for own in order
    ]


def test_multi_frame_files_of_one_series_are_one_volume(tmp_path):
    for name, content in zip("ab", halves(marked()), strict=True):
        (tmp_path / name).write_bytes(content)
    assert read_numbers(tmp_path) == list(range(7))
    assert read_numbers([tmp_path / "b", tmp_path / "a"]) == list(range(7))
    other = dicom(marked(4), SeriesInstanceUID="1.2.9", **enhanced(range(4)))
    (tmp_path / "c").write_bytes(other)
    with pytest.raises(ImageReadError, match="2 series"):
        read_study(tmp_path)


def test_multi_frame_files_without_positions_follow_their_numbers(tmp_path):
    volume = marked()
    for name, instance, own in (("a", 2, slice(4, 7)), ("b", 1, slice(0, 4))):
        frames = volume[own]
        content = dicom(frames, NumberOfFrames=len(frames), InstanceNumber=instance)
        (tmp_path / name).write_bytes(content)
    assert read_numbers(tmp_path) == list(range(7))


def test_parts_of_a_concatenation_follow_their_offsets(tmp_path):
    volume = marked()
    for place, offset in enumerate((5, 0, 3)):
        frames = volume[offset : {5: 7, 0: 3, 3: 5}[offset]]
        content = dicom(
            frames,
            NumberOfFrames=len(frames),
            InstanceNumber=1,
            ConcatenationUID="1.2.3.4",
            ConcatenationFrameOffsetNumber=offset,
        )
        (tmp_path / str(place)).write_bytes(content)
    assert read_numbers(tmp_path) == list(range(7))


def test_enhanced_files_of_one_frame_are_ordered_by_position(tmp_path):
    volume = marked()
    for name, index in enumerate(np.random.default_rng(0).permutation(7)):
        tags = enhanced([2.5 * index]) | {"InstanceNumber": name}
        content = dicom(volume[index : index + 1], **tags)
        (tmp_path / str(name)).write_bytes(content)
    assert read_numbers(tmp_path) == list(range(7))
    with pytest.raises(ImageReadError, match="axial"):
        read_study(tmp_path, plane="coronal")


def test_frames_that_cannot_be_there_are_not_counted():
    content = dicom(marked(), NumberOfFrames=2_000_000_000)
    with pytest.raises(ImageReadError, match="2000000000 frames"):
        read_study(content)


def test_tags_of_one_frame_do_not_reach_the_next():
    """Rescale and window of single frames, as enhanced objects hold them."""
    volume = np.full((3, 4, 6), 100, np.uint16)
    tags = enhanced(range(3))
    groups = tags["PerFrameFunctionalGroupsSequence"]
    for slope, group in zip((1, 2, None), groups, strict=True):
        if slope is not None:
            item = Dataset()
            item.RescaleSlope, item.RescaleIntercept = slope, 0
            group.PixelValueTransformationSequence = [item]
    content = dicom(volume, **tags)
    window = Window(center=150, width=300)
    expected = [read_image(content, frame=i, intensity=window) for i in range(3)]
    assert [pixels[0, 0, 0] for pixels in expected] == [85, 170, 85]
    for _ in range(2):
        np.testing.assert_array_equal(read_study(content, intensity=window), expected)


def test_real_frames_are_what_read_image_gives():
    files = [path for folder in FOLDERS for path in folder.glob("*.dcm")]
    compared = set()
    for path in files:
        try:
            slices = read_study(path, n_slices=4, intensity=Window(500, 3000))
        except ImageReadError:
            continue
        if len(slices) < 2:
            continue
        if path.stem.lower().startswith(("emri", "ect")):
            continue  # their frames are told where they lie, and change places
        n_frames = int(pydicom.dcmread(path, stop_before_pixels=True).NumberOfFrames)
        places = range(n_frames)
        if n_frames > 4:
            places = np.rint(np.linspace(0, n_frames - 1, 4)).astype(int)
        for place, pixels in zip(places, slices, strict=True):
            expected = read_image(path, frame=int(place), intensity=Window(500, 3000))
            np.testing.assert_array_equal(pixels, expected)
        compared.add(path.name)
    assert len(compared) > 5
