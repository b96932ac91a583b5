"""Prompts to classes: formulas by hand, shapes that sklearn's scorers accept."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, log_expit
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import get_tags

from sk_medsiglip import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.encoder import load_encoder
from sk_medsiglip.exceptions import PromptError, PromptWarning
from sk_medsiglip.prompts import check_prompts, encode_class_vectors

CLASSES = {
    "pneumothorax": "a collapsed lung",
    "effusion": ["pleural effusion", "fluid around the lung"],
    "normal": ["a normal chest X-ray"],
}
PAIR = {"effusion": {"positive": ["pleural effusion"], "negative": "clear pleura"}}
PAIRS = {
    "nodule": {"positive": "a lung nodule", "negative": "no nodule"},
    "effusion": {"positive": ["an effusion", "fluid"], "negative": ["dry pleura"]},
}


@pytest.fixture(scope="module")
def X():
    return np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def logits_by_hand(checkpoint, X, groups):
    """The formula of the paper on plain arrays, one group of texts a class."""
    encoder = load_encoder(checkpoint, device="cpu")
    classes = [unit(unit(encoder.encode_texts(g)).mean(axis=0)) for g in groups]
    cosines = unit(X) @ np.stack(classes).T
    return encoder.logit_scale * cosines + encoder.logit_bias


SORTED_GROUPS = [
    ["pleural effusion", "fluid around the lung"],
    ["a normal chest X-ray"],
    ["a collapsed lung"],
]


def test_logits_and_both_scorings_by_hand(make, checkpoint, X):
    logits = logits_by_hand(checkpoint, X, SORTED_GROUPS)
    clf = make(CLASSES).fit(X)
    assert clf.classes_.tolist() == ["effusion", "normal", "pneumothorax"]
    np.testing.assert_allclose(clf.decision_function(X), logits, atol=1e-4)
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmaxed = exps / exps.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(clf.predict_proba(X), softmaxed, atol=1e-5)
    sigmoids = expit(logits.astype(np.float64))
    sigmoids /= sigmoids.sum(axis=1, keepdims=True)
    sig = make(CLASSES, scoring="sigmoid").fit(X)
    np.testing.assert_allclose(sig.predict_proba(X), sigmoids, atol=1e-5)
    np.testing.assert_array_equal(sig.predict(X), clf.predict(X))
    assert np.array_equal(clf.predict(X), clf.classes_[logits.argmax(axis=1)])


def test_one_pair_is_binary(make, checkpoint, X):
    absent, present = logits_by_hand(
        checkpoint, X, [["clear pleura"], ["pleural effusion"]]
    ).T
    clf = make(PAIR).fit(X)
    assert clf.classes_.tolist() == [0, 1]
    assert clf.findings_.tolist() == ["effusion"]
    np.testing.assert_allclose(clf.decision_function(X), present - absent, atol=1e-4)
    np.testing.assert_allclose(
        clf.predict_proba(X)[:, 1], expit(present - absent), atol=1e-5
    )
    assert clf.predict_proba(X).shape == (60, 2)
    np.testing.assert_array_equal(clf.predict(X), (present > absent).astype(int))


def test_several_pairs_are_multilabel(make, checkpoint, X):
    groups = [
        ["no nodule"],
        ["a lung nodule"],
        ["dry pleura"],
        ["an effusion", "fluid"],
    ]
    logits = logits_by_hand(checkpoint, X, groups)
    margins = np.stack([logits[:, 1] - logits[:, 0], logits[:, 3] - logits[:, 2]], 1)
    for scoring in ("softmax", "sigmoid"):
        clf = make(PAIRS, scoring=scoring).fit(X)
        assert clf.findings_.tolist() == ["nodule", "effusion"]
        assert [c.tolist() for c in clf.classes_] == [[0, 1], [0, 1]]
        assert clf.class_embeddings_.shape == (2, 2, 32)
        scores = logits if scoring == "softmax" else log_expit(logits)
        np.testing.assert_allclose(
            clf.decision_function(X), scores[:, 1::2] - scores[:, ::2], atol=1e-4
        )
        np.testing.assert_array_equal(clf.predict(X), (margins > 0).astype(int))
    softmaxed = make(PAIRS).fit(X).predict_proba(X)
    np.testing.assert_allclose(softmaxed, expit(margins), atol=1e-5)
    sigmoids = expit(logits.astype(np.float64))
    expected = sigmoids[:, 1::2] / (sigmoids[:, 1::2] + sigmoids[:, ::2])
    np.testing.assert_allclose(clf.predict_proba(X), expected, atol=1e-5)


def test_two_classes_have_a_one_dimensional_decision(make, X):
    clf = make({"b": "a rib", "a": "a heart"}).fit(X)
    assert clf.decision_function(X).shape == (60,)
    np.testing.assert_array_equal(clf.predict(X) == "b", clf.decision_function(X) > 0)


def test_length_of_embeddings_does_not_matter(make, X):
    clf = make(CLASSES).fit(X)
    np.testing.assert_allclose(
        clf.predict_proba(X * 37), clf.predict_proba(X), rtol=1e-4
    )
    zeros = np.zeros((1, 32), np.float32)
    assert np.isfinite(clf.predict_proba(zeros)).all()


def test_templates_cross_prompts(make, checkpoint, shared_store):
    question = check_prompts(CLASSES, ["an X-ray of {}", "{} is seen"])
    assert question.texts[0] == (
        "an X-ray of pleural effusion",
        "an X-ray of fluid around the lung",
        "pleural effusion is seen",
        "fluid around the lung is seen",
    )
    texts = MedSigLIPTextEmbedder(checkpoint, device="cpu", cache=shared_store)
    vectors = encode_class_vectors(question.texts, texts)
    by_hand = unit(unit(texts.transform(list(question.texts[0]))).mean(axis=0))
    np.testing.assert_allclose(vectors[0], by_hand, atol=1e-6)
    X = np.eye(32, dtype=np.float32)
    np.testing.assert_allclose(
        make(CLASSES, templates=["an X-ray of {}", "{} is seen"])
        .fit(X)
        .class_embeddings_,
        vectors,
    )


def test_labels_outside_the_prompts_are_an_error(make, X):
    y = np.array(["effusion", "normal", "fracture"] * 20)
    with pytest.raises(ValueError, match="fracture"):
        make(CLASSES).fit(X, y)
    with pytest.raises(ValueError, match=r"\[2\]"):
        make(PAIR).fit(X, np.full(60, 2))
    with pytest.raises(ValueError, match=r"\(n_samples, 2\)"):
        make(PAIRS).fit(X, np.zeros(60))
    make(CLASSES).fit(X, y[y != "fracture"].repeat(2)[:60])
    make(PAIR).fit(X, np.arange(60) % 2 == 0)
    make(PAIRS).fit(X, np.zeros((60, 2), int))


def test_columns_of_y_in_another_order_are_an_error(make, X):
    y = pd.DataFrame({"effusion": [0, 1] * 30, "nodule": [0, 0, 1] * 20})
    with pytest.raises(ValueError, match=r"y\[\['nodule', 'effusion'\]\]"):
        make(PAIRS).fit(X, y)
    make(PAIRS).fit(X, y[["nodule", "effusion"]])
    make(PAIRS).fit(X, y.set_axis(["Nodule", "EFFUSION"], axis=1))
    with pytest.warns(PromptWarning, match="'a' for"):
        make(PAIRS).fit(X, y.set_axis(["a", "effusion"], axis=1))
    # A name in the place of another, beside one that nobody knows.
    with pytest.raises(ValueError, match="compare"):
        make(PAIRS).fit(X, y.set_axis(["effusion", "b"], axis=1))


def test_missing_labels_are_named(make, X):
    for missing in (None, np.nan, pd.NA):
        y = pd.Series(["normal", missing] * 30, dtype=object)
        with pytest.raises(ValueError, match="y contains"):
            make(CLASSES).fit(X, y)


def test_tags_say_multilabel_for_several_findings(make):
    assert get_tags(make(PAIRS)).classifier_tags.multi_label
    assert get_tags(make(PAIRS)).target_tags.multi_output
    for prompts in (PAIR, CLASSES):
        assert not get_tags(make(prompts)).classifier_tags.multi_label


def test_other_width_names_both_models(make, checkpoint):
    X = np.ones((3, 1152), np.float32)
    with pytest.raises(ValueError, match="google/medsiglip-448") as error:
        make(CLASSES).fit(X)
    assert str(checkpoint) in str(error.value)
    clf = make(CLASSES).fit(np.ones((3, 32), np.float32))
    with pytest.raises(ValueError, match="32 features"):
        clf.predict(X)


@pytest.mark.parametrize(
    ("prompts", "templates", "message"),
    [
        (["a", "b"], None, "must be a dict"),
        ({}, None, "is empty"),
        ({"a": "one"}, None, "needs two"),
        ({"a": "one", "b": {"positive": "x", "negative": "y"}}, None, "mixes"),
        ({"a": {"positive": "x"}}, None, '"positive" and "negative"'),
        ({"a": "one", "b": []}, None, "class 'b': expected a text"),
        ({"a": "one", "b": " "}, None, "not a text with words"),
        ({"a": "one", "b": [3]}, None, "class 'b': 3 is not a text"),
        ({"a": "one", 1: "two"}, None, "different types"),
        ({"a": "one", "b": "two"}, "no hole", "exactly one {}"),
        ({"a": "one", "b": "two"}, [], "templates is empty"),
        ({"a": "one", "b": "two"}, "{} of {name}", "'{name}', which cannot"),
        ({"a": "one", "b": "two"}, "{} and {", "'{', which cannot"),
        ({"a": "one", "b": "two"}, {"c": "{}"}, "names 'c', which has no prompts"),
        ({"a": "one", "b": {"two": -1.0}}, None, "weights"),
        ({"a": "one", "b": {"two": 0.0}}, None, "not all 0"),
        ({"a": {"one": np.inf}, "b": "two"}, None, "weights"),
        ({"a": "one", "b": {}}, None, "mixes"),
        ({"a": "one", "b": None}, None, "class 'b': expected a text"),
        ({"a": "one", "b": b"two"}, None, "class 'b': expected a text"),
        ({"a": "one", float("nan"): "two"}, None, "is NaN"),
        ({"a": "one", "b": "two"}, 3, "templates must be a text"),
        ("chest_xray_13", None, r"load_prompt_set\('chest_xray_13'\)"),
    ],
)
def test_malformed_prompts(make, X, prompts, templates, message):
    with pytest.raises(PromptError, match=message):
        make(prompts, templates=templates).fit(X)


def test_integer_classes_keep_their_type(make, X):
    clf = make({1: "a rib", 0: "a heart"}).fit(X)
    assert clf.classes_.tolist() == [0, 1]
    assert clf.predict(X).dtype.kind == "i"


def test_clone_and_pickle(make, X):
    clf = make(CLASSES, templates="an X-ray of {}").fit(X)
    assert clone(clf).get_params()["prompts"] == CLASSES
    restored = pickle.loads(pickle.dumps(clf))
    np.testing.assert_array_equal(restored.predict_proba(X), clf.predict_proba(X))


def test_search_over_templates_and_cross_validation(make, X):
    y = np.random.default_rng(2).choice(sorted(CLASSES), len(X))
    grid = {"templates": [None, "an X-ray of {}"], "scoring": ["softmax", "sigmoid"]}
    search = GridSearchCV(make(CLASSES), grid, scoring="neg_log_loss", cv=3).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert cross_val_score(make(CLASSES), X, y, cv=3).shape == (3,)


def test_pipeline_takes_images(checkpoint, shared_store):
    images = np.random.default_rng(3).integers(0, 256, (9, 30, 40), dtype=np.uint8)
    pipe = make_zero_shot_pipeline(
        CLASSES, model=checkpoint, device="cpu", cache=shared_store, pad=True
    )
    proba = pipe.fit(images).predict_proba(images)
    X = MedSigLIPEmbedder(
        checkpoint, device="cpu", cache=shared_store, pad=True
    ).transform(images)
    direct = ZeroShotClassifier(
        CLASSES, model=checkpoint, device="cpu", cache=shared_store
    )
    np.testing.assert_array_equal(proba, direct.fit(X).predict_proba(X))
    assert pipe[0].pad is True
