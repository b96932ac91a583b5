"""Parts of the room that the public functions do not show by themselves."""

import threading
import warnings

import numpy as np
import pydicom
import pytest
from dicom_files import real
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from study_files import marked, numbers
from test_images_dicom import FILES, IMAGES, frame_by_pydicom
from test_images_nifti import write

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import (
    MAX_PIXELS,
    Percentiles,
    Window,
    _decoded_image,
    _dicom,
    _grey_range,
    _lazy,
    _nifti,
    _read,
    _sources,
    _urls,
    read_study,
)

# ---------------------------------------------------------------- files and their names


def test_a_header_that_announces_gigabytes_costs_no_memory(tmp_path):
    # ``read(n)`` of an ordinary file sets n bytes aside first.
    path = tmp_path / "small"
    path.write_bytes(b"0123456789")
    with _sources.BoundedFile(str(path)) as file:
        assert file.read(2**62) == b"0123456789"
        assert file.read(2**62) == b""
        file.seek(7)
        assert file.read(2) == b"78"
        assert file.read() == b"9"
        file.seek(50)
        assert file.read(2**62) == b""
        file.seek(-3, 2)
        assert file.read(None) == b"789"


SECRETS = {
    "https://user:pass@host/a.png": "https://host/a.png",
    "https://user:pa/ss@host/a.png": "https://host/a.png",
    "https://user:pa?ss@host/a.png": "https://host/a.png",
    "https://host/a.png?X-Amz-Signature=pass&b=1#pass": "https://host/a.png?...",
    "https://host/a.png?pass": "https://host/a.png?...",
    "zip://a.png::https://user:pass@host/x.zip?t=pass": (
        "zip://a.png::https://host/x.zip?..."
    ),
    "http://[::1]:8/a.png?sig=pass": "http://[::1]:8/a.png?...",
    "http://u:pass@[::1]:8/a.png#pass": "http://[::1]:8/a.png?...",
    "https://host/a?sig=ab::pass": "https://host/a?...",
    "https://host/a?x=zip://pass::b": "https://host/a?...",
    "https://user:pa::pass@host/x": "https://host/x",
    "https://user:pass@host/a.png?mail=a@pass": "https://host/a.png?...",
    "https://user:p/a?t=b@pass@host/x": "https://...",
    "https://user:12/pass@host/x": "https://host/x",
    "zip://a.png::https://user:pa::pass@host/x.zip?t=::pass": (
        "zip://a.png::https://host/x.zip?..."
    ),
    "simplecache::https://host/a?sig=ab::pass": "simplecache::https://host/a?...",
    "simplecache::zip://a.png::s3://key:pass@bucket/x.zip": (
        "simplecache::zip://a.png::s3://bucket/x.zip"
    ),
    "https:/user:pass@host/a.png?pass": "https:/host/a.png?...",
    "HTTPS://user:pass@host/a.png?pass": "HTTPS://host/a.png?...",
    "unknown::https://user:pass@host/a?pass": "unknown::https://host/a?...",
    "C:/scans/why#1.png": "C:/scans/why#1.png",
    "https://host/a::b.png": "https://host/a::b.png",
    "https://host:8443/a.png": "https://host:8443/a.png",
    "hf://datasets/org/name@main/a.png": "hf://datasets/org/name@main/a.png",
    "scan.png": "scan.png",
    "why?.png": "why?.png",
}


@pytest.mark.parametrize("url", SECRETS)
def test_secrets_of_urls_are_left_out(url):
    assert _urls.redact(url) == SECRETS[url]


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("v=1&X-Amz-Date=2&X-Amz-Signature=3", "?v=1"),
        ("X-Goog-Expires=2&X-Goog-Signature=3", ""),
        ("id=1&Expires=2&Key-Pair-Id=3&Signature=4", "?id=1"),
        ("sv=1&se=2&sr=b&sp=r&sig=3&snapshot=4", "?snapshot=4"),
        # Nothing is signed, and each of these may distinguish two images.
        ("key=b.png", "?key=b.png"),
        ("st=1&policy=2", "?st=1&policy=2"),
        (".png", "?.png"),
    ],
)
def test_a_signature_is_left_out_of_the_identity_of_a_url(query, kept):
    url = "https://host/a"
    assert _urls.without_signature(f"{url}?{query}") == url + kept


# ------------------------------------------------------------------ DICOM and NIfTI


def test_uncompressed_values_equal_those_of_pydicom():
    seen = set()
    for name in IMAGES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset, expected = frame_by_pydicom(FILES[name])
        syntax = dataset.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated or "PALETTE" in dataset.PhotometricInterpretation:
            continue
        image = _read.load_image(FILES[name], frame="middle", max_pixels=MAX_PIXELS)
        np.testing.assert_array_equal(image.values, expected, err_msg=name)
        assert image.values.dtype == expected.dtype.newbyteorder("=")
        seen.add((syntax.name, expected.dtype.name, expected.ndim))
    assert len({syntax for syntax, _, _ in seen}) == 4
    assert len(seen) >= 12


class CountingFile:
    """A real file that counts the bytes that are read from it."""

    def __init__(self, file):
        self.file, self.n_read = file, 0
        self.tell, self.seek = file.tell, file.seek

    def read(self, n=-1):
        data = self.file.read(n)
        self.n_read += len(data)
        return data

    def readinto(self, buffer):
        n_bytes = self.file.readinto(buffer)
        self.n_read += n_bytes
        return n_bytes


@pytest.mark.parametrize(
    "name", ["color3d_jpeg_baseline.dcm", "OBXXXX1A_2frame.dcm", "liver.dcm"]
)
def test_of_many_frames_only_one_is_read(name):
    path = real(name)
    n_frames = int(pydicom.dcmread(path, stop_before_pixels=True).NumberOfFrames)
    with path.open("rb") as file:
        counting = CountingFile(file)
        image = _dicom.load_dicom(counting, frame="middle", max_pixels=MAX_PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset, expected = frame_by_pydicom(path)
    if dataset.PhotometricInterpretation != "PALETTE COLOR":
        np.testing.assert_array_equal(image.values, expected)
    if name == "liver.dcm":  # frames of single bits are cut out of the whole
        assert counting.n_read <= path.stat().st_size + 4096
    else:
        assert counting.n_read < path.stat().st_size / n_frames + 20_000


def test_uncompressed_voxels_are_mapped_not_read(tmp_path):
    volume = _nifti.NiftiVolume(write(tmp_path / "v.nii", marked()), "axial")
    base = volume.content()
    while not isinstance(base, np.memmap):
        base = base.base
    assert base.filename == str(tmp_path / "v.nii")


def test_file_that_changes_between_header_and_voxels(tmp_path):
    path = write(tmp_path / "v.nii", marked())
    volume = _nifti.NiftiVolume(path, "axial")
    write(path, marked(4))
    with pytest.raises(ImageReadError, match="changed"):
        volume.image(0, 10**6)


def test_numbers_of_planes_are_in_their_names(tmp_path):
    path = write(tmp_path / "v.nii", marked())
    names = [slice.describe() for slice in _nifti.NiftiVolume(path, "coronal").slices()]
    assert names[3] == f"{path}, coronal slice 3"
    assert len(names) == 12
    assert numbers(read_study(path, intensity=Window(127.5, 255), n_slices=1)) == [3]


# -------------------------------------------------------------------------- grey values


def test_the_padding_of_a_negative_is_black():
    picture = _decoded_image.DecodedImage(
        np.full((40, 80), 5, np.uint8), auto=None, format="array", inverted=True
    )
    resized = _decoded_image.render_resized(picture, "auto", 8, pad=True)
    assert (resized[:2] == 0).all()
    assert (resized[2:6] == 250).all()
    assert (resized[6:] == 0).all()


INTEGERS = st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32])


SHAPES = st_np.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)


PERCENTS = st.sampled_from([(1, 99), (0, 100), (2.5, 50), (0, 10), (33, 34)])


@given(st.data(), INTEGERS, PERCENTS)
@settings(max_examples=60, deadline=None)
def test_limits_of_integers_equal_numpy(data, dtype, percents):
    elements = st.integers(-128 if np.dtype(dtype).kind == "i" else 0, 127)
    slices = data.draw(
        st.lists(st_np.arrays(dtype, SHAPES, elements=elements), min_size=1)
    )
    found = _grey_range.GreyRange(
        lambda: (_decoded_image.DecodedImage(s, None, "array") for s in slices)
    )
    values = np.concatenate([s.ravel() for s in slices]).astype(np.float64)
    expected = np.percentile(values, percents)
    np.testing.assert_allclose(
        found.limits(Percentiles(*percents)), expected, rtol=1e-12
    )


@given(
    st.lists(st_np.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)))
)
@settings(max_examples=60, deadline=None)
def test_limits_of_floats_are_near_numpy(slices):
    found = _grey_range.GreyRange(
        lambda: (_decoded_image.DecodedImage(s, None, "array") for s in slices)
    )
    values = np.concatenate([s.ravel() for s in slices]) if slices else np.zeros(1)
    assert found.extremes() == (values.min(), values.max())
    expected = np.percentile(values.astype(np.float64), [3, 97])
    # The grid is relative, the interpolation not; numbers below float32's are 0.
    near = 1e-5 * np.abs(values).max() + np.finfo(np.float32).tiny
    np.testing.assert_allclose(found.limits(Percentiles(3, 97)), expected, atol=near)


def test_limits_do_not_depend_on_how_many_values_wait(monkeypatch):
    rng = np.random.default_rng(0)
    slices = [rng.normal(size=(30, 30)).astype(np.float32) for _ in range(12)]
    pictures = [_decoded_image.DecodedImage(s, None, "array") for s in slices]
    at_once = _grey_range.GreyRange(lambda: pictures).limits(Percentiles())
    monkeypatch.setattr("sk_medsiglip.images._grey_range._MERGE_AT", 100)
    assert _grey_range.GreyRange(lambda: pictures).limits(Percentiles()) == at_once


# ------------------------------------------------------------------- what is in memory


class Counted(_lazy.Held):
    """Counts how often it is loaded, and how many are loaded at one moment."""

    def __init__(self):
        super().__init__()
        self.n_loads = 0

    def _load(self):
        self.n_loads += 1
        return object()

    @property
    def is_loaded(self):
        return self._content is not None


def test_two_big_things_stay_in_memory():
    things = [Counted() for _ in range(5)]
    for thing in things:
        thing.content()
        thing.content()
        assert sum(other.is_loaded for other in things) <= 2
    assert [thing.n_loads for thing in things] == [1] * 5
    for _ in range(3):  # readers at the border of two studies
        things[3].content()
        things[4].content()
    assert [things[3].n_loads, things[4].n_loads] == [1, 1]


def test_threads_load_one_thing_once():
    thing = Counted()
    barrier = threading.Barrier(8)

    def ask():
        barrier.wait()
        thing.content()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert thing.n_loads == 1
