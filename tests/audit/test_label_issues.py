"""Labels that look wrong, and patients whose images carry different labels."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    cross_val_predict,
)
from sklearn.svm import LinearSVC

from sk_medsiglip.audit import find_disagreements, find_label_issues
from sk_medsiglip.heads import LinearProbe

DEVICE = 5


@pytest.fixture
def flipped(findings):
    """Six findings, twelve labels of each of them wrong; and which."""
    rng = np.random.default_rng(0)
    flips = np.zeros(findings.shape, bool)
    for of_finding in flips.T:
        of_finding[rng.choice(len(findings), 12, replace=False)] = True
    return np.where(flips, 1 - findings, findings), flips


def test_planted_errors_come_first(phantom_vectors, patients, flipped):
    y, flips = flipped
    issues = find_label_issues(phantom_vectors, y, groups=patients)
    assert list(issues) == ["row", "finding", "given", "suggested", "score", "group"]
    assert issues["score"].is_monotonic_increasing
    assert (issues["score"] < 0.5).all()
    assert (issues["given"] == y[issues["row"], issues["finding"]]).all()
    assert (issues["given"] + issues["suggested"] == 1).all()
    assert (issues["group"] == patients[issues["row"]]).all()
    device = issues[issues["finding"] == DEVICE]
    assert flips[device["row"].head(8), DEVICE].all()
    assert flips[issues["row"].head(30), issues["finding"].head(30)].mean() > 0.8
    assert issues.attrs["n_judged"] == dict.fromkeys(range(6), len(y))
    assert 2 < issues.attrs["n_likely"][DEVICE] < 18


def test_blanks_are_not_judged(phantom_vectors, patients, flipped):
    y, _ = flipped
    y = y.copy()
    y[::3] = np.nan
    issues = find_label_issues(phantom_vectors, y, groups=patients)
    assert len(issues)
    assert not np.isnan(y[issues["row"], issues["finding"]]).any()
    alone = find_label_issues(phantom_vectors, y[:, DEVICE], groups=patients)
    both = issues[issues["finding"] == DEVICE].reset_index(drop=True)
    assert alone["row"].tolist() == both["row"].tolist()
    assert np.allclose(alone["score"], both["score"], atol=0.01)


def test_results_do_not_depend_on_order_or_names(phantom_vectors, patients, flipped):
    y, _ = flipped
    issues = find_label_issues(phantom_vectors, y, groups=patients)
    order = np.random.default_rng(1).permutation(len(y))
    names = np.array([f"{hash(one) % 10007}-{one}" for one in patients])
    columns = [4, 0, 5, 2, 1, 3]
    again = find_label_issues(
        phantom_vectors[order], y[order][:, columns], groups=names[order]
    )
    again["row"] = order[again["row"]]
    again["finding"] = np.array(columns)[again["finding"].astype(int)]
    both = [one.sort_values(["finding", "row"]) for one in (issues, again)]
    assert (both[0][["row", "finding"]].to_numpy() == both[1][["row", "finding"]]).all(
        axis=None
    )
    assert np.allclose(both[0]["score"], both[1]["score"], atol=1e-4)


def test_a_patient_that_is_mislabelled_whole_is_found(phantom_vectors, patients):
    rng = np.random.default_rng(0)
    names = np.unique(patients)
    truth = pd.Series(patients).map(dict.fromkeys(names[: len(names) // 2], 1))
    truth = truth.fillna(0).to_numpy()
    X = phantom_vectors.copy()
    X[:, 0] += 3 * X[:, 0].std() * truth
    wrong = np.isin(patients, rng.choice(names, 5, replace=False))
    y = np.where(wrong, 1 - truth, truth)
    issues = find_label_issues(X, y, groups=patients)
    assert wrong[issues["row"]][: int(wrong.sum())].mean() > 0.6
    # Images of one patient and one label share a score.
    assert (issues.groupby("group")["score"].nunique() == 1).all()


def test_several_classes(phantom_vectors, patients, findings):
    device, heart = findings[:, DEVICE] == 1, findings[:, 0] == 1
    y = np.where(device, "device", np.where(heart, "heart", "other")).astype(object)
    wrong = [10, 50, 90, 130]
    y[wrong] = ["device" if one != "device" else "other" for one in y[wrong]]
    issues = find_label_issues(phantom_vectors, y, groups=patients)
    assert set(wrong) <= set(issues["row"].head(12))
    assert (issues["given"] == y[issues["row"]]).all()
    assert (issues["suggested"] != issues["given"]).all()


def test_ranks_as_cleanlab_does(phantom_vectors, patients, flipped):
    """The same probabilities, and a reference for the score and its order."""
    from cleanlab.filter import find_label_issues as cleanlab_issues
    from cleanlab.rank import get_self_confidence_for_each_label

    y, flips = flipped
    label = y[:, 1].astype(int)
    X = phantom_vectors.astype(np.float64)
    model = LogisticRegression(C=0.1, max_iter=5000)
    cv = list(StratifiedGroupKFold(5).split(X, label, patients))
    proba = cross_val_predict(model, X, label, cv=cv, method="predict_proba")
    theirs = get_self_confidence_for_each_label(label, proba)
    ours = find_label_issues(X, label, estimator=model, cv=cv)
    assert np.allclose(ours["score"], theirs[ours["row"]], atol=1e-3)
    assert set(ours["row"]) == set(np.flatnonzero(theirs < 0.5))
    found = cleanlab_issues(label, proba, filter_by="confident_learning")
    assert ours.attrs["n_likely"][0] == found.sum()


@pytest.mark.parametrize(
    "estimator", [LogisticRegression(max_iter=5000), LinearProbe([0.01, 1.0], cv=3)]
)
def test_other_classifiers(phantom_vectors, patients, flipped, estimator):
    y, flips = flipped
    y = y[:, [0, DEVICE]].copy()
    y[::7, 0] = np.nan
    issues = find_label_issues(
        phantom_vectors, y, groups=patients, estimator=estimator, cv=3
    )
    device = issues[issues["finding"] == 1]
    assert flips[device["row"].head(6), DEVICE].mean() > 0.6


@pytest.mark.parametrize("cv", [KFold(4), GroupKFold(4)])
def test_splitters(phantom_vectors, patients, flipped, cv):
    y, flips = flipped
    groups = patients if isinstance(cv, GroupKFold) else None
    issues = find_label_issues(phantom_vectors, y, groups=groups, cv=cv)
    device = issues[issues["finding"] == DEVICE]
    assert flips[device["row"].head(6), DEVICE].mean() > 0.6


def test_unreadable_rows_are_left_out_and_named(phantom_vectors, findings, patients):
    X = phantom_vectors.copy()
    X[[3, 8]] = np.nan
    issues = find_label_issues(X, findings, groups=patients)
    assert not issues["row"].isin([3, 8]).any()
    assert issues.attrs["n_judged"][0] == len(X) - 2
    assert "2 of 400 rows are NaN" in issues.attrs["notes"][0]
    X[5, 0] = np.inf
    with pytest.raises(ValueError, match="row 5"):
        find_label_issues(X, findings)


def test_findings_that_cannot_be_judged_are_named(phantom_vectors, findings, patients):
    y = pd.DataFrame(findings[:, :3], columns=["heart", "effusion", "air"])
    y["never"], y["blank"], y["one"] = 0.0, np.nan, 0.0
    y.loc[7, "one"] = 1.0
    issues = find_label_issues(phantom_vectors, y, groups=patients)
    assert set(issues["finding"]) <= {"heart", "effusion", "air"}
    left_out = issues.attrs["left_out"]
    assert set(left_out) == {"never", "blank", "one"}
    assert "blank" in left_out["blank"]
    assert "one patient" in left_out["one"]


def test_names_images_and_notes(phantom_vectors, findings, phantoms):
    y = pd.Series(findings[:, DEVICE], name="device")
    y[[4, 9]] = 1 - y[[4, 9]]
    paths = [f"{row}.png" for row in range(len(y))]
    groups = np.arange(len(y))
    issues = find_label_issues(phantom_vectors, y, groups=groups, images=paths)
    assert set(issues["finding"]) == {"device"}
    assert issues["image"].tolist() == [f"{row}.png" for row in issues["row"]]
    assert "group of its own" in issues.attrs["notes"][0]


def test_texts_as_labels_and_columns_of_a_table(phantom_vectors, flipped):
    y = np.where(flipped[0][:, DEVICE] == 1, "yes", "no")
    X = phantom_vectors.copy()
    X.setflags(write=False)
    paths = pd.Series([f"{row}.png" for row in range(len(y))], index=range(1, 401))
    issues = find_label_issues(X, y, images=paths)
    numbers = find_label_issues(X, flipped[0][:, DEVICE], images=paths)
    assert issues["row"].tolist() == numbers["row"].tolist()
    assert issues["given"].tolist() == y[issues["row"]].tolist()
    assert (issues["given"] != issues["suggested"]).all()
    assert issues["image"][0] == f"{issues['row'][0]}.png"


def test_errors_say_what_to_do(phantom_vectors, findings, phantoms):
    X, y = phantom_vectors, findings[:, 0]
    with pytest.raises(ValueError, match="inconsistent"):
        find_label_issues(X, y[:-1])
    with pytest.raises(ValueError, match="399 ids"):
        find_label_issues(X, y, groups=np.arange(399))
    with pytest.raises(ValueError, match="blank"):
        find_label_issues(X, np.full((len(y), 2), np.nan))
    with pytest.raises(ValueError, match="label is 0"):
        find_label_issues(X, np.zeros((len(y), 2)))
    with pytest.raises(ValueError, match="two patients"):
        find_label_issues(X, y, groups=np.zeros(len(y)))
    with pytest.raises(ValueError, match="nanmean"):
        find_label_issues(X[:, None], y)
    with pytest.raises(ValueError, match="MedSigLIPEmbedder"):
        find_label_issues(["a.png"] * len(y), y)
    with pytest.raises(ValueError, match="inconsistent"):
        find_label_issues(X, y, images=["a.png"])
    with pytest.raises(TypeError, match="CalibratedClassifierCV"):
        find_label_issues(X, y, estimator=LinearSVC())


def test_scale_of_rows_does_not_matter(phantom_vectors, flipped):
    y = flipped[0][:, DEVICE]
    scores = [
        find_label_issues(scale * phantom_vectors, y)["score"] for scale in (1, 1000)
    ]
    assert len(scores[0]) == len(scores[1])
    assert np.allclose(*scores, atol=1e-3)
    assert (expit(0) > scores[0]).all()


def test_disagreements_of_patients():
    y = pd.DataFrame(
        {"a": [1, 1, 0, 0, np.nan, 1], "b": ["x", "x", "x", "y", None, "z"]}
    )
    groups = ["p", "p", "p", "q", "q", "q"]
    found = find_disagreements(y, groups)
    assert found[["group", "finding", "n_rows", "n_minority"]].to_numpy().tolist() == [
        ["p", "a", 3, 1],
        ["q", "a", 2, 1],
        ["q", "b", 2, 1],
    ]
    assert found["labels"][0] == {0: [2], 1: [0, 1]}
    assert found["labels"][2] == {"y": [3], "z": [5]}
    none = find_disagreements([1, 1, 0], [7, 7, 8])
    assert none.empty
    assert list(none) == list(found)
    with pytest.raises(ValueError, match="2 ids"):
        find_disagreements([1, 1, 0], [7, 7])
    with pytest.raises(ValueError, match="missing"):
        find_disagreements([1, 1, 0], [7, None, 7])


def test_one_fold_is_no_judge():
    X = np.random.default_rng(0).normal(size=(40, 5))
    with pytest.raises(ValueError, match="2 folds"):
        find_label_issues(X, np.arange(40) % 2, cv=1)
