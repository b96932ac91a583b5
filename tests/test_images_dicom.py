"""DICOM files: real ones against pydicom's own functions, drawn ones for each tag."""

import io
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import DATA_ROOT
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    CTWindows,
    Percentiles,
    Window,
    check_images,
    read_image,
)

FOLDERS = [Path(DATA_ROOT) / "test_files"]
try:
    import data_store
except ImportError:
    pass
else:
    FOLDERS.append(Path(data_store.__file__).parent / "data")

PATIENT = "Doe^Jane"


def real(name):
    for folder in FOLDERS:
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
    dataset.Rows, dataset.Columns = values.shape[:2]
    dataset.BitsAllocated = values.dtype.itemsize * 8
    dataset.BitsStored = dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.SamplesPerPixel = 1 if values.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if values.ndim == 2 else "RGB"
    if values.ndim == 3:
        dataset.PlanarConfiguration = 0
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = values.astype(values.dtype.newbyteorder(order)).tobytes()
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


# Real files


def expected_pixels(path):
    """Read a grey file with pydicom alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        stored = dataset.pixel_array
    in_unit = apply_modality_lut(stored, dataset).astype(float)
    if dataset.Modality == "CT" and "RescaleSlope" in dataset:
        pairs = [(-1024, 1024), (-135, 215), (0, 80)]
        shown = [np.interp(in_unit, pair, (0, 255)) for pair in pairs]
        return np.stack(shown, axis=-1)
    if dataset.Modality == "MR":
        shown = np.interp(in_unit, np.percentile(in_unit, [1, 99]), (0, 255))
    elif "VOILUTSequence" in dataset:
        bits = dataset.VOILUTSequence[0].LUTDescriptor[2]
        shown = apply_voi_lut(in_unit.astype(int), dataset) * (255 / (2**bits - 1))
    elif "WindowWidth" in dataset and dataset.Modality != "US":
        shown = apply_voi_lut(in_unit, dataset)
        levels = np.array([0, 2**dataset.BitsStored - 1.0])
        if dataset.PixelRepresentation:
            levels -= 2 ** (dataset.BitsStored - 1)
        shown = np.interp(shown, apply_modality_lut(levels, dataset), (0, 255))
    elif stored.dtype == np.uint8:
        shown = stored * (255 / (2**dataset.BitsStored - 1))
    else:
        shown = np.interp(in_unit, (in_unit.min(), in_unit.max()), (0, 255))
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    return np.repeat(shown[..., None], 3, axis=2)


@pytest.mark.parametrize(
    "name",
    [
        "693_UNCI.dcm",  # head CT
        "CT_small.dcm",
        "explicit_VR-UN.dcm",
        "J2K_pixelrep_mismatch.dcm",
        "MR2_UNCI.dcm",
        "MR_small.dcm",
        "MR_small_RLE.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_jp2klossless.dcm",
        "MR-SIEMENS-DICOM-WithOverlays.dcm",
        "RG1_UNCI.dcm",  # chest radiograph, MONOCHROME1
        "RG1_J2KR.dcm",
        "RG3_UNCI.dcm",
        "JPEG2000.dcm",
        "examples_overlay.dcm",
        "image_dfl.dcm",
        "liver_1frame.dcm",
        "mlut_18.dcm",
        "rtdose_1frame.dcm",
        "vlut_04.dcm",
    ],
)
def test_grey_files_equal_an_independent_reading(name):
    path = real(name)
    pixels = read_image(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.std() > 1
    assert np.abs(pixels - expected_pixels(path)).max() <= 1
    np.testing.assert_array_equal(read_image(path.read_bytes()), pixels)


@pytest.mark.parametrize(
    "name",
    [
        "US1_UNCI.dcm",
        "US1_J2KR.dcm",
        "SC_rgb_small_odd.dcm",
        "SC_rgb_rle.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_ybr_full_422_uncompressed.dcm",
        "SC_ybr_full_uncompressed.dcm",
        "examples_rgb_color.dcm",
        "color-pl.dcm",  # planes
        "color-px.dcm",  # pixels
    ],
)
def test_colour_files_are_as_stored(name):
    path = real(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        expected = pydicom.pixels.pixel_array(dataset)
    assert expected.shape[2] == 3
    np.testing.assert_array_equal(read_image(path), expected)


def test_palettes_of_both_byte_orders_and_16_bit_colours():
    palette = read_image(real("OBXXXX1A.dcm"))
    assert palette.max() > 250
    difference = palette.astype(int) - read_image(real("OBXXXX1A_expb.dcm"))
    assert np.abs(difference).max() <= 1
    np.testing.assert_array_equal(
        read_image(real("SC_rgb_16bit.dcm")), read_image(real("SC_rgb.dcm"))
    )
    np.testing.assert_array_equal(
        read_image(real("SC_rgb_32bit.dcm")), read_image(real("SC_rgb.dcm"))
    )


def test_frames_of_real_files():
    path = real("emri_small.dcm")
    with pytest.raises(ImageReadError, match="it holds 10 frames"):
        read_image(path)
    frames = [read_image(path, frame=i) for i in range(10)]
    assert len({frame.tobytes() for frame in frames}) == 10
    np.testing.assert_array_equal(read_image(path, frame="middle"), frames[5])
    with pytest.raises(ImageReadError, match="frame=10 is asked for, and it holds 10"):
        read_image(path, frame=10)
    # An enhanced CT says its rescale in the functional groups.
    enhanced = real("eCT_Supplemental.dcm")
    dataset = pydicom.dcmread(enhanced)
    groups = dataset.SharedFunctionalGroupsSequence[0]
    groups = groups if "PixelValueTransformationSequence" in groups else None
    item = (groups or dataset.PerFrameFunctionalGroupsSequence[0])[
        "PixelValueTransformationSequence"
    ].value[0]
    hounsfield = dataset.pixel_array[0] * item.RescaleSlope + item.RescaleIntercept
    np.testing.assert_array_equal(
        read_image(enhanced, frame=0), read_image(hounsfield, intensity=CTWindows())
    )


def test_check_images_names_modality_and_size():
    table = check_images([real("CT_small.dcm"), real("MR_small.dcm")])
    assert table.modality.tolist() == ["CT", "MR"]
    assert table.format.tolist() == ["DICOM", "DICOM"]
    assert table.height.tolist() == [128, 64]
    assert table.readable.all()


# Grey values


def test_voi_window_as_the_standard_says():
    # PS3.3 C.11.2.1.2.1: black up to center - 0.5 - (width - 1) / 2
    window = {"WindowCenter": 2000.5, "WindowWidth": 2001}
    assert row(drawn(RAMP, **window)) == [0, 0, 128, 255, 255]
    exact = window | {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": 2000}
    assert row(drawn(RAMP, **exact)) == [0, 0, 128, 255, 255]
    step = {"WindowCenter": 2000.5, "WindowWidth": 1}
    assert row(drawn(RAMP, **step)) == [0, 0, 0, 255, 255]
    sigmoid = {"WindowCenter": 2000, "WindowWidth": 2000, "VOILUTFunction": "SIGMOID"}
    exact = 255 / (1 + np.exp(-4 * (RAMP[0] - 2000.0) / 2000))
    assert np.abs(row(drawn(RAMP, **sigmoid)) - exact).max() <= 0.5001
    several = {"WindowCenter": [2000.5, 40], "WindowWidth": [2001, 80]}
    assert row(drawn(RAMP, **several)) == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"WindowCenter": 40},
        {"WindowCenter": 40, "WindowWidth": 0},
        {"WindowCenter": 40, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
    ],
)
def test_without_a_usable_window_the_whole_range_is_shown(window):
    assert row(drawn(RAMP, **window)) == [0, 64, 128, 191, 255]


def test_padding_values_do_not_count():
    padded = np.array([[0, 1000, 2000, 3000, 65535, 65000]], np.uint16)
    tags = {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 65000}
    assert row(drawn(padded, **tags)) == [0, 85, 170, 255, 255, 255]


def test_monochrome1_is_inverted_whatever_the_window():
    negative = drawn(RAMP, PhotometricInterpretation="MONOCHROME1")
    assert row(negative) == [255, 191, 127, 64, 0]
    assert row(negative, intensity=Window(2000, 2000)) == [255, 255, 127, 0, 0]
    bytes_ = np.array([[0, 100, 255, 7]], np.uint8)
    negative = drawn(bytes_, PhotometricInterpretation="MONOCHROME1")
    assert row(negative) == [255, 155, 0, 248]


@pytest.mark.parametrize("modality", ["US", "XC", "SM", "GM", "OP"])
def test_pictures_made_to_be_looked_at_are_as_stored(modality):
    grey = np.array([[10, 100, 200, 201]], np.uint8)
    window = {"WindowCenter": 40, "WindowWidth": 80, "Modality": modality}
    assert row(drawn(grey, **window)) == [10, 100, 200, 201]
    deep = drawn(RAMP, **window, BitsStored=12, HighBit=11)
    assert row(deep) == [0, 62, 125, 187, 249]


def test_8_bit_radiographs_without_window_are_as_stored():
    grey = np.array([[10, 100, 200, 201]], np.uint8)
    assert row(drawn(grey)) == [10, 100, 200, 201]


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_ct_is_in_hounsfield_units(dtype):
    hounsfield = np.array([[-1024, -135, 0, 40, 80, 215, 1024]])
    stored = (hounsfield + (1024 if dtype == np.uint16 else 0)).astype(dtype)
    tags = {"RescaleSlope": 1, "RescaleIntercept": -1024 if dtype == np.uint16 else 0}
    content = drawn(stored, Modality="CT", **tags)
    pixels = read_image(content)[0]
    assert pixels[:, 0].tolist() == [0, 111, 128, 132, 137, 154, 255]
    assert pixels[:, 1].tolist() == [0, 0, 98, 128, 157, 255, 255]
    assert pixels[:, 2].tolist() == [0, 0, 0, 128, 255, 255, 255]
    # Large enough to go through the table of all 65,536 values.
    large = drawn(np.tile(stored, (300, 60)), Modality="CT", **tags)
    np.testing.assert_array_equal(
        read_image(large), np.tile(pixels[None], (300, 60, 1))
    )
    assert row(content, intensity="brain") == pixels[:, 2].tolist()


def test_ct_captured_from_a_screen_has_no_hounsfield_units():
    grey = np.array([[10, 100, 200, 201]], np.uint8)
    assert row(drawn(grey, Modality="CT")) == [10, 100, 200, 201]


def test_mr_uses_its_own_percentiles():
    signal = np.arange(1000, dtype=np.uint16).reshape(20, 50)
    for window in ({}, {"WindowCenter": 1, "WindowWidth": 2}):
        content = drawn(signal, Modality="MR", **window)
        np.testing.assert_array_equal(
            read_image(content),
            read_image(signal.astype(float), intensity=Percentiles(1, 99)),
        )


@pytest.mark.parametrize("as_bytes", [True, False])
def test_lookup_tables(as_bytes):
    table = np.array([0, 4095, 0, 2048], "<u2")

    def sequence():
        item = Dataset()
        item.LUTDescriptor = [4, 1000, 12]
        item.LUTData = table.tobytes() if as_bytes else table.tolist()
        item["LUTData"].VR = "OW" if as_bytes else "US"
        return [item]

    values = np.array([[0, 1000, 1001, 1002, 1003, 9000]], np.uint16)
    voi = drawn(values, VOILUTSequence=sequence())
    assert row(voi) == [0, 0, 255, 0, 128, 128]
    modality = drawn(
        values,
        ModalityLUTSequence=sequence(),
        WindowCenter=2048,
        WindowWidth=4096,
    )
    assert row(modality) == [0, 0, 255, 0, 128, 128]


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


# What must not get out


def test_pydicom_is_quiet_here_and_nowhere_else(caplog):
    path = real("MR_small_padded.dcm")
    logging.getLogger("pydicom").setLevel(logging.DEBUG)
    try:
        with caplog.at_level(logging.DEBUG):
            read_image(path)  # its excess padding would be a warning, so an error
            assert not [r for r in caplog.records if r.name == "pydicom"]
            with pytest.warns(UserWarning, match="excess padding"):
                pydicom.dcmread(path).pixel_array  # noqa: B018
            assert [r for r in caplog.records if r.name == "pydicom"]
    finally:
        logging.getLogger("pydicom").setLevel(logging.WARNING)


def test_other_threads_keep_their_warnings():
    path = real("MR_small_padded.dcm")
    content = path.read_bytes()
    with ThreadPoolExecutor(4) as threads, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        reading = [threads.submit(read_image, content) for _ in range(60)]
        for line in range(20):  # as pydicom would, used directly by somebody else
            warnings.warn_explicit("mine", UserWarning, "f.py", line, "pydicom.x")
        for future in reading:
            future.result()
    assert [str(warning.message) for warning in seen] == ["mine"] * 20


@pytest.mark.parametrize(
    "tags",
    [
        {"Rows": 9},
        {"WindowCenter": 3, "WindowWidth": 1, "PhotometricInterpretation": "RGB"},
        {"BitsAllocated": 7},
        {"SOPClassUID": "1.2.826.99", "Rows": None, "PixelData": None},
    ],
)
def test_errors_hold_no_values_of_tags(tags, caplog):
    with pytest.raises(ImageReadError) as caught:
        read_image(drawn(RAMP, **tags))
    error: BaseException | None = caught.value
    while error is not None:
        assert "Doe" not in str(error)
        assert "1.2.826" not in str(error)
        error = error.__cause__
    assert not caplog.records


# Bad files


def without_pixels(sop_class):
    return drawn(RAMP, SOPClassUID=sop_class, PixelData=None, Rows=None)


BAD = {
    "structured report": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.88.11"),
        "it holds no pixels: it is a Basic Text SR Storage object",
        "Leave it out",
    ),
    "contours": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.481.3"),
        "it holds no pixels: it is a RT Structure Set Storage object",
        "Leave it out",
    ),
    "document": (
        lambda: without_pixels("1.2.840.10008.5.1.4.1.1.104.1"),
        "it holds no pixels: it is a Encapsulated PDF Storage object",
        "Leave it out",
    ),
    "image without pixels": (
        lambda: drawn(RAMP, PixelData=None),
        "its pixels are missing or cut short",
        "Copy or export it again.",
    ),
    "pixels cut short": (
        lambda: drawn(np.zeros((50, 50), np.uint16))[:-1000],
        "(its pixels are|its DICOM tags).*(cut short|cannot be read)",
        "Copy or export it again.",
    ),
    "tags cut short": (
        lambda: drawn(RAMP)[:300],
        "its .* (missing or cut short|cannot be read)",
        "Copy or export it again.",
    ),
    "only the magic": (lambda: bytes(128) + b"DICM", "it holds no pixels", ""),
    "no photometric interpretation": (
        lambda: drawn(RAMP, PhotometricInterpretation=None),
        "its pixels are damaged, cut short, or unlike its tags",
        "Copy or export it again.",
    ),
    "colours announced, grey stored": (
        lambda: drawn(RAMP, PhotometricInterpretation="RGB"),
        "its tags announce colours, its pixels are grey",
        "Copy or export it again.",
    ),
    "more rows than pixels": (
        lambda: drawn(RAMP, Rows=500),
        "its pixels are damaged, cut short, or unlike its tags",
        "Copy or export it again.",
    ),
    "a lying size": (
        lambda: drawn(RAMP, Rows=60000, Columns=60000),
        "it has 60000 x 60000 = 3600000000 pixels, more than max_pixels=178956970",
        "If the file can be trusted, raise max_pixels",
    ),
    "video": (
        lambda: drawn(RAMP, syntax=MPEG2MPML, PixelData=encapsulate([bytes(10)])),
        "its pixels are stored as MPEG2 Main Profile / Main Level, which is not read",
        "Export it as uncompressed DICOM",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_dicom_files_are_explained(case, tmp_path):
    make, reason, hint = BAD[case]
    path = tmp_path / "bad.dcm"
    path.write_bytes(make())
    with pytest.raises(ImageReadError, match=f"^{path}: {reason}") as caught:
        read_image(path)
    assert hint in caught.value.hint


def test_a_missing_codec_names_the_extra_to_install(monkeypatch):
    from pydicom.pixels.decoders import JPEGLSLosslessDecoder

    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
    path = real("MR_small_jpeg_ls_lossless.dcm")
    with pytest.raises(ImageReadError, match=JPEGLSLossless.name) as caught:
        read_image(path)
    assert caught.value.reason.endswith("and no codec for it is installed")
    assert 'pip install "sk-medsiglip[dicom]"' in caught.value.hint
