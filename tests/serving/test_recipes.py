"""A saved pipeline gives the same probabilities in every home that the docs describe.

``python tests/serving/test_recipes.py`` asks all of them and writes the table of the
documentation, ``docs/deploying/homes.csv``.
"""

import csv
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from homes import HOMES, RECIPES, version_of
from http_server import encoded
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, make_zero_shot_pipeline
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import OperatingPointClassifier
from sk_medsiglip.serving import to_onnx

TABLE = RECIPES / "homes.csv"
PIPELINES = ("linear probe", "zero-shot", "findings with thresholds")
COLUMNS = ["home", "version", *PIPELINES, "not an image"]
STATUSES = {
    "`sk-medsiglip serve`": 422,
    "MLflow": 400,
    "BentoML": 400,
    "Ray Serve": 422,
    "FastAPI": 422,
}


def allowed(home):
    return 1e-4 if home == "ONNX Runtime" else 1e-6


def write_case(name, folder):
    """Save a fitted pipeline and ten images in a folder; return the probabilities."""
    drawn = make_chest_phantoms(60, random_state=0)
    images, y = list(drawn.images), drawn.target[:, :3]
    embedder = MedSigLIPEmbedder("demo", cache=False)
    if name == "linear probe":
        y = np.where(y[:, 1] == 1, "effusion", "normal")
        pipeline = make_pipeline(embedder, LinearProbe(Cs=[1.0])).fit(images, y)
    elif name == "zero-shot":
        prompts = {
            "effusion": ["pleural effusion"],
            "normal": ["normal X-ray"],
            "nodule": ["lung nodule"],
        }
        pipeline = make_zero_shot_pipeline(prompts, model="demo").fit(images)
        pipeline[0].set_params(cache=False)
    else:
        probe = make_pipeline(embedder, LinearProbe(Cs=[1.0])).fit(images, y)
        pipeline = OperatingPointClassifier(FrozenEstimator(probe), [0.2, 0.3, 0.4])
        pipeline.fit(images, y)
    skops.io.dump(pipeline, folder / "model.skops")
    to_onnx(pipeline, folder / "model.onnx", include_encoder=True)
    for i, image in enumerate(drawn.images[:10]):
        (folder / f"{i}.png").write_bytes(encoded(image))
    # One at a time, as in a request: float32 sums of a batch differ in the last digits.
    return np.concatenate([pipeline.predict_proba([one]) for one in images[:10]])


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp("home") for name in PIPELINES}
    return {
        name: (folder, write_case(name, folder)) for name, folder in folders.items()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("home", HOMES)
def test_probabilities_are_those_of_python(home, name, cases):
    if version_of(home) is None:
        pytest.skip("needs the dependency group recipes")
    folder, expected = cases[name]
    found, bad = HOMES[home][0](folder)
    np.testing.assert_allclose(found, expected, rtol=0, atol=allowed(home))
    if bad is not None:
        assert bad.status_code == STATUSES[home], bad.text


def test_the_table_names_every_home_and_keeps_the_promise():
    with TABLE.open(encoding="utf-8", newline="") as file:
        first, *lines = csv.reader(file)
    assert first == COLUMNS
    assert [line[0] for line in lines] == list(HOMES)
    for home, version, *differences, status in lines:
        assert re.fullmatch(r"\d+\.\d[\w.]*", version)
        assert all(0 <= float(one) <= allowed(home) for one in differences)
        assert status == str(STATUSES.get(home, ""))


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.py")), ids=lambda one: one.stem)
def test_recipes_are_short_and_on_the_page(path):
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    assert len(lines) <= 15
    page = RECIPES.with_suffix(".md").read_text("utf-8")
    assert f"deploying/{path.name}" in page


def write_table():
    """Ask every home and write the table."""
    rows = {home: [home, version_of(home)] for home in HOMES}
    statuses = {}
    for name in PIPELINES:
        with tempfile.TemporaryDirectory() as folder:
            expected = write_case(name, Path(folder))
            for home, (ask, _) in HOMES.items():
                found, bad = ask(Path(folder))
                rows[home].append(f"{np.abs(found - expected).max():.1e}")
                statuses[home] = "" if bad is None else bad.status_code
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([*row, statuses[home]] for home, row in rows.items())


if __name__ == "__main__":
    write_table()
