"""``worst_slices`` finds planted slices, alarms by its level, and says what it left."""

import numpy as np
import pandas as pd
import pytest

from sk_medsiglip.audit import worst_slices

COLUMNS = [
    "finding", "slice", "n_images", "n_patients", "n_positive", "auc", "auc_low",
    "auc_high", "auc_rest", "loss", "p_value", "findable",
]  # fmt: skip


def drawn(seed, n_patients=300, poor="C"):
    """Labels, scores, metadata and patients; scores of one site say nothing."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients))
    y = (rng.random(n_patients) < 0.3)[patients].astype(int)
    site = rng.choice(list("ABCDE"), n_patients)[patients]
    metadata = pd.DataFrame(
        {
            "site": site,
            "sex": rng.choice(list("FM"), n_patients)[patients],
            "age": rng.uniform(20, 90, n_patients)[patients],
            "view": rng.choice(["frontal", "lateral"], len(patients)),
        }
    )
    own = rng.normal(size=n_patients)[patients]
    score = 2.5 * y * (site != poor) + own + rng.normal(size=len(patients))
    return y, score, metadata, patients


def test_a_poor_site_is_first():
    y, score, metadata, patients = drawn(0)
    found = worst_slices(y, score, metadata, groups=patients)
    assert list(found.columns) == COLUMNS
    worst = found.iloc[0]
    assert worst["slice"] == "site = C"
    assert worst["p_value"] <= 0.01
    assert worst["auc_low"] < worst["auc"] < worst["auc_high"] < worst["auc_rest"]
    assert worst["loss"] > worst["findable"]
    inside = metadata["site"] == "C"
    assert worst["n_images"] == inside.sum()
    assert worst["n_positive"] == y[inside].sum()
    assert worst["n_patients"] == len(np.unique(patients[inside]))


def test_a_pair_of_columns_is_found():
    y, score, metadata, patients = drawn(1, 600, poor="none")
    inside = (metadata["site"] == "B") & (metadata["sex"] == "F")
    noise = np.random.default_rng(0).normal(size=len(y))
    score = np.where(inside, noise, score)
    found = worst_slices(y, score, metadata, groups=patients)
    assert found["slice"][0] == "site = B & sex = F"


def test_alarms_are_as_rare_as_the_p_value_says():
    smallest = [
        worst_slices(
            y, score, metadata[["site", "view"]], groups=patients, n_permutations=39
        )["p_value"].min()
        for y, score, metadata, patients in (
            drawn(seed, 60, poor="none") for seed in range(40)
        )
    ]
    # Within the 99.9 % range of 40 draws of a probability of .25.
    assert 2 <= np.sum(np.array(smallest) <= 0.25) <= 20


def test_patients_count_and_not_images():
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(40), 25)
    y = (np.arange(40) % 2)[patients]
    site = np.where(np.arange(40) % 4 < 2, "A", "B")[patients]
    score = y + 2 * rng.normal(size=40)[patients] + 0.1 * rng.normal(size=len(y))
    by_patient = worst_slices(y, score, {"site": site}, groups=patients)
    by_image = worst_slices(y, score, {"site": site})
    assert by_patient["p_value"].min() > 0.05
    assert by_image["p_value"].min() < 0.05


def test_results_do_not_depend_on_order_or_names():
    y, score, metadata, patients = drawn(2)
    found = worst_slices(y, score, metadata, groups=patients, n_permutations=99)
    order = np.random.default_rng(0).permutation(len(y))
    names = np.array([f"patient {900 - one}" for one in patients])
    again = worst_slices(
        y[order], score[order], metadata.iloc[order], groups=names[order],
        n_permutations=99,
    )  # fmt: skip
    pd.testing.assert_frame_equal(found, again)


def test_scores_may_be_of_any_scale():
    y, score, metadata, patients = drawn(3, 100)
    found = worst_slices(y, score, metadata, groups=patients, n_permutations=19)
    again = worst_slices(y, np.exp(score), metadata, groups=patients, n_permutations=19)
    pd.testing.assert_frame_equal(found, again)


def test_several_findings_with_blanks():
    y, score, metadata, patients = drawn(5)
    metadata = metadata[["site", "view"]]
    other = np.roll(score, 1)
    target = pd.DataFrame({"nodule": y.astype(float), "effusion": y, "none": np.nan})
    target.loc[::7, "nodule"] = np.nan
    scores = np.column_stack([score, other, other])
    found = worst_slices(target, scores, metadata, groups=patients)
    assert set(found["finding"]) == {"nodule", "effusion"}
    assert found.attrs["unjudged"] == ["none"]
    known = target["nodule"].notna().to_numpy()
    alone = worst_slices(
        target["nodule"][known], score[known], metadata[known], groups=patients[known]
    )
    nodule = found[found["finding"] == "nodule"].set_index("slice")
    alone = alone.set_index("slice").loc[nodule.index]
    np.testing.assert_allclose(nodule["loss"], alone["loss"])
    assert (nodule["p_value"] >= alone["p_value"]).all()


def test_classes_by_name():
    y, score, metadata, patients = drawn(6)
    names = np.where(y == 1, "ill", "fine")
    two = worst_slices(names, score, metadata, groups=patients, n_permutations=19)
    assert two["slice"][0].startswith("site = C")
    proba = np.column_stack([1 - score, score])
    again = worst_slices(names, proba, metadata, groups=patients, n_permutations=19)
    pd.testing.assert_frame_equal(two, again)
    three = np.where(patients % 5 == 0, "other", names)
    scores = np.column_stack([-score, score, score])
    metadata = metadata[["site"]]
    found = worst_slices(three, scores, metadata, groups=patients, n_permutations=19)
    assert set(found["finding"]) == {"fine", "ill", "other"}


def test_metadata_of_every_type():
    y, score, metadata, patients = drawn(7, 200)
    rng = np.random.default_rng(0)
    metadata["date"] = pd.date_range("2020-01-01", periods=len(y))
    metadata["kind"] = pd.Categorical(rng.choice(["a", "b"], len(y)))
    metadata["portable"] = rng.random(len(y)) < 0.5
    metadata["room"] = rng.choice([1.0, 2.0, np.nan], len(y))
    metadata["id"] = [f"id {one}" for one in patients]
    metadata["device"] = "one"
    found = worst_slices(y, score, metadata, groups=patients, n_permutations=19)
    slices = set(found["slice"])
    assert {"kind = a", "portable = True", "room = (blank)", "room = 1"} <= slices
    assert sum(one.startswith("age = ") and "&" not in one for one in slices) == 4
    assert sum(one.startswith("date = ") and "&" not in one for one in slices) == 4
    left_out = found.attrs["left_out"]
    assert set(left_out) == {"id", "device"}
    assert "'one'" in left_out["device"]


def test_small_levels_are_left_out_and_named():
    y, score, metadata, patients = drawn(8, 100)
    metadata.loc[patients < 3, "site"] = "tiny"
    found = worst_slices(y, score, metadata, groups=patients, n_permutations=19)
    assert "tiny" in found.attrs["left_out"]["site"]
    assert not found["slice"].str.contains("tiny").any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metadata": {"site": ["A"] * 3}}, ValueError, "holds 3 rows"),
        ({"metadata": {"site": ["A"] * 12}}, ValueError, "only value"),
        ({"metadata": {"site": list("ABCDEFGHIJKL")}}, ValueError, "levels"),
        ({"y": [np.nan] * 12}, ValueError, "y"),
        ({"y": [1] * 12}, ValueError, "one class"),
        ({"y_score": np.zeros((12, 3))}, ValueError, "y_score"),
        ({"y_score": [np.nan] * 12}, ValueError, "NaN"),
        ({"y_score": np.zeros(5)}, ValueError, "inconsistent"),
        ({"groups": [1, 2]}, ValueError, "groups"),
        ({"n_permutations": 5}, ValueError, "n_permutations"),
        ({"level": 95}, ValueError, "level"),
    ],
)
def test_errors_name_the_mend(change, error, message):
    given = {
        "y": [0, 1] * 6,
        "y_score": np.arange(12.0),
        "metadata": {"site": ["A", "B"] * 6},
        **change,
    }
    with pytest.raises(error, match=message):
        worst_slices(**given)


def test_no_slice_that_can_be_judged():
    found = worst_slices([0] * 10 + [1] * 2, np.arange(12.0), {"site": ["A", "B"] * 6})
    assert found.empty
    assert list(found.columns) == COLUMNS
    assert found.attrs["unjudged"] == [0]
