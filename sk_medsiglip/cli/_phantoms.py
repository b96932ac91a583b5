"""The files that ``demo`` works on when it is given none."""

from __future__ import annotations

import time
from pathlib import Path

from sk_medsiglip.cli._console import heading, say, show_code

__all__ = ["PHANTOM_PROMPTS", "draw_phantom_files"]

#: Two wordings each; none is worded as a caption that the checkpoint learned from.
#: The checkpoint's figures are measured with these.
PHANTOM_PROMPTS: dict[str, dict[str, list[str]]] = {
    "cardiomegaly": {
        "positive": [
            "this radiograph demonstrates cardiomegaly",
            "the heart shadow is too wide and enlarged",
        ],
        "negative": [
            "this radiograph demonstrates no cardiomegaly",
            "the heart shadow is of normal size",
        ],
    },
    "effusion": {
        "positive": [
            "this radiograph demonstrates pleural effusion",
            "fluid has collected in the pleural space",
        ],
        "negative": [
            "this radiograph demonstrates no pleural effusion",
            "no fluid has collected in the pleural space",
        ],
    },
    "pneumothorax": {
        "positive": [
            "this radiograph demonstrates pneumothorax",
            "the lung has collapsed with air in the pleural space",
        ],
        "negative": [
            "this radiograph demonstrates no pneumothorax",
            "no air can be seen in the pleural space",
        ],
    },
    "consolidation": {
        "positive": [
            "this radiograph demonstrates consolidation",
            "an airspace infiltrate of the lung can be seen",
        ],
        "negative": [
            "this radiograph demonstrates no consolidation",
            "no airspace infiltrate of the lung can be seen",
        ],
    },
    "nodule": {
        "positive": [
            "this radiograph demonstrates a nodule",
            "a round nodular lesion of the lung can be seen",
        ],
        "negative": [
            "this radiograph demonstrates no nodule",
            "no round nodular lesion of the lung can be seen",
        ],
    },
    "device": {
        "positive": [
            "this radiograph demonstrates a medical device",
            "implanted support hardware can be seen",
        ],
        "negative": [
            "this radiograph demonstrates no medical device",
            "no implanted support hardware can be seen",
        ],
    },
}


def draw_phantom_files(folder: Path, n_samples: int, seed: int) -> Path:
    """Draw phantoms and write them as a hospital might hand out its images.

    Parameters
    ----------
    folder : pathlib.Path
        Where to write.
    n_samples, seed : int
        Of :func:`~sk_medsiglip.datasets.make_chest_phantoms`.

    Returns
    -------
    pathlib.Path
        The CSV file of paths, labels and patients.
    """
    from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms

    heading("Files: chest phantoms, drawn, with labels")
    show_code(
        f"phantoms = make_chest_phantoms({n_samples}, dtype='uint16', "
        f"random_state={seed})",
        f"labels = write_phantoms(phantoms, {folder.name!r})",
    )
    start = time.perf_counter()
    phantoms = make_chest_phantoms(n_samples, dtype="uint16", random_state=seed)
    labels = write_phantoms(phantoms, folder)
    n_dicom = int(labels["path"].str.endswith(".dcm").sum())
    say(
        f"{n_samples - n_dicom:,} PNG and {n_dicom:,} 16-bit DICOM files of "
        f"{labels['patient'].nunique():,} invented patients, and labels.csv, in "
        f"{time.perf_counter() - start:.1f} s."
    )
    return folder / "labels.csv"
