"""The heads, and their settings, that ``HeadSearchCV`` chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
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

#: The plainest first, which wins a tie.
HEADS = tuple(
    "logistic prototypes prompt_probe ss_text tip_adapter knn svm boosting mlp".split()
)
#: The first trial: LinearProbe as it is.
PROBE = {"head": "logistic", "preprocessing": "none", "logistic_class_weight": None}
#: Few to choose from: every further one fits the folds a little better by luck.
COMPONENTS = (8, 16, 32, 64, 128, 256)

_int_ratio = partial(IntDistribution, log=True)
_ratio = partial(FloatDistribution, log=True)


class Space(NamedTuple):
    """A function from a trial to a classifier, with its heads and first trials."""

    make: Callable[[Any], Any]
    heads: tuple[str, ...]  # none for a user's own space
    first: list[dict[str, Any]]
    identity: Any  # tells searches in a storage apart


class Facts(NamedTuple):
    """The data and settings that the ranges depend on."""

    n_train: int
    n_features: int
    several: bool
    seed: int
    prompts: Mapping[str, Any]


def make_space(space: Any, estimator: Any, facts: Facts, left_out: set[str]) -> Space:
    """Return the space that the parameters of the search describe."""
    if isinstance(space, Mapping):
        ranges = _check_ranges(space, estimator)

        def tune(trial: Any) -> Any:
            return ask_each_label(
                _draw(trial, estimator, ranges), several=facts.several
            )

        written = sorted((name, repr(one)) for name, one in ranges.items())
        return Space(tune, (), [], [repr(estimator), written])
    if estimator is not None:
        raise ValueError(
            "an estimator needs the space of its parameters: a dict such as "
            "{'C': [0.01, 1, 100]} or "
            "{'C': optuna.distributions.FloatDistribution(0.01, 100, log=True)}, got "
            f"{space!r}. Leave estimator out to choose among heads."
        )
    if callable(space):

        def call(trial: Any) -> Any:
            made = space(trial)
            if not hasattr(made, "fit"):
                raise TypeError(
                    "space must return an estimator for a trial, and returned "
                    f"{type(made).__name__}."
                )
            return ask_each_label(made, several=facts.several)

        return Space(call, (), [], space)
    if space is not None and (
        isinstance(space, str) or not isinstance(space, Sequence)
    ):
        raise TypeError(
            "space must be None, a list of heads, a dict of distributions or a "
            f"function of a trial, got {space!r}."
        )
    return _make_choice_of_heads(space, facts, left_out)


def _make_choice_of_heads(
    space: Sequence[str] | None, facts: Facts, left_out: set[str]
) -> Space:
    heads = _heads(facts)
    known = [name for name in HEADS if name in heads]
    wanted = set(known) - left_out if space is None else set(space)
    if not wanted or wanted - set(known):
        hint = "" if facts.prompts else "; with prompts= also 'prompt_probe' and others"
        raise ValueError(f"space must list some of {known}{hint}; got {space!r}.")
    names = tuple(name for name in known if name in wanted)
    first = []
    for name in names:
        estimator, ranges = heads[name]
        usual = {f"{name}_{one}": estimator.get_params()[one] for one in ranges}
        way = "none" if name == "logistic" else "standardize"
        first.append({"head": name, "preprocessing": way, **usual})

    def choose(trial: Any) -> Any:
        name = trial.suggest_categorical("head", names)
        before = _preprocessing(trial, name, facts)
        head = _draw(trial, *heads[name], f"{name}_")
        head = ask_each_label(head, several=facts.several)
        return make_pipeline(before, head) if before is not None else head

    texts = [
        facts.prompts.get(k) for k in ("prompts", "templates", "model", "revision")
    ]
    return Space(choose, names, first, [names, texts])


def _heads(facts: Facts) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return each head at its usual settings, and the settings that are tried."""
    seed, prompts = facts.seed, facts.prompts
    most = 5 if facts.several else 100  # few may be known of a label
    near = max(1, min(most, facts.n_train // 2))
    in_leaf = max(2, min(50, facts.n_train // 4))
    weight = {"class_weight": CategoricalDistribution([None, "balanced"])}
    weights = CategoricalDistribution(["uniform", "distance"])
    # Brute force is scikit-learn's own choice above 15 columns.
    knn = KNeighborsClassifier(min(15, near), weights="distance", algorithm="brute")
    boosting = HistGradientBoostingClassifier(
        max_leaf_nodes=8,
        min_samples_leaf=min(10, in_leaf),
        l2_regularization=1e-3,
        early_stopping=False,
        random_state=seed,
    )
    of_boosting = {
        "learning_rate": _ratio(0.02, 0.3),
        "max_leaf_nodes": _int_ratio(2, 32),
        "min_samples_leaf": _int_ratio(2, in_leaf),
        "l2_regularization": _ratio(1e-3, 10.0),
    }
    mlp = MLPClassifier(64, alpha=1e-3, max_iter=100, random_state=seed)
    of_mlp = {
        "hidden_layer_sizes": _int_ratio(16, 256),
        "alpha": _ratio(1e-5, 10.0),
        "learning_rate_init": _ratio(1e-4, 1e-2),
    }
    heads: dict[str, tuple[Any, dict[str, Any]]] = {
        "logistic": (LinearProbe(), weight),
        "prototypes": (PrototypeClassifier(), weight),
        "knn": (knn, {"n_neighbors": _int_ratio(1, near), "weights": weights}),
        "svm": (SVC(), {"C": _ratio(1e-2, 1e3), **weight}),
        "boosting": (boosting, {**of_boosting, **weight}),
        "mlp": (mlp, of_mlp),
    }
    if not prompts:
        return heads
    prototypes = PrototypeClassifier(**prompts, shrinkage=16.0)
    tip = TipAdapterClassifier(**prompts, alpha=1.0, beta=5.5, random_state=seed)
    of_tip = {"alpha": _ratio(0.01, 20.0), "beta": _ratio(1.0, 50.0)}
    ways = CategoricalDistribution(["auto", "cv"])
    tau = _ratio(1e-2, 100.0)
    return heads | {
        "prototypes": (prototypes, {"shrinkage": _ratio(0.1, 100.0), **weight}),
        "prompt_probe": (PromptProbe(**prompts, C="auto"), {"C": ways, **weight}),
        "ss_text": (SSTextClassifier(**prompts, tau=8.0), {"tau": tau, **weight}),
        "tip_adapter": (tip, {**of_tip, **weight}),
    }


def _preprocessing(trial: Any, name: str, facts: Facts) -> Any:
    """Return the step before a head; those that compare directions have none."""
    if name not in ("logistic", "knn", "svm", "boosting", "mlp"):
        return None
    most = min(facts.n_train // 2, facts.n_features)
    sizes = [n for n in COMPONENTS if n <= most]
    ways = ["none", "normalize", "standardize", *(["pca"] if sizes else [])]
    way = trial.suggest_categorical("preprocessing", ways)
    if way == "none":
        return None
    if way == "pca":
        n = trial.suggest_categorical("pca_components", sizes)
        made: Any = PCA(n, whiten=True, random_state=facts.seed)
    else:
        made = Normalizer() if way == "normalize" else StandardScaler()
    return made.set_output(transform="default")


def _draw(
    trial: Any, estimator: Any, ranges: Mapping[str, Any], prefix: str = ""
) -> Any:
    """Return the estimator at the settings that a trial suggests."""
    values = {}
    for name, one in ranges.items():
        if hasattr(one, "choices"):
            values[name] = trial.suggest_categorical(prefix + name, one.choices)
            continue
        is_whole = isinstance(one, IntDistribution)
        ask = trial.suggest_int if is_whole else trial.suggest_float
        bounds = {"step": one.step, "log": one.log}
        values[name] = ask(prefix + name, one.low, one.high, **bounds)
    return clone(estimator).set_params(**values)


def _check_ranges(space: Mapping[str, Any], estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator as Optuna's distributions."""
    if estimator is None:
        raise ValueError(
            "a dict as space names parameters of an estimator: give it, as in "
            "HeadSearchCV(LogisticRegression(), space={'C': FloatDistribution(...)})."
        )
    if set(space) - set(estimator.get_params()) or not space:
        raise ValueError(
            f"space must name parameters of {type(estimator).__name__}, got "
            f"{sorted(space)}; they are {sorted(estimator.get_params())}."
        )
    return {name: _check_range(name, given) for name, given in space.items()}


def _check_range(name: str, given: Any) -> Any:
    if all(hasattr(given, one) for one in ("single", "to_internal_repr")):
        return given
    if isinstance(given, str) or not isinstance(given, Sequence | np.ndarray):
        raise TypeError(
            f"space: {name!r} must be a list of values or one of Optuna's "
            "distributions, such as optuna.distributions.FloatDistribution(0.01, "
            f"100, log=True); got {given!r}."
        )
    values = [one.item() if isinstance(one, np.generic) else one for one in given]
    if not values:
        raise ValueError(f"space: {name!r} lists no value.")
    for one in values:
        if one is not None and not isinstance(one, bool | int | float | str):
            raise ValueError(
                f"space: {name!r} lists {one!r}; the values must be numbers, strings, "
                "True, False or None. For anything else give a function of a trial "
                "that returns the estimator."
            )
    return CategoricalDistribution(values)
