"""Reading what a user holds: every kind of source and every mode of picture."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    Percentiles,
    Window,
    check_images,
    image_fingerprint,
    read_image,
    source_path,
)


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)


def grey_rgb(grey):
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


# Sources


def test_one_picture_is_the_same_from_every_kind_of_source(tmp_path, colours):
    path = tmp_path / "a.png"
    Image.fromarray(colours).save(path)
    content = path.read_bytes()
    with path.open("rb") as stream, Image.open(path) as lazy:
        sources = [
            str(path),
            path,
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            stream,
            lazy,
            Image.fromarray(colours),
            colours,
            np.asfortranarray(colours),
            colours.astype(np.uint16) * 257,
            colours / 255,
            (colours / 255).astype(">f4"),
        ]
        for source in sources:
            pixels = read_image(source)
            np.testing.assert_array_equal(pixels, colours)
            assert pixels.dtype == np.uint8
            assert pixels.flags.c_contiguous
            assert image_fingerprint(pixels) == image_fingerprint(colours)


def test_grey_in_any_shape_is_one_picture(colours):
    grey = colours[..., 0]
    for source in (
        grey,
        grey[..., None],
        grey_rgb(grey),
        Image.fromarray(grey),
        Image.fromarray(grey_rgb(grey)),
    ):
        np.testing.assert_array_equal(read_image(source), grey_rgb(grey))


def test_a_file_object_is_read_from_its_start_and_left_where_it_stood(colours):
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "PNG")
    position = stream.tell()
    np.testing.assert_array_equal(read_image(stream), colours)
    assert stream.tell() == position


def test_one_file_object_in_several_threads(colours):
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "PNG")
    with ThreadPoolExecutor(8) as threads:
        for pixels in threads.map(read_image, [stream] * 40):
            np.testing.assert_array_equal(pixels, colours)


def test_the_home_directory_and_relative_paths(tmp_path, monkeypatch, colours):
    Image.fromarray(colours).save(tmp_path / "a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/a.png", Path("~/a.png"), "a.png", "./a.png"):
        np.testing.assert_array_equal(read_image(path), colours)
        assert source_path(path) == str(tmp_path / "a.png")
    assert source_path(b"content") is None
    assert source_path(colours) is None
    assert source_path(io.BytesIO()) is None


def test_objects_that_give_an_array_are_arrays(colours):
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return colours

    np.testing.assert_array_equal(read_image(Tensor()), colours)


# Picture files


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate", "big_tiff": True}),
        ("WEBP", {"lossless": True}),
        ("JPEG", {}),
        ("JPEG", {"quality": 100, "progressive": True}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats_are_known_by_content(tmp_path, colours, format, options, mode):
    image = Image.fromarray(colours).convert(mode)
    path = tmp_path / "misleading.dcm"
    image.save(path, format, **options)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    if format != "JPEG":
        np.testing.assert_array_equal(expected, np.asarray(image.convert("RGB")))


def saved(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_one_bit_images_are_black_and_white(colours, format):
    bits = colours[..., 0] > 127
    pixels = read_image(saved(Image.fromarray(bits), format))
    np.testing.assert_array_equal(pixels, grey_rgb(np.where(bits, 255, 0)))


def test_palettes(colours):
    image = Image.fromarray(colours).quantize(16)
    assert image.mode == "P"
    for source in (image, saved(image), saved(image, "BMP"), saved(image, "TIFF")):
        np.testing.assert_array_equal(
            read_image(source), np.asarray(image.convert("RGB"))
        )


def test_transparency_is_put_on_black(colours):
    alpha = np.random.default_rng(1).integers(0, 256, colours.shape[:2], np.uint8)
    alpha[0], alpha[1] = 0, 255
    with_alpha = np.dstack([colours, alpha])
    exact = colours * (alpha[..., None] / 255)
    image = Image.fromarray(with_alpha)
    webp = saved(image, "WEBP", lossless=True, exact=True)
    for source in (image, saved(image), saved(image, "TIFF"), webp, with_alpha):
        pixels = read_image(source)
        assert np.abs(pixels - exact).max() <= 0.5
        assert not pixels[0].any()
        np.testing.assert_array_equal(pixels[1], colours[1])
    for scaled in (with_alpha / 255, with_alpha.astype(np.uint16) * 257):
        np.testing.assert_array_equal(read_image(scaled), read_image(image))


def test_grey_and_palette_transparency_are_put_on_black():
    grey = np.array([[0, 100, 200]], np.uint8)
    opacity = np.array([[255, 128, 0]], np.uint8)
    image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(opacity)])
    for source in (image, saved(image)):
        assert read_image(source)[0, :, 0].tolist() == [0, 50, 0]
    one_colour = saved(Image.fromarray(grey), transparency=200)
    assert read_image(one_colour)[0, :, 0].tolist() == [0, 100, 0]
    palette = Image.fromarray(grey_rgb(grey)).quantize(3)
    white = palette.getpixel((2, 0))
    pixels = read_image(saved(palette, transparency=white))
    assert not pixels[0, 2].any()
    assert pixels[0, 1].any()


def test_cmyk_and_ycbcr(colours):
    smooth = np.asarray(Image.fromarray(colours).resize((16, 16)).resize((64, 64)))
    cmyk = Image.fromarray(smooth).convert("CMYK")
    for source in (cmyk, saved(cmyk, "TIFF"), saved(cmyk, "JPEG", quality=100)):
        assert np.abs(read_image(source).astype(int) - smooth).max() <= 8
    ycbcr = Image.fromarray(smooth).convert("YCbCr")
    assert np.abs(read_image(ycbcr).astype(int) - smooth).max() <= 4


@pytest.mark.parametrize("white", [255, 4095, 65535])
@pytest.mark.parametrize("size", [(50, 60), (300, 400)])  # by formula and by table
def test_16_bit_grey_uses_the_depth_that_its_values_have(tmp_path, white, size):
    grey = np.random.default_rng(0).integers(0, white + 1, size, dtype=np.uint16)
    grey[0, 0] = white
    exact = grey * (255 / white)
    image = Image.fromarray(grey)
    assert image.mode == "I;16"
    big_endian = Image.frombytes("I;16B", size[::-1], grey.astype(">u2").tobytes())
    for source in (
        grey,
        grey.astype(">u2"),
        image,
        saved(image),
        saved(image, "TIFF"),
        saved(image, "TIFF", compression="tiff_deflate"),
        saved(big_endian, "TIFF"),
    ):
        pixels = read_image(source)
        assert np.abs(pixels - grey_rgb(exact)).max() <= 0.5001


def test_16_bit_grey_of_another_depth_is_read_as_told():
    grey = np.array([[0, 512, 1023]], np.uint16)
    assert read_image(grey)[0, :, 0].tolist() == [0, 32, 64]
    window = Window(center=511.5, width=1023)
    assert read_image(grey, intensity=window)[0, :, 0].tolist() == [0, 128, 255]
    stretched = read_image(grey, intensity=Percentiles(0, 100))
    np.testing.assert_array_equal(stretched, read_image(grey, intensity=window))


def test_a_negative_16_bit_tiff_is_turned():
    grey = np.array([[0, 20000, 65535]], np.uint16)
    content = saved(Image.fromarray(grey), "TIFF", tiffinfo={262: 0})
    assert read_image(content)[0, :, 0].tolist() == [255, 177, 0]


def test_float_tiff_is_an_array_of_floats():
    image = Image.fromarray(np.array([[0, 0.5, 1]], np.float32))
    assert read_image(saved(image, "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    hounsfield = Image.fromarray(np.array([[-1000, 40, 3000]], np.float32))
    content = saved(hounsfield, "TIFF")
    with pytest.raises(ImageReadError, match="-1000 to"):
        read_image(content)
    assert read_image(content, intensity="brain")[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, format):
    upright = np.zeros((48, 96, 3), np.uint8)
    upright[:16, :32] = 255  # a white top left corner tells all eight apart
    turns = {
        1: lambda image: image,
        2: lambda image: image[:, ::-1],
        3: lambda image: image[::-1, ::-1],
        4: lambda image: image[::-1],
        5: lambda image: image.transpose(1, 0, 2),
        6: lambda image: np.rot90(image, 1),
        7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
        8: lambda image: np.rot90(image, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(turns[orientation](upright)))
    content = saved(stored, format, exif=exif)
    for source in (content, Image.open(io.BytesIO(content))):
        pixels = read_image(source)
        assert pixels.shape == upright.shape
        assert np.abs(pixels.astype(int) - upright).max() < 40


def test_a_pil_image_is_not_changed_by_reading(colours):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(saved(Image.fromarray(colours), exif=exif)))
    before = (image.size, image.getexif().get(0x0112))
    np.testing.assert_array_equal(read_image(image), read_image(image))
    assert (image.size, image.getexif().get(0x0112)) == before


def test_pages_of_a_tiff_and_frames_of_a_webp(colours):
    pages = [Image.fromarray(np.full((40, 30, 3), 60 * i, np.uint8)) for i in range(4)]
    for content in (
        saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]),
        saved(pages[0], "PNG", save_all=True, append_images=pages[1:]),
        saved(pages[0], "WEBP", save_all=True, append_images=pages[1:], lossless=True),
    ):
        with pytest.raises(ImageReadError, match="4 frames") as caught:
            read_image(content)
        assert caught.value.hint == 'Choose one: frame=0, ..., or frame="middle".'
        assert (read_image(content, frame=0) == 0).all()
        assert (read_image(content, frame=3) == 180).all()
        assert (read_image(content, frame="middle") == 120).all()
        with pytest.raises(ImageReadError, match="frame=4"):
            read_image(content, frame=4)
    single = saved(Image.fromarray(colours))
    for frame in (0, "middle", None):
        np.testing.assert_array_equal(read_image(single, frame=frame), colours)


@pytest.mark.parametrize("name", ["retina.jpg", "ihc.png"])
def test_fundus_and_histology(name):
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed")
    path = Path(data.__file__).parent / name
    if not path.exists():
        pytest.skip(f"this scikit-image comes without {name}")
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    for source in (path, path.read_bytes(), expected):
        np.testing.assert_array_equal(read_image(source), expected)


def test_reading_does_not_fill_the_warning_filters(colours):
    import warnings

    read_image(saved(Image.fromarray(colours)))
    before = len(warnings.filters)
    for _ in range(5):
        read_image(saved(Image.fromarray(colours)))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(read_image, [saved(Image.fromarray(colours))] * 8))
    assert len(warnings.filters) == before


def test_pillows_bomb_warning_does_not_leak_and_stays_for_others(monkeypatch, colours):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # half of it warns
    content = saved(Image.fromarray(colours))
    np.testing.assert_array_equal(read_image(content), colours)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(io.BytesIO(content)):
        pass


# Arrays

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda size: st.sampled_from([size, (*size, 1), (*size, 3), (*size, 4)])
)


@settings(max_examples=60, deadline=None)
@given(
    st.data(),
    SHAPES,
    st.sampled_from(["u1", "<u2", ">u2", "<i2", "<i4", ">f4", "f8", "f2"]),
)
def test_any_array_becomes_rgb_or_one_kind_of_error(data, shape, dtype):
    array = data.draw(arrays(dtype, shape))
    for intensity in ("auto", Window(0, 100), Percentiles()):
        try:
            pixels = read_image(array, intensity=intensity)
        except ImageReadError:
            continue
        assert pixels.shape == (*shape[:2], 3)
        assert pixels.dtype == np.uint8


def test_rounding_around_0_and_1_is_no_error():
    edge = np.array([[-1e-7, 0.5, 1 + 1e-7]])
    assert read_image(edge)[0, :, 0].tolist() == [0, 128, 255]


# check_images


def test_check_images_says_what_is_wrong_with_what(tmp_path, colours):
    Image.fromarray(colours).save(tmp_path / "good.png")
    (tmp_path / "empty.png").touch()
    X = pd.Series(
        [tmp_path / "good.png", str(tmp_path / "empty.png"), colours, None],
        index=["a", "b", "c", "d"],
        name="image",
    )
    table = check_images(X, n_jobs=2)
    assert list(table.columns) == [
        "row",
        "source",
        "readable",
        "reason",
        "hint",
        "format",
        "modality",
        "height",
        "width",
        "dtype",
        "low",
        "high",
        "duplicate_of",
    ]
    assert table.index.equals(X.index)
    assert table.row.tolist() == [0, 1, 2, 3]
    assert table.readable.dtype == bool
    assert table.readable.tolist() == [True, False, True, False]
    assert table.reason.tolist() == [
        "",
        "the file is empty",
        "",
        "the image is missing (None or NaN)",
    ]
    assert table.source["a"] == str(tmp_path / "good.png")
    assert table.loc["a", ["format", "height", "width"]].tolist() == ["PNG", 37, 53]
    assert table.format["c"] == "array"
    # The same picture, as a file and as an array.
    assert table.duplicate_of.tolist() == [pd.NA, pd.NA, 0, pd.NA]
    assert table.loc["c", "dtype"] == "uint8"
    assert table.loc["c", ["low", "high"]].tolist() == [colours.min(), colours.max()]
    assert table.height.isna().tolist() == [False, True, False, True]
    assert len(X[table.readable]) == 2
    frame = X.to_frame()
    assert list(frame[check_images(frame).readable].index) == ["a", "c"]


def test_check_images_of_a_list_shows_progress(capsys, colours):
    table = check_images([colours, b"no image"], verbose=1)
    assert table.index.tolist() == [0, 1]
    assert table.source.tolist()[1] == "bytes of length 8"
    assert "Checking images" in capsys.readouterr().err


def test_check_images_takes_the_embedders_settings(colours):
    hounsfield = colours[..., 0].astype(float) * 4
    assert not check_images([hounsfield]).readable[0]
    assert check_images([hounsfield], intensity="lung").readable[0]
    table = check_images([colours], max_pixels=100)
    assert "more than max_pixels=100" in table.reason[0]
    with pytest.raises(ValueError, match="intensity"):
        check_images([colours], intensity="soft")
    with pytest.raises(ValueError, match="0 sample"):
        check_images([])


def test_reading_in_threads_is_deterministic(colours):
    contents = [saved(Image.fromarray(np.roll(colours, i))) for i in range(20)]
    started = threading.active_count()
    with ThreadPoolExecutor(4) as threads:
        for i, pixels in enumerate(threads.map(read_image, contents)):
            np.testing.assert_array_equal(pixels, np.roll(colours, i))
    assert threading.active_count() == started
