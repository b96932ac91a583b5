"""``write_report`` and ``sk-medsiglip report``: one HTML file that says it all."""

import json
import re
import sys
import warnings
from contextlib import nullcontext
from html import unescape
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.audit import audit
from sk_medsiglip.cli import app
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import (
    EmbeddingMapDisplay,
    MistakesDisplay,
    PrecisionRecallBandDisplay,
    ReliabilityDisplay,
    RocBandDisplay,
    choose_operating_point,
    evaluate,
    write_report,
)
from sk_medsiglip.exceptions import LeakageWarning, MissingDependencyError

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

EVIL = "<script>alert(1)</script>"
N = 180
LEARN, TUNE, JUDGE = slice(0, 60), slice(60, 120), slice(120, N)
FEW = {"n_bootstrap": 30}


class Data:
    """Phantoms with two findings, of which some are not known, and two classifiers."""

    def __init__(self):
        phantoms = make_chest_phantoms(N, random_state=3)
        self.images = phantoms.images
        self.embedder = MedSigLIPEmbedder("demo")
        self.X = self.embedder.fit_transform(phantoms.images)
        names = list(phantoms.target_names)
        # Of nodules the small checkpoint knows little: there are mistakes to show.
        y = phantoms.target[:, [names.index("nodule"), names.index("device")]]
        self.y = pd.DataFrame(y.astype(float), columns=["nodule", EVIL])
        self.nodule = self.y["nodule"].to_numpy().astype(int)
        self.y[np.random.default_rng(0).random(self.y.shape) < 0.1] = np.nan
        # Two images a patient, none of them on two sides.
        self.patients = np.array([f"NAME{i // 2:03d}" for i in range(N)])
        self.sex = np.array(["F", "M"])[np.arange(N) // 2 % 2]
        self.simple = LinearProbe().fit(self.X[LEARN], self.nodule[LEARN])
        self.probe = LinearProbe().fit(self.X[LEARN], self.y[LEARN])
        self.zero_shot = ZeroShotClassifier(
            {
                "nodule": {"positive": "a lung nodule", "negative": "no nodule"},
                EVIL: {"positive": "a <b>device</b>", "negative": "no device"},
            },
            model="demo",
        ).fit(self.X[LEARN])

    def test(self):
        return self.X[JUDGE], self.y[JUDGE]

    def tuning(self):
        return {
            "X_tune": self.X[TUNE],
            "y_tune": self.y[TUNE],
            "groups_tune": self.patients[TUNE],
        }


@pytest.fixture(scope="module")
def data():
    return Data()


@pytest.fixture(scope="module")
def full(data, tmp_path_factory):
    """A report with everything in it."""
    file = tmp_path_factory.mktemp("secret-folder") / "report.html"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few positives to tune on
        write_report(
            file,
            {"probe": data.probe, f"zero-shot {EVIL}": data.zero_shot},
            *data.test(),
            groups=data.patients[JUDGE],
            subgroups={"sex": data.sex[JUDGE]},
            **data.tuning(),
            X_train=data.X[LEARN],
            y_train=data.y[LEARN],
            groups_train=data.patients[LEARN],
            show_mistakes=2,
            images=data.images[JUDGE],
            embedder=data.embedder,
            title=f"Title {EVIL}",
            data=f"Phantoms {EVIL}",
            notes={"limits": f"Drawings {EVIL}", "Licence": "none"},
            command=f"typed {EVIL}",
            n_bootstrap=60,
        )
    return file


# Of one finding, known everywhere: few pictures to draw.
def small(known, folder, estimators=None, **params):
    params = {"metrics": ["roc_auc"], **FEW, **params}
    file = folder / "report.html"
    estimators = estimators or {"probe": known.simple}
    write_report(file, estimators, known.X[JUDGE], known.nodule[JUDGE], **params)
    return file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """A report of one classifier with nothing else given."""
    return small(data, tmp_path_factory.mktemp("plain"))


def test_an_audit_of_the_training_data_is_a_section(data, plain, tmp_path):
    found = audit(data.X[LEARN], data.nodule[LEARN], groups=data.patients[LEARN])
    html = small(data, tmp_path, audit=found)
    for sentence in found.sentences():
        assert sentence in words(html)
    assert 'href="#audit"' in html
    assert 'href="#audit"' not in plain


def test_maps_tell_the_rows_of_the_test_images(data, plain):
    assert 'href="#maps"' in plain
    said = re.findall(r"<title>row (\d+): (with|without) 1</title>", plain)
    found = np.full(len(data.nodule[JUDGE]), -1)
    for row, word in said:
        found[int(row)] = word == "with"
    np.testing.assert_array_equal(found, data.nodule[JUDGE])


def words(html):
    """Return what a reader sees."""
    body = html.partition("<body>")[2]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_figures_are_those_of_evaluate(data, full):
    table = evaluate(
        data.probe,
        *data.test(),
        groups=data.patients[JUDGE],
        metrics="roc_auc",
        n_bootstrap=60,
    )
    said = words(full.read_text(encoding="utf-8"))
    for row in table.itertuples():
        assert f"{row.value:.3f} {row.low:.3f} to {row.high:.3f}" in said


def test_every_part_is_there(full):
    html = full.read_text(encoding="utf-8")
    assert re.findall(r"<section id=\"(\w+)\"", html) == [
        *("summary", "use", "data", "leakage", "figures", "differences", "curves"),
        *("calibration", "subgroups", "thresholds", "decisions", "mistakes", "maps"),
        *("prompts", "origins"),
    ]
    assert set(re.findall(r'href="#(\w+)"', html)) == set(
        re.findall(r'id="(\w+)"', html)
    )
    said = words(html)
    assert "Not a medical device" in said
    assert "60 test images of 30 patients" in said
    assert "sk-medsiglip" in said
    assert "scikit-learn" in said


def test_texts_of_users_stay_texts(full):
    html = full.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b>device" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10


def test_nothing_is_fetched_and_nobody_is_named(data, full):
    html = full.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert {re.match(r"data:|#", one) is not None for one in sources} == {True}
    assert "url(" not in html
    assert "@import" not in html
    assert not any(name in html for name in data.patients)
    assert "secret-folder" not in html


def test_counts_leave_out_what_is_not_known(data, full, tmp_path):
    column = data.y[JUDGE]["nodule"]
    ill, well, unknown = (column == 1).sum(), (column == 0).sum(), column.isna().sum()
    n_patients = len(set(data.patients[JUDGE][column == 1]))
    said = words(full.read_text(encoding="utf-8"))
    assert f"nodule {ill} {well} {unknown} {n_patients}" in said
    # Of a single finding, too.
    file, y = tmp_path / "r.html", column.astype("Int64")
    write_report(file, data.simple, data.X[JUDGE], y, metrics=["roc_auc"], **FEW)
    said = words(file.read_text(encoding="utf-8"))
    assert f"nodule {ill} {well} {unknown} not given" in said


def test_tables_have_captions_and_headers_and_pictures_words(full):
    html = full.read_text(encoding="utf-8")
    tables = re.findall(r"(?s)<table.*?</table>", html)
    assert len(tables) > 8
    assert all("<caption>" in one for one in tables)
    assert all('scope="col"' in one and 'scope="row"' in one for one in tables)
    alts = re.findall(r'<img src="[^"]*" alt="([^"]*)">', html)
    assert len(alts) == html.count("<img ")
    assert all(len(alt) > 5 for alt in alts)
    assert re.search(r"ROC curve of nodule\. AUC: probe [01]\.\d{3} \(", " ".join(alts))


def test_pictures_of_patients_only_if_asked(full, plain):
    with_pictures = full.read_text(encoding="utf-8")
    assert "data:image/png" in with_pictures
    assert "This file holds images of patients" in with_pictures
    assert "data:image/png" not in plain
    assert "images of patients" not in plain
    assert re.search(r"\d+ of 60 wrong", plain)


def test_mistakes_are_called_as_asked(data, tmp_path):
    names = [f"image-{i}" for i in range(JUDGE.start, JUDGE.stop)]
    said = words(small(data, tmp_path, image_names=names))
    listed = {int(one) for one in re.findall(r"image-(\d+)", said)}
    wrong = data.simple.predict(data.X[JUDGE]) != data.nodule[JUDGE]
    assert listed & set(JUDGE.start + np.flatnonzero(wrong))


def test_thresholds_come_from_the_tuning_set(data, full):
    y, X = data.y["nodule"], data.X
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        point = choose_operating_point(
            y[TUNE], data.probe.predict_proba(X[TUNE])[:, 0], sensitivity=0.95
        )
    measured = point.report(
        y[JUDGE],
        data.probe.predict_proba(X[JUDGE])[:, 0],
        groups=data.patients[JUDGE],
    )
    said = words(full.read_text(encoding="utf-8"))
    value, low, high = measured.loc["sensitivity", ["value", "low", "high"]]
    n = int((y[TUNE] == 1).sum())
    tuned = f"{n} of {len(set(data.patients[TUNE][y[TUNE] == 1]))} patients"
    reached = f"{value:.3f} {low:.3f} to {high:.3f}"
    assert f"nodule {point.threshold:.4g} {tuned} {reached}" in said


def test_decisions_are_counted_by_image_subgroup_and_patient(data, tmp_path):
    X, y, patients = data.X, data.nodule, data.patients
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        html = small(
            data, tmp_path, groups=patients[JUDGE],
            subgroups={"sex": data.sex[JUDGE]}, X_tune=X[TUNE], y_tune=y[TUNE],
            groups_tune=patients[TUNE], prevalence=0.02,
        )  # fmt: skip
        point = choose_operating_point(
            y[TUNE], data.simple.predict_proba(X[TUNE])[:, 1], sensitivity=0.95
        )
    said = words(html)
    flagged = point.predict(data.simple.predict_proba(X[JUDGE])[:, 1])
    frame = pd.DataFrame({"y": y[JUDGE], "flagged": flagged, "who": patients[JUDGE]})
    groups = {
        "all images": frame,
        "sex=F": frame[data.sex[JUDGE] == "F"],
        "patients": frame.groupby("who").max(),
    }
    for name, own in groups.items():
        found, missed, alarms, spared = (
            ((own["y"] == a) & (own["flagged"] == b)).sum()
            for a, b in ((1, 1), (1, 0), (0, 1), (0, 0))
        )
        share = found / (found + missed)
        assert f"{name} {found} {missed} {alarms} {spared} {share:.3f}" in said
    seen = evaluate(
        flagged, y[JUDGE], y[JUDGE], groups=patients[JUDGE],
        metrics="ppv@prevalence=0.02",
    ).iloc[0]  # fmt: skip
    assert f"{seen['value']:.3f} {seen['low']:.3f} to {seen['high']:.3f}" in said
    assert "PPV at 0.02" in said
    assert "Decision curve: 1" in said
    assert "patients (max)" in said


def test_what_was_tuned_on_how_many_is_said(data, full, tmp_path):
    said = words(full.read_text(encoding="utf-8"))
    size = "60 images of 30 patients"
    assert f"Thresholds were chosen on the tuning set, {size}." in said
    assert f"The penalty of probe was chosen by cross-validation on its training images, {size}." in said  # fmt: skip  # noqa: E501
    assert "zero-shot was" not in said
    warm = ZeroShotClassifier(
        data.zero_shot.prompts, model="demo", calibrate="temperature"
    ).fit(data.X[LEARN], data.y[LEARN])
    file, X, y = tmp_path / "r.html", data.X[JUDGE], data.y[JUDGE].assign(nodule=0.0)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2)
    search.fit(data.X[LEARN], data.nodule[LEARN])
    with pytest.warns(UserWarning, match="one kind"):
        write_report(file, warm, X, y, metrics=["roc_auc"], **FEW)
    said = words(file.read_text(encoding="utf-8"))
    assert "temperature of ZeroShotClassifier was fitted on its training" in said
    assert "settings of search were" in words(small(data, tmp_path, {"search": search}))


def test_copies_among_the_test_images_are_counted(data, full, tmp_path):
    none = "None of the 60 test images is a copy of another test image."
    assert none in words(full.read_text(encoding="utf-8"))
    X = data.X[JUDGE].copy()
    X[1:3], X[9] = X[0], X[8]
    score = np.linspace(-1, 2, 60)  # not drawn as probabilities
    write_report(tmp_path / "r.html", score, X, data.nodule[JUDGE], **FEW)
    summary, _, rest = words((tmp_path / "r.html").read_text("utf-8")).partition(
        "To be filled in"
    )
    copies = "5 of the 60 test images are copies of another test image."
    assert copies in summary
    assert copies in rest
    images = list(data.images[JUDGE])
    write_report(tmp_path / "r.html", score, images, data.nodule[JUDGE], **FEW)
    said = words((tmp_path / "r.html").read_text("utf-8"))
    assert "not searched for copies" in said


def test_what_was_not_done_is_said(plain):
    said = words(plain)
    assert "No threshold was chosen" in said
    assert "The training set was not given" in said
    assert "No subgroups were given" in said
    assert "They are too narrow" in said
    assert "Differences" not in said
    assert "Published" not in said
    assert said.count("To be filled in") == 8


def published(data, folder, *labels, **params):
    """Return what a reader sees beside the figures of the model card."""
    file = folder / "published.html"
    y = data.y.set_axis(labels, axis=1)
    probe = LinearProbe().fit(data.X[LEARN], y[LEARN])
    params = {"published": "chest X-ray", "metrics": ["roc_auc"], **FEW, **params}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the second has no curves
        y = y[JUDGE].assign(**{labels[1]: 0.0})
        write_report(file, {"probe": probe}, data.X[JUDGE], y, **params)
    html = file.read_text(encoding="utf-8")
    return html.partition('id="published"')[2].partition("</section>")[0]


def test_published_figures_are_called_googles(data, tmp_path):
    html = published(data, tmp_path, "Pleural_Effusion", "scar")
    said = words(f"<body>{html}")
    assert "measured by Google" in said
    assert "the method differ" in said
    assert re.search(r"pleural effusion zero-shot 0\.914 0\.\d{3}", said)
    # The other twelve have nothing beside them here.
    assert "0.858" not in said
    assert html.count("<tr>") == 2
    assert "Source: MedSigLIP model card" in said


def test_labels_that_nobody_published_are_put_beside_nothing(data, tmp_path):
    said = words("<body>" + published(data, tmp_path, "nodule", "scar"))
    assert "none of the labels here is among those that Google published" in said
    assert "pleural effusion" in said
    assert "0.914" not in said


def test_a_demonstration_is_not_compared_with_medsiglip(data, tmp_path):
    with pytest.raises(ValueError, match="demonstration checkpoint"):
        published(data, tmp_path, "fracture", "scar", embedder=data.embedder)
    assert not (tmp_path / "published.html").exists()
    with pytest.raises(ValueError, match="demonstration checkpoint"):
        small(data, tmp_path, {"zero-shot": data.zero_shot}, published="dermatology")


def test_notes_fill_blanks(full):
    said = words(full.read_text(encoding="utf-8"))
    assert f"Known limits Drawings {EVIL}" in said
    assert "Licence none" in said
    assert said.count("To be filled in") == 6


def test_a_mean_of_other_findings_is_not_put_beside_googles(data, tmp_path):
    said = words("<body>" + published(data, tmp_path, "fracture", "pneumothorax"))
    assert "fracture zero-shot 0.708" in said
    assert "macro" not in said


@pytest.mark.parametrize("how", ["embedder", "prompts", "pipeline"])
def test_a_demonstration_says_so_at_the_top(data, tmp_path, how):
    from sklearn.pipeline import make_pipeline

    if how == "pipeline":
        params = {"X": list(data.images[JUDGE])}
        estimator = make_pipeline(data.embedder, data.simple)
    else:
        params = {"embedder": data.embedder} if how == "embedder" else {}
        estimator = data.simple if how == "embedder" else data.zero_shot
    y = data.nodule[JUDGE]
    if how == "prompts":
        y = data.y[JUDGE].assign(**{EVIL: 0.0})
    X = params.pop("X", data.X[JUDGE])
    file = tmp_path / "r.html"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # images of one kind only
        write_report(file, estimator, X, y, metrics=["roc_auc"], **params, **FEW)
    said = words(file.read_text(encoding="utf-8"))
    assert said.index("A demonstration, not MedSigLIP") < said.index("Not a medical")


def test_other_models_are_not_called_a_demonstration(plain):
    assert "A demonstration" not in plain


def test_the_title_names_what_is_judged(data, tmp_path):
    html = small(data, tmp_path, pos_label=1)
    assert "<h1>Evaluation of a medical image classifier: 1</h1>" in html
    y = pd.DataFrame(np.tile([[0.0, 1.0] * 3, [1.0, 0.0] * 3], (30, 1)))
    y.columns = [*"abcd", "e<", "f"]
    y[[*"bcd", "e<", "f"]] = 0.0  # such have no curves
    file = tmp_path / "many.html"
    score = np.random.default_rng(0).random(y.shape)
    with pytest.warns(UserWarning, match="one kind"):
        write_report(file, score, score, y, metrics=["roc_auc"], **FEW)
    html = file.read_text(encoding="utf-8")
    assert "classifier: a, b, c and 3 more</h1>" in html


def test_a_threshold_that_misses_its_target_is_in_the_summary(data, tmp_path):
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 30)
    # On other images half of those with the label score lower than on these.
    tuned = np.where(y == 1, 0.8, 0.2) + np.linspace(-0.1, 0.1, 60)
    judged = np.where(np.arange(60) % 4 == 1, 0.3, tuned)

    class Scores:
        classes_ = np.array([0, 1])

        def predict_proba(self, X):
            return np.column_stack([1 - X[:, 0], X[:, 0]])

        def predict(self, X):
            return (X[:, 0] > 0.5).astype(int)

    def summary(scores, **params):
        file = tmp_path / "r.html"
        # The other columns keep the pictures of both sides apart.
        noise = rng.normal(size=(2, 60, 9))
        X, X_tune = np.c_[scores, noise[0]], np.c_[tuned, noise[1]]
        write_report(
            file, {"m": Scores()}, X, y, X_tune=X_tune, y_tune=y, metrics=["roc_auc"],
            **params, **FEW,
        )  # fmt: skip
        return words(file.read_text(encoding="utf-8").partition('<h2 id="use-')[0])

    said = summary(judged, remarks=["6 of 70 images are left out: no label."])
    assert "was chosen for a sensitivity of 95%" in said
    assert re.search(r"it reaches 5\d\.\d% \(\d\d\.\d% to \d\d\.\d%\): it misses", said)
    assert "may be chance" not in said
    assert "6 of 70 images are left out" in said
    assert "misses its target" not in summary(tuned)


def test_names_that_no_encoding_holds_are_written(data, tmp_path):
    html = small(data, tmp_path, image_names=["half \ud800"] * 60)
    assert "half ?" in html


def test_files_that_warnings_name_are_not_in_the_page(data, tmp_path):
    pipeline = make_pipeline(MedSigLIPEmbedder("demo", on_error="nan"), data.simple)
    lost = str(tmp_path / "DOE_JANE_1961.png")
    with pytest.warns(UserWarning, match="DOE_JANE"):
        write_report(
            tmp_path / "r.html", pipeline, list(data.images[JUDGE]), data.nodule[JUDGE],
            X_train=[*data.images[LEARN], lost], metrics=["roc_auc"], **FEW,
        )  # fmt: skip
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "DOE_JANE" not in html
    assert "Images that could not be read" in html


def test_leakage_is_shown_and_warned_of(data, full, tmp_path):
    clean = words(full.read_text(encoding="utf-8"))
    assert "training patients 0 training identical images 0" in clean
    with pytest.warns(LeakageWarning, match="share"):
        said = words(
            small(
                data,
                tmp_path,
                groups=data.patients[JUDGE],
                X_train=data.X[110:130],
                groups_train=data.patients[110:130],
            )
        )
    assert "training patients 5 training identical images 10" in said
    assert "the training set and the test set share patients (5 of" in said


@pytest.mark.parametrize(
    ("groups_train", "cell", "said"),
    [
        ([901.0, None, np.nan], "0 found, but not all", "2 of the images"),
        (["001", "902"], "0 found, but not all", "1 patients of the test set may"),
        (["P1", "P2"], "0 found, but not all", "could not be compared"),
        ([901.0, 902.0], "0", None),
    ],
)
def test_no_patients_are_certified_that_were_not_compared(
    data, tmp_path, groups_train, cell, said
):
    expected = pytest.warns(LeakageWarning, match=said) if said else nullcontext()
    with expected:
        page = words(
            small(
                data, tmp_path, {"s": data.simple.decision_function(data.X[JUDGE])},
                groups=np.arange(len(data.X[JUDGE])),
                groups_train=groups_train,
            )
        )  # fmt: skip
    assert f"training patients {cell}" in page
    assert "'001'" not in page
    if said:
        assert said in page
    assert f"training {len(groups_train)} {2 - (None in groups_train)} " in page


def test_near_copies_are_not_denied_where_images_have_no_embeddings(data, tmp_path):
    scores = np.linspace(0, 1, len(data.X[JUDGE]))
    write_report(
        tmp_path / "r.html", scores, list(data.images[JUDGE]), data.nodule[JUDGE],
        X_train=list(data.images[:3]), metrics=["brier"], **FEW,
    )  # fmt: skip
    page = words((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "training identical images 0" in page
    assert "training nearly identical images not looked for" in page


def test_images_are_compared_by_their_embeddings(data, tmp_path):
    pipeline = make_pipeline(data.embedder, data.simple)
    with pytest.warns(LeakageWarning, match="identical images"):
        write_report(
            tmp_path / "r.html",
            pipeline,
            list(data.images[JUDGE]),
            data.nodule[JUDGE],
            X_train=list(data.images[115:125]),
            metrics=["roc_auc"],
            show_mistakes=1,
            **FEW,
        )
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "training identical images 5" in words(html)
    assert "MedSigLIPEmbedder" in html
    assert "data:image/png" in html


def test_a_known_training_set_is_named(data, tmp_path):
    with pytest.warns(LeakageWarning, match="EyePACS"):
        said = words(small(data, tmp_path, data="Fundus photographs of EyePACS."))
    assert "Leakage. MedSigLIP was trained on EyePACS" in said


def test_each_classifier_is_asked_once(data, tmp_path):
    asked = []

    class Counting(LinearProbe):
        def predict_proba(self, X):
            asked.append(len(X))
            return super().predict_proba(X)

    probe = Counting().fit(data.X[LEARN], data.nodule[LEARN])
    small(data, tmp_path, {"probe": probe})
    assert asked == [JUDGE.stop - JUDGE.start]


def mixtures():
    """Yield estimators that ``evaluate`` takes beside each other, and labels."""
    X, y = np.random.default_rng(0).normal(size=(90, 192)), np.arange(90) % 2
    X[y == 1, :5] += 1
    one = {"positive": "pleural effusion", "negative": "no pleural effusion"}
    two = {"effusion": one, "nodule": {"positive": "a nodule", "negative": "clear"}}
    names = np.where(y == 1, "ill", "well")
    both = np.column_stack([y, np.roll(y, 1)]).astype(float)
    both[::7, 1] = np.nan
    frame = pd.DataFrame(both, columns=["effusion", "nodule"])
    pair = ZeroShotClassifier({"effusion": one}, model="demo").fit(X)
    pairs = ZeroShotClassifier(two, model="demo").fit(X)
    classes = ZeroShotClassifier({"ill": "effusion", "well": "clear"}, model="demo")
    probe = LogisticRegression().fit(X, y)
    yield "0/1", {"probe": probe, "zero-shot": pair}, y, "effusion"
    yield (
        "series",
        {"probe": probe, "zero-shot": pair},
        pd.Series(y, name="y"),
        ("effusion"),
    )
    yield (
        "bool",
        {"probe": LogisticRegression().fit(X, y == 1), "z": pair},
        y == 1,
        ("effusion"),
    )
    yield (
        "wrapped",
        {
            "pipeline": make_pipeline(StandardScaler(), probe).fit(X, y),
            "search": GridSearchCV(probe, {"C": [0.1, 1]}, cv=2).fit(X, y),
            "scores": probe.predict_proba(X),
            "score": probe.predict_proba(X)[:, 1],
        },
        y,
        1,
    )
    yield (
        "names",
        {
            "probe": LogisticRegression().fit(X, names),
            "zero-shot": classes.fit(X),
            "score": probe.predict_proba(X)[:, 0],
        },
        names,
        "well",
    )
    yield "findings", {"probe": LinearProbe().fit(X, both), "z": pairs}, both, None
    yield "table", {"probe": LinearProbe().fit(X, frame), "z": pairs}, frame, "nodule"


@pytest.mark.parametrize("place", range(7))
def test_a_report_and_displays_take_what_evaluate_takes(place, tmp_path):
    _, estimators, y, label = next(islice(mixtures(), place, None))
    X = np.random.default_rng(0).normal(size=(90, 192))
    labels = evaluate(estimators, X, y, n_bootstrap=2)["label"].unique()
    assert label is None or label in labels
    tuned = np.asarray(y) if isinstance(y, pd.Series | pd.DataFrame) else y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # copies; few to tune on
        file = tmp_path / "r.html"
        write_report(
            file, estimators, X, y, images=[np.zeros((8, 8), np.uint8)] * 90,
            show_mistakes=1, n_bootstrap=2, metrics=["roc_auc", "brier"], X_tune=X,
            y_tune=tuned, X_train=X, y_train=tuned,
        )  # fmt: skip
        page = words(file.read_text(encoding="utf-8"))
        assert all(str(one) in page for one in labels)
        assert "none: no image with it" not in page
    for one in estimators.values() if label is not None else ():
        few = {"label": label, "n_bootstrap": 2}
        RocBandDisplay.from_estimator(one, X, y, **few)
        PrecisionRecallBandDisplay.from_estimator(one, X, y, **few)
        ReliabilityDisplay.from_estimator(one, X, y, label=label)
        MistakesDisplay.from_estimator(
            one, X, y, images=[np.zeros((8, 8), np.uint8)] * 90, label=label, n_images=1
        )
        pyplot.close("all")


def test_findings_of_two_parts_are_not_taken_for_each_other(data, tmp_path):
    scores = np.zeros((len(data.X[JUDGE]), 2))
    y = pd.DataFrame(data.y[JUDGE].to_numpy()[:, :2], columns=["a", "b"])
    with pytest.raises(ValueError, match=r"\['b', 'a'\]"):
        write_report(
            tmp_path / "r.html", scores, data.X[JUDGE], y, X_tune=data.X[JUDGE],
            y_tune=y[["b", "a"]],
        )  # fmt: skip


def test_scores_of_another_program(data, tmp_path):
    scores = data.simple.decision_function(data.X[JUDGE])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tuning = {"X_tune": data.X[TUNE], "y_tune": data.nodule[TUNE]}
        said = words(small(data, tmp_path, {"theirs": scores}, **tuning))
    assert "theirs returns scores" in said
    assert "theirs was given as scores of the test set, so no threshold" in said
    assert "its mistakes cannot be ranked" in said


def test_a_label_of_one_kind_has_no_curve(data, tmp_path):
    y = data.y[JUDGE].copy()
    y[EVIL] = 0.0
    with pytest.warns(UserWarning, match="one kind"):
        write_report(tmp_path / "r.html", data.probe, data.X[JUDGE], y, **FEW)
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Not drawn: 1 labels" in html
    assert "not defined" in html
    assert "ROC curve: nodule" in html


def test_classes(data, tmp_path):
    kinds = np.where(data.y["nodule"] == 1, "nodule", "none")
    kinds[data.y[EVIL] == 1] = "device"
    probe = LinearProbe().fit(data.X[LEARN], kinds[LEARN])
    file = write_report(tmp_path / "r.html", probe, data.X[JUDGE], kinds[JUDGE], **FEW)
    said = words(file.read_text(encoding="utf-8"))
    assert re.search(r"LinearProbe macro 0\.\d{3}", said)
    assert f"{(kinds[JUDGE] == 'device').sum()}" in said


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"X_tune": np.ones((2, 3))}, "both X_tune and y_tune"),
        ({"show_mistakes": 3}, "pass images="),
        ({"sensitivity": 95}, "above 0 and below 1, got 95"),
        ({"published": "knees"}, "'knees'"),
        ({"image_names": ["a"]}, "image_names"),
    ],
)
def test_what_does_not_fit(data, tmp_path, params, message):
    with pytest.raises(ValueError, match=message):
        small(data, tmp_path, **params)


def test_the_folder_must_exist(data, tmp_path):
    with pytest.raises(FileNotFoundError, match="make it"):
        small(data, tmp_path / "nowhere")


def test_without_matplotlib(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[plot\]"):
        small(data, tmp_path)


@pytest.mark.parametrize(("width", "mobile"), [(390, True), (1440, False)])
def test_in_a_browser(browser, full, width, mobile):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": mobile},
    )
    browser.get("about:blank")
    browser.get_log("browser")
    browser.get_log("performance")  # what was before
    browser.get(full.as_uri())

    assert browser.title == f"Title {EVIL}"
    assert browser.get_log("browser") == []
    events = [
        json.loads(one["message"])["message"] for one in browser.get_log("performance")
    ]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert [one for one in asked if not one.startswith("data:")] == [full.as_uri()]

    ask = browser.execute_script
    assert ask("return innerWidth") == width
    assert ask("return document.documentElement.scrollWidth") <= width
    too_wide = ask(
        "return [...document.querySelectorAll('body *')].filter(e =>"
        " !e.closest('.scroll table') && e.getBoundingClientRect().right > innerWidth"
        ").map(e => e.outerHTML.slice(0, 80))"
    )
    assert too_wide == []
    assert ask("return [...document.images].every(i => i.complete && i.naturalWidth)")
    assert ask("return document.scripts.length") == 0
    # Every mark of a map is drawn where it can be pointed at, and has its name.
    marks = "[...document.querySelectorAll('#maps g use')]"
    assert ask(f"return {marks}.length") > N // 3
    assert ask(
        f"return {marks}.every(e => e.getBoundingClientRect().width > 2"
        " && e.querySelector('title').textContent.startsWith('row '))"
    )


def test_a_map_shows_the_image_under_the_mouse(browser, data, tmp_path):
    from selenium.webdriver import ActionChains

    file = tmp_path / "map.html"
    display = EmbeddingMapDisplay(np.eye(3, 2), [0.6, 0.3], ["a", "b", "a"])
    display.to_html(file, images=data.images[:3])
    browser.set_window_size(1200, 900)
    browser.get(file.as_uri())
    shown = """return [...document.querySelectorAll(".point image")]
        .filter(e => getComputedStyle(e).visibility === "visible")
        .map(e => e.parentElement.textContent.trim())"""
    assert browser.execute_script(shown) == []
    for mark in browser.find_elements("css selector", ".point use"):
        ActionChains(browser).move_to_element(mark).perform()
        (name,) = browser.execute_script(shown)
        assert name in ("row 0: a", "row 1: b", "row 2: a")
    assert browser.get_log("browser") == []


@pytest.mark.filterwarnings("ignore:finding .* takes 19 or more:UserWarning")
def test_from_the_command_line(data, tmp_path):
    folder = tmp_path / "secret-folder"
    folder.mkdir()
    table = pd.DataFrame(
        {
            "path": [f"{i}.png" for i in range(N)],
            "patient": data.patients,
            "device": data.y[EVIL],
            "age": np.arange(N) % 90,
        }
    )
    for path, image in zip(table["path"], data.images, strict=True):
        Image.fromarray(image).save(folder / path)
    for name, rows in (("learn", LEARN), ("tune", TUNE), ("judge", JUDGE)):
        table[rows].to_csv(folder / f"{name}.csv", index=False)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        said = result.stdout + result.stderr
        assert result.exit_code == code, said
        return " ".join(said.split())

    model, out = folder / "model.joblib", tmp_path / "report.html"
    run(
        "train", "--labels", folder / "learn.csv", "--label-column", "device",
        "--group-column", "patient", "--model", "demo", "--out", model,
    )  # fmt: skip
    asked = (
        "report", model, folder / "judge.csv", "--out", out, "--group-column",
        "patient", "--subgroup-column", "age", "--train", folder / "learn.csv",
        "--tune", folder / "tune.csv", "--resamples", 30, "--prevalence", 0.02,
    )  # fmt: skip
    assert "open it in a browser" in run(*asked)
    html = out.read_text(encoding="utf-8")
    said = words(html)
    column = data.y[JUDGE][EVIL]
    # The finding is the positive class, though "no device" sorts after it.
    n_patients = len(set(data.patients[JUDGE][column == 1]))
    assert f"device {(column == 1).sum()} {(column == 0).sum()} 0 {n_patients}" in said
    assert float(re.search(r"model \(LinearProbe\) device (0\.\d{3})", said)[1]) > 0.8
    assert "training patients 0" in said
    assert re.search(r"age=30 to \d\d ", said)
    assert "A demonstration, not MedSigLIP" in said
    assert "Evaluation of a medical image classifier: device" in said
    assert "sk-medsiglip report model.joblib judge.csv --" in said
    assert "--out report.html" in said
    assert "PPV at 0.02" in said
    assert "secret-folder" not in html
    assert "data:image/png" not in html
    assert "--prevalence 2 must be" in run(
        *asked, "--overwrite", "--prevalence", 2, code=2
    )
    assert "needs --tune" in run(
        "report", model, folder / "judge.csv", "--out", tmp_path / "o.html",
        "--prevalence", 0.02, code=2,
    )  # fmt: skip
    assert "exists. Add --overwrite" in run(*asked, code=2)
    assert ".html" in run(
        "report", model, folder / "judge.csv", "--out", "report.pdf", code=2
    )
    assert "there is no column 'sex'" in run(
        *asked, "--overwrite", "--subgroup-column", "sex", code=2
    )
    assert "a different model" in run(
        *asked, "--overwrite", "--published", "chest X-ray", code=2
    )
    blank = table[JUDGE].astype({"device": object})
    blank.loc[blank.index[:6], "device"] = ""
    blank.to_csv(folder / "blank.csv", index=False)
    run("report", model, folder / "blank.csv", "--out", out, "--overwrite")
    summary = out.read_text(encoding="utf-8").partition("To be filled in")[0]
    n_blank = int(blank["device"].replace("", np.nan).isna().sum())
    assert f"blank.csv: {n_blank} of 60 images are left out: a label" in summary
    for kind, why in (
        ("device", "do not differ in device"),
        ("patient", "only 1 patient"),
    ):
        table[JUDGE].assign(**{kind: 1}).to_csv(folder / "alike.csv", index=False)
        assert why in run(
            "report", model, folder / "alike.csv", "--out", tmp_path / "o.html",
            "--group-column", "patient", code=1,
        )  # fmt: skip
    run(*asked, "--overwrite", "--pos-label", "no device")
    turned = words(out.read_text(encoding="utf-8"))
    assert f"no device {(column == 0).sum()} {(column == 1).sum()} 0" in turned
    assert "'odd' is not one of two classes" in run(
        *asked, "--overwrite", "--pos-label", "odd", code=2
    )
    table[JUDGE].assign(nodule=1).to_csv(folder / "two.csv", index=False)
    table[JUDGE].assign(device=["odd", "device"] * 30).to_csv(
        folder / "odd.csv", index=False
    )
    assert "class 'odd'" in run(
        "report", model, folder / "odd.csv", "--out", tmp_path / "o.html", code=2
    )
    assert "name one column" in run(
        "report", model, folder / "two.csv", "--out", tmp_path / "o.html",
        "--label-column", "nodule", "--label-column", "device", code=2,
    )  # fmt: skip
