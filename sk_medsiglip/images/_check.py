"""A look at every image of a collection before it meets the model."""

from __future__ import annotations

from typing import Any

import pandas as pd
from joblib import Parallel, delayed

from sk_medsiglip._progress import progress_bar
from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images._intensity import (
    Intensity,
    validate_frame,
    validate_intensity,
)
from sk_medsiglip.images._picture import render
from sk_medsiglip.images._read import MAX_PIXELS, load_picture
from sk_medsiglip.images._rows import image_rows
from sk_medsiglip.images._sources import describe

__all__ = ["check_images"]


def check_images(
    X: Any,
    *,
    intensity: Intensity | str = "auto",
    frame: int | str | None = None,
    max_pixels: int = MAX_PIXELS,
    n_jobs: int | None = None,
    verbose: int = 0,
) -> pd.DataFrame:
    """Read every image of ``X`` and say which can be used, and why others cannot.

    Parameters
    ----------
    X : sequence of images
        As for ``MedSigLIPEmbedder.transform``.
    intensity, frame, max_pixels
        As for :func:`read_image`; give what the embedder will be given.
    n_jobs : int or None, default=None
        Number of threads that read; None is 1, -1 all cores.
    verbose : int, default=0
        Positive shows a progress bar.

    Returns
    -------
    pandas.DataFrame
        One row an image, under the index of ``X`` if that has one:

        - ``row``: position in ``X``;
        - ``source``: the path, or what the image is;
        - ``readable``: whether it can be embedded; ``X[table.readable]`` keeps those
          of a Series or DataFrame;
        - ``reason``, ``hint``: what is wrong and what to do; empty if readable;
        - ``format``: ``"PNG"``, ``"DICOM"``, ``"array"``, ...;
        - ``modality``: of a DICOM file, else missing;
        - ``height``, ``width``: in pixels, missing if unreadable.

    Raises
    ------
    TypeError, ValueError
        If ``X`` is no container of images, or empty; an unreadable image is no error.

    Notes
    -----
    Each image is decoded whole, since a file that is cut short shows it only then.
    The model is not loaded.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sk_medsiglip.images import check_images
    >>> X = pd.Series(["no_such_file.png", np.zeros((8, 6))], index=["a", "b"])
    >>> table = check_images(X)
    >>> table[["readable", "reason", "height", "width"]]
       readable                 reason  height  width
    a     False  there is no such file    <NA>   <NA>
    b      True                              8      6
    >>> list(X[table.readable].index)
    ['b']
    """
    validate_intensity(intensity)
    validate_frame(frame)
    rows = image_rows(X)

    def look(row: int, source: Any) -> dict[str, Any]:
        result: dict[str, Any] = {"row": row, "source": describe(source)}
        try:
            picture = load_picture(source, frame=frame, max_pixels=max_pixels)
            result |= {"format": picture.format, "modality": picture.modality}
            result["height"], result["width"] = picture.values.shape[:2]
            render(picture, intensity)
        except ImageReadError as error:
            return result | {
                "readable": False,
                "reason": error.reason,
                "hint": error.hint,
            }
        return result | {"readable": True, "reason": "", "hint": ""}

    results = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")(
        delayed(look)(row, source) for row, source in enumerate(rows)
    )
    looked_at = []
    with progress_bar(
        len(rows), desc="Checking images", unit="image", verbose=verbose
    ) as bar:
        for result in results:
            looked_at.append(result)
            bar.update()
    # A DataFrame or Series brings an index; a list has a method of that name.
    index = X.index if isinstance(X, pd.DataFrame | pd.Series) else None
    return pd.DataFrame(looked_at, columns=list(_COLUMNS), index=index).astype(_COLUMNS)


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
}
