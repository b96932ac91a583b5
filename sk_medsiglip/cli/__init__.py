"""The command ``sk-medsiglip``: the toolkit from a terminal.

The only room that imports typer and rich. Whatever a command computes, a few lines of
Python compute too, and ``demo`` prints those lines. The files::

    _app.py            the commands and how their errors reach the user; __main__.py
    _demo.py           demo: phantoms or the user's own files; _demo_steps.py
    _train.py          train: labels to a classifier; split: tables by patient
    _training.py       fits or chooses a head, and judges it
    _predict.py        predict and zero-shot: images to a table of probabilities
    _audit.py          audit: what is wrong with labelled images, before training
    _report.py         report: an HTML file; _test_set.py reads the test set
    _serve.py          serve: a saved classifier behind HTTP
    _prompts_app.py    prompts: sets that ship, and tests of prompts
    _index_app.py      index: a searchable index, built and asked
    _finetune.py       finetune: a tuned encoder
    _check.py, _embed.py, _cache.py, _doctor.py   the other commands
    _collection.py     a folder or a CSV file -> image files, labels, patients
    _splits.py         held-out patients and folds
    _prompts.py        --prompts, --class, --positive -> a dict of prompts
    _embedding.py      embedding of images as every command does it
    _files.py          files to write, checked first; saved pipelines
    _plot.py           the picture of demo
    _options.py        options that commands share; _console.py prints
"""

from sk_medsiglip.cli._app import app, main

__all__ = ["app", "main"]
