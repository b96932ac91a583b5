"""Probabilities of ONNX files are those of Python, computed by onnxruntime."""

import json

import numpy as np
import onnxruntime
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    RobustScaler,
    StandardScaler,
)

from sk_medsiglip import (
    LinearProbe,
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
    PromptProbe,
    ZeroShotClassifier,
)
from sk_medsiglip.embedding import find_facts, prepare_image
from sk_medsiglip.serving import to_onnx

PAIR = {"positive": "pleural effusion", "negative": "no pleural effusion"}
FINDINGS = {"effusion": PAIR, "nodule": {"positive": "nodule", "negative": "clear"}}
CLASSES = {"z": "cardiomegaly", "effusion": ["effusion", "fluid"], "normal": "normal"}
DEMO = {"model": "demo"}


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path, name, values):
    return session_of(path).run(None, {name: values})[0]


HEADS = {
    "two classes": (LinearProbe(Cs=[1.0]), "one"),
    "three classes": (make_pipeline(StandardScaler(), LinearProbe(Cs=[1.0])), "names"),
    "several findings": (LinearProbe(Cs=[1.0]), "several"),
    "scalers": (
        make_pipeline(
            RobustScaler(), MaxAbsScaler(), MinMaxScaler(clip=True), Normalizer(),
            PCA(8, whiten=True), LogisticRegression(),
        ),
        "names",
    ),
    "prompt probe": (PromptProbe(FINDINGS, C=1.0, **DEMO), "two"),
    **{
        f"{scoring}, {len(prompts)}": (
            ZeroShotClassifier(prompts, scoring=scoring, **DEMO), None,
        )
        for scoring in ("softmax", "sigmoid", "cosine")
        for prompts in (CLASSES, FINDINGS, {"effusion": PAIR})
    },
    "calibrated": (ZeroShotClassifier(FINDINGS, calibrate="temperature_bias", **DEMO), "asked"),  # noqa: E501
}  # fmt: skip


@pytest.fixture(scope="module")
def labels(drawn, rows):
    answers = ZeroShotClassifier(FINDINGS, **DEMO).fit(rows).predict_proba(rows)
    return {
        "one": drawn.target[:, 1],
        "two": drawn.target[:, [1, 0]],
        "asked": (answers > np.median(answers, axis=0)).astype(int),
        "several": drawn.target[:, :3],
        "names": np.array(["a", "b", "c"])[np.arange(len(drawn.target)) % 3],
        None: None,
    }


@pytest.mark.parametrize("name", HEADS)
def test_heads(name, rows, labels, tmp_path):
    head, kind = HEADS[name]
    head.fit(rows, labels[kind])
    path = to_onnx(head, tmp_path / "head.onnx")
    found = run(path, "embeddings", rows)
    expected = head.predict_proba(rows)
    assert found.shape == expected.shape
    # Calibration magnifies the last digits of Python's cosines, which are float32.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_the_file_says_what_it_is(probe, rows, drawn, tmp_path):
    (tmp_path / "head.onnx").write_text("an old file")
    path = to_onnx(probe, tmp_path / "head.onnx")
    facts = session_of(path).get_modelmeta().custom_metadata_map
    assert json.loads(facts["names"]) == ["0", "1", "2"]
    assert json.loads(facts["exclusive"]) is False
    assert facts["model"] == "demo"
    assert facts["revision"] == probe[0].revision_
    assert list(tmp_path.iterdir()) == [path]
    # A pipeline of images is written without its embedder.
    np.testing.assert_allclose(
        run(path, "embeddings", rows),
        probe.predict_proba(list(drawn.images)),
        atol=1e-6,
    )


def test_meta_estimators_keep_their_probabilities(rows, labels, tmp_path):
    probe = FrozenEstimator(LinearProbe(Cs=[1.0]).fit(rows, labels["one"]))
    decided = FixedThresholdClassifier(probe, threshold=0.9).fit(rows, labels["one"])
    found = run(to_onnx(decided, tmp_path / "a.onnx"), "embeddings", rows)
    np.testing.assert_allclose(found, decided.predict_proba(rows), atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
def test_with_the_image_tower(drawn, make_checkpoint, normalize, tmp_path):
    images = list(drawn.images[:30])
    folder = make_checkpoint(seed=3)
    embedder = MedSigLIPEmbedder(folder, normalize=normalize)
    pipeline = make_pipeline(embedder, LinearProbe(Cs=[1.0]))
    pipeline.fit(images, drawn.target[:30, :2])
    path = to_onnx(pipeline, tmp_path / "all.onnx", include_encoder=True)
    facts = find_facts(folder)
    pixels = np.stack([prepare_image(embedder, facts, one) for one in images[:3]])
    for some in (pixels, pixels[:1]):
        found = run(path, "images", some)
        expected = pipeline.predict_proba(images[: len(some)])
        np.testing.assert_allclose(found, expected, atol=1e-4)
    notice = (tmp_path / "all.onnx.NOTICE.txt").read_text()
    assert "Terms of Use" in " ".join(notice.split())


@pytest.mark.slow
def test_the_demonstration_with_its_tower(probe, drawn, tmp_path):
    path = to_onnx(probe, tmp_path / "all.onnx", include_encoder=True)
    facts = find_facts("demo")
    images = drawn.images[:5]
    pixels = np.stack([prepare_image(probe[0], facts, one) for one in images])
    expected = probe.predict_proba(list(images))
    np.testing.assert_allclose(run(path, "images", pixels), expected, atol=1e-4)
    assert list(tmp_path.iterdir()) == [path]  # no notice: it is not MedSigLIP


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (RandomForestClassifier(2), "RandomForestClassifier"),
        (make_pipeline(Normalizer("l1"), LinearProbe(Cs=[1.0])), "l1"),
        (ZeroShotClassifier(CLASSES, ensemble="max", **DEMO), "max"),
    ],
    ids=["forest", "norm", "max"],
)
def test_steps_that_cannot_be_written_are_named(head, word, rows, labels, tmp_path):
    is_by_prompts = isinstance(head, ZeroShotClassifier)
    head.fit(rows, labels[None if is_by_prompts else "names"])
    with pytest.raises(TypeError, match=word):
        to_onnx(head, tmp_path / "head.onnx")
    assert not list(tmp_path.iterdir())


def test_bags_and_heads_without_images_are_refused(rows, labels, drawn, tmp_path):
    head = LinearProbe(Cs=[1.0]).fit(rows, labels["one"])
    with pytest.raises(TypeError, match="MedSigLIPEmbedder"):
        to_onnx(head, tmp_path / "a.onnx", include_encoder=True)
    parts = MedSigLIPPatchEmbedder(MedSigLIPEmbedder("demo"), grid=2)
    pipeline = make_pipeline(parts, ZeroShotClassifier({"effusion": PAIR}, **DEMO))
    with pytest.raises(TypeError, match="MedSigLIPPatchEmbedder"):
        to_onnx(pipeline.fit(list(drawn.images[:2])), tmp_path / "a.onnx")
