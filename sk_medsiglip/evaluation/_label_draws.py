"""Draws of labelled images, and scores of classifiers that are fitted to them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.validation import has_fit_parameter

from sk_medsiglip._labels import Labels
from sk_medsiglip._splits import group_numbers, with_cv_among
from sk_medsiglip.evaluation._answers import Truth, ask, last_step
from sk_medsiglip.evaluation._figures import figures
from sk_medsiglip.heads import LinearProbe, fit_probes
from sk_medsiglip.model_selection import EachLabel


@dataclass(frozen=True, eq=False)
class Draw:
    """Rows that are labelled, and the labels that can be learned from them."""

    size: int
    repeat: int
    rows: NDArray[np.intp]
    taught: NDArray[np.bool_]


def draw_rows(
    truth: Truth,
    pool: NDArray[np.intp],
    groups: NDArray[Any] | None,
    sizes: list[int],
    n_repeats: int,
    random_state: int,
) -> list[Draw]:
    """Draw rows for each size and repeat."""
    columns = truth.columns()
    states = columns == 1
    if truth.kind != "classes":  # a draw needs images without the finding too
        states = np.hstack([columns == 0, states])
    orders = draw_orders(
        states[pool],
        n_repeats,
        groups=None if groups is None else groups[pool],
        random_state=random_state,
    )
    rows = [(n, k, pool[order[:n]]) for n in sizes for k, order in enumerate(orders)]
    return [Draw(*one, has_both_sides(columns[one[-1]])) for one in rows]


def draw_orders(
    states: NDArray[np.bool_],
    n_repeats: int,
    *,
    groups: NDArray[np.generic] | None,
    random_state: int,
) -> list[NDArray[np.intp]]:
    """Draw orders of labelling; the first n rows of an order are a draw of size n.

    Larger draws hold the smaller ones, like a collection that is labelled further.
    First come rows that show a new state (a class, or a finding that is present or
    absent), the rarest state first. Then follow the patients in random order.
    """
    n_samples = len(states)
    member = group_numbers(groups, n_samples)
    n_groups = int(member.max()) + 1
    by_rarity = np.argsort(states.sum(axis=0), kind="stable")
    by_rarity = by_rarity[states[:, by_rarity].any(axis=0)]
    orders = []
    for repeat in range(n_repeats):
        rng = np.random.default_rng([random_state, repeat])
        # Rows of a patient stay together, in random order.
        shuffled = rng.permutation(n_samples)
        rank = rng.permutation(n_groups)
        order = shuffled[np.argsort(rank[member[shuffled]], kind="stable")]
        first: list[int] = []
        seen = np.zeros(states.shape[1], dtype=bool)
        for state in by_rarity:
            if not seen[state]:
                row = int(order[states[order, state].argmax()])
                first.append(row)
                seen |= states[row]
        rest = order[~np.isin(order, first)]
        orders.append(np.concatenate([np.array(first, np.intp), rest]))
    return orders


def has_both_sides(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell which labels have images of both kinds, given a column per label."""
    return np.asarray((columns == 1).any(axis=0) & (columns == 0).any(axis=0))


class Judge:
    """Scores a fitted classifier on the test set, label by label."""

    def __init__(self, truth: Truth, test: NDArray[np.intp], metric: str) -> None:
        self.truth, self.test, self.metric = truth, test, metric
        self._asked = replace(truth, target=truth.target[test])
        self.left_out = np.flatnonzero(~has_both_sides(self._asked.columns()))
        if len(self.left_out):
            names = ", ".join(repr(str(truth.names[k])) for k in self.left_out)
            warnings.warn(
                f"{names}: test images of one kind only. These labels are not scored, "
                'and "macro" is the mean of the others.',
                UserWarning,
                stacklevel=3,
            )

    def __call__(
        self, name: str, fitted: Any, X: Any, taught: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Return one score per label, NaN if it is undefined or was not learned."""
        truth, scores = self._asked, np.full(len(self.truth.names), np.nan)
        places = np.arange(len(scores))
        if taught is not None and truth.kind == "findings":
            places = _columns(taught)
            names = [truth.names[k] for k in places]
            truth = replace(truth, names=names, target=truth.target[:, places])
        once = np.ones((1, len(self.test)), dtype=np.int32)
        rows = _safe_indexing(X, self.test)
        for k, question in zip(places, ask(name, fitted, rows, truth), strict=True):
            if k not in self.left_out:
                scores[k] = figures(question, once, (self.metric,))[self.metric][0]
        return scores


def score_draws(
    name: str,
    estimator: Any,
    X: Any,
    y: Any,
    groups: NDArray[Any] | None,
    draws: list[Draw],
    judge: Judge,
    n_jobs: int | None,
) -> Iterator[NDArray[np.float64]]:
    """Fit an estimator to each draw, and yield its scores, one per label.

    Scores are NaN if a label cannot be learned from the draw. Only the column names of
    ``y`` are used, since the judge holds the labels.
    """
    useful = [draw for draw in draws if draw.taught.any()]
    scores: Iterator[NDArray[np.float64] | ValueError]
    if type(estimator) is LinearProbe:
        scores = _score_probes(name, estimator, X, groups, useful, judge)
    else:
        of_names = y.columns if isinstance(y, pd.DataFrame) else None
        scores = Parallel(n_jobs=n_jobs, return_as="generator")(
            delayed(_score_one)(name, estimator, X, of_names, groups, draw, judge)
            for draw in useful
        )
    failed: list[ValueError] = []
    for draw in draws:
        found = next(scores) if draw.taught.any() else np.nan
        if isinstance(found, ValueError):
            failed.append(found)
            found = np.nan
        yield np.where(draw.taught, found, np.nan)
    if failed and len(failed) == len(useful):
        raise failed[0]
    if failed:
        warnings.warn(
            f"{name} could not be fitted or scored on {len(failed)} of {len(useful)} "
            f"draws, whose scores are NaN. The first error was: {failed[0]}",
            UserWarning,
            stacklevel=2,
        )


def _score_probes(
    name: str,
    probe: LinearProbe,
    X: Any,
    groups: NDArray[Any] | None,
    draws: list[Draw],
    judge: Judge,
) -> Iterator[NDArray[np.float64]]:
    """Fit linear probes to all draws at once, and yield their scores."""
    rows = check_array(X, dtype=[np.float64, np.float32], input_name="X")
    labelled = ((draw.rows, _labels_of(draw, judge.truth)) for draw in draws)
    probes = fit_probes(probe, rows, labelled, groups)
    precise = rows.astype(np.float64)  # once, rather than for every draw
    for draw in draws:
        with warnings.catch_warnings():
            _expect_few_labels()
            fitted = next(probes)
        yield judge(name, fitted, precise, draw.taught)


def _labels_of(draw: Draw, truth: Truth) -> Labels:
    if truth.kind == "findings":
        return Labels(None, truth.target[np.ix_(draw.rows, _columns(draw.taught))])
    present, index = np.unique(truth.target[draw.rows], return_inverse=True)
    return Labels(truth.classes[present], index)


def _columns(taught: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the findings to fit; a single one twice, else it is read as classes."""
    places = np.flatnonzero(taught)
    return np.repeat(places, 2) if len(places) == 1 else places


def _score_one(
    name: str,
    estimator: Any,
    X: Any,
    columns: Any,
    groups: NDArray[Any] | None,
    draw: Draw,
    judge: Judge,
) -> NDArray[np.float64] | ValueError:
    """Fit any estimator to one draw and score it, or return the error."""
    truth, taught = judge.truth, draw.taught
    one = with_cv_among(clone(estimator), draw.rows, len(truth.target))
    last = last_step(estimator)
    ours = type(last).__module__.startswith("sk_medsiglip.")
    labels: Any = truth.target[draw.rows]
    if truth.kind != "findings":
        labels = truth.classes[labels]
    elif not ours:
        one, labels = EachLabel(one), labels[:, _columns(taught)]
    elif getattr(last, "prompts", None) is None:
        labels = labels[:, _columns(taught)]
    else:
        # Prompts are given for all findings, so all need a column. Each is learned
        # separately: made-up labels of a blank column affect that column only, which is
        # not scored.
        labels[:, np.isnan(labels).all(axis=0)] = 0
        labels = labels if columns is None else pd.DataFrame(labels, columns=columns)
        taught = np.ones(len(taught), dtype=bool)
    params = {}
    if groups is not None and ours and has_fit_parameter(last, "groups"):
        step = f"{one.steps[-1][0]}__" if isinstance(one, Pipeline) else ""
        params = {f"{step}groups": groups[draw.rows]}
    try:
        with warnings.catch_warnings():
            _expect_few_labels()
            one.fit(_safe_indexing(X, draw.rows), labels, **params)
        return judge(name, one, X, taught)
    except ValueError as error:  # for example fewer images than neighbours
        return error


def _expect_few_labels() -> None:
    """Ignore warnings about few labels, since draws are small on purpose."""
    warnings.filterwarnings("ignore", message="a class.* has fewer than two samples")
