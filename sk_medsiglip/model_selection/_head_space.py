"""What ``HeadSearchCV`` chooses from: heads, their settings, what is done before them.

A function of a trial asks it for values and returns a candidate. Nothing here imports
Optuna: a trial is whatever has ``suggest_*`` methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC

from sk_medsiglip.heads import (
    LinearProbe,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
)
from sk_medsiglip.model_selection._each_label import ask_each_label
from sk_medsiglip.model_selection._lasting_names import lasting_name

__all__ = ["HEADS", "PROMPT_HEADS", "Candidate", "Facts", "HeadSpace", "make_space"]

#: Heads that take embeddings alone, and those that know prompts.
HEADS = ("logistic", "svm", "knn", "prototypes", "mlp", "boosting")
PROMPT_HEADS = ("prompt_probe", "ss_text", "tip_adapter")

#: Inverse penalties of a path; all of them cost one trial.
CS = np.logspace(-4, 4, 17)

#: Few to choose from: every further one fits the folds a little better by luck.
COMPONENTS = (8, 16, 32, 64, 128, 256)

#: The first trial of each head has these settings; later ones are drawn.
FIRST = {
    "preprocessing": "standardize",
    "class_weight": None,
    "svm_C": 1.0,
    "knn_neighbors": 15,
    "knn_weights": "distance",
    "prototypes_shrinkage": 16.0,
    "mlp_width": 64,
    "mlp_alpha": 1e-3,
    "mlp_learning_rate": 1e-3,
    "boosting_learning_rate": 0.1,
    "boosting_leaves": 8,
    "boosting_min_leaf": 10,
    "boosting_l2": 1e-3,
    "prompt_probe_C": "auto",
    "ss_text_tau": 8.0,
    "tip_adapter_alpha": 1.0,
    "tip_adapter_beta": 5.5,
}

_NAMES = {"normalize": "normalizer", "standardize": "standardscaler", "pca": "pca"}


@dataclass(frozen=True)
class Facts:
    """What ranges depend on.

    Parameters
    ----------
    n_train : int
        Rows of the smallest training fold.
    n_features : int
        Width of the embeddings.
    several : bool
        Whether there are several labels.
    seed : int
        Of heads that draw numbers.
    prompt_settings : mapping
        ``prompts`` and where they are encoded; empty without prompts.
    """

    n_train: int
    n_features: int
    several: bool
    seed: int
    prompt_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A head that was not fitted yet.

    Parameters
    ----------
    estimator : estimator
        The head, or a pipeline that ends in it.
    Cs : ndarray or None
        Inverse penalties to choose from, where the head is a logistic path.
    """

    estimator: Any
    Cs: NDArray[np.float64] | None = None

    def with_chosen(self, chosen: Mapping[str, Any]) -> Candidate:
        """Return the candidate at what its path chose."""
        if "C" not in chosen:
            return self
        estimator = clone(self.estimator)
        last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        last.set_params(Cs=[chosen["C"]])
        return replace(self, estimator=estimator, Cs=None)


def make_space(
    space: Any, estimator: Any, facts: Facts, *, chances: bool, weighted: bool = False
) -> Callable[[Any], Candidate]:
    """Return the function of a trial that ``space`` and ``estimator`` mean.

    Parameters
    ----------
    space : None, list of str, mapping or callable
        As ``HeadSearchCV`` takes it.
    estimator : estimator or None
        What a mapping belongs to.
    facts : Facts
        Of the data.
    chances : bool
        Whether scores need probabilities.
    weighted : bool, default=False
        Whether rows have weights.

    Raises
    ------
    ValueError, TypeError
        If the two do not belong together.
    """
    if isinstance(space, Mapping):
        if estimator is None:
            raise ValueError(
                "a dict as space names parameters of an estimator: give it, as in "
                "HeadSearchCV(LogisticRegression(), space={'C': FloatDistribution(...)"
                "})."
            )
        unknown = set(space) - set(estimator.get_params())
        if unknown or not space:
            raise ValueError(
                f"space must name parameters of {type(estimator).__name__}, got "
                f"{sorted(space)}; they are {sorted(estimator.get_params())}."
            )
        distributions = {name: _distribution(name, one) for name, one in space.items()}
        return _Distributions(estimator, distributions, facts.several)
    if estimator is not None:
        raise ValueError(
            "an estimator needs the space of its parameters: a dict such as "
            "{'C': [0.01, 1, 100]} or "
            "{'C': optuna.distributions.FloatDistribution(0.01, 100, log=True)}, got "
            f"{space!r}. Leave estimator out to choose among heads."
        )
    if callable(space):
        return _Function(space, facts.several)
    known = HEADS + (PROMPT_HEADS if facts.prompt_settings else ())
    if space is None:
        cannot = {"svm"} if chances else set()
        cannot |= {"knn"} if weighted else set()
        heads = [name for name in known if name not in cannot]
    elif isinstance(space, Sequence) and not isinstance(space, str):
        heads = list(space)
    else:
        raise TypeError(
            "space must be None, a list of heads, a dict of distributions or a "
            f"function of a trial, got {space!r}."
        )
    if not heads or set(heads) - set(known):
        hint = "" if facts.prompt_settings else f"; with prompts= also {PROMPT_HEADS}"
        raise ValueError(f"space must list some of {known}{hint}; got {space!r}.")
    return HeadSpace(tuple(heads), facts)


@dataclass(frozen=True)
class _Choices:
    """Values to choose from, as ``GridSearchCV`` takes them."""

    choices: tuple[Any, ...]


def _distribution(name: str, given: Any) -> Any:
    """Return what values of a parameter are drawn from."""
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, Sequence) and not isinstance(given, str):
        values = tuple(v.item() if isinstance(v, np.generic) else v for v in given)
        for one in values:
            if one is not None and not isinstance(one, bool | int | float | str):
                raise ValueError(
                    f"space: {name!r} lists {one!r}; what is listed must be numbers, "
                    "strings, True, False or None. For anything else give a function "
                    "of a trial that returns the estimator."
                )
        if not values:
            raise ValueError(f"space: {name!r} lists no value.")
        return _Choices(values)
    ranges = ("low", "high", "step", "log")
    if hasattr(given, "choices") or all(hasattr(given, part) for part in ranges):
        return given
    raise TypeError(
        f"space: {name!r} must be a list of values or one of Optuna's distributions, "
        "such as optuna.distributions.FloatDistribution(0.01, 100, log=True); got "
        f"{given!r}."
    )


@dataclass(frozen=True)
class _Distributions:
    """Parameters of one estimator."""

    estimator: Any
    space: dict[str, Any]
    several: bool

    def __call__(self, trial: Any) -> Candidate:
        values = {
            name: _suggest(trial, name, distribution)
            for name, distribution in self.space.items()
        }
        estimator = clone(self.estimator).set_params(**values)
        return Candidate(ask_each_label(estimator, several=self.several))

    def __repr__(self) -> str:
        parts = sorted((k, repr(v)) for k, v in self.space.items())
        return f"{self.estimator!r} {parts}"


def _suggest(trial: Any, name: str, distribution: Any) -> Any:
    """Ask for a value of a list, or of one of Optuna's distributions."""
    if hasattr(distribution, "choices"):
        return trial.suggest_categorical(name, distribution.choices)
    whole = type(distribution).__name__.startswith("Int")
    ask = trial.suggest_int if whole else trial.suggest_float
    low, high = distribution.low, distribution.high
    return ask(name, low, high, step=distribution.step, log=distribution.log)


def _by_ratio(trial: Any, name: str, low: float, high: float) -> float:
    """Suggest a number of which ratios count, not differences."""
    return trial.suggest_float(name, low, high, log=True)


@dataclass(frozen=True)
class _Function:
    """A user's own function of a trial."""

    function: Callable[[Any], Any]
    several: bool

    def __call__(self, trial: Any) -> Candidate:
        made = self.function(trial)
        if not hasattr(made, "fit"):
            raise TypeError(
                "space must return an estimator for a trial, and returned "
                f"{type(made).__name__}."
            )
        return Candidate(ask_each_label(made, several=self.several))

    def __repr__(self) -> str:
        return lasting_name(self.function)


@dataclass(frozen=True)
class HeadSpace:
    """The heads of this package and scikit-learn's usual ones."""

    heads: tuple[str, ...]
    facts: Facts

    def __call__(self, trial: Any) -> Candidate:
        name = trial.suggest_categorical("head", self.heads)
        steps = self._before(trial, name)
        head = getattr(self, f"_{name}")(trial)
        head = ask_each_label(head, several=self.facts.several)
        if steps:
            steps.append((type(head).__name__.lower(), head))
            head = Pipeline(steps)
        return Candidate(head, CS if name == "logistic" else None)

    def __repr__(self) -> str:
        # What trials may be continued by: where prompts are kept changes nothing.
        settings = self.facts.prompt_settings
        asked = [settings.get(k) for k in ("prompts", "templates", "model", "revision")]
        return f"{self.heads} {asked}"

    def first(self, number: int) -> dict[str, Any] | None:
        """Return the settings of a first trial of each head, then None."""
        if number >= len(self.heads):
            return None
        return {**FIRST, "head": self.heads[number]}

    def _before(self, trial: Any, name: str) -> list[tuple[str, Any]]:
        """Return the steps before a head: none where it compares directions itself."""
        if name == "prototypes" or name in PROMPT_HEADS:
            return []
        ways = ["none", "normalize", "standardize"]
        most = min(self.facts.n_train // 2, self.facts.n_features)
        sizes = [n for n in COMPONENTS if n <= most]
        if sizes:
            ways.append("pca")
        way = trial.suggest_categorical("preprocessing", ways)
        if way == "none":
            return []
        if way == "pca":
            n = trial.suggest_categorical("pca_components", sizes)
            made: Any = PCA(n, whiten=True, random_state=self.facts.seed)
        else:
            made = Normalizer() if way == "normalize" else StandardScaler()
        return [(_NAMES[way], made.set_output(transform="default"))]

    def _class_weight(self, trial: Any) -> str | None:
        return trial.suggest_categorical("class_weight", [None, "balanced"])

    def _logistic(self, trial: Any) -> Any:
        return LinearProbe([1.0], class_weight=self._class_weight(trial))

    def _svm(self, trial: Any) -> Any:
        C = _by_ratio(trial, "svm_C", 1e-2, 1e3)
        return SVC(C=C, class_weight=self._class_weight(trial))

    def _knn(self, trial: Any) -> Any:
        most = max(1, min(100, self.facts.n_train // 2))
        if self.facts.several:  # a label may be known of few
            most = min(most, 5)
        return KNeighborsClassifier(
            trial.suggest_int("knn_neighbors", 1, most, log=True),
            weights=trial.suggest_categorical("knn_weights", ["uniform", "distance"]),
            algorithm="brute",  # what scikit-learn takes itself above 15 columns
        )

    def _mlp(self, trial: Any) -> Any:
        return MLPClassifier(
            (trial.suggest_int("mlp_width", 16, 256, log=True),),
            alpha=_by_ratio(trial, "mlp_alpha", 1e-5, 10.0),
            learning_rate_init=_by_ratio(trial, "mlp_learning_rate", 1e-4, 1e-2),
            max_iter=100,
            random_state=self.facts.seed,
        )

    def _boosting(self, trial: Any) -> Any:
        most = max(2, min(50, self.facts.n_train // 4))
        return HistGradientBoostingClassifier(
            learning_rate=_by_ratio(trial, "boosting_learning_rate", 0.02, 0.3),
            max_leaf_nodes=trial.suggest_int("boosting_leaves", 2, 32, log=True),
            min_samples_leaf=trial.suggest_int("boosting_min_leaf", 2, most, log=True),
            l2_regularization=_by_ratio(trial, "boosting_l2", 1e-3, 10.0),
            early_stopping=False,
            class_weight=self._class_weight(trial),
            random_state=self.facts.seed,
        )

    def _prototypes(self, trial: Any) -> Any:
        settings = dict(self.facts.prompt_settings)
        if settings:
            settings["shrinkage"] = _by_ratio(trial, "prototypes_shrinkage", 0.1, 100.0)
        return PrototypeClassifier(**settings, class_weight=self._class_weight(trial))

    def _prompt_probe(self, trial: Any) -> Any:
        return PromptProbe(
            **self.facts.prompt_settings,
            C=trial.suggest_categorical("prompt_probe_C", ["auto", "cv"]),
            class_weight=self._class_weight(trial),
        )

    def _ss_text(self, trial: Any) -> Any:
        return SSTextClassifier(
            **self.facts.prompt_settings,
            tau=_by_ratio(trial, "ss_text_tau", 1e-2, 100.0),
            class_weight=self._class_weight(trial),
        )

    def _tip_adapter(self, trial: Any) -> Any:
        return TipAdapterClassifier(
            **self.facts.prompt_settings,
            alpha=_by_ratio(trial, "tip_adapter_alpha", 0.01, 20.0),
            beta=_by_ratio(trial, "tip_adapter_beta", 1.0, 50.0),
            class_weight=self._class_weight(trial),
            random_state=self.facts.seed,
        )
