"""Temperatures and biases: optima, what they leave alone, and where they plug in."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_score,
)

from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms

PAIR = {
    "effusion": {
        "positive": ["pleural effusion", "fluid in the pleural space"],
        "negative": ["no pleural effusion", "clear costophrenic angles"],
    }
}
PAIRS = PAIR | {
    "cardiomegaly": {"positive": "an enlarged heart", "negative": "a normal heart"},
    "nodule": {"positive": "a lung nodule", "negative": "no nodule"},
}
CLASSES = {
    "effusion": ["pleural effusion"],
    "heart": ["an enlarged heart"],
    "neither": ["a normal chest X-ray"],
}


@pytest.fixture(scope="module")
def embedded():
    """Return embeddings of phantoms, their findings in the order of PAIRS, a class."""
    phantoms = make_chest_phantoms(400, random_state=11)
    X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    names = list(phantoms.target_names)
    Y = phantoms.target[:, [names.index(name) for name in PAIRS]]
    y = np.where(Y[:, 0], "effusion", np.where(Y[:, 1], "heart", "neither"))
    return X, Y, y


# -------------------------------------------------------------------- in the classifier


def test_temperature_leaves_ranks_and_classes_alone(embedded):
    X, Y, y = embedded
    for scoring in ("softmax", "sigmoid", "cosine"):
        plain = ZeroShotClassifier(CLASSES, model="demo", scoring=scoring).fit(X)
        clf = ZeroShotClassifier(
            CLASSES, model="demo", scoring=scoring, calibrate="temperature"
        ).fit(X[:100], y[:100])
        np.testing.assert_array_equal(clf.predict(X), plain.predict(X))
        assert clf.temperature_ > 0
        np.testing.assert_array_equal(clf.bias_, 0)

        plain = ZeroShotClassifier(PAIRS, model="demo", scoring=scoring).fit(X)
        clf = ZeroShotClassifier(
            PAIRS, model="demo", scoring=scoring, calibrate="temperature"
        ).fit(X[:100], Y[:100])
        assert clf.temperature_.shape == (3,)
        assert len(set(clf.temperature_)) == 3
        for k in range(3):
            for answers in ("predict_proba", "decision_function"):
                before, after = (
                    roc_auc_score(Y[:, k], getattr(one, answers)(X)[:, k])
                    for one in (plain, clf)
                )
                assert after == pytest.approx(before, abs=1e-9)

        plain = ZeroShotClassifier(PAIR, model="demo", scoring=scoring).fit(X)
        clf = ZeroShotClassifier(
            PAIR, model="demo", scoring=scoring, calibrate="temperature_bias"
        ).fit(X[:100], Y[:100, 0])
        before, after = (
            roc_auc_score(Y[:, 0], one.predict_proba(X)[:, 1]) for one in (plain, clf)
        )
        assert after == pytest.approx(before, abs=1e-9)


def test_calibrated_answers_agree_with_each_other(embedded):
    X, Y, y = embedded
    clf = ZeroShotClassifier(CLASSES, model="demo", calibrate="temperature_bias")
    clf.fit(X[:150], y[:150])
    proba = clf.predict_proba(X)
    np.testing.assert_allclose(softmax(clf.decision_function(X), axis=1), proba)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
    clf = ZeroShotClassifier(PAIRS, model="demo", calibrate="temperature_bias")
    clf.fit(X[:150], Y[:150])
    np.testing.assert_allclose(expit(clf.decision_function(X)), clf.predict_proba(X))
    np.testing.assert_array_equal(clf.predict(X), clf.decision_function(X) > 0)
    assert clf.bias_.shape == (3, 2)


def test_loss_falls_on_rows_that_were_not_seen(embedded):
    X, Y, y = embedded
    plain = ZeroShotClassifier(CLASSES, model="demo").fit(X)
    losses = [log_loss(y[200:], plain.predict_proba(X[200:]), labels=plain.classes_)]
    for how in ("temperature", "temperature_bias"):
        clf = ZeroShotClassifier(CLASSES, model="demo", calibrate=how)
        proba = clf.fit(X[:200], y[:200]).predict_proba(X[200:])
        losses.append(log_loss(y[200:], proba, labels=clf.classes_))
    assert losses[1] < losses[0]
    assert losses[2] < losses[1]


def test_each_finding_is_calibrated_by_the_rows_where_it_is_known(embedded):
    X, Y, _ = embedded
    blank = Y.astype(float)
    blank[::2, 0] = np.nan
    together = ZeroShotClassifier(PAIRS, model="demo", calibrate="temperature_bias")
    together.fit(X, pd.DataFrame(blank, columns=list(PAIRS)))
    alone = ZeroShotClassifier(PAIR, model="demo", calibrate="temperature_bias")
    alone.fit(X[1::2], Y[1::2, 0])
    np.testing.assert_allclose(
        together.predict_proba(X)[:, 0], alone.predict_proba(X)[:, 1], atol=1e-5
    )
    blank[:, 2] = np.nan
    blank[:, 1] = 0
    clf = ZeroShotClassifier(PAIRS, model="demo", calibrate="temperature")
    with pytest.warns(UserWarning, match="kind") as caught:
        clf.fit(X, blank)
    assert [str(w.message).split("'")[1] for w in caught] == ["cardiomegaly", "nodule"]
    np.testing.assert_array_equal(clf.temperature_[1:], 1)


def test_known_prevalence_needs_no_labels(embedded):
    X, Y, y = embedded
    shares = {name: np.mean(y == name) for name in CLASSES}
    clf = ZeroShotClassifier(
        CLASSES, model="demo", calibrate="prevalence", prevalence=shares
    ).fit(X)
    np.testing.assert_allclose(
        clf.predict_proba(X).mean(axis=0),
        [shares[name] for name in clf.classes_],
        atol=1e-6,
    )
    of = dict(zip(PAIRS, Y.mean(axis=0), strict=True))
    clf.set_params(prompts=PAIRS, prevalence=of).fit(X)
    np.testing.assert_allclose(clf.predict_proba(X).mean(axis=0), Y.mean(0), atol=1e-6)
    clf.set_params(prompts=PAIR, prevalence=0.125).fit(X)
    assert clf.predict_proba(X)[:, 1].mean() == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize(
    ("prompts", "params", "message"),
    [
        (CLASSES, {"calibrate": "temperature"}, "requires y to be passed"),
        (CLASSES, {"calibrate": "prevalence"}, "needs prevalence"),
        (CLASSES, {"calibrate": "prevalence", "prevalence": 0.2}, "pass a dict"),
        (PAIR, {"calibrate": "prevalence", "prevalence": 1.0}, "between 0 and 1"),
        (PAIR, {"calibrate": "prevalence", "prevalence": {"x": 0.5}}, r"\['x'\]"),
        (
            CLASSES,
            {
                "calibrate": "prevalence",
                "prevalence": {"effusion": 0.5, "heart": 0.1, "neither": 0.1},
            },
            "add up to 0.7",
        ),
        (CLASSES, {"calibrate": "platt"}, "'calibrate' parameter"),
        (PAIR, {"prevalence": 0.2}, "only used with calibrate='prevalence'"),
    ],
)
def test_what_calibration_lacks_is_named(embedded, prompts, params, message):
    with pytest.raises(ValueError, match=message):
        ZeroShotClassifier(prompts, model="demo", **params).fit(embedded[0])


def test_labels_of_one_finding_may_have_blanks(embedded):
    X, Y, _ = embedded
    blank = Y[:, 0].astype(object)
    blank[::2] = None
    clf = ZeroShotClassifier(PAIR, model="demo", calibrate="temperature_bias")
    known = ZeroShotClassifier(PAIR, model="demo", calibrate="temperature_bias")
    known.fit(X[1::2], Y[1::2, 0])
    np.testing.assert_allclose(
        clf.fit(X, blank).predict_proba(X), known.predict_proba(X), atol=1e-5
    )
    assert clf.classes_.tolist() == [0, 1]


def test_prevalence_may_be_a_series(embedded):
    X, _, y = embedded
    shares = pd.Series(y).value_counts(normalize=True)
    clf = ZeroShotClassifier(
        CLASSES, model="demo", calibrate="prevalence", prevalence=shares
    ).fit(X)
    np.testing.assert_allclose(
        clf.predict_proba(X).mean(axis=0), shares[clf.classes_], atol=1e-6
    )


def test_nothing_is_left_of_an_earlier_fit(embedded):
    X, Y, y = embedded
    clf = ZeroShotClassifier(
        PAIRS, model="demo", calibrate="temperature_bias", ensemble="max"
    ).fit(X, Y)
    clf.set_params(
        prompts=CLASSES,
        calibrate="prevalence",
        prevalence=dict.fromkeys(CLASSES, 1 / 3),
        ensemble="embeddings",
    ).fit(X, y)
    fresh = clone(clf).fit(X, y)
    assert set(vars(clf)) == set(vars(fresh))
    np.testing.assert_array_equal(clf.predict_proba(X), fresh.predict_proba(X))
    # A parameter that is set does nothing before the next fit.
    clf.set_params(calibrate=None)
    np.testing.assert_array_equal(clf.predict_proba(X), fresh.predict_proba(X))


def test_labels_of_one_class_cannot_calibrate(embedded):
    X, _, y = embedded
    clf = ZeroShotClassifier(CLASSES, model="demo", calibrate="temperature")
    with pytest.raises(ValueError, match="one class"):
        clf.fit(X[y == "heart"], y[y == "heart"])


def test_shapes_of_y_are_checked(embedded):
    X, Y, _ = embedded
    with pytest.raises(ValueError, match=r"\(n_samples,\)"):
        ZeroShotClassifier(CLASSES, model="demo").fit(X, Y)
    with pytest.raises(ValueError, match="and NaN"):
        ZeroShotClassifier(PAIRS, model="demo").fit(X, Y * 2)


# ------------------------------------------------------------------ inside scikit-learn


# To calibrate, scikit-learn hands out places in the stead of names.
codes = pytest.mark.filterwarnings("ignore::sk_medsiglip.exceptions.LabelCodesWarning")


@codes
@pytest.mark.parametrize("method", ["temperature", "sigmoid", "isotonic"])
def test_calibrated_classifier_cv_takes_it(embedded, method):
    X, Y, y = embedded
    X = X.astype(np.float64)  # in float32 scikit-learn's own rows sum to 1 too roughly
    for prompts, target in ((CLASSES, y), (PAIR, Y[:, 0])):
        clf = ZeroShotClassifier(prompts, model="demo")
        wrapped = CalibratedClassifierCV(clf, method=method, cv=3).fit(X, target)
        frozen = CalibratedClassifierCV(FrozenEstimator(clf.fit(X)), method=method)
        for one in (wrapped, frozen.fit(X, target)):
            proba = one.predict_proba(X)
            assert log_loss(target, proba) < log_loss(target, clf.predict_proba(X))


def test_scikit_learns_temperature_finds_the_same(embedded):
    X, _, y = embedded
    clf = ZeroShotClassifier(CLASSES, model="demo").fit(X)
    theirs = CalibratedClassifierCV(FrozenEstimator(clf), method="temperature")
    theirs.fit(X, y)
    ours = ZeroShotClassifier(CLASSES, model="demo", calibrate="temperature").fit(X, y)
    # Theirs does not smooth the labels.
    np.testing.assert_allclose(
        ours.predict_proba(X), theirs.predict_proba(X), atol=0.02
    )


def test_threshold_is_tuned_on_it(embedded):
    X, Y, _ = embedded
    clf = ZeroShotClassifier(PAIR, model="demo", calibrate="temperature")
    tuned = TunedThresholdClassifierCV(clf, scoring="balanced_accuracy", cv=3)
    tuned.fit(X, Y[:, 0])
    assert tuned.score(X, Y[:, 0]) > 0.8
    assert 0 < tuned.best_threshold_ < 1


def test_search_over_ways_to_calibrate(embedded):
    X, _, y = embedded
    grid = {
        "calibrate": [None, "temperature", "temperature_bias"],
        "ensemble": ["embeddings", "max"],
    }
    search = GridSearchCV(
        ZeroShotClassifier(CLASSES, model="demo"), grid, scoring="neg_log_loss", cv=3
    ).fit(X, y)
    assert search.best_params_["calibrate"] == "temperature_bias"
    assert cross_val_score(search.best_estimator_, X, y, cv=3).mean() > 0.5
