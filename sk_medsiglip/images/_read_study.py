"""``read_study``: the slices of a study as the model sees them."""

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

#: The end of a sentence that begins with "The values of ...".
HOUNSFIELD_WARNING = (
    "reach -900 or less, like Hounsfield units of a CT. They are shown between two "
    "percentiles, since NIfTI does not record the modality. For CT, set "
    'intensity="ct".'
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
    """Read the slices of one study as 8-bit RGB, as the model sees them.

    Parameters
    ----------
    item : folder, file, list of images, array or image
        One study, as :class:`~sk_medsiglip.MedSigLIPVolumeEmbedder` takes it.
    n_slices : int or None, default=85
        Number of evenly spaced slices to read; with None, or if there are fewer, all.
    intensity : "auto", Window, CTWindows, Percentiles or str, default="auto"
        As for :func:`read_image`; percentiles are those of the whole series.
    plane : {"axial", "coronal", "sagittal"}, default="axial"
        Plane of the slices of a NIfTI volume.
    series : int or None, default=None
        Index of the series, for a folder that holds several.
    max_pixels : int, default=178_956_970
        Largest number of pixels of a slice; larger ones are refused before they are
        decoded.

    Returns
    -------
    list of ndarray of shape (H, W, 3), uint8
        The slices in order; shapes may differ between the images of a list.

    Raises
    ------
    ImageReadError
        If a slice cannot be read, if there is no image, or if there are several series
        and ``series`` is None.
    ValueError
        If a parameter has another value.
    MissingDependencyError
        If nibabel is needed for a NIfTI file and is not installed.

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
            f"The values of this volume {HOUNSFIELD_WARNING}",
            SkMedSiglipWarning,
            stacklevel=2,
        )
    return slices
