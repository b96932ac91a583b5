"""``HeadSearchCV``: which head, with which settings, on embeddings computed once."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import get_scorer_names
from sklearn.utils import Tags, _safe_indexing, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
)

from sk_medsiglip._embeddings import check_embeddings
from sk_medsiglip._labels import Labels, check_columns, check_labels, known_labels
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
from sk_medsiglip._warning import quiet_logger
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.heads import LinearProbe
from sk_medsiglip.model_selection._head_scores import check_scorer


def _best_has(method: str) -> Callable[[HeadSearchCV], bool]:
    """Return a check for a method; before ``fit`` the first head answers it."""
    return lambda self: hasattr(getattr(self, "best_estimator_", LinearProbe), method)


class HeadSearchCV(VersionedPickle, ClassifierMixin, BaseEstimator):
    """Choose a head, its preprocessing and its settings by cross-validation.

    The first trial is :class:`~sk_medsiglip.LinearProbe`; another head replaces it only
    if it is better by more than chance. Optuna draws the trials; a later call can
    continue them.

    Parameters
    ----------
    space : list of str or None, default=None
        The heads to choose from: "logistic", "prototypes", with ``prompts`` also
        "prompt_probe", "ss_text" and "tip_adapter", then "knn", "svm", "boosting" and
        "mlp". The plainer head, which comes first here, wins a tie. By default, all of
        them.
    prompts : dict, ZeroShotClassifier or None, default=None
        Prompts for the heads that start from prompts. By default, these heads are left
        out.
    templates, model, revision, cache
        Settings of the prompts, as in :class:`~sk_medsiglip.PromptProbe`.
    n_trials : int, default=50
        Number of trials. With ``storage`` those of all processes and of earlier calls
        count, so that a second ``fit`` runs only those that are left.
    timeout : float or None, default=None
        Seconds after which no further trial begins.
    scoring : str, callable or None, default=None
        The score to maximise: a name or a scorer of scikit-learn. By default, the area
        under the ROC curve; of several classes the mean of each against the rest. With
        several labels it is the mean over the labels, each scored where it is known.
    cv : int, splitter or iterable, default=5
        Folds. A number of folds is stratified, keeps ``groups`` together, and shrinks
        where a class is rare. Several labels are each spread evenly.
    n_jobs : int or None, default=None
        Number of folds that are fitted at the same time; None is 1. The results do not
        depend on it.
    storage : str, path-like or None, default=None
        Where trials are kept: an SQLite file (.db, .sqlite), a journal (any other
        name), or the URL of a database as Optuna takes it. See Notes.
    random_state : int, RandomState or None, default=None
        Seed of the random number generator. With ``storage`` it is the seed of the
        heads only, by default 0, since processes that share trials must draw different
        ones.
    verbose : int, default=0
        Level of verbosity: 1 shows a progress bar.

    Attributes
    ----------
    best_estimator_ : estimator
        The chosen classifier, fitted on all rows.
    best_params_ : dict
        Settings of the chosen trial, named after their head, such as "svm_C".
    best_score_ : float
        Its mean score over the folds, which is too good on average: see Notes.
    best_index_ : int
        Its row in ``cv_results_``. Its rank need not be 1, see Notes.
    search_report_ : str
        A sentence that says which trial was chosen, and why.
    cv_results_ : dict of arrays
        Results of the trials, one row each, as in scikit-learn's searches, and
        ``trial``, its number, ``state``, "complete" or "failed", and
        ``mean_test_log_loss``. A trial that raised an error has NaN and ranks last.
    study_ : optuna.Study
        A copy of the study in memory, for example for ``optuna.visualization``.
    scorer_ : callable
        The scorer that ``scoring`` stands for.
    n_splits_ : int
        Number of folds.
    classes_ : ndarray of shape (n_classes,) or (n_labels, 2)
        Sorted classes; for several labels a row ``[0, 1]`` each.
    label_names_ : ndarray of shape (n_labels,)
        Names of the columns of ``y``, if it is a DataFrame of several labels.
    n_features_in_ : int
        Width of the embeddings.

    See Also
    --------
    LinearProbe : Logistic regression that chooses its penalty in seconds, and is hard
        to beat.

    Notes
    -----
    The first trial is ``LinearProbe`` as it is, if "logistic" is among the heads. The
    best of the other trials is compared with it on the rows that each fold left out,
    by patient if ``groups`` are given, else by row. It is taken only if it is better by
    more than the standard error of the difference (a jackknife over 25 parts of the
    patients). Equal scores are decided by log loss, then by the order of the heads.

    Standardising and PCA are fitted on the training rows of each fold, and "logistic"
    chooses its penalty within these. Each of several labels is learned on the rows
    where it is known; the heads of scikit-learn are fitted to each label by an
    :class:`EachLabel`. An SVM has no probabilities: it is tried by default only for
    the default score of two classes or of several labels.

    Processes that are given the same search and ``storage`` share its trials. Each
    ends when there are enough, so there may be a few more. A trial whose process died
    is not run again; another one takes its place. A search of other data or settings
    is refused. A ``scoring`` of your own must then be a function of a module.

    ``best_score_`` is a maximum and therefore too good, the more so the fewer labels:
    cross-validate the search to estimate the performance on new patients. For images,
    put it behind a :class:`~sk_medsiglip.MedSigLIPEmbedder` in a pipeline. To tune a
    classifier of your own use ``RandomizedSearchCV``, with an :class:`EachLabel` around
    it for several labels with blanks.

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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "space": ["array-like", None],
        "prompts": [Mapping, HasMethods(["get_params"]), None],
        "templates": "no_validation",
        "model": [str, os.PathLike],
        "revision": [str, None],
        "cache": ["boolean", str, os.PathLike, EmbeddingCache],
        "n_trials": [Interval(Integral, 1, None, closed="left")],
        "timeout": [Interval(Real, 0, None, closed="neither"), None],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "cv": ["cv_object"],
        "n_jobs": [Integral, None],
        "storage": [str, os.PathLike, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        space: Sequence[str] | None = None,
        *,
        prompts: Any = None,
        templates: str | Sequence[str] | None = None,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        revision: str | None = None,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        n_trials: int = 50,
        timeout: float | None = None,
        scoring: str | Callable[..., float] | None = None,
        cv: Any = 5,
        n_jobs: int | None = None,
        storage: str | os.PathLike[str] | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.space = space
        self.prompts = prompts
        self.templates = templates
        self.model = model
        self.revision = revision
        self.cache = cache
        self.n_trials = n_trials
        self.timeout = timeout
        self.scoring = scoring
        self.cv = cv
        self.n_jobs = n_jobs
        self.storage = storage
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Search, and fit the chosen classifier on all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            Classes; or 1 and 0 of one label or of several, NaN where it is not known.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for heads and scores; steps before a head do not see
            them. "knn", which takes no weights, is left out unless listed.
        groups : array-like of shape (n_samples,), default=None
            Patients: they are never on both sides of a fold, nor of the folds by which
            a head chooses its penalty.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``y`` cannot be split, ``space`` names unknown heads, no trial could be
            scored, or the ``storage`` holds a search of something else.
        MissingDependencyError
            If Optuna is not installed.
        """
        import_optional("optuna", extra="tune", purpose="HeadSearchCV")
        # Late, since it needs Optuna.
        from sk_medsiglip.model_selection import _head_trials as trials

        rows = check_embeddings(self, X)
        labels = check_labels(self, rows, y, blanks=True)
        patients = None if groups is None else check_groups(groups, len(rows))
        weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
        counts = labels.counted(weight)
        folds = trials.split_rows(labels, counts, self.cv, patients, rows)
        known = labels.keep(counts)
        self.classes_ = known.classes_attribute
        if known.names is not None:
            self.label_names_ = known.names
        self.n_splits_ = len(folds)
        seed = self._seed()
        objective = trials.Objective(
            X=rows if counts.all() else rows[counts],
            y=trials.as_fitted(known),
            groups=None if patients is None else patients[counts],
            weight=None if sample_weight is None else weight[counts],
            folds=folds,
            scorer=self.scorer_,
            space=self._make_space(known, folds, sample_weight is not None, seed),
            n_jobs=self.n_jobs,
        )
        self.best_estimator_ = objective.fit(self._search(objective, seed))
        return self

    @property
    def scorer_(self) -> Callable[..., float]:
        """The scorer that ``scoring`` stands for."""
        check_is_fitted(self, "classes_")
        classes = None if np.ndim(self.classes_) == 2 else self.classes_
        return check_scorer(self.scoring, classes)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest classes, as the best estimator does."""
        return self._ask("predict", X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return probabilities, as the best estimator does."""
        return self._ask("predict_proba", X)

    @available_if(_best_has("predict_log_proba"))
    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return logarithms of probabilities, as the best estimator does."""
        return self._ask("predict_log_proba", X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: ArrayLike) -> NDArray[np.floating]:
        """Return scores, as the best estimator does."""
        return self._ask("decision_function", X)

    def score(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the score of the best estimator on other rows, by ``scoring``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Embeddings.
        y : array-like of shape (n_samples,) or (n_samples, n_labels)
            True labels, as in :meth:`fit`: NaN where a label is not known. A row
            without any is left out. A DataFrame must have the labels in the order of
            :meth:`fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the scorer.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If a DataFrame has the labels in another order.
        """
        check_is_fitted(self)
        check_columns(y, getattr(self, "label_names_", ()))
        truth, known = known_labels(y, self.classes_)
        rows = check_embeddings(self, X, reset=False)
        check_consistent_length(rows, y)
        extra = {}
        if sample_weight is not None:
            extra["sample_weight"] = _check_sample_weight(sample_weight, rows)[known]
        asked = _safe_indexing(rows, known)
        return float(self.scorer_(self.best_estimator_, asked, truth, **extra))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        return tags

    def _ask(self, method: str, X: ArrayLike) -> Any:
        check_is_fitted(self)
        rows = check_embeddings(self, X, reset=False)
        return getattr(self.best_estimator_, method)(rows)

    def _seed(self) -> int:
        shared = self.random_state is None and self.storage is not None
        rng = check_random_state(0 if shared else self.random_state)
        return int(rng.randint(np.iinfo(np.int32).max))

    def _make_space(self, labels: Labels, folds: Any, weighted: bool, seed: int) -> Any:
        """Return the function from a trial to a classifier."""
        from sk_medsiglip.model_selection._head_space import choose_heads

        names = ("prompts", "templates", "model", "revision", "cache")
        prompts = {name: getattr(self, name) for name in names}
        without = {"knn"} if weighted else set()
        if self.scoring is not None or labels.n_rows > 1 and labels.classes is not None:
            without.add("svm")  # which has no probabilities
        return choose_heads(
            self.space,
            {} if self.prompts is None else prompts,
            without=without,
            n_train=min(len(train) for train, _ in folds),
            several=labels.classes is None,
            seed=seed,
        )

    def _search(self, objective: Any, seed: int) -> Any:
        """Run the trials, and return the chosen classifier, not fitted."""
        from sk_medsiglip.model_selection import _head_study as studies
        from sk_medsiglip.model_selection._head_choice import choose

        prompts = [self.prompts, self.templates, self.model, self.revision]
        told = {"scoring": self.scoring, "prompts": prompts, "random_state": seed}
        told["space"] = [*objective.space.heads]
        with quiet_logger("optuna"):
            study = studies.open_study(self.storage, seed)
            studies.begin(study, objective, told if self.storage else None)
            limits = self.n_trials, self.timeout, self.verbose > 0
            trials = studies.run_trials(study, objective, *limits)
            self.study_ = studies.detached(study)
        studies.check_some_scored(trials, self.timeout)
        results = studies.cv_results(trials, self.n_splits_)
        best, self.search_report_ = choose(trials, results, objective)
        self.cv_results_, self.best_index_ = results, best
        self.best_score_ = float(results["mean_test_score"][best])
        self.best_params_ = results["params"][best]
        return objective.space.make(self.best_params_)
