"""Bad images: one row a case, each with its sentence."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sk_medsiglip
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
ANY_FORMAT = "PNG, JPEG, TIFF, WebP, BMP and DICOM are read"
AGAIN = "Copy or download it again"


def encoded(format, image=None, **options):
    stream = io.BytesIO()
    (Image.fromarray(NOISE) if image is None else image).save(stream, format, **options)
    return stream.getvalue()


def png_of_size(width, height):
    """Return a PNG file that announces a size and holds next to nothing."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data))
            + name
            + data
            + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def tiff_of_size(width, height):
    """Return the content of a TIFF file whose tags announce a size."""
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, 1),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(8)


CONTENTS = {
    "empty": (b"", "the file is empty", "Copy or download it again, or remove it."),
    "text": (b"patient,label\n1,0\n" * 50, "its content is no image", ANY_FORMAT),
    "one byte": (b"\x08", "its content is no image", ANY_FORMAT),
    "zeros": (bytes(5000), "its content is no image", ANY_FORMAT),
    "gif": (encoded("GIF"), "it is a GIF image, which is not read", ANY_FORMAT),
    "jpeg 2000": (
        encoded("JPEG2000"),
        "it is a JPEG 2000 image outside of DICOM, which is not read",
        ANY_FORMAT,
    ),
    "pdf": (b"%PDF-1.4" + bytes(500), "it is a PDF document", ANY_FORMAT),
    "numpy": (b"\x93NUMPY\x01\x00", "it is a NumPy file", ANY_FORMAT),
    "nifti": (b"\x1f\x8b\x08" + bytes(99), "it is a gzip archive, NIfTI perhaps", ""),
    "png cut short": (
        encoded("PNG")[:3000],
        r"it is damaged or cut short \(OSError\)",
        AGAIN,
    ),
    "jpeg cut short": (
        encoded("JPEG")[:2000],
        r"it is damaged or cut short \(OSError\)",
        AGAIN,
    ),
    "tiff cut short": (encoded("TIFF")[:5000], "(it is|its).*(damaged|cannot)", AGAIN),
    "webp cut short": (encoded("WEBP")[:1000], "(it is|its).*(damaged|cannot)", AGAIN),
    "bmp cut short": (
        encoded("BMP")[:5000],
        r"it is damaged or cut short \(OSError\)",
        AGAIN,
    ),
    "png header only": (
        b"\x89PNG\r\n\x1a\n",
        "its PNG header cannot be read",
        AGAIN,
    ),
    "jpeg header only": (b"\xff\xd8\xff", "its JPEG header cannot be read", AGAIN),
    "tiff header only": (b"II*\0", "its TIFF header cannot be read", AGAIN),
    "bmp header only": (b"BM", "its BMP header cannot be read", AGAIN),
    "png with a bad checksum": (
        encoded("PNG")[:60] + b"\0\0\0\0" + encoded("PNG")[64:],
        "(it is|its).*(damaged|cannot)",
        AGAIN,
    ),
    "png bomb": (
        png_of_size(60000, 60000),
        "it has more pixels than Pillow's own limit",
        "raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels",
    ),
    "tiff bomb": (
        tiff_of_size(60000, 60000),
        "it has more pixels than Pillow's own limit",
        "raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels",
    ),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_bad_contents(case, tmp_path):
    content, reason, hint = CONTENTS[case]
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=f"^{re.escape(str(path))}: {reason}") as e:
        read_image(path)
    assert hint in e.value.hint
    assert e.value.source == str(path)
    if content:
        with pytest.raises(ImageReadError, match=f"^bytes of length .*: {reason}"):
            read_image(content)


@pytest.mark.parametrize("make", [png_of_size, tiff_of_size], ids=["png", "tiff"])
def test_max_pixels_is_checked_before_decoding(make):
    # Decoding would fail otherwise: there is next to no data in these files.
    with pytest.raises(ImageReadError) as caught:
        read_image(make(3000, 2000), max_pixels=5_999_999)
    assert caught.value.reason == (
        "it has 2000 x 3000 = 6000000 pixels, more than max_pixels=5999999"
    )
    with pytest.raises(ImageReadError, match="damaged or cut short"):
        read_image(make(3000, 2000), max_pixels=6_000_000)


@pytest.mark.parametrize("size", [(13_000, 13_000), (10_000, 10_000)])
def test_between_pillows_warning_and_its_limit_nothing_leaks(size):
    assert size[0] * size[1] > Image.MAX_IMAGE_PIXELS
    for make in (png_of_size, tiff_of_size):
        with pytest.raises(ImageReadError, match="damaged or cut short"):
            read_image(make(*size))


def test_max_pixels_of_arrays_and_pil_images():
    for source in (NOISE, NOISE[..., 0], Image.fromarray(NOISE)):
        assert read_image(source, max_pixels=4096).shape == (64, 64, 3)
        with pytest.raises(ImageReadError, match="64 x 64 = 4096 pixels, more than"):
            read_image(source, max_pixels=4095)


PATHS = {
    "missing": (lambda folder: folder / "no.png", "there is no such file", "spelling"),
    "directory": (
        lambda folder: folder,
        "it is a directory",
        'sorted(Path(folder).glob("*.png"))',
    ),
    "broken link": (
        lambda folder: linked(folder),
        "it is a link to a file that does not exist",
        "Restore the file",
    ),
    "pipe": (lambda folder: fifo(folder), "it is a pipe, not a file", "Save its"),
    "device": (lambda folder: Path("/dev/null"), "it is a device or socket", "Save"),
    "file as folder": (
        lambda folder: inside_a_file(folder),
        r"it cannot be opened \(Not a directory\)",
        "Check the path",
    ),
    "empty": (lambda folder: "", "the path is empty", "Give the path"),
    "null character": (lambda folder: "a\0b", "it is not a possible path", "Check"),
    "too long": (lambda folder: "a" * 5000, r"it cannot be opened \(File name", ""),
    "web": (
        lambda folder: "https://example.org/a.png",
        "it is a URL, and nothing is downloaded",
        "Download it",
    ),
}


def linked(folder):
    (folder / "link.png").symlink_to(folder / "gone.png")
    return folder / "link.png"


def fifo(folder):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def inside_a_file(folder):
    (folder / "file").write_bytes(b"x")
    return folder / "file" / "a.png"


@pytest.mark.skipif(os.name == "nt", reason="paths and messages of POSIX systems")
@pytest.mark.parametrize("case", PATHS)
def test_bad_paths(case, tmp_path):
    make, reason, hint = PATHS[case]
    path = make(tmp_path)
    with pytest.raises(ImageReadError, match=reason) as caught:
        read_image(path)
    assert hint in caught.value.hint
    assert caught.value.source == (str(path) or "''")
    assert isinstance(caught.value, ValueError)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX permissions")
def test_no_permission(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(encoded("PNG"))
    path.chmod(0)
    script = (
        "import os, sys\n"
        "from sk_medsiglip.images import read_image\n"
        "from sk_medsiglip.exceptions import ImageReadError\n"
        "if os.getuid() == 0:\n"  # root may read everything
        "    os.setgid(65534); os.setuid(65534)\n"
        "try:\n"
        "    read_image(sys.argv[1])\n"
        "except ImageReadError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(sk_medsiglip.__file__).parents[1])},
    )
    assert result.stdout.strip() == (
        f"{path}: there is no permission to read it. Change the permissions of the "
        "file and its folders, or ask its owner."
    ), result.stderr


def closed():
    stream = io.BytesIO(encoded("PNG"))
    stream.close()
    return stream


class OneWay(io.BytesIO):
    def seek(self, *args):
        raise io.UnsupportedOperation("seek")


OBJECTS = {
    "None": (None, "object of type NoneType: the image is missing", "X.dropna()"),
    "NaN": (float("nan"), "the image is missing", "X.dropna()"),
    "NA": (pd.NA, "the image is missing", "X.dropna()"),
    "number": (3.5, "object of type float: it is no image", "An image is a path"),
    "NumPy number": (np.float32(3), "it is no image", "An image is a path"),
    "list": ([[1, 2], [3, 4]], "object of type list: it is no image", "NumPy array"),
    "dict": ({"bytes": b""}, "object of type dict: it is no image", ""),
    "no bytes": (b"", "bytes of length 0: it is empty", "Write the image again"),
    "empty file": (io.BytesIO(), "file object: it is empty", ""),
    "closed file": (closed(), "file object: the file object is closed or cannot", ""),
    "one-way file": (OneWay(b"x"), "the file object is closed or cannot seek", "read"),
    "text file": (io.StringIO("a"), "the file object was opened as text", '"rb"'),
    "empty PIL image": (Image.new("L", (0, 5)), "it has no pixels", "Remove it"),
    "empty array": (
        np.zeros((0, 3)),
        r"array of shape \(0, 3\) and type float64: it has no pixels",
        "Remove it from X.",
    ),
    "one dimension": (
        np.zeros(5),
        "an image has 2 or 3 dimensions, and this has 1",
        "",
    ),
    "no dimension": (np.array(5), "an image has 2 or 3 dimensions, and this has 0", ""),
    "a batch": (np.zeros((2, 8, 8, 3)), "one image .* and this has 4", "list(batch)"),
    "channels first": (np.zeros((3, 8, 8)), "first axis looks like", "np.moveaxis"),
    "five channels": (np.zeros((8, 8, 5)), "1, 3 or 4 channels, and this has 5", ""),
    "two channels": (np.zeros((8, 8, 2)), "1, 3 or 4 channels, and this has 2", ""),
    "a volume": (np.zeros((20, 64, 64)), "and this has 64", "slices of a volume"),
    "NaN pixels": (np.full((4, 4), np.nan), "it holds NaN, infinite", "nan_to_num"),
    "infinite": (np.array([[0, np.inf]]), "it holds NaN, infinite", "nan_to_num"),
    "hounsfield units": (
        np.array([[-1000.0, 40.0, 3000.0]]),
        "its values are float64 from -1000 to 3000, and floats are expected in",
        "Say how to show them: intensity=Window(center, width)",
    ),
    "floats to 255": (
        np.array([[0.0, 255.0]]),
        "its values are float64 from 0 to 255",
        "Values from 0 to 255: image.astype(np.uint8).",
    ),
    "negative integers": (
        np.array([[-5, 7]], np.int16),
        "its values are int16 from -5 to 7, and integers are expected to be uint8",
        "Percentiles(1, 99)",
    ),
    "64-bit integers": (np.array([[1, 7]]), "int64 from 1 to 7", "astype(np.uint8)"),
    "mask": (np.ones((4, 4), bool), "pixels of type bool", "astype(np.uint8) * 255"),
    "complex": (np.ones((4, 4), complex), "pixels of type complex128", "np.abs"),
    "objects": (np.full((4, 4), None), "pixels of type object", "astype(np.uint8)"),
    "text pixels": (np.full((4, 4), "a"), "pixels of type <U1", "Pass uint8"),
    "opacity of 32 bits": (
        np.ones((4, 4, 4), np.int32),
        "its fourth channel is int32 from 1 to 1",
        "image[..., :3]",
    ),
}


@pytest.mark.parametrize("case", OBJECTS)
def test_bad_objects(case):
    source, message, hint = OBJECTS[case]
    with pytest.raises(ImageReadError, match=message) as caught:
        read_image(source)
    assert hint in caught.value.hint
    assert caught.value.row is None


def test_nan_is_an_error_whatever_the_intensity():
    with pytest.raises(ImageReadError, match="it holds NaN"):
        read_image(np.array([[np.nan, 1.0]]), intensity="lung")


def test_a_tensor_that_gives_no_array_is_an_image_error():
    class OnTheGpu:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("can't convert cuda tensor")

    with pytest.raises(ImageReadError, match=r"cannot be made a NumPy array \(TypeErr"):
        read_image(OnTheGpu())


def test_running_out_of_memory_is_no_bad_image():
    class Large:
        def __array__(self, dtype=None, copy=None):
            raise MemoryError

    with pytest.raises(MemoryError):
        read_image(Large())


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_images_are_images(shape):
    assert read_image(np.ones(shape)).shape == (*shape, 3)


def test_mutated_files_fail_in_one_way():
    rng = np.random.default_rng(0)
    for format in ("PNG", "JPEG", "TIFF", "WEBP", "BMP"):
        content = encoded(format)
        for _ in range(40):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 8):
                damaged[place] = rng.integers(256)
            try:
                assert read_image(bytes(damaged), max_pixels=10**6).shape[2] == 3
            except (ImageReadError, UserWarning):
                pass  # Pillow's warnings on odd metadata are errors in these tests
