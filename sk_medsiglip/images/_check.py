"""A check of every image of a collection before it is embedded."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.exceptions import (
    ImageReadError,
    MissingDependencyError,
    SkMedSiglipWarning,
)
from sk_medsiglip.images._arrays import white_of
from sk_medsiglip.images._decoded_image import grey_values, render
from sk_medsiglip.images._intensity import (
    Intensity,
    validate_frame,
    validate_intensity,
)
from sk_medsiglip.images._read import MAX_PIXELS, load_image
from sk_medsiglip.images._rows import image_rows
from sk_medsiglip.images._sources import describe, image_fingerprint

_COLUMNS = {
    "row": "int64",
    "source": "object",
    "readable": "bool",
    "reason": "object",
    "hint": "object",
    "format": "object",
    "modality": "object",
    "height": "Int64",
    "width": "Int64",
    "dtype": "object",
    "low": "float64",
    "high": "float64",
    "duplicate_of": "Int64",
}


def check_images(
    X: Any,
    *,
    intensity: Intensity | str = "auto",
    frame: int | str | None = None,
    max_pixels: int = MAX_PIXELS,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Check whether the images of ``X`` can be read, and find copies among them.

    Parameters
    ----------
    X : sequence of images
        As for ``MedSigLIPEmbedder.transform``.
    intensity, frame, max_pixels
        As for :func:`read_image`; pass the values that the embedder will have.
    n_jobs : int or None, default=None
        Number of reading threads; None means 1, and -1 one per core. Each thread holds
        one image in memory.
    verbose : int, default=0
        If positive, show a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row per image, with the index of ``X`` if it has one:

        - ``row``: position in ``X``;
        - ``source``: the path, or a description of the image;
        - ``readable``: whether it can be embedded; ``X[table.readable]`` keeps those
          images if ``X`` is a Series or DataFrame;
        - ``reason``, ``hint``: the problem and its remedy; empty if readable;
        - ``format``: ``"PNG"``, ``"DICOM"``, ``"array"``, ...;
        - ``modality``: modality of a DICOM file, missing for others;
        - ``height``, ``width``: size in pixels, missing if unreadable;
        - ``dtype``: type of the stored values, for example ``"uint16"``;
        - ``low``, ``high``: smallest and largest stored value, in its unit (Hounsfield
          units for CT). DICOM padding is ignored;
        - ``duplicate_of``: ``row`` of the first image that ``read_image`` turns into
          exactly the same pixels, missing for that first one. Copies are found under
          any name and in any lossless format. ``X[table.readable &
          table.duplicate_of.isna()]`` keeps one of each.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is not a container of images, or is empty. An unreadable image is not
        an error.

    Warns
    -----
    SkMedSiglipWarning
        If ``intensity="auto"`` uses different values for white in the 16-bit images of
        this collection, such as 4095 in some and 65535 in others. Their brightness is
        then not comparable.

    Notes
    -----
    Each image is decoded completely, since a truncated file is noticed only then, and
    discarded afterwards. Memory holds the images being read and one short row for each
    of the others. The model is not loaded. ``sk-medsiglip check`` does the same for a
    folder or a CSV file.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sk_medsiglip.images import check_images
    >>> grey = np.arange(48, dtype=np.uint8).reshape(8, 6)
    >>> X = pd.Series(["no_such_file.png", grey, grey], index=["a", "b", "c"])
    >>> table = check_images(X)
    >>> table[["readable", "reason", "height", "width", "high", "duplicate_of"]]
       readable                 reason  height  width  high  duplicate_of
    a     False  there is no such file    <NA>   <NA>   NaN          <NA>
    b      True                              8      6  47.0          <NA>
    c      True                              8      6  47.0             1
    >>> list(X[table.readable & table.duplicate_of.isna()].index)
    ['b']
    """
    validate_intensity(intensity)
    validate_frame(frame)
    rows = image_rows(X)

    results = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
        delayed(_look)(row, source, intensity, frame, max_pixels)
        for row, source in enumerate(rows)
    )
    looked_at = []
    first_of: dict[bytes, int] = {}
    with progress_bar(
        len(rows), desc="Checking images", unit="image", verbose=verbose
    ) as bar:
        for result, content in results:
            if content is not None:
                first = first_of.setdefault(content, result["row"])
                result["duplicate_of"] = None if first == result["row"] else first
            looked_at.append(result)
            bar.update()
    # A DataFrame or Series brings an index; a list has a method of that name.
    index = X.index if isinstance(X, pd.DataFrame | pd.Series) else None
    table = pd.DataFrame(looked_at, columns=list(_COLUMNS), index=index)
    table = table.astype(_COLUMNS)
    if intensity == "auto":
        _warn_of_mixed_whites(table)
    return table


def _look(
    row: int,
    source: Any,
    intensity: Intensity | str,
    frame: int | str | None,
    max_pixels: int,
) -> tuple[dict[str, Any], bytes | None]:
    """Return one row of the table, and the fingerprint of its pixels."""
    result: dict[str, Any] = {"row": row, "source": describe(source)}
    try:
        image = load_image(source, frame=frame, max_pixels=max_pixels)
        result |= {"format": image.format, "modality": image.modality}
        result["height"], result["width"] = image.values.shape[:2]
        result["dtype"] = str(image.values.dtype)
        values = grey_values(image)
        if values.size:
            result["low"], result["high"] = float(values.min()), float(values.max())
        content = image_fingerprint(render(image, intensity))
    except ImageReadError as error:
        reason, hint = error.reason, error.hint
    except MissingDependencyError as error:
        # Only some of the files need the library; the others can be read without it.
        reason, hint = "the library that reads it is not installed", str(error)
    else:
        return result | {"readable": True, "reason": "", "hint": ""}, content
    return result | {"readable": False, "reason": reason, "hint": hint}, None


def _warn_of_mixed_whites(table: pd.DataFrame) -> None:
    # DICOM files state how many of their bits are used.
    deep = table.readable & (table.dtype == "uint16") & (table.format != "DICOM")
    whites = table.high[deep].map(white_of).value_counts().sort_index()
    if len(whites) < 2:
        return
    counts = ", ".join(
        f"{count} with white at {white}" for white, count in whites.items()
    )
    white = whites.index[-1]
    warnings.warn(
        f"16-bit images of this collection are shown on different scales: {counts}. "
        'With intensity="auto", white is the smallest of 255, 4095 and 65535 that the '
        "image does not exceed. If they come from one source, fix the scale: "
        f"intensity=Window(center={white / 2}, width={white}).",
        SkMedSiglipWarning,
        stacklevel=3,
    )
