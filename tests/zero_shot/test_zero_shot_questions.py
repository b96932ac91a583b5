"""Ensembles, weights, templates, scorings, grades: each against plain numpy."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn import metrics
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from sk_medsiglip import (
    MedSigLIPTextEmbedder,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.encoder import load_encoder
from sk_medsiglip.exceptions import LabelCodesWarning, PromptError
from sk_medsiglip.heads import PromptProbe
from sk_medsiglip.prompts import check_prompts

CLASSES = {
    "pneumothorax": ["a collapsed lung"],
    "effusion": ["pleural effusion", "fluid around the lung", "a wet pleura"],
    "normal": ["a normal chest X-ray", "clear lungs"],
}
SORTED = sorted(CLASSES)
PAIR = {"effusion": {"positive": ["effusion", "fluid"], "negative": "clear pleura"}}
PAIRS = {
    "nodule": {"positive": "a lung nodule", "negative": ["no nodule", "clear lungs"]},
    "effusion": {"positive": ["an effusion", "fluid"], "negative": ["dry pleura"]},
    "device": {"positive": "a pacemaker", "negative": "no device"},
}
GRADES = {
    "none": "no retinopathy",
    "mild": "mild",
    "severe": ["severe", "proliferative"],
}


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(80, 32)).astype(np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def cosines(checkpoint, X):
    """Return the cosines of X with a list of texts, by the encoder alone."""
    encoder = load_encoder(checkpoint, device="cpu")

    def cosines(texts):
        rows = unit(X.astype(np.float64))
        return rows @ unit(encoder.encode_texts(list(texts)).astype(np.float64)).T

    cosines.encoder = encoder
    return cosines


# --------------------------------------------------------------- ensembles and weights


@pytest.mark.parametrize("weights", [None, (3.0, 0.5, 1.0)])
def test_ensembles_by_hand(make, cosines, X, weights):
    prompts = dict(CLASSES)
    w = np.ones(3)
    if weights:
        prompts["effusion"] = dict(zip(CLASSES["effusion"], weights, strict=True))
        w = np.array(weights)
    scale, bias = cosines.encoder.logit_scale, cosines.encoder.logit_bias

    each = cosines(CLASSES["effusion"])
    by_hand = {"scores": each @ w / w.sum(), "max": each.max(axis=1)}
    vectors = unit(cosines.encoder.encode_texts(CLASSES["effusion"]).astype(float))
    mean = w @ vectors
    by_hand["embeddings"] = unit(X.astype(float)) @ (mean / np.linalg.norm(mean))

    for ensemble, column in by_hand.items():
        clf = make(prompts, ensemble=ensemble)
        if weights and ensemble == "max":
            with pytest.raises(PromptError, match="cannot use"):
                clf.fit(X)
            continue
        clf.fit(X)
        np.testing.assert_allclose(
            clf.decision_function(X)[:, 0], scale * column + bias, atol=2e-5
        )
        # A class with one prompt is the same under all of them.
        alone = scale * cosines(CLASSES["pneumothorax"])[:, 0] + bias
        np.testing.assert_allclose(clf.decision_function(X)[:, 2], alone, atol=2e-5)


def test_weights_of_a_pair_and_of_templates(make, X):
    weighted = make(
        {"f": {"positive": {"a": 2, "b": 1}, "negative": {"c": 1.0}}},
        templates=["{} here", "there {}"],
    )
    repeated = make(
        {
            "f": {
                "positive": ["a here", "a here", "b here"]
                + ["there a", "there a", "there b"],
                "negative": ["c here", "there c"],
            }
        }
    )
    np.testing.assert_allclose(
        weighted.fit(X).decision_function(X),
        repeated.fit(X).decision_function(X),
        atol=1e-5,
    )
    question = check_prompts({"a": {"x": 2, "y": 1}, "b": "z"}, ["{}", "no {}"])
    assert question.texts[0] == ("x", "y", "no x", "no y")
    assert question.weights[0] == (2, 1, 2, 1)
    assert check_prompts({"a": {"x": 2, "y": 2}, "b": "z"}).weights is None


def test_a_weight_of_zero_leaves_a_prompt_out(make, X):
    without = make(CLASSES | {"effusion": CLASSES["effusion"][:2]}).fit(X)
    weights = dict(zip(CLASSES["effusion"], (1, 1, 0), strict=True))
    np.testing.assert_allclose(
        make(CLASSES | {"effusion": weights}).fit(X).predict_proba(X),
        without.predict_proba(X),
        atol=1e-6,
    )


def test_prompts_named_like_the_sides_may_be_weighted(make, X):
    question = check_prompts({"a": {"positive": 1, "negative": 2}, "b": "z"})
    assert not question.is_pairs
    assert question.texts[0] == ("positive", "negative")


def test_templates_by_class(make):
    templates = {"effusion": "an X-ray of {}", "normal": ["{}", "{} is seen"]}
    question = check_prompts(CLASSES, templates)
    assert question.texts[0][0] == "an X-ray of pleural effusion"
    assert len(question.texts[1]) == 4
    assert question.texts[2] == ("a collapsed lung",)
    of_findings = check_prompts(PAIRS, {"nodule": "CT: {}"})
    assert of_findings.texts[0] == ("CT: no nodule", "CT: clear lungs")
    assert of_findings.texts[3] == ("an effusion", "fluid")


def test_max_looks_at_ten_thousand_prompts_block_by_block(make, X, monkeypatch):
    clf = make(CLASSES, ensemble="max").fit(X)
    whole = clf.decision_function(X)
    monkeypatch.setattr("sk_medsiglip.zero_shot._scores._COSINES_AT_ONCE", 6 * 7)
    np.testing.assert_allclose(clf.decision_function(X), whole, atol=1e-6)
    assert clf.prompt_embeddings_.shape == (6, 32)
    assert clf.class_embeddings_.shape == (3, 32)


def test_hundreds_of_prompts_with_a_bar(make, X, capfd):
    prompts = {
        "a": [f"picture number {i}" for i in range(250)],
        "b": [f"image {i}, another" for i in range(250)],
    }
    clf = make(prompts, verbose=1).fit(X)
    assert clf.predict(X).shape == (80,)
    assert "500/500" in capfd.readouterr().err.replace(",", "")


# ------------------------------------------------------------------------------ scoring


def test_cosine_scoring_by_hand(make, cosines, X):
    texts = ["a collapsed lung", "a wet pleura", "clear lungs", "a rib"]
    c = cosines(texts)
    clf = make(dict(zip("abcd", texts, strict=True)), scoring="cosine").fit(X)
    np.testing.assert_allclose(clf.decision_function(X), c, atol=1e-5)
    for k in range(4):
        others = np.delete(c, k, axis=1).mean(axis=1)
        by_hand = (1 + (c[:, k] - others) / 2) / 4
        np.testing.assert_allclose(clf.predict_proba(X)[:, k], by_hand, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), np.array(list("abcd"))[c.argmax(1)])

    pair = {"f": {"positive": texts[0], "negative": texts[1]}}
    clf = make(pair, scoring="cosine").fit(X)
    difference = c[:, 0] - c[:, 1]  # as the chest X-ray notebooks score
    np.testing.assert_allclose(clf.decision_function(X), difference, atol=1e-5)
    np.testing.assert_allclose(
        clf.predict_proba(X)[:, 1], 0.5 + difference / 4, atol=1e-6
    )


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "cosine"])
@pytest.mark.parametrize("ensemble", ["embeddings", "scores", "max"])
def test_rows_sum_to_one_and_predict_agrees(make, X, scoring, ensemble):
    for prompts in (CLASSES, PAIR, {"b": "x", "a": "y"}):
        clf = make(prompts, scoring=scoring, ensemble=ensemble).fit(X)
        proba = clf.predict_proba(X)
        assert proba.dtype == np.float64
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-12)
        assert proba.min() >= 0
        np.testing.assert_array_equal(
            clf.predict(X), clf.classes_[proba.argmax(axis=1)]
        )
    clf = make(PAIRS, scoring=scoring, ensemble=ensemble).fit(X)
    np.testing.assert_array_equal(clf.predict(X), clf.predict_proba(X) > 0.5)


# ------------------------------------------------------- every scorer of scikit-learn's

# Scorers of clusterings, regression, and binary questions, which a target of the kind
# is not; scikit-learn raises for them by itself.
LABELS_ONLY = {
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "matthews_corrcoef": metrics.matthews_corrcoef,
    "f1": metrics.f1_score,
    "precision": metrics.precision_score,
    "recall": metrics.recall_score,
    "jaccard": metrics.jaccard_score,
    "positive_likelihood_ratio": lambda y, p: metrics.class_likelihood_ratios(y, p)[0],
    "neg_negative_likelihood_ratio": (
        lambda y, p: -metrics.class_likelihood_ratios(y, p)[1]
    ),
}
AVERAGED = ["f1", "precision", "recall", "jaccard"]
# These take the rows of several findings for shares of exclusive classes, and what
# they return means nothing: scikit-learn does not say so.
NOT_FOR_SEVERAL = {"neg_log_loss", "neg_brier_score", "d2_log_loss_score"} | {
    "d2_brier_score"
}


def regressions_and_clusterings():
    for name in get_scorer_names():
        module = get_scorer(name)._score_func.__module__
        if "_regression" in module or "cluster" in module:
            yield name


def by_hand(name, kind, y, clf, X):
    """Compute what a scorer should return from the answers themselves."""
    predicted, proba = clf.predict(X), clf.predict_proba(X)
    decision = clf.decision_function(X)
    base, _, average = name.partition("_")
    if average in ("macro", "micro", "weighted", "samples") and base in AVERAGED:
        return LABELS_ONLY[base](y, predicted, average=average)
    if name in LABELS_ONLY:
        return LABELS_ONLY[name](y, predicted)
    columns = range(len(clf.classes_))
    if kind == "several":
        each = {
            "roc_auc": metrics.roc_auc_score,
            "average_precision": metrics.average_precision_score,
        }
        aucs = [metrics.roc_auc_score(y[:, k], decision[:, k]) for k in columns]
        if name in ("roc_auc", "roc_auc_ovr", "roc_auc_ovo"):
            return np.mean(aucs)
        if name.startswith("roc_auc"):
            return np.average(aucs, weights=y.sum(axis=0))
        return np.mean([each[name](y[:, k], decision[:, k]) for k in columns])
    one_hot = y[:, None] == clf.classes_
    loss = -np.log(proba[one_hot]).mean()
    brier = ((proba - one_hot) ** 2).sum(axis=1).mean()
    shares = one_hot.mean(axis=0)
    if kind == "binary":
        brier = ((proba - one_hot) ** 2)[:, 1].mean()
        null_brier = ((one_hot - shares) ** 2)[:, 1].mean()
    else:
        null_brier = ((one_hot - shares) ** 2).sum(axis=1).mean()
    entropy = -(shares * np.log(shares)).sum()
    simple = {
        "neg_log_loss": -loss,
        "neg_brier_score": -brier,
        "d2_log_loss_score": 1 - loss / entropy,
        "d2_brier_score": 1 - brier / null_brier,
    }
    if name in simple:
        return simple[name]
    if kind == "binary":
        if name == "average_precision":
            return metrics.average_precision_score(y, decision)
        if name == "top_k_accuracy":
            return 1.0
        return metrics.roc_auc_score(y, decision)
    if name == "top_k_accuracy":
        best = np.argsort(-decision, axis=1)[:, :2]
        return np.mean(np.any(clf.classes_[best] == y[:, None], axis=1))
    if name == "average_precision":
        return np.mean(
            [
                metrics.average_precision_score(one_hot[:, k], decision[:, k])
                for k in columns
            ]
        )
    weights = one_hot.sum(axis=0) if name.endswith("weighted") else None
    if "ovr" in name:
        aucs = [metrics.roc_auc_score(one_hot[:, k], proba[:, k]) for k in columns]
        return np.average(aucs, weights=weights)
    pairs, sizes = [], []
    for a in columns:
        for b in range(a + 1, len(clf.classes_)):
            rows = one_hot[:, a] | one_hot[:, b]
            pairs.append(
                np.mean(
                    [
                        metrics.roc_auc_score(one_hot[rows, c], proba[rows, c])
                        for c in (a, b)
                    ]
                )
            )
            sizes.append(rows.mean())
    return np.average(pairs, weights=sizes if name.endswith("weighted") else None)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "several"])
def test_every_fitting_scorer_agrees_with_a_hand_computation(make, X, kind, scoring):
    rng = np.random.default_rng(1)
    prompts = {"binary": PAIR, "multiclass": CLASSES, "several": PAIRS}[kind]
    clf = make(prompts, scoring=scoring).fit(X)
    if kind == "several":
        y = rng.integers(0, 2, (len(X), 3))
    else:
        y = rng.choice(clf.classes_, len(X))
    unfit = set(regressions_and_clusterings())
    if kind == "several":
        unfit |= NOT_FOR_SEVERAL
    ran = set()
    for name in sorted(set(get_scorer_names()) - unfit):
        try:
            value = get_scorer(name)(clf, X, y)
        except ValueError as error:
            # scikit-learn's own "not for this kind of target".
            said = str(error)
            assert any(
                words in said
                for words in (
                    "not supported",
                    "average=",
                    "only supports",
                    "1d array",
                    "not available outside of multilabel",
                    "multi_class must be",
                )
            ), (name, said)
            continue
        if np.isnan(value):
            continue
        assert value == pytest.approx(by_hand(name, kind, y, clf, X), rel=1e-5), name
        ran.add(name)
    core = {"accuracy", "average_precision", "f1_macro", "recall_micro"}
    core |= {"roc_auc_ovr", "roc_auc_ovo"} | ({"neg_log_loss"} - unfit)
    assert core <= ran
    assert len(ran) >= 20


@pytest.mark.filterwarnings("ignore::sk_medsiglip.exceptions.LabelCodesWarning")
@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
@pytest.mark.parametrize("prompts", [PAIR, CLASSES, PAIRS])
def test_cross_val_predict_takes_every_method(make, X, prompts, method):
    rng = np.random.default_rng(2)
    clf = make(prompts).fit(X)
    if clf.classes_.ndim == 2:
        y = rng.integers(0, 2, (len(X), 3))
    else:
        y = rng.choice(clf.classes_, len(X))
    predicted = cross_val_predict(make(prompts), X, y, method=method, cv=3)
    expected = getattr(clf, method)(X)
    if method == "predict":
        np.testing.assert_array_equal(predicted, expected)
    else:
        np.testing.assert_allclose(predicted, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:labels and scores contradict")
def test_numbers_are_places_among_names(make, X):
    names = np.random.default_rng(3).choice(SORTED, len(X))
    codes = np.searchsorted(SORTED, names)
    with pytest.warns(LabelCodesWarning, match="'effusion'"):
        clf = make(CLASSES, calibrate="temperature_bias").fit(X, codes)
    assert clf.classes_.tolist() == [0, 1, 2]
    by_name = make(CLASSES, calibrate="temperature_bias").fit(X, names)
    np.testing.assert_array_equal(clf.predict_proba(X), by_name.predict_proba(X))
    np.testing.assert_array_equal(
        clf.predict(X), np.searchsorted(SORTED, by_name.predict(X))
    )
    with pytest.warns(LabelCodesWarning, match="not occur"):
        fold = make(CLASSES).fit(X, np.minimum(codes, 1))  # a fold lacks a class
    assert fold.classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="labels"):
        make(CLASSES).fit(X, codes + 1)
    with pytest.warns(LabelCodesWarning):
        probe = PromptProbe(make(CLASSES).fit(X), cv=2).fit(X, codes)
    assert probe.classes_.tolist() == [0, 1, 2]


# ------------------------------------------------------------------------------- grades


def test_grades_by_hand(make, X):
    clf = make(GRADES, ordinal=True).fit(X)
    assert clf.classes_.tolist() == ["mild", "none", "severe"]
    assert clf.grades_.tolist() == ["none", "mild", "severe"]
    mild, none, severe = clf.predict_proba(X).T
    np.testing.assert_allclose(clf.predict_grade(X), mild + 2 * severe)
    above = clf.predict_cumulative_proba(X)
    assert above.shape == (80, 2)
    np.testing.assert_allclose(above[:, 0], mild + severe)
    np.testing.assert_allclose(above[:, 1], severe)
    np.testing.assert_allclose(above[:, 0], 1 - none)


def test_grades_that_are_numbers_have_their_own_order_and_size(make, X):
    clf = make({4: "most", 0: "none", 2: "some"}, ordinal=True).fit(X)
    assert clf.grades_.tolist() == [0, 2, 4]
    np.testing.assert_allclose(
        clf.predict_grade(X), clf.predict_proba(X) @ np.array([0, 2, 4])
    )
    assert set(clf.predict(X)) <= {0, 2, 4}


def test_probability_of_more_is_never_over_one(make, X):
    sharp = make({i: f"word {i}" for i in range(9)}, ordinal=True).fit(X)
    sharp.logit_scale_ = 500.0
    above = sharp.predict_cumulative_proba(X)
    assert above.max() <= 1
    assert (np.diff(above, axis=1) <= 0).all()


def test_only_grades_have_an_order(make, X):
    clf = make(GRADES).fit(X)
    assert not hasattr(clf, "predict_grade")
    assert not hasattr(clf, "grades_")
    with pytest.raises(PromptError, match="no order"):
        make(PAIRS, ordinal=True).fit(X)


# ---------------------------------------------------------------- what it stands beside


def test_reports_are_classified_by_the_same_prompts(checkpoint, shared_store):
    texts = ["pleural effusion", "a collapsed lung", "clear lungs"]
    clf = make_pipeline(
        MedSigLIPTextEmbedder(checkpoint, device="cpu", cache=shared_store),
        ZeroShotClassifier(
            dict(zip("abc", texts, strict=True)),
            model=checkpoint,
            device="cpu",
            cache=shared_store,
        ),
    )
    reports = pd.Series(reversed(texts))
    assert clf.fit(reports).predict(reports).tolist() == ["c", "b", "a"]


def test_pipeline_passes_everything_on(checkpoint, shared_store):
    images = np.random.default_rng(3).integers(0, 256, (5, 30, 40), dtype=np.uint8)
    pipe = make_zero_shot_pipeline(
        {0: "none", 1: "some", 2: ["much", "a lot"]},
        ensemble="max",
        ordinal=True,
        scoring="sigmoid",
        calibrate="prevalence",
        prevalence={0: 0.5, 1: 0.25, 2: 0.25},
        model=checkpoint,
        device="cpu",
        cache=shared_store,
    ).fit(images)
    np.testing.assert_allclose(
        pipe.predict_proba(images).mean(axis=0), [0.5, 0.25, 0.25], atol=1e-6
    )
    assert pipe[-1].predict_grade(pipe[:-1].transform(images)).shape == (5,)


def test_images_are_told_of_the_pipeline(make):
    with pytest.raises(ValueError, match="make_zero_shot_pipeline"):
        make(CLASSES).fit(np.zeros((2, 8, 8, 3)))
    with pytest.raises(ValueError, match="check_images"):
        make_zero_shot_pipeline(CLASSES, on_error="nan")


def test_weighted_prompts_named_like_sides_are_classes(make):
    prompts = {name: {"positive": 1.0, "negative": 2.0} for name in "ab"}
    assert not get_tags(make(prompts)).classifier_tags.multi_label


def test_anchors_of_heads_have_length_one(make, X):
    y = np.random.default_rng(4).choice(SORTED, len(X))
    for ensemble in ("embeddings", "scores", "max"):
        of = make(CLASSES, ensemble=ensemble).fit(X)
        lengths = np.linalg.norm(of.class_embeddings_, axis=1)
        assert (lengths.min() < 0.999) == (ensemble == "scores")
        probe = PromptProbe(of, cv=2).fit(X, y)
        plain = PromptProbe(make(CLASSES).fit(X), cv=2).fit(X, y)
        np.testing.assert_allclose(
            probe.decision_function(X), plain.decision_function(X), atol=1e-4
        )


def test_sigmoid_of_one_logit_is_what_siglip_was_trained_for(make, cosines, X):
    texts = [one[0] for one in CLASSES.values()]
    clf = make(dict(zip(SORTED, texts, strict=True))).fit(X)
    encoder = cosines.encoder
    logits = encoder.logit_scale * cosines(texts) + encoder.logit_bias
    np.testing.assert_allclose(
        expit(clf.decision_function(X)), expit(logits), atol=1e-5
    )
