"""DICOM grey values: drawn files, one for each tag that decides on brightness."""

import io
import pickle

import numpy as np
import pydicom
import pytest
from dicom_files import RAMP, drawn, row
from pydicom.dataset import Dataset
from sklearn.base import BaseEstimator, clone
from sklearn.model_selection import ParameterGrid

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    VOI,
    Percentiles,
    Window,
    check_images,
    read_image,
    recipe_key,
    validate_intensity,
)


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


# Windows and tables to choose from


def table_item(table, *, first=0, bits=8):
    item = Dataset()
    item.LUTDescriptor = [len(table), first, bits]
    item.LUTData = list(table)
    item["LUTData"].VR = "US"
    return item


def test_voi_chooses_among_tables_and_windows():
    values = np.array([[0, 1, 2, 3]], np.uint16)
    content = drawn(
        values,
        VOILUTSequence=[table_item([0, 10, 20, 30]), table_item([255, 0, 0, 7])],
        WindowCenter=[2, 1.5, 1],
        WindowWidth=[0, 5, 2],
    )
    tables = [0, 10, 20, 30], [255, 0, 0, 7]
    assert row(content) == tables[0]
    assert row(content, intensity=VOI()) == tables[0]
    assert row(content, intensity=VOI(1)) == tables[1]
    assert row(content, intensity=VOI(2)) == [64, 128, 191, 255]  # from -1 to 3
    assert row(content, intensity=VOI(3)) == [0, 255, 255, 255]
    with pytest.raises(ImageReadError) as caught:
        read_image(content, intensity=VOI(4))
    assert caught.value.reason == "VOI(index=4) was requested, but it holds 4"
    assert caught.value.hint == "Use an index below 4."


@pytest.mark.parametrize("modality", ["CT", "MR", "US", "PT"])
def test_voi_is_the_window_of_the_file_whatever_the_modality(modality):
    tags = {"Modality": modality, "WindowCenter": 2000.5, "WindowWidth": 2001}
    tags |= {"RescaleSlope": 1, "RescaleIntercept": 0}
    assert row(drawn(RAMP, **tags), intensity=VOI()) == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    "source",
    [np.zeros((2, 2), np.uint8), drawn(RAMP), drawn(np.zeros((2, 2, 3), np.uint8))],
    ids=["array", "without window", "colours"],
)
def test_voi_without_a_window_or_table_is_an_error(source):
    with pytest.raises(ImageReadError, match="no window"):
        read_image(source, intensity=VOI())


class Holder(BaseEstimator):
    def __init__(self, intensity="auto"):
        self.intensity = intensity


def test_voi_is_a_value_and_a_parameter():
    for index in (-1, True, 1.0, "0", None):
        with pytest.raises(ValueError, match="index"):
            VOI(index)
    assert repr(VOI(np.int64(2))) == "VOI(index=2)"
    assert eval(repr(VOI(2))) == pickle.loads(pickle.dumps(VOI(2))) == VOI(2)
    assert hash(VOI()) == hash(VOI(0)) != hash(VOI(1))
    with pytest.raises(AttributeError):
        VOI().index = 1
    validate_intensity(VOI())
    keys = {
        recipe_key(value, None) for value in ("auto", VOI(), VOI(1), VOI(np.int8(1)))
    }
    assert len(keys) == 3
    assert clone(Holder(VOI(1))).get_params() == {"intensity": VOI(1)}
    grid = ParameterGrid({"intensity": ["auto", VOI(0), VOI(1)]})
    assert [point["intensity"] for point in grid] == ["auto", VOI(0), VOI(1)]


def test_windows_on_fractions_may_be_narrower_than_one():
    window = {"WindowCenter": 0.5, "WindowWidth": 0.5, "Modality": "PT"}
    rescale = {"RescaleSlope": 0.001, "RescaleIntercept": 0}
    values = np.array([[0, 250, 401, 750, 1000]], np.uint16)
    assert row(drawn(values, **window, **rescale)) == [0, 0, 77, 255, 255]


def test_a_table_may_start_below_zero():
    signed = np.array([[-3, -2, -1, 0, 5]], np.int16)
    for first in (-2, 2**16 - 2):
        item = table_item([10, 20, 30], first=0)
        item["LUTDescriptor"].VR = "US" if first > 0 else "SS"
        item.LUTDescriptor = [3, first, 8]
        content = drawn(signed, VOILUTSequence=[item])
        assert row(content) == [10, 10, 20, 30, 30]


# Stored values


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_what_lies_in_the_unused_bits_does_not_show(bits, dtype):
    low = 0 if dtype == np.uint16 else -(2 ** (bits - 1))
    values = np.linspace(low, low + 2**bits - 1, 48).astype(dtype).reshape(6, 8)
    tags = {"BitsStored": bits, "HighBit": bits - 1}
    clean = drawn(values, **tags)
    overlay = np.random.default_rng(0).integers(0, 2 ** (16 - bits), values.shape)
    bits_kept = values.view(np.uint16) % 2**bits
    dirty = (bits_kept + overlay * 2**bits).astype(np.uint16).view(dtype)
    assert (dirty != values).any()
    np.testing.assert_array_equal(read_image(drawn(dirty, **tags)), read_image(clean))
    extremes = check_images([drawn(dirty, **tags)])[["low", "high"]]
    assert extremes.to_numpy().tolist() == [[values.min(), values.max()]]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_the_high_bit_says_where_the_value_stands(dtype):
    low = 0 if dtype == np.uint16 else -2048
    values = np.linspace(low, low + 4095, 48).astype(dtype).reshape(6, 8)
    moved = (values.astype(np.int64) * 16 + 5).astype(dtype)  # and 5 below it
    tags = {"BitsStored": 12, "HighBit": 15}
    clean = drawn(values, BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_image(drawn(moved, **tags)), read_image(clean))
    extremes = check_images([drawn(moved, **tags)])[["low", "high"]]
    assert extremes.to_numpy().tolist() == [[values.min(), values.max()]]


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("wrapped", [False, True])
def test_negative_padding_does_not_count(bits, wrapped):
    values = np.array([[-2000, 0, 100, 200]], np.int16)
    # Both are the same two bytes; some writers give them the type without a sign.
    clean = drawn(values, BitsStored=bits, HighBit=bits - 1)
    dataset = pydicom.dcmread(io.BytesIO(clean))
    vr, padding = ("US", 2**16 - 2000) if wrapped else ("SS", -2000)
    dataset.add_new("PixelPaddingValue", vr, padding)
    content = io.BytesIO()
    dataset.save_as(content)
    assert row(content.getvalue()) == [0, 0, 128, 255]


def test_a_range_of_padding_does_not_count():
    values = np.array([[5, 6, 7, 100, 200, 300]], np.uint16)
    tags = {"PixelPaddingValue": 5, "PixelPaddingRangeLimit": 7}
    assert row(drawn(values, **tags)) == [0, 0, 0, 0, 128, 255]
    assert row(drawn(values, **tags), intensity=Percentiles(0, 100))[3:] == [
        0,
        128,
        255,
    ]


# What "auto" thinks of a modality


@pytest.mark.parametrize(
    "tags",
    [
        {"RescaleType": "ED"},  # electron density
        {"RescaleType": "Z_EFF"},
        {"RescaleType": "US", "ImageType": ["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]},
    ],
)
def test_a_ct_map_without_hounsfield_units_is_shown_by_its_window(tags):
    tags |= {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1000}
    assert row(drawn(RAMP, **tags)) == [0, 64, 128, 191, 255]
    window = {"WindowCenter": 1000.5, "WindowWidth": 2001}
    assert row(drawn(RAMP, **tags, **window)) == [0, 0, 128, 255, 255]


@pytest.mark.parametrize("unit", [None, "HU", "HU_MOD", "US"])
def test_a_ct_in_hounsfield_units(unit):
    tags = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1000}
    tags |= {"RescaleType": unit} if unit else {}
    content = drawn(RAMP, **tags)
    np.testing.assert_array_equal(
        read_image(content), read_image(content, intensity="ct")
    )


def test_a_captured_ct_that_says_a_rescale_of_one_has_no_hounsfield_units():
    grey = np.array([[10, 100, 200, 201]], np.uint8)
    tags = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0}
    assert row(drawn(grey, **tags)) == [10, 100, 200, 201]


@pytest.mark.parametrize("modality", ["PT", "NM"])
def test_uptake_without_a_window_is_shown_whole(modality):
    tags = {"RescaleSlope": 0.25, "RescaleIntercept": 0, "RescaleType": "BQML"}
    assert row(drawn(RAMP, Modality=modality, **tags)) == [0, 64, 128, 191, 255]


@pytest.mark.parametrize("modality", ["PX", "XA", "MG", "OT"])
def test_a_falling_rescale_is_a_negative(modality):
    tags = {"RescaleSlope": -1, "RescaleIntercept": 255, "Modality": modality}
    grey = np.array([[0, 55, 255, 255]], np.uint8)
    assert row(drawn(grey, **tags)) == [255, 200, 0, 0]


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_pixels_may_be_floats(keyword):
    floats = np.array([[0.0, 0.5, 1.0, 2.0]])
    width = 4 if keyword == "FloatPixelData" else 8
    tags = {
        "PixelData": None,
        keyword: floats.astype(f"<f{width}").tobytes(),
        "BitsAllocated": 8 * width,
        "BitsStored": None,
        "HighBit": None,
        "PixelRepresentation": None,
    }
    assert row(drawn(np.zeros((1, 4), np.uint8), **tags)) == [0, 64, 128, 255]
    tags[keyword] = np.array([[0, np.nan, 1, 2]], f"<f{width}").tobytes()
    # As in NIfTI files: shown as the lowest value, and in no percentile.
    assert row(drawn(np.zeros((1, 4), np.uint8), **tags)) == [0, 0, 128, 255]
    tags[keyword] = np.array([[np.nan, 5, np.inf, 6]], f"<f{width}").tobytes()
    assert row(drawn(np.zeros((1, 4), np.uint8), **tags)) == [0, 0, 0, 255]
    tags[keyword] = np.full((1, 4), np.nan, f"<f{width}").tobytes()
    with pytest.raises(ImageReadError, match="NaN"):
        read_image(drawn(np.zeros((1, 4), np.uint8), **tags))


# Elements that are not needed


@pytest.mark.parametrize("sequence", ["VOILUTSequence", "ModalityLUTSequence"])
def test_an_empty_table_is_no_table(sequence):
    expected = row(drawn(RAMP))
    for item in (Dataset(), table_item([])):
        assert row(drawn(RAMP, **{sequence: [item]})) == expected
        tags = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
        plain = read_image(drawn(RAMP, **tags))
        np.testing.assert_array_equal(
            read_image(drawn(RAMP, **tags, **{sequence: [item]})), plain
        )


def test_a_damaged_table_is_an_error_only_where_it_is_used():
    item = table_item([1, 2, 3])
    item.LUTDescriptor = [3, 0]
    content = drawn(RAMP, Modality="MR", VOILUTSequence=[item])
    np.testing.assert_array_equal(
        read_image(content), read_image(drawn(RAMP, Modality="MR"))
    )
    with pytest.raises(ImageReadError, match="lookup table"):
        read_image(content, intensity=VOI())
    with pytest.raises(ImageReadError, match="lookup table"):
        read_image(drawn(RAMP, VOILUTSequence=[item]))


@pytest.mark.parametrize("tag", ["WindowCenter", "WindowWidth"])
@pytest.mark.parametrize("modality", ["MR", "CT", "DX", "US"])
def test_a_window_that_is_no_number_is_no_window(modality, tag):
    tags = {"Modality": modality, "RescaleSlope": 1, "RescaleIntercept": -1024}
    expected = read_image(drawn(RAMP, **tags))
    windows = {"WindowCenter": "1111", "WindowWidth": "2222"}
    content = drawn(RAMP, **tags, **windows)
    content = content.replace(windows[tag].encode(), b"10,4")
    np.testing.assert_array_equal(read_image(content), expected)
    with pytest.raises(ImageReadError, match="no window"):
        read_image(content, intensity=VOI())


def test_a_rescale_that_is_no_number_matters_where_values_have_a_unit():
    tags = {"RescaleSlope": 1, "RescaleIntercept": "-1024"}

    def broken(modality):
        return drawn(RAMP, Modality=modality, **tags).replace(b"-1024", b"-10,4")

    assert row(broken("MR")) == row(drawn(RAMP, Modality="MR"))
    for modality in ("CT", "PT", "DX"):
        with pytest.raises(ImageReadError, match="grey values"):
            read_image(broken(modality))


# Colours


def test_planes_and_pixels_of_colour():
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(read_image(drawn(colours)), colours)
    planes = np.ascontiguousarray(colours.transpose(2, 0, 1)).reshape(colours.shape)
    pixels = read_image(drawn(planes, PlanarConfiguration=1))
    np.testing.assert_array_equal(pixels, colours)


def test_a_palette_of_8_and_16_bits():
    indices = np.array([[0, 1, 2, 2]], np.uint8)
    for scale in (1, 257):
        palette = {"PhotometricInterpretation": "PALETTE COLOR"}
        for name, table in (
            ("Red", [0, 1, 255]),
            ("Green", [0, 2, 100]),
            ("Blue", [0, 3, 0]),
        ):
            start = f"{name}PaletteColorLookupTable"
            palette[f"{start}Descriptor"] = [3, 0, 16]
            palette[f"{start}Data"] = (np.array(table) * scale).astype("<u2").tobytes()
        pixels = read_image(drawn(indices, **palette))
        assert pixels[0].tolist() == [
            [0, 0, 0],
            [1, 2, 3],
            [255, 100, 0],
            [255, 100, 0],
        ]
        # The picture need not use the bright end.
        dark = read_image(drawn(np.array([[0, 1, 1, 1]], np.uint8), **palette))
        assert dark[0, :2].tolist() == [[0, 0, 0], [1, 2, 3]]
