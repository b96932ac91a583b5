"""Prompts of a classifier from ``--prompts``, ``--class`` and ``--positive``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sk_medsiglip.cli._collection import Task
from sk_medsiglip.cli._console import CommandError
from sk_medsiglip.prompts import load_prompt_set

_DEFAULT = "a medical image showing {}"
_DEFAULT_ABSENT = "a medical image showing no {}"


def read_prompts(file: Path, option: str = "--prompts") -> dict[str, Any]:
    """Read a prompt set of this package, or a JSON or YAML file."""
    if not file.is_file() and (file.suffix or file.parent != Path()):
        raise CommandError(f"{option}: there is no file {file}.")
    prompts = load_prompt_set(file if file.is_file() else str(file))
    return {str(name): value for name, value in prompts.items()}


def parse_classes(pairs: Sequence[str]) -> dict[str, list[str]]:
    """Return the prompts of repeated ``--class "name=prompt"``."""
    prompts: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, prompt = pair.partition("=")
        if not (equals and name.strip() and prompt.strip()):
            raise CommandError(
                f'--class {pair!r}: write --class "name=prompt", for example '
                '--class "normal=a normal chest X-ray".'
            )
        prompts.setdefault(name.strip(), []).append(prompt.strip())
    return prompts


def prompts_for_task(
    task: Task,
    *,
    file: Path | None = None,
    classes: Sequence[str] = (),
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
) -> tuple[dict[str, Any], bool]:
    """Return prompts for the labels of a task, and whether they are made from names.

    Prompts can be given in one way only. Without any, they are made from the names of
    the labels.
    """
    pair = bool(positive) or bool(negative)
    if (file is not None) + bool(classes) + pair > 1:
        raise CommandError(
            "Pass prompts in one way only: --prompts, --class, or --positive and "
            "--negative."
        )
    if file is not None:
        return _fit_to_task(read_prompts(file), task, "--prompts"), False
    if classes:
        return _fit_to_task(parse_classes(classes), task, "--class"), False
    if pair:
        return _pair_for_task(task, positive, negative), False
    if task.kind == "classes":
        return {name: _DEFAULT.format(_words(name)) for name in task.names}, True
    return {
        name: {
            "positive": _DEFAULT.format(_words(name)),
            "negative": _DEFAULT_ABSENT.format(_words(name)),
        }
        for name in task.names
    }, True


def _pair_for_task(
    task: Task, positive: Sequence[str], negative: Sequence[str]
) -> dict[str, Any]:
    if not (positive and negative):
        raise CommandError("--positive and --negative belong together; one is missing.")
    if task.kind != "finding":
        raise CommandError(
            "--positive and --negative need a single label column of 0 and 1. The "
            f"labels are {', '.join(task.names)}: use --prompts, or "
            + " ".join(f'--class "{name}=..."' for name in task.names[:3])
            + "."
        )
    return {task.names[0]: {"positive": list(positive), "negative": list(negative)}}


def _fit_to_task(prompts: dict[str, Any], task: Task, option: str) -> dict[str, Any]:
    # Users may write {"0": ..., "1": ...} for a column of 0 and 1.
    if task.kind == "finding" and set(prompts) == {"0", "1"}:
        pair = {"positive": prompts["1"], "negative": prompts["0"]}
        prompts = {task.names[0]: pair}
    missing = [name for name in task.names if name not in prompts]
    if missing:
        raise CommandError(
            f"{option}: there are no prompts for {', '.join(missing[:5])}. The labels "
            f"are {', '.join(task.names)}, and the prompts are for "
            f"{', '.join(prompts)}."
        )
    for name in task.names:
        given = prompts[name]
        is_pair = isinstance(given, dict) and set(given) == {"positive", "negative"}
        if is_pair != (task.kind != "classes"):
            wanted = (
                "a prompt or a list of prompts"
                if task.kind == "classes"
                else '{"positive": [...], "negative": [...]}'
            )
            raise CommandError(f"{option}: {name!r} must be {wanted}.")
    if task.kind == "classes":
        return prompts
    return {name: prompts[name] for name in task.names}


def _words(name: str) -> str:
    return name.replace("_", " ").strip().lower()
