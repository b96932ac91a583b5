"""``HeadSearchCV`` over the user's own estimators, spaces and scores."""

import functools
import os

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import sklearn
from optuna.distributions import FloatDistribution
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sk_medsiglip import LinearProbe
from sk_medsiglip._scoring import Answers
from sk_medsiglip.model_selection import EachLabel, HeadSearchCV
from sk_medsiglip.model_selection._head_scores import LabelwiseScorer, mean_auc

C = {"C": FloatDistribution(0.01, 10.0, log=True)}


@pytest.fixture(scope="module")
def made_up():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return rng.normal(size=(90, 6)) + 1.5 * np.eye(6)[y], y


@pytest.fixture(scope="module")
def findings():
    """Return rows, two findings that are not always known, and patients."""
    rng = np.random.default_rng(1)
    X = rng.normal(size=(120, 5))
    Y = (X[:, :2] + 0.5 * rng.normal(size=(120, 2)) > 0.3).astype(float)
    Y[rng.random(Y.shape) < 0.25] = np.nan
    return X, pd.DataFrame(Y, columns=["effusion", "device"]), np.arange(120) // 2


# --- several labels ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "space"),
    [
        (LogisticRegression(), C),
        (
            make_pipeline(StandardScaler(), LogisticRegression()),
            {"logisticregression__C": [0.1, 1.0]},
        ),
        (None, lambda trial: RandomForestClassifier(10, random_state=0)),
        (None, lambda trial: CalibratedClassifierCV(LogisticRegression(), cv=2)),
    ],
    ids=["dict", "pipeline", "forest", "calibrated"],
)
def test_any_classifier_learns_each_label_where_it_is_known(estimator, space, findings):
    X, Y, patients = findings
    search = HeadSearchCV(
        estimator, space=space, n_trials=2, cv=3, error_score="raise", random_state=0
    ).fit(X, Y, groups=patients)
    assert isinstance(search.best_estimator_, EachLabel)
    assert search.predict_proba(X).shape == search.predict(X).shape == (120, 2)
    known = Y["effusion"].notna().to_numpy()
    alone = clone(search.best_estimator_.estimator)
    alone.fit(X[known], Y["effusion"][known].astype(int))
    np.testing.assert_allclose(
        search.predict_proba(X)[:, 0], alone.predict_proba(X)[:, 1]
    )
    assert search.best_score_ > 0.8
    tags = search.__sklearn_tags__()
    assert tags.classifier_tags.multi_label
    assert tags.target_tags.multi_output


def test_what_takes_several_labels_is_left_alone(findings):
    X, Y, _ = findings
    for made in [LinearProbe([1.0]), EachLabel(LogisticRegression())]:
        search = HeadSearchCV(space=lambda trial, made=made: clone(made), n_trials=1)
        assert type(search.fit(X, Y).best_estimator_) is type(made)
    whole = Y.fillna(0).astype(int)
    search = HeadSearchCV(
        MultiOutputClassifier(LogisticRegression()),
        space={"estimator__C": [0.1, 1.0]},
        n_trials=2,
    ).fit(X, whole)
    assert isinstance(search.best_estimator_, MultiOutputClassifier)
    assert search.best_score_ > 0.8


def test_a_label_of_one_value_in_training_is_no_certainty():
    """Of such a label scikit-learn's estimators list one column, of that value."""
    X = np.arange(8.0)[:, None]
    Y = np.array([[0, 0], [0, 0], [1, 0], [1, 0]] * 2)
    both = MultiOutputClassifier(RandomForestClassifier(3, random_state=0)).fit(X, Y)
    assert [one.shape[1] for one in both.predict_proba(X)] == [2, 1]
    truth = np.array([[0, 0], [0, 1], [1, 0], [1, 0]] * 2)
    area = roc_auc_score(truth[:, 0], both.predict_proba(X)[0][:, 1])
    assert mean_auc(both, X, truth) == pytest.approx((area + 0.5) / 2)
    brier = LabelwiseScorer(get_scorer("neg_brier_score"))(both, X, truth)
    of_first = np.mean((both.predict_proba(X)[0][:, 1] - truth[:, 0]) ** 2)
    assert brier == pytest.approx(-(of_first + 0.25) / 2)


# --- groups -----------------------------------------------------------------------


class Spy(LogisticRegression):
    """Notes how many rows it was fitted to, and of whom."""

    seen = []  # noqa: RUF012

    def fit(self, X, y):
        Spy.seen.append(X[:, -1].copy())
        return super().fit(X, y)


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda head, cv: GridSearchCV(head, {"C": [0.1, 1.0]}, cv=cv),
        lambda head, cv: CalibratedClassifierCV(head, cv=cv),
        lambda head, cv: make_pipeline(
            StandardScaler().set_output(transform=None),
            GridSearchCV(head, {"C": [0.1, 1.0]}, cv=cv),
        ),
    ],
    ids=["grid", "calibrated", "pipeline"],
)
def test_groups_reach_folds_that_ask_for_them(routing, wrap, findings):
    X, Y, patients = findings
    y = (X[:, 0] > 0).astype(int)
    marked = np.column_stack([X, patients])
    for target in (y, Y):
        Spy.seen = []
        with sklearn.config_context(enable_metadata_routing=routing):
            search = HeadSearchCV(
                space=lambda trial: wrap(Spy(), GroupKFold(3)),
                n_trials=1, cv=2, error_score="raise",
            ).fit(marked, target, groups=patients)  # fmt: skip
        assert search.best_score_ > 0.5
        # Two images a patient: whoever is torn apart is there once.
        if target is y:
            for rows in Spy.seen:
                _, counts = np.unique(rows, return_counts=True)
                assert (counts == 2).all()
        assert len(Spy.seen) > 6


def test_folds_that_ask_for_no_groups_get_none(findings):
    X, _, patients = findings
    y = (X[:, 0] > 0).astype(int)
    for made in [
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=StratifiedKFold(3)),
        AdaBoostClassifier(n_estimators=2),  # says that it cannot route anything
    ]:
        search = HeadSearchCV(
            space=lambda trial, made=made: clone(made), n_trials=1, error_score="raise"
        )
        assert search.fit(X, y, groups=patients).best_score_ > 0.8


def test_each_label_hands_groups_on(findings):
    X, Y, patients = findings
    head = EachLabel(
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=GroupKFold(3))
    )
    assert head.fit(X, Y, groups=patients).predict(X).shape == (120, 2)
    with pytest.raises(ValueError, match="groups"):
        head.fit(X, Y)
    probes = EachLabel(LinearProbe()).fit(X, Y, groups=patients)
    known = Y["device"].notna().to_numpy()
    alone = LinearProbe().fit(
        X[known], Y["device"][known].astype(int), groups=patients[known]
    )
    np.testing.assert_allclose(probes.estimators_[1].coef_, alone.coef_)


# --- spaces -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[0.1, 1.0], (0.1, 1.0), np.array([0.1, 1.0]), np.float64([0.1, 1.0])]
)
def test_a_list_is_one_of_its_values(values, made_up):
    search = HeadSearchCV(
        LogisticRegression(), space={"C": values}, n_trials=6, random_state=0
    )
    search.fit(*made_up)
    tried = {params["C"] for params in search.cv_results_["params"]}
    assert tried == {0.1, 1.0}
    assert all(type(one) is float for one in tried)
    mixed = {"class_weight": [None, "balanced"], "max_iter": range(100, 102)}
    HeadSearchCV(LogisticRegression(), space=mixed, n_trials=2).fit(*made_up)


@pytest.mark.parametrize(
    ("estimator", "space", "match"),
    [
        (
            LogisticRegression(),
            {"C": scipy.stats.loguniform(0.1, 1)},
            "space: 'C' must",
        ),
        (LogisticRegression(), {"C": 1.0}, "must be a list of values or one of Optuna"),
        (LogisticRegression(), {"C": "auto"}, "got 'auto'"),
        (LogisticRegression(), {"C": []}, "'C' lists no value"),
        (
            MLPClassifier(),
            {"hidden_layer_sizes": [(8,), (16,)]},
            r"'hidden_layer_sizes' lists \(8,\).*a function of a trial",
        ),
    ],
)
def test_what_is_no_space_is_refused_before_any_trial(estimator, space, match, made_up):
    with pytest.raises((TypeError, ValueError), match=match):
        HeadSearchCV(estimator, space=space).fit(*made_up)


def test_a_list_in_a_storage_is_gone_on_with(made_up, tmp_path):
    search = HeadSearchCV(
        LogisticRegression(), space={"C": np.array([0.1, 1.0])},
        n_trials=2, storage=tmp_path / "t.journal",
    )  # fmt: skip
    search.fit(*made_up)
    again = clone(search).set_params(space={"C": (0.1, 1.0)}, n_trials=3)
    assert len(again.fit(*made_up).cv_results_["params"]) == 3
    with pytest.raises(ValueError, match="begun with other space"):
        clone(search).set_params(space={"C": [0.1, 2.0]}).fit(*made_up)


# --- scores -----------------------------------------------------------------------


def fails_at_some(trial):
    return LogisticRegression(C=trial.suggest_categorical("C", [-1.0, 1.0]))


@pytest.mark.parametrize("error_score", [0, 0.25, -1.0])
def test_a_number_is_what_a_failed_trial_counts_as(error_score, made_up):
    search = HeadSearchCV(
        space=fails_at_some, n_trials=8, random_state=0, error_score=error_score
    )
    match = f"of 8 trials failed and count as {error_score}"
    with pytest.warns(FitFailedWarning, match=match):
        search.fit(*made_up)
    results = search.cv_results_
    failed = results["state"] == "failed"
    assert failed.any()
    assert (results["mean_test_score"][failed] == error_score).all()
    assert (results["split4_test_score"][failed] == error_score).all()
    assert np.isnan(results["mean_fit_time"][failed]).all()
    assert np.isfinite(results["mean_test_score"]).all()
    assert search.best_params_ == {"C": 1.0}
    hopeless = HeadSearchCV(
        space=lambda trial: LogisticRegression(C=-1), n_trials=2, error_score=0
    )
    with pytest.raises(ValueError, match="scored"):
        hopeless.fit(*made_up)


def test_weights_of_rows_where_a_label_is_not_known(findings):
    X, Y, _ = findings
    weight = np.random.default_rng(2).random(len(X))
    for scoring in (None, "roc_auc", "neg_log_loss"):
        search = HeadSearchCV(
            space=["logistic"], n_trials=1, cv=2, scoring=scoring
        ).fit(X, Y)
        found = search.score(X, Y, sample_weight=weight)
        scorer = get_scorer(scoring or "roc_auc")
        logits = search.decision_function(X)
        expected = []
        for i, name in enumerate(Y.columns):
            known = Y[name].notna().to_numpy()
            answers = Answers.of_logits(np.array([0, 1]), logits[known, i : i + 1])
            truth = Y[name][known].astype(int)
            expected.append(
                scorer(answers, X[known], truth, sample_weight=weight[known])
            )
        assert found == pytest.approx(np.mean(expected))
        assert found != pytest.approx(search.score(X, Y))


def test_labels_in_another_order_are_refused(findings):
    X, Y, _ = findings
    search = HeadSearchCV(space=["logistic"], n_trials=1, cv=2).fit(X, Y)
    assert search.label_names_.tolist() == ["effusion", "device"]
    with pytest.raises(ValueError, match=r"Pass y\[\['effusion', 'device'\]\]"):
        search.score(X, Y[["device", "effusion"]])
    assert search.score(X, Y) == search.score(X, Y.to_numpy())
    assert not hasattr(search.fit(X, Y.to_numpy()), "label_names_")


def area(estimator, X, y, *, power=1):
    return get_scorer("roc_auc_ovr")(estimator, X, y) ** power


class Area:
    """A score that says nothing of itself."""

    def __init__(self, power):
        self.power = power

    def __call__(self, estimator, X, y):
        return area(estimator, X, y, power=self.power)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (
            functools.partial(area, power=2),
            functools.partial(area, power=2),
            functools.partial(area, power=3),
        ),
        (Area(2), Area(2), Area(3)),
        (area, area, "roc_auc_ovr"),
        (
            make_scorer(functools.partial(roc_auc_score, multi_class="ovr"),
                        response_method="predict_proba"),
            make_scorer(functools.partial(roc_auc_score, multi_class="ovr"),
                        response_method="predict_proba"),
            make_scorer(functools.partial(roc_auc_score, multi_class="ovo"),
                        response_method="predict_proba"),
        ),
    ],
    ids=["partial", "object", "function", "scorer"],
)  # fmt: skip
def test_a_search_is_known_again_by_its_score(one, same, other, made_up, tmp_path):
    search = HeadSearchCV(
        space=["prototypes"], n_trials=1, cv=2, storage=tmp_path / "t.journal"
    )
    clone(search).set_params(scoring=one).fit(*made_up)
    clone(search).set_params(scoring=same).fit(*made_up)
    with pytest.raises(ValueError, match="begun with other scoring"):
        clone(search).set_params(scoring=other).fit(*made_up)


def make_head(trial, width):
    return LogisticRegression(C=trial.suggest_float("C", 0.1, width))


def test_a_search_is_known_again_by_its_function(made_up, tmp_path):
    search = HeadSearchCV(n_trials=1, cv=2, storage=tmp_path / "t.journal")
    for _ in range(2):
        space = functools.partial(make_head, width=1.0)
        clone(search).set_params(space=space).fit(*made_up)
    with pytest.raises(ValueError, match="begun with other space"):
        search.set_params(space=functools.partial(make_head, width=2.0)).fit(*made_up)


# --- what is too few --------------------------------------------------------------


def test_what_is_too_rare_is_named(findings):
    X, Y, patients = findings
    search = HeadSearchCV(space=["prototypes"], n_trials=1)
    named = np.array(["NA"] + ["ill", "well"] * 59 + ["ill"])
    with pytest.raises(ValueError, match="'NA'"):
        search.fit(X, named)
    rare = Y.copy()
    rare["device"] = np.where(patients == 3, 1.0, 0.0)
    with pytest.raises(ValueError, match="'device'"):
        search.fit(X, rare, groups=patients)
    with pytest.raises(ValueError, match="column 1 of y is 0 in fewer than two samp"):
        search.fit(X, np.column_stack([Y["effusion"], np.arange(120) != 5]))
    codes = (np.arange(120) > 117).astype(int) + (np.arange(120) > 118)
    with pytest.raises(ValueError, match="class 1 has fewer than two samples"):
        search.fit(X, codes)


def test_no_time_for_a_trial(made_up):
    with pytest.raises(ValueError, match="timeout"):
        HeadSearchCV(timeout=1e-6).fit(*made_up)


# --- what is said and kept --------------------------------------------------------


def test_a_pickle_says_nothing_of_the_machine(made_up, tmp_path):
    import pickle
    import socket

    search = HeadSearchCV(
        space=fails_at_some, n_trials=8, random_state=0, storage=tmp_path / "t.journal"
    )
    with pytest.warns(FitFailedWarning, match="InvalidParameterError: The 'C' param"):
        search.fit(*made_up)
    held = pickle.dumps(search.study_)
    for word in (
        socket.gethostname(),
        os.path.dirname(sklearn.__file__),
    ):
        assert word.encode() not in held
    errors = [
        t.user_attrs["error"] for t in search.study_.trials if "error" in t.user_attrs
    ]
    assert errors
    assert not any("Traceback" in one for one in errors)
