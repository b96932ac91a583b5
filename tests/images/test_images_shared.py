"""One source in several rows, read by several threads, gives the same row each time."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.images import Region, read_image

N_THREADS = 12


def drawn(mode="RGB", format="TIFF", **options):
    y, x = np.mgrid[:600, :600]
    values = (127 + 60 * np.sin(x / 40) + 40 * np.cos(y / 25)).astype("u1")
    stream = io.BytesIO()
    Image.fromarray(values).convert(mode).save(stream, format, **options)
    return stream.getvalue()


def read_at_once(sources):
    with ThreadPoolExecutor(N_THREADS) as threads:
        return list(threads.map(read_image, sources))


CONTENTS = {
    "tiff": drawn(),
    "deflated": drawn(compression="tiff_adobe_deflate"),
    "png": drawn(format="PNG"),
    "jpeg": drawn(format="JPEG"),
    "palette": drawn("P", "PNG"),
    "opacity": drawn("RGBA", "PNG"),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_open_image_in_many_rows(name):
    content = CONTENTS[name]
    right = read_image(content)
    for _ in range(5):
        image = Image.open(io.BytesIO(content))
        sources = [image, Region(image, 0, 0, 600, 600)] * N_THREADS
        for pixels in read_at_once(sources):
            np.testing.assert_array_equal(pixels, right)


def test_images_and_rows_over_one_open_file():
    content = CONTENTS["deflated"]
    right = read_image(content)
    for _ in range(5):
        stream = io.BytesIO(content)
        sources = [Image.open(stream), stream, Image.open(stream)] * 8
        for pixels in read_at_once(sources):
            np.testing.assert_array_equal(pixels, right)


class _Lazy:
    """Turns itself into an array from a file with one position, as proxies do."""

    def __init__(self, content):
        self._stream = io.BytesIO(content)

    def __array__(self, dtype=None, copy=None):
        self._stream.seek(0)
        rows = [self._stream.read(64) for _ in range(64)]
        return np.frombuffer(b"".join(rows), np.uint8).reshape(64, 64)


def test_objects_that_become_arrays():
    values = np.arange(64 * 64, dtype=np.uint32).astype(np.uint8).reshape(64, 64)
    right = read_image(values)
    for _ in range(20):
        for pixels in read_at_once([_Lazy(values.tobytes())] * 4 * N_THREADS):
            np.testing.assert_array_equal(pixels, right)


def test_open_image_in_many_rows_of_an_embedder():
    content = CONTENTS["tiff"]
    embedder = MedSigLIPEmbedder("demo", cache=False, n_jobs=4)
    right = embedder.transform([content])[0]
    for _ in range(3):
        image = Image.open(io.BytesIO(content))
        rows = embedder.transform([image] * 8)
        np.testing.assert_allclose(rows, np.tile(right, (8, 1)), atol=1e-5)
