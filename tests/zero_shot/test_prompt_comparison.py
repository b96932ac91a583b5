"""What prompts are worth, and prompts chosen on few labels: by hand, and honestly."""

import pickle
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline

from sk_medsiglip import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    ZeroShotClassifier,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.exceptions import (
    LabelCodesWarning,
    MissingDependencyError,
    PromptError,
)
from sk_medsiglip.zero_shot import (
    PromptComparisonDisplay,
    PromptSearchCV,
    _prompt_choices,
    compare_prompts,
)

FINDINGS = {
    "effusion": {
        "positive": ["pleural effusion", "a rib", "fluid in the pleural space"],
        "negative": ["no pleural effusion", "a heart"],
    },
    "cardiomegaly": {"positive": "an enlarged heart", "negative": "a normal heart"},
}
ONE = {"effusion": FINDINGS["effusion"]}
CLASSES = {
    "effusion": ["pleural effusion", "a rib"],
    "heart": ["an enlarged heart", "cardiomegaly"],
    "neither": ["a normal chest X-ray", "no finding", "a clavicle"],
}


@pytest.fixture(scope="module")
def data():
    """Return embeddings of phantoms, two findings, a class, and patients."""
    phantoms = make_chest_phantoms(240, random_state=21)
    X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    names = list(phantoms.target_names)
    Y = phantoms.target[:, [names.index(name) for name in FINDINGS]]
    y = np.where(Y[:, 0], "effusion", np.where(Y[:, 1], "heart", "neither"))
    return X, Y, y, phantoms.groups


# --------------------------------------------------------------------------- comparison


def test_areas_are_those_of_classifiers_with_other_prompts(data):
    X, Y, _, groups = data
    table = compare_prompts(FINDINGS, X, Y, groups=groups, model="demo")
    assert table["text"].tolist()[:2] == ["", "pleural effusion"]
    assert len(table) == 2 + 7

    def area(prompts, column):
        clf = ZeroShotClassifier(prompts, model="demo").fit(X)
        return roc_auc_score(Y[:, column], clf.decision_function(X))

    rows = table.set_index(["label", "text"])
    positive, negative = FINDINGS["effusion"].values()
    all_of = area(ONE, 0)
    assert rows.loc[("effusion", ""), "auc"] == pytest.approx(all_of, abs=1e-6)
    for text in positive:
        row = rows.loc[("effusion", text)]
        alone = {"effusion": {"positive": text, "negative": negative}}
        assert row["auc"] == pytest.approx(area(alone, 0), abs=1e-6)
        rest = [other for other in positive if other != text]
        without = area({"effusion": {"positive": rest, "negative": negative}}, 0)
        assert row["gain"] == pytest.approx(all_of - without, abs=1e-6)
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    alone = {"effusion": {"positive": positive, "negative": "a heart"}}
    row = rows.loc[("effusion", "a heart")]
    assert row["auc"] == pytest.approx(area(alone, 0), abs=1e-6)
    assert row["side"] == "negative"
    only = rows.loc[("cardiomegaly", "an enlarged heart")]
    assert np.isnan(only["gain"])
    assert rows.loc[("cardiomegaly", ""), "n_positive"] == Y[:, 1].sum()
    # The text that has nothing to do with it is found.
    worth = rows.loc["effusion"].query("side == 'positive'")["auc"]
    assert worth.idxmin() == "a rib"


def test_classes_are_told_from_the_rest(data):
    X, _, y, _ = data
    table = compare_prompts(CLASSES, X, y, model="demo").set_index(["label", "text"])
    clf = ZeroShotClassifier(CLASSES, model="demo").fit(X)
    for k, name in enumerate(clf.classes_):
        assert table.loc[(name, ""), "auc"] == pytest.approx(
            roc_auc_score(y == name, clf.predict_proba(X)[:, k]), abs=1e-6
        )
    other = ZeroShotClassifier(
        CLASSES | {"neither": ["a normal chest X-ray", "no finding"]}, model="demo"
    ).fit(X)
    without = roc_auc_score(y == "neither", other.predict_proba(X)[:, 2])
    row = table.loc[("neither", "a clavicle")]
    assert row["gain"] == pytest.approx(
        table.loc[("neither", ""), "auc"] - without, abs=1e-6
    )


def test_intervals_are_wider_by_patient(data):
    X, Y, _, _ = data
    few = np.repeat(np.arange(24), 10)

    def width(groups):
        table = compare_prompts(ONE, X, Y[:, 0], groups=groups, model="demo")
        return table["auc_high"][0] - table["auc_low"][0]

    order = np.argsort(Y[:, 0], kind="stable")  # patients are ill in all their images
    X, Y = X[order], Y[order]
    assert width(few) > 1.2 * width(None)


def test_blanks_and_weights_count_as_in_the_classifier(data):
    X, Y, _, _ = data
    blank = Y.astype(float)
    blank[:100, 0] = np.nan
    weighted = {
        "effusion": {
            "positive": {"pleural effusion": 5, "a rib": 1},
            "negative": "no pleural effusion",
        },
        "cardiomegaly": FINDINGS["cardiomegaly"],
    }
    table = compare_prompts(weighted, X, blank, model="demo")
    clf = ZeroShotClassifier({"effusion": weighted["effusion"]}, model="demo").fit(X)
    assert table["auc"][0] == pytest.approx(
        roc_auc_score(Y[100:, 0], clf.decision_function(X[100:])), abs=1e-6
    )
    assert table["n_positive"][0] == Y[100:, 0].sum()


def test_comparison_holds_what_lint_says(data):
    X, Y, _, _ = data
    twice = {"effusion": {"positive": ["fluid", "Fluid."], "negative": "a heart"}}
    table = compare_prompts(twice, X, Y[:, 0], model="demo")
    assert "the same to the model" in table.set_index("text").loc["Fluid.", "problem"]
    assert table["n_tokens"].dtype == "Int64"
    assert table["problem"][0] == ""


def test_one_prompt_a_side_has_no_gain(data):
    X, Y, y, _ = data
    one = {"effusion": {"positive": "pleural effusion", "negative": "a clear pleura"}}
    table = compare_prompts(one, X, Y[:, 0], model="demo")
    assert table["gain"].isna().all()
    assert table["auc"].notna().all()
    classes = {"effusion": "fluid", "heart": "a large heart", "neither": "nothing"}
    assert len(compare_prompts(classes, X, y, model="demo")) == 6


def test_labels_of_one_kind_are_named(data):
    X, Y, _, _ = data
    with pytest.warns(UserWarning, match="kind"):
        table = compare_prompts(ONE, X, np.ones(240), model="demo")
    assert table["auc"].isna().all()


def test_comparison_refuses_what_does_not_fit(data):
    X, Y, y, _ = data
    with pytest.raises(ValueError, match=r"\(n_samples, 2\)"):
        compare_prompts(FINDINGS, X, Y[:, 0], model="demo")
    with pytest.raises(ValueError, match="labels"):
        compare_prompts(CLASSES, X, np.where(y == "heart", "lung", y), model="demo")
    with pytest.raises(ValueError, match="model='google/medsiglip-448'"):
        compare_prompts(ONE, np.ones((4, 1152)), [0, 1, 0, 1], model="demo")
    with pytest.raises(ValueError, match="2 ids"):
        compare_prompts(ONE, X, Y[:, 0], groups=[1, 2], model="demo")
    with pytest.raises(PromptError):
        compare_prompts({}, X, y, model="demo")
    with pytest.raises(ValueError, match="level"):
        compare_prompts(ONE, X, Y[:, 0], model="demo", level=95)
    with pytest.raises(ValueError, match="requires y"):
        compare_prompts(ONE, X, None, model="demo")


def test_picture_shows_every_prompt(data):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed").use("Agg")
    X, Y, _, groups = data
    display = PromptComparisonDisplay.from_prompts(
        FINDINGS, X, Y, groups=groups, model="demo"
    )
    shown = [tick.get_text() for tick in display.ax_.get_yticklabels()]
    assert shown[:3] == ["effusion: all prompts", "+ pleural effusion", "+ a rib"]
    assert shown[4] == "− no pleural effusion"
    assert len(shown) == 9
    drawn = sorted(
        line.get_xdata()[0]
        for line in display.ax_.lines
        if line.get_marker() in ("o", "D")
    )
    np.testing.assert_allclose(drawn, sorted(display.table["auc"]))
    one = display.plot(labels=["cardiomegaly"])
    assert len(one.ax_.get_yticklabels()) == 3
    with pytest.raises(ValueError, match="label 'x'"):
        display.plot(labels=["x"])


def test_picture_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[plot\]"):
        PromptComparisonDisplay(pd.DataFrame()).plot()


# ------------------------------------------------------------------------------- choice


def test_what_does_not_help_is_left_out(data):
    X, Y, _, groups = data
    search = PromptSearchCV(ONE, model="demo").fit(X, Y[:, 0], groups=groups)
    chosen = search.best_prompts_["effusion"]
    assert "a rib" not in chosen["positive"]
    assert search.report_["n_steps"][0] > 0
    assert search.report_["gain"][0] > 0
    assert search.classes_.tolist() == [0, 1]
    # What was chosen is what predicts.
    clf = ZeroShotClassifier(search.best_prompts_, model="demo").fit(X)
    for method in ("predict", "predict_proba", "decision_function"):
        np.testing.assert_array_equal(
            getattr(search, method)(X), getattr(clf, method)(X)
        )


def test_scores_of_the_report_by_hand(data):
    X, Y, _, groups = data
    y = Y[:, 0]
    search = PromptSearchCV(ONE, model="demo", n_bootstrap=5, max_steps=2, cv=3)
    search.fit(X, y, groups=groups)
    plain = ZeroShotClassifier(ONE, model="demo").fit(X).decision_function(X)
    folds = list(StratifiedGroupKFold(3).split(X, y, groups))
    report = search.report_.iloc[0]
    assert report["plain"] == pytest.approx(
        np.mean([roc_auc_score(y[test], plain[test]) for _, test in folds])
    )
    # A choice that sees nothing of a fold scores on it what the report says.
    chosen = []
    for train, test in folds:
        alone = clone(search).fit(X[train], y[train], groups=groups[train])
        chosen.append(roc_auc_score(y[test], alone.decision_function(X[test])))
    assert report["chosen"] == pytest.approx(np.mean(chosen), abs=1e-6)
    assert report["gain"] == pytest.approx(report["chosen"] - report["plain"])
    assert report["gain_low"] <= report["gain_high"]


SELECT = {"scoring": "roc_auc", "max_steps": 10, "cv": 5}


def test_log_losses_of_the_report_by_hand(data):
    X, Y, _, groups = data
    y = Y[:, 0]
    search = PromptSearchCV(ONE, model="demo", scoring="neg_log_loss", n_bootstrap=200)
    report = search.fit(X, y, groups=groups).report_.iloc[0]
    plain = ZeroShotClassifier(ONE, model="demo").fit(X).predict_proba(X)
    by_fold = [
        -log_loss(y[test], plain[test])
        for _, test in StratifiedGroupKFold(5).split(X, y, groups)
    ]
    assert report["plain"] == pytest.approx(np.mean(by_fold), rel=1e-4)
    # Prompts that have nothing to do with it cost a lot here.
    assert report["gain"] > 0.01
    assert report["gain_low"] < report["gain"] < report["gain_high"]
    chosen = search.predict_proba(X)
    assert log_loss(y, chosen) < log_loss(y, plain) - 0.01


def test_images_of_one_patient_are_not_more_patients(data):
    X, Y, _, _ = data
    X, y = np.repeat(X[:60], 4, axis=0), np.repeat(Y[:60, 0], 4)
    patients = np.repeat(np.arange(60), 4)
    width = {}
    for groups in (None, patients):
        report = (
            PromptSearchCV(ONE, model="demo", cv=2).fit(X, y, groups=groups).report_
        )
        width[groups is None] = (report["gain_high"] - report["gain_low"])[0]
    assert width[False] > 1.3 * width[True]


def test_patients_do_not_cross_the_inner_folds(data):
    # Two ill patients: each fold learns from one, which cannot be split again.
    X, Y, _, _ = data
    y = Y[:, 0]
    ill = np.flatnonzero(y)
    groups = np.arange(len(y)) + 10
    groups[ill] = np.arange(len(ill)) % 2
    report = PromptSearchCV(ONE, model="demo").fit(X, y, groups=groups).report_
    assert report["gain"][0] == 0
    assert report["n_steps"][0] == 0


def test_a_prompt_that_is_taken_twice_weighs_double():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 4000)
    noise = 0.3 * rng.normal(size=4000)
    # Twice the first and once the second: the noise cancels.
    cosines = np.column_stack(
        [np.zeros(4000), 0.05 * target + noise, 0.05 * target - 2 * noise]
    )
    choice = _prompt_choices.Choice(
        "x",
        np.array([0, 1]),
        [np.array([0]), np.array([1, 2])],
        np.arange(4000),
        target,
        cosines,
        np.eye(3),
        np.ones(3),
        10.0,
    )
    found, _ = _prompt_choices.select(choice, np.arange(4000), groups=None, **SELECT)
    assert found[2] > 0
    assert found[1] == pytest.approx(2 * found[2])


def test_the_fold_that_is_asked_has_no_say(data):
    # Labels by chance: whoever let test folds choose would report a gain.
    X, _, _, groups = data
    rng = np.random.default_rng(0)
    words = "a heart|a rib|a lung|a nodule|fluid|a clavicle|a spine|air|a device".split(
        "|"
    )
    prompts = {"x": {"positive": words, "negative": [f"no {word}" for word in words]}}
    plain = ZeroShotClassifier(prompts, model="demo").fit(X).decision_function(X)
    embedder = MedSigLIPTextEmbedder("demo", normalize=True)
    positive, negative = (embedder.transform(texts) for texts in prompts["x"].values())
    # What each pair of a positive and a negative prompt says of each image.
    pairs = X @ (positive[:, None] - negative).reshape(-1, X.shape[1]).T
    pairs /= np.linalg.norm(X, axis=1, keepdims=True)
    gains, could = [], []
    for _ in range(6):
        y = rng.integers(0, 2, len(X))
        search = PromptSearchCV(
            prompts, model="demo", cv=3, n_bootstrap=5, max_steps=4
        ).fit(X, y, groups=groups)
        gains.append(search.report_["gain"][0])
        best = max(roc_auc_score(y, score) for score in pairs.T)
        could.append(best - roc_auc_score(y, plain))
    # On the rows that it chose by it would look good, on others it is worth nothing.
    assert np.mean(could) > 0.03
    assert np.mean(gains) < 0.005


def test_several_findings_and_blanks(data):
    X, Y, _, groups = data
    blank = Y.astype(float)
    blank[::3, 0] = np.nan
    search = PromptSearchCV(FINDINGS, model="demo", n_bootstrap=20)
    search.fit(X, pd.DataFrame(blank, columns=list(FINDINGS)), groups=groups)
    assert search.report_["finding"].tolist() == list(FINDINGS)
    assert search.report_["n_labels"].tolist() == [160, 240]
    # One prompt a side leaves nothing to choose.
    assert search.report_["gain"][1] == 0
    assert search.report_["within_noise"][1]
    assert search.best_prompts_["cardiomegaly"] == {
        "positive": {"an enlarged heart": 1},
        "negative": {"a normal heart": 1},
    }
    assert search.predict_proba(X).shape == (240, 2)
    alone = PromptSearchCV(ONE, model="demo", n_bootstrap=20)
    known = ~np.isnan(blank[:, 0])
    alone.fit(X[known], blank[known, 0].astype(int), groups=groups[known])
    assert alone.best_prompts_["effusion"] == search.best_prompts_["effusion"]


def test_classes_are_chosen_together(data):
    X, _, y, groups = data
    search = PromptSearchCV(
        CLASSES, model="demo", templates="an image of {}", cv=4, max_steps=4
    )
    search.fit(X, y, groups=groups)
    assert set(search.best_prompts_) == set(CLASSES)
    assert search.report_["finding"].tolist() == [""]
    assert search.score(X, y) > 0.6
    taken = [text for texts in search.best_prompts_.values() for text in texts]
    assert all(text.startswith("an image of ") for text in taken)


def test_workers_find_the_same(data):
    X, Y, _, groups = data
    alone, together = (
        PromptSearchCV(
            FINDINGS, model="demo", n_jobs=n, n_bootstrap=50, max_steps=2, cv=3
        ).fit(X, Y, groups=groups)
        for n in (1, 2)
    )
    pd.testing.assert_frame_equal(alone.report_, together.report_)
    assert alone.best_prompts_ == together.best_prompts_


def test_shows_a_bar(data, capfd):
    X, Y, _, _ = data
    PromptSearchCV(ONE, model="demo", verbose=1, n_bootstrap=5).fit(X, Y[:, 0])
    assert "choosing" in capfd.readouterr().err


def test_few_labels_shrink_the_folds_or_say_so(data):
    X, Y, _, _ = data
    rows = np.r_[np.flatnonzero(Y[:, 0])[:2], np.flatnonzero(Y[:, 0] == 0)[:4]]
    PromptSearchCV(ONE, model="demo", n_bootstrap=5).fit(X[rows], Y[rows, 0])
    with pytest.warns(UserWarning, match="'effusion'"):
        search = PromptSearchCV(ONE, model="demo").fit(X[rows[1:]], Y[rows[1:], 0])
    assert search.best_prompts_["effusion"]["negative"] == {
        "no pleural effusion": 1,
        "a heart": 1,
    }
    assert np.isnan(search.report_["gain"][0])
    with pytest.raises(ValueError, match="every class"):
        PromptSearchCV(CLASSES, model="demo").fit(X[:3], ["heart", "heart", "neither"])


def test_one_finding_without_labels_does_not_stop_the_others(data):
    X, Y, _, _ = data
    blank = Y.astype(float)
    blank[:, 1] = np.nan
    with pytest.warns(UserWarning, match="'cardiomegaly'"):
        search = PromptSearchCV(FINDINGS, model="demo", n_bootstrap=10).fit(X, blank)
    assert search.report_["n_labels"].tolist() == [240, 0]
    assert np.isnan(search.report_["gain"][1])
    assert search.report_["gain"][0] >= 0


def test_classes_that_are_missing_in_a_resample_leave_the_others(data):
    X, _, _, _ = data
    words = ["effusion", "nodule", "heart", "device", "rib", "lung", "air", "spine"]
    y = np.repeat(words, 5)
    prompts = {word: [f"a {word}", f"the {word}"] for word in words}
    search = PromptSearchCV(prompts, model="demo", max_steps=2, cv=3)
    report = search.fit(X[:40], y).report_
    assert report["n_undefined"][0] == 0


def test_frames_and_places_go_through(data):
    X, _, y, _ = data
    frame = pd.DataFrame(X, columns=[f"v{i}" for i in range(X.shape[1])])
    search = PromptSearchCV(CLASSES, model="demo", cv=2, n_bootstrap=5).fit(frame, y)
    assert search.predict(frame).shape == (240,)  # without a warning
    with pytest.raises(ValueError, match="feature names"):
        search.predict(frame[frame.columns[::-1]])
    codes = np.searchsorted(search.classes_, y)
    with pytest.warns(LabelCodesWarning):
        coded = PromptSearchCV(CLASSES, model="demo", cv=2, n_bootstrap=5).fit(X, codes)
    assert coded.score(X, codes) == search.score(frame, y)


def test_nothing_is_chosen_where_nothing_is_gained(data):
    X, Y, _, groups = data
    rng, kept = np.random.default_rng(5), 0
    for _ in range(4):
        y = rng.integers(0, 2, len(X))
        search = PromptSearchCV(ONE, model="demo", n_bootstrap=5, cv=3)
        report = search.fit(X, y, groups=groups).report_.iloc[0]
        if report["gain"] <= 0:
            kept += 1
            assert report["n_steps"] == 0
            assert len(search.best_prompts_["effusion"]["positive"]) == 3
    assert kept


def test_is_an_estimator_among_others(data):
    X, Y, _, groups = data
    search = PromptSearchCV(ONE, model="demo", n_bootstrap=5, max_steps=2, cv=3)
    assert clone(search).get_params() == search.get_params()
    fitted = search.fit(X, Y[:, 0], groups=groups)
    restored = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(restored.predict(X), fitted.predict(X))
    outer = GridSearchCV(
        make_pipeline(search),
        {"promptsearchcv__scoring": ["roc_auc", "neg_log_loss"]},
        cv=2,
        scoring="roc_auc",
    ).fit(X, Y[:, 0])
    assert outer.best_score_ > 0.8
    pipe = make_pipeline(search)
    pipe.fit(X, Y[:, 0], promptsearchcv__groups=groups)
    assert pipe[-1].best_prompts_ == fitted.best_prompts_
    for params, message in (
        ({"scoring": "f1"}, "'scoring' parameter"),
        ({"cv": 1}, "'cv' parameter"),
        ({"max_steps": 0}, "'max_steps' parameter"),
    ):
        with pytest.raises(ValueError, match=message):
            clone(search).set_params(**params).fit(X, Y[:, 0])


def test_largest_probability_is_of_the_chosen_classes(data):
    X, _, y, _ = data
    search = PromptSearchCV(CLASSES, model="demo", cv=3, n_bootstrap=5).fit(X, y)
    shares = softmax(search.decision_function(X), axis=1)
    np.testing.assert_allclose(search.predict_proba(X), shares, atol=1e-5)
