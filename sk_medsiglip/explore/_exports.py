"""Files of a session: tables, samples for FiftyOne, the classifier."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline

from sk_medsiglip._files import new_file
from sk_medsiglip._optional import import_optional
from sk_medsiglip.embedding import MedSigLIPEmbedder


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV or Parquet, which the ending of the file names."""
    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise ValueError(
            f"{path.name!r} ends in none of .csv, .parquet and .json, which name the "
            "format."
        )
    with new_file(path) as draft:
        if ending == ".csv":
            table.to_csv(draft, index=False)
        else:
            import_optional("pyarrow", extra="parquet", purpose="Writing Parquet")
            table.to_parquet(draft, index=False)


def write_samples(
    path: Path,
    images: list[str],
    labels: pd.DataFrame,
    scores: pd.DataFrame,
    locked: NDArray[np.bool_],
) -> None:
    """Write a list of samples, as ``fiftyone.Sample.from_dict`` takes them."""
    samples: list[dict[str, Any]] = [
        {"filepath": image, "tags": ["locked"] if is_locked else []}
        for image, is_locked in zip(images, locked.tolist(), strict=True)
    ]
    for name in labels:
        for sample, word in zip(samples, labels[name], strict=True):
            if word is not None:
                sample[name] = {"_cls": "Classification", "label": str(word)}
    for name in scores:
        for sample, score in zip(samples, scores[name].tolist(), strict=True):
            if np.isfinite(score):
                sample[f"score_{name}"] = score
    with new_file(path) as draft:
        draft.write_text(json.dumps({"samples": samples}), encoding="utf-8")


def save_classifier(
    path: Path,
    embedder: MedSigLIPEmbedder,
    classifier: Any,
    texts: Mapping[Any, Any] | None,
) -> None:
    """Write a pipeline from images to labels that names no device and no folder."""
    skops = import_optional("skops.io", extra="skops", purpose="Saving a classifier")
    here: dict[str, Any] = {"device": "auto", "cache": True}
    maker = copy.copy(embedder).set_params(**here, verbose=0, n_jobs=None)
    head = copy.copy(classifier)
    if texts is not None:
        side = {name: getattr(maker, name) for name in ("model", "revision", "cache")}
        head.set_params(prompts=texts, **side)
    own = head.get_params(deep=False)
    head.set_params(**{name: here[name] for name in here if name in own})
    with new_file(path) as draft:
        draft.write_bytes(skops.dumps(make_pipeline(maker, head)))
