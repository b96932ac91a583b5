"""The commands of ``sk-medsiglip``, and their error messages."""

from __future__ import annotations

import os
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sk_medsiglip._version import __version__
from sk_medsiglip.cli._audit import audit
from sk_medsiglip.cli._cache import cache_app
from sk_medsiglip.cli._check import check
from sk_medsiglip.cli._console import (
    CommandError,
    complain,
    console,
    in_shell,
    show_warning,
)
from sk_medsiglip.cli._demo import demo
from sk_medsiglip.cli._doctor import doctor
from sk_medsiglip.cli._embed import embed
from sk_medsiglip.cli._explore import explore
from sk_medsiglip.cli._finetune import finetune
from sk_medsiglip.cli._index_app import index_app
from sk_medsiglip.cli._predict import predict, zero_shot
from sk_medsiglip.cli._prompts_app import prompts_app
from sk_medsiglip.cli._report import report
from sk_medsiglip.cli._serve import serve
from sk_medsiglip.cli._train import split, train, tune
from sk_medsiglip.exceptions import SkMedSiglipError

_DEBUG_VARIABLE = "SK_MEDSIGLIP_DEBUG"

# Errors that a user can fix. Any other exception is a bug and keeps its traceback.
_USER_ERRORS = (
    CommandError,
    SkMedSiglipError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)


class _Commands(TyperGroup):
    """A group of commands that print a message instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        debug = ctx.params.get("debug") or os.environ.get(_DEBUG_VARIABLE)
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            try:
                return super().invoke(ctx)
            except _USER_ERRORS as error:
                if debug:
                    raise
                said = str(error)
                if not isinstance(error, CommandError):
                    said = in_shell(said)
                complain(f"Error: {said}")
                raise typer.Exit(getattr(error, "exit_code", 2)) from None


app = typer.Typer(
    name="sk-medsiglip",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"sk-medsiglip {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help=f"Show the traceback of errors, as does {_DEBUG_VARIABLE}=1.",
        ),
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Embed medical images with MedSigLIP once, then use scikit-learn.

    Start with: sk-medsiglip demo

    For research only: not a medical device, not for clinical use.
    """


app.command("demo")(demo)
app.command("check")(check)
app.command("audit")(audit)
app.command("embed")(embed)
app.command("zero-shot")(zero_shot)
app.command("explore")(explore)
app.command("split")(split)
app.command("train")(train)
app.command(
    "tune",
    hidden=True,  # the former name of train --search
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(tune)
app.command("finetune")(finetune)
app.command("predict")(predict)
app.command("report")(report)
app.command("serve")(serve)
app.add_typer(index_app, name="index")
app.add_typer(prompts_app, name="prompts")
app.add_typer(cache_app, name="cache")
app.command("doctor")(doctor)


def main() -> None:
    """Run the command line."""
    app()
