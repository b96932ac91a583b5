"""The command ``sk-medsiglip``.

This is the only room that imports typer and rich. Everything that a command computes
takes a few lines of Python, which ``demo`` prints. The files::

    _app.py            the commands, and their error messages; __main__.py
    _demo.py           demo, on phantoms or on the user's files; _demo_steps.py
    _train.py          train, from labels to a classifier; split, tables by patient
    _training.py       fitting, selection and evaluation of heads
    _predict.py        predict and zero-shot, from images to a table of probabilities
    _audit.py          audit, which finds faults in labelled images
    _report.py         report, which writes an HTML file; _test_set.py reads its data
    _serve.py          serve, which runs a saved classifier behind HTTP
    _explore.py        explore, which shows images in the browser, to label and train
    _prompts_app.py    prompts, which lists prompt sets and tests prompts
    _index_app.py      index, which builds and searches an index of images
    _finetune.py       finetune, which tunes the encoder
    _check.py, _embed.py, _cache.py, _doctor.py   the other commands
    _collection.py     images, labels and patients of a folder or a CSV file
    _splits.py         held-out patients and folds
    _prompts.py        prompts from --prompts, --class and --positive
    _embedding.py      embedding of images, shared by the commands
    _files.py          output files, checked early; saved pipelines
    _plot.py           the figure of demo
    _options.py        options that commands share; _console.py prints
"""

from sk_medsiglip.cli._app import app, main

__all__ = ["app", "main"]
