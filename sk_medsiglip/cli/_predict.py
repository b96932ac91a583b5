"""``sk-medsiglip predict``: a saved classifier and images to a CSV file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sk_medsiglip.cli._console import bar, console, model_notice, preview, say
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    BatchSizeOption,
    CacheOption,
    DeviceOption,
    JobsOption,
    NoCacheOption,
    OnError,
    OnErrorOption,
    PathColumnOption,
    TrustOption,
)
from sk_medsiglip.cli._written_files import check_out, write_csv

__all__ = ["predict"]


def predict(
    classifier: Annotated[
        Path,
        typer.Argument(
            help="What train wrote: .skops, or .joblib, which runs code when loaded."
        ),
    ],
    source: Annotated[
        Path,
        typer.Argument(help="Folder of images, or CSV file with a column of paths."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")] = Path(
        "predictions.csv"
    ),
    path_column: PathColumnOption = None,
    trust: TrustOption = None,
    on_error: OnErrorOption = OnError.raise_,
    device: DeviceOption = "auto",
    batch_size: BatchSizeOption = None,
    n_jobs: JobsOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the CSV file if it exists.")
    ] = False,
) -> None:
    """Classify images with a classifier that "sk-medsiglip train" saved.

    One column of probabilities a class and the likeliest under "predicted"; or one
    column a finding. Images are embedded as those that it learned from, by the same
    model; rows in the cache are read from there.

    Example: sk-medsiglip predict model.skops images/ --out predictions.csv
    """
    check_out(out, overwrite)
    # Late, so that --help is quick.
    import numpy as np
    import pandas as pd

    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._embedding import check_device, choose_cache, embed_images
    from sk_medsiglip.cli._model_files import load_pipeline

    pipeline = load_pipeline(classifier, trust or ())
    collection = read_collection(source, path_column)
    check_device(device)
    embedder = pipeline[0].set_params(
        device=device,
        batch_size=batch_size or "auto",
        n_jobs=n_jobs,
        cache=choose_cache(cache, without=no_cache),
        on_error=on_error.value,
        verbose=bar(),
    )
    embedded = embed_images(collection.paths, embedder)
    readable = embedded.readable
    rest = pipeline[1:]
    probabilities = rest.predict_proba(embedded.X[readable])
    head = pipeline[-1]
    if head.classes_.ndim == 2:
        numbered = [f"label {i}" for i in range(len(head.classes_))]
        names = getattr(head, "findings_", getattr(head, "label_names_", numbered))
        predicted = None
    else:
        names = head.classes_
        predicted = rest.predict(embedded.X[readable])
    taken = {collection.path_column} | (set() if predicted is None else {"predicted"})
    if clash := sorted(taken & {str(name) for name in names}):
        raise CommandError(
            f"A class is named {clash[0]!r}, like another column of the result: name "
            "the column of paths otherwise."
        )
    values = np.full((len(collection), len(names)), np.nan)
    values[readable] = probabilities
    table = pd.DataFrame({collection.path_column: collection.names})
    for column, name in enumerate(names):
        table[str(name)] = values[:, column]
    if predicted is not None:
        table["predicted"] = None
        table.loc[readable, "predicted"] = predicted
    write_csv(table, out, float_format="%.6g")
    say(
        f"{len(collection):,} images in {embedded.seconds:.1f} s: "
        f"{embedded.passes:,} model passes, {embedded.from_cache:,} rows from the "
        "cache."
    )
    console.print(preview(table))
    say(f"Wrote {out}: {len(table):,} rows.")
    say(model_notice(embedder.model), "yellow")
