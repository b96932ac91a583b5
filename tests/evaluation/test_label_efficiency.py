"""Scores against the number of labels: draws, sides, and agreement with plain fits."""

import sys

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from sk_medsiglip import LinearProbe, PromptProbe, ZeroShotClassifier
from sk_medsiglip.evaluation import (
    LabelEfficiencyDisplay,
    label_efficiency,
)
from sk_medsiglip.exceptions import LeakageWarning, MissingDependencyError


def make_data(n=240, n_findings=3, width=20, seed=0, blanks=0.2):
    """Rows, findings with blanks, and patients of one to three images."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, width)).astype(np.float32)
    y = (X[:, :n_findings] + rng.normal(size=(n, n_findings)) > 0.6).astype(float)
    y[rng.random(y.shape) < blanks] = np.nan
    patients = np.repeat(np.arange(n), rng.integers(1, 4, n))[:n]
    return X, y, patients


class Spy(LogisticRegression):
    """Remembers the first column of the rows that it learns from and scores."""

    learned: list = []
    scored: list = []

    def fit(self, X, y, sample_weight=None):
        self.learned.append(X[:, 0])
        return super().fit(X, y, sample_weight)

    def predict_proba(self, X):
        self.scored.append(X[:, 0])
        return super().predict_proba(X)


# ------------------------------------------------------------------------------- draws


def draws_of(y, size, n_repeats, **options):
    """Return the rows of each draw, in the order in which they are labelled."""
    X = np.linspace(0, 1, len(y))[:, None]
    Spy.learned = []
    test = {"X_test": X, "y_test": y}
    label_efficiency({"a": Spy()}, X, y, [size], n_repeats=n_repeats, **test, **options)
    return [np.searchsorted(X[:, 0], values) for values in Spy.learned]


def test_orders_hold_every_row_once_and_patients_together():
    _, y, patients = make_data(n_findings=1, blanks=0)
    apart = np.arange(len(y)) + 1000
    draws = draws_of(y[:, 0].astype(int), len(y), 3, groups=patients, groups_test=apart)
    assert len(draws) == 3
    for order in draws:
        assert sorted(order) == list(range(len(y)))
        rest = patients[order[2:]]  # after the rows that show each side first
        runs = 1 + np.count_nonzero(rest[1:] != rest[:-1])
        assert runs == len(set(rest.tolist()))


def test_small_draws_show_every_finding_on_both_sides():
    rng = np.random.default_rng(0)
    y = (rng.random((500, 5)) < 0.02).astype(float)
    assert (y.sum(axis=0) > 0).all()
    draws = draws_of(y, 6, 20)
    assert len(draws) == 20 * 5  # of one side alone nothing could be learned
    for rows in draws:
        assert (y[rows] == 0).any(axis=0).all()
        assert (y[rows] == 1).any(axis=0).all()


def test_small_draws_hold_every_class():
    y = np.repeat(np.arange(4), [300, 5, 2, 1])
    for rows in draws_of(y, 4, 20, random_state=1):
        assert set(y[rows]) == {0, 1, 2, 3}


def test_orders_differ_by_repeat_and_repeat_by_seed():
    y = np.arange(100) % 2
    a, b = draws_of(y, 100, 2, random_state=0)
    (c,) = draws_of(y, 100, 1, random_state=0)
    (d,) = draws_of(y, 100, 1, random_state=1)
    np.testing.assert_array_equal(a, c)
    assert not np.array_equal(a, b)
    assert not np.array_equal(a, d)


def test_all_estimators_get_the_same_nested_draws_of_other_patients():
    X, y, patients = make_data(blanks=0)
    Spy.learned, Spy.scored = [], []
    label_efficiency(
        {"a": Spy(), "b": Spy(C=0.1)}, X, y[:, 0].astype(int), [6, 20],
        groups=patients, n_repeats=3,
    )  # fmt: skip
    learned = Spy.learned
    assert len(learned) == len(Spy.scored) == 12
    patient_of = dict(zip(X[:, 0].tolist(), patients.tolist(), strict=True))
    held_out = {patient_of[one] for one in Spy.scored[0].tolist()}
    for a, b in zip(learned[:6], learned[6:], strict=True):
        np.testing.assert_array_equal(a, b)
        assert not held_out & {patient_of[one] for one in a.tolist()}
    for k in range(3):  # the larger draws begin as the smaller
        np.testing.assert_array_equal(learned[k], learned[3 + k][:6])


# ------------------------------------------------------------------------------ scores


@pytest.mark.parametrize("kind", ["binary", "classes"])
@pytest.mark.parametrize(
    ("scoring", "score"),
    [("roc_auc", roc_auc_score), ("average_precision", average_precision_score)],
)
def test_scores_are_scikit_learns(kind, scoring, score):
    X, y, _ = make_data(blanks=0)
    n_classes = 2 if kind == "binary" else 3
    labels = np.array(["a", "b", "c"])[(y.sum(axis=1) % n_classes).astype(int)]
    X_test, y_test = X[:80], labels[:80]
    table = label_efficiency(
        {"lr": LogisticRegression()}, X[80:], labels[80:], [160],
        X_test=X_test, y_test=y_test, n_repeats=1, scoring=scoring,
    ).set_index("label")["score"]  # fmt: skip
    fitted = LogisticRegression(tol=1e-10).fit(X[80:], labels[80:])
    said = fitted.predict_proba(X_test)
    for k, name in enumerate(fitted.classes_):
        if kind == "binary" and k == 0:
            continue
        assert table[name] == pytest.approx(score(y_test == name, said[:, k]), abs=0.01)
    if kind == "classes":
        assert table["macro"] == pytest.approx(table[["a", "b", "c"]].mean())


def test_findings_are_learned_and_scored_where_they_are_known():
    X, y, _ = make_data()
    frame = pd.DataFrame(y, columns=["x", "y", "z"])
    table = label_efficiency(
        {"lr": LogisticRegression()}, X[80:], frame[80:], [160],
        X_test=X[:80], y_test=frame[:80], n_repeats=1,
    ).set_index("label")["score"]  # fmt: skip
    for k, name in enumerate(frame):
        learns, asked = ~np.isnan(y[80:, k]), ~np.isnan(y[:80, k])
        one = LogisticRegression().fit(X[80:][learns], y[80:][learns, k])
        said = one.decision_function(X[:80][asked])
        assert table[name] == pytest.approx(
            roc_auc_score(y[:80][asked, k], said), abs=0.01
        )


def test_a_probe_scores_the_same_alone_and_in_a_pipeline():
    X, y, patients = make_data(n=160)
    alike = make_pipeline(FunctionTransformer(), LinearProbe())  # needs no fit
    slow = make_pipeline(StandardScaler(with_mean=False, with_std=False), LinearProbe())
    table = label_efficiency(
        {"a": LinearProbe(), "b": alike, "c": slow}, X, y, [12, 60],
        groups=patients, n_repeats=2,
    )  # fmt: skip
    wide = table.pivot(
        index=["size", "repeat", "label"], columns="estimator", values="score"
    )
    np.testing.assert_array_equal(wide["a"], wide["b"])
    np.testing.assert_allclose(wide["a"], wide["c"], atol=0.01)


def test_first_steps_that_learn_nothing_are_applied_once():
    X, y, _ = make_data(blanks=0)
    calls = []

    def count(rows):
        calls.append(len(rows))
        return rows

    step = FunctionTransformer(count)
    label_efficiency(
        {
            "a": make_pipeline(step, LinearProbe()),
            "b": make_pipeline(step, StandardScaler(), LinearProbe()),
        },
        X, y[:, 0], [10, 20], n_repeats=2,
    )  # fmt: skip
    assert calls == [len(X)]


def test_draws_that_show_one_side_only_have_no_score():
    X, y, _ = make_data(n_findings=3)
    table = label_efficiency({"p": LinearProbe()}, X, y, [1, 2, 40], n_repeats=5)
    by_size = table.set_index("size")["score"]
    assert by_size[1].isna().all()
    assert by_size[2].isna().any()
    assert by_size[40].notna().all()
    macro = table[table["label"] == "macro"].set_index(["size", "repeat"])["score"]
    rest = table[table["label"] != "macro"].groupby(["size", "repeat"])["score"]
    np.testing.assert_allclose(macro, rest.apply(lambda one: one.mean(skipna=False)))


def test_a_finding_of_one_kind_in_the_test_set_is_left_out_of_macro():
    X, y, _ = make_data(blanks=0)
    asked = y[:80].copy()
    asked[:, 1] = 0
    with pytest.warns(UserWarning, match="kind"):
        table = label_efficiency(
            {"p": LinearProbe()}, X[80:], y[80:], [100],
            X_test=X[:80], y_test=asked, n_repeats=1,
        )  # fmt: skip
    scores = table.set_index("label")["score"]
    assert np.isnan(scores[1])
    assert scores["macro"] == pytest.approx((scores[0] + scores[2]) / 2)


# ----------------------------------------------------------- what knows prompts, n_jobs


@pytest.fixture(scope="module")
def phantoms():
    from sk_medsiglip import MedSigLIPEmbedder
    from sk_medsiglip.datasets import make_chest_phantoms

    made = make_chest_phantoms(160, random_state=2)
    y = made.target[:, :2].astype(float)
    y[::7, 1] = np.nan
    names = ["cardiomegaly", "effusion"]
    prompts = {
        one: {"positive": one, "negative": f"no {one}"} for one in names
    }  # as the demonstration model knows them
    frame = pd.DataFrame(y, columns=names)
    return MedSigLIPEmbedder("demo").transform(made.images), frame, made.groups, prompts


def test_zero_shot_is_scored_once_and_heads_that_know_prompts_take_findings(phantoms):
    X, y, patients, prompts = phantoms
    table = label_efficiency(
        {
            "zero": ZeroShotClassifier(prompts, model="demo"),
            "prompts": PromptProbe(prompts, model="demo"),
        },
        X, y, [3, 16], groups=patients, n_repeats=2,
    )  # fmt: skip
    zero = table[table["estimator"] == "zero"]
    assert zero["size"].unique().tolist() == [0]
    assert zero["label"].tolist() == ["cardiomegaly", "effusion", "macro"]
    assert zero["score"].min() > 0.8
    learned = table[table["estimator"] == "prompts"]
    assert len(learned) == 2 * 2 * 3
    assert learned["score"].dropna().min() > 0.8


def test_jobs_change_nothing(phantoms):
    X, y, patients, _ = phantoms
    arguments = ({"lr": LogisticRegression()}, X, y, [10])
    alone = label_efficiency(*arguments, groups=patients, n_repeats=2)
    with parallel_config(backend="threading"):  # processes take seconds to start
        spread = label_efficiency(*arguments, groups=patients, n_repeats=2, n_jobs=2)
    pd.testing.assert_frame_equal(alone, spread)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"sizes": [1000]}, "to draw from"),
        ({"sizes": []}, "sizes is empty"),
        ({"sizes": [2.5]}, "whole numbers from 1 on, got 2.5"),
        ({"n_repeats": 0}, "n_repeats must be"),
        ({"estimators": {}}, "dict"),
        ({"estimators": LinearProbe()}, "dict"),
        ({"X_test": np.zeros((3, 20))}, "both X_test and y_test"),
        ({"X_test": np.zeros((3, 20)), "y_test": [0, 1, 0]}, "y_test has shape"),
        ({"scoring": "auc"}, "metric 'auc'"),
        ({"groups": [1, 2]}, "2 ids for 240 samples"),
        ({"X": np.full((240, 20), np.nan)}, "X contains NaN"),
        ({"estimators": {"p": LinearProbe(tol=0)}}, "'tol' parameter"),
    ],
)
def test_bad_input_says_what_to_do(changed, match):
    X, y, _ = make_data()
    given = {
        "estimators": {"p": LinearProbe()},
        "X": X,
        "y": y,
        "sizes": [10],
    } | changed
    with pytest.raises(ValueError, match=match):
        label_efficiency(**given)


# ----------------------------------------------------------------------------- picture


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    rows = [("zero", 0, 0, "macro", 0.8), ("zero", 0, 0, "x", 0.7)]
    rows += [
        ("probe", size, repeat, label, rng.random())
        for size in (4, 16, 64)
        for repeat in range(5)
        for label in ("x", "macro")
    ]
    rows[2] = (*rows[2][:4], np.nan)
    return pd.DataFrame(rows, columns=["estimator", "size", "repeat", "label", "score"])


@pytest.fixture
def agg():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.usefixtures("agg")
def test_picture_shows_means_and_the_line_without_labels(table):
    display = LabelEfficiencyDisplay(table).plot()
    mine = table[(table["estimator"] == "probe") & (table["label"] == "macro")]
    x, y = display.lines_["probe"].get_data()
    assert x.tolist() == [4, 16, 64]
    np.testing.assert_allclose(y, mine.groupby("size")["score"].mean())
    assert set(display.lines_["zero"].get_ydata()) == {0.8}
    (band,) = display.ax_.collections
    at_4 = band.get_paths()[0].vertices
    drawn = sorted(set(at_4[at_4[:, 0] == 4][:, 1].round(9)))
    wanted = np.quantile(mine[mine["size"] == 4]["score"], [0.1, 0.9])
    np.testing.assert_allclose([drawn[0], drawn[-1]], wanted)
    assert [one.get_text() for one in display.ax_.get_xticklabels()] == [
        "4",
        "16",
        "64",
    ]
    assert "80%" in display.ax_.get_title()
    assert "5 draws" in display.ax_.get_title()


@pytest.mark.usefixtures("agg")
def test_picture_leaves_out_sizes_that_taught_nothing_somewhere(table):
    display = LabelEfficiencyDisplay(table).plot(label="x", share=0.5)
    assert display.lines_["probe"].get_xdata().tolist() == [16, 64]
    with pytest.raises(ValueError, match="label 'z'"):
        display.plot(label="z")
    with pytest.raises(ValueError, match="share=80"):
        display.plot(share=80)


def test_picture_without_matplotlib_says_how_to_get_it(table, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[plot\]"):
        LabelEfficiencyDisplay(table).plot()


def test_patients_on_both_sides_are_named():
    X, y, patients = make_data(n=120)
    probe = {"probe": LinearProbe()}
    sides = {"X_test": X[100:], "y_test": y[100:], "n_repeats": 1}
    with pytest.warns(LeakageWarning, match="groups_test"):
        label_efficiency(
            probe, X[:101], y[:101], [40], groups=patients[:101],
            groups_test=patients[100:], **sides,
        )  # fmt: skip
    written = patients[100:].astype(str)
    with pytest.warns(LeakageWarning, match="leading zeros"):
        label_efficiency(
            probe, X[:101], y[:101], [40], groups=patients[:101],
            groups_test=np.char.add("0", written), **sides,
        )  # fmt: skip
    apart = np.arange(20) + 1000
    label_efficiency(
        probe, X[:100], y[:100], [40], groups=patients[:100], groups_test=apart, **sides
    )


def test_draws_that_cannot_be_fitted_have_no_score():
    X, y, _ = make_data(n=160, n_findings=1, blanks=0)
    table = None
    with pytest.warns(UserWarning, match="3 of"):
        table = label_efficiency(
            {"knn": KNeighborsClassifier(8)}, X, y[:, 0], [4, 40], n_repeats=3
        )
    scores = table.groupby("size")["score"]
    assert scores.count().tolist() == [0, 3]
    with pytest.raises(ValueError, match="n_neighbors"):
        label_efficiency({"knn": KNeighborsClassifier(8)}, X, y[:, 0], [4], n_repeats=3)


def test_classes_that_a_draw_lacks_have_no_score():
    rng = np.random.default_rng(0)
    kinds = np.array(["a", "b", "c"])[rng.integers(0, 3, 200)]
    X = rng.normal(size=(200, 4)) + (kinds == "a")[:, None]
    table = label_efficiency({"svc": LinearSVC()}, X, kinds, [2, 60], n_repeats=4)
    per_draw = table[table["label"] != "macro"].pivot(
        index=["size", "repeat"], columns="label", values="score"
    )
    assert (per_draw.loc[2].notna().sum(axis=1) == 2).all()
    assert per_draw.loc[60].notna().all(axis=None)
    assert table.attrs["scoring"] == "roc_auc"
