"""Bad objects and arrays: one row a case, each with its exact source and reason."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image

NO_IMAGE = "An image is a path, bytes, a file object, a PIL image or a NumPy array."
MISSING = ("the image is missing (None or NaN)", "Drop such rows: X.dropna().")
EMPTY = ("it is empty", "Save the image again, or remove it.")
CLOSED = (
    "the file object is closed or cannot seek",
    "Pass its bytes, file.read(), or the path.",
)
SHOW_AS = (
    "intensity=Window(center, width) or Percentiles(1, 99); for CT in Hounsfield units "
    "CTWindows()."
)
SAY_HOW = f"Choose how they are displayed: {SHOW_AS}"
AS_BYTES = f"Values from 0 to 255: image.astype(np.uint8). Others: {SHOW_AS}"
SLICES = "If these are slices of a volume, pass each slice as one image."
SHAPES = "Pass arrays of shape (height, width) or (height, width, channels)."
NO_NAN = (
    "it holds NaN, infinite or huge values",
    "Replace them: np.nan_to_num(image, posinf=1, neginf=0).",
)


def closed():
    stream = io.BytesIO(b"x")
    stream.close()
    return stream


class OneWay(io.BytesIO):
    def seek(self, *args):
        raise io.UnsupportedOperation("seek")


#: Object -> how it is named, reason, hint.
OBJECTS = {
    "None": (None, "object of type NoneType", *MISSING),
    "NaN": (float("nan"), "object of type float", *MISSING),
    "NA": (pd.NA, "object of type NAType", *MISSING),
    "number": (3.5, "object of type float", "it is not an image", NO_IMAGE),
    "NumPy number": (
        np.float32(3),
        "object of type float32",
        "it is not an image",
        NO_IMAGE,
    ),
    "list": ([[1, 2], [3, 4]], "object of type list", "it is not an image", NO_IMAGE),
    "dict": ({"pixels": b""}, "object of type dict", "it is not an image", NO_IMAGE),
    "no bytes": (b"", "bytes of length 0", *EMPTY),
    "empty file": (io.BytesIO(), "file object", *EMPTY),
    "closed file": (closed(), "file object", *CLOSED),
    "one-way file": (OneWay(b"x"), "file object", *CLOSED),
    "text file": (
        io.StringIO("a"),
        "file object",
        "the file object was opened as text",
        'Open it with mode "rb".',
    ),
    "empty PIL image": (
        Image.new("L", (0, 5)),
        "PIL image of 5 x 0 pixels, L",
        "it has no pixels",
        "Remove it from X.",
    ),
}

#: Array -> reason, hint.
ARRAYS = {
    "no rows": (np.zeros((0, 3)), "it has no pixels", "Remove it from X."),
    "no columns": (np.zeros((3, 0, 3)), "it has no pixels", "Remove it from X."),
    "no dimension": (
        np.array(5),
        "an image has 2 or 3 dimensions, but this one has 0",
        SHAPES,
    ),
    "one dimension": (
        np.zeros(5),
        "an image has 2 or 3 dimensions, but this one has 1",
        SHAPES,
    ),
    "a batch": (
        np.zeros((2, 8, 8, 3)),
        "an image has 2 or 3 dimensions, but this one has 4",
        "If it is a batch, pass its images: list(batch).",
    ),
    "channels first": (
        np.zeros((3, 8, 8)),
        "its first axis looks like the channels, which must be the last",
        "Use np.moveaxis(image, 0, -1).",
    ),
    "two channels": (
        np.zeros((8, 8, 2)),
        "an image has 1, 3 or 4 channels, but this one has 2",
        SLICES,
    ),
    "five channels": (
        np.zeros((8, 8, 5)),
        "an image has 1, 3 or 4 channels, but this one has 5",
        SLICES,
    ),
    "a volume": (
        np.zeros((20, 64, 64)),
        "an image has 1, 3 or 4 channels, but this one has 64",
        SLICES,
    ),
    "NaN": (np.full((4, 4), np.nan), *NO_NAN),
    "one NaN": (np.array([[0.5, np.nan]], np.float32), *NO_NAN),
    "infinite": (np.array([[0, np.inf]]), *NO_NAN),
    "minus infinite": (np.array([[0, -np.inf]]), *NO_NAN),
    "huge": (np.array([[0, 1e300]]), *NO_NAN),
    "hounsfield units": (
        np.array([[-1000.0, 40.0, 3000.0]]),
        "its values are float64 from -1000 to 3000, but floats are expected in [0, 1]",
        SAY_HOW,
    ),
    "floats from -1": (
        np.array([[-1.0, 1.0]], np.float32),
        "its values are float32 from -1 to 1, but floats are expected in [0, 1]",
        SAY_HOW,
    ),
    "floats to 255": (
        np.array([[0.0, 255.0]]),
        "its values are float64 from 0 to 255, but floats are expected in [0, 1]",
        AS_BYTES,
    ),
    "negative integers": (
        np.array([[-5, 7]], np.int16),
        "its values are int16 from -5 to 7, but integers are expected to be uint8 or "
        "uint16",
        SAY_HOW,
    ),
    "64-bit integers": (
        np.array([[1, 7]], np.int64),
        "its values are int64 from 1 to 7, but integers are expected to be uint8 or "
        "uint16",
        AS_BYTES,
    ),
    "bool": (
        np.ones((4, 4), bool),
        "pixels of type bool are not grey values",
        "Convert a mask with image.astype(np.uint8) * 255.",
    ),
    "complex": (
        np.ones((4, 4), complex),
        "pixels of type complex128 are not grey values",
        "Take its magnitude, np.abs(image), and set intensity=Percentiles().",
    ),
    "objects": (
        np.full((4, 4), None),
        "pixels of type object are not grey values",
        "Its pixels are objects: convert it with image.astype(np.uint8).",
    ),
    "text": (
        np.full((4, 4), "a"),
        "pixels of type <U1 are not grey values",
        "Pass uint8, uint16, or floats from 0 to 1.",
    ),
    "dates": (
        np.zeros((4, 4), "datetime64[D]"),
        "pixels of type datetime64[D] are not grey values",
        "Pass uint8, uint16, or floats from 0 to 1.",
    ),
    "opacity of 32 bits": (
        np.ones((4, 4, 4), np.int32),
        "its fourth channel is int32 from 1 to 1, which is not an opacity",
        "Drop it: image[..., :3].",
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_bad_objects(case):
    image, source, reason, hint = OBJECTS[case]
    with pytest.raises(ImageReadError) as caught:
        read_image(image)
    error = caught.value
    assert (error.source, error.reason, error.hint) == (source, reason, hint)
    assert error.row is None
    assert str(error) == f"{source}: {reason}. {hint}"


@pytest.mark.parametrize("case", ARRAYS)
def test_bad_arrays(case):
    image, reason, hint = ARRAYS[case]
    with pytest.raises(ImageReadError) as caught:
        read_image(image)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)
    assert caught.value.source == f"array of shape {image.shape} and type {image.dtype}"


@pytest.mark.parametrize("intensity", ["auto", "lung"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_are_errors_whatever_the_intensity(intensity, value):
    with pytest.raises(ImageReadError, match="NaN"):
        read_image(np.array([[value, 1.0]]), intensity=intensity)


def test_a_tensor_that_gives_no_array_is_an_image_error():
    class OnTheGpu:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda tensor")

    with pytest.raises(ImageReadError) as caught:
        read_image(OnTheGpu())
    assert caught.value.reason == "it cannot be converted to a NumPy array (TypeError)"
    assert caught.value.hint == "Pass a NumPy array, or a tensor on the CPU."


def test_running_out_of_memory_is_no_bad_image():
    class Large:
        def __array__(self, dtype=None, copy=None):
            raise MemoryError

    with pytest.raises(MemoryError):
        read_image(Large())


# A type means the same in an array, in a Pillow image and in a file; but for bool


def test_files_of_one_bit_are_scans_and_bool_arrays_masks():
    mask = np.array([[True, False, True], [False, False, True]])
    for image in (Image.fromarray(mask), tiff(mask)):
        pixels = read_image(image)
        assert pixels.dtype == np.uint8
        for channel in range(3):
            np.testing.assert_array_equal(pixels[..., channel], np.where(mask, 255, 0))
    np.testing.assert_array_equal(read_image(mask.astype(np.uint8) * 255), pixels)


@pytest.mark.parametrize("high", [200, 4000, 70_000])
def test_int32_is_an_error_as_pillows_mode_i_is(high):
    values = np.array([[0, high]], np.int32)
    assert Image.fromarray(values).mode == "I"
    reasons = []
    for image in (values, Image.fromarray(values), tiff(values)):
        with pytest.raises(ImageReadError) as caught:
            read_image(image)
        reasons.append(caught.value.reason)
        shown = read_image(image, intensity="lung")
        assert shown[0, 1].tolist() == [255] * 3
    assert len(set(reasons)) == 1
    assert reasons[0].startswith(f"its values are int32 from 0 to {high:g}, but integ")


def tiff(values):
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "TIFF")
    return stream.getvalue()


# Not bad at all


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (1, 5000, 3)])
def test_thin_images_are_images(shape):
    assert read_image(np.ones(shape)).shape == (*shape[:2], 3)
    pixels = np.full(shape, 7, np.uint8)
    assert (read_image(tiff(pixels)) == 7).all()
