"""``evaluate``: metrics of classifiers on a test set, with intervals by patient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length

from sk_medsiglip._intervals import Estimate, holm
from sk_medsiglip._progress import progress_bar
from sk_medsiglip._resampling import check_resampling
from sk_medsiglip._splits import group_numbers
from sk_medsiglip.evaluation._answers import Question, Truth, ask, read_truth
from sk_medsiglip.evaluation._figures import (
    BY_PATIENT,
    check_metrics,
    estimates,
    resamples,
)
from sk_medsiglip.evaluation._judged import (
    REST,
    Figure,
    Measure,
    differences,
    gaps,
    labels_of_one_kind,
)
from sk_medsiglip.evaluation._leaks import (
    find_embedder,
    find_leaks,
    is_embedded,
    warn_of_leaks,
)
from sk_medsiglip.evaluation._published import warn_if_trained_on

_COLUMNS = (
    *("estimator", "label", "metric", "subgroup", "value", "low", "high"),
    *("p_value", "p_holm", "n", "n_positive", "n_undefined", "note"),
)
_MAX_LEVELS = 20


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
    """Evaluate fitted classifiers, with intervals, differences and subgroups.

    Parameters
    ----------
    estimators : dict or estimator
        ``{name: fitted classifier}``. Scores for ``X`` can take the place of a
        classifier: those of the positive class, of each class, or of each finding.
    X : array-like or list of n_samples images
        The test set, as the classifiers take it.
    y : array-like of shape (n_samples,) or (n_samples, n_findings)
        True classes; or 1, 0, and NaN where a finding is not known.
    groups : array-like of shape (n_samples,), default=None
        Patients, who are the unit of intervals and tests. Without them every row counts
        as a patient, and intervals are too narrow if patients have several images.
    subgroups : dict, DataFrame or array-like, default=None
        ``{name: values}``, such as age band, sex, scanner or site, with one value per
        row. Rows with a missing value belong to no subgroup of that variable.
    metrics : str or list of str, default=None
        Names of the metrics:

        - by default "roc_auc", "average_precision", "sensitivity@specificity=0.9" (at
          any level) and the reverse, "balanced_accuracy", "f1", "brier",
          "calibration_slope", "calibration_intercept" and "ece";
        - for predicted classes "accuracy", "sensitivity", "specificity", "ppv", "npv",
          "true_positives", "false_positives", "true_negatives" and "false_negatives";
        - "ppv@prevalence=0.02" and "npv@prevalence=0.02", the predictive values at
          another prevalence of the finding;
        - "net_benefit@threshold=0.1", the net benefit of acting on probabilities of at
          least the threshold.
    pos_label : default=None
        The positive one of two classes. By default, the second in sorted order.
    interval : {"auto", "bootstrap"}, default="auto"
        "auto" uses for each metric the method with the most reliable coverage for few
        patients (see Notes). "bootstrap" uses resamples for shares and areas too.
    n_bootstrap : int, default=2000
        Number of resamples, and of permutations that test a gap.
    level : float, default=0.95
        Confidence level of the intervals, for example 0.95.
    random_state : int, default=0
        Seed of the random number generator.
    X_train, groups_train : default=None
        Embeddings and patients of the training data, which are searched for patients
        and (nearly) identical images of the test set. Ids are compared by value: 7
        equals "7" and 7.0. A warning names ids that may be equal ("007"), are missing,
        or are of another type.
    data_set : str, default=None
        Public data set of ``X``, compared with :func:`known_training_data`.
    by_patient : {"max", "mean"}, default=None
        Whether to add metrics of whole patients to those of images, as subgroup
        "patients (max)" or "patients (mean)". A patient has a finding if any image
        with a known label has it. With "max" the highest score of the images counts
        and one flagged image flags the patient; with "mean" the mean score counts and
        more than half of the images must be flagged.
    verbose : int, default=0
        Verbosity. Values above 0 show a progress bar.

    Returns
    -------
    DataFrame
        One row per metric, label, estimator and subgroup, with the columns

        - ``estimator``: a name; "a - b" is the difference of two;
        - ``label``: a class (against the rest) or finding, or of several "macro",
          their mean, and "micro", all pooled;
        - ``metric``: the metric;
        - ``subgroup``: "all"; "sex=F"; "sex=F - rest", the gap between a subgroup and
          the others; "patients (max)", if asked for;
        - ``value``, ``low``, ``high``: the value and its interval;
        - ``p_value``: two-sided p-value of a difference or gap;
        - ``p_holm``: the p-value corrected by Holm's method for all differences, or all
          gaps, of the table;
        - ``n``, ``n_positive``: number of images, and of those with the label. For
          "macro" these are the images with any label; for "micro" answers are counted
          instead of images;
        - ``n_undefined``: number of resamples without a value, such as an area when
          nobody has the label. The interval leaves them out;
        - ``note``: the reason for a missing interval or p-value; for a gap, the size
          of a true gap that would be found half of the time.

    Raises
    ------
    ValueError
        If ``y`` holds a class that no classifier knows, or if lengths differ.

    Warns
    -----
    LeakageWarning
        If the training data hold patients or images of the test set, or if not all
        patients could be compared. For nearly identical images the warning gives the
        number expected by chance, which needs ``groups_train``.
    UserWarning
        If all images of a label are of one kind, or none has a known label: it is left
        out of "macro". If there is only one patient, or one resample. If the name of
        the positive class is the absence of the other ("no effusion").

    See Also
    --------
    published_results : Results of the model card, in the same columns.
    choose_operating_point : Choose a threshold for a required sensitivity.

    Notes
    -----
    **Intervals** are by patient. ``benchmarks/coverage.py`` measures their coverage.

    - "roc_auc": Newcombe's interval [1]_ with counts of patients, widened if
      Obuchowski's variance [2]_ is larger. An area of 1 or 0 has the exact bound of the
      smaller side.
    - Shares ("sensitivity", "specificity", "ppv", "npv", "accuracy"): Wilson's interval
      [3]_ with the effective number of patients and Student's t distribution. A share
      of 1 or 0 has the exact bound of that number. "f1" follows from the share of true
      positives among all images that are flagged or have the label.
    - "balanced_accuracy", "macro" and differences: MOVER [4]_, which combines the
      intervals of the parts and their correlation over patients. The p-value of a
      difference is the level at which its interval reaches 0. For areas it is more
      cautious than :func:`delong_test`, whose intervals covered the true value in as
      few as .68 of data sets with three to five positive patients.
    - "net_benefit", and "ppv" and "npv" at a prevalence: MOVER of the shares from which
      they are computed (:func:`net_benefit`). The prevalence is taken as known.
    - "calibration_slope" and "calibration_intercept": Student's t distribution, with
      the patients of the smaller side minus one as degrees of freedom, and a variance
      that leaves out each patient in turn. These, counts and net benefit have no gaps.
    - "ece" and counts: none. A calibration error is larger in resamples.
    - All other metrics: percentiles over resamples of patients, the same resamples for
      all. There is no interval if all values are equal, or if there are fewer than
      ``2 / (1 - level)``.

    **Gaps** between a subgroup and the others have a p-value and an interval, which are
    computed separately and may disagree. The null hypothesis is that images *with the
    same label* are alike inside and outside the subgroup. Patients are permuted between
    the two within their label pattern (whether they have images with the label, and
    images without); single images are permuted for patients on both sides. The p-value
    is the share of permutations with a gap at least as large. It is exact if there are
    few permutations, and NaN if none could be below .05. The test keeps its size in
    groups of three patients; if areas are equal but positive scores vary more in the
    subgroup, up to .12 of gaps are found at .05. A gap of AUC .95 against .80 is found
    in about .2, .3 and .5 of data sets with three, ten and forty of 120 patients in
    the subgroup, so the absence of a finding is not evidence of equality. The interval
    is MOVER's. Resampled gaps have none below 100 patients a side, where it covered the
    true value in as few as .47 of data sets.

    "sensitivity@specificity" chooses the threshold on the test set, and anew in each
    resample. It is a point of the ROC curve that may not be reached on new images; see
    :func:`choose_operating_point`. For exclusive classes, macro and micro "accuracy",
    "balanced_accuracy" and "brier" equal ``accuracy_score``,
    ``balanced_accuracy_score`` and ``brier_score_loss`` of scikit-learn. Scores outside
    [0, 1] are not thresholded, and metrics of decisions are NaN.

    "ece" has 15 bins. Its bias shrinks with the number of images, so it has no interval
    and no p-value, and is not compared between subgroups. Ideal are a slope of 1 and an
    intercept of 0. A slope below 1 means that probabilities are too extreme, and an
    intercept above 0 that the label is more frequent than predicted. Probabilities of 0
    and 1 are moved by 1e-7.

    2,000 resamples of the areas of 14 findings in 5,000 images take seconds.

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
    >>> known = table.dropna(subset="low")  # the calibration error has no interval
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
    truth = read_truth(y, list(named.values()), X, pos_label=pos_label)
    n_samples = len(truth.target)
    check_consistent_length(truth.target, groups)
    members = subgroup_members(subgroups, n_samples)
    embedder = find_embedder(named.values())
    if X_train is not None and not (
        is_embedded(X, embedder) and is_embedded(X_train, embedder)
    ):
        raise ValueError(
            "X_train can be compared with X only if both are embeddings (2-D arrays of "
            "numbers) or bags of them; for images use model_selection.check_leakage."
        )
    warn_of_leaks(find_leaks("training", X, groups, X_train, groups_train))
    if data_set is not None:
        warn_if_trained_on(data_set)
    if by_patient is not None and (
        by_patient not in ("max", "mean") or groups is None or truth.kind == "classes"
    ):
        raise ValueError(
            'by_patient must be "max" or "mean". It needs groups=, the patient of each '
            "image, and labels of two classes or of findings; for several classes pass "
            f'one of them, such as y == "pneumonia". Got by_patient={by_patient!r}.'
        )
    asked = {name: ask(name, one, X, truth) for name, one in named.items()}
    return tabulate(
        asked,
        truth,
        wanted,
        members,
        groups=groups,
        by_patient=by_patient,
        interval=interval,
        n_bootstrap=n_bootstrap,
        level=level,
        random_state=random_state,
        verbose=verbose,
    )


def tabulate(
    asked: Mapping[str, list[Question]],
    truth: Truth,
    metrics: tuple[str, ...],
    members: Mapping[str, NDArray[np.bool_]],
    *,
    groups: ArrayLike | None,
    n_bootstrap: int,
    level: float,
    random_state: int,
    interval: str = "auto",
    by_patient: str | None = None,
    verbose: int | bool = 0,
) -> pd.DataFrame:
    """Return the table of :func:`evaluate`, given answers and subgroup members."""
    n_samples = len(truth.target)
    patients = group_numbers(groups, n_samples)
    n_patients = int(patients.max()) + 1
    if min(n_bootstrap, n_patients) < 2:
        warnings.warn(
            f"{n_bootstrap} resamples of {n_patients} patients cannot show how "
            "uncertain a value is: metrics that need several of them have no interval.",
            UserWarning,
            stacklevel=3,
        )
    counts = np.ones((1, n_samples), dtype=np.int32)
    if interval == "bootstrap" or set(metrics) - BY_PATIENT:
        counts = resamples(n_samples, groups, n_bootstrap, level, random_state)

    def judge(question: Question, names: tuple[str, ...]) -> dict[str, Estimate]:
        by_resamples = interval == "bootstrap"
        return estimates(question, counts, names, patients, resampled=by_resamples)

    measure = Measure(metrics, truth, labels_of_one_kind(next(iter(asked.values()))))
    members = {"all": np.ones(n_samples, dtype=bool), **members}
    judged = [(subgroup, chosen, asked) for subgroup, chosen in members.items()]
    if by_patient is not None:
        first = np.isin(np.arange(n_samples), np.unique(patients, return_index=True)[1])
        whole = {
            name: [one.of_patients(patients, by_patient) for one in questions]
            for name, questions in asked.items()
        }
        judged.append((f"patients ({by_patient})", first, whole))
    found: list[Figure] = []
    n_asked = (len(truth.names) + (len(truth.names) > 1)) * len(asked) * len(judged)
    with progress_bar(n_asked, desc="judging", unit="label", verbose=verbose) as bar:

        def judge_one(question: Question, names: tuple[str, ...]) -> dict[str, Any]:
            bar.update(1)
            return judge(question, names)

        for subgroup, chosen, of_name in judged:
            of_estimator = [
                measure(name, subgroup, questions, chosen, judge_one)
                for name, questions in of_name.items()
            ]
            found += chain.from_iterable(of_estimator)
            for a, b in combinations(of_estimator, 2):
                found += differences(a, b)
    permutation = {"n_draws": n_bootstrap, "random_state": random_state}
    found += gaps(found, members, asked, measure, judge, patients, permutation)
    table = pd.DataFrame([one.row(level) for one in found], columns=list(_COLUMNS))
    is_gap = table["subgroup"].str.endswith(REST).to_numpy()
    for which in (is_gap, ~is_gap):  # gaps and differences are separate families
        table.loc[which, "p_holm"] = holm(table["p_value"].to_numpy(float)[which])
    return table


def subgroup_members(given: Any, n_samples: int) -> dict[str, NDArray[np.bool_]]:
    """Return the members of each subgroup; the keys are ``name=level``."""
    if given is None:
        return {}
    if not isinstance(given, pd.DataFrame | Mapping):
        given = {getattr(given, "name", None) or "subgroup": given}
    variables = {str(name): pd.Series(given[name]) for name in given}
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
    """Return the levels of a variable, categories in their order and others sorted."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        there = set(values.dropna())
        return [one for one in values.cat.categories if one in there]
    levels = values.dropna().unique().tolist()
    try:
        return sorted(levels)
    except TypeError:
        return sorted(levels, key=str)
