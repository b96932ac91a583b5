"""Figures of a test set: each against scikit-learn, resamples row by row."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sk_medsiglip import LinearProbe, _resampling
from sk_medsiglip.evaluation import (
    delong_test,
    evaluate,
    expected_calibration_error,
    known_training_data,
    published_results,
)
from sk_medsiglip.exceptions import LeakageWarning

METRICS = [
    "roc_auc",
    "average_precision",
    "sensitivity@specificity=0.9",
    "specificity@sensitivity=0.8",
    "balanced_accuracy",
    "f1",
    "accuracy",
    "sensitivity",
    "specificity",
    "ppv",
    "npv",
    "brier",
    "ece",
]


def sensitivity_at(y, score, specificity):
    false_alarms, hits, _ = metrics.roc_curve(y, score, drop_intermediate=False)
    return hits[1 - false_alarms >= specificity - 1e-12].max()


def specificity_at(y, score, sensitivity):
    false_alarms, hits, _ = metrics.roc_curve(y, score, drop_intermediate=False)
    return (1 - false_alarms)[hits >= sensitivity - 1e-12].max()


def by_hand(y, score, predicted, probability):
    """Compute every figure of one binary question, by scikit-learn."""
    return {
        "roc_auc": metrics.roc_auc_score(y, score),
        "average_precision": metrics.average_precision_score(y, score),
        "sensitivity@specificity=0.9": sensitivity_at(y, score, 0.9),
        "specificity@sensitivity=0.8": specificity_at(y, score, 0.8),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
        "f1": metrics.f1_score(y, predicted),
        "accuracy": metrics.accuracy_score(y, predicted),
        "sensitivity": metrics.recall_score(y, predicted),
        "specificity": metrics.recall_score(y, predicted, pos_label=0),
        "ppv": metrics.precision_score(y, predicted, zero_division=np.nan),
        "npv": metrics.precision_score(1 - y, 1 - predicted, zero_division=np.nan),
        "brier": metrics.brier_score_loss(y, probability),
        "ece": expected_calibration_error(y, probability),
    }


@pytest.fixture(scope="module")
def data():
    """Return rows of patients, four labels and a class, learned and judged halves."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 8))
    Y = (X[:, :4] + rng.normal(size=(400, 4)) > [0.0, 0.5, 1.0, 1.5]).astype(int)
    y = np.array(["a", "b", "c"])[np.digitize(X[:, 5] + rng.normal(size=400), [-1, 1])]
    return X, Y, y, np.arange(400) // 3


def value(table, **wanted):
    for column, one in wanted.items():
        table = table[table[column] == one]
    assert len(table) == 1
    return table["value"].item()


# ------------------------------------------------------------------------------- values


def test_binary_figures_are_those_of_scikit_learn(data):
    X, Y, _, _ = data
    clf = LogisticRegression().fit(X[:200], Y[:200, 0])
    table = evaluate(clf, X[200:], Y[200:, 0], metrics=METRICS, n_bootstrap=10)
    expected = by_hand(
        Y[200:, 0],
        clf.decision_function(X[200:]),
        clf.predict(X[200:]),
        clf.predict_proba(X[200:])[:, 1],
    )
    assert table["metric"].tolist() == METRICS
    for metric, number in expected.items():
        assert value(table, metric=metric) == pytest.approx(number), metric
    assert table["label"].unique().tolist() == [1]
    assert table["n"].unique().tolist() == [200]
    assert table["n_positive"].unique().tolist() == [Y[200:, 0].sum()]


def test_classes_each_against_the_rest_macro_and_micro(data):
    X, _, y, _ = data
    clf = LogisticRegression().fit(X[:200], y[:200])
    table = evaluate({"lr": clf}, X[200:], y[200:], metrics=METRICS, n_bootstrap=10)
    truth, shares, predicted = y[200:], clf.predict_proba(X[200:]), clf.predict(X[200:])
    one_hot = (truth[:, None] == clf.classes_).astype(int)
    flags = (predicted[:, None] == clf.classes_).astype(int)
    for k, name in enumerate(clf.classes_):
        expected = by_hand(one_hot[:, k], shares[:, k], flags[:, k], shares[:, k])
        for metric, number in expected.items():
            assert value(table, label=name, metric=metric) == pytest.approx(
                number, nan_ok=True
            )
    macro = {
        "roc_auc": metrics.roc_auc_score(truth, shares, multi_class="ovr"),
        "f1": metrics.f1_score(truth, predicted, average="macro"),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
    }
    for metric, number in macro.items():
        assert value(table, label="macro", metric=metric) == pytest.approx(number)
    micro = by_hand(one_hot.ravel(), shares.ravel(), flags.ravel(), shares.ravel())
    # One answer an image: these are no mean of answers for and against each class.
    of_all = {
        "accuracy": metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
        "brier": metrics.brier_score_loss(truth, shares),
    }
    for metric, number in of_all.items():
        assert value(table, label="macro", metric=metric) == pytest.approx(number)
    for average in ("macro", "micro"):
        for metric, score in (
            ("f1", metrics.f1_score),
            ("ppv", metrics.precision_score),
            ("sensitivity", metrics.recall_score),
        ):
            assert value(table, label=average, metric=metric) == pytest.approx(
                score(truth, predicted, average=average)
            )
    for metric, number in (micro | of_all).items():
        assert value(table, label="micro", metric=metric) == pytest.approx(number)
    assert value(table, label="micro", metric="f1") == pytest.approx(
        metrics.accuracy_score(truth, predicted)
    )


def test_findings_with_blanks(data):
    X, Y, _, _ = data
    frame = pd.DataFrame(Y, columns=["one", "two", "three", "four"], dtype=float)
    frame = frame.mask(np.random.default_rng(1).random(Y.shape) < 0.3)
    probe = LinearProbe().fit(X[:200], frame[:200])
    table = evaluate(
        {"probe": probe}, X[200:], frame[200:], metrics=METRICS, n_bootstrap=10
    )
    assert table["label"].unique().tolist() == [*frame, "macro", "micro"]
    aucs = []
    for k, name in enumerate(frame):
        known = frame[name][200:].notna().to_numpy()
        rows = X[200:][known]
        expected = by_hand(
            frame[name][200:][known].to_numpy().astype(int),
            probe.decision_function(rows)[:, k],
            probe.predict(rows)[:, k],
            probe.predict_proba(rows)[:, k],
        )
        for metric, number in expected.items():
            assert value(table, label=name, metric=metric) == pytest.approx(
                number, nan_ok=True
            )
        aucs.append(expected["roc_auc"])
        assert table[table["label"] == name]["n"].iloc[0] == known.sum()
    assert value(table, label="macro", metric="roc_auc") == pytest.approx(np.mean(aucs))


def test_scikit_learns_own_several_outputs(data):
    X, Y, _, _ = data
    forest = RandomForestClassifier(20, random_state=0).fit(X[:200], Y[:200])
    table = evaluate({"forest": forest}, X[200:], Y[200:], n_bootstrap=5)
    present = np.column_stack([one[:, 1] for one in forest.predict_proba(X[200:])])
    assert value(table, label=2, metric="roc_auc") == pytest.approx(
        metrics.roc_auc_score(Y[200:, 2], present[:, 2])
    )


def test_classifiers_that_answer_other_questions_are_refused(data):
    X, Y, y, _ = data
    number = np.unique(y, return_inverse=True)[1]
    names, numbers, findings = (
        LinearProbe().fit(X[:200], labels[:200]) for labels in (y, number, Y[:, :3])
    )
    for labels in (y, number):
        with pytest.raises(ValueError, match=r"'c'.*\[0,"):
            evaluate({"a": names, "b": numbers}, X, labels, n_bootstrap=2)
    with pytest.raises(ValueError, match="b predicts"):
        evaluate({"a": names, "b": findings}, X, y, n_bootstrap=2)
    with pytest.raises(ValueError, match="a predicts"):
        evaluate({"a": names, "b": findings}, X, Y[:, :3], n_bootstrap=2)
    with pytest.raises(ValueError, match="predicts findings"):
        evaluate(LinearProbe().fit(X, Y[:, :2]), X, Y[:, 0], n_bootstrap=2)


def test_scores_may_stand_for_a_classifier(data):
    X, Y, y, _ = data
    clf = LogisticRegression().fit(X, Y[:, 0])
    shares = clf.predict_proba(X)
    own, given, column = (
        evaluate(
            {"x": one}, X, Y[:, 0], metrics=["roc_auc", "f1", "ece"], n_bootstrap=5
        )
        for one in (clf, shares, shares[:, 1])
    )
    pd.testing.assert_frame_equal(own, given)
    pd.testing.assert_frame_equal(own, column)
    logits = evaluate({"x": clf.decision_function(X)}, X, Y[:, 0], n_bootstrap=5)
    assert np.isnan(value(logits, metric="brier"))


def test_without_probabilities_there_is_no_calibration(data):
    X, Y, _, _ = data
    svm = LinearSVC().fit(X, Y[:, 0])
    table = evaluate({"svm": svm}, X, Y[:, 0], n_bootstrap=5)
    assert value(table, metric="roc_auc") == pytest.approx(
        metrics.roc_auc_score(Y[:, 0], svm.decision_function(X))
    )
    assert np.isnan(value(table, metric="ece"))


# ---------------------------------------------------------------------------- intervals


def test_resamples_are_those_of_rows_drawn_by_patient(data):
    X, Y, _, groups = data
    X, y, groups = X[:90], Y[:90, 1], groups[:90]
    score = np.round(X[:, 1] / 6 + 0.5, 2).clip(0, 1)  # ties
    table = evaluate(
        {"x": score}, X, y, groups=groups, metrics=METRICS, interval="bootstrap",
        n_bootstrap=60, random_state=3,
    )  # fmt: skip
    drawn = {metric: [] for metric in METRICS}
    for counts in _resampling.draw_counts(90, 60, groups=groups, random_state=3):
        rows = np.repeat(np.arange(90), counts)
        flags = (score[rows] > 0.5).astype(int)
        for metric, number in by_hand(y[rows], score[rows], flags, score[rows]).items():
            drawn[metric].append(number)
    for metric, numbers in drawn.items():
        row = table[table["metric"] == metric].iloc[0]
        # Of 60 resamples and the sample 2.5 % are 1.5: beyond the most extreme one.
        low, high = np.min(numbers), np.max(numbers)
        if metric == "ece":  # resampling makes it larger
            low = high = np.nan
        assert row["low"] == pytest.approx(low, nan_ok=True), metric
        assert row["high"] == pytest.approx(high, nan_ok=True), metric


def test_intervals_hold_the_truth_as_often_as_they_say():
    # Scores of two normals one apart: the true area is Phi(1 / sqrt(2)) = 0.7602.
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        y = rng.integers(0, 2, 120)
        score = y + rng.normal(size=120)
        row = evaluate({"x": score}, y, y, metrics="roc_auc", n_bootstrap=200).iloc[0]
        inside += row["low"] <= 0.7602 <= row["high"]
    assert 0.90 <= inside / 200 <= 0.99


def test_undefined_resamples_are_counted(data):
    y = np.zeros(20, int)
    y[0] = 1
    score = np.linspace(1, 0, 20)
    table = evaluate(
        {"x": score}, y, y, metrics=["roc_auc", "brier"], interval="bootstrap",
        n_bootstrap=500,
    )  # fmt: skip
    undefined = table.set_index("metric")["n_undefined"]
    # Nobody ill is drawn with probability (19/20)^20 = 0.358.
    assert undefined["roc_auc"] == pytest.approx(179, abs=45)
    assert undefined["brier"] == 0
    table = evaluate({"x": score}, y, y, metrics="roc_auc")
    assert table["n_undefined"].tolist() == [0]
    assert table["low"].isna().all()
    assert table["note"].tolist() == ["no interval: 1 patient of a kind"]


def test_a_label_of_one_kind_is_named_and_left_out_of_the_mean(data):
    X, Y, _, _ = data
    Y = Y.copy()
    Y[:, 3] = 0
    scores = 1 / (1 + np.exp(-X[:, :4]))
    with pytest.warns(UserWarning, match="'3'"):
        table = evaluate({"x": scores}, X, Y, metrics="roc_auc", n_bootstrap=5)
    assert np.isnan(value(table, label=3))
    assert value(table, label="macro") == pytest.approx(
        np.mean([value(table, label=k) for k in range(3)])
    )


# --------------------------------------------------------------- differences, subgroups


def test_delong_is_its_definition():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 80).astype(bool)
    a = np.round(y + rng.normal(size=80), 1)
    b = np.round(0.5 * y + rng.normal(size=80), 1)

    def components(score):
        """Compare every ill with every well, as the paper of 1988 defines it."""
        ill, well = score[y], score[~y]
        wins = (ill[:, None] > well) + 0.5 * (ill[:, None] == well)
        return wins.mean(axis=1), wins.mean(axis=0)

    (ill_a, well_a), (ill_b, well_b) = components(a), components(b)
    S10, S01 = np.cov(ill_a, ill_b), np.cov(well_a, well_b)
    S = S10 / y.sum() + S01 / (~y).sum()
    z = (ill_a.mean() - ill_b.mean()) / np.sqrt(S[0, 0] + S[1, 1] - 2 * S[0, 1])
    from scipy.stats import norm

    difference, p = delong_test(y, a, b)
    assert difference == pytest.approx(
        metrics.roc_auc_score(y, a) - metrics.roc_auc_score(y, b)
    )
    assert p == pytest.approx(2 * norm.sf(abs(z)))
    assert delong_test(y, a, a) == (0, 1)
    assert np.isnan(delong_test([1, 0, 0], [3, 2, 1], [1, 2, 3])[1])
    # Perfect against blind: four images are no proof.
    assert np.isnan(delong_test([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], [0.5] * 4)[1])
    with pytest.raises(ValueError, match="positive"):
        delong_test(["no", "yes", "no"], [1, 2, 3], [3, 2, 1])


def test_delong_and_resamples_agree(data):
    X, Y, _, groups = data
    y = Y[:, 0]
    good, poor = X[:, 0], X[:, 0] + 1.5 * np.random.default_rng(2).normal(size=400)
    named = {"good": good, "poor": poor}
    rows = evaluate(named, X, y, metrics="roc_auc")
    difference = rows[rows["estimator"] == "good - poor"].iloc[0]
    assert difference["value"] == pytest.approx(
        metrics.roc_auc_score(y, good) - metrics.roc_auc_score(y, poor)
    )
    # As wide as its parts make it, it is more cautious than DeLong's.
    assert delong_test(y, good, poor)[1] < difference["p_value"] < 0.001
    assert difference["low"] > 0
    by_patient = evaluate(
        named, X, y, groups=groups, metrics="roc_auc", interval="bootstrap"
    )
    assert by_patient["p_value"].iloc[2] == pytest.approx(2 / 2001, rel=1e-3)
    assert by_patient["p_value"][:2].isna().all()
    # The same scores twice: no difference, no interval, no evidence.
    for interval in ("auto", "bootstrap"):
        same = evaluate(
            {"a": good, "b": good}, X, y, groups=groups, metrics=METRICS,
            interval=interval, n_bootstrap=100,
        ).set_index("estimator").loc["a - b"]  # fmt: skip
        same = same[same["value"].notna()]
        assert (same["value"] == 0).all()
        assert same[["low", "high", "p_value"]].isna().all(axis=None)
        assert same["note"].str.fullmatch("no interval: .* alike").all()


def test_p_values_are_even_where_nothing_differs():
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(150):
        y = rng.integers(0, 2, 100)
        named = {name: y + rng.normal(size=100) for name in "ab"}
        table = evaluate(
            named, y, y, groups=np.arange(100), metrics="roc_auc", n_bootstrap=200
        )
        small += table["p_value"].iloc[2] < 0.1
    assert 0.03 <= small / 150 <= 0.18


@pytest.mark.parametrize("metric", ["roc_auc", "brier"])
def test_p_values_of_gaps_are_even_where_nothing_differs(metric):
    rng = np.random.default_rng(1)
    small = 0
    for _ in range(80):
        p = rng.random(300)
        y = (rng.random(300) < p).astype(int)
        table = evaluate(
            {"a": p}, y, y, subgroups={"g": np.arange(300) < 60}, metrics=metric,
            groups=np.arange(300), n_bootstrap=99,
        )  # fmt: skip
        gap = table[table["subgroup"] == "g=True - rest"].iloc[0]
        small += gap["p_value"] < 0.05
    assert 0 <= small / 80 <= 0.125


def test_calibration_errors_have_no_interval_and_are_no_evidence_of_gaps():
    rng = np.random.default_rng(0)
    p = rng.random(200)
    y = (rng.random(200) < p).astype(int)
    table = evaluate(
        {"a": p, "b": p[::-1]}, y, y, subgroups={"g": np.arange(200) < 30},
        metrics="ece", n_bootstrap=100,
    )  # fmt: skip
    assert not table["subgroup"].str.endswith("rest").any()
    assert table[["p_value", "low", "high"]].isna().all(axis=None)
    assert table["note"].str.contains("larger in resamples").all()


def test_what_never_varies_has_no_interval_of_no_width():
    y = np.repeat([1, 0], [3, 40])
    patients = np.r_[0, 0, 1, 2:42]  # two images of the first
    perfect = np.linspace(1, 0, len(y))
    perfect[3:] /= 3
    table = evaluate({"x": perfect}, y, y, groups=patients, metrics=METRICS)
    row = table.set_index("metric")[["value", "low", "high"]]
    # Two of two patients, by Clopper and Pearson: 0.025 ** (1 / 2).
    assert row.loc["sensitivity"].tolist() == pytest.approx([1, 0.025**0.5, 1])
    assert row.loc["specificity"].tolist() == pytest.approx([1, 0.025 ** (1 / 40), 1])
    assert row.loc["roc_auc"].tolist() == pytest.approx([1, 0.025**0.5, 1])
    # What is made of these is as wide as they are.
    low = 1 - np.hypot(1 - 0.025**0.5, 1 - 0.025 ** (1 / 40)) / 2
    assert row.loc["balanced_accuracy"].tolist() == pytest.approx([1, low, 1])
    jaccard = 0.025**0.5
    assert row.loc["f1"].tolist() == pytest.approx([1, 2 * jaccard / (1 + jaccard), 1])
    assert row.loc["average_precision", ["low", "high"]].isna().all()
    notes = table.set_index("metric")["note"]
    assert notes["average_precision"] == "no interval: all resamples are alike"


def test_scores_that_are_no_probabilities_decide_nothing(data):
    X, Y, y, _ = data
    table = evaluate({"x": X[:, 0]}, X, Y[:, 0], n_bootstrap=5).set_index("metric")
    assert table.loc[["roc_auc", "average_precision"], "value"].notna().all()
    assert table.loc[["balanced_accuracy", "f1", "brier", "ece"], "value"].isna().all()
    # Of classes the highest does.
    logits = X[:, : len(np.unique(y))]
    table = evaluate({"x": logits}, X, y, metrics="accuracy", n_bootstrap=5)
    assert table["value"].notna().all()


def test_a_label_that_was_never_there_is_not_taken_for_certain(data):
    X, Y, _, _ = data
    seen = Y[:, :3].copy()
    seen[:, 2] = 0
    forest = RandomForestClassifier(10, random_state=0).fit(X, seen)
    table = evaluate(forest, X, Y[:, :3], metrics="brier", n_bootstrap=5)
    assert value(table, label=2, metric="brier") == pytest.approx(Y[:, 2].mean())


def test_searches_know_the_order_of_their_findings(data):
    X, Y, _, _ = data
    frame = pd.DataFrame(Y[:, :2], columns=["one", "two"])
    search = GridSearchCV(LinearProbe(), {"tol": [1e-2, 1e-3]}, cv=3).fit(X, frame)
    assert evaluate(search, X, frame, n_bootstrap=5)["label"][0] == "one"
    with pytest.raises(ValueError, match="two"):
        evaluate(search, X, frame[["two", "one"]], n_bootstrap=5)


def test_names_of_series_and_bands_in_order(data):
    X, Y, _, _ = data
    age = pd.cut(np.arange(400) % 90, [0, 5, 10, 50, 90], include_lowest=True)
    finding = pd.Series(Y[:, 0], name="effusion", index=range(7, 407))
    table = evaluate(
        {"x": 1 / (1 + np.exp(-X[:, 0]))}, X, finding, subgroups={"age": age},
        metrics="roc_auc", n_bootstrap=5,
    )  # fmt: skip
    assert table["label"].unique().tolist() == ["effusion"]
    bands = [s for s in table["subgroup"].unique() if not s.endswith("rest")]
    assert bands == ["all", *(f"age={one}" for one in age.categories)]


def test_subgroups_and_their_gaps(data):
    X, Y, _, groups = data
    y, score = Y[:, 0], 1 / (1 + np.exp(-X[:, 0]))
    sex = np.where(np.arange(400) % 2, "F", "M").astype(object)
    sex[:40] = None
    table = evaluate(
        {"x": score}, X, y, groups=groups, metrics=["roc_auc", "brier"],
        subgroups={"sex": sex, "site": np.arange(400) // 200}, n_bootstrap=50,
    )  # fmt: skip
    assert set(table["subgroup"]) == {
        "all", "sex=F", "sex=M", "site=0", "site=1",
        "sex=F - rest", "sex=M - rest", "site=0 - rest", "site=1 - rest",
    }  # fmt: skip
    women = sex == "F"
    auc = {}
    for name, rows in (("F", women), ("M", sex == "M")):
        auc[name] = metrics.roc_auc_score(y[rows], score[rows])
        assert value(table, subgroup=f"sex={name}", metric="roc_auc") == pytest.approx(
            auc[name]
        )
    gap = table[(table.subgroup == "sex=F - rest") & (table.metric == "roc_auc")].iloc[
        0
    ]
    assert gap["value"] == pytest.approx(auc["F"] - auc["M"])
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert 0 < gap["p_value"] <= 1
    assert gap["n"] == women.sum()
    frame = evaluate(
        {"x": score}, X, y, metrics="brier", n_bootstrap=5,
        subgroups=pd.Series(sex, name="sex"),
    )  # fmt: skip
    assert value(frame, subgroup="sex=F") == pytest.approx(
        metrics.brier_score_loss(y[women], score[women])
    )
    with pytest.raises(ValueError, match="'age'.*400"):
        evaluate({"x": score}, X, y, subgroups={"age": np.arange(400)})
    with pytest.raises(ValueError, match="3 values"):
        evaluate({"x": score}, X, y, subgroups={"sex": list("FMF")})


# -------------------------------------------------------------------- leakage, warnings


def test_patients_and_pictures_that_were_learned_from(data):
    X, Y, _, groups = data
    clf = LogisticRegression().fit(X[:200], Y[:200, 0])
    with pytest.warns(LeakageWarning, match=r"patients \(1"):
        evaluate(
            clf, X[200:], Y[200:, 0], groups=groups[200:], groups_train=groups[:201],
            n_bootstrap=5,
        )  # fmt: skip
    with pytest.warns(LeakageWarning, match=r"images \(3"):
        evaluate(
            clf, X[200:], Y[200:, 0], X_train=np.vstack([X[:197], X[200:203]]),
            n_bootstrap=5,
        )  # fmt: skip
    evaluate(clf, X[200:], Y[200:, 0], X_train=X[:200], n_bootstrap=5)
    with pytest.raises(ValueError, match="check_leakage"):
        evaluate(clf, X[200:], Y[200:, 0], X_train=["a.png"], n_bootstrap=5)


@pytest.mark.parametrize(
    ("groups_train", "said"),
    [
        (np.array([1.0, 2.0, np.nan]), [r"1 of the images", r"patients \(2 of"]),
        (np.array([1.0, 2.0], np.float32), [r"patients \(2 of"]),
        (np.array([1, 2]), [r"patients \(2 of"]),
        (np.array(["1", "2"]), [r"patients \(2 of"]),
        (["1.0", 2, None], [r"1 of the images", r"patients \(2 of"]),
        (pd.DataFrame({"patient": [1, 2]}), [r"patients \(2 of"]),
        (np.array(["01", "02"]), ["2 patients .* zeros.*, such as 1 and '01'"]),
        (np.array(["nan", "7.0"]), [r"1 of the images", r"patients \(1 of"]),
        (np.array(["P1", "P2"]), ["could not be compared: the ids of one are num"]),
        (np.array([2.0**60, 90.0]), [r"1 of the images .* too large to be exact"]),
        (np.array([90, 91]), []),
    ],
)
def test_patients_are_compared_by_what_their_ids_say(groups_train, said):
    groups = np.arange(40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(
            groups / 40, np.zeros((40, 1)), groups % 2, groups=groups,
            groups_train=groups_train, metrics="brier", n_bootstrap=2,
        )  # fmt: skip
    assert len(caught) == len(said)
    for warning, match in zip(caught, said, strict=True):
        assert warning.category is LeakageWarning
        assert re.search(match, str(warning.message))


def test_patients_of_one_side_alone_are_not_compared():
    y = np.tile([0, 1], 20)
    with pytest.warns(LeakageWarning, match="compared"):
        evaluate(
            y / 2, np.zeros((40, 1)), y, groups_train=[1, 2], metrics="brier",
            n_bootstrap=2,
        )  # fmt: skip


def test_near_copies_are_told_with_those_expected_by_chance():
    rng = np.random.default_rng(0)
    # Every image of 400 patients lies near ten others, whoever it is of.
    X = rng.normal(size=(40, 8))[rng.integers(0, 40, 400)]
    X += rng.normal(scale=1e-4, size=X.shape)
    y, groups = np.arange(400) % 2, np.arange(400)
    asked = {"X_train": X[:300], "metrics": "brier", "n_bootstrap": 2}
    with pytest.warns(LeakageWarning, match=r"\(100.*about 100"):
        evaluate(
            y[300:] / 2, X[300:], y[300:], groups=groups[300:],
            groups_train=groups[:300], **asked,
        )  # fmt: skip
    with pytest.warns(LeakageWarning, match="unknown"):
        evaluate(y[300:] / 2, X[300:], y[300:], **asked)
    X[:300] = rng.normal(size=(300, 8))
    X[300:310] = X[:10] + 1e-5  # ten copies of images that are otherwise unlike
    with pytest.warns(LeakageWarning, match=r"\(10 .*about 0"):
        evaluate(
            y[300:] / 2, X[300:], y[300:], groups=groups[300:],
            groups_train=groups[:300], **asked,
        )  # fmt: skip


@pytest.mark.parametrize(
    "name", ["EyePACS", "mimic_cxr jpg", "TCGA-BRCA", "PAD-UFES-20"]
)
def test_data_that_medsiglip_was_trained_on(data, name):
    X, Y, _, _ = data
    clf = LogisticRegression().fit(X, Y[:, 0])
    with pytest.warns(LeakageWarning, match="trained"):
        evaluate(clf, X, Y[:, 0], data_set=name, n_bootstrap=5)
    evaluate(clf, X, Y[:, 0], data_set="our own 2026", n_bootstrap=5)


def test_published_figures_stand_beside_ones_own(data):
    X, Y, _, _ = data
    own = evaluate(LogisticRegression().fit(X, Y[:, 0]), X, Y[:, 0], n_bootstrap=5)
    published = published_results("chest X-ray")
    assert set(own.columns) <= set(published.columns)
    both = pd.concat([own, published])
    assert len(both) == len(own) + 14
    chest = published.set_index("label")["value"]
    assert chest.drop("macro").mean() == pytest.approx(chest["macro"], abs=6e-4)
    assert published["source"].str.contains("model card").all()
    everything = published_results()
    assert len(everything) == 14 + 14
    assert set(everything["estimator"]) == {
        "MedSigLIP zero-shot (model card)",
        "MedSigLIP linear probe (model card)",
    }
    with pytest.raises(ValueError, match="MRI"):
        published_results("MRI")
    assert len(known_training_data()) == 9


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"metrics": "auc"}, "metric 'auc'"),
        ({"metrics": "sensitivity@sensitivity=0.9"}, "unknown metric"),
        ({"metrics": []}, "metrics is empty"),
        ({"level": 95}, "level must be"),
        ({"n_bootstrap": 0}, "n_bootstrap"),
        ({"groups": [1, 2]}, "inconsistent numbers"),
    ],
)
def test_what_is_asked_wrongly(data, params, message):
    X, Y, _, _ = data
    with pytest.raises(ValueError, match=message):
        evaluate({"x": X[:, 0]}, X, Y[:, 0], **params)


def test_findings_in_another_order_are_not_compared(data):
    X, Y, _, _ = data
    frame = pd.DataFrame(Y[:, :2], columns=["one", "two"])
    one = LinearProbe().fit(X, frame)
    other = make_pipeline(StandardScaler(), LinearProbe()).fit(X, frame[["two", "one"]])
    with pytest.raises(ValueError, match=r"\['two', 'one'\]"):
        evaluate({"a": one, "b": other}, X, frame, n_bootstrap=5)
    with pytest.raises(ValueError, match="compare"):
        evaluate({"b": other}, X, frame, n_bootstrap=5)
    # In a pipeline names are found as well.
    table = evaluate({"b": other}, X, frame[["two", "one"]], n_bootstrap=5)
    assert table["label"].unique().tolist() == ["two", "one", "macro", "micro"]


def test_the_class_that_is_looked_for(data):
    X, Y, _, _ = data
    y = np.where(Y[:, 0] == 1, "effusion", "no effusion")
    clf = LogisticRegression().fit(X, y)
    probability = clf.predict_proba(X)[:, 0]
    figures = ["roc_auc", "average_precision", "sensitivity", "f1", "brier"]
    names = {"clf": clf, "one": probability, "two": clf.predict_proba(X)}
    table = evaluate(
        names, X, y, metrics=figures, pos_label="effusion", n_bootstrap=5
    ).set_index(["estimator", "metric"])["value"]
    ill, said = y == "effusion", clf.predict(X) == "effusion"
    for name in names:
        np.testing.assert_allclose(
            table[name][figures],
            [
                metrics.roc_auc_score(ill, probability),
                metrics.average_precision_score(ill, probability),
                metrics.recall_score(ill, said),
                metrics.f1_score(ill, said),
                metrics.brier_score_loss(ill, probability),
            ],
        )
    # Scores of a decision function turn round as well.
    svc = LinearSVC().fit(X, y)
    table = evaluate(svc, X, y, metrics="roc_auc", pos_label="effusion", n_bootstrap=5)
    expected = metrics.roc_auc_score(ill, -svc.decision_function(X))
    assert table["value"].tolist() == pytest.approx([expected])
    assert table["label"].tolist() == ["effusion"]


def test_the_absence_of_a_finding_is_not_looked_for_without_a_word(data):
    X, Y, _, _ = data
    y = np.where(Y[:, 0] == 1, "effusion", "no effusion")
    clf = LogisticRegression().fit(X, y)
    with pytest.warns(UserWarning, match="Pass pos_label='effusion'"):
        table = evaluate(clf, X, y, metrics="roc_auc", n_bootstrap=5)
    assert table["label"].tolist() == ["no effusion"]
    with pytest.raises(ValueError, match="label='pneumonia'"):
        evaluate(clf, X, y, pos_label="pneumonia", n_bootstrap=5)
    three = LinearProbe().fit(X, Y[:, 0] + Y[:, 1])
    with pytest.raises(ValueError, match="pos_label=1"):
        evaluate(three, X, Y[:, 0] + Y[:, 1], pos_label=1, n_bootstrap=5)


def test_estimators_that_do_not_fit_the_labels(data):
    X, Y, y, _ = data
    clf = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match=r"\['d'\]"):
        evaluate(clf, X, np.where(y == "a", "d", y))
    with pytest.raises(ValueError, match="shape"):
        evaluate({"x": X[:, :2]}, X, y)
    with pytest.raises(ValueError, match="NaN"):
        evaluate({"x": np.full(400, np.nan)}, X, Y[:, 0])
    with pytest.raises(ValueError, match="empty"):
        evaluate({}, X, y)
    dummy = DummyClassifier().fit(X, Y[:, 0])
    assert value(
        evaluate(dummy, X, Y[:, 0], n_bootstrap=5), metric="roc_auc"
    ) == pytest.approx(0.5)


def test_shows_a_bar(data, capfd):
    X, Y, _, _ = data
    evaluate({"x": X[:, 0]}, X, Y[:, 0], n_bootstrap=5, verbose=1)
    assert "judging" in capfd.readouterr().err


# ------------------------------------------------------- intervals and gaps by patient


def test_a_classifier_that_finds_none_is_not_surely_useless():
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], [5, 95])
    score = np.r_[rng.uniform(0.1, 0.4, 5), rng.uniform(0, 0.45, 95)]
    score[[10, 11]] = 0.6
    figures = ["sensitivity", "specificity", "balanced_accuracy", "f1"]
    table = evaluate(score, y, y, metrics=figures).set_index("metric")
    assert table.loc["sensitivity", "high"] == pytest.approx(1 - 0.025 ** (1 / 5))
    of = table["high"] - table["value"]
    assert of["balanced_accuracy"] == pytest.approx(
        np.hypot(of["sensitivity"], of["specificity"]) / 2
    )
    assert table.loc["f1", "high"] > 0.3


@pytest.mark.parametrize("interval", ["auto", "bootstrap"])
def test_comparisons_say_the_same_by_p_value_and_interval(interval):
    rng = np.random.default_rng(0)
    said = []
    for _ in range(12):
        Y = (rng.random((70, 2)) < 0.4).astype(int)
        named = {
            name: 1 / (1 + np.exp(-(k * (Y - 0.5) + rng.normal(size=(70, 2)))))
            for name, k in (("a", 2.5), ("b", 1.2))
        }
        table = evaluate(
            named, Y, Y, groups=np.arange(70) // 2, interval=interval, n_bootstrap=200
        )
        said.append(table[table["estimator"] == "a - b"])
    rows = pd.concat(said)
    rows = rows[rows["p_value"].notna() & rows["low"].notna()]
    outside = (rows["low"] > 0) | (rows["high"] < 0)
    assert ((rows["p_value"] < 0.05) == outside).all()
    assert 0 < outside.mean() < 1


def test_macro_and_micro_are_as_wide_as_their_parts_make_them():
    # Perfect of one finding of few patients, ordinary of the other.
    rng = np.random.default_rng(0)
    Y = np.column_stack([np.arange(80) < 4, np.arange(80) % 2]).astype(int)
    score = 1 / (1 + np.exp(-(2 * (Y - 0.5) + 0.5 * rng.normal(size=(80, 2)))))
    score[:, 0] = Y[:, 0] * 0.8 + 0.1
    table = evaluate(score, Y, Y, metrics=["roc_auc", "sensitivity", "f1"])
    for metric in ("roc_auc", "sensitivity", "f1"):
        of = table[table["metric"] == metric].set_index("label")
        below = of["value"] - of["low"]
        apart = np.hypot(below[0], below[1]) / 2
        assert below["macro"] == pytest.approx(apart, rel=0.3)
        assert below["macro"] > below[0] / 2 * 0.99


def gap(table, metric="roc_auc"):
    rows = table[table["subgroup"].str.endswith("rest") & (table["metric"] == metric)]
    return rows.iloc[0]


def test_two_patients_who_differ_by_nothing_are_no_evidence():
    y, patients = np.tile([0, 1], 100), np.arange(200) // 2
    noise = np.random.default_rng(0).standard_normal(200)
    score = 1 / (1 + np.exp(-(1.5 * y - 0.75 + noise)))
    score[:4] = [0.2, 0.8, 0.3, 0.9]
    table = evaluate(
        score, y, y, groups=patients, metrics=["roc_auc", "sensitivity"],
        subgroups={"scanner": np.where(patients < 2, "new", "old")},
    )  # fmt: skip
    for metric in ("roc_auc", "sensitivity"):
        row = gap(table, metric)
        assert row["p_value"] > 0.05
        assert row["low"] < -0.5 < 0 < row["high"]
        assert "found half the time" in row["note"]
    assert (table["p_holm"].dropna() >= table["p_value"].dropna()).all()


def test_gaps_of_few_patients_are_tested_exactly():
    # Three with and three without, one of each in the group: nine arrangements.
    y = np.array([1, 1, 1, 0, 0, 0])
    inside = np.array([1, 0, 0, 1, 0, 0], dtype=bool)
    score = np.array([0.1, 0.8, 0.9, 0.95, 0.2, 0.15])
    gaps = []
    for a in range(3):
        for b in range(3, 6):
            own = np.isin(np.arange(6), [a, b])
            gaps.append(
                metrics.roc_auc_score(y[own], score[own])
                - metrics.roc_auc_score(y[~own], score[~own])
            )
    assert np.mean(np.abs(gaps) >= abs(gaps[0])) > 0.05
    row = gap(evaluate(score, y, y, subgroups={"g": inside}, metrics="roc_auc"))
    # A ninth, the least there is, is above .05: nothing can be said.
    assert np.isnan(row["p_value"])
    assert row["note"].endswith("too few patients to say whether they differ")
    y, inside = np.repeat(y, 3), np.tile(inside, (3, 1)).T.ravel()
    inside[[1, 2, 10, 11]] = False  # one of nine, and one of nine
    score = np.random.default_rng(0).random(18)
    score[0], score[9] = 0.01, 0.99
    gaps = []
    for a in range(9):
        for b in range(9, 18):
            own = np.isin(np.arange(18), [a, b])
            gaps.append(
                metrics.roc_auc_score(y[own], score[own])
                - metrics.roc_auc_score(y[~own], score[~own])
            )
    table = evaluate(score, y, y, subgroups={"g": inside}, metrics="brier")
    row = gap(table, "brier")
    losses = (y - score) ** 2
    drawn = [
        losses[[a, b]].mean() - np.delete(losses, [a, b]).mean()
        for a in range(9)
        for b in range(9, 18)
    ]
    expected = np.mean(np.abs(drawn) >= abs(drawn[0]) - 1e-9)
    assert row["p_value"] == pytest.approx(expected)
    assert row["p_value"] == pytest.approx(1 / 81)


def test_patients_of_both_sides_change_places_by_image():
    # Each patient was imaged by both scanners; the new one is worse.
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 4)
    y = np.tile([0, 0, 1, 1], 60)
    new = np.tile([True, False, True, False], 60)
    score = y * np.where(new, 0.3, 2.5) + rng.normal(size=240)
    table = evaluate(
        score, y, y, groups=patients, subgroups={"new": new}, metrics="roc_auc",
        n_bootstrap=400,
    )  # fmt: skip
    assert gap(table)["p_value"] < 0.01
    even = y + rng.normal(size=240)
    table = evaluate(
        even, y, y, groups=patients, subgroups={"new": new}, metrics="roc_auc",
        n_bootstrap=400,
    )  # fmt: skip
    assert gap(table)["p_value"] > 0.05


def test_gaps_keep_their_size_in_small_groups_of_other_prevalence():
    rng = np.random.default_rng(0)
    figures = ["roc_auc", "sensitivity", "specificity", "accuracy", "brier"]
    found = dict.fromkeys(figures, 0)
    for _ in range(100):
        inside = np.arange(80) < 6
        y = (rng.random(80) < np.where(inside, 0.6, 0.25)).astype(int)
        score = 1 / (1 + np.exp(-(2 * y - 1 + rng.normal(size=80))))
        if y[inside].min() == y[inside].max():
            continue
        table = evaluate(
            score, y, y, subgroups={"g": np.where(inside, "few", "rest")},
            metrics=figures, n_bootstrap=99,
        )  # fmt: skip
        for metric in figures:
            found[metric] += gap(table, metric)["p_value"] <= 0.05
    assert max(found.values()) / 100 <= 0.11


def test_brier_scores_of_small_groups_have_no_interval_of_their_gap():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 150)
    score = rng.random(150)
    table = evaluate(
        score, y, y, subgroups={"g": np.arange(150) < 20}, metrics="brier",
        n_bootstrap=99,
    )  # fmt: skip
    row = gap(table, "brier")
    assert np.isnan(row["low"])
    assert row["note"].startswith("no interval: 20 patients")
    assert row["p_value"] > 0


def test_findings_and_their_means_are_tested_too():
    rng = np.random.default_rng(0)
    Y = (rng.random((160, 2)) < 0.4).astype(float)
    Y[:9, 0] = np.nan
    inside = np.arange(160) < 50
    slope = np.where(inside, 0.0, 3.0)[:, None]
    logit = slope * (np.nan_to_num(Y) - 0.5) + rng.normal(size=Y.shape)
    score = 1 / (1 + np.exp(-logit))
    table = evaluate(
        score, Y, Y, subgroups={"g": inside}, metrics="roc_auc", n_bootstrap=199
    )
    rows = table[table["subgroup"] == "g=True - rest"].set_index("label")
    assert rows.index.tolist() == [0, 1, "macro", "micro"]
    assert (rows["p_value"] <= 0.01).all()
    assert (rows["p_holm"] <= 0.05).all()


# ------------------------------------------------------------------- degenerate inputs


def test_a_finding_that_is_blank_everywhere_has_no_figures(data):
    X, Y, _, _ = data
    Y = Y[:, :3].astype(float)
    Y[:, 1] = np.nan
    scores = 1 / (1 + np.exp(-X[:, :3]))
    with pytest.warns(UserWarning, match="'1'"):
        table = evaluate(
            scores, X, Y, metrics=METRICS, n_bootstrap=50,
            subgroups={"half": np.arange(400) // 200},
        )  # fmt: skip
    assert table[table["label"] == 1]["value"].isna().all()
    assert value(table, label="macro", metric="f1", subgroup="all") == pytest.approx(
        np.mean([value(table, label=k, metric="f1", subgroup="all") for k in (0, 2)])
    )


@pytest.mark.parametrize("interval", ["auto", "bootstrap"])
def test_one_patient_says_nothing(data, interval):
    X, Y, _, _ = data
    score = 1 / (1 + np.exp(-X[:, 0]))
    with pytest.warns(UserWarning, match="1 patients"):
        table = evaluate(
            {"a": score, "b": score[::-1]}, X, Y[:, 0], groups=np.zeros(400),
            metrics=METRICS, interval=interval,
        )  # fmt: skip
    assert table["value"].notna().all()
    assert table[["low", "high", "p_value"]].isna().all(axis=None)
    assert (table["note"] != "").all()


def test_one_resample_says_nothing(data):
    X, Y, _, _ = data
    score = 1 / (1 + np.exp(-X[:, 0]))
    with pytest.warns(UserWarning, match="1 resamples"):
        table = evaluate(score, X, Y[:, 0], metrics=["brier", "f1"], n_bootstrap=1)
    low = table.set_index("metric")["low"]
    assert np.isnan(low["brier"])
    assert low["f1"] > 0  # it takes no resample


@pytest.mark.parametrize("shape", ["1-D", "column", "frame", "object"])
def test_one_finding_may_have_blanks(data, shape):
    X, Y, _, groups = data
    blank = Y[:, 0].astype(float)
    blank[::3] = np.nan
    known = ~np.isnan(blank)
    score = 1 / (1 + np.exp(-X[:, 0]))
    y = {
        "1-D": blank,
        "column": blank[:, None],
        "frame": pd.DataFrame({"effusion": blank}),
        "object": pd.Series(blank, name="effusion").astype("Int64"),
    }[shape]
    table = evaluate(score, X, y, groups=groups, metrics=METRICS, n_bootstrap=50)
    flags = (score[known] > 0.5).astype(int)
    expected = by_hand(Y[known, 0], score[known], flags, score[known])
    for metric, number in expected.items():
        assert value(table, metric=metric) == pytest.approx(number)
    assert table["n"].unique().tolist() == [known.sum()]
    assert table["n_positive"].unique().tolist() == [Y[known, 0].sum()]
    if shape in ("frame", "object"):
        assert table["label"].unique().tolist() == ["effusion"]
