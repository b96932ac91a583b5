"""``tiles_from_h5``: tiles of a slide at the coordinates written by a tiling tool."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip._optional import import_optional
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._kinds import kind_of
from sk_medsiglip.images._read import MAX_PIXELS, load_image
from sk_medsiglip.images._region import Region
from sk_medsiglip.images._sources import (
    is_readable_stream,
    naming,
    open_source,
    source_path,
)
from sk_medsiglip.images._tiles import LevelSize, level_sizes

#: Levels of a pyramid are rarely smaller by an exact power of 2.
_LEVEL_TOLERANCE = 1.02

#: More tiles than any slide has; coordinates are read into memory.
_MOST_TILES = 10_000_000

_TILE_AGAIN = "Run the tiling tool again."
_OTHER_SLIDE = "Pass the slide that the coordinates were made for."


def tiles_from_h5(coords: Any, slide: Any) -> list[Region]:
    """Return the tiles of a slide that were chosen by a tiling tool.

    Such a tool finds the tissue and writes the coordinates of its tiles to an HDF5
    file. The tiles returned here can be the images of one study, or rows of ``X``.

    Parameters
    ----------
    coords : path
        HDF5 file with a data set ``coords`` of shape (n_tiles, 2): x and y of the
        upper left corner of each tile, in pixels of the largest level. Its attributes
        must give the size of a tile, as in files of TRIDENT (``patch_size_level0``, or
        ``patch_size`` and both magnifications) and CLAM (``patch_size`` and
        ``patch_level``). Files of features that hold ``coords`` are accepted too.
    slide : path, URL, bytes, file object, PIL image or array
        The slide that the coordinates were made for, in a format that
        :class:`Region` reads.

    Returns
    -------
    list of Region
        One region per line of ``coords``, in the same order. Tiles of a pyramid are
        taken from the smallest level that has the resolution chosen in the tool. A
        tile that crosses the right or lower edge is cut there; ``pad=True`` of an
        embedder keeps its proportions.

    Raises
    ------
    ImageReadError
        If the file is missing, damaged, not HDF5, or lacks ``coords`` or the size of
        a tile; if coordinates are not whole numbers or a tile lies outside of the
        slide; if the slide cannot be read. It is a subclass of ``ValueError``.
    MissingDependencyError
        If h5py, tifffile or imagecodecs is missing. Install them with
        ``pip install "sk-medsiglip[slides]"``.

    Notes
    -----
    Only the coordinates and the header of the slide are read here; tiles are decoded
    when they are embedded. A slide that is not a TIFF file is decoded once here, and
    later once per tile; pass its pixels as an array instead. LazySlide stores tiles in
    Zarr folders: make a :class:`Region` from each of their bounds.

    References
    ----------
    .. [1] Zhang et al., "Accelerating Data Processing and Benchmarking of AI Models
       for Pathology", arXiv:2502.06750 (TRIDENT).
    .. [2] Lu et al., "Data-efficient and weakly supervised computational pathology on
       whole-slide images", Nature Biomedical Engineering 2021 (CLAM).

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import h5py
    >>> import numpy as np
    >>> from sk_medsiglip.images import read_image, tiles_from_h5
    >>> path = Path(tempfile.mkdtemp(), "slide_patches.h5")
    >>> with h5py.File(path, "w") as file:
    ...     places = file.create_dataset("coords", data=[[0, 0], [32, 16]])
    ...     places.attrs.update({"patch_size": 16, "patch_size_level0": 16})
    >>> slide = np.zeros((64, 64, 3), np.uint8)
    >>> tiles = tiles_from_h5(path, slide)
    >>> tiles[1].x, tiles[1].y, read_image(tiles[1]).shape
    (32, 16, (16, 16, 3))
    """
    with naming(coords):
        places, attributes = _read_coordinates(coords)
    with naming(slide):
        levels = _sizes_of_levels(slide)
    with naming(coords):
        size = _tile_size(attributes, levels)
        _check_places(places, attributes, levels[0])
    level = _best_level(levels, size)
    return [_region(slide, place, size, levels, level) for place in places]


class _TileSize(NamedTuple):
    """Side of a tile in pixels, at the largest level and as shown by the tool."""

    at_level_0: float
    shown: float


def _read_coordinates(coords: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return the values of ``coords``, and the attributes of the file and of it."""
    path = source_path(coords)
    if path is None:
        raise ImageReadError(
            f"coordinates must be the path of a file, got {type(coords).__name__}",
            "Pass the path of an .h5 file.",
        )
    h5py: Any = import_optional(
        "h5py", extra="slides", purpose="Reading coordinates of tiles"
    )
    with open_source(path):  # raises a clear error if it cannot be opened
        pass
    if not h5py.is_hdf5(path):
        raise ImageReadError(
            "it is not an HDF5 file, or it is cut short",
            "Pass the .h5 file of coordinates written by TRIDENT or CLAM.",
        )
    with decoding("its HDF5 content is damaged", _TILE_AGAIN), h5py.File(path) as file:
        found = file.get("coords")
        if not isinstance(found, h5py.Dataset):
            names = ", ".join(sorted(file)[:10]) or "nothing"
            raise ImageReadError(
                f'it has no data set "coords"; it holds {names}',
                "Pass the file of coordinates; TRIDENT writes it to patches/.",
            )
        if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iuf":
            raise ImageReadError(
                f'its "coords" have shape {found.shape} and type {found.dtype}, but '
                "two numbers per tile are needed, (n_tiles, 2)",
                _TILE_AGAIN,
            )
        if len(found) > _MOST_TILES:
            raise ImageReadError(
                f"it announces {len(found)} tiles, more than {_MOST_TILES}", _TILE_AGAIN
            )
        return found[:], {**file.attrs, **found.attrs}


def _sizes_of_levels(slide: Any) -> list[LevelSize]:
    """Return the sizes of the readable levels of a slide, the largest first."""
    if isinstance(slide, np.ndarray) and slide.ndim in (2, 3):
        return [LevelSize(slide.shape[1], slide.shape[0])]
    if is_readable_stream(slide):
        with open_source(slide, in_parts=True) as stream:
            if kind_of(stream) == "TIFF":
                for name in ("tifffile", "imagecodecs"):
                    import_optional(name, extra="slides", purpose="Reading slides")
                sizes = level_sizes(stream)
                if sizes:
                    return sizes
    whole = load_image(slide, frame=None, max_pixels=MAX_PIXELS)
    return [LevelSize(whole.values.shape[1], whole.values.shape[0])]


def _tile_size(attributes: dict[str, Any], levels: list[LevelSize]) -> _TileSize:
    """Return the size of a tile, from the attributes of either tool."""
    shown = _number(attributes, "patch_size")
    at_level_0 = _number(attributes, "patch_size_level0")
    stored = _number(attributes, "level0_magnification")
    target = _number(attributes, "target_magnification")
    level = _number(attributes, "patch_level")
    if at_level_0:
        return _TileSize(at_level_0, shown or at_level_0)
    if shown and stored and target:
        return _TileSize(shown * stored / target, shown)
    if shown and level is not None:
        if level >= len(levels):
            raise ImageReadError(
                f"its tiles are of level {level:.0f}, but the slide has {len(levels)} "
                "readable levels",
                _OTHER_SLIDE,
            )
        return _TileSize(shown * levels[0].width / levels[int(level)].width, shown)
    raise ImageReadError(
        'its "coords" do not give the size of a tile; their attributes are '
        f"{', '.join(sorted(attributes)) or 'none'}",
        "Set patch_size_level0, the side of a tile in pixels of the largest level: "
        'h5py.File(path, "a")["coords"].attrs["patch_size_level0"] = 512.',
    )


def _number(attributes: dict[str, Any], name: str) -> float | None:
    """Return a non-negative number; tools may write "None" for a missing one."""
    value = attributes.get(name)
    if isinstance(value, int | float | np.integer | np.floating) and (
        0 <= value < np.inf
    ):
        return float(value)
    return None


def _check_places(
    places: NDArray[Any], attributes: dict[str, Any], slide: LevelSize
) -> None:
    """Raise if the coordinates belong to another slide or are invalid."""
    width = _number(attributes, "level0_width") or slide.width
    height = _number(attributes, "level0_height") or slide.height
    if (width, height) != slide:
        raise ImageReadError(
            f"it was written for a slide {width:.0f} wide and {height:.0f} high, but "
            f"this one is {slide.width} wide and {slide.height} high",
            _OTHER_SLIDE,
        )
    whole = (places == np.rint(places)).all(axis=1) & np.isfinite(places).all(axis=1)
    inside = (places >= 0).all(axis=1) & (places < slide).all(axis=1)
    size = f"{slide.width} wide and {slide.height} high"
    for is_good, reason in (
        (whole, "are not whole numbers"),
        (inside, f"lie outside of the slide, which is {size}"),
    ):
        if not is_good.all():
            tile = int(is_good.argmin())
            x, y = places[tile].tolist()
            raise ImageReadError(f"x={x}, y={y} of tile {tile} {reason}", _OTHER_SLIDE)


def _best_level(levels: list[LevelSize], size: _TileSize) -> int:
    """Return the smallest level with the resolution shown by the tool."""
    wanted = size.at_level_0 / size.shown * _LEVEL_TOLERANCE
    return max(
        level
        for level, one in enumerate(levels)
        if level == 0 or levels[0].width / one.width <= wanted
    )


def _region(
    slide: Any,
    place: NDArray[Any],
    size: _TileSize,
    levels: list[LevelSize],
    level: int,
) -> Region:
    """Return one tile, cut at the edges of the slide."""
    width, height = levels[level]
    scale = levels[0].width / width
    x = min(round(float(place[0]) / scale), width - 1)
    y = min(round(float(place[1]) / scale), height - 1)
    side = max(1, round(size.at_level_0 / scale))
    return Region(slide, x, y, min(side, width - x), min(side, height - y), level=level)
