"""``evaluate``: what classifiers are worth on a test set, with intervals by patient."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

from sk_medsiglip._embeddings import is_matrix
from sk_medsiglip._intervals import Bounds, Estimate, combine, holm
from sk_medsiglip._progress import progress_bar
from sk_medsiglip._resampling import check_resampling, draw_counts
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.evaluation._answers import Truth, ask, read_truth
from sk_medsiglip.evaluation._figures import (
    BY_PATIENT,
    FURTHER,
    Question,
    check_metrics,
    estimates,
)
from sk_medsiglip.evaluation._further_metrics import further_estimates
from sk_medsiglip.evaluation._leaks import find_leaks, warn_of_leaks
from sk_medsiglip.evaluation._permutations import gap_p_value, permuted_members
from sk_medsiglip.evaluation._published import warn_if_trained_on

__all__ = ["evaluate", "subgroup_members"]

_COLUMNS = (
    *("estimator", "label", "metric", "subgroup", "value", "low", "high"),
    *("p_value", "p_holm", "n", "n_positive", "n_undefined", "note"),
)
_MAX_LEVELS = 20
# Patients on each side, below which resampled gaps cover far less than they say.
_FEW = 100
_REST = " - rest"

Judge = Callable[[Question, tuple[str, ...]], dict[str, Estimate]]


def evaluate(
    estimators: Mapping[str, Any] | Any,
    X: Any,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    subgroups: Any = None,
    metrics: str | Sequence[str] | None = None,
    pos_label: Any = None,
    interval: str = "auto",
    n_bootstrap: int = 2000,
    level: float = 0.95,
    random_state: int = 0,
    X_train: Any = None,
    groups_train: ArrayLike | None = None,
    data_set: str | None = None,
    by_patient: str | None = None,
    verbose: int | bool = 0,
) -> pd.DataFrame:
    """Judge fitted classifiers, with intervals, differences and subgroups.

    Parameters
    ----------
    estimators : dict or estimator
        ``{name: fitted classifier}``; in the place of a classifier may stand its
        scores for ``X``: of the class that is looked for, of each class, or of each
        finding.
    X : array-like or list of n_samples images
        The test set, as the classifiers take it.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        True classes; or 1, 0, and NaN where a finding is not known.
    groups : array-like of shape (n_samples,), default=None
        Patients, who are the unit of intervals and tests. Without them every row counts
        as one, and intervals are too narrow where patients have several images.
    subgroups : dict, DataFrame or array-like, default=None
        ``{name: values}``, such as age band, sex, scanner or site; one value a row,
        missing ones in no subgroup.
    metrics : str or list of str, default=None
        Names of the figures: "roc_auc", "average_precision",
        "sensitivity@specificity=0.9" (any level) and the reverse, "balanced_accuracy",
        "f1", "brier", "calibration_slope", "calibration_intercept" and "ece", which
        are the default; of what is predicted, "accuracy", "sensitivity",
        "specificity", "ppv", "npv", "true_positives", "false_positives",
        "true_negatives" and "false_negatives"; "ppv@prevalence=0.02" and
        "npv@prevalence=0.02", where so many have the finding;
        "net_benefit@threshold=0.1", of acting on probabilities from there on.
    pos_label : default=None
        Of two classes, the one that is looked for; None is the second in sorted order.
    interval : {"auto", "bootstrap"}, default="auto"
        "auto" takes for each figure the method that held the truth most reliably with
        few patients (see Notes), and resamples of patients where none is known.
        "bootstrap" takes resamples for all that "auto" takes from shares or areas.
    n_bootstrap : int, default=2000
        Number of resamples, and of arrangements that test a gap.
    level : float, default=0.95
        Confidence level of the intervals, for example 0.95.
    random_state : int, default=0
        Seed of the random number generator.
    X_train, groups_train : default=None
        Embeddings and patients of the training data. Patients and pictures that are
        (nearly) the same are looked for in the test set. Ids are compared by what they
        say, 7 with "7" and 7.0; those that may be alike ("007"), are missing, or are of
        another kind, are warned of.
    data_set : str, default=None
        Name of a public data set that ``X`` comes from; see
        :func:`known_training_data`.
    by_patient : {"max", "mean"}, default=None
        Whether to add the figures of whole patients to those of images, as subgroup
        "patients (max)" or "patients (mean)". A patient has a finding if any image
        with a known label has it. With "max" the highest score of the images counts
        and one flagged image flags the patient; with "mean" the mean score counts and
        more than half of the images must be flagged.
    verbose : int, default=0
        Over 0 shows a progress bar.

    Returns
    -------
    DataFrame
        One row a figure, with the columns

        - ``estimator``: a name; "a - b" is the difference of two;
        - ``label``: a class (against the rest) or finding, or of several "macro",
          their mean, and "micro", all pooled;
        - ``metric``; ``subgroup``: "all", "sex=F", or "sex=F - rest", the gap between
          a subgroup and the others; "patients (max)", where asked for;
        - ``value``, ``low``, ``high``: the figure and its interval;
        - ``p_value``: of differences and gaps, two-sided; ``p_holm``: corrected by
          Holm's method for all differences, or all gaps, of the table;
        - ``n``, ``n_positive``: images, and those where it is so; of "macro" those with
          any label, of "micro" answers instead of images;
        - ``n_undefined``: resamples without a value, such as an area where nobody is
          ill. They are in no interval;
        - ``note``: the reason why there is no interval or no p-value, and of a gap the
          size that a true one must have to be found half the time.

    Raises
    ------
    ValueError
        If ``y`` holds what no classifier knows, or lengths do not fit.

    Warns
    -----
    LeakageWarning
        If the test set was learned from, or if patients could not all be compared. Of
        pictures that are nearly the same the warning says how many are expected by
        chance; ``groups_train`` is needed for that.
    UserWarning
        If a label has images of one kind only, or none: it is left out of "macro". If
        there is only one patient, or one resample. If the class that is looked for is
        named as the absence of the other ("no effusion").

    See Also
    --------
    published_results : The model card's figures, in the same columns.
    choose_operating_point : A threshold for a wanted sensitivity.

    Notes
    -----
    **Intervals** by patient, whose coverage ``benchmarks/coverage.py`` measures:

    - "roc_auc": Newcombe's [1]_ with counts of patients, wider where Obuchowski's
      variance [2]_ is larger; of 1 or 0 the exact bound of the smaller side.
    - Shares ("sensitivity", "specificity", "ppv", "npv", "accuracy"): Wilson's [3]_
      with the effective number of patients and Student's t; of 1 or 0 the exact bound
      of as many patients. "f1" follows from the share of true positives among all that
      are flagged or ill.
    - "balanced_accuracy", "macro" and differences are as wide as their parts make them:
      MOVER [4]_, with the parts' correlation over patients. The p-value of a difference
      is the level at which its interval reaches 0, so that the two agree. For areas it
      is more cautious than :func:`delong_test`, whose intervals held the truth in as
      few as .68 of data sets with three to five ill patients.
    - "net_benefit", "ppv" and "npv" at a prevalence: MOVER of the shares that they are
      made of (:func:`net_benefit`); the prevalence is taken as known.
    - "calibration_slope" and "calibration_intercept": Student's t with the patients of
      the smaller side less one, and a variance that leaves each patient out in turn.
      These, counts and net benefit have no gaps.
    - "ece" and counts: none. A calibration error is larger in resamples.
    - All others: percentiles over resamples of patients, the same ones for everything.
      Where all are alike, or there are fewer than ``2 / (1 - level)``, there is none.

    **Gaps** between a subgroup and the others have a p-value and an interval from two
    computations, which may disagree. Tested is whether images *with the same label* are
    alike in the subgroup and outside. Patients change places between the two within
    their label pattern (has images with the label, has images without); of patients on
    both sides, the images do. The p-value is the share of arrangements with a gap as
    large, exact where there are few, and NaN where none could be below .05. It keeps
    its size in groups of three patients; where areas are equal but positive scores are
    spread wider in the subgroup, up to .12 of gaps are found at .05. With AUC .95
    against .80, three, ten and forty of 120 patients find it in about .2, .3 and .5 of
    data sets: no gap found is not no gap. The interval is MOVER's; resampled gaps have
    none below 100 patients a side, where it held the truth in as few as .47.

    "sensitivity@specificity" picks the threshold on the test set itself, in each
    resample anew: a point of the ROC curve, not a promise. For a promise choose it on
    other images, with :func:`choose_operating_point`. Of exclusive classes, macro and
    micro "accuracy", "balanced_accuracy" and "brier" are scikit-learn's
    ``accuracy_score``, ``balanced_accuracy_score`` and ``brier_score_loss``, one answer
    an image. Scores that are no probabilities decide nothing: what
    is of decisions is NaN.

    "ece" is that of each label, 15 bins. It is too large by an amount that shrinks with
    the number of images, so that it has no interval, no p-value, and subgroups no gap.
    A slope of 1 and an intercept of 0 are right: a slope below 1 means probabilities
    that are too extreme, an intercept above 0 a label that is more frequent than they
    say (those of 0 and 1 count as 1e-7 away from it).

    All resamples are computed at once: 2,000 of the areas of 14 findings of 5,000
    images take seconds.

    References
    ----------
    .. [1] Newcombe, "Confidence intervals for an effect size measure based on the
       Mann-Whitney statistic. Part 2", Statistics in Medicine 2006.
    .. [2] Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics
       1997.
    .. [3] Wilson, "Probable inference, the law of succession, and statistical
       inference", Journal of the American Statistical Association 1927.
    .. [4] Zou and Donner, "Construction of confidence limits about effect measures",
       Statistics in Medicine 2008.

    Examples
    --------
    >>> from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, ZeroShotClassifier
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.evaluation import evaluate
    >>> phantoms = make_chest_phantoms(200, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> y, patients = phantoms.target[:, 1], phantoms.groups
    >>> zero_shot = ZeroShotClassifier(
    ...     {"effusion": {"positive": "pleural effusion",
    ...                   "negative": "no pleural effusion"}}, model="demo"
    ... ).fit(X)
    >>> table = evaluate({"zero-shot": zero_shot}, X, y, groups=patients)
    >>> table[["label", "metric"]].iloc[0].tolist()
    ['effusion', 'roc_auc']
    >>> known = table.dropna(subset="low")  # a calibration error has no interval
    >>> bool((known["low"] <= known["high"]).all())
    True
    """
    named = estimators if isinstance(estimators, Mapping) else {"estimator": estimators}
    if not named:
        raise ValueError("estimators is empty: pass {name: fitted classifier}.")
    check_resampling(n_bootstrap, level)
    if interval not in ("auto", "bootstrap"):
        raise ValueError(f'interval must be "auto" or "bootstrap", got {interval!r}.')
    wanted = check_metrics(metrics)
    truth = read_truth(y, list(named.values()), X, label=pos_label)
    if pos_label is not None and truth.kind != "binary":
        raise ValueError(
            f"pos_label={pos_label!r} is for two classes; here are {truth.names}."
        )
    n_samples = len(truth.target)
    check_consistent_length(truth.target, groups)
    everybody = {"all": np.ones(n_samples, dtype=bool)}
    members = everybody | subgroup_members(subgroups, n_samples)
    if X_train is not None and not (is_matrix(X) and is_matrix(X_train)):
        raise ValueError(
            "X_train is compared with X where both are embeddings, 2-D arrays of "
            "numbers; for images use model_selection.check_leakage."
        )
    warn_of_leaks(find_leaks("training", X, groups, X_train, groups_train))
    if data_set is not None:
        warn_if_trained_on(data_set)
    if by_patient is not None and (
        by_patient not in ("max", "mean") or groups is None or truth.kind == "classes"
    ):
        raise ValueError(
            'by_patient must be "max" or "mean" and needs groups=, the patient of each '
            "image, and one label or findings; of several classes pass one, such as "
            f'y == "pneumonia". Got by_patient={by_patient!r}.'
        )
    patients = group_numbers(groups, n_samples)
    n_patients = int(patients.max()) + 1
    if min(n_bootstrap, n_patients) < 2:
        warnings.warn(
            f"{n_bootstrap} resamples of {n_patients} patients say nothing of how sure "
            "a figure is: where it takes resamples, or patients, there is no interval.",
            UserWarning,
            stacklevel=2,
        )
    counts = np.ones((1, n_samples), dtype=np.int32)
    if interval == "bootstrap" or set(wanted) - BY_PATIENT:
        drawn = draw_counts(
            n_samples, n_bootstrap, groups=groups, random_state=random_state
        )
        counts = np.vstack([counts, drawn])
    known = None if interval == "bootstrap" else patients

    def judge(question: Question, names: tuple[str, ...]) -> dict[str, Estimate]:
        plain = tuple(one for one in names if not FURTHER.fullmatch(one))
        return estimates(question, counts, plain, known) | further_estimates(
            question, names, patients
        )

    asked = {name: ask(name, one, X, truth) for name, one in named.items()}
    left_out = _labels_of_one_kind(next(iter(asked.values())))
    judged = [(subgroup, chosen, asked) for subgroup, chosen in members.items()]
    if by_patient is not None:
        first = np.isin(np.arange(n_samples), np.unique(patients, return_index=True)[1])
        whole = {
            name: [one.of_patients(patients, by_patient) for one in questions]
            for name, questions in asked.items()
        }
        judged.append((f"patients ({by_patient})", first, whole))
    n_asked = (len(truth.names) + (len(truth.names) > 1)) * len(named) * len(judged)
    measure = partial(_measure, metrics=wanted, truth=truth, left_out=left_out)
    found: list[_Figure] = []
    with progress_bar(n_asked, desc="judging", unit="label", verbose=verbose) as bar:
        for subgroup, chosen, of_name in judged:
            of_estimator = []
            for name, questions in of_name.items():
                measured = measure(name, subgroup, questions, chosen, judge, bar=bar)
                found += measured
                of_estimator.append(measured)
            for a, b in combinations(of_estimator, 2):
                found += _differences(a, b)
    permutation = {"n_draws": n_bootstrap, "random_state": random_state}
    found += _gaps(
        found, members, asked, measure, judge, wanted, truth, patients, permutation
    )
    table = pd.DataFrame([one.row(level) for one in found], columns=list(_COLUMNS))
    is_gap = table["subgroup"].str.endswith(_REST).to_numpy()
    for which in (is_gap, ~is_gap):  # each kind of question by itself
        table.loc[which, "p_holm"] = holm(table["p_value"].to_numpy(float)[which])
    return table


@dataclass(frozen=True, eq=False)
class _Figure:
    """One row to be."""

    estimator: str
    label: Any
    metric: str
    subgroup: str
    estimate: Estimate
    n: int
    n_positive: int
    #: The p-value of a gap, and its note; differences have their interval's.
    tested: tuple[float, str] | None = None
    is_difference: bool = False
    few: int | None = None

    def row(self, level: float) -> tuple[Any, ...]:
        estimate = self.estimate
        low, high, note = estimate.interval(level)
        if self.few is not None and estimate.draws is not None:
            low, high, note = Bounds(np.nan, np.nan, f"{self.few} patients")
        notes = [f"no interval: {note}"] if note else []
        p_value = np.nan
        if self.tested is not None:
            p_value = self.tested[0]
            notes += [self.tested[1]] if self.tested[1] else []
        elif self.is_difference:
            p_value = estimate.p_value()
        drawn = estimate.draws
        n_undefined = 0 if drawn is None else int(np.isnan(drawn).sum())
        asked = self.estimator, self.label, self.metric, self.subgroup
        found = estimate.value, low, high, p_value, np.nan  # Holm's comes at the end
        return *asked, *found, self.n, self.n_positive, n_undefined, "; ".join(notes)


def _measure(
    name: str,
    subgroup: str,
    questions: list[Question],
    chosen: NDArray[np.bool_],
    judge: Judge,
    metrics: tuple[str, ...],
    truth: Truth,
    left_out: set[int],
    bar: Any = None,
) -> list[_Figure]:
    """Return the figures of one estimator on some of the samples."""
    found, each = [], []
    exclusive = truth.kind == "classes"
    names = tuple(dict.fromkeys((*metrics, *(["sensitivity"] if exclusive else []))))
    asked = [question.among(chosen) for question in questions]
    for question in asked:
        of_label = judge(question, names)
        each.append(of_label)
        found += [
            _Figure(name, question.label, metric, subgroup, of_label[metric],
                    len(question.ill), int(question.ill.sum()))
            for metric in metrics
        ]  # fmt: skip
        if bar is not None:
            bar.update(1)
    if len(asked) == 1:
        return found
    whole = [one for k, one in enumerate(each) if k not in left_out]
    pooled = _pool(asked)
    micro = judge(pooled, names)
    with_any = np.unique(pooled.rows[pooled.ill])
    sizes = {
        "macro": (int(chosen.sum()), len(with_any)),
        "micro": (len(pooled.ill), int(pooled.ill.sum())),
    }
    # A mean without one of its parts would be the mean of something else.
    mean = {
        metric: combine([one[metric] for one in whole], [1 / len(whole)] * len(whole))
        if whole
        else combine([micro[metric]], [np.nan])
        for metric in names
    }
    of_all = {"macro": mean, "micro": micro}
    if exclusive:  # one answer an image, as scikit-learn counts it
        same = {
            "accuracy": micro["sensitivity"],
            "balanced_accuracy": mean["sensitivity"],
        }
        if "brier" in metrics:
            same["brier"] = combine([micro["brier"]], [len(asked)])
        of_all = {label: {**one, **same} for label, one in of_all.items()}
    found += [
        _Figure(name, label, metric, subgroup, one[metric], *sizes[label])
        for metric in metrics
        for label, one in of_all.items()
    ]
    if bar is not None:
        bar.update(1)
    return found


def _pool(questions: list[Question]) -> Question:
    """Join the questions of all labels into one."""
    probabilities = [one.probability for one in questions]
    known = [one for one in probabilities if one is not None]
    decisions = [one.decision for one in questions if one.decision is not None]
    return Question(
        "micro",
        np.concatenate([one.rows for one in questions]),
        np.concatenate([one.ill for one in questions]),
        np.concatenate([one.score for one in questions]),
        np.concatenate(decisions) if len(decisions) == len(questions) else None,
        np.concatenate(known) if len(known) == len(questions) else None,
    )


def _differences(a: list[_Figure], b: list[_Figure]) -> list[_Figure]:
    """Return the paired differences of two estimators."""
    return [
        replace(
            one,
            estimator=f"{one.estimator} - {other.estimator}",
            estimate=combine([one.estimate, other.estimate], [1, -1]),
            is_difference=True,
        )
        for one, other in zip(a, b, strict=True)
    ]


def _gaps(
    found: list[_Figure],
    members: Mapping[str, NDArray[np.bool_]],
    asked: Mapping[str, list[Question]],
    measure: Callable[..., list[_Figure]],
    judge: Judge,
    metrics: tuple[str, ...],
    truth: Truth,
    patients: NDArray[np.intp],
    permutation: Mapping[str, Any],
) -> list[_Figure]:
    """Return how each subgroup differs from the rest, for each estimator.

    Not by calibration errors, which are larger of fewer images, whatever they are of;
    nor by figures that patients who change places cannot test.
    """
    metrics = tuple(m for m in metrics if m != "ece" and not FURTHER.fullmatch(m))
    of = {(f.estimator, f.label, f.metric, f.subgroup): f for f in found}
    gaps = []
    for subgroup, chosen in members.items():
        variable = subgroup.partition("=")[0]
        alike = [m for s, m in members.items() if s.startswith(f"{variable}=")]
        known = chosen if subgroup == "all" else np.any(alike, axis=0)
        rest = known & ~chosen
        if not metrics or not rest.any():
            continue
        few = min(len(np.unique(patients[side])) for side in (chosen, rest))
        for name, questions in asked.items():
            by = partial(measure, name, "", metrics=metrics)
            permuted = _permuted_gaps(
                by, questions, truth, chosen, rest, patients, permutation
            )
            for other in by(questions, rest, judge):
                own = of[name, other.label, other.metric, subgroup]
                gap = combine([own.estimate, other.estimate], [1, -1])
                tested = gap_p_value(permuted[other.label, other.metric])
                own = replace(own, subgroup=f"{subgroup}{_REST}", estimate=gap)
                own = replace(own, tested=tested, few=few if few < _FEW else None)
                gaps.append(own)
    return gaps


def _permuted_gaps(
    measure: Callable[..., list[_Figure]],
    questions: list[Question],
    truth: Truth,
    chosen: NDArray[np.bool_],
    rest: NDArray[np.bool_],
    patients: NDArray[np.intp],
    permutation: Mapping[str, Any],
) -> dict[tuple[Any, str], NDArray[np.float64]]:
    """Return each gap as it is, then with patients rearranged."""
    found = {}
    # Of several findings each has a label pattern of its own, their means one of all.
    singly = [[one] for one in questions] if truth.kind == "findings" else []
    for some in [questions, *singly]:
        inside = permuted_members(some, chosen, rest, patients, **permutation)
        sides = [
            measure(some, chosen | rest, lambda q, m, c=counts: estimates(q, c, m))
            for counts in (inside, (chosen | rest) & ~inside)
        ]
        for own, other in zip(*sides, strict=True):
            gap = combine([own.estimate, other.estimate], [1, -1])
            assert gap.draws is not None  # they are not estimated by patient
            found[own.label, own.metric] = np.r_[gap.value, gap.draws]
    return found


def _labels_of_one_kind(questions: list[Question]) -> set[int]:
    single = {
        k for k, one in enumerate(questions) if one.ill.all() or not one.ill.any()
    }
    if single:
        names = ", ".join(repr(str(questions[k].label)) for k in sorted(single))
        warnings.warn(
            f"{names}: images of one kind only. There is no area or sensitivity to "
            'compute, and "macro" is the mean of the others.',
            UserWarning,
            stacklevel=3,
        )
    return single


def subgroup_members(given: Any, n_samples: int) -> dict[str, NDArray[np.bool_]]:
    """Return who is in each subgroup, by ``name=level``."""
    if given is None:
        return {}
    if isinstance(given, pd.DataFrame | Mapping):
        variables = {str(name): pd.Series(given[name]) for name in given}
    else:
        name = getattr(given, "name", None) or "subgroup"
        variables = {str(name): pd.Series(given)}
    found = {}
    for name, values in variables.items():
        if len(values) != n_samples:
            raise ValueError(
                f"subgroups: {name!r} has {len(values)} values for {n_samples} samples."
            )
        levels = _in_order(values)
        if len(levels) > _MAX_LEVELS:
            raise ValueError(
                f"subgroups: {name!r} has {len(levels)} different values. Make bands "
                "first: pd.cut(age, [0, 40, 60, 80, 120])."
            )
        for one in levels:
            found[f"{name}={one}"] = (values == one).to_numpy()
    return found


def _in_order(values: pd.Series) -> list[Any]:
    """Return the levels of a variable: bands by their bounds, all else by name."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        there = set(values.dropna())
        return [one for one in values.cat.categories if one in there]
    levels = values.dropna().unique().tolist()
    try:
        return sorted(levels)
    except TypeError:
        return sorted(levels, key=str)
