"""Conformal sets: the promise measured, the arithmetic by hand, sklearn's checks."""

import pickle
import warnings
from math import ceil

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.stats import t
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    cross_val_predict,
    cross_validate,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_medsiglip import (
    LinearProbe,
    MedSigLIPEmbedder,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.exceptions import LabelCodesWarning
from sk_medsiglip.zero_shot import ConformalZeroShot
from training.prompts import EVALUATION_PROMPTS

ALPHA = 0.1
N_SPLITS = 20

_PATIENTS = (
    "which patients learn and which calibrate is drawn, and repeats without groups are "
    "new patients; repeats of a patient's images: test_weights_are_repeats_of_images"
)
EXPECTED_FAILED_CHECKS = {
    "LogisticRegression": {
        "check_sample_weight_equivalence_on_dense_data": _PATIENTS,
        "check_sample_weight_equivalence_on_sparse_data": _PATIENTS,
    },
    "LinearProbe": {
        "check_sample_weight_equivalence_on_dense_data": _PATIENTS,
        "check_classifier_multioutput": (
            "classes_ of several labels has a row a label, as scikit-learn's scorers "
            "expect it; the check indexes it as one for all: "
            "test_several_findings_in_every_shape_that_classifiers_have"
        ),
    },
}


class Given(ClassifierMixin, BaseEstimator):
    """A classifier that learns nothing: its input is its probabilities."""

    def __init__(self, findings=None):
        self.findings = findings

    def fit(self, X, y=None):
        assert y is None, "labels that calibrate reached a classifier without need"
        self.classes_ = np.arange(np.shape(X)[1])
        if self.findings is not None:
            self.findings_ = np.array(self.findings)
            self.classes_ = np.tile([0, 1], (len(self.findings), 1))
        return self

    def predict_proba(self, X):
        return np.asarray(X)

    def predict(self, X):
        X = np.asarray(X)
        return (X > 0.5).astype(int) if self.findings is not None else X.argmax(1)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags


def mean_over_splits(estimator, X, y, groups, **params):
    """Return the mean report over splits, calibration and test of other patients."""
    fitted = FrozenEstimator(estimator.fit(X))
    reports = []
    splits = GroupShuffleSplit(N_SPLITS, test_size=0.5, random_state=0)
    for calibrate, test in splits.split(X, y, groups):
        conformal = ConformalZeroShot(fitted, alpha=ALPHA, **params)
        conformal.fit(X[calibrate], y[calibrate], groups=groups[calibrate])
        reports.append(conformal.coverage_report(X[test], y[test], groups=groups[test]))
    return sum(reports) / len(reports)


@pytest.mark.parametrize("conditional", ["none", "class"])
def test_findings_are_covered_over_splits(phantoms, phantom_vectors, conditional):
    clf = ZeroShotClassifier(EVALUATION_PROMPTS, model="demo")
    y, groups = phantoms.target, phantoms.groups
    assert list(EVALUATION_PROMPTS) == phantoms.target_names
    report = mean_over_splits(clf, phantom_vectors, y, groups, conditional=conditional)
    of_all = report.xs("any", level="truth")["coverage"]
    assert of_all.between(0.88, 0.92).all(), of_all
    assert 0.88 <= of_all.mean() <= 0.92
    present = report.xs(1, level="truth")["coverage"]
    if conditional == "class":
        assert present.between(0.86, 0.94).all(), present  # a quarter of the images
        assert 0.88 <= present.mean() <= 0.92
    else:  # what "class" is for
        assert present.max() < 0.85


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_an_exclusive_question_is_covered_over_splits(
    phantoms, phantom_vectors, method
):
    X, y, groups, prompts = exclusive_question(phantoms, phantom_vectors)
    clf = ZeroShotClassifier(prompts, model="demo")
    report = mean_over_splits(clf, X, y, groups, method=method, conditional="none")
    # "aps" always holds the likeliest class, so it may cover more than asked.
    assert 0.88 <= report.loc["any", "coverage"] <= 0.94
    if method == "aps":
        assert report.loc["any", "empty"] == 0


def exclusive_question(phantoms, phantom_vectors):
    """Return images with one finding at most, and which of them it is."""
    names = list(EVALUATION_PROMPTS)
    few = phantoms.target.sum(axis=1) <= 1
    y = np.where(
        phantoms.target.any(axis=1),
        np.array(names)[phantoms.target.argmax(axis=1)],
        "none",
    )
    prompts = {name: EVALUATION_PROMPTS[name]["positive"] for name in names}
    prompts["none"] = ["this radiograph demonstrates a normal chest"]
    return phantom_vectors[few], y[few], phantoms.groups[few], prompts


def test_patients_with_more_images_count_once():
    # The ill are imaged eight times as often, and are the hard ones.
    rng = np.random.default_rng(0)

    def draw(n_patients):
        hard = rng.random(n_patients) < 0.3
        patients = np.repeat(np.arange(n_patients), np.where(hard, 8, 1))
        p = np.clip(rng.normal(np.where(hard, 0.3, 0.8)[patients], 0.1), 0, 1)
        return np.column_stack([1 - p, p]), np.ones(len(p), int), patients

    X, y, patients = draw(2000)
    X_test, y_test, patients_test = draw(2000)
    once = ConformalZeroShot(Given(), conditional="none").fit(X, y, groups=patients)
    each = ConformalZeroShot(Given(), conditional="none").fit(X, y)

    def coverage(conformal):
        report = conformal.coverage_report(X_test, y_test, groups=patients_test)
        return report.loc["any", "coverage"]

    assert coverage(once) == pytest.approx(0.9, abs=0.01)
    assert coverage(each) > 0.95


def test_sets_are_the_classes_likely_enough():
    rng = np.random.default_rng(0)
    X = rng.dirichlet(np.ones(4), 60)
    y = rng.integers(0, 4, 60)
    conformal = ConformalZeroShot(Given(), alpha=0.3, conditional="none").fit(X, y)
    true_scores = np.sort(1 - X[np.arange(60), y])
    q = true_scores[ceil(61 * 0.7) - 1]
    np.testing.assert_array_equal(conformal.quantiles_, np.full(4, q))
    np.testing.assert_array_equal(conformal.n_calibration_, np.full(4, 60))
    np.testing.assert_array_equal(conformal.predict_set(X), 1 - X <= q)
    np.testing.assert_array_equal(conformal.predict(X), X.argmax(axis=1))
    np.testing.assert_array_equal(conformal.predict_proba(X), X)


def test_unknown_labels_are_left_out_of_their_finding():
    rng = np.random.default_rng(0)
    X = rng.random((200, 2))
    y = (rng.random((200, 2)) < X).astype(float)
    y[rng.random((200, 2)) < 0.4] = np.nan
    findings = ["effusion", "nodule"]
    both = ConformalZeroShot(Given(findings), conditional="class").fit(X, y)
    assert both.quantiles_.shape == both.n_calibration_.shape == (2, 2)
    for column in range(2):
        known = ~np.isnan(y[:, column])
        p = X[known, column]
        alone = ConformalZeroShot(Given(), conditional="class").fit(
            np.column_stack([1 - p, p]), y[known, column].astype(int)
        )
        np.testing.assert_array_equal(both.quantiles_[column], alone.quantiles_)
        np.testing.assert_array_equal(both.n_calibration_[column], alone.n_calibration_)
    sets = both.predict_set(X)
    assert sets.shape == (200, 2, 2)
    np.testing.assert_array_equal(sets[..., 1], 1 - X <= both.quantiles_[:, 1])
    report = both.coverage_report(X, y)
    assert report.loc[("nodule", "any"), "n"] == (~np.isnan(y[:, 1])).sum()
    # One label a sample may be unknown too, in any of the words for it.
    single = np.array([0, 1, None] * 40, dtype=object)
    p = rng.random(120)
    fitted = ConformalZeroShot(Given(), conditional="none").fit(
        np.column_stack([1 - p, p]), single
    )
    assert fitted.n_calibration_.tolist() == [80, 80]


def test_a_nullable_dataframe_of_labels_names_the_findings():
    rng = np.random.default_rng(0)
    X = rng.random((60, 2))
    y = pd.DataFrame((rng.random((60, 2)) < X).astype(int), columns=["a", "b"])
    nullable = y.astype("Int64")
    nullable.iloc[:20, 0] = pd.NA
    conformal = ConformalZeroShot(Given(["a", "b"]), conditional="none").fit(
        X, nullable
    )
    assert conformal.n_calibration_.tolist() == [[40, 40], [60, 60]]
    assert conformal.findings_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"y\[\['a', 'b'\]\]"):
        conformal.fit(X, y[["b", "a"]])


def test_too_few_patients_make_full_sets_and_say_how_many_are_needed():
    rng = np.random.default_rng(0)
    p = rng.random(30)
    X, y = np.column_stack([1 - p, p]), np.repeat([0, 1], [22, 8])
    with pytest.warns(UserWarning, match="9 labelled"):
        conformal = ConformalZeroShot(Given(), conditional="class").fit(X, y)
    assert np.isfinite(conformal.quantiles_[0])
    assert conformal.quantiles_[1] == np.inf
    assert conformal.predict_set(X)[:, 1].all()
    with pytest.warns(UserWarning, match=r"classes: 3\."):
        few = ConformalZeroShot(Given(), conditional="none").fit(
            X, y, groups=np.arange(30) // 10
        )
    assert few.predict_set(X).all()
    with pytest.warns(UserWarning, match=r"1: 0\."):
        ConformalZeroShot(Given(["a", "b"]), conditional="class").fit(
            np.column_stack([p, p]), np.column_stack([np.zeros(30), p > 0.5])
        )


def test_coverage_report_by_hand():
    rng = np.random.default_rng(0)
    p = rng.random(100)
    conformal = ConformalZeroShot(Given(), conditional="none").fit(
        np.column_stack([1 - p, p]), (rng.random(100) < p).astype(int)
    )
    conformal.quantiles_ = np.array([0.4, 0.6])  # absent from 0.6 on, present from 0.4
    present = np.array([0.9, 0.5, 0.1, 0.35, 0.55, 0.95])
    X = np.column_stack([1 - present, present])
    # Sets: {1}, {1}, {0}, {0}, {1}, {1}.
    y, patients = [1, 0, 0, 1, 1, 1], ["a", "a", "b", "c", "c", "c"]
    report = conformal.coverage_report(X, y, groups=patients)
    assert report.index.tolist() == ["any", 0, 1]
    any_class = report.loc["any"]
    # a: 1 of 2 is covered, b: 1 of 1, c: 2 of 3.
    assert any_class["coverage"] == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    assert (any_class["n"], any_class["n_patients"]) == (6, 3)
    assert (any_class["set_size"], any_class["single"]) == (1, 1)
    assert (any_class["empty"], any_class["full"]) == (0, 0)
    # Wilson's interval of shares that vary by .0648 over three patients.
    share = any_class["coverage"]
    n = share * (1 - share) / (np.var([1 / 2, 1, 2 / 3], ddof=1) / 3)
    for bound in any_class[["low", "high"]]:
        spread = t.ppf(0.975, 2) * np.sqrt(bound * (1 - bound) / min(3, n))
        assert abs(share - bound) == pytest.approx(spread)
    assert report.loc[0, "coverage"] == pytest.approx(1 / 2)
    one = conformal.coverage_report(X[:1], y[:1]).loc["any"]
    # One patient says nothing of others.
    assert one["coverage"] == 1
    assert np.isnan(one[["low", "high"]].astype(float)).all()
    assert np.isnan(conformal.coverage_report(X[:1], y[:1]).loc[0, "coverage"])


def test_no_patient_both_teaches_and_calibrates():
    seen = []

    class Watched(GaussianNB):
        def fit(self, X, y):
            seen.append(set(X[:, 0].astype(int)))
            return super().fit(X, y)

        def predict_proba(self, X):
            seen.append(set(X[:, 0].astype(int)))
            return super().predict_proba(X)

    rng = np.random.default_rng(0)
    patients = rng.integers(0, 60, 300)
    X = np.column_stack([patients, rng.normal(size=(300, 2))])
    y = (patients % 2 == 0).astype(float)
    y[::7] = np.nan
    ConformalZeroShot(Watched(), random_state=0, conditional="none").fit(
        X, y, groups=patients
    )
    taught, calibrated = seen
    assert not taught & calibrated
    assert taught | calibrated == set(patients[~np.isnan(y)].tolist())
    assert abs(len(taught) - len(calibrated)) <= 2
    seen.clear()
    ConformalZeroShot(Watched(), calibration_size=0.2, conditional="none").fit(
        X, y, groups=patients
    )
    assert len(seen[1]) == round(0.2 * (len(seen[0]) + len(seen[1])))


def test_labels_of_any_type_may_be_unknown_where_a_head_learns():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 2))
    X[::3] += 2
    for a, b in (("ill", "well"), (1, 0)):
        y = np.array([a, b, b] * 40, dtype=object)
        y[:30] = None
        conformal = ConformalZeroShot(LogisticRegression(), random_state=0)
        assert conformal.fit(X, y).classes_.tolist() == sorted([a, b])
        assert conformal.n_calibration_.sum() == 45
    nullable = pd.DataFrame(
        {"a": rng.integers(0, 2, 120), "b": rng.integers(0, 2, 120)}, dtype="Int64"
    )
    forest = ConformalZeroShot(RandomForestClassifier(3, random_state=0))
    assert forest.fit(X, nullable).findings_.tolist() == ["a", "b"]
    nullable.iloc[:20, 0] = pd.NA
    probe = ConformalZeroShot(LinearProbe(Cs=[0.1]), random_state=0)
    assert probe.fit(X, nullable).n_calibration_.sum() < 120


@pytest.mark.filterwarnings("ignore:alpha=:UserWarning")
def test_a_column_of_one_value_is_certain_to_a_forest():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 2)), np.zeros((80, 3))
    y[:, 0] = rng.random(80) < 0.5
    y[:, 2] = 1
    conformal = ConformalZeroShot(RandomForestClassifier(5, random_state=0))
    conformal.fit(X, y)
    assert conformal.predict_set(X).shape == (80, 3, 2)
    # What was never seen is in every set; what always was is in them too.
    assert conformal.predict_set(X)[:, 1:].all()
    other = FrozenEstimator(RandomForestClassifier(2).fit(X, y + 1))
    with pytest.raises(ValueError, match=r"\[1.0, 2.0\]"):
        ConformalZeroShot(other).fit(X, y)


def test_numbers_in_the_place_of_names_are_read_as_scikit_learn_means_them(
    phantoms, phantom_vectors
):
    X, y, _, prompts = exclusive_question(phantoms, phantom_vectors)
    names, codes = np.unique(y, return_inverse=True)
    clf = ZeroShotClassifier(prompts, model="demo")
    named = ConformalZeroShot(clf, conditional="none").fit(X, y)
    with pytest.warns(LabelCodesWarning, match="sorted order"):
        numbered = ConformalZeroShot(clf, conditional="none").fit(X, codes)
    np.testing.assert_array_equal(numbered.quantiles_, named.quantiles_)
    assert numbered.classes_.tolist() == list(range(len(names)))
    np.testing.assert_array_equal(names[numbered.predict(X)], named.predict(X))
    assert numbered.score(X, codes) == named.score(X, y)
    with pytest.warns(LabelCodesWarning):
        report = named.coverage_report(X, codes)
    pd.testing.assert_frame_equal(report, named.coverage_report(X, y))
    with pytest.warns(LabelCodesWarning):
        shares = cross_val_predict(named, X, y, cv=2, method="predict_proba")
    np.testing.assert_allclose(shares, named.predict_proba(X), atol=1e-6)
    with pytest.raises(ValueError, match="the labels"):
        named.fit(X, codes + 1)


def test_a_frozen_classifier_stays_and_zero_shot_is_fitted_anew(
    phantoms, phantom_vectors
):
    X, y = phantom_vectors, phantoms.target[:, 1]
    head = LogisticRegression(max_iter=1000).fit(X[:200], y[:200])
    kept = ConformalZeroShot(FrozenEstimator(head), conditional="none").fit(
        X[200:], y[200:]
    )
    np.testing.assert_array_equal(kept.predict_proba(X), head.predict_proba(X))
    clf = ZeroShotClassifier({"effusion": EVALUATION_PROMPTS["effusion"]}, model="demo")
    conformal = ConformalZeroShot(clf, conditional="none").fit(X, y)
    assert not hasattr(clf, "classes_")
    assert conformal.n_calibration_.tolist() == [400, 400]  # nobody was set aside
    learning = ConformalZeroShot(
        clone(clf).set_params(calibrate="temperature"),
        random_state=0,
        conditional="none",
    ).fit(X, y)
    assert learning.n_calibration_.tolist() == [200, 200]
    # What is scaled by the images that calibrate fits them better than others.
    scaled = ConformalZeroShot(
        make_pipeline(StandardScaler(), clf), conditional="none"
    ).fit(X, y)
    assert scaled.n_calibration_.tolist() == [200, 200]


def test_takes_images_in_a_pipeline(phantoms):
    pipe = make_zero_shot_pipeline(EVALUATION_PROMPTS, model="demo")
    images = list(phantoms.images[:40])
    conformal = ConformalZeroShot(pipe, alpha=0.2, conditional="none")
    conformal.fit(images, phantoms.target[:40], groups=phantoms.groups[:40])
    assert conformal.predict_set(images[:3]).shape == (3, 6, 2)
    assert conformal.findings_.tolist() == phantoms.target_names
    assert conformal.score(images, phantoms.target[:40]) > 0
    # A head that learns: the list is split too.
    head = make_pipeline(MedSigLIPEmbedder("demo"), LinearProbe(Cs=[0.1]))
    learned = ConformalZeroShot(head, alpha=0.4, random_state=0, conditional="none")
    learned.fit(images, phantoms.target[:40, 0], groups=phantoms.groups[:40])
    assert learned.predict_set(images[:3]).shape == (3, 2)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize(
    "head",
    [
        LinearProbe(Cs=[0.1]),
        OneVsRestClassifier(LogisticRegression(C=0.1)),
        RandomForestClassifier(20, random_state=0),
        make_pipeline(StandardScaler(), OneVsRestClassifier(GaussianNB())),
        MLPClassifier((8,), alpha=10, solver="lbfgs", max_iter=15, random_state=0),
    ],
    ids=lambda head: type(head).__name__,
)
def test_several_findings_in_every_shape_that_classifiers_have(
    phantoms, phantom_vectors, head
):
    y = pd.DataFrame(phantoms.target, columns=phantoms.target_names)
    conformal = ConformalZeroShot(head, random_state=0, conditional="none")
    conformal.fit(phantom_vectors[:300], y[:300], groups=phantoms.groups[:300])
    assert conformal.classes_.shape == conformal.quantiles_.shape == (6, 2)
    assert conformal.findings_.tolist() == phantoms.target_names
    assert conformal.predict_set(phantom_vectors[300:350]).shape == (50, 6, 2)
    report = conformal.coverage_report(
        phantom_vectors[300:], y[300:], groups=phantoms.groups[300:]
    )
    assert report.xs("any", level="truth")["coverage"].between(0.75, 1).all()


def test_groups_are_routed_and_reach_a_head_that_asks(phantoms, phantom_vectors):
    X, y, groups = (
        phantom_vectors[:200],
        phantoms.target[:200, 1],
        phantoms.groups[:200],
    )
    reached = []

    class Asking(LinearProbe):
        def fit(self, X, y, *, groups=None):
            reached.append((len(X), groups))
            return super().fit(X, y, groups=groups)

    with sklearn.config_context(enable_metadata_routing=True):
        conformal = ConformalZeroShot(
            Asking(Cs=[0.1]).set_fit_request(groups=True),
            alpha=0.3,
            random_state=0,
            conditional="none",
        ).set_fit_request(groups=True)
        cross_validate(
            conformal,
            X,
            y,
            cv=GroupKFold(3),
            params={"groups": groups},
            error_score="raise",
        )
    assert len(reached) == 3
    for n, of_head in reached:
        assert len(of_head) == n < 100
    reached.clear()
    ConformalZeroShot(Asking(Cs=[0.1]), random_state=0, conditional="none").fit(
        X, y, groups=groups
    )
    assert reached[0][1] is None  # without routing nothing travels


def test_keeps_the_contract_of_a_meta_estimator(phantoms, phantom_vectors):
    X = pd.DataFrame(phantom_vectors).add_prefix("e")
    y = phantoms.target[:, 1]
    head = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    conformal = ConformalZeroShot(head, random_state=0, conditional="none")
    conformal.set_params(estimator__logisticregression__C=0.5, alpha=0.2)
    assert clone(conformal).get_params()["estimator__logisticregression__C"] == 0.5
    conformal.fit(X, y)
    assert conformal.n_features_in_ == X.shape[1]
    assert conformal.feature_names_in_.tolist() == X.columns.tolist()
    again = pickle.loads(pickle.dumps(conformal))
    np.testing.assert_array_equal(again.predict_set(X), conformal.predict_set(X))
    assert hasattr(conformal, "decision_function")
    assert not hasattr(
        ConformalZeroShot(GaussianNB(), conditional="none"), "decision_function"
    )
    images = get_tags(
        ConformalZeroShot(
            make_zero_shot_pipeline(EVALUATION_PROMPTS), conditional="none"
        )
    )
    assert images.target_tags.required
    assert images.classifier_tags.multi_label
    conformal.set_params(estimator=Given(["a", "b"])).fit(
        np.random.default_rng(0).random((len(y), 2)), phantoms.target[:, :2]
    )
    conformal.set_params(estimator=GaussianNB()).fit(X, y)
    assert not hasattr(conformal, "findings_")


def test_errors_say_what_was_wrong():
    rng = np.random.default_rng(0)
    X = rng.dirichlet(np.ones(3), 30)
    y = rng.integers(0, 3, 30)
    for wrong, match in [
        (np.where(y == 0, -1, y), r"labels \[-1\].*replace\(-1, np.nan\)"),
        (y[:-1], "inconsistent numbers of samples"),
        (np.eye(3)[y], r"y has shape \(30, 3\).*one of the classes \[0, 1, 2\]"),
        (np.full(30, np.nan), "no known label"),
        (None, "requires y to be passed"),
        (y[:, None, None], "got shape"),
    ]:
        with pytest.raises(ValueError, match=match):
            ConformalZeroShot(Given(), conditional="none").fit(X, wrong)
    with pytest.raises(ValueError, match="'c'"):
        ConformalZeroShot(Given(["a", "b", "c"]), conditional="none").fit(X, y)
    with pytest.raises(ValueError, match="use method='lac'"):
        ConformalZeroShot(Given(["a", "b", "c"]), method="aps", conditional="none").fit(
            X, np.eye(3)[y]
        )
    with pytest.raises(TypeError, match="predict_proba"):
        ConformalZeroShot(LinearSVC(), conditional="none").fit(X, y)
    for wrong in [{"alpha": 0}, {"alpha": 1.0}, {"method": "raps"}, {"conditional": 1}]:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ConformalZeroShot(Given(), **wrong).fit(X, y)
    with pytest.raises(ValueError, match="29 ids"):
        ConformalZeroShot(Given(), conditional="none").fit(X, y, groups=y[:-1])
    with pytest.raises(ValueError, match="1 of"):
        ConformalZeroShot(Given()).fit(X, y, groups=[None, *range(29)])
    fitted = ConformalZeroShot(Given(), conditional="none").fit(X, y)
    with pytest.raises(ValueError, match="level"):
        fitted.coverage_report(X, y, level=95)
    findings = ConformalZeroShot(Given(["a", "b", "c"]))
    with pytest.raises(ValueError, match="-1.*replace"):
        findings.fit(X, -np.eye(3)[y])


@pytest.mark.filterwarnings("ignore:alpha=:UserWarning")  # the checks draw few samples
@parametrize_with_checks(
    [
        ConformalZeroShot(LogisticRegression(), conditional="none"),
        ConformalZeroShot(LinearProbe(Cs=[1.0]), conditional="class"),
    ],
    expected_failed_checks=lambda est: EXPECTED_FAILED_CHECKS.get(
        type(est.estimator).__name__, {}
    ),
    xfail_strict=True,
)
def test_passes_sklearn_checks(estimator, check):
    check(estimator)


def test_weights_are_repeats_of_images():
    rng = np.random.default_rng(0)
    p, y = rng.random(200), rng.integers(0, 2, 200)
    X, patients = np.column_stack([1 - p, p]), rng.integers(0, 60, 200)
    weight = rng.integers(0, 4, 200)
    rows = np.repeat(np.arange(200), weight)
    weighted = ConformalZeroShot(Given()).fit(
        X, y, sample_weight=weight, groups=patients
    )
    repeated = ConformalZeroShot(Given()).fit(X[rows], y[rows], groups=patients[rows])
    np.testing.assert_array_equal(weighted.quantiles_, repeated.quantiles_)
    np.testing.assert_array_equal(weighted.n_calibration_, repeated.n_calibration_)
    plain = ConformalZeroShot(Given()).fit(X, y, groups=patients)
    assert not np.array_equal(plain.quantiles_, weighted.quantiles_)


def test_weights_reach_a_classifier_that_learns():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    X, weight = rng.normal(size=(120, 3)) + y[:, None], rng.integers(1, 4, 120)
    settings = {"random_state": 0, "conditional": "none"}
    for head in (
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ):
        plain = ConformalZeroShot(head, **settings).fit(X, y)
        heavy = ConformalZeroShot(head, **settings).fit(X, y, sample_weight=weight)
        assert not np.allclose(plain.predict_proba(X), heavy.predict_proba(X))


def test_no_warning_where_there_are_enough():
    p = np.linspace(0, 1, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConformalZeroShot(Given(), conditional="none").fit(
            np.column_stack([1 - p, p]), np.arange(9) % 2
        )
