"""Scores, training, the queue, and what a session refuses."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.metrics import roc_auc_score

from sk_medsiglip import MedSigLIPEmbedder, PromptProbe, ZeroShotClassifier
from sk_medsiglip.exceptions import MissingDependencyError, PromptError, SessionError
from sk_medsiglip.explore import ExploreSession


def test_scores_are_those_of_the_classifiers(
    make_session, phantom_vectors, truth, answer
):
    session = make_session()
    zero_shot = ZeroShotClassifier(session.prompts, model="demo").fit(phantom_vectors)
    wanted = zero_shot.decision_function(phantom_vectors)
    np.testing.assert_allclose(session.scores["effusion"], wanted, atol=1e-3)
    answer(session, range(40), "effusion", truth[:, 0])
    session.refit()
    wanted = session.classifier_.decision_function(phantom_vectors)
    np.testing.assert_allclose(session.scores["effusion"], wanted, atol=1e-3)


def test_prompts_are_tried_without_changing_the_session(
    make_session, truth, answer, prompts
):
    session = make_session()
    answer(session, range(60), "effusion", truth[:, 0])
    before = session.scores
    found = session.score({**prompts, "effusion": prompts["device"]})
    assert list(found.scores) == ["effusion", "device"]
    pd.testing.assert_frame_equal(session.scores, before)
    area = roc_auc_score(truth[:60, 0], found.scores["effusion"][:60])
    assert found.auc["label"].tolist() == ["effusion"]
    assert found.auc["value"].tolist() == pytest.approx([area])
    counts = found.histogram[found.histogram["label"] == "effusion"]
    assert counts[["no", "yes", "unsure", "unlabelled"]].sum().tolist() == [
        60 - truth[:60, 0].sum(), truth[:60, 0].sum(), 0, 340,
    ]  # fmt: skip
    with pytest.raises(PromptError):
        session.score({"effusion": {"positive": "fluid"}})


def test_training_goes_from_prompts_to_probes(make_session, phantom_vectors, answer):
    session = make_session()
    stages = [session.refit()]
    even = phantom_vectors[:, 0] > np.median(phantom_vectors[:, 0])
    for rows in (range(30), range(30, 380)):
        answer(session, rows, "effusion", even.astype(int))
        stages.append(session.refit())
    found = pd.concat(stages, ignore_index=True)
    assert found["stage"].tolist() == ["prompts", "PromptProbe", "LinearProbe"]
    assert found["refit"].tolist() == [1, 2, 3]
    assert found["n"].tolist() == [0, 30, 380]
    assert np.isnan(found["value"][0])
    assert (found["low"][1:] <= found["value"][1:]).all()
    moved = found["value"][2] - found["value"][1]
    assert found["change"].tolist() == pytest.approx(
        [np.nan, np.nan, moved], nan_ok=True
    )
    pd.testing.assert_frame_equal(session.figures_, found)
    pd.testing.assert_frame_equal(session.score().auc, stages[-1])
    assert session.refit(figures=False).empty
    assert session.score().auc.empty
    while session.undo():
        pass
    assert session.refit()["stage"].tolist() == ["prompts"]


def test_figures_are_of_patients_that_were_not_learned_from(make_plain, answer):
    # Each patient's two images are copies, and labels are noise.
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(60, 50)), 2, axis=0).astype(np.float32)
    y = np.repeat(rng.integers(0, 2, 60), 2)
    areas = []
    for groups in (np.arange(120) // 2, np.arange(120)):
        session = make_plain(X=X, groups=groups)
        answer(session, range(120), "label", y)
        areas.append(session.refit()["value"][0])
    assert areas[0] < 0.75 < 0.9 < areas[1]


def test_several_findings_with_blanks(make_session, truth, answer, prompts):
    session = make_session(prompts=prompts)
    answer(session, range(0, 30), "effusion", truth[:, 0])
    table = session.refit()
    assert table["stage"].tolist() == ["PromptProbe", "prompts"]
    assert table["n"].tolist() == [30, 0]
    assert session.classifier_.findings_.tolist() == ["effusion"]
    answer(session, range(20, 60), "device", truth[:, 1])
    session.label(5, "device", "unsure")
    table = session.refit()
    assert table["n"].tolist() == [30, 40]
    assert table["value"].notna().all()
    assert session.scores.notna().all(axis=None)
    assert session.labels.loc[5].tolist()[1] == "unsure"
    assert session.labels.isna().sum().tolist() == [370, 359]


def test_classes(make_session, truth, phantom_vectors):
    classes = {"fluid": "pleural effusion", "metal": "a pacemaker", "well": "normal"}
    given = np.select([truth[:, 1] == 1, truth[:, 0] == 1], ["metal", "fluid"], "well")
    session = make_session(prompts=classes, label="what")
    assert session.values == ["fluid", "metal", "well"]
    for row in session.queue(12):
        session.label(row, "what", given[row])
    for name in ("fluid", "well"):
        session.label(np.flatnonzero(given == name)[:9], "what", name)
    table = session.refit()
    assert session.stage_ == "PromptProbe"
    assert table["value"].notna().any()
    assert set(table["label"]) <= {*classes, "macro"}
    wanted = session.classifier_.decision_function(phantom_vectors)
    np.testing.assert_allclose(session.scores, wanted, atol=1e-3)
    assert set(session.suspects().labels["suggested"]) <= set(classes)
    found = session.score({name: classes[name] for name in reversed(classes)})
    assert len(found.auc) >= 2
    assert len(session.queue(8, column="what")) == 8
    with pytest.raises(ValueError, match="answer"):
        session.label(0, "what", "yes")


def test_numbers_as_classes_without_prompts(make_plain, rows):
    session = make_plain(classes=[2, 0, 1])
    given = np.arange(60) % 3
    for row in range(40):
        session.label(row, "label", given[row])
    session.refit()
    assert session.classifier_.classes_.tolist() == [0, 1, 2]
    assert session.labels["label"][:3].tolist() == [0, 1, 2]
    two = make_plain(classes=[2, 0, 1])
    two.label(range(0, 60, 3), "label", 0)
    two.label(range(1, 60, 3), "label", 1)
    two.refit()
    assert list(two.scores) == [0, 1, 2]
    assert two.scores.isna().all().tolist() == [False, False, True]
    assert len(two.queue(4)) == 4


def test_labels_of_one_kind_teach_nothing(make_session, make_plain):
    session = make_session()
    before = session.scores
    session.label([0, 1], "effusion", "yes")
    assert session.refit()[["stage", "note"]].to_numpy().tolist() == [
        ["prompts", "labels of one kind only"]
    ]
    pd.testing.assert_frame_equal(session.scores, before)
    plain = make_plain()
    plain.label([0, 1], "label", "yes")
    with pytest.raises(SessionError, match="two different"):
        plain.refit()


def test_a_label_of_one_patient_has_no_figure(make_plain):
    session = make_plain()
    session.label([0, 1], "label", "yes")
    session.label(range(2, 20), "label", "no")
    table = session.refit()
    assert table["note"].tolist() == ["a label has one patient only"]
    assert np.isnan(table["value"][0])
    assert session.suspects().labels.empty


def test_the_queue_asks_for_what_is_not_known(make_session, truth, answer, phantoms):
    session = make_session()
    first = session.queue(8)
    likely = session.scores["effusion"].rank(ascending=False)
    assert (likely[first] <= 4).sum() >= 4
    assert session.queue(8).tolist() == first.tolist()
    seen = []
    for _ in range(5):
        chosen = session.queue(8)
        groups = pd.Series(phantoms.groups[chosen])
        assert (groups != groups.shift()).sum() == groups.nunique()  # together
        assert len(set(chosen)) == 8
        seen += chosen.tolist()
        answer(session, chosen, "effusion", truth[:, 0])
        session.refit(figures=False)
    assert len(set(seen)) == 40
    margins = session.scores["effusion"].abs().rank()
    assert margins[session.queue(8)].max() <= 40 + 64
    session.label(range(399), "effusion", "unsure")
    assert session.queue(8).tolist() == [399]


def test_the_queue_of_copies_and_of_one(make_plain):
    session = make_plain(X=np.ones((60, 4), dtype=np.float32))
    assert len(set(session.queue(8).tolist())) == 8
    assert len(session.queue(1)) == 1
    assert len(session.queue(600)) == 60
    with pytest.raises(ValueError, match="or more"):
        session.queue(0)


def test_selections(make_session, truth):
    frame = pd.DataFrame({"view": ["PA", "AP"] * 200, "age": np.arange(400) % 90})
    session = make_session(frame=frame)
    scores = session.scores["effusion"]
    assert session.select(low=0).tolist() == np.flatnonzero(scores >= 0).tolist()
    found = session.select(where={"view": "PA", "age": (40, 60)}, high=3, scores=scores)
    wanted = (frame["view"] == "PA") & frame["age"].between(40, 60) & (scores <= 3)
    assert found.tolist() == np.flatnonzero(wanted).tolist()
    assert session.select(where={"view": []}).tolist() == []
    x, y = session.points.T
    left = session.select(polygon=[(-99, -99), (x[0], -99), (x[0], 99), (-99, 99)])
    assert set(np.flatnonzero(x < x[0])) == set(left) - {0}
    session.points = np.column_stack([np.arange(400), np.zeros(400)])
    star = [(-1, -1), (9.5, -1), (4.5, 1), (4.5, -0.5), (-1, 1)]
    assert session.select(polygon=star, mask=np.ones(400, bool)).tolist() == [
        0, 1, 2, 5, 6,
    ]  # fmt: skip
    for wrong in (
        {"mask": [1, 2]},
        {"where": {"colour": ["red"]}},
        {"polygon": [(0, 0), (1, 1)]},
        {"polygon": [(0, 0), (1, np.nan), (0, 1)]},
        {"scores": [1.0]},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong)) + "|frame"):
            session.select(**wrong)


def test_neighbours_are_near_in_the_space_of_embeddings(make_session, phantom_vectors):
    session = make_session()
    session.label(7, "effusion", "yes")
    found = session.neighbours(3, k=5)
    unit = phantom_vectors / np.linalg.norm(phantom_vectors, axis=1, keepdims=True)
    cosines = unit @ unit[3]
    cosines[3] = -1
    assert found["row"].tolist() == np.argsort(-cosines)[:5].tolist()
    np.testing.assert_allclose(found["cosine"], np.sort(cosines)[::-1][:5], atol=1e-5)
    assert list(found) == ["row", "cosine", "group", "effusion"]
    assert len(session.neighbours(3, k=900)) == 399


def test_suspects_are_wrong_labels_and_copies(
    make_session, phantom_vectors, truth, answer
):
    X = phantom_vectors.copy()
    X[150] = X[10]
    session = make_session(X=X)
    given = truth[:, 0].copy()
    given[[20, 70]] = 1 - given[[20, 70]]
    answer(session, range(10, 200), "effusion", given)
    found = session.suspects()
    assert {20, 70} & set(found.labels["row"].head(4))
    assert found.copies.loc[0, ["row", "other_row"]].tolist() == [150, 10]


def test_labels_of_the_frame_count(make_session, truth):
    frame = pd.DataFrame({"effusion": truth[:, 0].astype(object)})
    frame.loc[300:, "effusion"] = None
    frame.loc[299, "effusion"] = -1
    session = make_session(frame=frame)
    assert session.refit()["n"].tolist() == [299]
    assert session.labels["effusion"][299] == "unsure"
    session.label(0, "effusion", None)
    assert session.refit()["n"].tolist() == [298]
    with pytest.raises(ValueError, match="maybe"):
        make_session(frame=frame.fillna("maybe"))


def test_unreadable_rows_are_left_out(make_session, phantom_vectors, truth, answer):
    X = phantom_vectors.copy()
    X[5:10] = np.nan
    session = make_session(X=X, locked=0.2)
    answer(session, np.flatnonzero(~session.locked), "effusion", truth[:, 0])
    n_readable = int((~session.locked[[*range(5), *range(10, 400)]]).sum())
    assert session.refit()["n"].tolist() == [n_readable]
    assert session.scores.iloc[5:10].isna().all(axis=None)
    assert session.points.dtype == X.dtype
    broken = X.copy()
    broken[3, 0] = np.inf
    with pytest.raises(ValueError, match="row 3"):
        make_session(X=broken)


def test_rows_may_be_mapped_and_are_not_written_to(make_plain, rows, tmp_path):
    np.save(tmp_path / "X.npy", rows)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    session = make_plain(X=mapped, groups=None)
    session.label(range(0, 60, 3), "label", "yes")
    session.label(range(1, 60, 3), "label", "no")
    assert session.refit()["value"][0] > 0.95
    assert np.isfinite(session.points).all()


@pytest.mark.parametrize(
    ("which", "column", "value", "message"),
    [
        (60, "label", "yes", "row 60"),
        (-1, "label", "yes", "row -1"),
        ([0, 99], "label", "yes", "row 99"),
        (0, "other", "yes", "other"),
        (0, "label", "Yes", "answer"),
        (0, "label", True, "answer"),
    ],
)
def test_wrong_labels_are_refused(make_plain, which, column, value, message):
    session = make_plain()
    with pytest.raises(ValueError, match=message):
        session.label(which, column, value)
    with pytest.raises(TypeError, match="flatnonzero"):
        session.label(np.ones(60, bool), "label", "yes")
    session.label([], "label", "yes")
    assert session.labels.isna().all(axis=None)


@pytest.mark.parametrize(
    "parameters",
    [
        {"X": [["a.png"]]},
        {"label": []},
        {"label": ["a", "a"]},
        {"label": ["a", "b"], "classes": ["x", "y"]},
        {"classes": ["x"]},
        {"classes": ["x", "unsure"]},
        {"images": ["a.png"]},
        {"groups": [1, 2]},
        {"locked": 1.5},
        {"locked": [1, 0]},
        {"locked": np.arange(60) < 3},  # half of a patient
        {"locked": np.ones(60, bool)},
        {"locked": pd.DataFrame({"path": ["a"]})},
    ],
)
def test_parameters_that_do_not_fit_are_refused(make_plain, parameters):
    with pytest.raises(ValueError, match=r"\w+"):
        make_plain(**parameters)


def test_prompts_for_another_question_are_refused(make_session, prompts):
    session = make_session()
    with pytest.raises(ValueError, match="device"):
        session.use_prompts(prompts)
    session.use_prompts({"effusion": {"positive": "fluid", "negative": "none"}})
    assert session.prompts["effusion"]["positive"] == "fluid"


def test_what_is_saved_predicts_from_images(
    make_session, phantoms, phantom_vectors, truth, answer, prompts, tmp_path
):
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(400)]})
    embedder = MedSigLIPEmbedder("demo")
    session = ExploreSession(
        phantom_vectors, prompts=prompts, frame=frame, groups=phantoms.groups,
        model=embedder, locked=0.25,
    )  # fmt: skip
    session.save(tmp_path / "early")  # nothing is trained yet
    chosen = np.flatnonzero(~session.locked)[:40]
    for place, name in enumerate(prompts):
        answer(session, chosen, name, truth[:, place])
    session.label(chosen[0], "device", "unsure")
    session.refit()
    session.save(tmp_path / "out")
    assert [one.name for one in (tmp_path / "early").iterdir()] == ["labels.csv"]
    table = pd.read_csv(tmp_path / "out" / "labels.csv")
    assert table["effusion"].dropna().to_numpy().tolist() == truth[chosen, 0].tolist()
    assert table["device"][chosen[0]] == -1
    assert table["path"][3] == "3.png"
    file = tmp_path / "out" / "classifier.skops"
    types = skops.io.get_untrusted_types(file=file)
    assert all(name.startswith("sk_medsiglip.") and "._" not in name for name in types)
    loaded = skops.io.load(file, trusted=types)
    np.testing.assert_allclose(
        loaded.predict_proba(phantoms.images[:4]),
        session.classifier_.predict_proba(phantom_vectors[:4]),
        atol=1e-5,
    )
    assert isinstance(loaded[-1], PromptProbe)
    # A table that was saved begins another session.
    again = ExploreSession(
        phantom_vectors, label=list(prompts), frame=table, model="demo"
    )
    assert again.labels.notna().sum().tolist() == [40, 40]


def test_exports(make_session, truth, answer, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    images = [f"{i}.png" for i in range(400)]
    session = make_session(images=images, locked=0.25)
    chosen = np.flatnonzero(~session.locked)[:20]
    answer(session, chosen, "effusion", truth[:, 0])
    session.refit()
    for name, read in (("a.csv", pd.read_csv), ("a.parquet", pd.read_parquet)):
        session.export(tmp_path / name)
        table = read(tmp_path / name)
        assert table["image"].tolist() == images
        assert table["effusion"].notna().sum() == 20
        np.testing.assert_allclose(table["score_effusion"], session.scores["effusion"])
        np.testing.assert_allclose(table["projection_x"], session.points[:, 0])
    session.export(tmp_path / "a.json")
    samples = json.loads((tmp_path / "a.json").read_text())["samples"]
    assert samples[chosen[0]]["effusion"]["_cls"] == "Classification"
    hidden = [one for one in samples if one["tags"] == ["locked"]]
    assert len(hidden) == session.locked.sum()
    assert not any("score_effusion" in one for one in hidden)
    with pytest.raises(ValueError, match=r"\.txt"):
        session.export(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="paths"):
        make_session().export(tmp_path / "a.json")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="parquet"):
        session.export(tmp_path / "b.parquet")
