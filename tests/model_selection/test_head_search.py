"""``HeadSearchCV``: what is chosen, how trials are shared, stopped and continued."""

import multiprocessing
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optuna
import pandas as pd
import pytest
import sklearn
from optuna.distributions import FloatDistribution, IntDistribution
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Bunch
from sklearn.utils.estimator_checks import parametrize_with_checks

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, MedSigLIPTextEmbedder
from sk_medsiglip._scoring import Answers
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.model_selection import EachLabel, HeadSearchCV, _head_study
from sk_medsiglip.model_selection._head_scores import LabelwiseScorer

QUICK = ["logistic", "knn", "prototypes"]
PROBE = {"head": "logistic", "preprocessing": "none", "logistic_class_weight": None}
PAIR = {"effusion": {"positive": "pleural effusion", "negative": "no pleural effusion"}}


@pytest.fixture(scope="module")
def images():
    return make_chest_phantoms(24, random_state=3)


@pytest.fixture(scope="module")
def phantoms():
    """Return findings of patients; ``X`` tells them apart, though not always."""
    rng = np.random.default_rng(3)
    return Bunch(
        target=(rng.random((160, 6)) < 0.4).astype(int),
        groups=np.array([f"P{i // 2}" for i in range(160)]),
    )


@pytest.fixture(scope="module")
def X(phantoms):
    noise = np.random.default_rng(4).normal(size=(160, 12))
    return (noise + np.repeat(phantoms.target, 2, axis=1)).astype(np.float32)


@pytest.fixture(scope="module")
def made_up():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    return rng.normal(size=(90, 6)) + 1.5 * np.eye(6)[y], y


# Of repeats and one column, which split differently than one weighted row would.
EXPECTED_FAILED_CHECKS = {
    "check_classifier_multioutput": (
        "classes_ of several labels has a row each, as the heads have it: "
        "test_several_labels_of_which_some_are_not_known"
    ),
}


@parametrize_with_checks(
    [
        HeadSearchCV(space=["logistic", "prototypes"], n_trials=2, cv=3),
        HeadSearchCV(
            LogisticRegression(),
            space={"C": FloatDistribution(0.1, 10.0, log=True)},
            n_trials=2,
            cv=3,
        ),
    ],
    expected_failed_checks=lambda search: EXPECTED_FAILED_CHECKS,
    xfail_strict=True,
)
def test_passes_sklearn_checks(estimator, check):
    if "sample_weight_equivalence" in str(check):
        # To seven digits, as the check asks: solved exactly, not to a tolerance.
        if estimator.estimator is None:
            estimator.set_params(space=["prototypes"])
        else:
            estimator.set_params(estimator__solver="newton-cholesky")
    check(estimator)


def test_results_have_the_shape_of_sklearns(X, phantoms):
    y = phantoms.target[:, 1]
    search = HeadSearchCV(n_trials=12, cv=3, random_state=0)
    search.fit(X, y, groups=phantoms.groups)
    grid = GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, cv=3).fit(X, y)
    results = search.cv_results_
    own = {name for name in grid.cv_results_ if not name.startswith("param_")}
    assert own <= set(results)
    n = len(results["params"])
    assert n == 12
    assert all(len(column) == n for column in results.values())
    assert search.best_score_ == results["mean_test_score"][search.best_index_]
    assert search.best_params_ == results["params"][search.best_index_]
    assert results["params"][0] == PROBE
    assert set(results["param_head"][:6]) == {
        "logistic", "svm", "knn", "prototypes", "mlp", "boosting",
    }  # fmt: skip
    # Another head has no such setting: masked.
    assert np.array_equal(
        np.ma.getmaskarray(results["param_svm_C"]), results["param_head"] != "svm"
    )
    pruned = results["state"] == "pruned"
    scores = np.array([results[f"split{i}_test_score"] for i in range(3)]).T
    assert pruned.any()
    assert np.isnan(scores[pruned][:, -1]).all()
    assert np.isfinite(scores[pruned][:, 0]).all()
    assert np.isnan(results["mean_test_score"][pruned]).all()
    worst_of_others = results["rank_test_score"][~pruned].max()
    assert (results["rank_test_score"][pruned] > worst_of_others).all()
    expected = roc_auc_score(y, search.predict_proba(X)[:, 1])
    assert search.score(X, y) == pytest.approx(expected)


def test_a_trial_scores_as_cross_validation_does(X, phantoms):
    y = phantoms.target[:, 1]
    folds = list(StratifiedKFold(3).split(X, y))
    search = HeadSearchCV(
        space=["logistic", "knn"], n_trials=2, cv=folds, scoring="neg_log_loss"
    ).fit(X, y)
    plain = [
        LinearProbe(),
        make_pipeline(StandardScaler(), KNeighborsClassifier(15, weights="distance")),
    ]
    for i, estimator in enumerate(plain):
        expected = cross_val_score(estimator, X, y, cv=folds, scoring="neg_log_loss")
        found = [search.cv_results_[f"split{k}_test_score"][i] for k in range(3)]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_linear_probe_is_kept_unless_another_head_is_surely_better():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    linear = (X[:, 0] + rng.normal(size=120) > 0).astype(int)
    search = HeadSearchCV(space=QUICK, n_trials=8, cv=3, random_state=0)
    search.fit(X, linear)
    assert search.best_params_ == PROBE
    assert search.best_index_ == 0
    assert "LinearProbe" in search.search_report_
    np.testing.assert_array_equal(
        search.predict_proba(X), LinearProbe().fit(X, linear).predict_proba(X)
    )
    crossed = (X[:, 0] * X[:, 1] > 0).astype(int)
    search.fit(X, crossed, groups=np.arange(120) // 2)
    assert search.best_params_["head"] == "knn"
    assert "by patient" in search.search_report_
    assert "above its standard error" in search.search_report_
    best = np.nanmax(search.cv_results_["mean_test_score"])
    assert search.best_score_ == best


def test_a_tie_is_decided_by_log_loss_and_by_plainness():
    X = np.repeat([[0.0, 0.1], [1.0, 0.9]], 20, axis=0)
    y = np.repeat([0, 1], 20)
    search = HeadSearchCV(space=["knn", "prototypes", "logistic"], n_trials=3, cv=4)
    search.fit(X, y)
    assert (search.cv_results_["mean_test_score"] == 1).all()
    assert search.best_params_["head"] == "logistic"
    search = HeadSearchCV(space=["svm", "prototypes"], n_trials=2, cv=4).fit(X, y)
    assert search.best_params_["head"] == "prototypes"  # the SVM has no log loss


@pytest.mark.parametrize("weighted", [False, True])
def test_folds_inside_an_estimator_speak_of_the_rows_as_passed(weighted):
    """Rows that are left out, without a label or a weight, keep their numbers."""
    rng = np.random.default_rng(0)
    y = (np.arange(80) % 2).astype(float)
    X = rng.normal(size=(80, 4)) + y[:, None]
    out = rng.random(80) < 0.3
    weight = np.where(out, 0.0, 1.0) if weighted else None
    half = np.arange(80) % 4 < 2
    pairs = [(np.flatnonzero(half), np.flatnonzero(~half))]

    def space(trial):
        return LinearProbe([0.01, 1.0], cv=pairs, scoring="roc_auc")

    search = HeadSearchCV(space=space, n_trials=1, cv=2, error_score="raise")
    search.fit(X, y if weighted else np.where(out, np.nan, y), sample_weight=weight)
    kept = [[np.flatnonzero(side[~out]) for side in (half, ~half)]]
    alone = LinearProbe([0.01, 1.0], cv=kept, scoring="roc_auc").fit(X[~out], y[~out])
    np.testing.assert_allclose(search.best_estimator_.scores_, alone.scores_)
    none = [(np.arange(40), np.arange(40, 80))]
    search.space = lambda trial: LinearProbe(cv=none)
    with pytest.raises(ValueError, match="holds indices"):
        search.set_params(cv=none).fit(X, y)


def test_left_out_rows_change_no_fit(X, phantoms):
    """Neither a scaler nor a head sees the rows that a fold asks about."""
    seen = []

    class Spy(StandardScaler):
        def fit(self, X, y=None, sample_weight=None):
            seen.append(len(X))
            return super().fit(X, y, sample_weight)

    def space(trial):
        return make_pipeline(Spy(), LogisticRegression())

    folds = [(np.arange(50), np.arange(50, 160)), (np.arange(60, 160), np.arange(60))]
    HeadSearchCV(space=space, n_trials=1, cv=folds).fit(X, phantoms.target[:, 1])
    assert seen == [50, 100, 160]


def test_equal_seeds_give_equal_results(X, phantoms):
    y = phantoms.target[:, 1]
    first, again = (
        HeadSearchCV(
            space=["logistic", "svm", "mlp"], n_trials=16, cv=3, random_state=7
        ).fit(X, y)
        for _ in range(2)
    )
    assert first.best_params_ == again.best_params_
    np.testing.assert_array_equal(
        first.cv_results_["mean_test_score"], again.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(first.predict(X), again.predict(X))


def test_groups_are_never_on_both_sides(X, phantoms):
    y, groups = phantoms.target[:, 1], phantoms.groups
    seen = []

    class Spy(LogisticRegression):
        def fit(self, X, y, *, groups=None):
            seen.append(np.asarray(groups))
            return super().fit(X, y)

    def space(trial):
        return Spy(C=trial.suggest_float("C", 0.01, 1.0), max_iter=1000)

    search = HeadSearchCV(space=space, n_trials=1, cv=4).fit(X, y, groups=groups)
    *folds, everybody = seen
    assert len(folds) == search.n_splits_ == 4
    assert len(everybody) == len(y)
    for part in folds:
        left_out = sum(groups == one for one in np.setdiff1d(groups, part)).sum()
        assert len(part) + left_out == len(y)


@pytest.mark.parametrize("routing", [False, True])
def test_groups_reach_a_nested_search(X, phantoms, routing):
    y, groups = phantoms.target[:, 1], phantoms.groups
    search = HeadSearchCV(space=["logistic"], n_trials=2, cv=GroupKFold(3))
    with sklearn.config_context(enable_metadata_routing=routing):
        if not routing:
            pipe = make_pipeline(StandardScaler(), search)
            pipe.fit(X, y, headsearchcv__groups=groups)
            assert pipe[-1].n_splits_ == 3
            return
        pipe = make_pipeline(StandardScaler(), search)
        scores = cross_val_score(
            pipe, X, y, cv=GroupKFold(3), params={"groups": groups}
        )
        assert (scores > 0.7).all()
        grid = GridSearchCV(
            HeadSearchCV(space=QUICK, cv=3), {"n_trials": [1, 2]}, cv=GroupKFold(2)
        )
        assert grid.fit(X, y, groups=groups).best_estimator_.n_splits_ == 3


def test_classes_by_name_and_calibration(made_up):
    X, codes = made_up
    y = np.array(["effusion", "heart", "normal"])[codes]
    search = HeadSearchCV(n_trials=10, random_state=0).fit(X, y)
    assert search.classes_.tolist() == ["effusion", "heart", "normal"]
    assert set(search.predict(X)) <= set(y)
    expected = roc_auc_score(y, search.predict_proba(X), multi_class="ovr")
    assert search.score(X, y) == pytest.approx(expected)
    calibrated = CalibratedClassifierCV(HeadSearchCV(space=QUICK, n_trials=2), cv=2)
    assert calibrated.fit(X, y).predict_proba(X).shape == (90, 3)


def test_several_labels_of_which_some_are_not_known(X, phantoms):
    y = phantoms.target[:, [1, 5]].astype(float)
    truth = y.copy()
    y[np.random.default_rng(0).random(y.shape) < 0.3] = np.nan
    y = pd.DataFrame(y, columns=["effusion", "device"])
    search = HeadSearchCV(n_trials=9, cv=3, random_state=0)
    search.fit(X, y, groups=phantoms.groups)
    states = search.cv_results_["state"]
    assert not (states == "failed").any()
    assert len(set(search.cv_results_["param_head"])) == 6
    assert search.predict(X).shape == (160, 2)
    assert search.classes_.tolist() == [[0, 1], [0, 1]]
    known = ~np.isnan(y["effusion"].to_numpy())
    areas = [
        roc_auc_score(truth[:, i][k], search.decision_function(X)[k, i])
        for i, k in enumerate([known, ~np.isnan(y["device"].to_numpy())])
    ]
    assert search.score(X, y) == pytest.approx(np.mean(areas))
    losses = HeadSearchCV(space=QUICK, n_trials=3, cv=3, scoring="neg_log_loss")
    assert losses.fit(X, y).best_score_ < 0


def test_each_label_is_the_classifier_on_its_known_rows(X, phantoms):
    y = phantoms.target[:, :2].astype(float)
    y[:40, 0] = np.nan
    y[:, 1] = 1
    both = EachLabel(KNeighborsClassifier(5)).fit(X, y)
    alone = KNeighborsClassifier(5).fit(X[40:], y[40:, 0].astype(int))
    np.testing.assert_array_equal(
        both.predict_proba(X)[:, 0], alone.predict_proba(X)[:, 1]
    )
    assert (both.predict(X)[:, 1] == 1).all()
    assert not hasattr(both, "decision_function")


def test_scores_by_label_equal_sklearns(X):
    from sklearn.metrics import get_scorer

    rng = np.random.default_rng(1)
    logits = rng.normal(size=(80, 2))
    y = (rng.random((80, 2)) < 0.4).astype(float)
    y[:20, 1] = np.nan
    answers = Answers.of_logits(None, logits)
    found = LabelwiseScorer(get_scorer("average_precision"))(answers, X[:80], y)
    expected = [
        get_scorer("average_precision")(
            Answers.of_logits(np.array([0, 1]), logits[k, i : i + 1]),
            X[:80][k],
            y[k, i],
        )
        for i, k in enumerate([np.arange(80), np.arange(20, 80)])
    ]
    assert found == pytest.approx(np.mean(expected))


def test_heads_that_know_prompts():
    texts = MedSigLIPTextEmbedder("demo").transform(list(PAIR["effusion"].values()))
    rng = np.random.default_rng(0)
    y = np.arange(90) % 2
    X = texts[1 - y] + 0.2 * np.abs(texts).mean() * rng.normal(
        size=(90, texts.shape[1])
    )
    search = HeadSearchCV(
        space=["prompt_probe", "ss_text", "tip_adapter", "prototypes"],
        prompts=PAIR, model="demo", n_trials=6, cv=3, random_state=0,
    ).fit(X[:60], y[:60], groups=np.arange(60) // 2)  # fmt: skip
    assert len(set(search.cv_results_["param_head"])) == 4
    assert not (search.cv_results_["state"] == "failed").any()
    assert search.score(X[60:], y[60:]) > 0.9
    with pytest.raises(ValueError, match="with prompts= also"):
        HeadSearchCV(space=["prompt_probe"]).fit(X, y)


def test_images_are_embedded_once(images, monkeypatch):
    calls = []
    whole = MedSigLIPEmbedder.transform

    def counted(self, images):
        calls.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(MedSigLIPEmbedder, "transform", counted)
    images, y = list(images.images), images.target[:, 1]
    search = HeadSearchCV(
        space=QUICK, embedder=MedSigLIPEmbedder("demo"), n_trials=3, cv=3
    ).fit(images, y)
    assert calls == [24]
    assert search.predict(images[:5]).shape == (5,)
    assert search.best_estimator_[0].model == "demo"
    assert not hasattr(search, "n_features_in_")
    assert not search.__sklearn_tags__().input_tags.two_d_array


def test_an_svm_is_left_out_where_scores_are_probabilities(X, phantoms):
    search = HeadSearchCV(n_trials=5, cv=3, scoring="neg_log_loss", random_state=0)
    assert "svm" not in search.fit(X, phantoms.target[:, 1]).cv_results_["param_head"]
    search = HeadSearchCV(space=["svm"], n_trials=1, cv=3)
    search.fit(X, phantoms.target[:, 1])
    assert not hasattr(search, "predict_proba")
    assert search.decision_function(X).shape == (160,)


def test_own_spaces(made_up):
    X, y = made_up
    space = {
        "n_neighbors": IntDistribution(1, 20),
        "weights": optuna.distributions.CategoricalDistribution(["uniform"]),
    }
    search = HeadSearchCV(KNeighborsClassifier(), space=space, n_trials=4).fit(X, y)
    assert (
        search.best_estimator_.get_params()["n_neighbors"]
        == (search.best_params_["n_neighbors"])
    )
    for wrong, match in [
        ({"estimator": KNeighborsClassifier()}, "an estimator needs the space"),
        ({"space": {"C": FloatDistribution(0.1, 1)}}, "names parameters of an est"),
        (
            {"estimator": KNeighborsClassifier(), "space": {"C": 1}},
            "space must name parameters of KNeighborsClassifier",
        ),
        ({"space": ["logistc"]}, "space must list some of"),
        ({"space": 3}, "space must be None, a list"),
        ({"storage": "trials.txt"}, "must be an SQLite file"),
    ]:
        with pytest.raises((ValueError, TypeError), match=match):
            HeadSearchCV(**wrong).fit(X, y)


def test_errors_count_as_the_worst_or_end_the_search(made_up):
    X, y = made_up

    def space(trial):
        C = trial.suggest_categorical("C", [-1.0, 1.0])
        return LogisticRegression(C=C)

    search = HeadSearchCV(space=space, n_trials=8, random_state=0)
    with pytest.warns(FitFailedWarning, match="of 8 trials failed"):
        search.fit(X, y)
    failed = search.cv_results_["state"] == "failed"
    assert failed.any()
    assert (search.cv_results_["rank_test_score"][failed] > 1).all()
    assert search.best_params_ == {"C": 1.0}
    with pytest.raises(ValueError, match="C"):
        clone(search).set_params(error_score="raise").fit(X, y)
    search = HeadSearchCV(space=lambda trial: LogisticRegression(C=-1), n_trials=2)
    with pytest.raises(ValueError, match="scored"):
        search.fit(X, y)
    with pytest.raises(ValueError, match="fewer than two samples"):
        HeadSearchCV(n_trials=1).fit(X[:4], [0, 0, 0, 1])


def test_pickle_holds_no_storage(X, phantoms, tmp_path):
    y = phantoms.target[:, 1]
    file = tmp_path / "trials.db"
    search = HeadSearchCV(space=QUICK, n_trials=3, storage=file).fit(X, y)
    copy = pickle.loads(pickle.dumps(search))
    file.unlink()
    np.testing.assert_array_equal(copy.predict(X), search.predict(X))
    assert len(copy.study_.trials) == 3
    assert copy.study_.best_value == pytest.approx(search.best_score_)


def test_without_refit_nothing_is_predicted(X, phantoms):
    search = HeadSearchCV(space=QUICK, n_trials=2, refit=False)
    search.fit(X, phantoms.target[:, 1])
    assert search.best_params_
    with pytest.raises(AttributeError, match="predict"):
        search.predict(X)


def test_time_callbacks_and_a_repeated_setting(X, phantoms):
    y = phantoms.target[:, 1]
    numbers = []

    def stop_at_three(study, trial):
        numbers.append(trial.number)
        if len(numbers) == 3:
            study.stop()

    search = HeadSearchCV(space=QUICK, callbacks=[stop_at_three], random_state=0)
    assert len(search.fit(X, y).cv_results_["params"]) == 3
    assert numbers == [0, 1, 2]
    search = HeadSearchCV(space=QUICK, n_trials=100_000, timeout=0.5).fit(X, y)
    assert 0 < len(search.cv_results_["params"]) < 100_000
    search = HeadSearchCV(space=["prototypes"], n_trials=8).fit(X, y)
    # Two settings: none and balanced; six repeats.
    assert len(set(search.cv_results_["mean_fit_time"])) == 2


@pytest.mark.parametrize("file", ["trials.db", "trials.journal"])
def test_a_stopped_search_goes_on_where_it_was(X, phantoms, tmp_path, file):
    y = phantoms.target[:, 1]

    def interrupt(study, trial):
        if trial.number == 4:
            raise KeyboardInterrupt

    search = HeadSearchCV(
        space=QUICK, n_trials=8, cv=3, storage=tmp_path / file, callbacks=[interrupt]
    )
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    search.set_params(callbacks=()).fit(X, y)
    whole = clone(search).set_params(storage=tmp_path / f"other-{file}").fit(X, y)
    assert search.cv_results_["params"] == whole.cv_results_["params"]
    before = search.cv_results_["trial"].tolist()
    assert before == list(range(8))
    assert search.fit(X, y).cv_results_["trial"].tolist() == before  # nothing left
    assert len(search.set_params(n_trials=9).fit(X, y).study_.trials) == 9
    with pytest.raises(ValueError, match="other y"):
        search.fit(X, 1 - y)
    with pytest.raises(ValueError, match=r"other X, scoring"):
        clone(search).set_params(scoring="accuracy").fit(X + 1, y)
    other = clone(search).set_params(study_name="other", n_trials=1)
    assert len(other.fit(X, 1 - y).cv_results_["params"]) == 1


def test_an_interrupted_trial_does_not_count(made_up, tmp_path):
    X, y = made_up
    state = {"n": 0}

    def space(trial):
        C = trial.suggest_float("C", 0.1, 1.0)
        state["n"] += 1
        if state["n"] == 3:
            raise KeyboardInterrupt
        return LogisticRegression(C=C)

    search = HeadSearchCV(space=space, n_trials=5, storage=tmp_path / "t.journal")
    with pytest.raises(KeyboardInterrupt):
        search.fit(X, y)
    assert search.fit(X, y).cv_results_["trial"].tolist() == [0, 1, 3, 4, 5]


class Slow(LogisticRegression):
    def fit(self, X, y):
        time.sleep(0.05)
        return super().fit(X, y)


class Hanging(LogisticRegression):
    def fit(self, X, y):
        FITTING.set()
        time.sleep(100)


FITTING = multiprocessing.Event()


def draw(head):
    return lambda trial: head(C=trial.suggest_float("C", 0.01, 10.0, log=True))


def two_classes():
    y = np.arange(60) % 2
    return np.random.default_rng(0).normal(size=(60, 4)) + y[:, None], y


def search_beside_others(storage, n_trials, head):
    _head_study.HEARTBEAT, _head_study.GRACE = 1, 3
    search = HeadSearchCV(space=draw(head), n_trials=n_trials, cv=2, storage=storage)
    assert len(search.fit(*two_classes()).cv_results_["trial"]) == n_trials


@pytest.fixture
def start():
    """Return a function that begins a search in a process; none outlives its test."""
    begun = []

    def process(*arguments):
        # Forked, since a new process loads all libraries first.
        context = multiprocessing.get_context("fork")
        begun.append(context.Process(target=search_beside_others, args=arguments))
        begun[-1].start()
        return begun[-1]

    yield process
    for one in begun:
        one.kill()
        one.join()


def load(file):
    storage = f"sqlite:///{file}"
    if file.suffix == ".journal":
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(file))
        )
    return optuna.load_study(study_name="head-search", storage=storage)


@pytest.mark.skipif(os.name == "nt", reason="runs on Windows without fork")
@pytest.mark.parametrize("suffix", [".db", ".journal"])
def test_processes_share_a_storage(tmp_path, start, suffix):
    file, n = tmp_path / f"trials{suffix}", 8
    processes = [start(file, n, Slow) for _ in range(3)]
    for one in processes:
        one.join(120)
    assert [one.exitcode for one in processes] == [0, 0, 0]
    trials = load(file).trials
    assert [one.number for one in trials] == list(range(len(trials)))
    done = [one for one in trials if one.state.name in ("COMPLETE", "PRUNED")]
    # A process that runs one when there are enough lets it end.
    assert n <= len(done) <= n + 2
    assert len({one.params["C"] for one in done}) == len(done)


@pytest.mark.skipif(os.name == "nt", reason="runs on Windows without fork")
@pytest.mark.parametrize("suffix", [".db", ".journal"])
def test_the_trial_of_a_killed_process(tmp_path, start, suffix):
    """A database runs it again; a journal gives its place to another."""
    file = tmp_path / f"trials{suffix}"
    FITTING.clear()
    hangs = start(file, 4, Hanging)
    assert FITTING.wait(60)
    hangs.kill()
    hangs.join()
    time.sleep(3.5 if suffix == ".db" else 0)  # until its signs of life are missed
    works = start(file, 4, Slow)
    works.join(120)
    assert works.exitcode == 0
    trials = load(file).trials
    assert sum(one.state.name in ("COMPLETE", "PRUNED") for one in trials) == 4
    assert trials[0].state.name == ("FAIL" if suffix == ".db" else "RUNNING")
    if suffix == ".db":
        again = [t for t in trials if t.system_attrs.get("failed_trial") == 0]
        assert [one.state.name for one in again] == ["COMPLETE"]
        assert again[0].params == trials[0].params


def test_threads_of_one_process_share_a_journal(tmp_path):
    def fit(_):
        search = HeadSearchCV(
            space=draw(Slow), n_trials=6, cv=2, storage=tmp_path / "trials.journal"
        )
        return search.fit(*two_classes()).cv_results_["trial"].tolist()

    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(fit, range(2)):
            assert len(found) == 6


def test_jobs_share_the_trials_and_are_quiet(X, phantoms, capfd):
    search = HeadSearchCV(space=QUICK, n_trials=5, cv=2, n_jobs=2, random_state=0)
    search.fit(X, phantoms.target[:, 1])
    assert len(search.cv_results_["params"]) == 5
    assert set(search.cv_results_["param_head"]) == set(QUICK)
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_without_optuna_the_error_names_the_extra(made_up, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'pip install "sk-medsiglip\[tune\]"'):
        HeadSearchCV(n_trials=1).fit(*made_up)
