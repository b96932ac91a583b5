"""The tables that the main job prints."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cli._console import console, heading, make_table, say
from sk_medsiglip.cli._labels import Task

__all__ = ["print_aucs", "print_few_labels", "print_summary"]


def print_aucs(results: dict[str, Any], task: Task, test: NDArray[np.intp]) -> None:
    """Print zero-shot beside the logistic head, a row a class or finding."""
    zero_shot, logistic = results["zero_shot"], results["logistic"]
    what = "Class" if task.kind == "classes" else "Finding"
    table = make_table(what, "Held-out images", "Zero-shot AUC", "Logistic AUC")
    count = task.rows(test).indicators().sum(axis=0)
    for name, n_images in zip(task.names, count, strict=True):
        if name in zero_shot["aucs"]:
            table.add_row(
                name,
                f"{n_images:,}",
                f"{zero_shot['aucs'][name]:.3f}",
                f"{logistic['aucs'][name]:.3f}",
            )
    console.print(table)


def print_few_labels(results: dict[str, Any]) -> None:
    """Print zero-shot beside heads on a growing number of labels."""
    table = make_table("Labelled images", "AUC", "+/- over draws")
    table.add_row("0 (zero-shot)", f"{results['zero_shot']['auc']:.3f}", "")
    for point in results["few_labels"]["curve"]:
        table.add_row(
            f"{point['n_labels']:,}", f"{point['auc']:.3f}", f"{point['std']:.3f}"
        )
    logistic = results["logistic"]
    table.add_row(
        f"{logistic['n_labels']:,} (all, best C)", f"{logistic['auc']:.3f}", ""
    )
    console.print(table)


def print_summary(results: dict[str, Any]) -> None:
    """Print every step with its AUC, model passes and seconds."""
    heading("Results")
    table = make_table("Step", "AUC", "Model passes", "Seconds")
    table.add_row(
        f"Embed {results['n_images']:,} images, first time",
        "",
        f"{results['first']['passes']:,}",
        f"{results['first']['seconds']:.2f}",
    )
    table.add_row(
        "Embed them again",
        "",
        f"{results['second']['passes']:,}",
        f"{results['second']['seconds']:.2f}",
    )
    steps = {
        "zero_shot": "Zero-shot, no labels",
        "few_labels": "Logistic heads on few labels",
        "logistic": (
            f"Logistic head, {results['logistic']['n_labels']:,} labels, "
            f"{results['logistic']['fits']} fits"
        ),
        "nearest": "Search by a sentence",
        "saved": "Save, load, predict in a new process",
    }
    for key, step in steps.items():
        entry = results[key]
        auc = f"{entry['auc']:.3f}" if "auc" in entry else ""
        table.add_row(step, auc, f"{entry['passes']:,}", f"{entry['seconds']:.2f}")
        if key == "few_labels":
            for point in entry["curve"]:
                table.add_row(
                    f"   {point['n_labels']:,} labels",
                    f"{point['auc']:.3f}",
                    "",
                    "",
                )
    console.print(table)
    say(
        "AUC: macro average, on held-out images. Model passes count images; each "
        "prompt or sentence is one short text pass more, once."
    )
