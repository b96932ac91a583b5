"""Results published by Google, and the data sets MedSigLIP was trained on."""

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
# Lower-case patterns are searched in the normalised name; those in capitals in the name
# as given, since "mimic" is also an ordinary word.
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
    """Return the areas under the ROC curve from the MedSigLIP model card.

    Parameters
    ----------
    modality : {"chest X-ray", "dermatology", "ophthalmology", "histopathology"}, \
default=None
        Modality of the images. By default, all modalities.

    Returns
    -------
    DataFrame
        Results measured by Google on its own test sets, and published without
        intervals. The columns are those of :func:`evaluate`, so that ``pandas.concat``
        joins the table with your own results, and ``modality`` and ``source``.

    Raises
    ------
    ValueError
        If the modality is unknown.

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
        raise ValueError(f"modality={modality!r} is not one of {known}.")
    return table[table["modality"] == modality].reset_index(drop=True)


def known_training_data() -> pd.DataFrame:
    """Return the public data sets that MedSigLIP was trained on.

    Returns
    -------
    DataFrame
        Columns ``name``, ``modality`` and ``source``. MedSigLIP was also trained on
        internal data sets, which the model card does not name.

    Notes
    -----
    Results on images that a model was trained on say little about new images.

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
                f"MedSigLIP was trained on {name}, so results on it say little about "
                "new images. See known_training_data().",
                LeakageWarning,
                stacklevel=3,
            )
