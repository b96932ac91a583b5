"""Reading images: files to the pixels that the model gets, one core.

Run ``python -m benchmarks.reading``. Ratios are taken in one run, the sides in turns.

1. A radiograph as DICOM, against the usual order: decode, window the whole image, turn
   it to RGB, resize that. The files are 2048 x 2500, 16 bits, with a rescale and a
   window; the bytes that come out are compared.
2. 1024 x 1024 PNG files (a fundus photograph, its green channel, a radiograph with
   noise), against Pillow's bare decoding.
3. An array, against transformers' own image processor (Pillow), both to floats.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from threadpoolctl import threadpool_limits

from benchmarks._measure import in_turns, setting, write_results
from sk_medsiglip.images import image_fingerprint, read_image, read_resized

SIZE = 448
HEIGHT, WIDTH = 2500, 2048
N_REPEATS = 15


def draw_radiograph(bits: int = 12) -> NDArray[np.uint16]:
    """Return a smooth picture with noise, as wide in range as a radiograph."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.sin(y / 311) * np.cos(x / 203) * 0.4 + 0.5
    noisy = smooth + rng.normal(0, 0.01, smooth.shape)
    return (np.clip(noisy, 0, 1) * (2**bits - 1)).astype(np.uint16)


def write_dicom(
    path: Path, values: NDArray[np.uint16], window: tuple[float, float]
) -> None:
    """Write an uncompressed radiograph."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.WindowCenter, dataset.WindowWidth = window
    dataset.PixelData = values.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def window_whole_image(path: Path) -> NDArray[np.uint8]:
    """Return RGB of the whole image, by pydicom's own functions."""
    dataset = dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    # apply_voi_lut gives the range of the stored bits.
    grey = np.rint(values * (255 / (2**dataset.BitsStored - 1))).astype(np.uint8)
    return np.stack([grey] * 3, axis=-1)


def resize_whole_image(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return TensorFlow's bilinear resize, as one would write it in numpy."""

    def axis(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
        scale = np.float32(n) / np.float32(SIZE)
        place = (np.arange(SIZE, dtype=np.float32) + 0.5) * scale - np.float32(0.5)
        before = np.maximum(np.floor(place), 0).astype(np.intp)
        after = np.minimum(np.ceil(place), n - 1).astype(np.intp)
        return before, after, place - np.floor(place)

    (top, bottom, down), (left, right, along) = axis(rgb.shape[0]), axis(rgb.shape[1])
    along = along[:, None]
    values = rgb.astype(np.float32)
    upper = (
        values[top][:, left] + (values[top][:, right] - values[top][:, left]) * along
    )
    lower = (
        values[bottom][:, left]
        + (values[bottom][:, right] - values[bottom][:, left]) * along
    )
    return (upper + (lower - upper) * down[:, None, None]).astype(np.uint8)


def measure_dicom(folder: Path) -> dict[str, Any]:
    """Read radiographs whose window holds all values, and one that clips."""
    results: dict[str, Any] = {}
    values = draw_radiograph()
    for name, window in {"whole range": (2048, 4096), "clipping": (1800, 1500)}.items():
        path = folder / f"{name}.dcm"
        write_dicom(path, values, window)

        def ours(path: Path = path) -> NDArray[np.uint8]:
            pixels = read_resized(path, SIZE)
            image_fingerprint(pixels)
            return pixels

        def usual(path: Path = path) -> NDArray[np.uint8]:
            return resize_whole_image(window_whole_image(path))

        seconds = in_turns(
            N_REPEATS,
            {
                "ours": ours,
                "usual": usual,
                "bytes": path.read_bytes,
                "pixel_array": lambda path=path: dcmread(path).pixel_array,
            },
        )
        difference = np.abs(ours().astype(int) - usual().astype(int))
        results[f"DICOM, {name}"] = {
            "ours_ms": seconds["ours"] * 1e3,
            "usual_ms": seconds["usual"] * 1e3,
            "usual_to_ours": seconds["usual"] / seconds["ours"],
            "read_bytes_ms": seconds["bytes"] * 1e3,
            "pydicom_pixel_array_ms": seconds["pixel_array"] * 1e3,
            "max_difference": int(difference.max()),
            "pixels_that_differ": float((difference > 0).mean()),
        }
    return results


def photograph() -> NDArray[np.uint8]:
    """Return 1024 x 1024 pixels of a fundus photograph."""
    from skimage.data import retina

    return np.ascontiguousarray(retina()[190:1214, 190:1214])


def measure_png(folder: Path) -> dict[str, Any]:
    """Read PNG files of three kinds."""
    colours = photograph()
    grey16 = draw_radiograph()[:1024, :1024]
    pictures = {
        "RGB": Image.fromarray(colours),
        "grey": Image.fromarray(np.ascontiguousarray(colours[..., 1])),
        "16-bit grey": Image.fromarray(grey16),
    }
    results = {}
    for name, picture in pictures.items():
        path = folder / f"{name}.png"
        picture.save(path)
        content = path.read_bytes()

        def ours(path: Path = path) -> None:
            image_fingerprint(read_resized(path, SIZE))

        def decode(content: bytes = content) -> None:
            Image.open(io.BytesIO(content)).load()

        def read(path: Path = path) -> None:
            read_image(path)

        seconds = in_turns(N_REPEATS, {"ours": ours, "read": read, "decode": decode})
        results[f"PNG, {name}"] = {
            "to_model_pixels_ms": seconds["ours"] * 1e3,
            "read_image_ms": seconds["read"] * 1e3,
            "decode_ms": seconds["decode"] * 1e3,
            "to_model_pixels_to_decode": seconds["ours"] / seconds["decode"],
            "read_image_to_decode": seconds["read"] / seconds["decode"],
        }
    return results


def measure_array() -> dict[str, Any]:
    """Bring arrays to floats from -1 to 1, as the model takes them."""
    from transformers import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    results = {}
    large = np.tile(photograph(), (3, 2, 1))[:HEIGHT, :WIDTH]
    for name, image in {"1024 x 1024": photograph(), "2500 x 2048": large}.items():

        def ours(image: NDArray[np.uint8] = image) -> NDArray[np.float32]:
            pixels = read_resized(image, SIZE)
            image_fingerprint(pixels)
            # What the encoder does with the bytes.
            scaled = pixels.transpose(2, 0, 1).astype(np.float32, order="C")
            scaled *= np.float32(2 / 255)
            scaled -= np.float32(1)
            return scaled

        def theirs(image: NDArray[np.uint8] = image) -> NDArray[np.float32]:
            return processor(
                image, return_tensors="np", input_data_format="channels_last"
            )["pixel_values"]

        seconds = in_turns(N_REPEATS, {"ours": ours, "theirs": theirs})
        results[f"array, {name}"] = {
            "ours_ms": seconds["ours"] * 1e3,
            "transformers_ms": seconds["theirs"] * 1e3,
            "transformers_to_ours": seconds["theirs"] / seconds["ours"],
        }
    return results


def main() -> None:
    """Measure, print and write down."""
    with tempfile.TemporaryDirectory() as name, threadpool_limits(1):
        folder = Path(name)
        results = measure_dicom(folder) | measure_png(folder) | measure_array()
    for name, figures in results.items():
        print(name)
        for figure, value in figures.items():
            figures[figure] = round(value, 3)
            print(f"    {figure:<24} {value:10.3f}")
    where = setting(
        "numpy", "pillow", "pydicom", "transformers", size=SIZE, repeats=N_REPEATS
    )
    write_results("reading", where | results)


if __name__ == "__main__":
    main()
