"""``label_efficiency``: scores of classifiers against the number of labels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing, check_consistent_length, get_tags

from sk_medsiglip._progress import progress_bar
from sk_medsiglip._shared_groups import shared_groups
from sk_medsiglip._splits import check_groups
from sk_medsiglip._validation import Integral
from sk_medsiglip.embedding import plain_rows
from sk_medsiglip.evaluation._answers import last_step, read_truth
from sk_medsiglip.evaluation._figures import check_metrics
from sk_medsiglip.evaluation._label_draws import Judge, draw_rows, score_draws
from sk_medsiglip.exceptions import LeakageWarning
from sk_medsiglip.model_selection import MultilabelStratifiedGroupShuffleSplit

_COLUMNS = ("estimator", "size", "repeat", "label", "score")


def label_efficiency(
    estimators: Mapping[str, Any],
    X: Any,
    y: ArrayLike,
    sizes: Sequence[int],
    *,
    groups: ArrayLike | None = None,
    n_repeats: int = 20,
    X_test: Any = None,
    y_test: ArrayLike | None = None,
    groups_test: ArrayLike | None = None,
    test_size: float | int = 0.25,
    scoring: str = "roc_auc",
    random_state: int = 0,
    n_jobs: int | None = None,
    verbose: int | bool = 0,
) -> pd.DataFrame:
    """Score classifiers against the number of labels that they learn from.

    The result shows whether labelling is worth the effort: how many labels a probe
    needs to overtake the prompts, how many labels are saved by starting from prompts,
    and where the curve becomes flat. Each draw of labelled images begins with one image
    of every class or finding (see Notes).

    Parameters
    ----------
    estimators : dict
        ``{name: classifier}``, not fitted. A classifier that needs no labels, such as
        :class:`~sk_medsiglip.ZeroShotClassifier`, is scored once, with size 0.
    X : array-like or list of n_samples images
        Embeddings, or images for pipelines. First steps of pipelines that learn
        nothing, such as :class:`~sk_medsiglip.MedSigLIPEmbedder`, are applied once to
        all of ``X``.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        Classes; or 1, 0, and NaN where a finding is not known. Each finding is learned
        from the images in which it is known.
    sizes : sequence of int
        Numbers of labelled images.
    groups : array-like of shape (n_samples,), default=None
        Patients. A patient is on one side of the split only, is drawn as a whole before
        the next one, and is kept in one inner fold of a head.
    n_repeats : int, default=20
        Number of draws of each size, the same ones for all estimators.
    X_test, y_test, groups_test : default=None
        Test data for all classifiers. By default, a part of ``X`` with other patients
        is held out.
    test_size : float or int, default=0.25
        Share or number of images to hold out if there is no ``X_test``.
    scoring : str, default="roc_auc"
        A metric of :func:`evaluate`.
    random_state : int, default=0
        Seed of the split and of the draws.
    n_jobs : int, default=None
        Number of processes for estimators other than
        :class:`~sk_medsiglip.LinearProbe`, which uses all cores in any case.
    verbose : int, default=0
        Verbosity. Values above 0 show a progress bar.

    Returns
    -------
    DataFrame
        One row per score, with the columns ``estimator``, ``size``, ``repeat``,
        ``label`` (as in :func:`evaluate`, with "macro" for the mean over several
        labels) and ``score``. The score is NaN if all images of a draw are of one kind,
        so that the label cannot be learned.

    Raises
    ------
    ValueError
        If a size exceeds the number of images to draw from, or if the shapes of labels
        or the lengths of inputs differ.

    Warns
    -----
    UserWarning
        If all test images of a label are of one kind: it is left out of "macro".
    LeakageWarning
        If ``groups`` and ``groups_test`` share patients, or ids that may be equal.

    See Also
    --------
    LabelEfficiencyDisplay : Plot the result.

    Notes
    -----
    A draw of 64 holds the draw of 32, like a collection that is labelled further.
    **Draws are not purely random**: each begins with one image of every class, or with
    one image with and one without every finding, as far as the size allows; the others
    are random. For a finding in 5 % of images, a draw of 8 always holds an image with
    it, which is true of only 34 % of purely random draws. Small sizes therefore look
    better than they would with random labelling.

    All classifiers are scored on one test set. The spread over repeats is due to the
    choice of labelled images; :func:`evaluate` gives the uncertainty due to the test
    set.

    Draws of ``LinearProbe`` share the decomposition of ``X``, their folds and the
    cores, and give the same solutions as its ``fit``. ``LinearProbe(tol=1e-4)`` takes
    about two thirds of the time, and changes means over draws in the third digit.

    Examples
    --------
    >>> from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, ZeroShotClassifier
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.evaluation import label_efficiency
    >>> phantoms = make_chest_phantoms(200, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> effusion = {"effusion": {"positive": "pleural effusion",
    ...                          "negative": "no pleural effusion"}}
    >>> table = label_efficiency(
    ...     {"zero-shot": ZeroShotClassifier(effusion, model="demo"),
    ...      "probe": LinearProbe()},
    ...     X, phantoms.target[:, 1], [8, 32, 128], groups=phantoms.groups, n_repeats=5)
    >>> table.groupby(["estimator", "size"], sort=False)["score"].count()
    estimator  size
    zero-shot  0       1
    probe      8       5
               32      5
               128     5
    Name: score, dtype: int64
    """
    (metric,) = check_metrics(scoring, further=False)
    sizes = _check_sizes(sizes, n_repeats)
    if not isinstance(estimators, Mapping) or not estimators:
        raise ValueError("estimators must be a non-empty dict, {name: classifier}.")
    X, labels, patients, pool, test = _sides(
        X, y, groups, X_test, y_test, test_size, random_state
    )
    _warn_of_shared(groups, groups_test)
    if sizes[-1] > len(pool):
        raise ValueError(
            f"the largest of sizes is {sizes[-1]}, but there are only {len(pool)} "
            f"images to draw from besides the {len(test)} of the test set."
        )
    prepared = _prepare(estimators, X)
    free = {
        name: clone(one).fit(_safe_indexing(rows, pool))
        for name, (one, rows) in prepared.items()
        if not _needs_labels(one)
    }
    truth = read_truth(labels, list(free.values()), range(len(labels)))
    if truth.kind == "binary" and np.isnan(truth.target).any():
        raise ValueError("y holds blanks (NaN): leave these rows out.")
    judge = Judge(truth, test, metric)
    draws = draw_rows(truth, pool, patients, sizes, n_repeats, random_state)
    found: list[tuple[str, int, int, NDArray[np.float64]]] = []
    n_fits = len(free) + (len(prepared) - len(free)) * len(draws)
    with progress_bar(n_fits, desc="fitting", unit="fit", verbose=verbose) as bar:
        for name, (one, rows) in prepared.items():
            if name in free:
                bar.update(1)
                found.append((name, 0, 0, judge(name, free[name], rows)))
                continue
            scores = score_draws(
                name, one, rows, labels, patients, draws, judge, n_jobs
            )
            for draw, of_draw in zip(draws, scores, strict=True):
                bar.update(1)
                found.append((name, draw.size, draw.repeat, of_draw))
    table = _as_table(found, judge)
    table.attrs["scoring"] = scoring
    return table


def _check_sizes(sizes: Sequence[int], n_repeats: Any) -> list[int]:
    for name, value in [("n_repeats", n_repeats), *(("sizes", n) for n in sizes)]:
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be whole numbers from 1 on, got {value!r}.")
    if not len(sizes):
        raise ValueError(
            "sizes is empty: pass numbers of labels, such as [8, 32, 128]."
        )
    return sorted({int(n) for n in sizes})


def _sides(
    X: Any,
    y: Any,
    groups: Any,
    X_test: Any,
    y_test: Any,
    test_size: float | int,
    random_state: int,
) -> tuple[Any, Any, Any, NDArray[np.intp], NDArray[np.intp]]:
    """Return all samples together, the rows to draw from, and the test rows."""
    y = y if isinstance(y, pd.DataFrame) else np.asarray(y)
    check_consistent_length(X, y)
    groups = None if groups is None else check_groups(groups, len(y))
    if (X_test is None) != (y_test is None):
        raise ValueError("pass both X_test and y_test, or neither.")
    if X_test is None:
        split = MultilabelStratifiedGroupShuffleSplit(
            1, test_size=test_size, random_state=random_state
        )
        pool, test = next(split.split(np.empty((len(y), 1)), y, groups))
        return X, y, groups, pool, test
    check_consistent_length(X_test, y_test)
    if np.ndim(y_test) != y.ndim or np.shape(y_test)[1:] != y.shape[1:]:
        raise ValueError(
            f"y_test has shape {np.shape(y_test)}, and y has shape {y.shape}: both "
            "must be of the same kind."
        )
    n, n_test = len(y), np.shape(y_test)[0]
    both = _join(X, X_test), _join(y, y_test)
    if groups is not None:  # rows of the test set are never drawn
        groups = np.concatenate([groups, np.repeat(groups[:1], n_test)])
    return *both, groups, np.arange(n), np.arange(n, n + n_test)


def _warn_of_shared(groups: Any, groups_test: Any) -> None:
    if groups is None or groups_test is None:
        return
    shared = shared_groups(groups, groups_test)
    said = shared.doubts("groups", "groups_test")
    if shared.shared:
        said.append(
            f"{len(shared.shared):,} patients of groups_test are also in groups, so "
            "scores are too optimistic. Leave them out of one side."
        )
    for one in said:
        warnings.warn(one, LeakageWarning, stacklevel=3)


def _join(one: Any, other: Any) -> Any:
    if isinstance(one, pd.DataFrame):
        if not isinstance(other, pd.DataFrame):
            other = pd.DataFrame(other, columns=one.columns)
        return pd.concat([one, other[one.columns]], ignore_index=True)
    if isinstance(one, np.ndarray):
        return np.concatenate([one, np.asarray(other)])
    return [*one, *other]


def _prepare(estimators: Mapping[str, Any], X: Any) -> dict[str, tuple[Any, Any]]:
    """Apply first steps that learn nothing once, and return the steps left to fit."""
    prepared: dict[str, tuple[Any, Any]] = {}
    known: dict[str, Any] = {}
    for name, one in estimators.items():
        rows, done = X, ""
        while isinstance(one, Pipeline) and len(one.steps) > 1:
            step = one.steps[0][1]
            if isinstance(step, str) or get_tags(step).requires_fit:
                break
            done += repr((type(step), sorted(step.get_params().items(), key=str)))
            if done not in known:
                known[done] = plain_rows(clone(step).fit(rows), rows)
            rows, one = known[done], one[1:]
        if isinstance(one, Pipeline) and len(one.steps) == 1:
            one = one.steps[0][1]
        prepared[name] = (one, rows)
    return prepared


def _needs_labels(estimator: Any) -> bool:
    return bool(get_tags(last_step(estimator)).target_tags.required)


def _as_table(
    found: list[tuple[str, int, int, NDArray[np.float64]]], judge: Judge
) -> pd.DataFrame:
    names = list(judge.truth.names)
    whole = np.setdiff1d(np.arange(len(names)), judge.left_out)
    rows: list[tuple[Any, ...]] = []
    for estimator, size, repeat, scores in found:
        rows += [
            (estimator, size, repeat, name, float(score))
            for name, score in zip(names, scores, strict=True)
        ]
        if len(names) > 1:
            # The mean is over the same labels in all draws, so it can be NaN.
            mean = float(scores[whole].mean()) if whole.size else np.nan
            rows.append((estimator, size, repeat, "macro", mean))
    return pd.DataFrame(rows, columns=list(_COLUMNS))
