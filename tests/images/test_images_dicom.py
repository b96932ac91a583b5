"""DICOM files: every real one against pydicom's own functions; bad ones; privacy."""

import warnings
import zlib

import numpy as np
import pydicom
import pytest
from dicom_files import FOLDERS, RAMP, drawn, real, row
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import check_images, read_image

NO_IMAGE = "it holds no pixels: it is a {} object"

#: Files of pydicom that are no whole image, by the start of their path, and why.
UNREADABLE = {
    "charset_files/chrJap": "its pixels are missing or cut short",
    "charset_files/chrKoreanMulti": "its pixels are missing or cut short",
    "charset_files/chrSQ": "its pixels are missing or cut short",
    "palettes/": NO_IMAGE.format("Color Palette Storage"),
    "test_files/ExplVR_BigEndNoMeta": NO_IMAGE.format("RT Ion Plan Storage"),
    "test_files/ExplVR_LitEndNoMeta": NO_IMAGE.format("RT Ion Plan Storage"),
    # Its header is overwritten: it announces a width of 3,722,445,056.
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm": "its compressed pixels are",
    "test_files/MR_truncated.dcm": "its pixels are missing or cut short",
    "test_files/UN_sequence.dcm": "its pixels are missing or cut short",
    # It announces "1A" frames.
    "test_files/badVR.dcm": "its DICOM tags cannot be read (ValueError)",
    "test_files/dicomdirtests/DICOMDIR": NO_IMAGE.format(
        "Media Storage Directory Storage"
    ),
    "test_files/dicomdirtests/TINY_ALPHA/DICOMDIR": NO_IMAGE.format(
        "Media Storage Directory Storage"
    ),
    "test_files/dicomdirtests/TINY_ALPHA/PT": "its pixels are missing or cut short",
    "test_files/empty_charset_LEI.dcm": NO_IMAGE.format("DICOM"),
    "test_files/meta_missing_tsyntax.dcm": "it is a DICOM object without rows and",
    "test_files/nested_priv_SQ.dcm": "it is a DICOM object without rows and columns",
    "test_files/no_meta.dcm": "it is not an image file",
    "test_files/no_meta_group_length.dcm": "its pixels are missing or cut short",
    "test_files/priv_SQ.dcm": "its pixels are missing or cut short",
    "test_files/reportsi": NO_IMAGE.format("Basic Text SR Storage"),
    "test_files/rtplan": NO_IMAGE.format("RT Plan Storage"),
    "test_files/rtstruct.dcm": NO_IMAGE.format("RT Structure Set Storage"),
    "test_files/test-SR.dcm": NO_IMAGE.format("Comprehensive SR Storage"),
    "test_files/waveform_ecg.dcm": NO_IMAGE.format("12-lead ECG Waveform Storage"),
}

#: Images that pydicom itself does not decode; tests of codecs look at them.
NOT_BY_PYDICOM = {
    "JPEG-lossy.dcm",  # JPEG of 12 bits
    "JPGExtended.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm",  # no tags where the end is missing
}

_OTHER_FILES = {".gz", ".icc", ".dump", ".json", ".md", ".py", ".pyc", ".txt"}


def all_files():
    """Return every DICOM file of the installed packages, and its path in them."""
    files = {}
    for folder in FOLDERS:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in _OTHER_FILES:
                if path.name != "README":
                    files[path.relative_to(folder).as_posix()] = path
    return files


def why_unreadable(name):
    return next(
        (why for start, why in UNREADABLE.items() if name.startswith(start)), ""
    )


FILES = all_files()
UNREADABLE_FILES = [name for name in FILES if why_unreadable(name)]
IMAGES = [
    name
    for name in FILES
    if not why_unreadable(name) and FILES[name].name not in NOT_BY_PYDICOM
]


def frame_by_pydicom(path):
    """Return the tags and the middle frame by pydicom alone."""
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    index = int(dataset.get("NumberOfFrames") or 1) // 2
    index = index if int(dataset.get("NumberOfFrames") or 1) > 1 else 0
    for name in ("SharedFunctionalGroups", "PerFrameFunctionalGroups"):
        groups = dataset.get(f"{name}Sequence") or []
        group = groups[index if len(groups) > 1 else 0] if groups else {}
        for what in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            if what in group:
                dataset.update(group[what].value[0])
    return dataset, pydicom.pixels.pixel_array(dataset, index=index)


def expected_pixels(path):
    """Return what "auto" is for a file, computed with pydicom alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset, stored = frame_by_pydicom(path)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            colours = apply_color_lut(stored, dataset)
            # Some of these files keep 8-bit colours in the low byte of 16 bits.
            return colours >> 8 if colours.max() > 255 else colours
        shown = _grey_by_pydicom(dataset, stored) if stored.ndim == 2 else stored
    if stored.ndim == 3:
        return stored * (255 / (2**dataset.BitsStored - 1))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, axis=2)


def _grey_by_pydicom(dataset, stored):
    in_unit = apply_modality_lut(stored, dataset).astype(float)
    modality = dataset.get("Modality")
    is_map = "PERFUSION" in dataset.get("ImageType", [])
    if modality == "CT" and "RescaleSlope" in dataset and not is_map:
        pairs = [(-1024, 1024), (-135, 215), (0, 80)]
        shown = [np.interp(in_unit, pair, (0, 255)) for pair in pairs]
        return np.stack(shown, axis=-1)
    if modality == "MR":
        return np.interp(in_unit, np.percentile(in_unit, [1, 99]), (0, 255))
    if "VOILUTSequence" in dataset:
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        return apply_voi_lut(in_unit.astype(int), dataset) * (255 / (2**bits - 1))
    if "WindowWidth" in dataset and modality != "US":
        shown = apply_voi_lut(in_unit, dataset)
        levels = np.array([0, 2**dataset.BitsStored - 1.0])
        if dataset.PixelRepresentation:
            levels -= 2 ** (dataset.BitsStored - 1)
        return np.interp(shown, apply_modality_lut(levels, dataset), (0, 255))
    if stored.dtype == np.uint8:
        return stored * (255 / (2**dataset.BitsStored - 1))
    return np.interp(in_unit, (in_unit.min(), in_unit.max()), (0, 255))


# Every real file


def test_there_are_many_real_files():
    assert len(IMAGES) >= 90
    assert len(UNREADABLE_FILES) >= 60


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_equals_an_independent_reading(name):
    pixels = read_image(FILES[name], frame="middle")
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    expected = expected_pixels(FILES[name])
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected.astype(float)).max() <= 1


@pytest.mark.parametrize("name", UNREADABLE_FILES)
def test_every_other_file_is_refused_for_what_it_is(name):
    with pytest.raises(ImageReadError) as caught:
        read_image(FILES[name], frame="middle")
    assert caught.value.reason.startswith(why_unreadable(name))


@pytest.mark.parametrize(
    "name", ["RG1_UNCI.dcm", "color-pl.dcm", "MR_small_RLE.dcm", "image_dfl.dcm"]
)
def test_bytes_and_file_objects_are_read_as_paths_are(name):
    pixels = read_image(real(name))
    np.testing.assert_array_equal(read_image(real(name).read_bytes()), pixels)
    with real(name).open("rb") as file:
        np.testing.assert_array_equal(read_image(file), pixels)


def test_16_and_32_bit_colours_are_as_those_of_8_bits():
    colours = read_image(real("SC_rgb.dcm"))
    for name in ("SC_rgb_16bit.dcm", "SC_rgb_32bit.dcm", "SC_rgb_expb_16bit.dcm"):
        np.testing.assert_array_equal(read_image(real(name)), colours)


def test_check_images_names_modality_and_size():
    table = check_images([real("CT_small.dcm"), real("MR_small.dcm")])
    assert table.modality.tolist() == ["CT", "MR"]
    assert table.format.tolist() == ["DICOM", "DICOM"]
    assert table.height.tolist() == [128, 64]
    assert table.readable.all()


# Frames


def test_frames_of_real_files():
    path = real("emri_small.dcm")
    with pytest.raises(ImageReadError, match="10 frames"):
        read_image(path)
    frames = [read_image(path, frame=i) for i in range(10)]
    assert len({frame.tobytes() for frame in frames}) == 10
    np.testing.assert_array_equal(read_image(path, frame="middle"), frames[5])
    with pytest.raises(ImageReadError, match="frame=10"):
        read_image(path, frame=10)
    for name in (
        "emri_small_RLE.dcm",
        "emri_small_big_endian.dcm",
        "emri_small_jpeg_2k_lossless.dcm",
        "emri_small_jpeg_ls_lossless.dcm",
    ):
        for index, frame in enumerate(frames):
            np.testing.assert_array_equal(read_image(real(name), frame=index), frame)


def test_a_wrong_number_of_frames():
    frames = np.arange(3 * 4 * 6, dtype=np.uint8).reshape(3, 4, 6)
    announced = drawn(frames, NumberOfFrames=5)
    assert read_image(announced, frame=2)[0, 0, 0] == frames[2, 0, 0]
    with pytest.raises(ImageReadError, match="missing"):
        read_image(announced, frame=3)
    for too_few in (0, 1, -2, None):
        content = drawn(frames, NumberOfFrames=too_few)
        assert read_image(content)[0, 0, 0] == frames[0, 0, 0]


def test_frames_have_their_own_rescale_and_window():
    from pydicom.dataset import Dataset

    frames = np.array(2 * [[[0, 90, 200, 200]]], np.uint16)
    groups = []
    for slope, center, width in ((1, 100.5, 201), (10, 1000.5, 2001)):
        group, unit, voi = Dataset(), Dataset(), Dataset()
        unit.RescaleSlope, unit.RescaleIntercept, unit.RescaleType = slope, 0, "US"
        voi.WindowCenter, voi.WindowWidth = center, width
        group.PixelValueTransformationSequence = [unit]
        group.FrameVOILUTSequence = [voi]
        groups.append(group)
    content = drawn(frames, PerFrameFunctionalGroupsSequence=groups)
    assert row(content, frame=0) == [0, 115, 255, 255]
    assert row(content, frame=1) == [0, 115, 255, 255]
    fewer = drawn(frames, PerFrameFunctionalGroupsSequence=groups[:1])
    assert row(fewer, frame=0) == [0, 115, 255, 255]
    assert row(fewer, frame=1) == [0, 115, 255, 255]  # from its least to its largest


# Files without preamble, deflated files


def deflated(content):
    """Return a DICOM file that holds the same, deflated."""
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    stream = pydicom.filebase.DicomBytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def test_deflated_files():
    content = drawn(RAMP)
    assert row(deflated(content)) == row(content)
    large = np.random.default_rng(0).integers(0, 4000, (50, 60)).astype(np.uint16)
    np.testing.assert_array_equal(
        read_image(deflated(drawn(large))), read_image(drawn(large))
    )
    with pytest.raises(ImageReadError, match="cut|read"):
        read_image(deflated(drawn(large))[:-800])


def test_a_deflated_file_inflates_to_no_more_than_its_picture_may_hold():
    head = deflated(drawn(RAMP))
    length = 144 + int.from_bytes(head[140:144], "little")
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflate.compress(bytes(40_000_000)) + deflate.flush()
    assert len(bomb) < 50_000
    with pytest.raises(ImageReadError, match="inflates"):
        read_image(head[:length] + bomb, max_pixels=1000)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_files_without_preamble(syntax):
    content = drawn(RAMP, syntax=syntax, preamble=False)
    assert content[128:132] != b"DICM"
    assert row(content) == [0, 64, 128, 191, 255]
    assert row(drawn(RAMP, syntax=syntax)) == [0, 64, 128, 191, 255]


def test_a_tiff_header_in_the_preamble_is_still_dicom():
    content = b"II*\x00" + drawn(RAMP)[4:]
    assert row(content) == [0, 64, 128, 191, 255]
