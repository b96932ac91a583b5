"""``HeadSearchCV``: which head, with which settings, on embeddings computed once."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.metrics import get_scorer_names
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, check_random_state, get_tags
from sklearn.utils.validation import _check_sample_weight

from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._labels import Labels, check_labels
from sk_medsiglip._optional import import_optional
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._splits import check_groups
from sk_medsiglip._validation import (
    HasMethods,
    Integral,
    Interval,
    Real,
    StrOptions,
    _fit_context,
)
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import plain_rows
from sk_medsiglip.model_selection._best_head import BestHead
from sk_medsiglip.model_selection._head_scores import needs_probabilities

_PROMPT_SIDE = ("templates", "model", "revision", "cache")


class HeadSearchCV(VersionedPickle, BestHead):
    """Choose a head, its preprocessing and its settings by cross-validation.

    The first trial is :class:`~sk_medsiglip.LinearProbe`; another head takes its place
    only where it is better by more than chance. Trials are drawn by Optuna, given up
    fold by fold where they are hopeless, and may be shared by processes and continued
    later. Images are embedded once, before all trials.

    Parameters
    ----------
    estimator : classifier or None, default=None
        The classifier to tune by a dict as ``space``; None chooses among heads.
    space : None, list of str, dict or callable, default=None
        The heads to choose from, by default all: "logistic", "prototypes", with
        ``prompts`` "prompt_probe", "ss_text" and "tip_adapter", then "knn", "svm",
        "boosting", "mlp"; the plainer one, which stands first, wins a tie. Or
        ``{parameter: values}`` of ``estimator``, a list or an Optuna distribution each;
        or a function of a trial that returns a classifier.
    embedder : MedSigLIPEmbedder or None, default=None
        With one, ``X`` is images, and ``best_estimator_`` a pipeline that takes
        images. None takes embeddings, 2-D.
    prompts : dict, ZeroShotClassifier or None, default=None
        As the heads that know prompts take them; None leaves those heads out.
    templates, model, revision, cache
        The settings of the prompts, as in :class:`~sk_medsiglip.PromptProbe`; with an
        ``embedder`` give the same model to both.
    n_trials : int, default=50
        Trials in all: with ``storage`` over all processes and stops, so that a second
        ``fit`` runs only those that are left.
    timeout : float or None, default=None
        Seconds after which no trial begins.
    scoring : str, callable or None, default=None
        The score to maximise: a name or scorer of scikit-learn's. None is the area
        under the ROC curve, of several classes the mean of each against the rest. With
        several labels it is the mean over the labels, each scored where it is known.
    cv : int, splitter or iterable, default=5
        Folds. A number is stratified, keeps ``groups`` together, and shrinks where
        classes are rare; of several labels each is spread evenly.
    refit : bool, default=True
        Fit the best on all rows.
    n_jobs : int or None, default=None
        Processes; None is 1. Each loads the libraries anew (seconds), so that more than
        one pays when trials take seconds; results then depend on which is first.
    sampler, pruner : optuna sampler and pruner, or None, default=None
        None is a tree-structured Parzen estimator after a trial of each head at usual
        settings, and the median rule after two folds.
    storage : str, path-like or None, default=None
        SQLite file (.db, .sqlite), journal (.journal, .log), or a URL of Optuna's,
        where trials are kept. See Notes.
    study_name : str, default="head-search"
        In the storage, which may hold several.
    callbacks : iterable of callable, default=()
        Called after each trial with the study and the trial, in the process that ran
        it.
    error_score : "raise" or float, default=nan
        Value of a trial that raises an error, or "raise" to end the search. NaN is
        worse than all others.
    random_state : int, RandomState or None, default=None
        Same number, same results, with ``n_jobs=1``. None draws one, and is 0 with
        ``storage``.
    verbose : int, default=0
        1 shows a progress bar, 2 also the log of Optuna.

    Attributes
    ----------
    best_estimator_ : estimator
        Fitted on all rows; with ``embedder`` a pipeline that takes images.
    best_params_ : dict
        Settings of the trial that was taken, named by their head: "svm_C".
    best_score_ : float
        Its mean over folds. The best of many is too good on average: see Notes.
    best_index_ : int
        Its row in ``cv_results_``. Its rank need not be 1, see Notes.
    search_report_ : str
        A sentence that says which trial was taken, and why.
    cv_results_ : dict of arrays
        As scikit-learn's searches have it: one row a trial; and ``trial``, its number,
        ``state``, "complete", "pruned" or "failed"; and ``mean_test_log_loss``, which
        decides between equal scores. Scores of folds that were not
        reached are NaN, as is the mean then, and the rank is the last.
    study_ : optuna.Study
        The study, in memory: for ``optuna.visualization`` and its importances.
    scorer_ : callable
        The scorer that ``scoring`` stands for.
    n_splits_ : int
        Folds.
    refit_time_ : float
        Seconds of the last fit.
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    label_names_ : ndarray of shape (n_labels,)
        Names of the columns of ``y``, where it is a DataFrame of several labels.
    multimetric_ : bool
        False, always.
    n_features_in_ : int
        Width of the embeddings; absent with ``embedder``.

    See Also
    --------
    LinearProbe : Logistic regression that chooses its penalty: seconds, and hard to
        beat.

    Notes
    -----
    The first trial is ``LinearProbe`` as it is, where "logistic" is among the heads.
    The best of the other trials is compared with it on the rows that each fold left
    out, by patient where ``groups`` are given, else by row, and takes its place only
    where it is better by more than the standard error of the difference (a jackknife
    over 25 parts of the patients). Equal scores are decided by log loss, then by the
    order of the heads. For a ``space`` of your own the best score is taken.

    Steps before a head (standardising, PCA) are fitted on the training rows of each
    fold, and "logistic" chooses its penalty within these. A setting that was drawn
    before costs nothing.

    An SVM has no probabilities: it is left out where ``scoring`` needs them, and where
    you do, list the other heads.

    Every head learns each of several labels on the rows where it is known; other
    classifiers do so in an :class:`EachLabel`, unless they are for several labels
    only, as ``MultiOutputClassifier``.

    ``storage``: processes that are given the same search share trials, and no number
    runs twice. Each ends when there are enough, and does not wait for trials that the
    others still run, so there may be some trials more. On a database a trial whose
    process died is run again after a minute; in journals, for network disks, another
    takes its place. A study of other data, folds, scoring, space or seed is refused.

    ``best_score_`` is a maximum and so too good, the more so the fewer labels. To
    estimate how good the search is on new patients, cross-validate it, as any
    classifier.

    Not a subclass of scikit-learn's ``BaseSearchCV``: that one is about one estimator,
    fits whole folds at once, and refuses labels that are not known. Its attributes are
    here all the same.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.model_selection import HeadSearchCV
    >>> phantoms = make_chest_phantoms(60, random_state=0)
    >>> X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    >>> search = HeadSearchCV(space=["logistic", "knn"], n_trials=4, random_state=0)
    >>> search = search.fit(X, phantoms.target[:, 1], groups=phantoms.groups)
    >>> search.best_params_["head"]
    'logistic'
    >>> search.predict_proba(X).shape
    (60, 2)
    """

    # scikit-learn's routing reads it: groups are asked for unless told otherwise.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"groups": True}

    _parameter_constraints: dict[str, Any] = {
        "estimator": "no_validation",
        "space": "no_validation",
        "embedder": [HasMethods(["fit", "transform", "get_params"]), None],
        "prompts": [Mapping, HasMethods(["get_params"]), None],
        "templates": "no_validation",
        "model": [str, os.PathLike],
        "revision": [str, None],
        "cache": ["boolean", str, os.PathLike, EmbeddingCache],
        "n_trials": [Interval(Integral, 1, None, closed="left")],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "cv": ["cv_object"],
        "refit": ["boolean"],
        "n_jobs": [Integral, None],
        "sampler": "no_validation",
        "pruner": "no_validation",
        "storage": [str, os.PathLike, None],
        "study_name": [str],
        "callbacks": "no_validation",
        "error_score": [StrOptions({"raise"}), Real],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        space: Sequence[str] | Mapping[str, Any] | Callable[[Any], Any] | None = None,
        embedder: Any = None,
        prompts: Any = None,
        templates: str | Sequence[str] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        n_trials: int = 50,
        timeout: float | None = None,
        scoring: str | Callable[..., float] | None = None,
        cv: Any = 5,
        refit: bool = True,
        n_jobs: int | None = None,
        sampler: Any = None,
        pruner: Any = None,
        storage: str | os.PathLike[str] | None = None,
        study_name: str = "head-search",
        callbacks: Iterable[Callable[[Any, Any], None]] = (),
        error_score: float | str = np.nan,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.space = space
        self.embedder = embedder
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.cache = cache
        self.n_trials = n_trials
        self.timeout = timeout
        self.scoring = scoring
        self.cv = cv
        self.refit = refit
        self.n_jobs = n_jobs
        self.sampler = sampler
        self.pruner = pruner
        self.storage = storage
        self.study_name = study_name
        self.callbacks = callbacks
        self.error_score = error_score
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Search, and fit the best on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), or images
            Embeddings; with ``embedder`` its input.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes; or 1 and 0 of one label or of several, NaN where it is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for heads and scores; steps before a head do not see
            them. Heads that take none, such as "knn", are left out unless listed.
        groups : array-like of shape (n_samples,), default=None
            Patients: they are never on both sides of a fold, nor of the inner folds of
            this package's heads. Inner folds of an estimator of your own keep them
            together where its splitter asks for groups, as in
            ``GridSearchCV(..., cv=GroupKFold(5))``; with ``cv=5`` they do not.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` cannot be split, ``space`` is none, no trial could be scored, or
            the ``storage`` holds a search of something else.
        MissingDependencyError
            If Optuna is not installed.
        """
        import_optional("optuna", extra="tune", purpose="HeadSearchCV")
        # Late, since these need Optuna.
        from sk_medsiglip.model_selection._head_space import Facts, make_space
        from sk_medsiglip.model_selection._head_trials import (
            Objective,
            quiet_heads,
            split_rows,
        )

        rows, embedder = self._embed(X)
        labels = check_labels(self, rows, y, blanks=True)
        patients = None if groups is None else check_groups(groups, len(rows))
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        counts = labels.counted(weight)
        kept = labels if counts.all() else labels.keep(counts)
        self.classes_ = kept.classes_attribute
        if kept.names is not None:
            self.label_names_ = kept.names
        folds = split_rows(labels, self.cv, patients, rows, counts)
        self.n_splits_ = len(folds)
        self.multimetric_ = False
        seed = self._seed()
        n_train = min(len(train) for train, _ in folds)
        several = kept.classes is None
        facts = Facts(n_train, rows.shape[1], several, seed, self._prompt_settings())
        left_out = {"svm"} if needs_probabilities(self.scorer_) else set()
        left_out |= {"knn"} if sample_weight is not None else set()
        objective = Objective(
            rows,
            _as_fitted(kept, counts),
            patients,
            None if sample_weight is None else weight,
            np.flatnonzero(counts),
            folds,
            self.scorer_,
            make_space(self.space, self.estimator, facts, left_out),
            self.error_score,
        )
        trial = self._search(objective, seed)
        if self.refit:
            start = time.perf_counter()
            with quiet_heads(objective.space):
                best = objective.fit(objective.make(trial), objective.rows)
            self.refit_time_ = time.perf_counter() - start
            self.best_estimator_ = best if embedder is None else _joined(embedder, best)
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        if self.estimator is not None:
            inner = get_tags(self.estimator)
            tags.classifier_tags = inner.classifier_tags
            tags.classifier_tags.multi_label = True
            tags.target_tags.single_output = inner.target_tags.single_output
        if self.embedder is not None:
            tags.input_tags = get_tags(self.embedder).input_tags
        return tags

    def _embed(self, X: Any) -> tuple[NDArray[np.floating], Any]:
        """Return checked embeddings, and the embedder that made them."""
        if self.embedder is None:
            return check_embeddings(self, X), None
        embedder = clone(self.embedder)
        rows = plain_rows(embedder.fit(X), X)
        unreadable = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if unreadable.size:
            raise ValueError(
                f"{unreadable.size} images could not be read (rows "
                f"{unreadable[:5].tolist()}): leave them out of X and y, or see "
                "sk_medsiglip.images.check_images(X)."
            )
        return rows, embedder

    def _seed(self) -> int:
        shared = self.random_state is None and self.storage is not None
        rng = check_random_state(0 if shared else self.random_state)
        return int(rng.randint(np.iinfo(np.int32).max))

    def _prompt_settings(self) -> dict[str, Any]:
        if self.prompts is None:
            return {}
        settings = {name: getattr(self, name) for name in _PROMPT_SIDE}
        return {"prompts": self.prompts, **settings}

    def _search(self, objective: Any, seed: int) -> Any:
        """Run the trials, and return the one that is chosen."""
        from sk_medsiglip.model_selection import _head_study as studies
        from sk_medsiglip.model_selection._head_trials import choose, quiet_heads

        n_jobs = effective_n_jobs(self.n_jobs)
        quiet = studies.quiet_optuna(self.verbose)
        with tempfile.TemporaryDirectory() as folder, quiet:
            where = None if self.storage is None else os.fspath(self.storage)
            if where is None and n_jobs > 1:
                where = str(Path(folder, "trials.journal"))
            sampler, pruner = copy.deepcopy((self.sampler, self.pruner))
            study = studies.open_study(where, self.study_name, seed, sampler, pruner)
            studies.begin(study, objective, self.scoring, seed)
            run = delayed(studies.run_trials)
            settings = self.n_trials, self.timeout, list(self.callbacks), self.verbose
            Parallel(n_jobs)(
                run(study, objective, *settings, worker) for worker in range(n_jobs)
            )
            self.study_ = studies.detached(study)
        trials = studies.counted(self.study_.trials)[: self.n_trials]
        self.cv_results_ = studies.cv_results(trials, self.n_splits_)
        studies.check_some_scored(trials, self.error_score, self.timeout)
        with quiet_heads(objective.space):
            chosen = choose(trials, self.cv_results_, objective)
        self.best_index_, self.search_report_ = chosen
        self.best_score_ = float(self.cv_results_["mean_test_score"][self.best_index_])
        self.best_params_ = self.cv_results_["params"][self.best_index_]
        return trials[self.best_index_]


def _as_fitted(labels: Labels, counts: NDArray[np.bool_]) -> Any:
    """Return labels as heads take them, of all rows; any value where none counts."""
    shape = (len(counts), *labels.target.shape[1:])
    target = np.zeros(shape, dtype=labels.target.dtype)
    target[counts] = labels.target
    if labels.classes is not None:
        return labels.classes[target]
    if not np.isnan(target).any():
        target = target.astype(int)
    if labels.names is not None:
        return pd.DataFrame(target, columns=labels.names)
    return target


def _joined(embedder: Any, best: Any) -> Pipeline:
    """Return one pipeline from images to answers."""
    steps = best.steps if isinstance(best, Pipeline) else [("head", best)]
    if hasattr(embedder, "set_output"):  # the head learned from an array
        embedder.set_output(transform="default")
    return Pipeline([("embedder", embedder), *steps])
