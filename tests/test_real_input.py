"""The whole way on real images: files in, embeddings, a head and zero-shot out."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sk_medsiglip import (
    MedSigLIPEmbedder,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.images import check_images

PROMPTS = {
    "effusion": ["pleural effusion"],
    "normal": ["normal chest X-ray"],
}

# Real single-frame images of several modalities, uncompressed or losslessly coded, in
# pydicom itself and in pydicom-data.
DICOM_FILES = [
    "CT_small.dcm",  # CT, signed, rescaled to HU
    "MR_small.dcm",  # MR
    "RG1_UNCI.dcm",  # chest CR, MONOCHROME1, 15 bits
    "693_UNCI.dcm",  # head CT
    "MR2_UNCI.dcm",  # MR, 12 bits
    "US1_UNCI.dcm",  # ultrasound, colour
]


@pytest.fixture(scope="module")
def embedder(shared_store):
    return MedSigLIPEmbedder("demo", device="cpu", cache=shared_store)


@pytest.fixture(scope="module")
def dicom_paths():
    pytest.importorskip("data_store", reason="pydicom-data is not installed")
    from pydicom.data import get_testdata_file

    found = {name: get_testdata_file(name, download=False) for name in DICOM_FILES}
    assert all(found.values()), found
    return [str(path) for path in found.values()]


@pytest.fixture(scope="module")
def photographs():
    folder = Path(pytest.importorskip("skimage").__file__).parent / "data"
    paths = [folder / "retina.jpg", folder / "ihc.png"]
    lacking = [path.name for path in paths if not path.exists()]
    if lacking:
        pytest.skip(f"this scikit-image wheel lacks {lacking}")
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def pneumonia(shared_data):
    with np.load(shared_data / "pneumoniamnist.npz") as data:
        return {name: data[name] for name in data.files}


def test_dicom_of_every_modality(embedder, dicom_paths):
    table = check_images(dicom_paths)
    assert table["readable"].all(), table[["reason"]]
    assert set(table["modality"]) >= {"CT", "MR", "CR", "US"}
    X = embedder.transform(dicom_paths)
    assert np.isfinite(X).all()
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(len(X))
    assert cosines.max() < 0.9999  # different pictures have different vectors
    pipe = make_zero_shot_pipeline(
        PROMPTS, model="demo", device="cpu", cache=embedder.cache
    )
    assert pipe.fit(dicom_paths).predict_proba(dicom_paths).shape == (6, 2)


def test_dicom_and_its_pixels_meet_one_row(embedder, shared_store, dicom_paths):
    from sk_medsiglip.images import read_image

    X = embedder.transform(dicom_paths)
    before = len(shared_store)
    again = embedder.transform([read_image(path) for path in dicom_paths])
    np.testing.assert_array_equal(X, again)
    assert len(shared_store) == before


def test_fundus_and_histology(embedder, photographs, tmp_path):
    X = embedder.transform(photographs)
    assert np.isfinite(X).all()
    # The same photograph as PIL image, as array, and turned with an EXIF note.
    for row, path in enumerate(photographs):
        image = Image.open(path).convert("RGB")
        np.testing.assert_array_equal(
            embedder.transform([image, np.asarray(image)]), X[[row, row]]
        )
        exif = Image.Exif()
        exif[0x0112] = 6  # turn a quarter clockwise to look at it
        turned = tmp_path / f"{row}.png"
        image.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif)
        np.testing.assert_array_equal(embedder.transform([turned]), X[[row]])


def test_real_xrays_from_files_to_a_head(embedder, pneumonia, tmp_path):
    """PneumoniaMNIST (MedMNIST v2, CC BY 4.0): the code path, not a claim of skill."""
    rng = np.random.default_rng(0)
    images, labels = pneumonia["test_images"], pneumonia["test_labels"].ravel()
    picked = np.concatenate(
        [rng.choice(np.flatnonzero(labels == label), 60, False) for label in (0, 1)]
    )
    paths = []
    for i in picked:
        path = tmp_path / f"{i}.png"
        Image.fromarray(images[i]).save(path)
        paths.append(str(path))
    y = labels[picked]
    order = rng.permutation(len(y))
    train, test = order[:80], order[80:]
    paths = np.array(paths, dtype=object)
    search = GridSearchCV(
        make_pipeline(embedder, LogisticRegression(max_iter=2000)),
        {"logisticregression__C": [0.01, 1.0]},
        cv=3,
        scoring="roc_auc",
    )
    with warnings.catch_warnings():
        # Unscaled embeddings converge slowly; the score does not hang on it.
        warnings.simplefilter("ignore", category=UserWarning)
        search.fit(paths[train], y[train])
    assert search.score(paths[test], y[test]) > 0.6
    zero_shot = ZeroShotClassifier(
        {"pneumonia": {"positive": "consolidation", "negative": "clear lungs"}},
        model="demo",
        cache=embedder.cache,
    )
    X = embedder.transform(paths)
    scores = zero_shot.fit(X, y).decision_function(X)
    assert np.isfinite(roc_auc_score(y, scores))


def test_xray_arrays_equal_xray_files(embedder, pneumonia, tmp_path):
    images = pneumonia["test_images"][:5]
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.tiff")
        Image.fromarray(image).save(paths[-1])
    np.testing.assert_array_equal(embedder.transform(images), embedder.transform(paths))
