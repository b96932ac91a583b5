"""``predict`` and ``zero-shot``: write probabilities of images to a CSV file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import CommandError, model_notice, preview, say
from sk_medsiglip.cli._files import check_out, write_csv

if TYPE_CHECKING:
    from sk_medsiglip.cli._collection import Collection
    from sk_medsiglip.cli._embedding import EmbeddedImages

ClassifierArgument = Annotated[
    Path,
    typer.Argument(
        help="File written by train: .skops, or .joblib, which runs code when loaded."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="CSV file to write.")]


@options.with_options
def predict(
    classifier: ClassifierArgument,
    source: options.SourceArgument,
    out: OutOption = Path("predictions.csv"),
    path_column: options.PathColumnOption = None,
    trust: options.TrustOption = None,
    overwrite: options.OverwriteOption = False,
    *,
    run: options.RunOptions,
) -> None:
    """Classify images with a classifier that train saved.

    The table has one column of probabilities per class, and the most likely class under
    "predicted"; or one column per finding. Images are embedded like the training
    images, with the same model, or read from the cache.

    Example: sk-medsiglip predict model.skops images/ --out predictions.csv
    """
    # Imported late, so that --help is fast.
    from sk_medsiglip._labels import finding_names
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._embedding import embed_images, image_embedder, set_embedding
    from sk_medsiglip.cli._files import load_pipeline

    pipeline = load_pipeline(classifier, trust or ())
    collection = read_collection(source, path_column)
    check_out(out, overwrite)
    head = pipeline[-1]
    exclusive = head.classes_.ndim == 1
    if not exclusive:
        numbered = [f"label {i}" for i in range(len(head.classes_))]
        names = finding_names(head, numbered)
    else:
        names = head.classes_
    _check_names(collection, names, exclusive)
    set_embedding(pipeline[0], **run.parameters())
    embedded = embed_images(collection.paths, pipeline[0])
    _write_probabilities(out, collection, embedded, pipeline[1:], names, exclusive)
    say(model_notice(str(image_embedder(pipeline[0]).model)), "yellow")


@options.with_options
def zero_shot(
    source: options.SourceArgument,
    out: OutOption = Path("zero-shot.csv"),
    prompts: options.PromptsOption = None,
    classes: options.ClassOption = None,
    template: options.TemplateOption = None,
    grid: options.GridOption = None,
    path_column: options.PathColumnOption = None,
    overwrite: options.OverwriteOption = False,
    *,
    model: options.ModelOptions,
    run: options.RunOptions,
) -> None:
    """Classify images by prompts alone, without labels.

    The table has one column per class, and the most likely class under "predicted"; or
    one column per finding, with the probability that it is present. Probabilities rank
    images and are not calibrated. With --grid 8, the part of an image that matches a
    prompt best counts.

    Example: sk-medsiglip zero-shot images/ --class "normal=a normal chest X-ray"
    --class "effusion=a chest X-ray with pleural effusion"
    """
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._embedding import cut_into_parts, embed_images
    from sk_medsiglip.cli._prompts import parse_classes, read_prompts
    from sk_medsiglip.prompts import check_prompts
    from sk_medsiglip.zero_shot import ZeroShotClassifier

    if (prompts is None) == (not classes):
        raise CommandError(
            'Pass either --prompts FILE, or --class "name=prompt" once for every class.'
        )
    asked: dict[str, Any] = (
        read_prompts(prompts) if prompts is not None else parse_classes(classes or [])
    )
    question = check_prompts(asked, template)
    collection = read_collection(source, path_column)
    check_out(out, overwrite)
    exclusive = not question.is_pairs
    _check_names(collection, question.labels, exclusive)
    embedder = model.embedder(run)
    maker: Any = embedder
    if grid is not None:
        maker = cut_into_parts(embedder, grid, collection.paths)
    embedded = embed_images(collection.paths, maker)
    settings = options.text_side(embedder, "device", "dtype", "engine")
    classifier = ZeroShotClassifier(asked, templates=template, **settings)
    classifier.fit(embedded.X[embedded.readable])
    names = classifier.classes_ if exclusive else classifier.findings_
    _write_probabilities(out, collection, embedded, classifier, names, exclusive)
    say("The probabilities rank images; they are not calibrated.", "yellow")
    say(model_notice(model.model), "yellow")


def _check_names(collection: Collection, names: Iterable[Any], exclusive: bool) -> None:
    """Raise if a class has the name of another column, before embedding."""
    taken = {collection.path_column, *(["predicted"] if exclusive else [])}
    if clash := sorted(taken & {str(name) for name in names}):
        raise CommandError(
            f"The class {clash[0]!r} has the name of another column of the result. "
            "Rename the class, or the column of paths."
        )


def _write_probabilities(
    out: Path,
    collection: Collection,
    embedded: EmbeddedImages,
    classifier: Any,
    names: Iterable[Any],
    exclusive: bool,
) -> None:
    """Write a column for each name, and the prediction for exclusive classes."""
    import pandas as pd

    readable = embedded.readable
    X = embedded.X[readable]
    columns = [str(name) for name in names]
    values = np.full((len(collection), len(columns)), np.nan)
    # A single finding has two columns, absent and present.
    values[readable] = classifier.predict_proba(X)[:, -len(columns) :]
    table = pd.DataFrame(values, columns=columns)
    table.insert(0, collection.path_column, collection.names)
    if exclusive:
        table["predicted"] = None
        table.loc[readable, "predicted"] = classifier.predict(X)
    write_csv(table, out, float_format="%.6g")
    say(embedded.summary())
    preview(table)
    say(f"Wrote {out}: {len(table):,} rows.")
