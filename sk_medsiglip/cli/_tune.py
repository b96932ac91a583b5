"""``sk-medsiglip train --search``: choose a head, save it, and report on the trials."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from sk_medsiglip.cli._console import bar, complain
from sk_medsiglip.cli._errors import CommandError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sk_medsiglip.cli._labels import LabelledImages
    from sk_medsiglip.cli._training import Trained
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


def search_head(
    data: LabelledImages,
    X: NDArray[np.float32],
    prompts: dict[str, Any] | None,
    settings: dict[str, Any],
    *,
    for_skops: bool,
) -> tuple[HeadSearchCV, Trained]:
    """Choose a head; return the search, and the best head with the best trials."""
    from sk_medsiglip.cli._labels import named_labels, named_prompts
    from sk_medsiglip.cli._training import Trained, how_kept
    from sk_medsiglip.model_selection import HeadSearchCV

    heads = [*_HEADS, *([] if for_skops else _HEADS_OF_JOBLIB)]
    if prompts is not None:
        heads += _HEADS_WITH_PROMPTS
        prompts = named_prompts(data.task, prompts)
    search = HeadSearchCV(space=heads, prompts=prompts, **settings, verbose=bar())
    try:
        search.fit(X, named_labels(data.task), groups=data.groups)
    except ValueError as error:
        raise CommandError(str(error)) from None
    states = search.cv_results_["state"].tolist()
    notes = [
        f"{len(states)} trials, {states.count('pruned')} given up early; AUC by "
        f"{search.n_splits_}-fold cross-validation, {how_kept(data.groups)}.",
        search.search_report_,
        f"The best of many is too good on average: {search.best_score_:.3f} is not an "
        "estimate for new patients.",
    ]
    columns = ("head", "AUC of the folds", "+-", "settings")
    return search, Trained(search.best_estimator_, columns, _best_trials(search), notes)


def judge_search(
    search: HeadSearchCV, data: LabelledImages, X: NDArray[np.float32]
) -> str:
    """Return a sentence on searches that are judged on patients without a say."""
    import numpy as np
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    from sk_medsiglip.cli._labels import named_labels
    from sk_medsiglip.cli._splits import make_folds

    impossible = "Nested cross-validation was not possible, because"
    rare = f"{impossible} a label is too rare: a fold has nobody with it or without it."
    folds = make_folds(data.task, data.groups, search.random_state)
    if not folds:
        return rare
    inner = clone(search).set_params(storage=None, verbose=0)
    groups = None if data.groups is None else {"groups": data.groups}
    y = named_labels(data.task)
    try:
        scores = cross_val_score(
            inner, X, y, cv=folds, params=groups, error_score="raise"
        )
    except ValueError as error:  # such as a finding of two patients
        return f"{impossible} {error}"
    if not np.isfinite(scores).all():
        return rare
    return (
        "On patients that had no say in the choice the search reached an AUC of "
        f"{scores.mean():.3f} (nested cross-validation)."
    )


def _best_trials(search: HeadSearchCV) -> list[list[str]]:
    """Return the best trials as texts, the one that was chosen first."""
    results = search.cv_results_
    order = results["rank_test_score"].argsort(kind="stable").tolist()
    order.remove(search.best_index_)  # first, whatever its rank
    rows: dict[str, list[str]] = {}
    for i in [search.best_index_, *order]:
        params = dict(results["params"][i])
        if results["state"][i] != "complete":
            continue
        rows.setdefault(
            repr(params),
            [
                params.pop("head"),
                f"{results['mean_test_score'][i]:.3f}",
                f"{results['std_test_score'][i]:.3f}",
                ", ".join(f"{k}={_short(v)}" for k, v in params.items()),
            ],
        )
    return list(rows.values())[:_SHOWN_TRIALS]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
