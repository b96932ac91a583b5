"""Displays: what is drawn are scikit-learn's numbers, and only what was asked for."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import calibration_curve
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)
from sklearn.svm import LinearSVC

from sk_medsiglip import MedSigLIPEmbedder, make_zero_shot_pipeline
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import (
    DecisionCurveDisplay,
    EmbeddingMapDisplay,
    MistakesDisplay,
    PrecisionRecallBandDisplay,
    ReliabilityDisplay,
    RocBandDisplay,
    SubgroupForestDisplay,
    evaluate,
    expected_calibration_error,
)
from sk_medsiglip.exceptions import MissingDependencyError
from sk_medsiglip.images import read_image

CURVES = [RocBandDisplay, PrecisionRecallBandDisplay]


@pytest.fixture(autouse=True)
def agg():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.fixture
def scored():
    """Labels, probabilities with ties, and patients."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    score = np.clip(0.35 + 0.3 * y + 0.25 * rng.normal(size=300), 0, 1).round(2)
    return y, score, np.repeat(np.arange(100), 3)


# ------------------------------------------------------------------------------ curves


def test_roc_curve_is_scikit_learns(scored):
    y, score, patients = scored
    display = RocBandDisplay.from_predictions(
        y, score, groups=patients, n_bootstrap=200, name="x"
    )
    flagged, found, _ = roc_curve(y, score, drop_intermediate=False)
    x, drawn = display.line_.get_data()
    np.testing.assert_allclose(x, flagged)
    np.testing.assert_allclose(drawn, found)
    assert display.curve.area == pytest.approx(roc_auc_score(y, score))
    assert f"{roc_auc_score(y, score):.3f}" in display.line_.get_label()


def test_precision_recall_curve_is_scikit_learns(scored):
    y, score, _ = scored
    display = PrecisionRecallBandDisplay.from_predictions(y, score, n_bootstrap=50)
    precision, recall, _ = precision_recall_curve(y, score)
    x, drawn = display.line_.get_data()
    np.testing.assert_allclose(x, recall[::-1])
    np.testing.assert_allclose(drawn, precision[::-1])
    assert display.curve.area == pytest.approx(average_precision_score(y, score))
    assert display.prevalence == y.mean()


@pytest.mark.parametrize("kind", CURVES)
def test_band_holds_the_middle_of_curves_of_resampled_patients(kind, scored):
    y, score, patients = scored
    band = kind.from_predictions(y, score, groups=patients, n_bootstrap=300).curve
    at = np.searchsorted(band.grid, 0.5)
    rng = np.random.default_rng(1)
    values = []
    for _ in range(300):
        drawn = rng.integers(0, 100, 100)
        rows = (drawn[:, None] * 3 + np.arange(3)).ravel()
        if kind is RocBandDisplay:
            x, curve, _ = roc_curve(y[rows], score[rows], drop_intermediate=False)
            values.append(np.interp(0.5, x, curve))
        else:
            curve, x, _ = precision_recall_curve(y[rows], score[rows])
            values.append(curve[x >= 0.5][-1])
    np.testing.assert_allclose(
        [band.low[at], band.high[at]], np.quantile(values, [0.025, 0.975]), atol=0.02
    )
    figure = evaluate(score, y, y, groups=patients, n_bootstrap=300).set_index("metric")
    metric = "roc_auc" if kind is RocBandDisplay else "average_precision"
    assert tuple(band.area_interval[:2]) == pytest.approx(
        tuple(figure.loc[metric, ["low", "high"]])
    )


@pytest.mark.parametrize("kind", CURVES)
def test_several_curves_share_axes_and_differ_in_colour(kind, scored):
    y, score, _ = scored
    first = kind.from_predictions(y, score, n_bootstrap=10, name="a")
    second = kind.from_predictions(y, -score, n_bootstrap=10, name="b", ax=first.ax_)
    assert second.ax_ is first.ax_
    assert second.figure_ is first.figure_
    assert first.line_.get_color() != second.line_.get_color()
    assert len(first.ax_.collections) == 2
    assert len(first.ax_.get_legend().get_texts()) == 2


@pytest.mark.parametrize("kind", CURVES)
def test_curve_of_one_finding_is_of_the_rows_where_it_is_known(kind, scored):
    y, score, _ = scored
    both = pd.DataFrame({"a": y.astype(float), "b": 1.0 - y})
    both.loc[::4, "a"] = np.nan
    said = np.column_stack([score, 1 - score])
    display = kind.from_predictions(both, said, label="a", n_bootstrap=10)
    known = both["a"].notna().to_numpy()
    figure = roc_auc_score if kind is RocBandDisplay else average_precision_score
    assert display.curve.area == pytest.approx(figure(y[known], score[known]))
    with pytest.raises(ValueError, match="label="):
        kind.from_predictions(both, said)
    with pytest.raises(ValueError, match="label='c'"):
        kind.from_predictions(both, said, label="c")


@pytest.mark.parametrize("kind", CURVES)
def test_curves_of_an_estimator_rank_by_its_decisions(kind, scored):
    y, score, _ = scored
    X = np.column_stack([score, score**2])
    fitted = LinearSVC().fit(X, y)
    display = kind.from_estimator(fitted, X, y, n_bootstrap=10)
    figure = roc_auc_score if kind is RocBandDisplay else average_precision_score
    assert display.curve.area == pytest.approx(figure(y, fitted.decision_function(X)))
    assert display.line_.get_label().startswith("LinearSVC: ")


@pytest.mark.parametrize("kind", CURVES)
def test_curves_say_what_is_wrong(kind, scored):
    y, score, _ = scored
    with pytest.raises(ValueError, match="kind"):
        kind.from_predictions(
            pd.DataFrame({"a": np.zeros(300), "b": y}),
            np.column_stack([score, score]),
            label="a",
        )
    with pytest.raises(ValueError, match="n_bootstrap"):
        kind.from_predictions(y, score, n_bootstrap=0)
    with pytest.raises(ValueError, match="level"):
        kind.from_predictions(y, score, level=95)
    with pytest.raises(ValueError, match="inconsistent"):
        kind.from_predictions(y, score, groups=[1, 2])


# ------------------------------------------------------------------------- reliability


def test_bins_are_scikit_learns_and_the_error_ours(scored):
    y, score, patients = scored
    display = ReliabilityDisplay.from_predictions(y, score, groups=patients, n_bins=10)
    # Scores on an edge go down here, as in the calibration error, and up there.
    observed, mean = calibration_curve(y, np.nextafter(score, 0), n_bins=10)
    np.testing.assert_allclose(display.bins["observed"], observed)
    np.testing.assert_allclose(display.bins["probability"], mean)
    assert display.bins["n"].sum() == len(y)
    inside = display.bins["observed"].between(display.bins["low"], display.bins["high"])
    assert inside.all()
    error = expected_calibration_error(y, score, n_bins=10)
    assert display.calibration_error == pytest.approx(error)
    words = display.ax_.get_legend().get_texts()[0].get_text()
    assert words.startswith(f"ECE {error:.3f}")
    heights = [bar.get_height() for bar in display.histogram_ax_.patches]
    assert heights == display.bins["n"].tolist()


def test_reliability_has_the_calibration_line_of_evaluate(scored):
    y, score, patients = scored
    display = ReliabilityDisplay.from_predictions(y, score, groups=patients)
    names = ["calibration_slope", "calibration_intercept", "ece"]
    table = evaluate(score, y, y, groups=patients, metrics=names, n_bootstrap=2)
    row = table.set_index("metric")[["value", "low", "high"]]
    for name in names[:2]:
        assert display.line[name] == pytest.approx(tuple(row.loc[name]))
    assert display.calibration_error == pytest.approx(row.loc["ece", "value"])
    # A calibration error is larger in resamples: it has no interval.
    assert row.loc["ece", ["low", "high"]].isna().all()
    words = display.points_[1].get_label()
    assert re.search(
        r"^calibration slope \d\.\d\d \(-?\d\.\d\d to \d\.\d\d\)$", words, re.M
    )
    with pytest.raises(ValueError, match="level"):
        ReliabilityDisplay.from_predictions(y, score, level=95)
    with pytest.raises(ValueError, match="2 ids"):
        ReliabilityDisplay.from_predictions(y, score, groups=[1, 2])


def test_bins_of_few_images_are_hollow():
    y = np.r_[np.zeros(20, int), np.ones(20, int), 0, 1]
    score = np.r_[np.full(20, 0.05), np.full(20, 0.95), 0.5, 0.5]
    display = ReliabilityDisplay.from_predictions(y, score, n_bins=10)
    hollow, full = display.points_
    assert hollow.get_xdata().tolist() == [0.5]
    assert full.get_xdata().tolist() == pytest.approx([0.05, 0.95])
    assert hollow.get_markerfacecolor() != full.get_markerfacecolor()


def test_reliability_needs_probabilities(scored):
    y, score, _ = scored
    X = score[:, None]
    fitted = LogisticRegression().fit(X, y)
    display = ReliabilityDisplay.from_estimator(fitted, X, y)
    assert display.bins["n"].sum() == len(y)
    with pytest.raises(ValueError, match="probabilities"):
        ReliabilityDisplay.from_estimator(LinearSVC().fit(X, y), X, y)
    with pytest.raises(ValueError, match="n_bins"):
        ReliabilityDisplay.from_predictions(y, score, n_bins=0)


# --------------------------------------------------------------------------- subgroups


@pytest.fixture
def by_sex(scored):
    y, score, patients = scored
    sex = np.where(patients % 2, "F", "M")
    rng = np.random.default_rng(3)
    other = np.clip(score + 0.3 * rng.normal(size=len(score)), 0, 1)
    return evaluate(
        {"a": score, "b": other}, y, y, groups=patients, subgroups={"sex": sex},
        n_bootstrap=100,
    )  # fmt: skip


def test_forest_draws_the_rows_of_the_table(by_sex):
    display = SubgroupForestDisplay(by_sex).plot(metric="average_precision")
    wanted = by_sex[
        (by_sex["metric"] == "average_precision")
        & by_sex["estimator"].isin(["a", "b"])
        & ~by_sex["subgroup"].str.endswith("rest")
    ]
    for k, name in enumerate(["a", "b"]):
        mine = wanted[wanted["estimator"] == name]
        marks = [one for one in display.ax_.get_lines() if one.get_label() == name]
        np.testing.assert_allclose(marks[0].get_xdata(), mine["value"])
        ends = np.array(
            [one[:, 0] for one in display.ax_.collections[k].get_segments()]
        )
        np.testing.assert_allclose(ends, mine[["low", "high"]])
    labels = [one.get_text() for one in display.ax_.get_yticklabels()]
    assert labels == ["all", "sex=F", "sex=M"]
    words = [one.get_text() for one in display.ax_.texts]
    row = wanted.iloc[1]
    assert f"{row['n']} ({row['n_positive']})" in words


def test_forest_of_gaps_draws_them_about_zero(by_sex):
    display = SubgroupForestDisplay(by_sex).plot(gaps=True)
    assert display.drawn_["subgroup"].str.endswith(" - rest").all()
    assert set(display.drawn_["metric"]) == {"roc_auc"}
    labels = [one.get_text() for one in display.ax_.get_yticklabels()]
    assert labels == ["sex=F", "sex=M"]
    assert any(set(one.get_xdata()) == {0} for one in display.ax_.get_lines())


def test_forest_from_an_estimator(scored):
    y, score, _ = scored
    X = score[:, None]
    fitted = LogisticRegression().fit(X, y)
    display = SubgroupForestDisplay.from_estimator(
        fitted, X, y, subgroups={"half": np.arange(300) // 150}, n_bootstrap=20
    )
    assert set(display.drawn_["estimator"]) == {"LogisticRegression"}
    assert display.drawn_["value"].iloc[0] == pytest.approx(roc_auc_score(y, score))


def test_forest_says_what_is_missing(by_sex, scored):
    y, score, _ = scored
    plain = evaluate(score, y, y, n_bootstrap=5)
    with pytest.raises(ValueError, match="subgroup"):
        SubgroupForestDisplay(plain).plot()
    with pytest.raises(ValueError, match="'auc'"):
        SubgroupForestDisplay(by_sex).plot(metric="auc")
    with pytest.raises(ValueError, match="label 'x'"):
        SubgroupForestDisplay(by_sex).plot(label="x")


# -------------------------------------------------------------------------- embeddings


def test_map_is_scikit_learns_pca_with_missing_values_in_grey():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 12)).astype(np.float32)
    y = (np.arange(50) % 2).astype(float)
    y[:5] = np.nan
    display = EmbeddingMapDisplay.from_embeddings(X, y)
    pca = PCA(2).fit(X.astype(np.float64))
    np.testing.assert_allclose(
        display.points, pca.transform(X.astype(np.float64)), atol=1e-9
    )
    shares = pca.explained_variance_ratio_
    assert f"({shares[0]:.0%} of" in display.ax_.get_xlabel()
    assert f"({shares[1]:.0%})" in display.ax_.get_ylabel()
    assert list(display.scatters_) == [None, 0, 1]
    for value, rows in ((None, np.isnan(y)), (0, y == 0), (1, y == 1)):
        np.testing.assert_allclose(
            display.scatters_[value].get_offsets(), display.points[rows]
        )
    texts = [one.get_text() for one in display.ax_.get_legend().get_texts()]
    assert texts == ["not known (5)", "0 (22)", "1 (23)"]


def test_map_without_labels_has_one_colour_and_no_legend():
    X = np.random.default_rng(0).normal(size=(9, 4))
    display = EmbeddingMapDisplay.from_embeddings(X)
    assert len(display.scatters_) == 1
    assert display.ax_.get_legend() is None


def test_map_refuses_what_cannot_be_told_apart():
    X = np.random.default_rng(0).normal(size=(30, 4))
    with pytest.raises(ValueError, match="6 colours"):
        EmbeddingMapDisplay.from_embeddings(X, np.arange(30))
    with pytest.raises(ValueError, match="column"):
        EmbeddingMapDisplay.from_embeddings(X, np.zeros((30, 2)))


def test_map_as_a_page_tells_which_point_is_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    points = np.random.default_rng(0).normal(size=(5, 2))
    values = ["<b>", "AP", None, "AP", "<b>"]
    display = EmbeddingMapDisplay(points, [0.6, 0.3], values, title="By <view>")
    html = display.to_html(tmp_path / "map.html").read_text(encoding="utf-8")
    titles = re.findall(r"<use [^>]*><title>(.*?)</title>", html)
    assert titles == [
        "row 2: not known",
        "row 0: &lt;b&gt;",
        "row 4: &lt;b&gt;",
        "row 1: AP",
        "row 3: AP",
    ]
    assert "<script" not in html
    assert "<b>" not in html
    assert "60% of the variance" in html
    places = re.findall(r'<use href="#mark-\d" x="([\d.]+)" y="([\d.]+)"', html)
    x, y = np.array(places, dtype=float).T
    assert (np.argsort(x) == np.argsort(points[[2, 0, 4, 1, 3], 0])).all()
    assert (np.argsort(-y) == np.argsort(points[[2, 0, 4, 1, 3], 1])).all()


def test_map_as_a_page_shows_names_and_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (3, 20, 30), dtype=np.uint8)
    display = EmbeddingMapDisplay(np.eye(3, 2), [0.6, 0.3])
    file = tmp_path / "map.html"
    display.to_html(file, names=["a", "b", "c"], images=images)
    html = file.read_text(encoding="utf-8")
    assert re.findall(r"<use [^>]*><title>(.*?)</title>", html) == ["a", "b", "c"]
    assert html.count("<image href=") == 3
    assert "holds images" in html
    with pytest.raises(ValueError, match="inconsistent"):
        display.to_html(file, names=["a"])
    with pytest.raises(ValueError, match="6 colours"):
        EmbeddingMapDisplay(np.zeros((9, 2)), [0.6, 0.3], np.arange(9)).to_html(file)


# ---------------------------------------------------------------------------- mistakes


def test_mistakes_are_the_wrong_ones_the_worst_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (6, 20, 30), dtype=np.uint8)
    read = []
    monkeypatch.setattr(
        "sk_medsiglip.evaluation._mistakes_plot.read_image",
        lambda source, **kwargs: read.append(1) or read_image(source, **kwargs),
    )
    y = np.array([0, 1, 0, 1, 1, 0])
    said = np.array([0.1, 0.2, 0.9, 0.4, 0.8, 0.7])
    display = MistakesDisplay.from_predictions(y, said, images, n_images=3)
    assert display.mistakes["row"].tolist() == [2, 1, 5]
    np.testing.assert_allclose(display.mistakes["probability"], [0.1, 0.2, 0.3])
    assert len(read) == 3  # no picture is read that is not shown
    for tile, row in zip(display.axes_, [2, 1, 5], strict=True):
        shown = tile.get_images()[0].get_array()
        np.testing.assert_array_equal(shown[..., 0], images[row])
        assert f"row {row}\n" in tile.get_title()
    assert display.ax_.get_title() == "4 of 6 wrong, the 3 worst"
    assert list(tmp_path.iterdir()) == []


def test_mistakes_of_classes_and_of_a_finding():
    images = np.zeros((4, 8, 8), np.uint8)
    said = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3], [0.5, 0.4, 0.1]]
    )
    display = MistakesDisplay.from_predictions(["a", "b", "b", "c"], said, images)
    assert display.mistakes["row"].tolist() == [1, 3]
    assert display.mistakes["true"].tolist() == ["b", "c"]
    assert display.mistakes["predicted"].tolist() == ["c", "a"]
    y = pd.DataFrame({"x": [1, 0, np.nan, 0], "y": [0, 1, 0, 1]})
    display = MistakesDisplay.from_predictions(y, said[:, :2], images, label="x")
    assert display.mistakes["row"].tolist() == []
    assert display.axes_ == []
    display = MistakesDisplay.from_predictions(y, said[:, :2], images, label="y")
    assert display.mistakes["true"].tolist() == ["y", "y"]
    with pytest.raises(ValueError, match="label="):
        MistakesDisplay.from_predictions(y, said[:, :2], images)


def test_mistakes_of_a_pipeline_read_images_as_it_does(monkeypatch):
    phantoms = make_chest_phantoms(12, random_state=0)
    y = np.where(phantoms.target[:, 1] == 1, "effusion", "none")
    pipe = make_zero_shot_pipeline(
        {"none": "pleural effusion", "effusion": "no pleural effusion"},  # the reverse
        model="demo",
    ).fit(phantoms.images)
    asked = []
    monkeypatch.setattr(
        "sk_medsiglip.evaluation._mistakes_plot.read_image",
        lambda source, **kwargs: asked.append(kwargs) or read_image(source, **kwargs),
    )
    display = MistakesDisplay.from_estimator(pipe, phantoms.images, y, n_images=2)
    assert set(asked[0]) == {"intensity", "frame", "max_pixels"}
    wrong = pipe.predict(phantoms.images) != y
    assert wrong[display.mistakes["row"]].all()
    embeddings = MedSigLIPEmbedder("demo").transform(phantoms.images)
    with pytest.raises(ValueError, match="pass images="):
        MistakesDisplay.from_estimator(pipe[-1], embeddings, y)
    with pytest.raises(ValueError, match="3 images"):
        MistakesDisplay.from_estimator(
            pipe[-1], embeddings, y, images=phantoms.images[:3]
        )


# -------------------------------------------------------------------------- matplotlib


def test_nothing_is_drawn_without_matplotlib(monkeypatch, scored, by_sex):
    y, score, _ = scored
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    images = np.zeros((4, 8, 8), np.uint8)
    draws = [
        lambda: RocBandDisplay.from_predictions(y, score, n_bootstrap=5),
        lambda: PrecisionRecallBandDisplay.from_predictions(y, score, n_bootstrap=5),
        lambda: ReliabilityDisplay.from_predictions(y, score),
        lambda: DecisionCurveDisplay.from_predictions(y, score),
        lambda: SubgroupForestDisplay(by_sex).plot(),
        lambda: EmbeddingMapDisplay.from_embeddings(np.eye(4)),
        lambda: MistakesDisplay.from_predictions([0, 1, 0, 1], score[:4], images),
    ]
    for draw in draws:
        with pytest.raises(MissingDependencyError, match=r"sk-medsiglip\[plot\]"):
            draw()
