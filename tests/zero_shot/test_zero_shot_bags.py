"""Prompts on bags: every instance is scored, and the scores of a bag are pooled."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline

from sk_medsiglip import (
    ConformalZeroShot,
    MedSigLIPEmbedder,
    MedSigLIPVolumeEmbedder,
    PromptSearchCV,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.embedding import MedSigLIPPatchEmbedder
from sk_medsiglip.heads import BagProbe
from sk_medsiglip.zero_shot import HeatmapDisplay, compare_prompts

CLASSES = {
    "effusion": ["a wet pleura", "fluid"],
    "normal": "clear lungs",
    "device": ["a pacemaker", "a tube"],
}
PAIR = {"effusion": {"positive": ["a wet pleura", "fluid"], "negative": "dry pleura"}}
PAIRS = {**PAIR, "device": {"positive": "a pacemaker", "negative": ["none", "no tube"]}}
QUESTIONS = [CLASSES, dict(list(CLASSES.items())[:2]), PAIR, PAIRS]
AGGREGATES = ["max", "mean", "top-k mean"]


class Lazy:
    """An array that is read by slices, as an embedder of many images returns."""

    def __init__(self, values):
        self.values, self.read = values, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        self.read += 1
        return self.values[key]


@pytest.fixture(scope="module")
def bags():
    """Return 60 bags of 1 to 7 instances, in random order among the padding."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 7, 32)).astype(np.float32)
    for bag in values:
        bag[rng.permutation(7)[: rng.integers(0, 7)]] = np.nan
    return values


@pytest.fixture(scope="module")
def y(bags):
    return np.random.default_rng(1).integers(0, 2, len(bags))


@pytest.fixture(scope="module")
def phantoms():
    return make_chest_phantoms(6, random_state=2)


def known(bag):
    return bag[~np.isnan(bag).any(axis=1)]


@pytest.mark.parametrize("prompts", QUESTIONS)
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "cosine"])
@pytest.mark.parametrize("ensemble", ["embeddings", "max"])
def test_a_bag_of_one_is_a_row(make, bags, prompts, scoring, ensemble):
    rows = np.nan_to_num(bags[:, 0], nan=0.5)
    clf = make(prompts, scoring=scoring, ensemble=ensemble).fit(rows)
    for aggregate in AGGREGATES:
        other = clone(clf).set_params(aggregate=aggregate).fit(rows[:, None])
        assert other.n_features_in_ == clf.n_features_in_
        for ask in ("decision_function", "predict_proba", "predict"):
            expected = getattr(clf, ask)(rows)
            found = getattr(other, ask)(rows[:, None])
            assert found.shape == expected.shape
            if ask != "predict":
                np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid", "cosine"])
@pytest.mark.parametrize("prompts", [PAIR, PAIRS])
def test_decisions_pool_the_scores_of_instances(make, bags, prompts, scoring):
    ways = {
        "max": np.max,
        "mean": np.mean,
        "top-k mean": lambda own: np.mean(np.sort(own)[-3:]),
    }
    for aggregate, pool in ways.items():
        clf = make(prompts, scoring=scoring, aggregate=aggregate, top_k=3).fit(bags)
        scores = clf.instance_scores(bags)
        assert scores.shape[:2] == bags.shape[:2]
        assert np.isnan(scores[np.isnan(bags).all(axis=2)]).all()
        columns = scores.reshape(*bags.shape[:2], -1)
        expected = [[pool(one[~np.isnan(one)]) for one in bag.T] for bag in columns]
        found = clf.decision_function(bags).reshape(len(bags), -1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_scores_of_instances_are_those_of_rows(make, bags):
    for prompts in QUESTIONS:
        clf = make(prompts).fit(bags)
        scores = clf.instance_scores(bags)
        rows = known(bags[3])
        expected = clf.decision_function(rows)
        of_bag = scores[3][~np.isnan(bags[3]).any(axis=1)]
        if prompts is QUESTIONS[1]:  # of two classes both are given
            of_bag = of_bag[:, 1] - of_bag[:, 0]
        np.testing.assert_allclose(of_bag, expected, rtol=1e-4, atol=1e-4)


def test_each_class_has_its_best_instances(make, bags):
    clf = make(CLASSES).fit(bags)
    best = np.nanmax(clf.instance_scores(bags), axis=1)
    np.testing.assert_allclose(clf.decision_function(bags), best, atol=1e-4)
    assert clf.predict(bags).tolist() == clf.classes_[best.argmax(axis=1)].tolist()
    np.testing.assert_allclose(clf.predict_proba(bags).sum(axis=1), 1)


def test_each_finding_may_have_its_own_way(make, bags):
    ways = {"device": "mean", "effusion": "top-k mean"}
    clf = make(PAIRS, aggregate=ways, top_k=2).fit(bags)
    found = clf.decision_function(bags)
    for column, finding in enumerate(PAIRS):
        alone = make({finding: PAIRS[finding]}, aggregate=ways[finding], top_k=2)
        expected = alone.fit(bags).decision_function(bags)
        np.testing.assert_allclose(found[:, column], expected, atol=1e-4)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("prompts", QUESTIONS)
def test_order_and_padding_change_nothing(make, bags, prompts, aggregate):
    clf = make(prompts, aggregate=aggregate, top_k=3).fit(bags)
    expected = clf.predict_proba(bags)
    padded = np.full((len(bags), 12, 32), np.nan, np.float32)
    padded[:, 11:4:-1] = bags
    np.testing.assert_allclose(clf.predict_proba(padded), expected, atol=1e-6)


def test_lazy_and_mapped_arrays_are_read_piece_by_piece(
    make, bags, tmp_path, monkeypatch
):
    clf = make(PAIRS).fit(bags)
    expected = clf.predict_proba(bags)
    np.save(tmp_path / "bags.npy", bags)
    mapped = np.load(tmp_path / "bags.npy", mmap_mode="r")
    lazy = Lazy(bags)
    lazy_clf = clone(clf).fit(lazy)
    assert not lazy.read  # nothing is learned from X
    monkeypatch.setattr(
        "sk_medsiglip.zero_shot._instances._VALUES_AT_ONCE", 7 * 32 * 25
    )
    np.testing.assert_allclose(lazy_clf.predict_proba(lazy), expected, atol=1e-6)
    assert lazy.read == 3
    np.testing.assert_allclose(clf.predict_proba(mapped), expected, atol=1e-6)
    scores = clf.instance_scores(lazy)
    np.testing.assert_allclose(scores, clf.instance_scores(bags), atol=1e-6)


def test_saved_and_searched_as_any_classifier(make, bags, y):
    clf = make(PAIR, aggregate="top-k mean", top_k=2).fit(bags)
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict_proba(bags), clf.predict_proba(bags))
    found = cross_val_predict(clf, bags, y, method="predict_proba", cv=3)
    np.testing.assert_allclose(found, clf.predict_proba(bags), atol=1e-6)
    search = GridSearchCV(clf, {"aggregate": AGGREGATES}, scoring="roc_auc", cv=3)
    search.fit(bags, y)
    assert len(set(search.cv_results_["mean_test_score"])) == 3
    clf.fit(bags[:, 0][~np.isnan(bags[:, 0]).any(axis=1)])
    assert 0 <= clf.score(bags, y) <= 1


def test_calibration_learns_from_bags(make, bags, y):
    rare = make(PAIR, calibrate="prevalence", prevalence=0.2).fit(bags)
    assert rare.predict_proba(bags)[:, 1].mean() == pytest.approx(0.2, abs=1e-3)
    np.testing.assert_allclose(
        np.nanmax(rare.instance_scores(bags), axis=1),
        rare.decision_function(bags),
        atol=1e-4,
    )
    plain = make(PAIR).fit(bags)
    good = plain.decision_function(bags) > np.median(plain.decision_function(bags))
    warm = make(PAIR, calibrate="temperature").fit(bags, good.astype(int))
    assert (warm.predict(bags) == plain.predict(bags)).all()
    half = CalibratedClassifierCV(FrozenEstimator(plain), method="sigmoid").fit(bags, y)
    assert half.predict_proba(bags).shape == (60, 2)


def test_conformal_sets_of_bags(make, bags):
    plain = make(PAIRS).fit(bags)
    Y = plain.predict(bags).astype(float)
    Y[::7] = np.nan
    conformal = ConformalZeroShot(make(PAIRS), alpha=0.2).fit(
        bags, Y, groups=np.arange(len(bags)) // 2
    )
    sets = conformal.predict_set(bags)
    assert sets.shape == (60, 2, 2)
    assert conformal.coverage_report(bags, Y)["coverage"].min() >= 0.7


# ------------------------------------------------------------------- prompts, on bags


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_prompts_are_compared_on_bags(bags, checkpoint, shared_store, make, aggregate):
    prompts = {
        "effusion": {"positive": ["a wet pleura", "fluid"], "negative": ["dry", "no"]}
    }
    side = {"aggregate": aggregate, "top_k": 2}
    models = {"model": checkpoint, "cache": shared_store, "device": "cpu"}
    truth = make(PAIR, **side).fit(bags).decision_function(bags)
    y = (truth > np.median(truth)).astype(int)
    table = compare_prompts(prompts, bags, y, similarity=1.0, **models, **side)
    table = table.set_index("text")
    negative = ["dry", "no"]
    for text, positive in (("", ["a wet pleura", "fluid"]), ("fluid", ["fluid"])):
        pair = {"effusion": {"positive": positive, "negative": negative}}
        scores = make(pair, **side).fit(bags).decision_function(bags)
        assert table.loc[text, "auc"] == pytest.approx(roc_auc_score(y, scores))


def test_search_on_bags(bags, checkpoint, shared_store, make):
    params = {"model": checkpoint, "cache": shared_store, "device": "cpu"}
    prompts = {"effusion": {"positive": ["fluid", "a rib", "water"], "negative": "dry"}}
    only = {"effusion": {"positive": "water", "negative": "dry"}}
    truth = make(only).fit(bags).decision_function(bags)
    y = (truth > np.median(truth)).astype(int)
    search = PromptSearchCV(prompts, n_bootstrap=20, max_steps=2, **params)
    search.fit(bags, y)
    assert list(search.best_prompts_["effusion"]["positive"]) == ["water"]
    assert roc_auc_score(y, search.decision_function(bags)) == 1
    best = np.nanmax(search.instance_scores(bags), axis=1)
    np.testing.assert_allclose(search.decision_function(bags), best, atol=1e-4)
    # Bags of one instance are searched as rows.
    rows = np.nan_to_num(bags[:, 0], nan=0.5)
    of_rows = clone(search).fit(rows, y)
    of_bags = clone(search).set_params(aggregate="mean").fit(rows[:, None], y)
    assert of_bags.best_prompts_ == of_rows.best_prompts_
    for name in ("plain", "chosen"):
        assert of_bags.report_[name][0] == pytest.approx(of_rows.report_[name][0])


# ----------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("prompts", "aggregate", "word"),
    [
        (PAIRS, {"effusion": "max"}, "entry"),
        (PAIRS, {"effusion": "max", "device": "min"}, "one of"),
        (PAIRS, {"effusion": "max", "device": None}, "one of"),
        (CLASSES, dict.fromkeys(CLASSES, "max"), "exclusive"),
        (CLASSES, "median", "aggregate"),
    ],
)
def test_wrong_aggregates(make, bags, prompts, aggregate, word):
    with pytest.raises(ValueError, match=word):
        make(prompts, aggregate=aggregate).fit(bags)


def test_wrong_bags(make, bags):
    clf = make(PAIR).fit(bags)
    with pytest.raises(ValueError, match="width"):
        clf.instance_scores(bags[:, 0])
    with pytest.raises(ValueError, match="weights"):
        clf.predict(bags[:, :, :16])
    with pytest.raises(ValueError, match="columns"):
        make(PAIR).fit(bags[:, :, :16])
    empty = bags.copy()
    empty[4] = np.nan
    with pytest.raises(ValueError, match="rows 4"):
        clf.predict_proba(empty)
    with pytest.raises(ValueError, match="MedSigLIPEmbedder"):
        make(PAIR).fit(np.zeros((3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="top_k"):
        make(PAIR, top_k=0).fit(bags)


# ---------------------------------------------------------------------- cells of images


def test_a_pipeline_of_cells(phantoms, tmp_path):
    """Prompts score each cell; the likeliest decides, and the display shows it."""
    images = list(phantoms.images[:6])
    prompts = {
        "nodule": {"positive": "a nodule", "negative": "no nodule"},
        "effusion": {"positive": "fluid", "negative": "no fluid"},
    }
    pipe = make_zero_shot_pipeline(
        prompts,
        grid=4,
        aggregate={"nodule": "max", "effusion": "top-k mean"},
        top_k=3,
        model="demo",
        cache=tmp_path,
    ).fit(images)
    found = pipe.decision_function(images)
    scores = pipe[-1].instance_scores(pipe[:-1].transform(images))
    assert scores.shape == (6, 16, 2)
    best = np.sort(scores, axis=1)
    np.testing.assert_allclose(found[:, 0], best[:, -1, 0], atol=1e-4)
    np.testing.assert_allclose(found[:, 1], best[:, -3:, 1].mean(axis=1), atol=1e-4)
    # One cell is the whole image.
    whole = make_zero_shot_pipeline(prompts, grid=1, model="demo", cache=tmp_path)
    plain = make_zero_shot_pipeline(prompts, model="demo", cache=tmp_path)
    np.testing.assert_allclose(
        whole.fit(images).predict_proba(images),
        plain.fit(images).predict_proba(images),
        atol=1e-4,
    )
    with pytest.raises(ValueError, match="grid"):
        clone(pipe).set_params(medsiglippatchembedder__grid=3).fit(images)


def test_a_map_of_the_cells_of_a_pipeline(phantoms, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    image = phantoms.images[0]
    prompts = {"nodule": {"positive": "a nodule", "negative": "no nodule"}}
    pipe = make_zero_shot_pipeline(prompts, grid=4, model="demo", cache=tmp_path)
    display = HeatmapDisplay.from_estimator(pipe.fit([image]), image)
    expected = pipe[-1].instance_scores(pipe[:-1].transform([image]))[0]
    np.testing.assert_allclose(display.heatmap.ravel(), expected, atol=1e-5)
    assert display.title == "nodule"
    assert not display.relative
    pyplot.close("all")


def test_a_trained_head_beside_prompts(phantoms, tmp_path):
    """Both score the same cells; the display draws either, on axes of its own."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    images, y = list(phantoms.images), np.arange(6) % 2
    patches = MedSigLIPPatchEmbedder(MedSigLIPEmbedder("demo", cache=tmp_path), grid=2)
    prompts = {"nodule": {"positive": "a nodule", "negative": "no nodule"}}
    heads = {
        "trained": BagProbe(Cs=[0.1], cv=2),
        "prompts": PromptSearchCV(prompts, n_bootstrap=5, cv=2, model="demo"),
    }
    _, axes = pyplot.subplots(1, 2)
    for ax, (title, head) in zip(axes, heads.items(), strict=True):
        pipe = make_pipeline(patches, head).fit(images, y)
        display = HeatmapDisplay.from_estimator(pipe, images[0], title=title, ax=ax)
        scores = head.instance_scores(patches.transform(images[:1]))[0]
        np.testing.assert_allclose(display.heatmap.ravel(), scores, rtol=1e-4)
        assert ax.get_title() == title
        assert display.relative == (title == "trained")
    pyplot.close("all")


def test_the_slices_of_a_study_by_a_pipeline(phantoms, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    embedder = MedSigLIPEmbedder("demo", cache=tmp_path)
    volumes = MedSigLIPVolumeEmbedder(embedder, pooling=None, n_slices=3)
    prompts = {"nodule": {"positive": "a nodule", "negative": "no nodule"}}
    clf = ZeroShotClassifier(prompts, model="demo", cache=tmp_path)
    study = list(phantoms.images)  # six images, of which three are taken
    pipe = make_pipeline(volumes, clf).fit([study])
    display = HeatmapDisplay.from_estimator(pipe, study, n_columns=3)
    scores = clf.instance_scores(volumes.transform([study]))[0]
    np.testing.assert_allclose(display.heatmap, scores[None], atol=1e-4)
    best = scores.argmax() + 1
    assert display.title == f"slice {best} of 3 has the highest score"
    assert display.image.shape[:2] == (128, 3 * 128)
    assert not display.relative
    with pytest.raises(ValueError, match="unknown"):
        HeatmapDisplay.from_estimator(pipe, study, "effusion")
    pyplot.close("all")
