"""The value objects behind ``intensity`` and their place in scikit-learn."""

import copy
import pickle

import numpy as np
import pytest
from dicom_files import drawn
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import GridSearchCV

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    CTWindows,
    Percentiles,
    Window,
    read_image,
    recipe_key,
    validate_frame,
    validate_intensity,
)

VALUES = [Window(40, 80), CTWindows(), CTWindows(blue=(0, 100)), Percentiles(2, 98)]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_value_objects_are_values(value):
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert other == value
        assert hash(other) == hash(value)
    assert eval(repr(value)) == value
    assert len({repr(other) for other in VALUES}) == len(VALUES)
    with pytest.raises(AttributeError):
        value.center = 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(40, 0), "width must be positive, got 0"),
        (lambda: Window(float("nan"), 1), "center must be finite"),
        (lambda: Window("40", 1), "center must be a number, got '40'"),
        (lambda: CTWindows(red=(1, 1)), "red must have low < high"),
        (lambda: CTWindows(green=5), r"green must be a pair \(low, high\), got 5"),
        (lambda: Percentiles(99, 1), "percentiles must be 0 <= low < high <= 100"),
        (lambda: Percentiles(high=101), "got low=1, high=101"),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Holder(ClassifierMixin, BaseEstimator):
    def __init__(self, intensity="auto"):
        self.intensity = intensity

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def test_value_objects_are_estimator_parameters():
    holder = Holder(intensity=Window(40, 80))
    assert clone(holder).get_params() == {"intensity": Window(40, 80)}
    search = GridSearchCV(Holder(), {"intensity": ["auto", *VALUES]}, cv=2)
    search.fit(np.zeros((8, 1)), [0, 1] * 4)
    assert list(search.cv_results_["param_intensity"]) == ["auto", *VALUES]


def test_recipe_key_is_one_text_for_one_recipe():
    assert recipe_key("auto", None) == "read-3;intensity=auto;frame=None"
    key = recipe_key(Window(40, 80), 3)
    assert key == "read-3;intensity=Window(center=40, width=80);frame=3"
    assert key == recipe_key(Window(np.float64(40.0), np.int16(80)), np.int64(3))
    assert recipe_key("brain", None) == recipe_key(Window(40, 80), None)
    assert recipe_key("ct", None) == recipe_key(CTWindows([-1024.0, 1024]), None)
    keys = {recipe_key(value, "middle") for value in ("auto", "lung", *VALUES)}
    assert len(keys) == len(VALUES) + 2


@pytest.mark.parametrize("intensity", ["soft", None, 3, (1, 2), Window, np.ones(2)])
def test_other_intensities_are_refused_with_the_accepted_forms(intensity):
    with pytest.raises(ValueError, match='"lung".*Window'):
        validate_intensity(intensity)
    with pytest.raises(ValueError, match="intensity"):
        read_image(np.zeros((2, 2)), intensity=intensity)


@pytest.mark.parametrize("frame", [-1, True, "first", 1.0, [0]])
def test_other_frames_are_refused(frame):
    with pytest.raises(ValueError, match="frame"):
        validate_frame(frame)
    with pytest.raises(ValueError, match="frame"):
        read_image(np.zeros((2, 2)), frame=frame)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(20, 30), (300, 301)])  # by formula and by table
def test_windows_map_hounsfield_units_of_any_type(dtype, shape):
    rng = np.random.default_rng(0)
    hounsfield = rng.integers(-1500, 2000, shape).astype(dtype)
    pixels = read_image(hounsfield, intensity=CTWindows())
    for channel, (low, high) in enumerate([(-1024, 1024), (-135, 215), (0, 80)]):
        exact = np.clip((hounsfield.astype(float) - low) / (high - low), 0, 1) * 255
        assert np.abs(pixels[..., channel] - exact).max() <= 0.5001
    np.testing.assert_array_equal(
        read_image(hounsfield, intensity="brain")[..., 0], pixels[..., 2]
    )


def test_percentiles_are_of_the_image_itself():
    values = np.arange(-500, 501, dtype=np.int32).reshape(7, 143)
    pixels = read_image(values, intensity=Percentiles(10, 90))[..., 0].ravel()
    assert (pixels[:101] == 0).all()
    assert (pixels[900:] == 255).all()
    assert pixels[500] in (127, 128)
    assert (np.diff(pixels.astype(int)) >= 0).all()


def test_an_image_of_one_value_becomes_black():
    pixels = read_image(np.full((4, 4), 700, np.int32), intensity=Percentiles())
    assert not pixels.any()


def test_a_window_applies_to_each_channel_of_a_colour_image():
    colours = np.random.default_rng(0).uniform(-1, 1, (9, 9, 3))
    pixels = read_image(colours, intensity=Window(center=0, width=2))
    assert np.abs(pixels - (colours + 1) * 127.5).max() <= 0.5001


def test_ct_windows_on_a_colour_image_are_an_error():
    with pytest.raises(ImageReadError, match="colour"):
        read_image(np.zeros((4, 4, 3), np.uint8), intensity="ct")


# The serving container of Google, its arithmetic written out again


WINDOWS = [None, (140, 81), (40, 5000), ([40, 500], [80, 9])]


def container(stored, slope, intercept, window, modality, dtype):
    """Return 8 bits of what the container makes of grey values."""
    values = stored.astype(np.float64) * slope + intercept
    if modality == "CT":
        window = window or (100, 2500)
    if window:
        half = window[1] // 2
        low, high = window[0] - half, window[0] + half
        values = np.interp(values.clip(low, high), (low, high), (0, 65535))
    elif dtype == np.uint8:
        return values
    if modality != "CT":
        values = np.interp(values, (values.min(), values.max()), (0, 65535))
    return values / 257


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("modality", ["CT", "CR", "DX"])
@pytest.mark.parametrize("turned", [False, True])
def test_google_serving_is_the_containers_recipe(modality, window, dtype, turned):
    stored = np.random.default_rng(0).integers(3, 250, (20, 30)).astype(dtype)
    if dtype == np.uint16:
        stored *= 16
    tags = {"Modality": modality}
    slope, intercept = (1, -1024) if modality == "CT" else (1, 0)
    if modality == "CT":
        tags |= {"RescaleSlope": slope, "RescaleIntercept": intercept}
    first = window
    if window:
        tags |= dict(zip(("WindowCenter", "WindowWidth"), window, strict=True))
        first = tuple(np.ravel(value)[0] for value in window)
    if turned:
        tags["PhotometricInterpretation"] = "MONOCHROME1"
    found = read_image(drawn(stored, **tags), intensity="google-serving")
    expected = container(stored, slope, intercept, first, modality, dtype)
    expected = 255 - expected if turned else expected
    assert np.abs(found[..., 0] - expected).max() <= 1


def test_google_serving_leaves_other_images_as_they_are():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for source in (grey, drawn(grey, Modality="XC"), drawn(grey, Modality="MR")):
        np.testing.assert_array_equal(
            read_image(source, intensity="google-serving"), read_image(source)
        )
