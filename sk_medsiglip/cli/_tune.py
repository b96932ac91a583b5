"""``sk-medsiglip tune``: choose a head and its settings, save it, and report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sk_medsiglip.cli._console import (
    bar,
    console,
    make_table,
    model_notice,
    say,
    show_code,
)
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
    OnError,
    OnErrorOption,
    PadOption,
    PathColumnOption,
    PromptsOption,
    Resize,
    ResizeOption,
    RevisionOption,
    TemplateOption,
    Unknown,
)

if TYPE_CHECKING:
    import pandas as pd

    from sk_medsiglip.cli._labels import Task
    from sk_medsiglip.model_selection import HeadSearchCV
from sk_medsiglip.cli._written_files import check_out, markdown_report

__all__ = ["tune"]

_SHOWN_TRIALS = 10

# Those with probabilities; a .skops file of the last two holds types that its reader
# does not trust.
_HEADS = ("logistic", "knn", "prototypes")
_HEADS_OF_JOBLIB = ("mlp", "boosting")
_HEADS_WITH_PROMPTS = ("prompt_probe", "ss_text", "tip_adapter")


def tune(
    labels: Annotated[
        Path,
        typer.Option(
            "--labels",
            help="CSV file with a column of paths and one or more of labels, or a "
            "folder with a sub-folder a class.",
        ),
    ],
    label_column: Annotated[
        list[str] | None,
        typer.Option(
            "--label-column",
            help="Column of classes, or of 0 and 1 for a finding. Repeat it for "
            "several findings. Default: label.",
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(
            "--group-column",
            help="Column of patients: their images are never torn apart by folds.",
        ),
    ] = None,
    n_trials: Annotated[
        int, typer.Option("--n-trials", min=1, help="Trials in all.")
    ] = 50,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds after which no trial begins."),
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option(
            "--storage",
            help="SQLite file (.db) or journal (.journal) that keeps the trials: the "
            "same command again goes on where it was, and several at once share them.",
        ),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option(
            "--nested",
            help="Cross-validate the search itself: what it is worth on new patients. "
            "Five more searches.",
        ),
    ] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            help="File to write: .skops, or .joblib (loading runs code), for which "
            "neural networks and boosted trees are tried, too.",
        ),
    ] = Path("model.skops"),
    uncertain: Annotated[
        Unknown, typer.Option("--uncertain", help="What -1 in a finding means.")
    ] = Unknown.ignore,
    blank: Annotated[
        Unknown, typer.Option("--blank", help="What an empty cell of a finding means.")
    ] = Unknown.ignore,
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
    seed: Annotated[int, typer.Option("--seed", help="Of the search.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files if they exist.")
    ] = False,
) -> None:
    """Choose the best head for labelled images, and save it.

    Heads and their settings are tried on embeddings that are computed once. With
    prompts (--prompts or --class) heads that know them are tried, too.

    Use the result with: sk-medsiglip predict model.skops images/

    Example: sk-medsiglip tune --labels labels.csv --label-column effusion
    --group-column patient --storage trials.db
    """
    # Late, so that --help is quick.
    from sk_medsiglip.cli._model_files import (
        RUNS_CODE,
        check_model_file,
        foreign_types,
        save_model,
        trust_options,
    )

    report_file = out.with_suffix(".report.md")
    check_model_file(out, overwrite)
    check_out(report_file, overwrite)
    from sklearn.pipeline import Pipeline, make_pipeline

    from sk_medsiglip.cli._collection import FOLDER_LABEL, read_collection
    from sk_medsiglip.cli._embedding import check_device, embed_images, local_model
    from sk_medsiglip.cli._labels import named_labels, named_prompts, read_labels
    from sk_medsiglip.cli._prompts import prompts_for_task
    from sk_medsiglip.cli._splits import check_enough
    from sk_medsiglip.embedding import MedSigLIPEmbedder
    from sk_medsiglip.model_selection import HeadSearchCV

    collection = read_collection(labels, path_column)
    task, labelled, remarks = read_labels(
        collection.frame,
        label_column or [FOLDER_LABEL],
        uncertain=uncertain.value,
        blank=blank.value,
        complete=False,
    )
    collection = collection.keep(labelled)
    groups = collection.patients(group_column)
    check_enough(task, groups, "A search")
    check_device(device)
    heads = [*_HEADS, *([] if out.suffix == ".skops" else _HEADS_OF_JOBLIB)]
    asked: dict[str, Any] | None = None
    if prompts is not None or classes:
        asked, _ = prompts_for_task(
            task, file=prompts, classes=classes or [], positive=[], negative=[]
        )
        heads += _HEADS_WITH_PROMPTS
    where: dict[str, Any] = {"model": local_model(model), "revision": revision}
    embedder = MedSigLIPEmbedder(
        **where,
        resize=resize.value,
        pad=pad,
        device=device,
        dtype=dtype.value,
        engine=engine.value,
        batch_size=batch_size or "auto",
        n_jobs=n_jobs,
        cache=True if cache is None else str(cache),
        on_error=on_error.value,
        verbose=bar(),
    ).fit(collection.paths)
    embedded = embed_images(collection.paths, embedder)
    readable = embedded.readable
    remarks += embedded.remarks()
    groups = None if groups is None else groups[readable]
    check_enough(task.rows(readable), groups, "A search")
    for remark in remarks:
        say(remark, "yellow")
    task, X = task.rows(readable), embedded.X[readable]
    search = HeadSearchCV(
        space=heads,
        prompts=None if asked is None else named_prompts(task, asked),
        templates=template,
        **where,
        cache=embedder.cache,
        n_trials=n_trials,
        timeout=timeout,
        storage=storage,
        random_state=seed,
        verbose=bar(),
    )
    y = named_labels(task)
    try:
        search.fit(X, y, groups=groups)
    except ValueError as error:
        raise CommandError(str(error)) from None
    # The file travels: nothing in it may speak of this machine.
    embedder.set_params(verbose=0, device="auto", n_jobs=None, cache=True)
    best = search.best_estimator_
    steps = [step for _, step in best.steps] if isinstance(best, Pipeline) else [best]
    if "cache" in steps[-1].get_params():
        steps[-1].set_params(cache=True)
    n_bytes = save_model(make_pipeline(embedder, *steps), out)
    trials = _best_trials(search)
    facts = _facts(search, groups is not None, None)

    def write_report() -> None:
        report = _report(labels, len(X), model, facts, trials, remarks)
        report_file.write_text(report, encoding="utf-8")

    write_report()
    if nested:  # last, since it takes long and may fail
        expected = _nested(search, X, y, groups, task, seed)
        facts = _facts(search, groups is not None, expected)
        write_report()

    table = make_table(*trials.columns)
    for row in trials.itertuples(index=False):
        table.add_row(*map(str, row))
    console.print(table)
    for fact in facts:
        say(fact)
    say(f"Wrote {out} ({n_bytes / 1000:,.0f} kB) and {report_file}.")
    if out.suffix == ".skops":
        trust = trust_options(foreign_types(out))
        show_code(
            f"sk-medsiglip predict {out} images/ --out predictions.csv {trust}".strip()
        )
    else:
        say(RUNS_CODE, "yellow")
    say(model_notice(model), "yellow")


def _nested(
    search: HeadSearchCV, X: Any, y: Any, groups: Any, task: Task, seed: int
) -> str:
    """Return a sentence: the mean score of searches on patients without a say."""
    import numpy as np

    try:
        auc = np.mean(_nested_scores(search, X, y, groups, task, seed))
    except ValueError as error:  # such as a finding of two patients
        return f"Nested cross-validation was not possible, because {error}"
    if np.isnan(auc):
        return (
            "Nested cross-validation was not possible, because a label is too rare: a "
            "fold has nobody with it, or nobody without."
        )
    return (
        "On patients that had no say in the choice the search reached an AUC of "
        f"{auc:.3f} (nested cross-validation)."
    )


def _nested_scores(
    search: HeadSearchCV, X: Any, y: Any, groups: Any, task: Task, seed: int
) -> list[float]:
    """Return the score of a search for each fold, on patients without a say in it."""
    import pandas as pd
    from sklearn.base import clone

    from sk_medsiglip.cli._splits import make_folds

    def take(rows: Any) -> Any:
        return y.iloc[rows] if isinstance(y, pd.DataFrame) else y[rows]

    scores = []
    for train, test in make_folds(task, groups, seed):
        inner = clone(search).set_params(storage=None, verbose=0)
        inner.fit(
            X[train], take(train), groups=None if groups is None else groups[train]
        )
        scores.append(inner.score(X[test], take(test)))
    return scores or [float("nan")]


def _best_trials(search: HeadSearchCV) -> pd.DataFrame:
    """Return the best trials, best first, as texts."""
    import pandas as pd

    results = search.cv_results_
    order = results["rank_test_score"].argsort(kind="stable")
    lines, seen = [], set()
    for i in order:
        params = dict(results["params"][i])
        key = repr(params)
        if results["state"][i] != "complete" or key in seen:
            continue
        seen.add(key)
        lines.append(
            {
                "head": params.pop("head"),
                "AUC of the folds": f"{results['mean_test_score'][i]:.3f}",
                "+-": f"{results['std_test_score'][i]:.3f}",
                "settings": ", ".join(f"{k}={_short(v)}" for k, v in params.items()),
            }
        )
    return pd.DataFrame(lines[:_SHOWN_TRIALS])


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _facts(search: HeadSearchCV, grouped: bool, nested: str | None) -> list[str]:
    """Return what the search came to, as sentences."""
    kept = (
        "images of one patient together"
        if grouped
        else "each image by itself: with several images a patient, pass "
        "--group-column, or the AUC is too good"
    )
    states = search.cv_results_["state"].tolist()
    facts = [
        f"{len(states)} trials, {states.count('pruned')} given up early; AUC by "
        f"{search.n_splits_}-fold cross-validation, {kept}.",
        f"The best of many is too good on average: {search.best_score_:.3f} is no "
        "estimate for new patients"
        + (". --nested makes one." if nested is None else "."),
    ]
    return facts if nested is None else [*facts, nested]


def _report(
    source: Path,
    n_images: int,
    model: str,
    facts: list[str],
    trials: pd.DataFrame,
    remarks: list[str],
) -> str:
    """Return the report, in Markdown."""
    rows = [trials.columns.tolist(), *trials.to_numpy().tolist()]
    title = f"Heads tried on {source.name}"
    lines = markdown_report(title, n_images, model, rows, [*facts, *remarks])
    return "\n".join(lines) + "\n"
