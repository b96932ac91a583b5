"""``drift_test`` finds sets that differ, and alarms as rarely as its p-value says."""

import numpy as np
import pytest

from sk_medsiglip.audit import drift_test
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.heads import explain_head


def draw(seed, n_patients, width=30, shift=0.0, first=0):
    """Rows of patients with one to three images each, and the patients."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    own = rng.normal(size=(n_patients, width))[patients]
    X = own + 0.3 * rng.normal(size=own.shape)
    X[:, 0] += shift
    return X.astype(np.float32), patients + first


def test_a_shift_is_found():
    X, patients = draw(0, 60, 10)
    new, others = draw(1, 40, 10, shift=2.5, first=100)
    found = drift_test(X, new, groups_reference=patients, groups_new=others)
    assert found.p_value <= 0.01
    assert found.auc_low < found.auc < found.auc_high
    assert found.auc > 0.7
    assert (found.n_patients_reference, found.n_patients_new) == (60, 40)
    assert sorted(found.moved["row"]) == list(range(len(new)))
    most = found.moved["row"][: len(new) // 3]
    assert new[most, 0].mean() > new[:, 0].mean() + 0.3
    assert np.abs(found.classifier.coef_[0]).argmax() == 0


@pytest.mark.parametrize("width", [5, 200])
def test_alarms_are_as_rare_as_the_p_value_says(width):
    p_values = []
    for seed in range(60):
        X, patients = draw([seed, 0], 25, width)
        new, others = draw([seed, 1], 15, width, first=100)
        p_values.append(
            drift_test(
                X, new, groups_reference=patients, groups_new=others, n_permutations=19
            ).p_value
        )
    # Within the 99.9 % range of 60 draws of a probability of .25.
    assert 5 <= np.sum(np.array(p_values) <= 0.25) <= 27


def test_patients_count_and_not_images():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 30)
    X = rng.normal(size=(20, 4))[patients] + 0.1 * rng.normal(size=(600, 4))
    new = patients >= 12
    by_patient = drift_test(
        X[~new], X[new], groups_reference=patients[~new], groups_new=patients[new]
    )
    by_image = drift_test(X[~new], X[new])
    assert by_patient.p_value > 0.05
    assert by_image.p_value < 0.01


def test_patients_of_both_sets_are_compared_with_themselves():
    rng = np.random.default_rng(0)
    own = 5 * rng.normal(size=(30, 6))
    before = own + 0.1 * rng.normal(size=own.shape)
    after = own + 0.1 * rng.normal(size=own.shape) + 0.1
    ids = np.arange(30)
    paired = drift_test(before, after, groups_reference=ids, groups_new=ids.astype(str))
    assert paired.p_value < 0.01
    assert drift_test(before, after).p_value > 0.05
    p_values = []
    for _ in range(40):
        again = before + 0.2 * rng.normal(size=own.shape)
        more = before + 0.2 * rng.normal(size=own.shape)
        same = drift_test(
            again, more, groups_reference=ids, groups_new=ids, n_permutations=19
        )
        p_values.append(same.p_value)
    assert 2 <= np.sum(np.array(p_values) <= 0.25) <= 20


def test_results_do_not_depend_on_order_names_or_scale():
    X, patients = draw(2, 30)
    new, others = draw(3, 20, shift=0.5, first=100)
    found = drift_test(X, new, groups_reference=patients, groups_new=others)
    order = np.random.default_rng(0).permutation(len(X))
    again = drift_test(
        8 * X[order],
        8 * new,
        groups_reference=np.array([f"name {one}" for one in patients])[order],
        groups_new=others,
    )
    assert again.p_value == found.p_value
    assert again.auc == pytest.approx(found.auc)
    np.testing.assert_array_equal(again.moved["row"], found.moved["row"])


def test_rows_that_are_all_alike_do_not_differ():
    found = drift_test(np.ones((30, 4)), np.ones((20, 4)))
    assert found.p_value == 1
    assert found.auc == 0.5


def test_unreadable_images_are_left_out_and_named():
    X, patients = draw(4, 30)
    new = X[:20].copy()
    new[3] = np.nan
    found = drift_test(X, new, groups_new=patients[:20])
    assert 3 not in set(found.moved["row"])
    assert "New: 1 of 20 rows are NaN" in found.notes[0]


def test_input_is_not_changed():
    X, _ = draw(5, 20)
    X.flags.writeable = False
    before = X.copy()
    drift_test(X[:20], X[20:])
    np.testing.assert_array_equal(X, before)


def test_prompts_name_what_has_changed():
    embedder = MedSigLIPEmbedder("demo")
    before = make_chest_phantoms(60, prevalence=0, random_state=0)
    after = make_chest_phantoms(40, prevalence=1, findings=["device"], random_state=1)
    found = drift_test(
        embedder.transform(before.images),
        embedder.transform(after.images),
        groups_reference=before.groups,
    )
    assert found.p_value < 0.01
    words = ["a pacemaker", "pleural effusion", "an enlarged heart"]
    named = explain_head(found.classifier, words, model="demo")
    assert named["prompt"][0] == "a pacemaker"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X_new": np.zeros((20, 3))}, "columns"),
        ({"X_new": np.zeros((20, 2, 4))}, "bags"),
        ({"X_new": np.full((20, 4), np.nan)}, "read"),
        ({"X_new": np.full((20, 4), np.inf)}, "infinite"),
        ({"groups_new": ["a"] * 20}, "two patients"),
        ({"groups_new": ["a", "b"]}, "groups"),
        ({"n_permutations": 3}, "n_permutations"),
        ({"level": 2}, "level"),
    ],
)
def test_errors_name_the_mend(change, message):
    rng = np.random.default_rng(0)
    given = {"X_reference": rng.normal(size=(20, 4)), "X_new": np.zeros((20, 4))}
    with pytest.raises(ValueError, match=message):
        drift_test(**{**given, **change})
