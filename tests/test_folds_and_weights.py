"""Folds are of the rows as passed, weights are repeats, ties go by log loss."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_medsiglip import (
    HeadSearchCV,
    LinearProbe,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
    _scoring,
)
from sk_medsiglip.evaluation import label_efficiency
from sk_medsiglip.model_selection import EachLabel
from sk_medsiglip.zero_shot import ConformalZeroShot, PromptSearchCV

HEADS = [
    LinearProbe(Cs=[0.01, 1.0, 100.0], tol=1e-14),
    PromptProbe(C="cv", Cs=[0.1, 10.0, 1000.0], tol=1e-14),
    TipAdapterClassifier(),
    SSTextClassifier(),
    PrototypeClassifier(),
]
CHOOSING = HEADS[:3]
N = 80


def name(head):
    return type(head).__name__


def data(seed=0, n=N, n_features=6):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = rng.normal(size=(n, n_features)) + 0.8 * y[:, None]
    return X, y, rng


@pytest.fixture(scope="module")
def prompts():
    """Return a fitted zero-shot classifier of two classes, as wide as the data."""
    made = ZeroShotClassifier(
        {"f": {"positive": "a", "negative": "b"}}, model="demo"
    ).fit(np.eye(192)[:2])
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(2, 6))
    made.class_embeddings_ = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    made.logit_scale_ = 6.0
    return made


def fit_as(head, **params):
    """Return an unfitted copy."""
    return type(head)(**{**head.get_params(deep=False), **params})


def chosen(head):
    return {k: getattr(head, k) for k in ("C_", "alpha_", "beta_") if hasattr(head, k)}


# ------------------------------------------------------------------------------- folds


def kinds_of_cv(rng, y):
    part = rng.permutation(np.arange(N) % 4)
    pairs = [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(4)]
    return {
        "pairs": pairs,
        "masks": [(part != k, part == k) for k in range(4)],
        "predefined": PredefinedSplit(part),
        "groups": GroupKFold(4),
        "rows": KFold(4),
    }


@pytest.mark.parametrize("kind", ["pairs", "masks", "predefined", "groups", "rows"])
@pytest.mark.parametrize("blank", [False, True])
@pytest.mark.parametrize("head", CHOOSING, ids=name)
def test_folds_are_of_the_rows_as_passed(head, kind, blank):
    X, y, rng = data()
    groups = np.repeat(np.arange(N // 2), 2) if kind == "groups" else None
    cv = kinds_of_cv(rng, y)[kind]
    absent = rng.random(N) < 0.3
    dealt = list(
        cv.split(X, y, groups) if hasattr(cv, "split") else cv  # on all rows
    )
    # The same folds, said for what is left.
    place = np.cumsum(~absent) - 1
    left = []
    for train, test in dealt:
        train, test = np.arange(N)[train], np.arange(N)[test]
        left.append((place[train[~absent[train]]], place[test[~absent[test]]]))
    expected = fit_as(head, cv=left).fit(X[~absent], y[~absent])
    if blank:
        z = np.where(absent, np.nan, y)
        found = fit_as(head, cv=cv).fit(X, z, groups=groups)
        assert found.classes_.tolist() == [0, 1]
    else:
        found = fit_as(head, cv=cv)
        found.fit(X, y, sample_weight=np.where(absent, 0.0, 1.0), groups=groups)
    assert chosen(found) == pytest.approx(chosen(expected))
    np.testing.assert_allclose(
        found.predict_proba(X), expected.predict_proba(X), atol=1e-7
    )
    if hasattr(found, "scores_"):
        np.testing.assert_allclose(found.scores_, expected.scores_, atol=1e-8)


@pytest.mark.parametrize("cv", [4, None, KFold(4), GroupKFold(4), StratifiedKFold(4)])
@pytest.mark.parametrize("head", CHOOSING, ids=name)
def test_blanks_of_each_label_leave_its_folds_alone(head, cv):
    X, y, rng = data()
    Y = np.column_stack([y, rng.permutation(y)]).astype(float)
    Y[rng.random(Y.shape) < 0.3] = np.nan
    groups = None
    if isinstance(cv, GroupKFold | int):
        groups = np.repeat(np.arange(N // 2), 2)
    together = fit_as(head, cv=cv).fit(X, Y, groups=groups)
    for k in range(2):
        alone = fit_as(head, cv=cv).fit(X, Y[:, k], groups=groups)
        np.testing.assert_allclose(
            together.predict_proba(X)[:, k], alone.predict_proba(X)[:, 1], atol=1e-5
        )
        for key, value in chosen(alone).items():
            assert chosen(together)[key][k] == value


@pytest.mark.parametrize("head", HEADS, ids=name)
@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(N // 2), 2)])
def test_weight_0_is_no_row_also_where_folds_are_a_number(head, groups):
    X, y, rng = data()
    weight = (rng.random(N) > 0.4).astype(float)
    kept = weight > 0
    found = fit_as(head).fit(X, y, sample_weight=weight, groups=groups)
    expected = fit_as(head).fit(
        X[kept], y[kept], groups=None if groups is None else groups[kept]
    )
    assert chosen(found) == chosen(expected)
    np.testing.assert_allclose(
        found.predict_proba(X), expected.predict_proba(X), atol=1e-7
    )


def test_a_number_of_folds_keeps_groups_together_by_default_too():
    X, y, rng = data()
    groups = rng.integers(0, 20, N)
    five, default = (
        LinearProbe(cv=cv).fit(X, y, groups=groups).scores_ for cv in (5, None)
    )
    np.testing.assert_array_equal(five, default)


# ----------------------------------------------------------------------------- weights


@pytest.mark.parametrize(
    ("head", "with_prompts"),
    [*((head, False) for head in HEADS), *((head, True) for head in HEADS[1:])],
)
@pytest.mark.parametrize("how", ["classes", "findings"])
def test_weights_are_repeats(head, with_prompts, how, prompts):
    X, y, rng = data()
    if how == "findings":
        if with_prompts:
            y = np.where(rng.random(N) < 0.2, np.nan, y)
        else:
            y = np.column_stack([y, rng.permutation(y)])
    part = np.arange(N) // 2 % 4
    weight = rng.integers(0, 4, N)
    rows = np.repeat(np.arange(N), weight)
    params = {"prompts": prompts} if with_prompts else {}
    if "cv" in head.get_params():
        params["cv"] = PredefinedSplit(part)
    found = fit_as(head, **params).fit(X, y, sample_weight=weight)
    if "cv" in params:
        params["cv"] = PredefinedSplit(part[rows])
    expected = fit_as(head, **params).fit(X[rows], y[rows])
    for key, value in chosen(expected).items():
        np.testing.assert_allclose(chosen(found)[key], value)
    np.testing.assert_allclose(
        found.predict_proba(X), expected.predict_proba(X), atol=1e-6
    )


@pytest.mark.parametrize("balanced", [None, "balanced"])
@pytest.mark.parametrize("fine_tune", [False, True])
def test_weights_are_repeats_of_shots(fine_tune, balanced, prompts):
    X, y, rng = data(n=30)
    weight = rng.integers(1, 4, 30)
    rows = np.repeat(np.arange(30), weight)
    head = TipAdapterClassifier(
        prompts, alpha=2.0, beta=3.0, class_weight=balanced, fine_tune=fine_tune
    )
    found = fit_as(head).fit(X, y, sample_weight=weight).predict_proba(X)
    expected = fit_as(head).fit(X[rows], y[rows]).predict_proba(X)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_prompt_probe_auto_counts_by_weight():
    X, y, _ = data(n=20)
    folds = {"cv": PredefinedSplit(np.arange(20) // 2 % 5)}
    light = PromptProbe(**folds).fit(X, y)
    heavy = PromptProbe(**folds).fit(X, y, sample_weight=np.full(20, 3))
    rows = np.repeat(np.arange(20), 3)
    folds = {"cv": PredefinedSplit(rows // 2 % 5)}
    assert heavy.C_ == pytest.approx(PromptProbe(**folds).fit(X[rows], y[rows]).C_)
    assert heavy.C_ != light.C_


# -------------------------------------------------------------------------------- ties


def test_best_settings():
    scores = np.array([0.9, 1.0, 1.0 - 1e-15, 1.0, np.nan])
    losses = np.array([0.1, 0.7, 0.2, np.nan, 0.0])
    assert _scoring.best_settings(scores, losses) == 2
    assert _scoring.best_settings(scores[[3, 0]], losses[[3, 0]]) == 0
    assert _scoring.best_settings(scores[[0, 3, 1]], losses[[0, 3, 1]]) == 2
    assert _scoring.best_settings(np.full(3, np.nan), np.full(3, np.nan)) == 0
    two = _scoring.best_settings(np.ones((2, 3)), np.array([[3, 2, 1], [1, 2, 3.0]]))
    assert two.tolist() == [2, 0]


@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision"])
@pytest.mark.parametrize("head", CHOOSING, ids=name)
def test_equal_scores_are_decided_by_log_loss(head, scoring):
    X, y, _ = data()
    X = X + 6.0 * y[:, None]  # every setting ranks all
    params = {"scoring": scoring, "cv": 4}
    if isinstance(head, TipAdapterClassifier):
        X = X - X.mean(axis=0)
    by_score = fit_as(head, **params).fit(X, y)
    by_loss = fit_as(head, cv=4).fit(X, y)
    assert chosen(by_score) == chosen(by_loss)
    assert 0 < by_score.predict(X).sum() < N
    if isinstance(head, LinearProbe):
        each = fit_as(head, **params, refit=False).fit(X, y)
        assert each.C_ == fit_as(head, cv=4, refit=False).fit(X, y).C_


# --------------------------------------------------------------- blanks of one finding


@pytest.mark.parametrize(
    "shape",
    [
        lambda z: z,
        lambda z: z[:, None],
        lambda z: pd.DataFrame({"effusion": z}),
        lambda z: pd.Series(z, dtype="Int64"),
        lambda z: pd.array(z, dtype="boolean"),
        lambda z: np.where(np.isnan(z), None, z),
        list,
    ],
)
@pytest.mark.parametrize("head", HEADS, ids=name)
def test_one_finding_with_blanks(head, shape):
    X, y, rng = data()
    z = np.where(rng.random(N) < 0.3, np.nan, y)
    known = ~np.isnan(z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_as(head).fit(X, shape(z))
    expected = fit_as(head).fit(X[known], y[known])
    assert found.classes_.tolist() == [0, 1]
    assert found.predict(X).shape == (N,)
    np.testing.assert_allclose(
        found.predict_proba(X), expected.predict_proba(X), atol=1e-7
    )


@pytest.mark.parametrize(
    ("y", "match"),
    [
        ([1, np.nan] * 40, "one class|NaN"),
        ([np.nan] * 80, "NaN"),
        ([1, 2, np.nan, 1] * 20, "NaN"),
        (["a", "b", None, "a"] * 20, "missing values.*1 and 0"),
    ],
)
@pytest.mark.parametrize("head", HEADS, ids=name)
def test_other_blanks_are_refused(head, y, match):
    with pytest.raises(ValueError, match=match):
        fit_as(head).fit(data()[0], y)


# --------------------------------------------------------------------- scorers, routing


@pytest.mark.parametrize("scoring", ["f1", "average_precision"])
@pytest.mark.parametrize("head", CHOOSING, ids=name)
def test_scorers_of_one_class_take_the_second_name(head, scoring):
    X, y, _ = data()
    names = np.array(["effusion", "normal"])[y]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ill-defined")
        by_name = fit_as(head, scoring=scoring).fit(X, names)
        by_number = fit_as(head, scoring=scoring).fit(X, y)
    assert chosen(by_name) == chosen(by_number)
    own = make_scorer(f1_score, pos_label="effusion")
    fit_as(head, scoring=own).fit(X, names)
    with_average = _scoring.find_scorer("f1_macro", np.array(["a", "b"]))
    assert with_average._kwargs == _scoring.find_scorer("f1_macro", None)._kwargs


@pytest.mark.parametrize("head", CHOOSING, ids=name)
def test_groups_are_routed_to_a_head_unasked(head):
    X, y, rng = data()
    groups = rng.integers(0, 20, N)
    with config_context(enable_metadata_routing=True):
        pipe = make_pipeline(StandardScaler(), fit_as(head, cv=GroupKFold(3)))
        pipe.fit(X, y, groups=groups)
        found = cross_val_score(pipe, X, y, cv=GroupKFold(3), params={"groups": groups})
        search = GridSearchCV(pipe, {}, cv=GroupKFold(3)).fit(X, y, groups=groups)
    assert np.isfinite(found).all()
    assert np.isfinite(search.best_score_)
    own = fit_as(head, cv=GroupKFold(3))
    own.fit(StandardScaler().fit_transform(X), y, groups=groups)
    assert chosen(pipe[-1]) == chosen(own)


# --------------------------------------------------------- searches and other wrappers


def search(**params):
    pytest.importorskip("optuna")
    return HeadSearchCV(n_trials=2, random_state=0, **params)


def wrappers():
    pair = {"f": {"positive": "a", "negative": "b"}}
    return {
        "linear": LinearProbe(),
        "prompt": PromptProbe(),
        "tip": TipAdapterClassifier(),
        "ss": SSTextClassifier(),
        "prototype": PrototypeClassifier(),
        "search": search(space=["logistic", "prototypes"]),
        "prompts": PromptSearchCV(pair, model="demo", n_bootstrap=5),
        "conformal": ConformalZeroShot(LinearProbe([1.0]), random_state=0),
    }


@pytest.fixture(scope="module")
def wide():
    X, y, rng = data(n_features=192)
    return X, y, rng


def fit_with(which, X, y, groups):
    if which == "each":
        EachLabel(LogisticRegression()).fit(X, np.c_[y, 1 - y], groups=groups)
    elif which == "efficiency":
        label_efficiency({"p": LinearProbe()}, X, y, [8], groups=groups, n_repeats=1)
    else:
        wrappers()[which].fit(X, y, groups=groups)


BAD_GROUPS = {
    "nan": (np.where(np.arange(N) % 2, np.nan, 1.0), "missing for 40 of 80"),
    "none": ([None, "a"] * (N // 2), "missing for 40 of 80"),
    "na": (pd.Series([pd.NA, 1] * (N // 2), dtype="Int64"), "missing for 40 of 80"),
    "short": (np.zeros(7), "7 ids for 80 samples"),
    "mixed": ([7, "7"] * (N // 2), "several types"),
    "two": (np.zeros((N, 2)), "one id a sample"),
}


@pytest.mark.parametrize("kind", BAD_GROUPS)
@pytest.mark.parametrize("which", [*wrappers(), "each", "efficiency"])
def test_groups_are_checked_by_all(which, kind, wide):
    X, y, _ = wide
    groups, match = BAD_GROUPS[kind]
    with pytest.raises(ValueError, match=match):
        fit_with(which, X, y, groups)


@pytest.mark.parametrize("which", [*wrappers(), "each", "efficiency"])
def test_groups_of_one_column_are_taken_by_all(which, wide):
    X, y, _ = wide
    groups = pd.DataFrame({"patient": np.arange(N) // 2})
    fit_with(which, X, y, groups)


@pytest.mark.parametrize("which", wrappers())
def test_score_reads_y_as_fit_does(which, wide):
    X, y, rng = wide
    z = np.where(rng.random(N) < 0.3, np.nan, y)
    known = ~np.isnan(z)
    fitted = wrappers()[which].fit(X, y)
    expected = fitted.score(X[known], y[known])
    for truth in (z, z[:, None], pd.Series(z, dtype="Int64"), pd.DataFrame({"f": z})):
        assert fitted.score(X, truth) == pytest.approx(expected)
    weight = rng.integers(1, 4, N)
    rows = np.repeat(np.arange(N), weight)
    assert fitted.score(X, z, sample_weight=weight) == pytest.approx(
        fitted.score(X[rows], z[rows])
    )
    with pytest.raises(ValueError, match="label"):
        fitted.score(X, np.full(N, np.nan))
    with pytest.raises(ValueError, match="y has"):
        fitted.score(X, np.c_[y, y])
    assert np.ravel(fitted.predict(X)).shape == (N,)
    np.testing.assert_allclose(
        fitted.predict_log_proba(X), np.log(fitted.predict_proba(X)), atol=1e-9
    )


@pytest.mark.parametrize("head", [*HEADS, EachLabel(LogisticRegression())], ids=name)
def test_score_of_several_labels_with_blanks(head):
    X, y, rng = data()
    Y = np.c_[y, rng.permutation(y)].astype(float)
    blank = Y.copy()
    blank[rng.random(Y.shape) < 0.4] = np.nan
    fitted = clone(head).fit(X, blank)
    predicted = fitted.predict(X)
    assert fitted.score(X, Y) == pytest.approx((predicted == Y).all(axis=1).mean())
    known = ~np.isnan(blank)
    right = ((predicted == blank) | ~known).all(axis=1)
    assert fitted.score(X, blank) == pytest.approx(right[known.any(axis=1)].mean())
    assert fitted.predict_log_proba(X).shape == (N, 2)


def test_a_search_of_one_finding_with_blanks_is_one_of_its_known_rows():
    X, y, rng = data()
    z = np.where(rng.random(N) < 0.3, np.nan, y)
    known = ~np.isnan(z)
    part = np.arange(N) // 2 % 4
    found, expected = (
        search(space=["prototypes"], cv=PredefinedSplit(part[rows])).fit(X[rows], of)
        for rows, of in ((slice(None), z), (known, y[known]))
    )
    assert found.classes_.tolist() == [0, 1]
    assert found.best_score_ == expected.best_score_
    np.testing.assert_allclose(found.predict_proba(X), expected.predict_proba(X))
    assert found.score(X, z) == expected.score(X[known], y[known])


def test_a_search_takes_weights_as_repeats():
    X, y, rng = data()
    part, weight = np.arange(N) // 2 % 4, rng.integers(0, 4, N)
    rows = np.repeat(np.arange(N), weight)
    space = ["logistic", "prototypes", "svm"]
    found = search(space=space, cv=PredefinedSplit(part))
    found.fit(X, y, sample_weight=weight)
    expected = search(space=space, cv=PredefinedSplit(part[rows])).fit(X[rows], y[rows])
    # Standardising, which comes first, does not see weights.
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"],
        expected.cv_results_["mean_test_score"],
        atol=0.03,
    )
    exact = search(space=["prototypes"], cv=PredefinedSplit(part))
    exact.fit(X, y, sample_weight=weight)
    repeated = search(space=["prototypes"], cv=PredefinedSplit(part[rows]))
    repeated.fit(X[rows], y[rows])
    assert exact.best_score_ == pytest.approx(repeated.best_score_)
    np.testing.assert_allclose(exact.predict_proba(X), repeated.predict_proba(X))
    with pytest.raises(ValueError, match="KNeighborsClassifier.*sample_weight"):
        search(space=["knn"]).fit(X, y, sample_weight=weight)


def test_a_search_scores_the_second_of_two_names():
    X, y, _ = data()
    names = np.array(["effusion", "normal"])[y]
    params = {"space": ["prototypes"], "scoring": "f1"}
    found = search(**params).fit(X, names)
    assert found.best_score_ == search(**params).fit(X, y).best_score_
    assert found.score(X, names) == f1_score(
        names, found.predict(X), pos_label="normal"
    )


def test_a_search_of_equal_scores_says_yes():
    X, y, _ = data()
    found = search(space=["prototypes", "knn"]).fit(X + 6.0 * y[:, None], y)
    assert found.best_score_ == 1.0
    results = found.cv_results_
    tied = results["mean_test_score"] == 1.0
    loss = results["mean_test_log_loss"]
    assert loss[found.best_index_] == loss[tied].min()
    assert found.predict_proba(X).max() > 0.9


def test_each_label_takes_weights_and_folds_of_the_rows_as_passed():
    X, y, rng = data()
    Y = np.c_[y, rng.permutation(y)].astype(float)
    Y[rng.random(Y.shape) < 0.3] = np.nan
    weight, part = rng.integers(0, 4, N).astype(float), rng.permutation(N) % 4
    pairs = [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(4)]
    head = LinearProbe(Cs=[0.01, 1.0, 100.0], tol=1e-14, cv=pairs)
    together = clone(head).fit(X, Y, sample_weight=weight)
    each = EachLabel(head).fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(
        each.predict_proba(X), together.predict_proba(X), atol=1e-6
    )
    predefined = EachLabel(fit_as(head, cv=PredefinedSplit(part)))
    predefined.fit(X, Y, sample_weight=weight)
    np.testing.assert_allclose(each.predict_proba(X), predefined.predict_proba(X))
    with pytest.raises(ValueError, match="several labels"):
        EachLabel(LogisticRegression()).fit(X, np.arange(N) % 3)


@pytest.mark.parametrize("how", ["temperature", "temperature_bias", "prevalence"])
def test_calibration_takes_weights_as_repeats(how, wide):
    X, y, rng = wide
    weight = rng.integers(0, 4, N)
    rows = np.repeat(np.arange(N), weight)
    clf = ZeroShotClassifier(
        {"f": {"positive": "a", "negative": "b"}},
        model="demo",
        calibrate=how,
        prevalence=0.3 if how == "prevalence" else None,
    )
    said = clone(clf).set_params(calibrate=None, prevalence=None).fit(X)
    said = said.decision_function(X)
    y = (said + said.std() * rng.normal(size=N) > np.median(said)).astype(int)
    found = clone(clf).fit(X, y, sample_weight=weight)
    expected = clone(clf).fit(X[rows], y[rows])
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-4)
    np.testing.assert_allclose(found.bias_, expected.bias_, atol=1e-5)
