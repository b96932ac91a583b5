"""``LinearProbe`` beside scikit-learn's own, and what only it does."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn import config_context
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import get_scorer, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    StratifiedKFold,
    cross_val_predict,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, PromptProbe
from sk_medsiglip.exceptions import PromptError
from sk_medsiglip.heads import explain_head

CS = np.logspace(-3, 2, 6)


def make_data(n=200, n_classes=2, n_features=15):
    return make_classification(
        n,
        n_features,
        n_informative=6,
        n_classes=n_classes,
        class_sep=0.8,
        flip_y=0.1,
        random_state=0,
    )


def make_labels(X, n_labels=3, unknown=0.3):
    rng = np.random.default_rng(0)
    Y = X @ rng.normal(size=(X.shape[1], n_labels)) + rng.normal(
        size=(len(X), n_labels)
    )
    Y = (Y > 0.5).astype(float)
    Y[rng.random(Y.shape) < unknown] = np.nan
    return Y


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(
    "scoring", ["neg_log_loss", "accuracy", "roc_auc_ovr", "balanced_accuracy"]
)
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_it_is_logistic_regression_cv(n_classes, scoring, refit, class_weight):
    X, y = make_data(n_classes=n_classes)
    settings = {"scoring": scoring, "refit": refit, "class_weight": class_weight}
    ours = LinearProbe(CS, cv=3, tol=1e-12, **settings).fit(X, y)
    theirs = LogisticRegressionCV(
        Cs=CS,
        cv=3,
        tol=1e-8,
        max_iter=10_000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
        **settings,
    ).fit(X, y)
    np.testing.assert_array_equal(ours.Cs_, theirs.Cs_)
    np.testing.assert_allclose(ours.scores_, theirs.scores_, atol=5e-3)
    assert ours.n_iter_.shape == theirs.n_iter_.shape
    compared = theirs.scores_.mean(axis=0) if refit else theirs.scores_
    best = compared == compared.max(axis=-1, keepdims=True)
    if (best.sum(axis=-1) > 1).any():
        return  # scikit-learn takes the smallest C of a tie, we that of the best loss
    assert ours.C_ == pytest.approx(theirs.C_)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(
        ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3
    )
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    np.testing.assert_allclose(
        ours.predict_log_proba(X), np.log(ours.predict_proba(X)), atol=1e-9
    )


def test_given_penalties_are_chosen_as_logistic_regression_cv_does():
    # Few and far apart: the log loss out of folds falls to the weakest penalty.
    X, y = make_data(24)
    X += 3 * X.std() * np.where(y == 1, 1, -1)[:, None]
    theirs = LogisticRegressionCV(
        Cs=CS,
        cv=3,
        scoring="neg_log_loss",
        tol=1e-8,
        max_iter=10_000,
        l1_ratios=(0,),
        use_legacy_attributes=False,
    ).fit(X, y)
    assert theirs.C_ == CS[-1]
    for scoring in (None, "neg_log_loss"):
        ours = LinearProbe(CS, cv=3, tol=1e-12, scoring=scoring).fit(X, y)
        assert ours.C_ == pytest.approx(theirs.C_)
        np.testing.assert_allclose(ours.scores_, theirs.scores_, atol=1e-4)
    assert LinearProbe(cv=3, scoring="neg_log_loss").fit(X, y).C_ == 1e4
    # A number of penalties, and nobody named a score: not surer than labels vouch for.
    probe = LinearProbe(cv=3).fit(X, y)
    assert probe.C_ < 1
    assert 0.8 < probe.predict_proba(X).max(axis=1).mean() < 0.99
    assert (probe.predict(X) == y).all()


def test_the_constant_model_wins_where_there_is_nothing_to_learn():
    rng = np.random.default_rng(0)
    X, y = 100 * rng.normal(size=(150, 40)), (rng.random(150) < 0.3).astype(int)
    probe = LinearProbe().fit(X, y)
    assert probe.C_ == probe.Cs_[0]
    assert len(probe.Cs_) == 11
    said = probe.predict_proba(X)[:, 1]
    np.testing.assert_allclose(said, y.mean(), atol=1e-3)
    given = LinearProbe(np.logspace(-4, 4, 10)).fit(X, y)
    assert given.C_ == 1e-4
    np.testing.assert_array_equal(probe.Cs_[1:], given.Cs_)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("n_samples", [4, 40, 400])
def test_the_constant_model_still_ranks(n_samples, scale):
    # Rows of length 1, or long ones.
    X, y = make_classification(n_samples, class_sep=2.0, random_state=0)
    X *= scale / np.linalg.norm(X, axis=1, keepdims=True)
    constant, *_, _ = LinearProbe(1, cv=2).fit(X, y).Cs_
    probe, next_to_it = (LinearProbe([C], cv=2).fit(X, y) for C in (constant, 1e-4))
    said = probe.predict_proba(X)[:, 1]
    np.testing.assert_allclose(said, y.mean(), atol=1e-3)
    if scale == 1:  # elsewhere 1e-4 is far from constant
        answers = [one.decision_function(X) for one in (probe, next_to_it)]
        assert np.corrcoef(answers)[0, 1] > 0.999
    assert roc_auc_score(y, probe.decision_function(X)) > 0.9


def test_labels_are_smoothed_by_how_many_they_are():
    wrong = 1 / 32  # thirty answers
    for rows, target in (make_data(30), make_data(30, n_classes=3)):
        probe = LinearProbe(cv=3, tol=1e-10).fit(rows, target)
        expected = []
        for learns, asked in StratifiedKFold(3).split(rows, target):
            fitted = LogisticRegression(C=probe.Cs_[5], tol=1e-10, max_iter=10_000)
            log_p = fitted.fit(rows[learns], target[learns]).predict_log_proba(
                rows[asked]
            )
            n_classes = log_p.shape[1]
            truth = np.eye(n_classes)[target[asked]]
            share = (1 - wrong) * truth + wrong * (1 - truth) / (n_classes - 1)
            expected.append((share * log_p).sum(axis=1).mean())
        np.testing.assert_allclose(probe.scores_[:, 0, 5], expected, atol=1e-3)


def test_string_labels_and_names_of_columns():
    X, y = make_data(n_classes=3)
    frame = pd.DataFrame(X, columns=[f"medsiglip{i}" for i in range(X.shape[1])])
    names = np.array(["normal", "effusion", "nodule"])[y]
    probe = LinearProbe().fit(frame, names)
    assert probe.classes_.tolist() == ["effusion", "nodule", "normal"]
    assert set(probe.predict(frame)) <= set(names)
    assert list(probe.feature_names_in_) == list(frame.columns)
    with pytest.raises(ValueError, match="feature names"):
        probe.predict(frame.iloc[:, ::-1])


def test_weights_are_repeats():
    X, y = make_data()
    weight = np.random.default_rng(0).integers(0, 3, len(y))
    rows = np.repeat(np.arange(len(y)), weight)
    settings = {"Cs": [1.0], "tol": 1e-13, "cv": KFold(2)}
    weighted = LinearProbe(**settings).fit(X, y, sample_weight=weight.astype(float))
    repeated = LinearProbe(**settings).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-5)


@pytest.mark.parametrize("n_samples", [10, 60])
def test_float32_and_float64_agree(n_samples):
    X, y = make_data(n_samples)
    small = LinearProbe().fit(X.astype(np.float32), y)
    exact = LinearProbe().fit(X, y)
    np.testing.assert_allclose(small.scores_, exact.scores_, rtol=1e-2)
    np.testing.assert_allclose(
        small.predict_proba(X.astype(np.float32)),
        LinearProbe([small.C_], cv=2).fit(X, y).predict_proba(X),
        atol=5e-3,
    )


def test_few_labels_never_raise():
    X, y = make_data(40)
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    for n in (2, 3, 4, 5):
        rows = np.concatenate([positive[:n], negative[:20]])
        probe = LinearProbe().fit(X[rows], y[rows])
        assert len(probe.scores_) == n
    rows = np.concatenate([positive[:1], negative[:1]])
    with pytest.warns(UserWarning, match="two samples.*C=1"):
        probe = LinearProbe().fit(X[rows], y[rows])
    assert probe.C_ == 1
    assert not hasattr(probe, "scores_")
    expected = LogisticRegression(C=1).fit(X[rows], y[rows])
    np.testing.assert_allclose(probe.coef_, expected.coef_, atol=1e-3)


def test_groups_reach_the_folds_through_a_pipeline():
    X, y = make_data(120)
    groups = np.random.default_rng(0).integers(0, 30, 120)
    expected = LinearProbe().fit(StandardScaler().fit_transform(X), y, groups=groups)
    without = LinearProbe().fit(StandardScaler().fit_transform(X), y)
    assert not np.allclose(expected.scores_, without.scores_)
    pipe = make_pipeline(StandardScaler(), LinearProbe())
    pipe.fit(X, y, linearprobe__groups=groups)
    np.testing.assert_array_equal(pipe[-1].scores_, expected.scores_)
    with config_context(enable_metadata_routing=True):
        probe = LinearProbe().set_fit_request(groups=True)
        search = GridSearchCV(
            make_pipeline(StandardScaler(), probe),
            {"linearprobe__fit_intercept": [True]},
            cv=GroupKFold(3),
        )
        search.fit(X, y, groups=groups)
    # The search's own refit was given the groups.
    found = search.best_estimator_[-1].scores_
    np.testing.assert_array_equal(found, expected.scores_)


@pytest.mark.parametrize("scoring", [None, "roc_auc", "accuracy"])
def test_several_labels_are_probes_side_by_side(scoring):
    X, _ = make_data()
    Y = make_labels(X)
    together = LinearProbe(CS, tol=1e-12, scoring=scoring).fit(X, Y)
    assert together.coef_.shape == (3, 15)
    assert together.scores_.shape == together.n_iter_.shape == (3, 5, 1, 6)
    for label in range(3):
        known = ~np.isnan(Y[:, label])
        alone = LinearProbe(CS, tol=1e-12, scoring=scoring)
        alone.fit(X[known], Y[known, label].astype(int))
        assert together.C_[label] == alone.C_
        np.testing.assert_allclose(together.scores_[label], alone.scores_, atol=1e-5)
        np.testing.assert_allclose(together.coef_[label], alone.coef_[0], atol=1e-4)
        np.testing.assert_allclose(
            together.predict_proba(X)[:, label],
            alone.predict_proba(X)[:, 1],
            atol=1e-4,
        )
    assert [one.tolist() for one in together.classes_] == [[0, 1]] * 3
    complete = make_labels(X, unknown=0)
    probe = LinearProbe().fit(X, complete)
    # In the shapes that scikit-learn's own scorers take.
    auc = get_scorer("roc_auc")(probe, X, complete)
    assert auc == pytest.approx(roc_auc_score(complete, probe.decision_function(X)))
    assert get_scorer("average_precision")(probe, X, complete) > 0.5
    assert get_scorer("f1_macro")(probe, X, complete) > 0.5


def test_a_label_with_too_few_samples_does_not_stop_the_others():
    X, _ = make_data()
    Y = make_labels(X, unknown=0)
    Y[:, 1] = 0
    Y[3, 1] = 1
    with pytest.warns(UserWarning, match=r"\[1\].*C=1"):
        probe = LinearProbe(CS).fit(X, Y)
    assert probe.C_[1] == 1
    assert np.isnan(probe.scores_[1]).all()
    assert not np.isnan(probe.scores_[[0, 2]]).any()
    nullable = pd.DataFrame(make_labels(X)).astype("Int64")
    assert LinearProbe(CS).fit(X, nullable).coef_.shape == (3, 15)


def test_a_label_that_is_never_there():
    X, _ = make_data(60)
    Y = make_labels(X, unknown=0)
    Y[:, 2] = 0
    with pytest.warns(UserWarning, match="columns"):
        probe = LinearProbe(CS).fit(X, Y)
    assert (probe.predict(X)[:, 2] == 0).all()
    assert np.isfinite(probe.coef_).all()


def test_class_weights_of_labels():
    X, _ = make_data()
    Y = make_labels(X)
    probe = LinearProbe([1.0], class_weight=["balanced", None, {0: 1, 1: 5}], cv=2)
    probe.fit(X, Y)
    for label, weight in enumerate(["balanced", None, {0: 1, 1: 5}]):
        known = ~np.isnan(Y[:, label])
        alone = LogisticRegression(C=1.0, class_weight=weight, tol=1e-8)
        alone.fit(X[known], Y[known, label])
        np.testing.assert_allclose(probe.coef_[label], alone.coef_[0], atol=1e-3)
    with pytest.raises(ValueError, match="2 entries"):
        LinearProbe(class_weight=["balanced", None]).fit(X, Y)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (None, "requires y"),
        (np.zeros(20), "one class"),
        (np.linspace(0, 1, 20), "Unknown label type"),
        ([None] * 10 + ["a"] * 10, "missing values"),
        (np.full((20, 2), -1), "got -1.*uncertain"),
        (np.full((20, 2), "a"), "must hold 1, 0, and NaN"),
        (np.column_stack([np.arange(20) % 2, np.full(20, np.nan)]), "column 1"),
        (np.zeros(5), "inconsistent"),
    ],
)
def test_wrong_labels_are_refused(y, match):
    X = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(ValueError, match=match):
        LinearProbe().fit(X, y)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"Cs": 0}, "'Cs' parameter"),
        ({"Cs": [-1.0]}, "positive"),
        ({"tol": 0}, "'tol' parameter"),
        ({"scoring": "nonsense"}, "'scoring' parameter"),
        ({"cv": 1.5}, "'cv' parameter"),
        ({"refit": "yes"}, "'refit' parameter"),
    ],
)
def test_wrong_parameters_are_refused(settings, match):
    X, y = make_data(30)
    with pytest.raises(ValueError, match=match):
        LinearProbe(**settings).fit(X, y)


def test_what_does_not_fit_the_rows_is_refused():
    X, y = make_data(30)
    for head in (LinearProbe(), PromptProbe()):
        with pytest.raises(ValueError, match="7 ids"):
            head.fit(X, y, groups=np.zeros(7))
        with pytest.raises(ValueError, match="sample_weight.shape"):
            head.fit(X, y, sample_weight=np.ones(7))
    with pytest.raises(ValueError, match="device='nonsense'"):
        LinearProbe(device="nonsense").fit(X, y)


def test_too_few_steps_warn():
    X, y = make_data()
    with pytest.warns(UserWarning, match="converge"):
        LinearProbe(max_iter=2).fit(X, y)


def test_nothing_but_coefficients_is_kept(tmp_path):
    X, y = make_data(1000)
    probe = LinearProbe().fit(X, y)
    joblib.dump(probe, tmp_path / "probe.joblib")
    assert (tmp_path / "probe.joblib").stat().st_size < 4000
    again = joblib.load(tmp_path / "probe.joblib")
    np.testing.assert_array_equal(again.predict_proba(X), probe.predict_proba(X))
    assert len(pickle.dumps(probe)) < 4000


def test_in_cross_validation_of_embeddings():
    from sk_medsiglip.datasets import make_chest_phantoms

    phantoms = make_chest_phantoms(80, random_state=0)
    pipe = make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe(cv=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cross_val_predict(
            pipe,
            phantoms.images,
            phantoms.target[:, 1],
            method="decision_function",
            groups=phantoms.groups,
            cv=GroupKFold(3),
        )
    assert roc_auc_score(phantoms.target[:, 1], found) > 0.9


# ------------------------------------------------------------------------- explain_head


@pytest.fixture(scope="module")
def embedded():
    from sk_medsiglip.datasets import make_chest_phantoms

    phantoms = make_chest_phantoms(300, random_state=0)
    X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    return X, phantoms.target, phantoms.target_names


WORDS = {
    "cardiomegaly": "an enlarged heart",
    "effusion": "a pleural effusion",
    "pneumothorax": "a pneumothorax",
    "consolidation": "a consolidation",
    "nodule": "a nodule",
    "device": "a pacemaker",
}


def test_a_head_is_explained_by_the_prompts_of_what_it_learned(embedded):
    X, Y, names = embedded
    probe = LinearProbe().fit(X, Y)
    table = explain_head(probe, list(WORDS.values()), top=1, model="demo")
    hits = [WORDS[names[row["class"]]] == row["prompt"] for _, row in table.iterrows()]
    assert sum(hits) >= 5
    whole = explain_head(probe, list(WORDS.values()), top=None, model="demo")
    assert len(whole) == 36
    assert (whole.groupby("class")["cosine"].diff().dropna() <= 0).all()


def test_a_pipeline_is_explained_through_its_scaling(embedded):
    X, Y, _ = embedded
    y = np.where(Y[:, 1] == 1, "effusion", "other")
    scaled = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(X, y)
    table = explain_head(scaled, list(WORDS.values()), top=None, model="demo")
    # One direction, towards "other": the prompt of the first class lies farthest.
    assert table["class"].unique().tolist() == ["other"]
    assert table["prompt"].iloc[-1] == WORDS["effusion"]


def test_what_cannot_be_explained_says_so(embedded):
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KNeighborsClassifier

    X, Y, _ = embedded
    y = Y[:, 1]
    probe = LinearProbe().fit(X, y)
    with pytest.raises(PromptError, match="got 1"):
        explain_head(probe, "one", model="demo")
    with pytest.raises(ValueError, match="no coef_"):
        explain_head(KNeighborsClassifier().fit(X, y), ["a", "b"], model="demo")
    pipe = make_pipeline(PCA(5), LogisticRegression()).fit(X, y)
    with pytest.raises(ValueError, match="'pca'"):
        explain_head(pipe, ["a", "b"], model="demo")
    with pytest.raises(ValueError, match="3 weights"):
        explain_head(LinearProbe().fit(X[:, :3], y), ["a", "b"], model="demo")
