"""Reports, figures and explanations of classifiers of bags."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from sk_medsiglip import (
    BagProbe,
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
    MedSigLIPVolumeEmbedder,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import (
    MistakesDisplay,
    evaluate,
    label_efficiency,
    write_report,
)
from sk_medsiglip.exceptions import LeakageWarning
from sk_medsiglip.heads import explain_head

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

LEARN, JUDGE = slice(0, 60), slice(60, 120)
FEW = {"n_bootstrap": 20}


class Data:
    """Lazy bags of phantoms, their images and labels, and a probe on them."""

    def __init__(self, store):
        phantoms = make_chest_phantoms(120, views_per_patient=1, random_state=7)
        self.images = list(phantoms.images)
        self.y = phantoms.target[:, 1]
        embedder = MedSigLIPEmbedder("demo", cache=store)
        patches = MedSigLIPPatchEmbedder(embedder, grid=2, pooled_row=True, lazy=True)
        self.patches = patches.fit(self.images)
        self.bags = self.patches.transform(self.images)
        probe = BagProbe(3, cv=3, pooled_row=True)
        self.probe = probe.fit(self.bags[LEARN], self.y[LEARN])
        self.pipe = make_pipeline(self.patches, self.probe)


@pytest.fixture(scope="module")
def data(shared_store):
    return Data(shared_store)


def test_the_pipeline_and_its_last_step_get_the_same_figures(data):
    ours = evaluate(data.probe, data.bags[JUDGE], data.y[JUDGE], **FEW)
    of_pipe = evaluate(data.pipe, data.images[JUDGE], data.y[JUDGE], **FEW)
    pd.testing.assert_series_equal(ours["value"], of_pipe["value"])


def test_bags_learned_from_are_found(data):
    with pytest.warns(LeakageWarning, match="identical images"):
        evaluate(
            data.probe, data.bags[JUDGE], data.y[JUDGE], X_train=data.bags[50:70], **FEW
        )


def test_padding_hides_no_copy(data):
    short = np.array(data.bags[JUDGE])
    longer = np.full((20, 7, short.shape[2]), np.nan, np.float32)
    longer[:, :5] = short[:20]
    probe = BagProbe(3, cv=3).fit(short, data.y[JUDGE])
    with pytest.warns(LeakageWarning, match="20 of"):
        evaluate(probe, short, data.y[JUDGE], X_train=longer, **FEW)


def test_a_report_on_bags(data, tmp_path):
    file = write_report(
        tmp_path / "bags.html", data.probe, data.bags[JUDGE], data.y[JUDGE],
        X_train=data.bags[LEARN], embedder=data.patches.embedder,
        images=data.images[JUDGE], show_mistakes=1, **FEW,
    )  # fmt: skip
    page = file.read_text(encoding="utf-8")
    assert "not looked for" not in page.replace("patients</td><td>not looked for", "")
    assert "MedSigLIPEmbedder" in page


def test_a_report_on_a_pipeline_of_studies(data, tmp_path, shared_store):
    studies = [np.stack(data.images[i : i + 4]) for i in range(0, 120, 4)]
    y = data.y.reshape(30, 4).max(axis=1)
    embedder = MedSigLIPEmbedder("demo", cache=shared_store)
    pipe = make_pipeline(
        MedSigLIPVolumeEmbedder(embedder, pooling=None), BagProbe(2, cv=2)
    ).fit(studies[:15], y[:15])
    given = {"X_train": studies[:15], **FEW}
    file = write_report(tmp_path / "studies.html", pipe, studies[15:], y[15:], **given)
    assert "MedSigLIPVolumeEmbedder" in file.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="images="):
        write_report(
            tmp_path / "no.html", pipe, studies[15:], y[15:], show_mistakes=1, **FEW
        )


def test_bags_are_not_drawn_as_pictures(data, tmp_path):
    X, y = data.bags[JUDGE], data.y[JUDGE]
    with pytest.raises(ValueError, match="images="):
        MistakesDisplay.from_estimator(data.probe, X, y)
    with pytest.raises(ValueError, match="images="):
        write_report(tmp_path / "no.html", data.probe, X, y, show_mistakes=1, **FEW)


def test_label_efficiency_draws_bags(data):
    table = label_efficiency(
        {"parts": BagProbe(2, cv=2, pooled_row=True)}, data.bags, data.y, [16, 32],
        n_repeats=2,
    )  # fmt: skip
    assert table["score"].notna().all()


class NeverAnArray(BagProbe):
    """A probe that only takes bags that lie in the store."""

    def fit(self, X, y, **params):
        assert not isinstance(X, np.ndarray)
        return super().fit(X, y, **params)


def test_label_efficiency_leaves_bags_in_the_store(data):
    pipe = make_pipeline(data.patches, NeverAnArray(2, cv=2, pooled_row=True))
    table = label_efficiency({"parts": pipe}, data.images, data.y, [16], n_repeats=1)
    assert table["score"].notna().all()


def test_the_parts_of_a_head_are_explained(data):
    words = ["pleural effusion", "a lung nodule"]
    of_head = explain_head(data.probe, words, model="demo")
    of_pipe = explain_head(data.pipe, words, model="demo")
    pd.testing.assert_frame_equal(of_head, of_pipe)
    without = BagProbe(3, cv=3).fit(data.bags[LEARN, :-1], data.y[LEARN])
    assert explain_head(without, words, model="demo")["prompt"][0] == words[0]
