"""``sk-medsiglip train --search``: choose a head, save it, and report on the trials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sk_medsiglip.cli._console import (
    bar,
    complain,
    console,
    make_table,
    say,
)
from sk_medsiglip.cli._errors import CommandError
from sk_medsiglip.cli._written_files import markdown_report

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from sk_medsiglip.cli._labels import LabelledImages, Task
    from sk_medsiglip.embedding import MedSigLIPEmbedder
    from sk_medsiglip.model_selection import HeadSearchCV

_SHOWN_TRIALS = 10

# Those with probabilities; a .skops file of the last two holds types that its reader
# does not trust.
_HEADS = ("logistic", "knn", "prototypes")
_HEADS_OF_JOBLIB = ("mlp", "boosting")
_HEADS_WITH_PROMPTS = ("prompt_probe", "ss_text", "tip_adapter")


def tune(context: typer.Context) -> None:
    """Choose a classifier: the former name of sk-medsiglip train --search.

    It takes the options of train, and will be removed in the next version.
    """
    complain(
        "sk-medsiglip tune is now sk-medsiglip train --search; the old name will be "
        "removed in the next version.",
        "yellow",
    )
    parent = context.parent
    assert parent is not None
    commands: Any = parent.command
    train = commands.get_command(parent, "train")
    with train.make_context(
        "train", ["--search", *context.args], parent=parent
    ) as asked:
        train.invoke(asked)


def save_search(
    data: LabelledImages,
    X: NDArray[np.float32],
    embedder: MedSigLIPEmbedder,
    prompts: dict[str, Any] | None,
    settings: dict[str, Any],
    out: Path,
    title: str,
    *,
    nested: bool,
) -> list[str]:
    """Search, save the pipeline and the report, print both; return what to say last."""
    from sklearn.pipeline import Pipeline, make_pipeline

    from sk_medsiglip.cli._labels import named_labels, named_prompts
    from sk_medsiglip.cli._model_files import foreign_types, save_model, trust_options
    from sk_medsiglip.model_selection import HeadSearchCV

    task, groups = data.task, data.groups
    heads = [*_HEADS, *(_HEADS_OF_JOBLIB if out.suffix != ".skops" else [])]
    if prompts is not None:
        heads += _HEADS_WITH_PROMPTS
        prompts = named_prompts(task, prompts)
    search = HeadSearchCV(space=heads, prompts=prompts, **settings, verbose=bar())
    y = named_labels(task)
    try:
        search.fit(X, y, groups=groups)
    except ValueError as error:
        raise CommandError(str(error)) from None
    # The file travels: nothing in it may speak of this machine.
    model = str(embedder.model)
    embedder.set_params(verbose=0, device="auto", n_jobs=None, cache=True)
    best = search.best_estimator_
    steps = [s for _, s in best.steps] if isinstance(best, Pipeline) else [best]
    if "cache" in steps[-1].get_params():
        steps[-1].set_params(cache=True)
    n_bytes = save_model(make_pipeline(embedder, *steps), out)
    report_file = out.with_suffix(".report.md")
    trials = _best_trials(search)
    table = [trials.columns.tolist(), *trials.to_numpy().tolist()]

    def write_report(facts: list[str]) -> None:
        lines = markdown_report(title, len(X), model, table, [*facts, *data.remarks])
        report_file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    facts = _facts(search, groups is not None, None)
    write_report(facts)
    if nested:  # last, since it takes long and may fail
        expected = _nested(search, X, y, groups, task, search.random_state)
        facts = _facts(search, groups is not None, expected)
        write_report(facts)
    shown = make_table(*trials.columns)
    for row in trials.itertuples(index=False):
        shown.add_row(*map(str, row))
    console.print(shown)
    for fact in facts:
        say(fact)
    say(f"Wrote {out} ({n_bytes / 1000:,.0f} kB) and {report_file}.")
    return trust_options(foreign_types(out)).split() if out.suffix == ".skops" else []


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
    """Return the best trials as texts, the one that was chosen first."""
    import pandas as pd

    results = search.cv_results_
    order = results["rank_test_score"].argsort(kind="stable").tolist()
    order.remove(search.best_index_)  # first, whatever its rank
    order.insert(0, search.best_index_)
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
        search.search_report_,
        f"The best of many is too good on average: {search.best_score_:.3f} is no "
        "estimate for new patients"
        + (". --nested makes one." if nested is None else "."),
    ]
    return facts if nested is None else [*facts, nested]
