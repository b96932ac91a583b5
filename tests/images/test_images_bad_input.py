"""Bad files and paths: one row a case, each with its exact reason and hint."""

import io
import os
import struct
import tempfile
import zlib
from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)

AGAIN = "Copy or download it again; if a viewer opens it, save it from there as PNG."
DAMAGED = "it is damaged or cut short (OSError)"
TOO_LARGE = "it has more pixels than the limit of Pillow"
RAISE_LIMITS = (
    "If the file can be trusted, raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels."
)


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


def what_is_read():
    """Return the hint on files of other formats: it lists those that are read."""
    with pytest.raises(ImageReadError) as caught:
        read_image(b"something else")
    return caught.value.hint


#: Content of a file -> reason, hint; None stands for the list of formats.
CONTENTS = {
    "empty": (b"", "the file is empty", "Copy or download it again, or remove it."),
    "text": (b"patient,label\n1,0\n" * 50, "it is not an image file", None),
    "one byte": (b"\x08", "it is not an image file", None),
    "zeros": (bytes(5000), "it is not an image file", None),
    "gif": (encoded("GIF"), "it is a GIF image, which is not supported", None),
    "jpeg 2000": (
        encoded("JPEG2000"),
        "it is a JPEG 2000 image outside of DICOM, which is not supported",
        None,
    ),
    "pdf": (
        b"%PDF-1.4" + bytes(500),
        "it is a PDF document, which is not supported",
        None,
    ),
    "numpy": (b"\x93NUMPY\x01\x00", "it is a NumPy file, which is not supported", None),
    "png cut short": (encoded("PNG")[:3000], DAMAGED, AGAIN),
    "jpeg cut short": (encoded("JPEG")[:2000], DAMAGED, AGAIN),
    "tiff cut short": (encoded("TIFF")[:5000], DAMAGED, AGAIN),
    "bmp cut short": (encoded("BMP")[:5000], DAMAGED, AGAIN),
    "webp cut short": (
        encoded("WEBP")[:1000],
        "its WEBP header cannot be read (OSError)",
        AGAIN,
    ),
    **{
        f"{name} header only": (
            start,
            f"its {name} header cannot be read (UnidentifiedImageError)",
            AGAIN,
        )
        for name, start in (
            ("PNG", b"\x89PNG\r\n\x1a\n"),
            ("JPEG", b"\xff\xd8\xff"),
            ("TIFF", b"II*\0"),
            ("BMP", b"BM"),
        )
    },
    "png with a bad checksum": (
        encoded("PNG")[:60] + b"\0\0\0\0" + encoded("PNG")[64:],
        DAMAGED,
        AGAIN,
    ),
    "png bomb": (png_of_size(60000, 60000), TOO_LARGE, RAISE_LIMITS),
    "tiff bomb": (tiff_of_size(60000, 60000), TOO_LARGE, RAISE_LIMITS),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_bad_contents(case, tmp_path):
    content, reason, hint = CONTENTS[case]
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    hint = what_is_read() if hint is None else hint
    assert (caught.value.reason, caught.value.hint) == (reason, hint)
    assert str(caught.value) == f"{path}: {reason}. {hint}"
    if content:
        with pytest.raises(ImageReadError) as caught:
            read_image(content)
        assert (caught.value.reason, caught.value.hint) == (reason, hint)
        assert caught.value.source == f"bytes of length {len(content)}"


def test_other_formats_are_told_what_is_read():
    for name in ("PNG", "JPEG", "TIFF", "WebP", "BMP", "DICOM"):
        assert name in what_is_read()


@pytest.mark.parametrize("make", [png_of_size, tiff_of_size], ids=["png", "tiff"])
def test_max_pixels_is_checked_before_decoding(make):
    # Decoding would fail otherwise: there is next to no data in these files.
    with pytest.raises(ImageReadError) as caught:
        read_image(make(3000, 2000), max_pixels=5_999_999)
    assert caught.value.reason == (
        "it has 2000 x 3000 = 6000000 pixels, more than max_pixels=5999999"
    )
    with pytest.raises(ImageReadError, match="cut short"):
        read_image(make(3000, 2000), max_pixels=6_000_000)


@pytest.mark.parametrize("size", [(13_000, 13_000), (10_000, 10_000)])
def test_between_pillows_warning_and_its_limit_nothing_leaks(size):
    assert size[0] * size[1] > Image.MAX_IMAGE_PIXELS
    for make in (png_of_size, tiff_of_size):
        with pytest.raises(ImageReadError, match="cut short"):
            read_image(make(*size))


def test_max_pixels_of_arrays_and_pil_images():
    for source in (NOISE, NOISE[..., 0], Image.fromarray(NOISE)):
        assert read_image(source, max_pixels=4096).shape == (64, 64, 3)
        with pytest.raises(ImageReadError, match="4096 pixels"):
            read_image(source, max_pixels=4095)


#: How a path is made in a folder -> reason, hint.
PATHS = {
    "missing": (
        lambda folder: folder / "no.png",
        "there is no such file",
        "Check the spelling; a relative path starts at the working directory, which "
        "os.getcwd() shows.",
    ),
    "directory": (
        lambda folder: folder,
        "it is a directory",
        'Pass the files in it: sorted(Path(folder).glob("*.png")).',
    ),
    "broken link": (
        lambda folder: linked(folder),
        "it is a link to a file that does not exist",
        "Restore the target of the link, or remove the link.",
    ),
    "link to itself": (
        lambda folder: linked_to_itself(folder),
        "it cannot be opened (Too many levels of symbolic links)",
        "Check the path and the disk.",
    ),
    "pipe": (
        lambda folder: fifo(folder),
        "it is a pipe, not a file",
        "Save its content to a file first.",
    ),
    "device": (
        lambda folder: Path("/dev/zero"),
        "it is a device or socket, not a file",
        "Save its content to a file first.",
    ),
    "file as folder": (
        lambda folder: inside_a_file(folder),
        "it cannot be opened (Not a directory)",
        "Check the path and the disk.",
    ),
    "empty": (
        lambda folder: "",
        "the path is empty",
        "Pass the path of an image file.",
    ),
    "null character": (
        lambda folder: "a\0b",
        "it is not a valid path",
        "Check how the path was built.",
    ),
    "too long": (
        lambda folder: "a" * 5000,
        "it cannot be opened (File name too long)",
        "Check the path and the disk.",
    ),
}


def linked(folder):
    (folder / "link.png").symlink_to(folder / "gone.png")
    return folder / "link.png"


def linked_to_itself(folder):
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder / "loop.png"


def fifo(folder):
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def inside_a_file(folder):
    (folder / "file").write_bytes(b"x")
    return folder / "file" / "a.png"


@pytest.mark.timeout(60)  # a pipe must not be waited for
@pytest.mark.skipif(os.name == "nt", reason="paths and messages of POSIX systems")
@pytest.mark.parametrize("case", PATHS)
def test_bad_paths(case, tmp_path):
    make, reason, hint = PATHS[case]
    path = make(tmp_path)
    with pytest.raises(ImageReadError) as caught:
        read_image(path)
    assert (caught.value.reason, caught.value.hint) == (reason, hint)
    assert caught.value.source == (str(path) or "''")
    assert isinstance(caught.value, ValueError)


@pytest.fixture
def open_folder():
    """A folder that anybody may enter, as those of ``tmp_path`` are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX permissions")
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_no_permission(open_folder, closed):
    (open_folder / "open.png").write_bytes(encoded("PNG"))
    folder = open_folder / "folder"
    folder.mkdir(mode=0o755)
    path = folder / "secret.png"
    path.write_bytes(encoded("PNG"))
    (path if closed == "file" else folder).chmod(0)
    script = (
        "import os, sys\n"
        "from sk_medsiglip.images import read_image\n"
        "from sk_medsiglip.exceptions import ImageReadError\n"
        # Modules are imported on the way, which may be for root only too.
        "print(read_image(sys.argv[1]).shape)\n"
        "if os.getuid() == 0:\n"  # root may read everything
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "open(sys.argv[1]).close()\n"
        "try:\n"
        "    read_image(sys.argv[2])\n"
        "except ImageReadError as error:\n"
        "    print(error)\n"
    )
    result = forked.run_code(script, open_folder / "open.png", path)
    folder.chmod(0o755)
    assert result.stdout.splitlines() == [
        "(64, 64, 3)",
        f"{path}: permission to read it was denied. Change the permissions of the "
        "file and its folders, or ask its owner.",
    ], result.stderr
