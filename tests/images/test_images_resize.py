"""The resize against TensorFlow's own pixels, and the padding."""

from pathlib import Path

import numpy as np
import pytest

from sk_medsiglip.images import (
    CTWindows,
    Percentiles,
    Window,
    image_fingerprint,
    pad_to_square,
    read_image,
    read_resized,
    resize_bilinear,
)

REFERENCE = (
    Path(__file__).parents[2].parent / "shared" / "data" / "tf_resize_reference.npz"
)


def reference_input(seed, shape):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[0 : shape[0], 0 : shape[1]]
    base = (np.sin(yy / 37) + np.cos(xx / 53) + 2) * 50
    noisy = base[..., None] + rng.integers(0, 60, shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


@pytest.mark.skipif(not REFERENCE.exists(), reason="TensorFlow's pixels are not here")
@pytest.mark.parametrize(("seed", "height", "width"), [(0, 1024, 1024), (2, 300, 200)])
def test_resize_equals_tensorflow(seed, height, width):
    with np.load(REFERENCE) as stored:
        expected = stored[f"out_{height}x{width}"]
    resized = resize_bilinear(reference_input(seed, (height, width, 3)), 448)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, expected)


def test_resize_to_the_same_size_changes_nothing():
    pixels = reference_input(1, (64, 64, 3))
    np.testing.assert_array_equal(resize_bilinear(pixels, 64), pixels)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (5000, 1, 3), (2, 3, 3)])
def test_resize_takes_any_shape(shape):
    resized = resize_bilinear(np.full(shape, 77, np.uint8), 32)
    assert resized.shape == (32, 32, 3)
    assert (resized == 77).all()


def test_half_pixel_centres_and_truncation():
    row = np.repeat(np.array([[[0], [255]]], np.uint8), 3, axis=2)
    # Centres of the four columns lie at -0.25, 0.25, 0.75 and 1.25 of the input.
    assert resize_bilinear(row, 4)[0, :, 0].tolist() == [0, 63, 191, 255]


def test_padding_is_black_centred_and_odd_pixels_go_last():
    padded = pad_to_square(np.full((2, 5, 3), 9, np.uint8))
    assert padded.shape == (5, 5, 3)
    assert (padded[1:3] == 9).all()
    assert not padded[0].any()
    assert not padded[3:].any()
    tall = pad_to_square(np.full((5, 2, 3), 9, np.uint8))
    np.testing.assert_array_equal(tall, padded.transpose(1, 0, 2))
    square = np.full((4, 4, 3), 9, np.uint8)
    assert pad_to_square(square) is square


def test_resize_pads_before_it_resizes():
    pixels = reference_input(3, (40, 90, 3))
    np.testing.assert_array_equal(
        resize_bilinear(pixels, 56, pad=True),
        resize_bilinear(pad_to_square(pixels), 56),
    )


def test_fingerprint_is_of_shape_and_pixels():
    pixels = reference_input(4, (12, 8, 3))
    fingerprint = image_fingerprint(pixels)
    assert len(fingerprint) == 32
    assert fingerprint == image_fingerprint(pixels.copy())
    assert fingerprint == image_fingerprint(np.asfortranarray(pixels))
    assert fingerprint != image_fingerprint(pixels.reshape(8, 12, 3))
    changed = pixels.copy()
    changed[-1, -1, -1] ^= 1
    assert fingerprint != image_fingerprint(changed)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("shape", [(70, 90), (90, 61), (9, 400), (20, 20), (64, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
@pytest.mark.parametrize(
    "intensity", [Window(40, 300), CTWindows(), Percentiles(2, 97)], ids=repr
)
def test_brightening_only_the_pixels_that_count_changes_nothing(
    intensity, dtype, shape, pad
):
    rng = np.random.default_rng(0)
    low = 0 if np.dtype(dtype).kind == "u" else -1100
    image = rng.integers(low, min(1200, np.iinfo(np.uint8).max), shape).astype(dtype)
    expected = resize_bilinear(read_image(image, intensity=intensity), 28, pad=pad)
    resized = read_resized(image, 28, pad=pad, intensity=intensity)
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("shape", [(70, 90, 3), (13, 9, 3), (70, 90, 4), (70, 90, 1)])
def test_colours_and_transparency_are_resized_alike(shape, pad):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    expected = resize_bilinear(read_image(image), 28, pad=pad)
    np.testing.assert_array_equal(read_resized(image, 28, pad=pad), expected)
    padded = pad_to_square(read_image(image)) if pad else read_image(image)
    np.testing.assert_array_equal(expected, resize_bilinear(padded, 28))
