"""The files that the fuzzer damages: drawn here, or real ones of installed packages."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["seed_files"]

#: Larger real files are left out: a run is to read thousands.
_MAX_BYTES = 130_000

#: Real DICOM files without pixels, and 16 x 16 slices of one series: a few stand for
#: all.
_KEPT_OF_A_KIND = 3


def seed_files():
    """Return ``{"kind/name": content}``, in a fixed order; kinds are drawn evenly."""
    seeds = {f"{name}": make() for name, make in _DRAWN.items()}
    seeds |= _tiled_tiffs() | _nifti()
    return seeds | _real_dicom()


def _scene(mode="RGB"):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (32, 24, 3), dtype=np.uint8)
    values[8:20, 4:16] = (200, 30, 90)
    return Image.fromarray(values).convert(mode)


def _deep():
    return Image.fromarray(np.asarray(_scene("L")).astype(np.uint16) * 16)


def _saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _pages(format, **options):
    others = [_scene("L").rotate(90 * turn) for turn in (1, 2)]
    return _saved(_scene("L"), format, save_all=True, append_images=others, **options)


def _with_exif(format):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter
    return _saved(_scene(), format, exif=exif)


_DRAWN = {
    **{
        f"png/{mode}": lambda mode=mode: _saved(_scene(mode), "PNG")
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA")
    },
    "png/16-bit": lambda: _saved(_deep(), "PNG"),
    "png/transparency": lambda: _saved(_scene("P"), "PNG", transparency=3),
    "png/frames": lambda: _pages("PNG"),
    "png/exif": lambda: _with_exif("PNG"),
    **{
        f"jpeg/{mode}": lambda mode=mode: _saved(_scene(mode), "JPEG")
        for mode in ("L", "RGB", "CMYK")
    },
    "jpeg/progressive": lambda: _saved(_scene(), "JPEG", progressive=True),
    "jpeg/subsampled": lambda: _saved(_scene(), "JPEG", subsampling=2),
    "jpeg/exif": lambda: _with_exif("JPEG"),
    **{
        f"tiff/{compression}": lambda compression=compression: _saved(
            _scene(), "TIFF", compression=compression
        )
        for compression in (
            "raw",
            "jpeg",
            "packbits",
            "tiff_adobe_deflate",
            "tiff_lzw",
        )
    },
    "tiff/16-bit": lambda: _saved(_deep(), "TIFF"),
    "tiff/16-bit lzw": lambda: _saved(_deep(), "TIFF", compression="tiff_lzw"),
    "tiff/float": lambda: _saved(_scene("F").point(lambda v: v / 255), "TIFF"),
    "tiff/group4": lambda: _saved(_scene("1"), "TIFF", compression="group4"),
    "tiff/palette": lambda: _saved(_scene("P"), "TIFF"),
    "tiff/alpha": lambda: _saved(_scene("RGBA"), "TIFF", compression="tiff_lzw"),
    "tiff/pages": lambda: _pages("TIFF", compression="tiff_adobe_deflate"),
    "tiff/exif": lambda: _with_exif("TIFF"),
    "webp/lossy": lambda: _saved(_scene(), "WEBP"),
    "webp/lossless": lambda: _saved(_scene("RGBA"), "WEBP", lossless=True),
    "webp/frames": lambda: _pages("WEBP"),
    "webp/exif": lambda: _with_exif("WEBP"),
    **{
        f"bmp/{mode}": lambda mode=mode: _saved(_scene(mode), "BMP")
        for mode in ("1", "L", "P", "RGB", "RGBA")
    },
}


def _tiled_tiffs():
    try:
        import tifffile
    except ImportError:
        return {}
    seeds = {}
    grey = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)
    colour = np.asarray(_scene().resize((40, 48)))
    for name, values, options in (
        ("grey", grey, {}),
        ("deflate", grey, {"compression": "zlib", "predictor": True}),
        ("colour", colour, {"photometric": "rgb"}),
        ("big", grey, {"bigtiff": True}),
    ):
        stream = io.BytesIO()
        tifffile.imwrite(stream, values, tile=(16, 16), **options)
        seeds[f"tiled/{name}"] = stream.getvalue()
    return seeds


def _nifti():
    try:
        import nibabel
    except ImportError:
        return {}
    import gzip

    volume = np.arange(12 * 10 * 4, dtype=np.int16).reshape(12, 10, 4)
    content = nibabel.Nifti1Image(volume, np.eye(4)).to_bytes()
    return {
        "nifti/plain": content,
        "nifti/gzip": gzip.compress(content, mtime=0),
    }


def _real_dicom():
    import pydicom

    folders = [Path(pydicom.__file__).parent / "data" / "test_files"]
    try:
        import data_store  # what pydicom-data installs
    except ImportError:
        pass
    else:
        folders.append(Path(data_store.__file__).parent / "data")
    seeds = {}
    kept = Counter()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or not 300 < path.stat().st_size < _MAX_BYTES:
                continue
            content = path.read_bytes()
            if path.suffix != ".dcm" and content[128:132] != b"DICM":
                continue
            if path.suffix != ".dcm" or not _has_pixels(content):
                kept[path.suffix] += 1
                if kept[path.suffix] > _KEPT_OF_A_KIND:
                    continue
            kind = "encapsulated" if _is_compressed(content) else "dicom"
            seeds.setdefault(f"{kind}/{path.name}", content)
    return seeds


def _has_pixels(content):
    deflated = b"1.2.840.10008.1.2.1.99" in content[:1000]
    return deflated or b"\xe0\x7f\x10\x00" in content or b"\x7f\xe0\x00\x10" in content


def _is_compressed(content):
    # 1.2.840.10008.1.2.4.x: JPEG and its kin; .1.2.5: RLE.
    head = content[:1000]
    return b"1.2.840.10008.1.2.4." in head or b"1.2.840.10008.1.2.5" in head
