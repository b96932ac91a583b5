"""Read one image of any kind: the choice of the reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._arrays import load_array
from sk_medsiglip.images._decoded_image import DecodedImage, render, render_resized
from sk_medsiglip.images._decoding import decoding
from sk_medsiglip.images._dicom import load_dicom
from sk_medsiglip.images._intensity import (
    Intensity,
    validate_frame,
    validate_intensity,
)
from sk_medsiglip.images._kinds import DICOM, HEAD_BYTES, NIFTI, kind_of, refuse_other
from sk_medsiglip.images._lazy import LazyImage
from sk_medsiglip.images._pillow import load_image_file, load_pil
from sk_medsiglip.images._sources import (
    alone_with,
    is_readable_stream,
    naming,
    open_source,
)

#: Pillow's limit for a "decompression bomb": 512 MiB as 8-bit RGB.
MAX_PIXELS = 178_956_970

#: Limit for the content of a URL: 16-bit RGB and alpha, and metadata.
_BYTES_PER_PIXEL, _BYTES_BESIDE_PIXELS = 8, 2**24


def read_image(
    source: Any,
    *,
    intensity: Intensity | str = "auto",
    frame: int | str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Read one image as 8-bit RGB, as the model sees it.

    Parameters
    ----------
    source : path, bytes, file object, PIL image or array
        A ``str`` or ``Path`` (``~`` is the home directory), the content of a file, a
        binary file object that can seek (it is read from its start, and its position is
        restored), a Pillow image (at its present frame), or an array of shape (H, W),
        (H, W, 1), (H, W, 3) or (H, W, 4). Files are PNG, JPEG, TIFF, WebP, BMP or
        DICOM; their content decides, not their name.
    intensity : {"auto"}, Window, CTWindows, Percentiles, VOI or str, default="auto"
        Mapping of grey values to brightness. ``"auto"`` is explained in the notes. A
        window is in the unit of the image, Hounsfield units for CT. Names are
        ``"lung"``, ``"mediastinum"``, ``"brain"``, ``"bone"``, ``"ct"``
        (``CTWindows()``), ``"ct-wide"`` and ``"google-serving"`` (as Google's
        container shows CT, CR and DX). Any value other than ``"auto"`` is applied to
        every image, including 8-bit and colour images.
    frame : int, {"middle"} or None, default=None
        Index of the frame of a multi-frame DICOM, TIFF, PNG or WebP file. With None,
        such a file raises an error.
    max_pixels : int, default=178_956_970
        Largest number of pixels; larger images are refused before they are decoded.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8
        C-contiguous. The same image as a file, a PIL image or an array gives the same
        values.

    Raises
    ------
    ImageReadError
        If the image cannot be read; the message gives the reason and a remedy.
    ValueError
        If a parameter has another value.
    MissingDependencyError
        If pydicom is needed for a DICOM file and is not installed.

    Notes
    -----
    ``intensity="auto"`` means, for arrays and image files other than DICOM:

    - 8-bit values: as stored. Files and Pillow images of one bit are black and white,
      while a boolean array is taken for a mask and raises an error;
    - 16-bit grey: black is 0 and white the smallest of 255, 4095 and 65535 that no
      pixel exceeds, so that 12-bit data in a 16-bit file is not nearly black. For
      another depth, pass a window, such as ``Window(center=511.5, width=1023)``;
    - floats: 0 is black and 1 is white; other ranges raise an error;
    - other integers (Pillow's mode "I"): an error, since their white is unknown.

    For grey DICOM images, after the file's own rescale or modality table:

    - CT in Hounsfield units: ``CTWindows()``; MR: ``Percentiles(1, 99)``;
    - US, XC, SM, GM, OP, ES, IVUS: as stored;
    - others (CR, DX, MG, ...): the first VOI table or window of the file; without one,
      8-bit images as stored and others from their smallest to their largest value.

    MONOCHROME1 is inverted. The EXIF orientation is applied, transparent pixels are
    blended with black, and colour profiles are not applied. Overlays are left out.

    A damaged file raises ``ImageReadError``: its header is checked before memory is
    allocated and before a decoder is called. The decoders are nevertheless C libraries,
    so read files that you do not trust in a separate process.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.images import read_image
    >>> image = np.linspace(0, 1, 6).reshape(2, 3)
    >>> pixels = read_image(image)
    >>> pixels.shape, pixels.dtype
    ((2, 3, 3), dtype('uint8'))
    >>> pixels[..., 0]
    array([[  0,  51, 102],
           [153, 204, 255]], dtype=uint8)
    """
    validate_intensity(intensity)
    with naming(source):
        image = load_image(source, frame=frame, max_pixels=max_pixels)
        return render(image, intensity)


def read_resized(
    source: Any,
    size: int,
    *,
    pad: bool = False,
    intensity: Intensity | str = "auto",
    frame: int | str | None = None,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Return ``resize_bilinear(read_image(...), size, pad=pad)``, at a lower cost."""
    with naming(source):
        image = load_image(source, frame=frame, max_pixels=max_pixels)
        return render_resized(image, intensity, size, pad=pad)


def load_image(
    source: Any, *, frame: int | str | None, max_pixels: int
) -> DecodedImage:
    """Decode one image, leaving its values as stored."""
    validate_frame(frame)
    with naming(source):
        if isinstance(source, LazyImage):
            return source.load(frame=frame, max_pixels=max_pixels)
        if isinstance(source, np.ndarray):
            return load_array(source, max_pixels=max_pixels)
        if is_readable_stream(source):
            return _load_file(source, frame=frame, max_pixels=max_pixels)
        with alone_with(source, getattr(source, "fp", None)):
            if isinstance(source, Image.Image):
                return load_pil(source, max_pixels=max_pixels)
            array = as_array(source)
        return load_array(array, max_pixels=max_pixels)


def _load_file(
    source: Any, *, frame: int | str | None, max_pixels: int
) -> DecodedImage:
    # A file of several frames may be larger than one image of that size.
    most = None
    if frame is None:
        most = _BYTES_BESIDE_PIXELS + _BYTES_PER_PIXEL * max_pixels
    with open_source(source, max_bytes=most, check_head=refuse_other) as stream:
        kind = kind_of(stream)
        if kind == DICOM:
            return load_dicom(stream, frame=frame, max_pixels=max_pixels)
        if kind == NIFTI:
            raise ImageReadError(
                "it is a NIfTI volume, but one image is needed",
                "Use MedSigLIPVolumeEmbedder or read_study, which take volumes.",
            )
        refuse_other(stream.read(HEAD_BYTES))
        stream.seek(0)
        return load_image_file(
            stream, format=str(kind), frame=frame, max_pixels=max_pixels
        )


def as_array(source: Any) -> NDArray[Any]:
    """Return the values of a tensor or another array."""
    if (
        source is None
        or source is pd.NA
        or (isinstance(source, float) and source != source)
    ):
        raise ImageReadError(
            "the image is missing (None or NaN)", "Drop such rows: X.dropna()."
        )
    if not hasattr(source, "__array__") or np.isscalar(source):
        raise ImageReadError(
            "it is not an image",
            "An image is a path, bytes, a file object, a PIL image or a NumPy array.",
        )
    with decoding(
        "it cannot be converted to a NumPy array",
        "Pass a NumPy array, or a tensor on the CPU.",
    ):
        return np.asarray(source)
