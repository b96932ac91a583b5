"""Pictures of more than eight bits, and of signed and float values, keep them all."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import Percentiles, Region, read_image

tifffile = pytest.importorskip("tifffile")

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def png(values, **chunks):
    """Return a 16-bit PNG whose rows use each of the five filters in turn."""
    height, width, n_channels = values.shape
    n = 2 * n_channels
    rows = values.astype(">u2").tobytes()
    rows = np.frombuffer(rows, np.uint8).reshape(height, -1).astype(int)
    up = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])

    def shifted(array):
        return np.hstack([np.zeros((height, n), int), array[:, :-n]])

    left, corner = shifted(rows), shifted(up)
    first = left + up - corner
    distance = np.abs(np.stack([left, up, corner]) - first)
    paeth = np.choose(distance.argmin(axis=0), [left, up, corner])
    predictions = [0 * rows, left, up, (left + up) // 2, paeth]
    data = b"".join(
        bytes([i % 5])
        + ((rows[i] - predictions[i % 5][i]) % 256).astype("u1").tobytes()
        for i in range(height)
    )
    header = struct.pack(
        ">IIBBBBB", width, height, 16, _COLOUR_TYPES[n_channels], 0, 0, 0
    )
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(data), "IEND": b""}
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in parts.items():
        body = name.encode() + body
        content += struct.pack(">I", len(body) - 4) + body
        content += struct.pack(">I", zlib.crc32(body))
    return content


def tiff(values, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def drawn(n_channels, dtype="u2", top=4095):
    rng = np.random.default_rng(n_channels)
    return rng.integers(0, top + 1, (13, 9, n_channels)).astype(dtype)


@pytest.mark.parametrize("n_channels", [1, 3, 4])
@pytest.mark.parametrize("how", ["bytes", "open image", "region"])
def test_png_of_16_bits_is_the_array_of_its_values(n_channels, how):
    values = drawn(n_channels)
    content = png(values)
    source = {
        "bytes": content,
        "open image": Image.open(io.BytesIO(content)),
        "region": Region(content, 0, 0, 9, 13),
    }[how]
    np.testing.assert_array_equal(read_image(source), read_image(values))
    stretched = read_image(source, intensity=Percentiles(0, 100))
    expected = read_image(values, intensity=Percentiles(0, 100))
    np.testing.assert_array_equal(stretched, expected)


def test_png_of_16_bit_grey_and_opacity():
    values = drawn(2)
    grey, alpha = values[..., 0], values[..., 1]
    as_array = np.dstack([grey, grey, grey, alpha])
    np.testing.assert_array_equal(read_image(png(values)), read_image(as_array))


def test_transparent_colour_of_16_bits_is_on_black():
    grey = drawn(1, top=3)
    shown = read_image(png(grey, tRNS=struct.pack(">H", 2)), intensity=Percentiles())
    assert (shown[grey[..., 0] == 2] == 0).all()
    assert (shown[grey[..., 0] == 3] == 255).all()
    colours = drawn(3)
    transparent = colours[4, 5]
    shown = read_image(png(colours, tRNS=transparent.astype(">u2").tobytes()))
    expected = read_image(colours)
    expected[(colours == transparent).all(axis=-1)] = 0
    np.testing.assert_array_equal(shown, expected)


def test_open_image_stays_as_it_was():
    image = Image.open(io.BytesIO(png(drawn(3))))
    before = np.asarray(Image.open(io.BytesIO(png(drawn(3)))))
    read_image(image)
    np.testing.assert_array_equal(np.asarray(image), before)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("n_channels", [3, 4])
def test_tiff_of_16_bit_colours_is_the_array_of_its_values(
    n_channels, compression, byteorder
):
    values = drawn(n_channels)
    content = tiff(
        values,
        photometric="rgb",
        extrasamples=["unassalpha"] * (n_channels - 3),
        compression=compression,
        byteorder=byteorder,
    )
    np.testing.assert_array_equal(read_image(content), read_image(values))
    lazy = Image.open(io.BytesIO(content))
    np.testing.assert_array_equal(read_image(lazy), read_image(values))


def test_orientation_and_page_of_16_bit_colours():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for top in (100, 4095):
            writer.write(
                drawn(3, top=top), photometric="rgb", extratags=[(274, 3, 1, 3, True)]
            )
    shown = read_image(stream.getvalue(), frame=1)
    np.testing.assert_array_equal(shown, read_image(drawn(3)[::-1, ::-1]))


def test_premultiplied_colours_of_16_bits_are_on_black():
    values = drawn(4, top=65535)
    values[..., :3] = values[..., :3] // 65535 * values[..., 3:]
    content = tiff(values, photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_array_equal(read_image(content), read_image(values[..., :3]))


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_planes_of_16_bit_colours_are_the_array_of_their_values(compression):
    planes = np.ascontiguousarray(np.moveaxis(drawn(3), -1, 0))
    content = tiff(
        planes, photometric="rgb", planarconfig="separate", compression=compression
    )
    np.testing.assert_array_equal(read_image(content), read_image(drawn(3)))


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("n_channels", [1, 3, 4])
@pytest.mark.parametrize("frame", [0, 1])
def test_tiff_of_floats_is_the_array_of_its_values(kind, n_channels, frame):
    rng = np.random.default_rng(0)
    pages = [np.squeeze(rng.random((13, 9, n_channels)).astype(kind)) for _ in range(2)]
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for page in pages:
            writer.write(
                page,
                photometric="minisblack" if n_channels == 1 else "rgb",
                extrasamples=["unassalpha"] * (n_channels - 3),
                compression="deflate",
            )
    shown = read_image(stream.getvalue(), frame=frame)
    np.testing.assert_array_equal(shown, read_image(pages[frame]))


def test_types_that_only_tifffile_reads_are_refused_without_it(monkeypatch):
    content = tiff(np.ones((8, 8)), photometric="minisblack")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImageReadError, match=r"\(float\).*array"):
        read_image(content)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_each_page_of_many_is_its_own(depth):
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for place in range(300):
            page = np.full((2, 2, 3), place % 256, depth)
            writer.write(page, photometric="rgb", contiguous=False)
    for frame in (0, 1, 100, 299):
        shown = read_image(stream.getvalue(), frame=frame)
        assert (shown == frame % 256).all()


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u4", "f4"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
def test_grey_tiff_means_what_its_array_means(dtype, byteorder, compression):
    if dtype == "f4":
        values = np.linspace(0, 1, 48, dtype="f4").reshape(6, 8)
    else:
        limits = np.iinfo(dtype)
        values = np.linspace(limits.min, limits.max, 48).astype(dtype).reshape(6, 8)
    content = tiff(values, byteorder=byteorder, compression=compression)
    if dtype != "f4":
        with pytest.raises(ImageReadError, match="u?int"):
            read_image(content)
    # To float rounding: Pillow holds 16 signed bits in 32.
    shown = read_image(content, intensity=Percentiles(0, 100))
    expected = read_image(values, intensity=Percentiles(0, 100))
    assert np.abs(shown.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "kind", "what"),
    [
        (np.ones((8, 8, 5), "u2"), "rgb", r"5 values of 16 bits \(unsigned\)"),
        (np.ones((8, 8)), "miniswhite", r"values of 64 bits \(float\)"),
        (np.ones((8, 8, 4), "u2"), "separated", r"colours of 16 bits in CMYK"),
        (np.ones((8, 8), "c8"), "minisblack", r"values of 64 bits \(complex\)"),
    ],
)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_types_that_are_not_read_are_named(values, kind, what, bigtiff):
    content = tiff(values, photometric=kind, bigtiff=bigtiff)
    with pytest.raises(ImageReadError, match=rf"{what}.*array"):
        read_image(content)
