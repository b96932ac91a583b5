"""``NoveltyGate`` finds other images and keeps its false alarm rate."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_medsiglip.audit import NoveltyGate
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.exceptions import NoveltyWarning
from sk_medsiglip.heads import LinearProbe


@parametrize_with_checks([NoveltyGate(on_novel="ignore")])
@pytest.mark.filterwarnings(
    "ignore::sk_medsiglip.exceptions.NoveltyWarning",  # checks fit few samples
    "ignore:Only one sample available:UserWarning",  # a fold's, as checks fit few
)
def test_passes_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def gate(phantom_vectors, phantoms):
    return NoveltyGate().fit(phantom_vectors, groups=phantoms.groups)


@pytest.fixture(scope="module")
def others():
    """Phantoms of other patients, as they are and inverted."""
    images = make_chest_phantoms(60, random_state=77).images
    embedder = MedSigLIPEmbedder("demo")
    return embedder.transform(images), embedder.transform(255 - images)


def test_inverted_images_are_novel(gate, others):
    ordinary, inverted = others
    assert (gate.predict(ordinary) == 1).mean() > 0.8
    scores = -gate.score_samples(np.vstack(others))
    assert roc_auc_score([0] * len(ordinary) + [1] * len(inverted), scores) > 0.9


def test_answers_agree(gate, others):
    X = np.vstack(others)
    novel = gate.predict(X) == -1
    np.testing.assert_array_equal(novel, gate.p_values(X) <= 0.05)
    np.testing.assert_array_equal(novel, gate.decision_function(X) < 0)
    order = np.argsort(gate.score_samples(X))
    assert (np.diff(gate.p_values(X)[order]) >= 0).all()


@pytest.mark.parametrize("width", [3, 80])
def test_false_alarms_are_as_rare_as_asked(width):
    rng = np.random.default_rng(0)

    def draw(n_patients):
        patients = np.repeat(np.arange(n_patients), rng.integers(1, 6, n_patients))
        own = rng.normal(size=(n_patients, width))[patients]
        return own + rng.normal(size=own.shape), patients

    rates = []
    for _ in range(12):
        X, patients = draw(60)
        gate = NoveltyGate(0.2).fit(X, groups=patients)
        new, of = draw(200)
        novel = pd.Series(gate.predict(new) == -1)
        rates.append(novel.groupby(of).mean().mean())
    assert 0.14 < np.mean(rates) < 0.23


def test_results_do_not_depend_on_order_or_names(phantom_vectors, phantoms):
    X, patients = phantom_vectors[:120], np.asarray(phantoms.groups)[:120]
    order = np.random.default_rng(0).permutation(120)
    names = np.unique(patients, return_inverse=True)[1][order] * 7
    one = NoveltyGate().fit(X, groups=patients)
    other = NoveltyGate().fit(X[order], groups=names)
    np.testing.assert_allclose(one.p_values(X), other.p_values(X))


def test_stands_before_a_classifier(phantom_vectors, phantoms, others):
    y = phantoms.target[:, 1]
    pipe = make_pipeline(NoveltyGate(), LinearProbe(Cs=2))
    pipe.fit(phantom_vectors, y)
    quiet = clone(pipe).set_params(noveltygate__on_novel="ignore")
    assert cross_val_score(quiet, phantom_vectors, y, cv=2).mean() > 0.7
    alone = LinearProbe(Cs=2).fit(phantom_vectors, y)
    with pytest.warns(NoveltyWarning, match="unlike"):
        answers = pipe.predict_proba(others[1])
    np.testing.assert_allclose(answers, alone.predict_proba(others[1]), atol=1e-6)
    pipe.set_params(noveltygate__on_novel="raise")
    with pytest.raises(ValueError, match="unlike"):
        pipe.predict(others[1])


def test_rows_pass_as_they_are(gate, phantom_vectors):
    kept = phantom_vectors[:30].copy()
    kept.flags.writeable = False
    out = clone(gate).set_params(on_novel="ignore").fit_transform(kept)
    np.testing.assert_array_equal(out, kept)
    table = pd.DataFrame(phantom_vectors[:30]).add_prefix("v")
    framed = NoveltyGate(on_novel="ignore").set_output(transform="pandas").fit(table)
    assert list(framed.transform(table).columns) == list(table.columns)


def test_few_patients_are_said(phantom_vectors):
    with pytest.warns(NoveltyWarning, match="19 patients"):
        gate = NoveltyGate().fit(phantom_vectors[:18])
    assert (gate.predict(1e6 * phantom_vectors) == 1).all()
    enough = NoveltyGate().fit(phantom_vectors[:19])
    assert (enough.predict(1e6 * phantom_vectors) == -1).all()


def test_one_patient_is_refused(phantom_vectors):
    with pytest.raises(ValueError, match="patients"):
        NoveltyGate().fit(phantom_vectors[:9], groups=["a"] * 9)
