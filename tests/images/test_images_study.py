"""Studies of DICOM files, arrays and pictures: which slices, in which order.

How bright they are is in test_images_study_grey.py, NIfTI in test_images_nifti.py.
"""

import io
import shutil

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage
from study_files import (
    EXPORTS,
    REAL,
    SERIES,
    dicom,
    enhanced,
    geometry,
    marked,
    read_numbers,
    write_series,
)

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import Window, read_image, read_study

# ------------------------------------------------------------------------------ order


OBLIQUE = tuple(
    np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0][:2].ravel()
)


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), OBLIQUE],
    ids=["axial", "sagittal", "coronal", "oblique"],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_slices_are_ordered_along_the_normal(tmp_path, orientation, seed):
    plan = [geometry(index, orientation) for index in range(7)]
    folder = write_series(
        tmp_path / "series",
        seed=seed,
        ImageOrientationPatient=lambda i: plan[i]["ImageOrientationPatient"],
        ImagePositionPatient=lambda i: plan[i]["ImagePositionPatient"],
    )
    assert read_numbers(folder) == list(range(7))


def test_without_positions_instance_numbers_order(tmp_path):
    folder = write_series(tmp_path / "series", ImagePositionPatient=None)
    assert read_numbers(folder) == list(range(6, -1, -1))


def test_without_anything_names_order_and_numbers_in_them_count(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    nothing = {"ImageOrientationPatient": None, "InstanceNumber": None}
    for index, values in enumerate(marked(12)):
        content = dicom(values, **nothing)
        (folder / f"slice{index}.dcm").write_bytes(content)
    assert read_numbers(folder) == list(range(12))


def test_instance_number_decides_between_slices_at_one_place(tmp_path):
    folder = write_series(
        tmp_path / "echoes",
        InstanceNumber=lambda i: (3, 1, 2, 6, 5, 4, 7)[i],
        ImagePositionPatient=lambda i: geometry(i // 3)["ImagePositionPatient"],
    )
    assert read_numbers(folder) == [1, 2, 0, 5, 4, 3, 6]


def test_real_series_is_ordered_by_position():
    folder = EXPORTS / "98892001"
    found = read_study(folder)
    files = sorted((folder / "CT5N").iterdir())
    heights = [
        pydicom.dcmread(file).ImagePositionPatient[2]
        for file in files
        if file.is_file()
    ]
    assert len(found) == len(heights) == 5
    for pixels, index in zip(found, np.argsort(heights), strict=True):
        np.testing.assert_array_equal(pixels, read_image(files[index]))


# ---------------------------------------------------------------------------- folders


def test_what_is_no_image_is_passed_over(tmp_path):
    folder = write_series(tmp_path / "study" / "DICOM" / "0001")
    study = tmp_path / "study"
    pdf = dicom(np.zeros((1, 1), np.uint8), Rows=None, PixelData=None)
    dataset = pydicom.dcmread(io.BytesIO(pdf))
    dataset.SOPClassUID = EncapsulatedPDFStorage
    dataset.save_as(study / "report.dcm")
    shutil.copy(EXPORTS / "DICOMDIR", study / "DICOMDIR")
    shutil.copy(REAL / "test-SR.dcm", folder / "IM900")
    (study / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    (study / "README.txt").write_text("export of a viewer")
    (study / "autorun.inf").write_bytes(b"")
    (folder / "._IM001").write_bytes(dicom(marked()[0]))
    Image.new("RGB", (8, 8)).save(study / "logo.png")
    assert read_numbers(study) == list(range(7))


def test_localizers_and_captures_are_left_out_where_there_is_more(tmp_path):
    study = tmp_path / "study"
    write_series(study / "a", SeriesNumber=5)
    scout = np.full((9, 9), 7, np.uint16)
    extras = {
        "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "dose": {"SOPClassUID": SecondaryCaptureImageStorage},
        "mask": {"Modality": "SEG"},
    }
    for index, (name, tags) in enumerate(extras.items()):
        tags |= {"SeriesInstanceUID": f"{SERIES}.{index}", "SeriesNumber": index}
        (study / name).write_bytes(dicom(scout, **geometry(3), **tags))
    # A localizer may even bear the series of the slices.
    (study / "own").write_bytes(
        dicom(scout, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **geometry(2))
    )
    assert read_numbers(study) == list(range(7))

    shutil.rmtree(study / "a")
    for name in ("dose", "mask", "own"):
        (study / name).unlink()
    assert len(read_study(study)) == 1


def test_several_series_are_an_error_that_lists_them(tmp_path):
    study = tmp_path / "study"
    write_series(study / "b", SeriesNumber=3)
    write_series(study / "a", marked(4), SeriesNumber=8, SeriesInstanceUID="1.9.9")
    (study / "cr").write_bytes(
        dicom(marked()[0], Modality="CR", SeriesNumber=None, SeriesInstanceUID="1.9.8")
    )
    with pytest.raises(ImageReadError) as caught:
        read_study(study)
    assert str(caught.value) == (
        f"{study}: it holds 3 series, but one is needed. Choose one by its "
        "index, series=: 0 is MR, 7 slices; 1 is MR, 4 slices; 2 is CR, 1 slice."
    )
    assert [len(read_study(study, series=index)) for index in range(3)] == [7, 4, 1]
    with pytest.raises(ImageReadError, match="series=3"):
        read_study(study, series=3)


def test_real_export_of_several_series(tmp_path):
    study = EXPORTS / "77654033"
    expected = (
        "0 is CR, 1 slice; 1 is CT, 4 slices; 2 is CR, 1 slice; 3 is CR, 1 slice."
    )
    with pytest.raises(ImageReadError) as caught:
        read_study(study)
    assert str(caught.value).endswith(expected)
    slices = read_study(study, series=1)

    # The same files under other names in one folder are the same series.
    files = [path for path in sorted(study.rglob("*")) if path.is_file()]
    order = np.random.default_rng(0).permutation(len(files))
    for name, index in enumerate(order):
        shutil.copy(files[index], tmp_path / f"{name}.x")
    with pytest.raises(ImageReadError) as caught:
        read_study(tmp_path)
    assert str(caught.value).endswith(expected)
    np.testing.assert_array_equal(read_study(tmp_path, series=1), slices)


@pytest.mark.parametrize("folder", ["77654033", "98892003"])
def test_errors_hold_no_identifier_and_no_patient(folder):
    with pytest.raises(ImageReadError) as caught:
        read_study(EXPORTS / folder)
    said = str(caught.value).replace(str(EXPORTS), "")
    for path in (EXPORTS / folder).rglob("*"):
        if path.is_file():
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            for name in dataset.dir("UID", "Patient", "Date", "Description"):
                value = str(dataset.get(name))
                assert len(value) < 4 or value == folder or value not in said


def test_orientations_within_a_series_are_apart(tmp_path):
    write_series(tmp_path / "one")
    other = geometry(0, (0, 1, 0, 0, 0, -1))
    (tmp_path / "one" / "planned").write_bytes(dicom(marked()[0], **other))
    with pytest.raises(ImageReadError, match="2 series"):
        read_study(tmp_path / "one")
    assert {len(read_study(tmp_path / "one", series=i)) for i in (0, 1)} == {1, 7}


def test_cosines_that_were_rounded_are_one_orientation(tmp_path):
    folder = write_series(
        tmp_path / "rounded",
        ImageOrientationPatient=lambda i: [1, 1e-4 * i, 0, -1e-4 * i, 1, 0],
    )
    assert read_numbers(folder) == list(range(7))


def test_views_of_several_series_are_one_study(tmp_path):
    for index in range(3):
        tags = {"SeriesInstanceUID": f"1.{index}", "SeriesNumber": 3 - index}
        content = dicom(marked()[index], Modality="DX", **tags)
        (tmp_path / f"{index}").write_bytes(content)
    assert read_numbers(tmp_path) == [2, 1, 0]
    assert read_numbers(tmp_path, series=1) == [1]


def test_folder_of_pictures(tmp_path):
    for index, values in enumerate(marked(12)):
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"s{index}.png")
    (tmp_path / "notes.csv").write_text("a,b")
    assert read_numbers(tmp_path) == list(range(12))


def test_cut_files_are_not_passed_over_in_silence(tmp_path):
    folder = write_series(tmp_path / "series")
    (folder / "late.dcm").write_bytes(b"")
    with pytest.raises(ImageReadError, match="empty"):
        read_study(folder)
    (folder / "late.dcm").write_bytes(bytes(40))
    with pytest.raises(ImageReadError, match=r"late\.dcm"):
        read_study(folder, n_slices=2)
    (folder / "late.dcm").unlink()
    cut = folder / "IM003"
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(ImageReadError, match="IM003"):
        read_study(folder)


def test_links_are_followed_and_loops_end(tmp_path):
    write_series(tmp_path / "elsewhere")
    study = tmp_path / "study"
    study.mkdir()
    (study / "here").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(study)
    assert read_numbers(study) == list(range(7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "it holds no image"),
        (lambda path: [], "list of 0 images: it holds no image"),
        (lambda path: path / "missing", "missing: there is no such file"),
        (lambda path: EXPORTS / "TINY_ALPHA", "TINY_ALPHA: it holds no image"),
        (lambda path: None, "the image is missing"),
        (lambda path: float("nan"), "the image is missing"),
        (lambda path: [None], "the image is missing"),
        (lambda path: [path], "it is a directory"),
        (lambda path: np.zeros((0, 5, 6)), "it holds no image"),
        (lambda path: np.zeros((2, 3, 4, 5)), "2 or 3 dimensions"),
        (lambda path: np.zeros((2, 3, 4), complex), "pixels of type complex128"),
    ],
)
def test_what_is_no_study(tmp_path, make, message):
    with pytest.raises(ImageReadError) as caught:
        read_study(make(tmp_path))
    assert message in str(caught.value)
    assert caught.value.hint


# ------------------------------------------------------------------------- selection


def test_slices_are_taken_evenly():
    volume = marked(20)
    taken = {n: read_numbers(volume, n_slices=n) for n in (1, 2, 4, 19, 20, 85, None)}
    assert taken[1] == [10]
    assert taken[2] == [0, 19]
    assert taken[4] == [0, 6, 13, 19]
    assert len(set(taken[19])) == 19
    assert taken[20] == taken[85] == taken[None] == list(range(20))


def test_85_of_many_are_what_linspace_gives():
    volume = np.zeros((300, 1, 2), np.uint16)
    volume[:, 0] = np.arange(300)[:, None]
    shown = read_study(volume, intensity=Window(center=150, width=300))
    expected = np.rint(np.linspace(0, 299, 85)) / 300 * 255
    np.testing.assert_allclose([s[0, 0, 0] for s in shown], expected, atol=0.51)


# ------------------------------------------------------- arrays, lists and multi-frame


@pytest.mark.parametrize(
    ("shape", "n"),
    [((5, 6), 1), ((5, 6, 3), 1), ((5, 6, 1), 1), ((4, 5, 6), 4), ((3, 5, 6), 3)]
    + [((4, 5, 6, channels), 4) for channels in (1, 3, 4)],
)
def test_shapes_of_arrays(shape, n):
    slices = read_study(np.zeros(shape, np.uint8))
    assert [pixels.shape for pixels in slices] == [(5, 6, 3)] * n


def test_views_of_an_array_are_not_copied():
    volume = marked()[::-1].transpose(0, 2, 1).transpose(0, 2, 1)
    assert read_numbers(volume) == list(range(6, -1, -1))


def test_lists_use_everything_and_order_slices(tmp_path):
    folder = write_series(tmp_path / "series")
    files = sorted(folder.iterdir())
    assert read_numbers(files) == list(range(7))
    assert read_numbers([path.read_bytes() for path in files]) == list(range(7))
    photo = marked()[3].astype(np.uint8)
    mixed = [photo, *map(str, files[:4]), Image.fromarray(photo), *files[4:]]
    found = read_numbers(mixed)
    assert [found[0], found[5]] == [3, 3]
    assert [n for place, n in enumerate(found) if place not in (0, 5)] == list(range(7))


def test_lists_are_never_ambiguous(tmp_path):
    files = [path for path in (EXPORTS / "77654033").rglob("*") if path.is_file()]
    assert len(read_study(files)) == 7
    assert len(read_study(files, series=1)) == 4
    np.testing.assert_array_equal(
        read_study(files, series=1), read_study(EXPORTS / "77654033", series=1)
    )


def test_list_may_hold_multi_frame_files_and_volumes(tmp_path):
    stack = dicom(marked(4), **enhanced(range(4)))
    assert read_numbers([stack, marked(3)]) == [0, 1, 2, 3, 0, 1, 2]


# ---------------------------------------------------------------------- plane, options


def test_planes_that_cannot_be_cut_are_refused(tmp_path):
    folder = write_series(tmp_path / "axial")
    with pytest.raises(ImageReadError, match="coronal"):
        read_study(folder, plane="coronal")
    with pytest.raises(ImageReadError, match="axes"):
        read_study(marked(), plane="sagittal")
    assert len(read_study(REAL / "CT_small.dcm", plane="axial")) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"plane": "top"},
        {"n_slices": 0},
        {"n_slices": True},
        {"series": -1},
        {"intensity": "no such"},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        read_study(marked(), **options)


def test_max_pixels_counts_a_slice():
    volume = marked()
    assert len(read_study(volume, max_pixels=120)) == 7
    with pytest.raises(ImageReadError, match="slice 0.*max_pixels=119"):
        read_study(volume, max_pixels=119)
