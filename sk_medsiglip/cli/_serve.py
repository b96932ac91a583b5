"""``sk-medsiglip serve``: run a saved classifier behind HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import CommandError
from sk_medsiglip.cli._predict import ClassifierArgument


def serve(
    classifier: ClassifierArgument,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. With 0.0.0.0 other machines have access, "
            "without a password."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port to listen on.")
    ] = 8000,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Images in one pass of the model.")
    ] = 32,
    device: options.DeviceOption = "auto",
    trust: options.TrustOption = None,
) -> None:
    """Answer HTTP requests with a classifier that train saved.

    POST /predict takes a DICOM, PNG or JPEG file and returns probabilities. Other
    routes are /docs, /health, /info and /metrics. Images and results are not stored.

    Example: sk-medsiglip serve model.skops
    """
    # Imported late, so that --help is fast.
    from sklearn.exceptions import NotFittedError

    from sk_medsiglip.cli._files import load_classifier
    from sk_medsiglip.serving import serve

    found = load_classifier(classifier, trust or ())
    try:
        serve(found, host=host, port=port, max_batch=max_batch, device=device)
    except (TypeError, NotFittedError) as error:  # the file holds something else
        raise CommandError(f"{classifier}: {error}") from error
