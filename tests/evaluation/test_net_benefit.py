"""Net benefit against dcurves, predictive values by hand, calibration by GLM."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm, t

from sk_medsiglip.evaluation import (
    DecisionCurveDisplay,
    _answers,
    _calibration,
    _figures,
    evaluate,
    net_benefit,
)

THRESHOLDS = [0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 0.99]


@pytest.fixture
def risks():
    """Labels, probabilities with ties at the thresholds, and patients of 1 to 4."""
    rng = np.random.default_rng(0)
    said = expit(1.5 * rng.normal(size=300) - 1).round(2)
    y = (rng.random(300) < said).astype(int)
    return y, said, np.sort(rng.integers(0, 150, 300))


def values(table, strategy):
    return table.loc[table["strategy"] == strategy, "value"].to_numpy()


# -------------------------------------------------------------------------- net benefit


@pytest.mark.parametrize("prevalence", [None, 0.04, 0.6])
def test_net_benefit_is_that_of_dcurves(risks, prevalence):
    from dcurves import dca

    y, said, patients = risks
    table = net_benefit(
        y, said, thresholds=THRESHOLDS, prevalence=prevalence, groups=patients
    )
    frame = pd.DataFrame({"y": y, "model": said})
    theirs = dca(
        frame, "y", ["model"], thresholds=np.array(THRESHOLDS), prevalence=prevalence
    ).set_index("model")
    names = {"model": "model", "all": "treat all", "none": "treat none"}
    for name, own in names.items():
        np.testing.assert_allclose(
            values(table, own), theirs.loc[name, "net_benefit"], rtol=0, atol=1e-9
        )
    spared = theirs.loc["model", "net_intervention_avoided"].to_numpy()[1:]
    odds = np.array(THRESHOLDS)[1:] / (1 - np.array(THRESHOLDS)[1:])
    gain = values(table, "model - treat all")[1:]
    np.testing.assert_allclose(gain / odds, spared, rtol=0, atol=1e-9)


def test_thresholds_are_those_of_dcurves_from_the_first_percent(risks):
    from dcurves import dca

    y, said, _ = risks
    frame = pd.DataFrame({"y": y, "model": said})
    theirs = dca(frame, "y", ["model"]).query("model == 'model' and threshold > 0")
    table = net_benefit(y, said).query("strategy == 'model'")
    np.testing.assert_allclose(table["threshold"], theirs["threshold"], atol=1e-15)
    np.testing.assert_allclose(table["value"], theirs["net_benefit"], atol=1e-9)


def test_each_finding_where_it_is_known(risks):
    y, said, patients = risks
    Y = pd.DataFrame({"one": y, "two": 1 - y}).astype(float)
    Y.iloc[::3, 0] = np.nan
    S = pd.DataFrame({"one": said, "two": 1 - said})
    table = net_benefit(Y, S, thresholds=[0.2], groups=patients)
    known = Y["one"].notna().to_numpy()
    alone = net_benefit(y[known], said[known], thresholds=[0.2], groups=patients[known])
    columns = ["strategy", "value", "low", "high", "n", "n_positive"]
    pd.testing.assert_frame_equal(table[columns][:4], alone[columns])
    assert table["label"].tolist() == ["one"] * 4 + ["two"] * 4


def test_bands_have_a_width_where_resamples_have_none():
    y = np.repeat([1, 0], [20, 80])
    table = net_benefit(y, np.where(y, 0.9, 0.1), thresholds=[0.5, 0.95])
    model = table[table["strategy"] == "model"].reset_index()
    # Nobody is acted on in vain; then nobody at all.
    assert model["value"].tolist() == [0.2, 0.0]
    assert (model["high"] - model["low"] > 0.02).all()
    none = table[table["strategy"] == "treat none"]
    assert none["low"].isna().all()
    known = net_benefit(y, np.where(y, 0.9, 0.1), thresholds=[0.5], prevalence=0.1)
    assert np.isnan(known.set_index("strategy").loc["treat all", "low"])


def test_bands_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    q = expit(1.5 * rng.normal(size=10**6) - 1.4)
    truth = (q * (q >= 0.2) - 0.25 * (1 - q) * (q >= 0.2)).mean()
    spared = (0.25 * (1 - q) * (q < 0.2) - q * (q < 0.2)).mean()
    patients = np.repeat(np.arange(50), 2)
    inside = np.zeros(2)
    for _ in range(300):
        # Images of a patient are alike, in what is said and in what is there.
        z, u = rng.normal(size=(2, 50)).repeat(2, axis=1) * 0.8
        z, u = z + 0.6 * rng.normal(size=100), u + 0.6 * rng.normal(size=100)
        said = expit(1.5 * z - 1.4)
        table = net_benefit(
            norm.cdf(u) < said, said, thresholds=[0.2], groups=patients
        ).set_index("strategy")
        for k, (name, true) in enumerate(
            {"model": truth, "model - treat all": spared}.items()
        ):
            inside[k] += table.loc[name, "low"] <= true <= table.loc[name, "high"]
    assert (inside / 300 >= 0.91).all(), inside
    assert (inside / 300 <= 0.99).all(), inside


@pytest.mark.parametrize(
    ("y", "said", "params", "message"),
    [
        ([0, 1, 1], [0.1, 2.5, -1], {}, "predict_proba"),
        ([0, 0, 0], [0.1, 0.2, 0.3], {}, "images of one kind only.*leave the finding"),
        ([0, 1], [0.1, 0.2], {"thresholds": [0.5, 1]}, "from 0 to below 1"),
        ([0, 1], [0.1, 0.2], {"thresholds": 0.5}, "must be a list"),
        ([0, 1], [0.1, 0.2], {"thresholds": [np.nan]}, "from 0 to below 1"),
        ([0, 1], [0.1, 0.2], {"prevalence": 5}, "0.05 for 5%"),
        ([0, 1], [[0.9, 0.1], [0.1, 0.9]], {}, "probability of the second class"),
        ([0, 1], [0.1, np.nan], {}, "hold NaN"),
        ([0, 1], [0.1, 0.2], {"groups": ["a"]}, "1 ids for 2"),
        ([0, 1], [0.1, 0.2], {"level": 95}, "level"),
    ],
)
def test_net_benefit_says_what_is_wrong(y, said, params, message):
    with pytest.raises(ValueError, match=message):
        net_benefit(y, said, **params)


# ------------------------------------------------------------------- predictive values


def estimate(metric, y, flagged):
    rows = np.arange(len(y))
    question = _answers.Question(None, rows, y == 1, flagged, flagged == 1, None)
    once = np.ones((1, len(y)), np.int32)
    return _figures.estimates(question, once, (metric,), rows)[metric]


def test_predictive_values_are_those_of_bayes():
    y = np.repeat([1, 0], [50, 200])
    flagged = np.r_[np.ones(40), np.zeros(10), np.ones(30), np.zeros(170)]
    ppv = estimate("ppv@prevalence=0.02", y, flagged)
    npv = estimate("npv@prevalence=0.02", y, flagged)
    assert ppv.value == pytest.approx(0.8 * 0.02 / (0.8 * 0.02 + 0.15 * 0.98))
    assert npv.value == pytest.approx(0.85 * 0.98 / (0.85 * 0.98 + 0.2 * 0.02))
    # At the prevalence of the images they are the shares that one counts.
    assert estimate("ppv@prevalence=0.2", y, flagged).value == pytest.approx(40 / 70)
    assert estimate("npv@prevalence=0.2", y, flagged).value == pytest.approx(170 / 180)
    for one in (ppv, npv):
        low, high, _ = one.interval()
        assert 0 < low < one.value < high < 1


def test_predictive_values_of_decisions_without_an_error():
    y = np.repeat([1, 0], [20, 30])
    perfect, empty = y, np.zeros(50)
    ppv = estimate("ppv@prevalence=0.1", y, perfect)
    low, high, _ = ppv.interval()
    assert ppv.value == high == 1
    assert 0.2 < low < 0.9  # three false alarms a hundred are not ruled out
    assert np.isnan(estimate("ppv@prevalence=0.1", y, empty).value)
    npv = estimate("npv@prevalence=0.1", y, empty)
    assert npv.value == pytest.approx(0.9)
    wrong = estimate("ppv@prevalence=0.1", y, 1 - y)
    assert wrong.value == wrong.interval().low == 0 < wrong.interval().high < 1


# -------------------------------------------------------------------- calibration line


def test_calibration_line_is_that_of_a_glm(risks):
    from statsmodels.api import GLM, add_constant, families

    y, said, _ = risks
    said = np.clip(expit(2 * logit(np.clip(said, 0.01, 0.99)) + 0.4), 1e-6, 1 - 1e-6)
    found = _calibration.calibration_line(y == 1, said, np.arange(300), 300)
    x = logit(said)
    line = GLM(y, add_constant(x), family=families.Binomial()).fit(tol=1e-12)
    large = GLM(y, np.ones(300), offset=x, family=families.Binomial()).fit(tol=1e-12)
    assert found["calibration_slope"].value == pytest.approx(line.params[1], abs=1e-8)
    assert found["calibration_intercept"].value == pytest.approx(
        large.params[0], abs=1e-8
    )
    # Of many independent images the interval is that of the model's own variance.
    low, high, _ = found["calibration_slope"].interval()
    assert high - low == pytest.approx(2 * 1.96 * line.bse[1], rel=0.15)


def test_variance_leaves_out_one_patient_at_a_time(risks):
    y, said, patients = risks
    ids = np.unique(patients, return_inverse=True)[1]
    said = np.clip(said, 0.02, 0.98)
    found = _calibration.calibration_line(y == 1, said, ids, ids.max() + 1)
    without = [
        _calibration.calibration_line(
            (y == 1)[keep], said[keep], ids[keep], ids.max() + 1
        )
        for keep in (ids != one for one in range(ids.max() + 1))
    ]
    fewer = min(len(np.unique(ids[y == kind])) for kind in (0, 1))
    for name, one in found.items():
        moved = one.value - np.array([w[name].value for w in without])
        error = np.sqrt((1 - 1 / len(moved)) * (moved**2).sum())
        low, high, _ = one.interval()
        # One step towards the line without a patient, not all the way.
        assert high - low == pytest.approx(
            2 * t.ppf(0.975, fewer - 1) * error, rel=0.02
        )
        assert np.corrcoef(one.influence, moved)[0, 1] > 0.999


@pytest.mark.parametrize("n_patients", [30, 80])
def test_calibration_intervals_hold_the_truth(n_patients):
    from statsmodels.api import GLM, families

    rng = np.random.default_rng(1)
    q = expit(1.5 * rng.normal(size=10**6) - 1)
    x = logit(q) / 0.6  # too extreme: the slope is 0.6
    large = GLM(q, np.ones(len(q)), offset=x, family=families.Binomial()).fit()
    truth = {"calibration_slope": 0.6, "calibration_intercept": large.params[0]}
    patients = np.repeat(np.arange(n_patients), 2)
    inside = {name: [] for name in truth}
    for _ in range(250):
        z, u = rng.normal(size=(2, n_patients)).repeat(2, axis=1) * 0.7
        z, u = (one + np.sqrt(0.51) * rng.normal(size=len(one)) for one in (z, u))
        q = expit(1.5 * z - 1)
        found = _calibration.calibration_line(
            norm.cdf(u) < q, expit(logit(q) / 0.6), patients, n_patients
        )
        for name, true in truth.items():
            low, high, _ = found[name].interval()
            if not np.isnan(low):
                inside[name].append(low <= true <= high)
    for name, one in inside.items():
        assert len(one) > 240, name
        assert 0.91 <= np.mean(one) <= 0.995, name


def test_there_is_no_slope_without_an_overlap():
    y = np.repeat([True, False], 10)
    who = np.arange(20)
    apart = _calibration.calibration_line(y, np.where(y, 0.8, 0.3), who, 20)
    assert np.isnan(apart["calibration_slope"].value)
    assert not np.isnan(apart["calibration_intercept"].interval().low)
    alike = _calibration.calibration_line(y, np.full(20, 0.25), who, 20)
    assert np.isnan(alike["calibration_slope"].value)
    # Half of them, where a quarter was said.
    assert alike["calibration_intercept"].value == pytest.approx(np.log(3))
    one_kind = _calibration.calibration_line(
        np.ones(20, bool), np.linspace(0.1, 0.9, 20), who, 20
    )
    assert all(np.isnan(one.value) for one in one_kind.values())
    one_patient = _calibration.calibration_line(
        y, np.linspace(0.1, 0.9, 20), who * 0, 20
    )
    assert np.isnan(one_patient["calibration_intercept"].interval().low)
    assert one_patient["calibration_intercept"].interval().note == "1 patient of a kind"


def test_certain_probabilities_have_a_line(risks):
    y, said, _ = risks
    sure = (said > 0.5).astype(float)  # 0 and 1, and often wrong
    found = _calibration.calibration_line(y == 1, sure, np.arange(300), 300)
    assert 0 < found["calibration_slope"].value < 0.3
    assert np.isfinite(found["calibration_intercept"].value)


# ---------------------------------------------------------------------- decision curve


@pytest.fixture
def agg():
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    matplotlib.use("Agg")
    yield
    from matplotlib import pyplot

    pyplot.close("all")


def test_decision_curve_draws_net_benefit_per_hundred(agg, risks):
    y, said, patients = risks
    display = DecisionCurveDisplay.from_predictions(
        y, said, thresholds=THRESHOLDS[1:], groups=patients, name="probe"
    )
    table = net_benefit(y, said, thresholds=THRESHOLDS[1:], groups=patients)
    np.testing.assert_allclose(display.line_.get_ydata(), 100 * values(table, "model"))
    every, none, own = display.ax_.get_lines()
    np.testing.assert_allclose(every.get_ydata(), 100 * values(table, "treat all"))
    assert set(none.get_ydata()) == {0}
    names = [one.get_text() for one in display.ax_.get_legend().get_texts()]
    assert names == ["treat all", "treat none", "probe"]
    assert display.ax_.get_ylabel() == "net benefit per 100 images"
    second = DecisionCurveDisplay.from_predictions(
        y, said**2, thresholds=THRESHOLDS[1:], ax=display.ax_
    )
    assert len(display.ax_.get_lines()) == 4  # both grey lines once
    assert second.line_.get_color() != own.get_color()


def test_decision_curve_of_an_estimator_and_of_one_class(agg, risks):
    from sklearn.linear_model import LogisticRegression

    y, said, _ = risks
    named = np.array(["healthy", "ill", "old"])[y + (said > 0.6) * (1 - y)]
    X = said[:, None]
    clf = LogisticRegression().fit(X, named)
    display = DecisionCurveDisplay.from_estimator(
        clf, X, named, label="ill", groups=np.arange(300)
    )
    alone = net_benefit(named == "ill", clf.predict_proba(X)[:, 1])
    pd.testing.assert_frame_equal(display.table, alone)
    assert display.ax_.get_ylabel() == "net benefit per 100 patients"
    assert display.ax_.get_title().startswith("ill; band: 95%")


def test_decision_curve_needs_probabilities(agg, risks):
    y, said, _ = risks
    with pytest.raises(ValueError, match="Calibrate"):
        DecisionCurveDisplay.from_predictions(y, logit(said.clip(0.01, 0.99)))


# ---------------------------------------------------------------------------- evaluate


def test_evaluate_has_them_for_findings_with_blanks(risks):
    y, said, patients = risks
    Y = pd.DataFrame({"one": y, "two": 1 - y}).astype(float)
    Y.iloc[::3, 1] = np.nan
    S = np.column_stack([said, 1 - said])
    table = evaluate(
        {"a": S, "b": S**2}, Y, Y, groups=patients, n_bootstrap=2,
        metrics=["net_benefit@threshold=0.2", "calibration_slope", "true_positives",
                 "ppv@prevalence=0.02"],
    )  # fmt: skip
    figure = table.set_index(["estimator", "label", "metric"])
    for name in Y:
        known = Y[name].notna().to_numpy()
        own = net_benefit(
            Y[name][known], S[known, Y.columns.get_loc(name)], thresholds=[0.2],
            groups=patients[known],
        ).iloc[0]  # fmt: skip
        row = figure.loc[("a", name, "net_benefit@threshold=0.2")]
        np.testing.assert_allclose(
            row[["value", "low", "high"]].astype(float),
            own[["value", "low", "high"]].astype(float),
        )
    hits = ((said > 0.5) & (y == 1)).sum()
    counts = figure.loc[("a", "one", "true_positives")]
    assert counts["value"] == hits
    assert counts["note"] == "no interval: a count"
    # Squared probabilities are twice as extreme where they are small.
    gap = figure.loc[("a - b", "one", "calibration_slope")]
    assert 0 < gap["low"] < gap["value"]
    assert gap["p_value"] < 0.05
    with pytest.raises(ValueError, match="'ppv@prevalence=0.02'"):
        evaluate(S, Y, Y, metrics="ppv@prevalence=2")


def test_figures_by_patient_are_those_of_the_highest_score(risks):
    y, said, patients = risks
    table = evaluate(
        said, y, y, groups=patients, by_patient="max", n_bootstrap=2,
        metrics=["roc_auc", "sensitivity", "brier"],
    )  # fmt: skip
    frame = pd.DataFrame({"y": y, "said": said}).groupby(patients).max()
    alone = evaluate(
        frame["said"], frame["y"], frame["y"].to_numpy(), groups=frame.index,
        metrics=["roc_auc", "sensitivity", "brier"], n_bootstrap=2,
    )  # fmt: skip
    own = table[table["subgroup"] == "patients (max)"].reset_index()
    columns = ["value", "n", "n_positive"]
    pd.testing.assert_frame_equal(own[columns], alone[columns])
    auc = ["low", "high"]
    np.testing.assert_allclose(own.loc[0, auc].tolist(), alone.loc[0, auc].tolist())


def test_by_patient_with_means_needs_half_of_the_images():
    y = np.array([1, 0, 1, 1, 0, 0])
    said = np.array([0.9, 0.2, 0.6, 0.3, 0.1, 0.7])
    table = evaluate(
        said, y, y, groups=[1, 1, 2, 2, 2, 3], by_patient="mean", n_bootstrap=2,
        metrics=["true_positives", "false_positives", "brier"],
    ).query("subgroup == 'patients (mean)'")  # fmt: skip
    brier = np.mean((np.array([1, 1, 0]) - [0.55, 1 / 3, 0.7]) ** 2)
    assert table["value"].tolist() == pytest.approx([0, 1, brier])


@pytest.mark.parametrize(
    ("how", "groups"), [("median", [1, 1, 2]), ("max", None), (True, [1, 1, 2])]
)
def test_by_patient_says_what_it_needs(how, groups):
    with pytest.raises(ValueError, match="by_patient"):
        evaluate([0.1, 0.5, 0.9], [0, 0, 1], [0, 0, 1], groups=groups, by_patient=how)
