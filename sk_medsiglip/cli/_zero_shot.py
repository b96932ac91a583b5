"""``sk-medsiglip zero-shot``: images and prompts to a CSV file of probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sk_medsiglip.cli._console import bar, console, model_notice, preview, say
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._options import (
    BatchSizeOption,
    CacheOption,
    ClassOption,
    DeviceOption,
    Dtype,
    DtypeOption,
    Engine,
    EngineOption,
    JobsOption,
    ModelOption,
    NoCacheOption,
    OnError,
    OnErrorOption,
    PadOption,
    PathColumnOption,
    PromptsOption,
    Resize,
    ResizeOption,
    RevisionOption,
    TemplateOption,
)
from sk_medsiglip.cli._written_files import check_out, write_csv

__all__ = ["zero_shot"]


def zero_shot(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of images, or CSV file with a column of paths."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")] = Path(
        "zero-shot.csv"
    ),
    prompts: PromptsOption = None,
    classes: ClassOption = None,
    template: TemplateOption = None,
    path_column: PathColumnOption = None,
    model: ModelOption = "google/medsiglip-448",
    revision: RevisionOption = None,
    resize: ResizeOption = Resize.medsiglip,
    pad: PadOption = False,
    on_error: OnErrorOption = OnError.raise_,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.auto,
    engine: EngineOption = Engine.auto,
    batch_size: BatchSizeOption = None,
    n_jobs: JobsOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the CSV file if it exists.")
    ] = False,
) -> None:
    """Classify images by prompts alone, without labels, into a CSV file.

    One column a class, and the likeliest class under "predicted"; or one column a
    finding, the probability that it is present. The probabilities rank images and are
    not calibrated.

    Example: sk-medsiglip zero-shot images/ --class "normal=a normal chest X-ray"
    --class "effusion=a chest X-ray with pleural effusion"
    """
    # Late, so that --help is quick.
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._embedding import check_device, choose_cache, embed_images
    from sk_medsiglip.cli._prompts import parse_classes, read_prompts
    from sk_medsiglip.embedding import MedSigLIPEmbedder
    from sk_medsiglip.prompts import check_prompts
    from sk_medsiglip.zero_shot import ZeroShotClassifier

    if (prompts is None) == (not classes):
        raise CommandError(
            'Say what to look for: either --prompts FILE, or --class "name=prompt" '
            "once for every class."
        )
    check_out(out, overwrite)
    asked: dict[str, Any] = (
        read_prompts(prompts) if prompts is not None else parse_classes(classes or [])
    )
    question = check_prompts(asked, template)
    collection = read_collection(source, path_column)
    taken = {collection.path_column} | (set() if question.is_pairs else {"predicted"})
    if clash := sorted(taken & {str(name) for name in question.labels}):
        raise CommandError(
            f"A class is named {clash[0]!r}, like another column of the result. Give "
            "it another name."
        )
    check_device(device)
    shared: dict[str, Any] = {
        "model": model,
        "revision": revision,
        "device": device,
        "dtype": dtype.value,
        "engine": engine.value,
        "cache": choose_cache(cache, without=no_cache),
    }
    embedder = MedSigLIPEmbedder(
        **shared,
        resize=resize.value,
        pad=pad,
        on_error=on_error.value,
        batch_size=batch_size or "auto",
        n_jobs=n_jobs,
        verbose=bar(),
    )
    embedded = embed_images(collection.paths, embedder)
    readable = embedded.readable
    X = embedded.X[readable]
    classifier = ZeroShotClassifier(asked, templates=template, **shared).fit(X)
    probabilities = classifier.predict_proba(X)
    findings = getattr(classifier, "findings_", None)
    if findings is not None and len(findings) == 1:
        probabilities = probabilities[:, 1:]
    names = findings if findings is not None else classifier.classes_

    import pandas as pd

    table = pd.DataFrame({collection.path_column: collection.names})
    values = np.full((len(collection), len(names)), np.nan)
    values[readable] = probabilities
    for column, name in enumerate(names):
        table[str(name)] = values[:, column]
    if findings is None:
        table["predicted"] = None
        table.loc[readable, "predicted"] = classifier.predict(X)
    write_csv(table, out, float_format="%.6g")

    say(
        f"{len(collection):,} images in {embedded.seconds:.1f} s: "
        f"{embedded.passes:,} model passes, {embedded.from_cache:,} rows from the "
        "cache."
    )
    console.print(preview(table))
    say(f"Wrote {out}: {len(table):,} rows.")
    say(
        "The probabilities rank images; they are not calibrated. "
        + model_notice(model),
        "yellow",
    )
