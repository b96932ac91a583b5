"""The picture of the map, and its colours."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sk_medsiglip.explore._colours import (
    UNKNOWN,
    colour_categories,
    colour_numbers,
    colour_words,
)
from sk_medsiglip.explore._raster import DIAMOND, DISC, SQUARE, draw_map


def draw(points, colouring, size=(200, 100), area=(0, 2, 0, 1), **how):
    """Return a picture of points as RGB."""
    n = len(points)
    how.setdefault("marks", np.zeros(n, np.uint8))
    how.setdefault("selected", np.zeros(n, bool))
    content = draw_map(np.asarray(points), colouring, area=area, size=size, **how)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def rgb(colour):
    return tuple(bytes.fromhex(colour[1:]))


def count(picture, colour):
    return int((picture == rgb(colour)).all(axis=2).sum())


def test_points_stand_where_they_are_with_y_upwards():
    colouring = colour_words(np.arange(3), ["a", "b", "c"])
    points = [[0.5, 0.75], [1.5, 0.25], [np.nan, np.nan]]
    picture = draw(points, colouring)
    for place, (x, y) in enumerate([(50, 25), (150, 75)]):
        assert tuple(picture[y, x]) == rgb(colouring.palette[4 + place])
    assert count(picture, colouring.palette[6]) == 0
    assert picture.shape == (100, 200, 3)


@pytest.mark.parametrize("place", [(0, 0), (2, 1), (0, 1), (-0.001, 0.5)])
def test_points_at_the_edges_are_cut(place):
    colouring = colour_words(np.zeros(1, int), ["a"])
    picture = draw([place], colouring, selected=np.ones(1, bool))
    assert 0 < (picture != 255).any(axis=2).sum() < 121
    assert draw([(50, 50)], colouring).min() == 255


@pytest.mark.parametrize(("n", "side"), [(200, 5), (100_000, 1)])
def test_points_are_smaller_where_there_are_more(n, side):
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0), (2, 1), (n, 2))
    points[0], points[1:] = (1, 0.99), points[1:] * (1, 0.9)
    picture = draw(points, colour_numbers(np.arange(n)), size=(800, 600))
    rows = np.flatnonzero((picture[:30] != 255).any(axis=(1, 2)))
    assert np.ptp(rows) + 1 == side


def test_labels_and_selections_can_be_seen_without_their_colours():
    colouring = colour_numbers([0.0, 1.0, 2.0, 3.0])
    points = np.column_stack([[0.25, 0.75, 1.25, 1.75], np.full(4, 0.5)])
    marks = np.array([0, DISC, SQUARE, DIAMOND], np.uint8)
    picture = draw(points, colouring, marks=marks)
    shapes = [(picture[:, i : i + 50] != 255).any(axis=2) for i in range(0, 200, 50)]
    sizes = [shape.sum() for shape in shapes]
    assert sizes[0] < min(sizes[1:])
    assert len({shape.tobytes() for shape in shapes}) == 4
    ringed = draw(points, colouring, marks=marks, selected=np.ones(4, bool))
    assert count(ringed, colouring.palette[3]) > 4 * 10


def test_selected_and_labelled_points_are_on_top():
    colouring = colour_numbers(np.r_[np.zeros(500), 1.0])
    points = np.tile([1.0, 0.5], (501, 1))
    marks = np.zeros(501, np.uint8)
    marks[3] = SQUARE
    picture = draw(points, colouring, marks=marks)
    assert count(picture, colouring.palette[2]) > 10
    assert tuple(draw(points, colouring)[50, 100]) == rgb(colouring.palette[-1])


def test_numbers_are_dark_where_they_are_high():
    colouring = colour_numbers([np.nan, 0, 1, 2, np.inf])
    assert colouring.codes[[0, 4]].tolist() == [UNKNOWN, UNKNOWN]
    light = [sum(rgb(one["colour"])) for one in colouring.legend]
    assert light == sorted(light, reverse=True)
    assert "or more" in colouring.legend[-1]["text"]
    assert colour_numbers([np.nan]).legend == []
    assert colour_numbers([1.0, 1.0]).codes.tolist() == [4, 4]


def test_categories_beyond_six_share_a_colour():
    words = [f"{i}" for i in range(9) for _ in range(9 - i)] + [None]
    colouring = colour_categories(pd.Series(words))
    texts = [one["text"] for one in colouring.legend]
    assert texts == ["0", "1", "2", "3", "4", "5", "other", "none"]
    assert len({one["colour"] for one in colouring.legend}) == 8
    assert colouring.codes[-1] == UNKNOWN
    fixed = colour_words(np.array([1, -1, 0]), ["yes", "no"])
    assert [one["text"] for one in fixed.legend] == ["yes", "no", "none"]
