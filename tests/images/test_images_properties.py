"""Whatever array or Pillow image: RGB of its shape, or one kind of error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import CTWindows, Percentiles, Window, read_image

TYPES = ["?", "u1", "<u2", ">u2", "<i2", ">i4", "u4", "i8", "<f2", ">f4", "f8", "c8"]
MODES = ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]
MODES += ["I;16"]

numbers = st.floats(-2000, 2000).map(lambda value: round(value, 3))
intensities = st.one_of(
    st.sampled_from(
        ["auto", "auto", "ct", "ct-wide", "google-serving", "lung", "brain"]
    ),
    st.builds(Window, numbers, st.floats(0.5, 5000)),
    st.builds(Percentiles, st.floats(0, 50), st.floats(51, 100)),
    st.builds(
        lambda low, width: CTWindows(green=(low, low + width)),
        numbers,
        st.floats(0.5, 5000),
    ),
)
shapes = st.one_of(
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3, 4])),
)


@st.composite
def arrays(draw):
    """Return an array of any type and shape, half of them in a readable range."""
    dtype = np.dtype(draw(st.sampled_from(TYPES)))
    elements = None
    if dtype.kind == "f":
        width = 8 * dtype.itemsize
        elements = draw(
            st.sampled_from([st.floats(0, 1, width=width), st.floats(width=width)])
        )
    return draw(hnp.arrays(dtype, draw(shapes), elements=elements))


def layouts(array):
    """Give the same values, laid out in memory in other ways."""
    yield np.array(array, order="F")
    yield array.astype(array.dtype.newbyteorder())
    wide = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    # The ellipsis keeps an array of no dimension an array.
    every_other = wide[(..., *(slice(None, None, 2) for _ in array.shape))]
    every_other[...] = array
    yield every_other
    backwards = (..., *(slice(None, None, -1) for _ in array.shape))
    yield array[backwards].copy()[backwards]
    frozen = array.copy()
    frozen.flags.writeable = False
    yield frozen


def outcome(image, intensity):
    """Return pixels, or reason and hint; check what both must be."""
    try:
        pixels = read_image(image, intensity=intensity)
    except ImageReadError as failure:
        reason, hint, source = failure.reason, failure.hint, failure.source
    else:
        check_pixels(pixels)
        return pixels
    assert reason
    assert reason[0].islower()
    assert not reason.endswith(".")
    assert hint.endswith(".")
    assert source
    return reason, hint


def check_pixels(pixels):
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.size
    assert pixels.flags.c_contiguous


def assert_same(one, other):
    if isinstance(one, tuple):
        assert one == other
    else:
        np.testing.assert_array_equal(one, other)


@settings(max_examples=200, deadline=None)
@given(arrays(), intensities)
def test_any_array_is_rgb_of_its_shape_or_one_kind_of_error(array, intensity):
    before = array.copy()
    result = outcome(array, intensity)
    assert array.tobytes() == before.tobytes()  # bit by bit, for NaN
    if not isinstance(result, tuple):
        assert result.shape[:2] == array.shape[:2]
        assert not np.shares_memory(result, array) or array.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(arrays(), intensities)
def test_equal_pictures_give_equal_pixels_however_they_lie_in_memory(array, intensity):
    # Errors name the type, and a type of the other byte order has another name.
    expected = outcome(array, intensity)
    for other in layouts(array):
        result = outcome(other, intensity)
        if isinstance(expected, tuple) and other.dtype != array.dtype:
            assert isinstance(result, tuple)
        else:
            assert_same(expected, result)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(MODES),
    st.integers(1, 9),
    st.integers(1, 9),
    st.binary(min_size=16, max_size=16),
    intensities,
)
def test_any_pillow_image_is_rgb_of_its_shape_or_one_kind_of_error(
    mode, width, height, content, intensity
):
    image = Image.frombytes("L", (4, 4), content).resize((width, height))
    # There is no conversion to LAB in Pillow but from its own bytes.
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.convert("RGB").tobytes())
    else:
        image = image.convert(mode)
    result = outcome(image, intensity)
    if not isinstance(result, tuple):
        assert result.shape == (height, width, 3)
    if mode in ("L", "RGB", "RGBA", "I", "F", "I;16"):
        # What Pillow shows as an array is the same picture.
        assert_same(result, outcome(np.asarray(image), intensity))


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.uint8, (5, 4, 3)))
def test_8_bit_colours_are_left_as_they_are(pixels):
    np.testing.assert_array_equal(read_image(pixels), pixels)
    grey = pixels[..., 0]
    np.testing.assert_array_equal(read_image(grey), np.stack([grey] * 3, axis=-1))


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.int16, (1, 30), elements=st.integers(-3000, 3000)),
    st.integers(-1500, 1500),
    st.integers(1, 4000),
)
def test_brighter_stays_brighter_and_windows_clip(values, center, width):
    shown = read_image(values, intensity=Window(center, width))[0, :, 0].astype(int)
    order = np.argsort(values[0], kind="stable")
    assert (np.diff(shown[order]) >= 0).all()
    assert (shown[values[0] <= center - width / 2] == 0).all()
    assert (shown[values[0] >= center + width / 2] == 255).all()


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None)
@given(arrays(), intensities)
def test_many_more_arrays(array, intensity):
    outcome(array, intensity)
