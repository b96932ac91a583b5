"""``sk-medsiglip explore``: label, train and judge in the browser."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sk_medsiglip._web import LOOPBACK
from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._console import CommandError, in_shell, model_notice, say

if TYPE_CHECKING:
    import pandas as pd

    from sk_medsiglip.cli._collection import Collection

_PASSWORD_VARIABLE = "SK_MEDSIGLIP_PASSWORD"
_LABEL = "label"
_MOST_CLASSES = 100


@options.with_options
def explore(
    source: Annotated[
        Path | None,
        typer.Argument(
            help="CSV file with a column of paths, or folder of images. Default: drawn "
            "phantoms, with the demonstration checkpoint."
        ),
    ] = None,
    prompts: options.PromptsOption = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column to label; labels in the table are used. Repeat it for several "
            "findings. Default: the findings of --prompts, or label."
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(help="Column of patients, who are locked and judged as a whole."),
    ] = None,
    path_column: options.PathColumnOption = None,
    lock: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE or FILE",
            help="Test set, chosen once: a share of the images, such as 0.2, or a CSV "
            "file of some of the images. Locked images have no scores until the end.",
        ),
    ] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option(help="File of the labels. Default: labels.jsonl in --folder."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the results. Default: explore.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")
    ] = 0,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. With 0.0.0.0 other machines have access, after "
            f"a password, which is asked for, or read from {_PASSWORD_VARIABLE}."
        ),
    ] = "127.0.0.1",
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, and open nothing.")
    ] = False,
    *,
    model: options.ModelOptions,
    run: options.LenientRunOptions,
) -> None:
    """Label images, train on them and judge the result, in the browser.

    The page shows a map of the images and those to label next, trains after your
    labels, and says how good that is. Labels are kept in a file, line by line. Without
    a table or folder it shows drawn phantoms, and needs nothing downloaded.

    Example: sk-medsiglip explore images.csv --group-column patient --lock 0.2
    """
    # Imported late, so that --help is fast.
    from sk_medsiglip.cli._collection import read_collection
    from sk_medsiglip.cli._prompts import read_prompts
    from sk_medsiglip.explore import explore

    how: dict[str, Any] = {
        "labels_path": labels_file, "folder": folder, "host": host, "port": port,
        "open_browser": not no_browser, "block": True, "password": _password(host),
    }  # fmt: skip
    if prompts is not None:
        how["prompts"] = read_prompts(prompts)
    if source is not None:
        collection = read_collection(source, path_column)
        frame, how["classes"] = _read_classes(collection.frame, label_column, prompts)
        how |= {
            "X": collection.paths,
            "frame": frame,
            "groups": collection.patients(group_column),
            "label": label_column,
            "locked": _read_lock(lock, collection, path_column),
            "model": model.embedder(run),
            "title": source.stem,
        }
        say(f"{len(collection):,} images. {model_notice(model.model)}")
    elif group_column or lock or label_column or prompts:
        raise CommandError("These options describe your own images: pass their table.")
    else:
        say(model_notice("demo"), "yellow")
    try:
        server = explore(**how)
    except ValueError as error:
        raise CommandError(in_shell(str(error))) from error
    kept = server.session._file.path
    again = shlex.join(["sk-medsiglip", *sys.argv[1:]])
    say(f"Stopped. The labels are in {kept}. To go on: {again}")


def _read_classes(
    frame: pd.DataFrame, names: list[str] | None, prompts: Path | None
) -> tuple[pd.DataFrame, list[str] | None]:
    """Return the table, and the classes where its column of labels holds such."""
    from sk_medsiglip.datasets import class_name, read_binary

    if names is None and prompts is None:
        names = [_LABEL]
    if names is None or len(names) > 1 or names[0] not in frame:
        return frame, None
    (name,) = names
    words = frame[name].map(class_name, na_action="ignore")
    classes = sorted(set(words.dropna()) - {"unsure"})
    is_finding = read_binary(frame[name], "ignore", "ignore") is not None
    if prompts is not None or is_finding or set(classes) <= {"yes", "no"}:
        return frame, None
    if len(classes) > _MOST_CLASSES:
        raise CommandError(
            f"--label-column: {name!r} holds {len(classes)} different values. These "
            "look like measurements or names rather than classes."
        )
    return frame.assign(**{name: words}), classes


def _read_lock(
    lock: str | None, collection: Collection, path_column: str | None
) -> Any:
    """Return the share of images to lock, or a mask of those in a table."""
    from sk_medsiglip.cli._collection import absolute, read_collection

    if lock is None:
        return None
    try:
        return float(lock)
    except ValueError:
        test = read_collection(Path(lock), path_column)
    wanted = {absolute(path) for path in test.paths}
    paths = [absolute(path) for path in collection.paths]
    if unknown := sorted(wanted - set(paths)):
        raise CommandError(
            f"--lock: {lock} has images that the table lacks, such as {unknown[0]}. "
            "The table must hold all images, those of the test set too."
        )
    import numpy as np

    return np.array([path in wanted for path in paths])


def _password(host: str) -> str | None:
    given = os.environ.get(_PASSWORD_VARIABLE)
    if given or host in LOOPBACK:
        return given or None
    asked: str = typer.prompt("Password of the page", hide_input=True)
    return asked
