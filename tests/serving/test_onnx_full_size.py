"""A file with a tower of MedSigLIP's size, run by onnxruntime and by OpenVINO."""

import gc
import shutil

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_onnx import run, run_openvino

from benchmarks.engines import make_full_size
from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.encoder import clear_encoders
from sk_medsiglip.serving import to_onnx


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    shutil.rmtree(tmp_path)  # 5 GB
    clear_encoders()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_tower_of_full_size(folder):
    model = make_full_size(folder / "medsiglip-shaped")
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (2, 448, 448, 3), dtype=np.uint8))
    embedder = MedSigLIPEmbedder(model, dtype="float32", cache=folder / "cache")
    # Vectors of random weights are close to each other; the scaler spreads them.
    pipeline = make_pipeline(embedder, StandardScaler(), LogisticRegression(C=1e-3))
    expected = pipeline.fit(images, [0, 1]).predict_proba(images)
    assert 0.1 < np.ptp(expected[:, 1]) < 0.9
    clear_encoders()  # one copy of the weights at a time
    path = to_onnx(pipeline, folder / "all.onnx", include_encoder=True)
    assert 1.6e9 < path.stat().st_size < 1.8e9
    gc.collect()
    pixels = np.stack(images)
    for engine in (
        lambda: run(path, "images", pixels),
        lambda: run_openvino(path, pixels),
    ):
        np.testing.assert_allclose(engine(), expected, atol=1e-4)
        gc.collect()
    assert (folder / "all.onnx.NOTICE.txt").exists()
