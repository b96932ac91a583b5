"""Regions: cuts of any source, and collections of them."""

import io

import numpy as np
import pandas as pd
import pydicom.data
import pytest
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    Percentiles,
    Region,
    Window,
    check_images,
    image_rows,
    read_image,
)

tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
pytest.importorskip("imagecodecs", reason="imagecodecs is not installed")

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (300, 400, 3), dtype=np.uint8)
GREY = COLOUR[..., 0].copy()
DEEP = RNG.integers(0, 3000, (300, 400), dtype=np.uint16)
OPACITY = np.dstack([COLOUR, GREY])
ROWS, COLUMNS = np.mgrid[:300, :400]
SMOOTH = np.dstack([(ROWS + COLUMNS) // 3, ROWS // 2, COLUMNS // 2]).astype(np.uint8)
BOXES = [(0, 0, 400, 300), (37, 51, 130, 77), (399, 299, 1, 1), (64, 64, 64, 64)]


def cut(pixels, x, y, width, height):
    return pixels[y : y + height, x : x + width]


def tiff(pixels, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, metadata=None, **options)
    return stream.getvalue()


def error_of(source, **parameters):
    with pytest.raises(ImageReadError) as caught:
        read_image(source, **parameters)
    return caught.value


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


SOURCES = {
    "bytes": lambda: png(COLOUR),
    "16-bit file": lambda: png(DEEP),
    "file object": lambda: io.BytesIO(png(OPACITY)),
    "PIL image": lambda: Image.fromarray(COLOUR),
    "array": lambda: COLOUR,
    "16-bit array": lambda: DEEP,
    "float array": lambda: GREY / 255,
    "array with opacity": lambda: OPACITY,
    "region": lambda: Region(COLOUR, 10, 20, 300, 250),
    "8-bit TIFF": lambda: tiff(GREY, tile=(64, 64)),
    "16-bit TIFF": lambda: tiff(DEEP, tile=(64, 64)),
    "MR": lambda: pydicom.data.get_testdata_file("MR_small.dcm"),
    "CT": lambda: pydicom.data.get_testdata_file("CT_small.dcm"),
}


@pytest.mark.parametrize("intensity", ["auto", Percentiles(5, 95), Window(90, 60)])
@pytest.mark.parametrize("kind", SOURCES)
def test_a_region_shows_what_the_whole_image_shows_there(kind, intensity):
    source = SOURCES[kind]()
    whole = read_image(source, intensity=intensity)
    box = (5, 11, 40, 33)
    region = read_image(Region(source, *box), intensity=intensity)
    np.testing.assert_array_equal(region, cut(whole, *box))


def test_a_dark_region_is_not_brightened_to_its_own_range():
    image = np.full((100, 100), 4000, np.uint16)
    image[:50, :50] = 200
    for source in (image, png(image), tiff(image, tile=(16, 16))):
        assert read_image(Region(source, 0, 0, 50, 50)).max() == 12


def test_paths_and_exif_orientation(tmp_path):
    path = tmp_path / "phone.jpg"
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(SMOOTH).save(path, quality=95, exif=exif)
    whole = read_image(path)
    assert whole.shape == (400, 300, 3)
    region = read_image(Region(str(path), 10, 320, 200, 60))
    np.testing.assert_array_equal(region, cut(whole, 10, 320, 200, 60))


def test_max_pixels_counts_what_is_decoded():
    region = Region(GREY, 0, 0, 10, 10)
    assert read_image(region, max_pixels=100).shape == (10, 10, 3)
    assert "more than max_pixels=99" in error_of(region, max_pixels=99).reason
    tiles = Region(tiff(GREY, tile=(16, 16)), 0, 0, 10, 10)
    assert read_image(tiles, max_pixels=256).shape == (10, 10, 3)
    assert "16 x 16" in error_of(tiles, max_pixels=200).reason
    whole = Region(png(GREY), 0, 0, 10, 10)
    assert "300 x 400" in error_of(whole, max_pixels=1000).reason


def test_values_that_need_the_whole_image_are_refused_where_it_is_too_large():
    region = Region(tiff(DEEP, tile=(64, 64)), 0, 0, 32, 32)
    assert read_image(region, intensity=Window(1500, 3000), max_pixels=5000).any()
    for intensity in ("auto", Percentiles(1, 99)):
        error = error_of(region, intensity=intensity, max_pixels=5000)
        assert "300 x 400" in error.reason
        assert "intensity=Window" in error.hint


REFUSED = {
    "negative": ((-1, 0, 5, 5), "x=-1 of the region is too small"),
    "no width": ((0, 0, 0, 5), "width=0 of the region is too small"),
    "half a pixel": ((0.5, 0, 5, 5), "x=0.5 of the region is not an integer"),
    "NaN": ((0, float("nan"), 5, 5), "y=nan of the region is not an integer"),
    "infinity": ((0, 0, float("inf"), 5), "width=inf of the region is not an integer"),
    "missing": ((0, 0, 5, None), "height=None of the region is not an integer"),
    "pd.NA": ((0, 0, 5, pd.NA), "height=<NA> of the region is not an integer"),
    "text": (("0", 0, 5, 5), "x=0 of the region is not an integer"),
    "a truth": ((True, 0, 5, 5), "x=True of the region is not an integer"),
    "too far right": ((396, 0, 5, 5), "ends at x=401, y=5, outside .* 400 wide and"),
    "too far down": ((0, 296, 5, 5), "ends at x=5, y=301, .* and 300 high"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_regions_are_refused_when_they_are_read(case):
    box, message = REFUSED[case]
    for source in (COLOUR, png(COLOUR), tiff(COLOUR, tile=(64, 64))):
        with pytest.raises(ImageReadError, match=f"region .*{message}"):
            read_image(Region(source, *box))


def test_numbers_as_tables_hold_them():
    expected = cut(COLOUR, 3, 4, 5, 6)
    for kind in (np.int64, np.uint8, float, np.float32):
        region = Region(COLOUR, *(kind(n) for n in (3, 4, 5, 6)))
        np.testing.assert_array_equal(read_image(region), expected)


def test_regions_of_what_is_no_image():
    assert "no such file" in error_of(Region("gone.png", 0, 0, 1, 1)).reason
    assert "not an image" in error_of(Region(b"text" * 50, 0, 0, 1, 1)).reason
    assert "channels" in error_of(Region(np.zeros((3, 9, 9)), 0, 0, 1, 1)).reason
    assert "no pixels" in error_of(Region(np.zeros((0, 9)), 0, 0, 1, 1)).reason
    error = error_of(Region(png(GREY), 0, 0, 1, 1, level=1))
    assert "level 1 was requested" in error.reason


# --- Collections


TABLE = pd.DataFrame(
    {
        "path": ["a.png", "b.png"],
        "x": [1, 2],
        "y": [3, 4],
        "width": [5, 6],
        "height": [7, 8],
    }
)


def test_a_table_of_regions():
    rows = image_rows(TABLE)
    assert [row.part() for row in rows] == ["1,3,5,7,0", "2,4,6,8,0"]
    assert [row.source for row in rows] == ["a.png", "b.png"]
    with_level = image_rows(TABLE.assign(level=[0, 2])[["level", *TABLE]])
    assert [row.level for row in with_level] == [0, 2]
    renamed = image_rows(TABLE.rename(columns={"path": "slide"}))
    assert [row.source for row in renamed] == ["a.png", "b.png"]


def test_a_polars_table_of_regions():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    rows = image_rows(polars.DataFrame(TABLE.to_dict("list")))
    assert [row.part() for row in rows] == ["1,3,5,7,0", "2,4,6,8,0"]


def test_tables_that_are_not_quite_regions():
    with pytest.raises(ValueError, match="width, height"):
        image_rows(TABLE[["path", "x", "y"]])
    with pytest.raises(ValueError, match="'path', 'age'"):
        image_rows(TABLE.assign(age=3))
    with pytest.raises(ValueError, match="has 0"):
        image_rows(TABLE.drop(columns="path"))
    twice = pd.concat([TABLE, TABLE[["x"]]], axis=1)
    with pytest.raises(ValueError, match="duplicate"):
        image_rows(twice)
    # One column is a column of images, whatever its name.
    assert image_rows(pd.DataFrame({"x": ["a.png"]})) == ["a.png"]


def test_check_images_lists_the_boxes_that_cannot_be(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(COLOUR))
    table = pd.DataFrame(
        {
            "path": [path, path, path],
            "x": [0, np.nan, 399],
            "y": 0,
            "width": 10,
            "height": 10,
        },
        index=["a", "b", "c"],
    )
    report = check_images(table)
    assert list(report.readable) == [True, False, False]
    assert list(report.index) == ["a", "b", "c"]
    assert report.width["a"] == 10
    assert "x=nan" in report.reason["b"]
    assert "400 wide" in report.reason["c"]
