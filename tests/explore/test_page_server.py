"""The server of the page: who may ask, and what it answers."""

import io
import json
import socket
import sys
import time
import warnings
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
from page_requests import Browser
from PIL import Image

from sk_medsiglip.datasets import make_chest_phantoms, write_phantoms
from sk_medsiglip.exceptions import AddressError, MissingDependencyError, SessionError
from sk_medsiglip.explore import ExploreSession, explore

PAIR = {"positive": ["pleural effusion", "fluid"], "negative": ["no pleural effusion"]}


def settled(browser):
    """Return the state once all images have been embedded."""
    until = time.monotonic() + 60
    while (state := browser.ask("state"))["is_embedding"]:
        assert not state["embedding_error"]
        assert time.monotonic() < until
        time.sleep(0.05)
    return state


def read_map(browser, w=400, h=300, **query):
    bounds = browser.ask("map", **query)
    area = {name: bounds[name] for name in ("x0", "x1", "y0", "y1")}
    answer = browser.get("map.png", **area, w=w, h=h, **query)
    assert answer.headers["content-type"] == "image/png"
    return bounds, Image.open(io.BytesIO(answer.content))


def test_the_state_is_told_once(plain):
    server, browser = plain
    state = browser.ask("state")
    locked = int(server.session.locked.sum())
    assert (state["n_rows"], state["n_embedded"], state["n_locked"]) == (60, 60, locked)
    assert state["n_groups_locked"] * 2 == locked
    assert state["values"] == ["yes", "no"]
    assert browser.ask("state", since=state["seq"]) == {"seq": state["seq"]}
    free = np.flatnonzero(~server.session.locked)[:2].tolist()
    browser.send("label", rows=free, column="label", value="yes")
    later = browser.ask("state", since=state["seq"])
    assert later["seq"] > state["seq"]
    assert later["n_labels"] == {"label": {"no": 0, "yes": 2, "unsure": 0}}
    assert later["last_label"]["n"] == 2
    browser.send("view", colour="label:label", area=[0, 1, 0, 1])
    assert browser.ask("state")["view"]["colour"] == "label:label"


def test_a_label_is_on_the_disk_before_the_answer(plain, tmp_path):
    server, browser = plain
    row = int(np.flatnonzero(~server.session.locked)[0])
    file = tmp_path / "results" / "labels.jsonl"
    browser.send("label", rows=[row], column="label", value="yes")
    assert json.loads(file.read_text().splitlines()[-1])["rows"] == [row]
    assert browser.ask("rows", rows=row)[0]["labels"] == {"label": "yes"}
    assert browser.send("undo")["undone"]["rows"] == [row]
    assert browser.ask("rows", rows=row)[0]["labels"] == {"label": ""}
    assert browser.send("undo")["undone"] is None
    browser.send("label", rows=[row], column="label", value="unsure")
    browser.send("label", rows=[row], column="label", value="")
    assert browser.ask("state")["n_labels"]["label"]["unsure"] == 0
    for wrong in (
        {"rows": [row], "column": "label", "value": "perhaps"},
        {"rows": [60], "column": "label", "value": "yes"},
        {"rows": "all", "column": "label", "value": "yes"},
        {"rows": [row], "column": "none", "value": "yes"},
        {"rows": [row], "column": "label"},
    ):
        answer = browser.post("label", **wrong)
        assert answer.status == 400
        assert json.loads(answer.content)["error"]


def test_locked_rows_are_in_no_answer_until_they_are_asked_for(study, phantoms):
    server, browser = study
    session = server.session
    locked = np.flatnonzero(session.locked).tolist()
    free = np.flatnonzero(~session.locked)
    truth = phantoms.target[:100, phantoms.target_names.index("effusion")]
    assert browser.ask("rows", rows=",".join(map(str, locked))) == []
    assert browser.get("image", row=locked[0]).status == 400
    assert browser.get("heat", row=locked[0]).status == 400
    assert browser.get("neighbours", row=locked[0]).status == 400
    answer = browser.post("label", rows=[locked[0]], column="effusion", value="yes")
    assert answer.status == 400
    everything = [[-1e6, -1e6], [1e6, -1e6], [1e6, 1e6], [-1e6, 1e6]]
    for query in ({"polygon": everything}, {"rows": locked}, {"low": -1e6}, {}):
        assert not set(browser.send("select", **query)["rows"]) & set(locked)
    assert not set(browser.ask("queue", k=100)["rows"]) & set(locked)
    near = browser.ask("neighbours", row=int(free[0]), k=99)["rows"]
    assert not {one["row"] for one in near} & set(locked)
    bins = browser.send("score", prompts={"effusion": PAIR})["histogram"]
    assert sum(one["unlabelled"] for one in bins) == len(free)
    for value in (0, 1):
        rows = [int(row) for row in free[:40] if truth[row] == value]
        browser.send("label", rows=rows, column="effusion", value=("no", "yes")[value])
    figures = browser.send("refit")["figures"]
    assert figures[0]["n"] == 40
    assert not browser.ask("state")["can_judge"]
    assert browser.post("judge").status == 400

    browser.send("end")
    asked = browser.ask("queue", k=100)["rows"]
    assert set(asked) == set(locked)
    facts = browser.ask("rows", rows=asked[0])[0]
    assert (facts["locked"], facts["scores"]["effusion"]) == (True, None)
    assert browser.get("image", row=asked[0]).status == 200
    for row in locked:
        value = ("no", "yes")[truth[row]]
        browser.send("label", rows=[row], column="effusion", value=value)
    assert browser.ask("state")["can_judge"]
    judged = browser.send("judge")
    assert {one["metric"] for one in judged["figures"]} > {"roc_auc"}
    names = {one["name"] for one in judged["files"]}
    assert names >= {"report.html", "classifier.skops", "labels.csv"}
    assert browser.ask("state")["n_looks"] == 1
    assert browser.ask("rows", rows=locked[0])[0]["scores"]["effusion"] is not None


def test_prompts_are_tried_and_taken(study, phantoms):
    server, browser = study
    free = np.flatnonzero(~server.session.locked)
    truth = phantoms.target[:100, phantoms.target_names.index("effusion")]
    for value in (0, 1):
        rows = [int(row) for row in free if truth[row] == value]
        browser.send("label", rows=rows, column="effusion", value=("no", "yes")[value])
    found = browser.send("score", prompts={"effusion": PAIR})
    (auc,) = found["auc"]
    roc = found["roc"]["effusion"]
    assert len({len(values) for values in roc.values()}) == 1
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(auc["value"], abs=0.02)
    fluid, effusion, no = (
        {one["text"]: one for one in found["texts"]}[name]
        for name in ("fluid", "pleural effusion", "no pleural effusion")
    )
    assert (no["auc_without"], no["side"]) == (None, "negative")
    alone = {"positive": "fluid", "negative": "no pleural effusion"}
    without = browser.send("score", prompts={"effusion": alone})["auc"][0]["value"]
    assert effusion["auc_without"] == pytest.approx(without, abs=1e-6)
    assert effusion["change"] == pytest.approx(auc["value"] - without, abs=1e-6)
    assert fluid["column"] == "effusion"
    assert "try:effusion" in {one["id"] for one in browser.ask("state")["colours"]}
    low = browser.send("select", column="try:effusion", low=0.0)
    assert low["n"] < len(free)
    browser.send("prompts", prompts={"effusion": alone})
    assert browser.ask("state")["prompts"]["effusion"]["positive"] == ["fluid"]
    assert browser.post("score", prompts={"effusion": {"positive": "x"}}).status == 400
    assert browser.post("prompts", prompts={"nodule": PAIR}).status == 400
    assert browser.post("score", prompts="fluid").status == 400


def test_rows_are_selected_by_what_is_known_of_them(start, rows, patients):
    frame = pd.DataFrame({
        "age": np.arange(60.0), "view": ["PA", "AP"] * 30, "odd": [True, False] * 30,
    })  # fmt: skip
    images = [f"folder/a{i}.png" for i in range(60)]
    _, browser = start(rows, images=images, groups=patients, frame=frame, model="demo")

    def select(**query):
        return browser.send("select", **query)["rows"]

    assert select(where={"age": {"low": 10, "high": 12}}) == [10, 11, 12]
    assert select(where={"age": ["3"]}) == [3]
    assert select(where={"view": ["PA"]}, rows=[1, 2, 3]) == [2]
    assert select(text="A59") == [59]
    assert select(text="row:7") == [7]
    assert select(text="4") == [4, 8, 9, 14, 24, 34, *range(40, 50), 54]
    assert browser.post("select", where={"none": [1]}).status == 400
    assert browser.post("select", polygon=[[0, 0]]).status == 400
    kinds = {one["name"]: one["kind"] for one in browser.ask("state")["colours"]}
    assert (kinds["age"], kinds["view"]) == ("number", "category")
    for colour in ("column:age", "column:view", "column:odd", "label:label"):
        bounds, _ = read_map(browser, colour=colour)
        assert bounds["legend"] or colour == "label:label"
    assert browser.get("map", colour="score:none").status == 400
    assert (
        browser.get(
            "map.png", x0=0, x1=0, y0=0, y1=1, w=9, h=9, colour="label:label"
        ).status
        == 400
    )  # noqa: E501


def test_images_are_pictures_or_sentences(start, tmp_path, phantom_vectors):
    phantoms = make_chest_phantoms(3, dtype="uint16", random_state=0)
    Image.fromarray(phantoms.images[0]).save(tmp_path / "good.png")
    (tmp_path / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"nonsense")
    paths = [tmp_path / name for name in ("good.png", "gone.png", "broken.dcm")]
    X = np.vstack([phantom_vectors[:1], np.full((2, 192), np.nan)])
    server, browser = start(X, images=paths, model="demo")
    answer = browser.get("image", row=0, size=64)
    assert answer.headers["content-type"] == "image/jpeg"
    assert "max-age" in answer.headers["cache-control"]
    assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
    for row, name in ((1, "gone.png"), (2, "broken.dcm")):
        answer = browser.get("image", row=row)
        assert answer.status == 404
        sentence = json.loads(answer.content)["error"]
        assert name in sentence
        assert str(tmp_path) not in sentence
    assert browser.get("image", row=3).status == 400
    assert browser.get("image", row="../x").status == 400
    facts = browser.ask("rows", rows="0,1")
    assert [one["readable"] for one in facts] == [True, False]
    assert [one["caption"] for one in facts] == ["good.png", "gone.png"]
    assert browser.ask("suspects")["unreadable"] == [1, 2]


def test_slices_of_studies(start, phantom_vectors):
    volumes = [np.zeros((5, 12, 10), np.uint8), np.zeros((12, 10), np.uint8)]
    volumes[0][3] = 255
    _, browser = start(phantom_vectors[:2], images=volumes, model="demo")
    assert browser.ask("state")["has_slices"]
    assert [one["n_slices"] for one in browser.ask("rows", rows="0,1")] == [5, 1]
    levels = [
        np.asarray(Image.open(io.BytesIO(browser.get("image", row=0, slice=i).content)))
        for i in (2, 3)
    ]
    assert [level.max() for level in levels] == [0, 255]
    assert browser.get("image", row=0, slice=5).status == 404


def test_heat_maps(study):
    _, browser = study
    row = browser.ask("queue", k=1)["rows"][0]
    overlay = Image.open(io.BytesIO(browser.get("heat", row=row).content))
    assert overlay.mode == "RGBA"
    assert np.asarray(overlay)[..., 3].max() > 100
    assert browser.get("heat", row=row, column="none").status == 400


def test_downloads(study, tmp_path):
    _, browser = study
    assert browser.get("files/report.html").status == 404
    assert browser.get("files/classifier.skops").status == 404
    browser.send("refit")
    for name in ("labels.csv", "classifier.skops", "figures.csv", "export.csv"):
        answer = browser.get(f"files/{name}")
        assert answer.status == 200
        assert "attachment" in answer.headers["content-disposition"]
    assert browser.get("files/samples.json").status == 400  # images have no paths
    names = {one["name"] for one in browser.send("save")["files"]}
    assert names == {"labels.csv", "classifier.skops", "figures.csv", "export.csv"}


def test_two_browsers_and_another_program_share_the_labels(plain, rows, patients):
    server, browser = plain
    other = Browser(browser.url.geturl())
    other.cookie = browser.cookie
    free = np.flatnonzero(~server.session.locked)[:3].tolist()
    browser.send("label", rows=free[:1], column="label", value="yes")
    assert other.ask("rows", rows=free[0])[0]["labels"]["label"] == "yes"
    path = server.session._file.path
    before = other.ask("state")["seq"]
    program = ExploreSession(rows, groups=patients, model="demo", labels_path=path)
    program.label(free[1:], "label", "no")
    with path.open("a") as file:
        file.write('{"what": "nonsense"}\n')
    state = other.ask("state", since=before)
    assert state["n_labels"]["label"] == {"no": 2, "yes": 1, "unsure": 0}
    assert "line 4" in str(other.ask("state")["notes"])


def test_images_are_embedded_while_the_page_is_in_use(start, tmp_path):
    phantoms = make_chest_phantoms(60, random_state=0)
    table = write_phantoms(phantoms, tmp_path / "images")
    paths = [str(tmp_path / "images" / name) for name in table["path"]]
    paths[7] = str(tmp_path / "gone.png")
    how = {
        "groups": phantoms.groups, "prompts": {"effusion": PAIR}, "locked": 0.2,
        "model": "demo", "title": "Sixty",
    }  # fmt: skip
    server, browser = start(paths, **how)
    state = settled(browser)
    assert state["title"] == "Sixty"
    assert (state["n_embedded"], state["n_failed"]) == (
        59,
        1 - server.session.locked[7],
    )
    assert state["seconds_left"] is None
    assert state["is_demo"]
    session = server.session
    free = np.flatnonzero(~session.locked & (np.arange(60) != 7))
    assert np.isfinite(session.points[free]).all()
    assert np.isfinite(session.scores["effusion"][free]).all()
    browser.send("label", rows=free[:3].tolist(), column="effusion", value="yes")
    server.stop()
    again, browser = start(paths, **how)
    assert settled(browser)["n_labels"]["effusion"]["yes"] == 3


def test_images_in_memory_are_known_by_their_content(start):
    images = list(make_chest_phantoms(5, random_state=0).images)
    server, browser = start(images, model="demo")
    settled(browser)
    browser.send("label", rows=[2], column="label", value="no")
    server.stop()
    _, browser = start(images, model="demo")
    assert browser.ask("state")["n_labels"]["label"]["no"] == 1
    with pytest.raises(SessionError, match="other images"):
        start(images[::-1], model="demo")


def test_twenty_thousand_rows(start):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 16)).astype(np.float32)
    server, browser = start(X, model="demo")
    state = browser.ask("state")
    assert state["n_rows"] == 20_000
    _, picture = read_map(browser, w=800, h=600, colour="label:label")
    assert picture.size == (800, 600)
    assert (np.asarray(picture) > 0).sum() > 10_000
    found = browser.send("select", box=[-1, -1, 1, 1])
    assert found["n"] > len(found["rows"]) == 500
    browser.send("label", rows=found["rows"], column="label", value="yes")
    assert browser.ask("state")["n_labels"]["label"]["yes"] == 500


def test_a_taken_port_and_a_missing_package_are_named(rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for one, host in [
            (port, "127.0.0.1"),
            (70_000, "127.0.0.1"),
            ("x", "localhost"),
        ]:
            with pytest.raises(AddressError, match=str(one)):
                explore(rows, model="demo", host=host, port=one, block=False)
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[explore\]"):
        explore(rows, model="demo")


def test_the_phantoms_need_nothing(start):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        server, browser = start()
    state = browser.ask("state")
    assert state["is_demo"]
    assert state["columns"] == ["effusion"]
    assert state["n_locked"] > 0
    link = server._repr_html_()
    assert urlsplit(server.url).path in link
    assert "<script" not in link
