"""Draw every DICOM image that pydicom ships, as ``read_image`` reads it.

Run ``python docs/draw_dicom_sheet.py``; it writes ``docs/dicom_sheet.jpg``. The files
are those of the installed packages pydicom and pydicom-data; nothing is downloaded.
Files of several frames show the middle one. Left out are tiny cuttings of 16 x 16 and
32 x 32 pixels that serve other tests (``dicomdirtests``, ``charset_files``).
"""

from __future__ import annotations

from pathlib import Path

import data_store
import numpy as np
import pydicom
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import DATA_ROOT

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import read_image

SHEET = Path(__file__).with_name("dicom_sheet.jpg")
FOLDERS = [
    Path(DATA_ROOT) / "test_files",
    Path(data_store.__file__).parent / "data",
]
N_COLUMNS, SIDE, TEXT, GAP = 12, 128, 34, 6

#: Short names of transfer syntaxes, by the end of their UID.
SYNTAXES = {
    "1.2": "implicit LE",
    "1.2.1": "explicit LE",
    "1.2.2": "explicit BE",
    "1.2.1.99": "deflated",
    "1.2.4.50": "JPEG",
    "1.2.4.51": "JPEG ext.",
    "1.2.4.57": "JPEG lossless",
    "1.2.4.70": "JPEG lossless",
    "1.2.4.80": "JPEG-LS",
    "1.2.4.81": "JPEG-LS lossy",
    "1.2.4.90": "J2K lossless",
    "1.2.4.91": "J2K",
    "1.2.5": "RLE",
}


def main() -> None:
    """Draw the sheet."""
    tiles = []
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.dcm"), key=lambda path: path.name.lower()):
            try:
                pixels = read_image(path, frame="middle")
            except ImageReadError:
                continue  # no image, or broken on purpose: the tests name each
            tiles.append(tile(path, pixels))
    n_rows = -(-len(tiles) // N_COLUMNS)
    width, height = SIDE + GAP, SIDE + TEXT + GAP
    sheet = Image.new("RGB", (N_COLUMNS * width + GAP, n_rows * height + GAP), "white")
    for number, picture in enumerate(tiles):
        row, column = divmod(number, N_COLUMNS)
        sheet.paste(picture, (GAP + column * width, GAP + row * height))
    sheet.save(SHEET, quality=48, optimize=True)


def tile(path: Path, pixels: np.ndarray) -> Image.Image:
    """Return a thumbnail over three lines of text."""
    picture = Image.new("RGB", (SIDE, SIDE + TEXT), "white")
    # Tiny images are enlarged, so that their pixels can be told apart.
    image = Image.fromarray(pixels)
    scale = SIDE / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    image = image.resize(size, Image.Resampling.BOX if scale < 1 else 0)
    picture.paste(Image.new("RGB", (SIDE, SIDE), (70, 90, 120)))
    picture.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=9)
    lines = [path.stem, description(path, pixels), syntax_of(path)]
    for number, line in enumerate(lines):
        while draw.textlength(line, font=font) > SIDE:
            line = line[:-2] + "…"
        draw.text((0, SIDE + 1 + 11 * number), line, fill="black", font=font)
    return picture


def description(path: Path, pixels: np.ndarray) -> str:
    """Return modality, size, bits and number of frames."""
    tags = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    frames = int(tags.get("NumberOfFrames") or 1)
    parts = [
        tags.get("Modality") or "no modality",
        f"{pixels.shape[0]} x {pixels.shape[1]}",
        f"{tags.get('BitsStored')} bit",
    ]
    return ", ".join(parts + ([f"1 of {frames}"] if frames > 1 else []))


def syntax_of(path: Path) -> str:
    """Return the short name of the transfer syntax, and of the colours."""
    tags = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    uid = tags.file_meta.get("TransferSyntaxUID", "")
    name = SYNTAXES.get(uid.removeprefix("1.2.840.10008."), "no transfer syntax")
    return f"{name}, {tags.get('PhotometricInterpretation')}"


if __name__ == "__main__":
    main()
