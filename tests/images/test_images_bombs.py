"""Small files that ask for much: the header tells it, and the row is unreadable."""

import gzip
import io
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from dicom_files import drawn
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import Region, read_image, read_study


def tiff_of_pages(n_pages):
    tags = [(256, 4), (257, 4), (258, 8), (259, 1), (262, 1), (277, 1), (278, 4)]
    size = 2 + 12 * (len(tags) + 2) + 4 + 16
    parts = [b"II*\0" + struct.pack("<L", 8)]
    for page in range(n_pages):
        start = 8 + page * size
        entries = [*tags[:5], (273, start + size - 16), *tags[5:], (279, 16)]
        parts.append(struct.pack("<H", len(entries)))
        parts += [struct.pack("<HHLL", tag, 4, 1, value) for tag, value in entries]
        parts.append(struct.pack("<L", start + size if page < n_pages - 1 else 0))
        parts.append(bytes(range(16)))
    return b"".join(parts)


@pytest.mark.parametrize("frame", [None, 0, "middle", 39_999])
def test_tiff_of_40_000_pages(frame):
    content = tiff_of_pages(40_000)
    for source in (content, Region(content, 0, 0, 2, 2)):
        with pytest.raises(ImageReadError, match="10000 pages"):
            read_image(source, frame=frame)
    with pytest.raises(ImageReadError, match="10000 pages"):
        read_study(content)


def test_pages_are_counted_as_pillow_counts_them():
    content = tiff_of_pages(50)
    assert Image.open(io.BytesIO(content)).n_frames == 50
    with pytest.raises(ImageReadError, match="50 frames"):
        read_image(content)
    assert len(read_study(content, n_slices=None)) == 50
    first = struct.pack("<L", 8)  # the last page points back to the first
    looped = content[:-20] + first + content[-16:]
    assert len(read_study(looped, n_slices=None)) == 50


@pytest.mark.parametrize("boxed", [False, True])
@pytest.mark.parametrize("size", [(4000, 4000), (20, 30)])
def test_jpeg_2000_of_another_size_than_its_tags(size, boxed):
    stream = io.BytesIO()
    image = Image.fromarray(np.zeros(size, np.uint8))
    image.save(stream, "JPEG2000", no_jp2=not boxed)
    tags = {"PixelData": encapsulate([stream.getvalue()])}
    content = drawn(np.zeros((30, 20), np.uint8), syntax=JPEG2000Lossless, **tags)
    tracemalloc.start()
    with pytest.raises(ImageReadError, match="compressed"):
        read_image(content, max_pixels=10**6)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_square_around_a_long_picture_counts():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((5, 100_000), np.uint8)).save(stream, "PNG")
    rows = [stream.getvalue(), np.zeros((8, 8), np.uint8)]
    embedder = MedSigLIPEmbedder(
        "demo", resize="processor", pad=True, cache=False, on_error="nan"
    )
    with pytest.warns(UserWarning, match="1 of"):
        found = embedder.transform(rows)
    assert np.isnan(found).all(axis=1).tolist() == [True, False]
    with pytest.raises(ImageReadError, match="square.*max_pixels"):
        embedder.set_params(on_error="raise").transform(rows)


LIMITED = """
import resource, sys
import nibabel, numpy as np
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_study

read_study(np.zeros((2, 4, 5), np.uint8))
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, now + 2**30))
try:
    read_study(sys.argv[1])
except ImageReadError as error:
    print(error.reason)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory as Linux does")
def test_volume_that_needs_more_memory_than_there_is(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.float64), np.eye(4))
    header = bytearray(image.to_bytes()[:352])
    header[42:48] = struct.pack("<3h", 1024, 1024, 256)  # two GiB of float64
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(bytes(header)) + gzip.compress(bytes(2**26)) * 32)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True
    )
    assert "1024 x 1024 x 256 voxels need more memory" in done.stdout, done.stderr
