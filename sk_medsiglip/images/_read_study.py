"""``read_study``: a look at the slices that the model is to see."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.exceptions import SkMedSiglipWarning
from sk_medsiglip.images._intensity import Intensity, validate_intensity
from sk_medsiglip.images._read import MAX_PIXELS, read_image
from sk_medsiglip.images._study import open_study, study_parts

PLANES = ("axial", "coronal", "sagittal")

#: What follows "Of this volume" or "Of rows 1, 2".
HOUNSFIELD_WARNING = (
    "values go down to -900 or less, as Hounsfield units of a CT do, and are shown "
    "between two of their percentiles, since NIfTI does not tell what was measured. "
    'For CT say intensity="ct".'
)


def read_study(
    item: Any,
    *,
    n_slices: int | None = 85,
    intensity: Intensity | str = "auto",
    plane: str = "axial",
    series: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[NDArray[np.uint8]]:
    """Read the slices of one study as 8-bit RGB, as the model is to see them.

    Parameters
    ----------
    item : folder, file, list of images, array or image
        One study, as :class:`~sk_medsiglip.MedSigLIPVolumeEmbedder` takes it.
    n_slices : int or None, default=85
        Number of slices to take, spread evenly; all if there are fewer, or with None.
    intensity : "auto", Window, CTWindows, Percentiles or str, default="auto"
        As for :func:`read_image`; percentiles are those of the whole series.
    plane : {"axial", "coronal", "sagittal"}, default="axial"
        Plane in which a NIfTI volume is cut.
    series : int or None, default=None
        Index of the series, where a folder holds several.
    max_pixels : int, default=178_956_970
        Largest number of pixels of a slice; larger ones are refused before they are
        decoded.

    Returns
    -------
    list of ndarray of shape (H, W, 3), uint8
        In order; shapes may differ between the images of a list.

    Raises
    ------
    ImageReadError
        If a slice cannot be read, if there is no image, or if there are several
        series and ``series`` does not choose.
    ValueError
        If a parameter is none of the above.
    MissingDependencyError
        If a NIfTI file is met and nibabel is not installed.

    Warns
    -----
    SkMedSiglipWarning
        If ``intensity="auto"`` and a NIfTI volume looks like a CT.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_medsiglip.images import read_study
    >>> volume = np.zeros((200, 8, 6), np.uint8)
    >>> slices = read_study(volume, n_slices=16)
    >>> len(slices), slices[0].shape
    (16, (8, 6, 3))
    """
    validate_intensity(intensity)
    if plane not in PLANES:
        raise ValueError(f"plane must be one of {PLANES}, got {plane!r}")
    for name, value, lowest in (("n_slices", n_slices, 1), ("series", series, 0)):
        if value is not None and (isinstance(value, bool) or value < lowest):
            raise ValueError(f"{name} must be None or at least {lowest}, got {value!r}")
    study = open_study(
        item, study_parts(item), plane=plane, series=series, max_pixels=max_pixels
    )
    slices = [
        read_image(source, intensity=intensity, max_pixels=max_pixels)
        for source in study.take(n_slices)
    ]
    if intensity == "auto" and any(v.looks_like_hounsfield() for v in study.volumes):
        warnings.warn(
            f"Of this volume {HOUNSFIELD_WARNING}", SkMedSiglipWarning, stacklevel=2
        )
    return slices
