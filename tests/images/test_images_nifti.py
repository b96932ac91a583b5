"""NIfTI volumes: orientation, grey values, damaged files."""

import gzip
import io
import itertools
import sys
import warnings

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from study_files import AS_THEY_ARE, marked, read_numbers, write_series

from sk_medsiglip.exceptions import (
    ImageReadError,
    MissingDependencyError,
    SkMedSiglipWarning,
)
from sk_medsiglip.images import CTWindows, Percentiles, read_study

#: Every way in which the axes of an array can lie along those of a body.
AXES = [
    "".join(pair[bit] for pair, bit in zip(order, bits, strict=True))
    for order in itertools.permutations(("RL", "AP", "SI"))
    for bits in itertools.product((0, 1), repeat=3)
]


def as_shown(volume):
    """Return axial slices, as DICOM has them, as a NIfTI array: right, front, up."""
    return np.ascontiguousarray(np.asarray(volume).transpose(2, 1, 0)[::-1, ::-1])


def image(
    volume, axes="RAS", rotation=0.0, kind=nibabel.Nifti1Image, spacing=(1, 1, 1)
):
    """Return slices as a NIfTI image whose axes lie as ``axes`` says."""
    affine = np.diag([*spacing, 1.0])
    cos, sin = np.cos(rotation), np.sin(rotation)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = [-90, 126, -72]
    upright = kind(as_shown(volume), affine)
    # nibabel's own reorientation: the voxels and the affine change together.
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    return upright.as_reoriented(change)


def write(path, *args, **options):
    image(*args, **options).to_filename(path)
    return path


# ------------------------------------------------------------------------ orientation


@pytest.mark.parametrize("axes", AXES)
def test_every_orientation_is_shown_alike(tmp_path, axes):
    volume = marked()
    path = write(tmp_path / "v.nii", volume, axes)
    assert nibabel.aff2axcodes(nibabel.load(path).affine) == tuple(axes)
    shown = {
        plane: np.stack(read_study(path, plane=plane, intensity=AS_THEY_ARE))[..., 0]
        for plane in ("axial", "coronal", "sagittal")
    }
    # Slices: feet to head. Rows: front to back. Columns: right to left.
    np.testing.assert_array_equal(shown["axial"], volume)
    # Front to back; head to feet; right to left.
    coronal = [volume[::-1, row, :] for row in range(12)]
    np.testing.assert_array_equal(shown["coronal"], coronal)
    # Left to right; head to feet; front to back.
    sagittal = [volume[::-1, :, column] for column in range(9, -1, -1)]
    np.testing.assert_array_equal(shown["sagittal"], sagittal)


def test_axial_slices_equal_those_of_the_dicom_series(tmp_path):
    volume = marked()
    folder = write_series(tmp_path / "dicom", volume, Modality="MR")
    path = write(tmp_path / "v.nii.gz", volume, "LPS")
    assert read_numbers(path) == list(range(7))
    np.testing.assert_array_equal(read_study(path), read_study(folder))


@pytest.mark.parametrize("degrees", [-40, 15, 40])
@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_oblique_volumes_are_cut_along_their_nearest_axes(tmp_path, axes, degrees):
    path = write(tmp_path / "v.nii", marked(), axes, np.deg2rad(degrees))
    assert read_numbers(path) == list(range(7))


def test_orientation_of_a_real_affine(tmp_path):
    """A header as scanners' converters write it: x to the left, anisotropic."""
    volume = marked()
    data = as_shown(volume)[::-1]
    affine = np.array(
        [[-0.9, 0, 0.1, 80], [0, 0.9, -0.3, -90], [0.02, 0.3, 4.8, -60], [0, 0, 0, 1.0]]
    )
    nibabel.Nifti1Image(data, affine).to_filename(tmp_path / "v.nii.gz")
    assert read_numbers(tmp_path / "v.nii.gz") == list(range(7))


# ----------------------------------------------------------------- files and contents


def test_content_decides_and_not_the_name(tmp_path):
    volume = marked()
    plain = write(tmp_path / "v.nii", volume).read_bytes()
    packed = gzip.compress(plain)
    sources = {"scan": plain, "scan.gz": plain, "scan.dcm": packed, "scan.nii": packed}
    for name, content in sources.items():
        (tmp_path / name).write_bytes(content)
        assert read_numbers(tmp_path / name) == list(range(7))
        assert read_numbers(content) == list(range(7))
        assert read_numbers(io.BytesIO(content)) == list(range(7))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "<u2", ">i2", ">i4", "<i8", "f4", ">f8"])
def test_types_and_versions(tmp_path, kind, suffix, dtype):
    path = tmp_path / f"v{suffix}"
    made = image(marked())
    header = kind.header_class(endianness=np.dtype(dtype).newbyteorder("=").str[0])
    header.set_data_dtype(dtype)
    values = np.asarray(made.dataobj).astype(dtype)
    kind(values, made.affine, header, dtype=np.dtype(dtype)).to_filename(path)
    assert read_numbers(path) == list(range(7))


def test_folder_with_nifti_files(tmp_path):
    for n, name in ((7, "t1_2.nii.gz"), (4, "t1_10.nii")):
        write(tmp_path / name, marked(n))
    (tmp_path / "notes.json").write_text("{}")
    with pytest.raises(ImageReadError, match="2 NIfTI"):
        read_study(tmp_path)
    assert [len(read_study(tmp_path, series=i)) for i in (0, 1)] == [7, 4]
    with pytest.raises(ImageReadError, match="series=2"):
        read_study(tmp_path, series=2)
    (tmp_path / "t1_10.nii").unlink()
    assert read_numbers(tmp_path) == list(range(7))


def test_two_dimensions_and_empty_fourth_axes(tmp_path):
    volume = marked()
    affine = np.eye(4)
    flat = as_shown(volume)[:, :, 3]
    nibabel.Nifti1Image(flat, affine).to_filename(tmp_path / "flat.nii")
    assert read_numbers(tmp_path / "flat.nii") == [3]
    four = as_shown(volume)[..., None]
    nibabel.Nifti1Image(four, affine).to_filename(tmp_path / "four.nii")
    assert read_numbers(tmp_path / "four.nii") == list(range(7))


# -------------------------------------------------------------------------- brightness


def signal():
    values = np.random.default_rng(0).integers(0, 500, (9, 16, 14)).astype(np.int16)
    values[4] += 3000
    return values


@pytest.mark.parametrize("n_slices", [None, 3])
def test_auto_is_percentiles_of_the_volume(tmp_path, n_slices):
    values = signal()
    path = write(tmp_path / "v.nii.gz", values)
    found = np.stack(read_study(path, n_slices=n_slices))[..., 0]
    expected = np.interp(values, np.percentile(values, [1, 99]), (0, 255))
    expected = expected if n_slices is None else expected[[0, 4, 8]]
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_slope_and_intercept_give_hounsfield_units(tmp_path):
    made = image(signal())
    path = tmp_path / "ct.nii"
    # nibabel would scale on writing; the stored values and the slope are meant.
    with open(path, "wb") as file:
        header = made.header.copy()
        header.set_data_offset(352)
        header.set_slope_inter(0.5, -1000)
        header.write_to(file)
        file.write(bytes(352 - file.tell()))
        file.write(np.asarray(made.dataobj).tobytes("F"))
    assert nibabel.load(path).get_fdata().min() < -900
    hounsfield = signal() * 0.5 - 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.stack(read_study(path, intensity="ct"))
    for channel, pair in enumerate([(-1024, 1024), (-135, 215), (0, 80)]):
        expected = np.interp(hounsfield, pair, (0, 255))
        np.testing.assert_allclose(found[..., channel], expected, atol=0.51)
    np.testing.assert_array_equal(found, read_study(path, intensity=CTWindows()))


def test_ct_that_is_not_shown_as_ct_is_warned_about(tmp_path):
    path = write(tmp_path / "ct.nii.gz", (signal() - 1000).astype(np.int16))
    with pytest.warns(SkMedSiglipWarning, match="Hounsfield") as caught:
        read_study(path)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_study(path, intensity=Percentiles(1, 99))
        read_study(write(tmp_path / "mr.nii", (signal() - 800).astype(np.int16)))


def test_voxels_that_are_no_number_are_background(tmp_path):
    values = signal().astype(np.float32)
    hole = np.random.default_rng(1).random(values.shape) < 0.1
    broken = np.where(hole, np.float32(np.nan), values)
    broken[0, 0, 0] = np.inf
    path = write(tmp_path / "v.nii.gz", broken)
    found = np.stack(read_study(path))[..., 0]
    limits = np.percentile(broken[np.isfinite(broken)], [1, 99])
    expected = np.interp(values, limits, (0, 255))
    expected[~np.isfinite(broken)] = 0
    np.testing.assert_allclose(found, expected, atol=1)
    assert (
        read_study(write(tmp_path / "n.nii", np.full((2, 3, 4), np.nan)))[0] == 0
    ).all()


# ------------------------------------------------------------------------- bad files


def bad_shape(values):
    return nibabel.Nifti1Image(values, np.eye(4)).to_bytes()


def colours():
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nibabel.Nifti1Image(rgb, np.eye(4)).to_bytes()


def lying(content, shape):
    head = bytearray(content)
    head[40:56] = np.array(
        [len(shape), *shape, *[1] * (7 - len(shape))], "<i2"
    ).tobytes()
    return bytes(head)


PLAIN = nibabel.Nifti1Image(signal().T, np.eye(4)).to_bytes()
PACKED = gzip.compress(PLAIN)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PLAIN[:-1], "its voxels are damaged or cut short"),
        (PLAIN[:360], "its voxels are damaged or cut short"),
        (PACKED[:-200], "its voxels are damaged or cut short"),
        (PACKED[:1000] + bytes(600) + PACKED[1600:], "its voxels are damaged or cut"),
        (lying(PLAIN, (30000, 30000, 30000)), "its voxels are damaged or cut short"),
        (gzip.compress(lying(PLAIN, (30000, 30000, 30000))), "its voxels are damaged"),
        (lying(PLAIN, (-3, 4, 5)), "it"),
        (lying(PLAIN, (3, 0, 5)), "it"),
        (bad_shape(np.zeros((4, 5, 6, 3), np.int16)), "it holds 3 volumes"),
        (bad_shape(np.zeros((4, 5, 6), np.complex64)), "voxels of type complex64"),
        (colours(), "it holds colours"),
        (PLAIN[:344] + b"ni1\0" + PLAIN[348:], "two separate files"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, content, message):
    (tmp_path / "v.nii").write_bytes(content)
    for source in (tmp_path / "v.nii", content):
        with pytest.raises(ImageReadError) as caught:
            read_study(source)
        assert message in caught.value.reason
        assert caught.value.hint
        assert caught.value.source


def test_header_bytes_that_flip_end_in_images_or_errors(tmp_path):
    rng = np.random.default_rng(0)
    base = nibabel.Nifti1Image(marked().T, np.eye(4)).to_bytes()
    outcomes = set()
    for _ in range(300):
        content = bytearray(base)
        for place in rng.integers(0, 344, 4):
            content[place] = rng.integers(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SkMedSiglipWarning)
                slices = read_study(bytes(content), n_slices=3)
        except ImageReadError:
            outcomes.add("error")
        else:
            assert all(s.dtype == np.uint8 and s.shape[2] == 3 for s in slices)
            outcomes.add("images")
    assert outcomes == {"error", "images"}


def test_max_pixels_counts_the_plane_that_is_shown(tmp_path):
    path = write(tmp_path / "v.nii", marked())  # 7 slices of 12 x 10
    assert len(read_study(path, max_pixels=120)) == 7
    with pytest.raises(ImageReadError, match="120"):
        read_study(path, max_pixels=119)
    assert len(read_study(path, max_pixels=70, plane="coronal")) == 12
    assert len(read_study(path, max_pixels=84, plane="sagittal")) == 10


def test_without_nibabel_the_command_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "v.nii", marked())
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        MissingDependencyError, match=r'install "sk-medsiglip\[nifti\]"'
    ):
        read_study(path)
