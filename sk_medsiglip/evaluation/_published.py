"""Figures that Google published, and the data MedSigLIP was trained on."""

from __future__ import annotations

import re
import warnings
from importlib.resources import files

import numpy as np
import pandas as pd

from sk_medsiglip.exceptions import LeakageWarning

_CARD = (
    "MedSigLIP model card, "
    "https://developers.google.com/health-ai-developer-foundations/medsiglip"
)
# Patterns of names in plain lower case; in capitals of the name as it is given, since
# drawings may mimic X-rays.
_TRAINED_ON = [
    ("MIMIC-CXR", "chest X-ray", ("MIMIC", "mimic cxr", "mimic iv", "mimic$")),
    ("SCIN", "dermatology photograph", (r"scin\b",)),
    ("PAD-UFES-20", "dermatology photograph", ("pad ufes", "padufes")),
    ("TCGA", "histopathology", ("tcga",)),
    ("CAMELYON", "histopathology", ("camelyon",)),
    ("EyePACS", "fundus photograph", ("eyepacs", "kaggle diabetic retinopathy")),
    ("Slake", "radiology questions and answers", ("slake",)),
    ("PMC-OA", "figures of articles", ("pmc oa", "pmcoa")),
    ("Mendeley Digital Knee X-ray", "knee X-ray", ("digital knee", "mendeley knee")),
]


def published_results(modality: str | None = None) -> pd.DataFrame:
    """Return the areas under the ROC curve of the MedSigLIP model card.

    Parameters
    ----------
    modality : {"chest X-ray", "dermatology", "ophthalmology", "histopathology"}, \
default=None
        Kind of images. By default, all kinds.

    Returns
    -------
    DataFrame
        In the columns of :func:`evaluate`, so that ``pandas.concat`` joins it with
        one's own figures, and ``modality`` and ``source``. Google's figures on Google's
        test sets, none of them measured here: no intervals were published.

    Raises
    ------
    ValueError
        If the modality is not among them.

    References
    ----------
    .. [1] MedSigLIP model card,
       https://developers.google.com/health-ai-developer-foundations/medsiglip

    Examples
    --------
    >>> from sk_medsiglip.evaluation import published_results
    >>> chest = published_results("chest X-ray").set_index("label")
    >>> chest.loc["pleural effusion", ["value", "n"]].tolist()
    [0.914, 518.0]
    """
    folder = files("sk_medsiglip.evaluation")
    with folder.joinpath("published_results.csv").open(encoding="utf-8") as file:
        facts = pd.read_csv(file)
    table = pd.DataFrame(
        {
            "estimator": "MedSigLIP " + facts["method"] + " (model card)",
            "label": facts["label"],
            "metric": "roc_auc",
            "subgroup": "all",
            "value": facts["value"],
            **dict.fromkeys(("low", "high", "p_value", "p_holm"), np.nan),
            "n": facts["n"],
            **dict.fromkeys(("n_positive", "n_undefined"), np.nan),
            "note": "no interval was published",
            "modality": facts["modality"],
            "source": _CARD,
        }
    )
    if modality is None:
        return table
    known = table["modality"].unique().tolist()
    if modality not in known:
        raise ValueError(f"modality={modality!r} is none of {known}.")
    return table[table["modality"] == modality].reset_index(drop=True)


def known_training_data() -> pd.DataFrame:
    """Return the public data sets that MedSigLIP was trained on.

    Returns
    -------
    DataFrame
        Columns ``name``, ``modality`` and ``source``. Internal data sets came with
        them, which the model card does not name.

    Notes
    -----
    A test on images that a model was trained on says little about new ones.

    Examples
    --------
    >>> from sk_medsiglip.evaluation import known_training_data
    >>> "EyePACS" in set(known_training_data()["name"])
    True
    """
    return pd.DataFrame(
        {"name": name, "modality": modality, "source": _CARD}
        for name, modality, _ in _TRAINED_ON
    )


def warn_if_trained_on(data_set: str) -> None:
    """Warn if a data set, in any spelling, is one that MedSigLIP was trained on."""
    plain = re.sub(r"[\W_]+", " ", data_set).casefold().strip()
    for name, _, spellings in _TRAINED_ON:
        if any(
            re.search(rf"\b{one}", data_set if one.isupper() else plain)
            for one in spellings
        ):
            warnings.warn(
                f"MedSigLIP was trained on {name}: figures on it say little about new "
                "images. See known_training_data().",
                LeakageWarning,
                stacklevel=3,
            )
