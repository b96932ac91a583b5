"""``audit``: all checks in one call, and what it says about them."""

import pickle

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.audit import audit, find_label_issues

N = 200


@pytest.fixture(scope="module")
def planted(phantoms, phantom_vectors):
    """Rows, labels and metadata with a wrong label, a mark and a poor site."""
    rng = np.random.default_rng(0)
    X = phantom_vectors[:N].copy()
    y = pd.DataFrame(
        phantoms.target[:N, :2].astype(float), columns=list(phantoms.target_names[:2])
    )
    X[7] = X.mean(axis=0) + 40 * X.std(axis=0) * rng.choice([-1, 1], X.shape[1])
    truth = y.iloc[:, 1].to_numpy(copy=True)
    y.iloc[50, 0] = 1 - y.iloc[50, 0]
    portable = np.where(np.arange(N) % 7 > 0, truth, 1 - truth)
    X += np.float32(0.5) * X.std(axis=0) * portable[:, None].astype(np.float32)
    y.iloc[:20, 1] = np.nan
    X[99] = X[30]
    metadata = pd.DataFrame(
        {"portable": portable.astype(int), "site": rng.choice(list("ABC"), N)}
    )
    return X, y, np.asarray(phantoms.groups)[:N], metadata


@pytest.fixture(scope="module")
def found(planted):
    """The audit of the planted faults; do not change it."""
    X, y, groups, metadata = planted
    return audit(X, y, groups=groups, metadata=metadata)


def test_planted_faults_are_in_the_tables(found):
    assert 50 in found.label_issues["row"].head(2).tolist()
    assert found.unusual["row"].tolist() == [7]
    assert 0 < found.unusual.attrs["n_expected"] < 1
    assert (
        found.shortcuts.loc[found.shortcuts["shortcut"], "column"].eq("portable").any()
    )
    assert set(found.slices["finding"]) == {"cardiomegaly", "effusion"}
    assert found.copies[["row", "other_row"]].to_numpy().tolist() == [[99, 30]]
    assert found.found["unusual"] == found.found["copies"] == 1
    assert found.n_patients == 102


def test_the_summary_names_faults_and_no_patient(found, planted):
    said = found.summary()
    assert "portable can be read from the images" in said
    assert "1 image is very unlike the others" in said
    assert "1 image is a copy of an earlier image, 1 under another patient" in said
    assert not [one for one in np.unique(planted[2]) if str(one) in said]
    assert said.splitlines() == found.sentences()
    assert "shortcuts=" in repr(found)
    assert found._repr_html_().count("<li>") == len(found.sentences())


def test_tables_equal_those_of_the_single_checks(found, planted):
    X, y, groups, _ = planted
    alone = find_label_issues(X, y, groups=groups)
    pd.testing.assert_frame_equal(found.label_issues, alone)


def test_what_is_not_given_is_left_out_and_named(planted):
    X, y, _, _ = planted
    found = audit(X, y)
    assert set(found.left_out) == {"shortcuts", "slices", "disagreements"}
    assert "Patients were not given" in found.summary()
    assert "Shortcuts were not looked for: metadata" in found.summary()
    assert "slices" not in found.found
    with pytest.raises(ValueError, match="metadata"):
        _ = found.slices
    with pytest.raises(ValueError, match="checks are"):
        found.table("colour")


def test_a_sentence_escapes_its_html(planted):
    X, y, groups, metadata = planted
    renamed = y.rename(columns={"effusion": "<b>effusion</b>"})
    shown = audit(X, renamed, groups=groups, metadata=metadata)._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown


def test_images_and_their_rows_give_the_same_audit(phantoms, phantom_vectors):
    y, groups = phantoms.target[:80, 0], phantoms.groups[:80]
    by_image = audit(phantoms.images[:80], y, groups=groups, embedder="demo")
    by_row = audit(phantom_vectors[:80], y, groups=groups)
    pd.testing.assert_frame_equal(by_image.label_issues, by_row.label_issues)
    assert by_image.images is not None
    assert by_row.images is None


def test_stored_images_need_no_model_pass(phantoms, store):
    images, y = phantoms.images[:60], phantoms.target[:60, 0]
    embedder = MedSigLIPEmbedder("demo", cache=store)
    embedder.transform(images)
    before = store.stats()["rows_computed"]
    audit(images, y, embedder=embedder)
    assert store.stats()["rows_computed"] == before


@pytest.mark.parametrize("kind", ["strings", "three classes"])
def test_classes_are_audited(planted, kind):
    X, y, groups, metadata = planted
    labels = np.where(y.iloc[:, 0] == 1, "ill", "well")
    if kind == "three classes":
        labels[y.iloc[:, 1].to_numpy() == 1] = "effusion"
    found = audit(X, labels, groups=groups, metadata=metadata)
    assert 50 in found.label_issues["row"].head(5).tolist()
    assert len(found.slices)


def test_the_order_of_rows_and_names_of_patients_change_nothing(planted, found):
    X, y, groups, metadata = planted
    order = np.random.default_rng(1).permutation(N)
    names = pd.factorize(groups)[0] * 7 % 1009
    again = audit(
        X[order], y.iloc[order], groups=names[order], metadata=metadata.iloc[order]
    )
    for name in ("shortcuts", "slices"):
        # The two rows that are copies of each other have no order of their own.
        pd.testing.assert_frame_equal(found.table(name), again.table(name), rtol=0.01)
    assert order[again.unusual["row"]].tolist() == found.unusual["row"].tolist()


def test_unreadable_images_are_left_out(planted):
    X, y, groups, metadata = planted
    X = X.copy()
    X[3] = np.nan
    found = audit(X, y, groups=groups, metadata=metadata)
    assert any("could not be read" in one for one in found.sentences())
    assert found.n_images == N


def test_few_patients_are_said(planted):
    X, y, groups, _ = planted
    found = audit(X[:24], y.iloc[:24, 0].to_numpy(), groups=groups[:24])
    assert "20 patients" in found.left_out["unusual"]
    assert "unusual" not in found.found


def test_an_audit_can_be_pickled(found):
    again = pickle.loads(pickle.dumps(found))
    assert again.summary() == found.summary()


def test_inputs_that_do_not_fit_are_named(planted):
    X, y, groups, metadata = planted
    with pytest.raises(ValueError, match="metadata holds"):
        audit(X, y, metadata=metadata.head(10))
    with pytest.raises(ValueError, match="two levels"):
        audit(X, y, groups=groups, metadata={"site": ["A"] * N})
    with pytest.raises(ValueError, match="groups"):
        audit(X, y, groups=groups[:10])
    with pytest.raises(ValueError, match="blank"):
        audit(X, y * np.nan)


def test_the_page_holds_every_table_and_names_nobody(found, planted, tmp_path):
    file = found.to_html(tmp_path / "audit.html")
    page = file.read_text(encoding="utf-8")
    for heading in ("Summary", "Wrong labels", "Copies", "Shortcuts", "Subgroups"):
        assert f">{heading}" in page
    assert "row 50" in page
    assert "portable" in page
    assert not [one for one in np.unique(planted[2]) if str(one) in page]
    assert "<img" not in page
    assert "<script" not in page
    assert "http-equiv" in page


def test_the_page_shows_pictures_and_names_on_request(found, phantoms, tmp_path):
    images = list(phantoms.images[:N])
    images[7] = "missing.png"
    page = found.to_html(
        tmp_path / "audit.html",
        show_images=True,
        images=images,
        names=[f"{row}.png" for row in range(N)],
        title="<Audit>",
        max_rows=3,
    ).read_text(encoding="utf-8")
    assert "pictures of patients" in page
    assert page.count("<img") == 4  # three labels and one copy; one cannot be read
    assert "50.png" in page
    assert "the first 3 of" in page
    assert "&lt;Audit&gt;" in page


def test_pages_that_cannot_be_written_are_refused(found, tmp_path):
    with pytest.raises(ValueError, match="images="):
        found.to_html(tmp_path / "a.html", show_images=True)
    with pytest.raises(ValueError, match="names"):
        found.to_html(tmp_path / "a.html", names=["a"])
    with pytest.raises(FileNotFoundError, match="folder"):
        found.to_html(tmp_path / "missing" / "a.html")
    assert not list(tmp_path.iterdir())
