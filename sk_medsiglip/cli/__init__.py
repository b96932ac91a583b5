"""The command ``sk-medsiglip``: the toolkit from a terminal.

The only room that imports typer and rich. Whatever a command computes, a few lines of
Python compute too, and ``demo`` prints those lines. The files::

    _app.py          the commands and how their errors reach the user; __main__.py
    _demo.py         demo: phantoms (_phantoms.py) or the user's own files ...
    _main_job.py     ... through embedding, zero-shot, search, few labels, saving
    _train.py        train: labels to a classifier; _training.py fits and judges it
    _tune.py         tune: the same, with the head chosen
    _predict.py      predict: images through it; _model_files.py keeps it
    _report.py       report: an HTML file; _test_set.py, what it is judged on
    _zero_shot.py    zero-shot: images and prompts to a table
    _prompts_app.py  prompts: sets that ship, and what prompts are worth
    _index_app.py    index: a searchable index, built and asked
    _finetune.py     finetune: a tuned encoder
    _check.py, _embed.py, _cache.py, _doctor.py   the other commands
    _collection.py   a folder or a CSV file -> image files and their columns
    _labels.py       columns -> what is to be told apart
    _prompts.py      --prompts, --class, --positive -> a dict of prompts
    _splits.py, _few_labels.py, _saved_pipeline.py   steps of the main job
    _examples.py, _plot.py, _result_tables.py   what it shows and prints
    _embedding.py    what demo, embed and zero-shot share when they embed
    _written_files.py   CSV and Markdown files that hold what users named
    _console.py, _options.py, _errors.py   printing, common options, the error
"""

from sk_medsiglip.cli._app import app, main

__all__ = ["app", "main"]
