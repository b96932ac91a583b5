"""Probabilities of ONNX files are those of Python, computed by others."""

import json
import sys

import numpy as np
import onnxruntime
import pytest
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import RFE
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
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
    BagProbe,
    LinearProbe,
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
    PromptProbe,
    ZeroShotClassifier,
)
from sk_medsiglip.embedding import find_facts, prepare_image
from sk_medsiglip.evaluation import OperatingPointClassifier
from sk_medsiglip.heads import (
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
)
from sk_medsiglip.serving import to_onnx

PAIR = {"positive": "pleural effusion", "negative": "no pleural effusion"}
FINDINGS = {"effusion": PAIR, "nodule": {"positive": "nodule", "negative": "clear"}}
CLASSES = {"z": "cardiomegaly", "effusion": ["effusion", "fluid"], "normal": "normal"}
DEMO = {"model": "demo"}
SHOTS = {"alpha": 2.0, "beta": 3.0}


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(path, name, values):
    return session_of(path).run(None, {name: values})[0]


def run_openvino(path, pixels):
    # It reports to an analytics host unless this module is missing.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 on many processors
    return openvino.Core().compile_model(path, "CPU", exact)(pixels)[0]


HEADS = {
    "two classes": (LinearProbe(Cs=[1.0]), "one"),
    "three classes": (make_pipeline(StandardScaler(), LinearProbe(Cs=[1.0])), "names"),
    "several findings": (LinearProbe(Cs=[1.0]), "several"),
    "findings with blanks": (LinearProbe(Cs=[1.0]), "blanks"),
    "uncentred": (
        make_pipeline(StandardScaler(with_mean=False), LinearProbe(Cs=[1.0])), "one",
    ),
    "clipped": (make_pipeline(MaxAbsScaler(clip=True), LogisticRegression()), "names"),
    "scalers": (
        make_pipeline(
            RobustScaler(), MaxAbsScaler(), MinMaxScaler(clip=True), Normalizer(),
            PCA(8, whiten=True), LogisticRegression(),
        ),
        "names",
    ),
    "prompt probe": (PromptProbe(FINDINGS, C=1.0, **DEMO), "two"),
    **{
        f"{type(head).__name__}, {kind}": (head, kind)
        for head, kind in (
            (SSTextClassifier(FINDINGS, **DEMO), "two with blanks"),
            (SSTextClassifier(), "names"),
            (PrototypeClassifier(class_weight="balanced"), "one"),
            (PrototypeClassifier(), "several"),
            (TipAdapterClassifier(FINDINGS, **SHOTS, **DEMO), "two with blanks"),
            (TipAdapterClassifier(**SHOTS), "names"),
            (TipAdapterClassifier(**SHOTS), "one"),
        )
    },
    **{
        f"{scoring}, {len(prompts)}": (
            ZeroShotClassifier(prompts, scoring=scoring, **DEMO), None,
        )
        for scoring in ("softmax", "sigmoid", "cosine")
        for prompts in (CLASSES, FINDINGS, {"effusion": PAIR})
    },
    "mean of scores": (ZeroShotClassifier(CLASSES, ensemble="scores", **DEMO), None),
    "calibrated": (ZeroShotClassifier(FINDINGS, calibrate="temperature_bias", **DEMO), "asked"),  # noqa: E501
}  # fmt: skip


@pytest.fixture(scope="module")
def labels(drawn, rows):
    answers = ZeroShotClassifier(FINDINGS, **DEMO).fit(rows).predict_proba(rows)
    blanks = drawn.target[:, [1, 0, 2]].astype(float)
    blanks[::3, 0] = blanks[1::4, 1] = np.nan
    return {
        "one": drawn.target[:, 1],
        "two": drawn.target[:, [1, 0]],
        "asked": (answers > np.median(answers, axis=0)).astype(int),
        "several": drawn.target[:, :3],
        "blanks": blanks,
        "two with blanks": blanks[:, :2],
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


def test_thresholds_are_told_with_the_file(probe, drawn, rows, tmp_path):
    frozen = FrozenEstimator(probe)
    careful = OperatingPointClassifier(frozen, [0.1, 0.2, 0.3])
    careful.fit(list(drawn.images), drawn.target[:, :3])
    path = to_onnx(careful, tmp_path / "a.onnx")
    facts = session_of(path).get_modelmeta().custom_metadata_map
    assert json.loads(facts["thresholds"]) == [0.1, 0.2, 0.3]
    found = run(path, "embeddings", rows)
    expected = careful.predict_proba(list(drawn.images))
    np.testing.assert_allclose(found, expected, atol=1e-5)


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


def test_the_demonstration_with_its_tower(probe, drawn, tmp_path):
    path = to_onnx(probe, tmp_path / "all.onnx", include_encoder=True)
    facts = find_facts("demo")
    images = drawn.images[:5]
    pixels = np.stack([prepare_image(probe[0], facts, one) for one in images])
    expected = probe.predict_proba(list(images))
    np.testing.assert_allclose(run(path, "images", pixels), expected, atol=1e-4)
    np.testing.assert_allclose(run_openvino(path, pixels), expected, atol=1e-4)
    assert list(tmp_path.iterdir()) == [path]  # no notice: it is not MedSigLIP


def test_int8_prints_its_cost(probe, drawn, tmp_path, capsys, caplog):
    images = list(drawn.images[:20])
    y = drawn.target[:20, :3].astype(float)
    y[:5, 0] = np.nan
    path = to_onnx(
        probe, tmp_path / "a.onnx", include_encoder=True, quantize="int8", X=images, y=y
    )
    first, *areas = capsys.readouterr().out.splitlines()
    facts = find_facts("demo")
    pixels = np.stack([prepare_image(probe[0], facts, one) for one in images])
    # One at a time: activations of a batch share a scale.
    session = session_of(path)
    found = [session.run(None, {"images": one[None]})[0][0] for one in pixels]
    change = np.abs(found - probe.predict_proba(images))
    assert 0 < change.max() < 0.3
    assert f"{change.mean():.4f} on average" in first
    assert f"{change.max():.4f} at most (20 images)" in first
    expected = roc_auc_score(y[5:, 0], probe.predict_proba(images)[5:, 0])
    assert len(areas) == 3
    assert f"0: {expected:.4f}" in areas[0]
    assert path.stat().st_size < 6_000_000  # 13 MB in float32
    assert not [one for one in caplog.records if one.name == "root"]


@pytest.mark.parametrize(
    ("word", "options"),
    [
        ("int4", {"quantize": "int4", "include_encoder": True, "X": []}),
        ("include_encoder", {"quantize": "int8", "X": []}),
        ("images", {"quantize": "int8", "include_encoder": True}),
    ],
)
def test_int8_needs_the_tower_and_images(probe, word, options, tmp_path):
    with pytest.raises(ValueError, match=word):
        to_onnx(probe, tmp_path / "a.onnx", **options)


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (RandomForestClassifier(2), "RandomForestClassifier"),
        (make_pipeline(Normalizer("l1"), LinearProbe(Cs=[1.0])), "l1"),
        (ZeroShotClassifier(CLASSES, ensemble="max", **DEMO), "max"),
        (RFE(LogisticRegression(C=0.01), n_features_to_select=0.5, step=0.5), "RFE"),
    ],
    ids=["forest", "norm", "max", "selection"],
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
    bags = BagProbe(Cs=[1.0]).fit(rows.reshape(30, 2, -1), labels["one"][::2])
    with pytest.raises(TypeError, match="BagProbe"):
        to_onnx(bags, tmp_path / "a.onnx")
    parts = MedSigLIPPatchEmbedder(MedSigLIPEmbedder("demo"), grid=2)
    pipeline = make_pipeline(parts, ZeroShotClassifier({"effusion": PAIR}, **DEMO))
    with pytest.raises(TypeError, match="MedSigLIPPatchEmbedder"):
        to_onnx(pipeline.fit(list(drawn.images[:2])), tmp_path / "a.onnx")
