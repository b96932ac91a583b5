"""The heads that ``HeadSearchCV`` chooses from, and the ranges of their settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial, FixedTrial
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
from sk_medsiglip.model_selection._each_label import EachLabel

#: Settings of the first trial: LinearProbe as it is.
PROBE = {"head": "logistic", "preprocessing": "none", "logistic_class_weight": None}
#: Heads of scikit-learn, which learn one question.
_OF_ONE_QUESTION = ("knn", "svm", "boosting", "mlp")
#: Those of them that compare distances, which depend on the scale of the columns.
_OF_DISTANCES = ("knn", "svm")
#: Steps before these and "logistic"; the other heads compare directions.
_PREPROCESSING = {
    "none": None,
    "normalize": Normalizer(),
    "standardize": StandardScaler(),
    "pca": PCA(0.9, whiten=True),
}


@dataclass(frozen=True, eq=False)
class HeadSpace:
    """A function of a trial that returns one of several heads, the plainest first.

    Each head is an estimator at its usual settings, with the settings that are tried:
    a list of values, or a pair of bounds on a logarithmic scale.
    """

    heads: dict[str, tuple[Any, dict[str, Any]]]
    several: bool

    def __call__(self, trial: BaseTrial) -> Any:
        name = trial.suggest_categorical("head", list(self.heads))
        step = None
        if name in ("logistic", *_OF_ONE_QUESTION):
            ways = list(_PREPROCESSING)
            step = _PREPROCESSING[trial.suggest_categorical("preprocessing", ways)]
        head, ranges = self.heads[name]
        drawn = {key: _draw(trial, f"{name}_{key}", ranges[key]) for key in ranges}
        head = clone(head).set_params(**drawn)
        if self.several and name in _OF_ONE_QUESTION:
            head = EachLabel(head)
        if step is None:
            return head
        return make_pipeline(clone(step).set_output(transform="default"), head)

    def make(self, settings: dict[str, Any]) -> Any:
        """Return the head at known settings."""
        return self(FixedTrial(settings))

    def first_trials(self) -> list[dict[str, Any]]:
        """Return trials of the heads at their usual settings, one or two of each."""
        usual = dict.fromkeys(self.heads, "standardize") | {"logistic": "none"}
        pairs = [(name, usual[name]) for name in self.heads]
        pairs += [(name, "none") for name in _OF_DISTANCES if name in self.heads]
        trials = []
        for name, way in pairs:
            head, ranges = self.heads[name]
            settings = {f"{name}_{key}": head.get_params()[key] for key in ranges}
            trials.append({"head": name, "preprocessing": way, **settings})
        return trials


def choose_heads(
    names: Sequence[str] | None,
    prompts: dict[str, Any],
    *,
    without: set[str],
    n_train: int,
    several: bool,
    seed: int,
) -> HeadSpace:
    """Return the space of the named heads, or of all but ``without``."""
    heads = _all_heads(prompts, n_train, several, seed)
    wanted = set(heads) - without if names is None else set(names)
    if not wanted or wanted - set(heads):
        hint = "" if prompts else "; with prompts= also 'prompt_probe' and others"
        raise ValueError(f"space must list some of {[*heads]}{hint}; got {names!r}.")
    return HeadSpace({name: heads[name] for name in heads if name in wanted}, several)


def _all_heads(
    prompts: dict[str, Any], n_train: int, several: bool, seed: int
) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return all heads, the plainest first."""
    most = 5 if several else 100  # of a label few rows may be known
    near = max(1, min(most, n_train // 2))
    weight = {"class_weight": [None, "balanced"]}
    # Brute force is scikit-learn's own choice above 15 columns.
    knn = KNeighborsClassifier(min(15, near), weights="distance", algorithm="brute")
    boosting = HistGradientBoostingClassifier(
        max_leaf_nodes=8, min_samples_leaf=10, early_stopping=False, random_state=seed
    )
    mlp = MLPClassifier(64, alpha=1e-3, max_iter=100, random_state=seed)
    heads: dict[str, tuple[Any, dict[str, Any]]] = {
        "logistic": (LinearProbe(), weight),
        "prototypes": (PrototypeClassifier(), weight),
        "knn": (knn, {"n_neighbors": (1, near)}),
        "svm": (SVC(), {"C": (1e-2, 1e3), **weight}),
        "boosting": (boosting, {"learning_rate": (0.02, 0.3), **weight}),
        "mlp": (mlp, {"alpha": (1e-5, 10.0), "learning_rate_init": (1e-4, 1e-2)}),
    }
    if not prompts:
        return heads
    tip = TipAdapterClassifier(**prompts, alpha=1.0, beta=5.5, random_state=seed)
    prototypes = PrototypeClassifier(**prompts, shrinkage=16.0)
    probe = PromptProbe(**prompts, C="auto")
    ss_text = SSTextClassifier(**prompts, tau=8.0)
    return {
        "logistic": heads.pop("logistic"),
        "prototypes": (prototypes, {"shrinkage": (0.1, 100.0), **weight}),
        "prompt_probe": (probe, {"C": ["auto", "cv"], **weight}),
        "ss_text": (ss_text, {"tau": (1e-2, 100.0), **weight}),
        "tip_adapter": (tip, {"alpha": (0.01, 20.0), "beta": (1.0, 50.0), **weight}),
        **{name: head for name, head in heads.items() if name != "prototypes"},
    }


def _draw(trial: BaseTrial, name: str, values: Any) -> Any:
    """Return the value of a setting that a trial suggests."""
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    ask = trial.suggest_int if isinstance(values[0], int) else trial.suggest_float
    return ask(name, *values, log=True)
