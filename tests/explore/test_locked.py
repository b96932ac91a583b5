"""Locked rows: nothing of them comes out, and nothing goes in, until the one look."""

import json

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip.evaluation import evaluate
from sk_medsiglip.exceptions import SessionError


def test_the_share_is_drawn_by_patient(make_session, phantoms):
    locked = make_session(locked=0.25).locked
    assert 0.2 < locked.mean() <= 0.25
    assert not set(phantoms.groups[locked]) & set(phantoms.groups[~locked])
    assert (make_session(locked=0.25, random_state=1).locked != locked).any()


def test_a_table_locks_the_rows_that_it_holds(make_plain):
    frame = pd.DataFrame({"path": [f"{i}.png" for i in range(60)], "age": 40})
    table = frame.iloc[10:20].sample(frac=1, random_state=0)[["path"]]
    session = make_plain(frame=frame, locked=table)
    assert np.flatnonzero(session.locked).tolist() == list(range(10, 20))
    with pytest.raises(ValueError, match="x.png"):
        make_plain(frame=frame, locked=pd.DataFrame({"path": ["x.png"]}))


def everything(session, truth):
    """What all methods say of a session that is labelled by its own queue."""
    said = []
    for _ in range(3):
        chosen = session.queue(8)
        said.append(chosen)
        for row in chosen:
            session.label(row, "effusion", "yes" if truth[row] else "no")
        said.append(session.refit())
    found = session.score(session.prompts)
    said += [found.scores, found.histogram, found.auc, session.score().histogram]
    said += [session.labels, session.scores, session.figures_]
    said += [pd.DataFrame(session.points), *session.suspects().values()]
    said += [session.select(), session.select(low=-1e9), session.queue(400)]
    open_rows = np.flatnonzero(~session.locked)
    said += [session.neighbours(row, 400) for row in open_rows[:3]]
    return said


def test_nothing_of_locked_rows_comes_out_of_any_method(
    make_session, phantom_vectors, truth
):
    """What they hold, in vectors and in labels, changes no answer."""
    frame = pd.DataFrame({"effusion": np.full(400, np.nan)})
    session = make_session(locked=0.25)
    locked = session.locked
    other_X, other_truth = phantom_vectors.copy(), truth[:, 0].copy()
    other_X[locked] = np.random.default_rng(0).normal(size=other_X[locked].shape)
    other_truth[locked] = 1 - other_truth[locked]
    one, other = (
        everything(
            make_session(
                X=X,
                locked=locked,
                frame=frame.assign(effusion=np.where(locked, y, np.nan)),
            ),
            truth[:, 0],
        )
        for X, y in ((phantom_vectors, truth[:, 0]), (other_X, other_truth))
    )
    for a, b in zip(one, other, strict=True):
        if isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b)
            rows = a["row"] if "row" in a else []
        else:
            np.testing.assert_array_equal(a, b)
            rows = a
        assert not set(rows) & set(np.flatnonzero(locked))


def test_locked_rows_are_refused(make_session, tmp_path):
    frame = pd.DataFrame({"effusion": [1, 0] * 200})
    session = make_session(locked=0.25, frame=frame)
    row = np.flatnonzero(session.locked)[0]
    with pytest.raises(SessionError, match="locked"):
        session.label([row], "effusion", "yes")
    with pytest.raises(SessionError, match="locked"):
        session.neighbours(row)
    assert session.labels[session.locked].isna().all(axis=None)
    session.export(tmp_path / "a.csv")
    table = pd.read_csv(tmp_path / "a.csv")[session.locked]
    assert table[["effusion", "score_effusion", "projection_x"]].isna().all(axis=None)
    session.save(tmp_path)
    saved = pd.read_csv(tmp_path / "labels.csv")
    assert saved["effusion"][session.locked].isna().all()
    session.points = np.ones((400, 2))
    assert np.isnan(session.points[session.locked]).all()


def test_judge_evaluates_on_the_locked_rows_and_counts_the_look(
    make_session, phantom_vectors, phantoms, truth, answer, tmp_path
):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path = tmp_path / "labels.jsonl"
    session = make_session(locked=0.25, labels_path=path)
    locked = session.locked
    for _ in range(4):
        answer(session, session.queue(8), "effusion", truth[:, 0])
        session.refit(figures=False)
    found = session.judge(tmp_path / "out", truth=truth[locked, 0], n_bootstrap=50)
    wanted = evaluate(
        {"PromptProbe": session.classifier_}, phantom_vectors[locked],
        truth[locked, 0], groups=phantoms.groups[locked],
    )  # fmt: skip
    area = found.set_index(["estimator", "metric"])["value"]
    assert area["PromptProbe", "roc_auc"] == wanted["value"][0]
    assert ("prompts", "roc_auc") in area.index
    assert session.scores["effusion"].notna().all()
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "locked before the first label" in page
    assert "demonstration" in page
    assert "look 2" not in page
    # The classifier is final, also after the session is opened again.
    again = make_session(labels_path=path)
    assert (again.is_ended, again.n_looks) == (True, 1)
    row = np.flatnonzero(~locked)[-1]
    for refused in (again.refit, lambda: again.label(row, "effusion", "yes")):
        with pytest.raises(SessionError, match="ended|final"):
            refused()
    second = again.judge(tmp_path / "out", truth=truth[locked, 0], n_bootstrap=50)
    pd.testing.assert_frame_equal(found, second)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "look 2" in page
    kinds = [json.loads(line)["what"] for line in path.read_text().splitlines()]
    assert kinds.count("look") == 2
    assert kinds.count("end") == 1


def test_locked_rows_are_labelled_blind_after_the_end(make_session, truth, answer):
    session = make_session(locked=0.25)
    answer(session, session.queue(20), "effusion", truth[:, 0])
    with pytest.raises(SessionError, match="end()"):
        session.judge()
    assert not session.is_ended
    session.end()
    asked = session.queue(400)
    assert set(asked) == set(np.flatnonzero(session.locked))
    answer(session, asked[:40], "effusion", truth[:, 0])
    session.label(asked[40], "effusion", "yes")
    assert session.undo()["rows"] == [asked[40]]
    assert session.scores[session.locked].isna().all(axis=None)
    assert session.n_looks == 0
    assert session.judge()["n"][0] == 40
    while session.undo():
        pass
    assert session.labels.notna().sum().tolist() == [20]


def test_several_findings_are_judged_together(make_session, truth, answer, prompts):
    names = list(prompts)
    session = make_session(prompts=prompts, locked=0.3)
    for place, name in enumerate(names):
        answer(session, session.select()[:50], name, truth[:, place])
    wanted = pd.DataFrame(truth, columns=names)[session.locked].astype(float)
    wanted.iloc[::9, 1] = np.nan
    table = session.judge(truth=wanted[names[::-1]])
    table = table[table["metric"] == "roc_auc"].set_index(["estimator", "label"])
    assert set(table.index.get_level_values("label")) == {*names, "macro", "micro"}
    n_known = wanted.notna().sum()
    assert table.loc[("PromptProbe", "effusion"), "n"] == n_known["effusion"]
    assert table.loc[("PromptProbe", "device"), "n"] == n_known["device"]


def test_labels_of_locked_rows_may_stand_in_the_frame(make_plain, rows):
    frame = pd.DataFrame({"label": (np.arange(60) % 3 == 0).astype(int)})
    session = make_plain(frame=frame, locked=0.3)
    table = session.judge()
    assert table["n"][0] == session.locked.sum()
    assert table["value"][0] > 0.9


def test_what_cannot_be_judged_is_not_a_look(make_plain, tmp_path):
    with pytest.raises(SessionError, match=r"locked=0\.2"):
        make_plain().judge()
    session = make_plain(classes=["a", "b", "c"], locked=0.3)
    open_rows = np.flatnonzero(~session.locked)
    session.label(open_rows[::2], "label", "a")
    session.label(open_rows[1::2], "label", "b")
    n_locked = int(session.locked.sum())
    truth = np.array(["a", "b", "c"] * n_locked)[:n_locked]
    with pytest.raises(SessionError, match="c"):
        session.judge(truth=truth)
    with pytest.raises(ValueError, match="truth"):
        session.judge(truth=truth[1:])
    with pytest.raises(TypeError, match="colour"):
        session.judge(tmp_path, truth=np.where(truth == "c", "a", truth), colour=1)
    assert session.n_looks == 0
    assert not session.is_ended
