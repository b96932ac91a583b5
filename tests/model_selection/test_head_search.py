"""``HeadSearchCV``: what is chosen, how trials are shared, stopped and continued."""

import multiprocessing
import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import (
    average_precision_score,
    get_scorer,
    log_loss,
    roc_auc_score,
)
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
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.model_selection import HeadSearchCV

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
    [HeadSearchCV(space=["logistic", "prototypes"], n_trials=2, cv=3)],
    expected_failed_checks=lambda search: EXPECTED_FAILED_CHECKS,
    xfail_strict=True,
)
def test_passes_sklearn_checks(estimator, check):
    if "sample_weight_equivalence" in str(check):
        # To seven digits, as the check asks: solved exactly, not to a tolerance.
        estimator.set_params(space=["prototypes"])
    check(estimator)


def test_results_have_the_shape_of_sklearns(X, phantoms):
    y = phantoms.target[:, 1]
    search = HeadSearchCV(n_trials=12, cv=3, random_state=0)
    search.fit(X, y, groups=phantoms.groups)
    grid = GridSearchCV(LinearProbe(), {"Cs": [[0.01], [1.0]]}, cv=3).fit(X, y)
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
    assert (results["state"] == "complete").all()
    scores = [results[f"split{i}_test_score"] for i in range(3)]
    np.testing.assert_allclose(results["mean_test_score"], np.mean(scores, axis=0))
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


def test_equal_seeds_give_equal_results(X, phantoms):
    y = phantoms.target[:, 1]
    first, again = (
        HeadSearchCV(space=["logistic", "svm"], n_trials=14, cv=2, random_state=7).fit(
            X, y
        )
        for _ in range(2)
    )
    assert first.best_params_ == again.best_params_
    np.testing.assert_array_equal(
        first.cv_results_["mean_test_score"], again.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(first.predict(X), again.predict(X))


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
    search = HeadSearchCV(n_trials=6, cv=3, random_state=0).fit(X, y)
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


def test_heads_that_know_prompts():
    texts = MedSigLIPTextEmbedder("demo").transform(list(PAIR["effusion"].values()))
    rng = np.random.default_rng(0)
    y = np.arange(90) % 2
    X = texts[1 - y] + 0.2 * np.abs(texts).mean() * rng.normal(
        size=(90, texts.shape[1])
    )
    search = HeadSearchCV(
        space=["prompt_probe", "ss_text", "tip_adapter", "prototypes"],
        prompts=PAIR, model="demo", n_trials=4, cv=2, random_state=0,
    ).fit(X[:60], y[:60], groups=np.arange(60) // 2)  # fmt: skip
    assert len(set(search.cv_results_["param_head"])) == 4
    assert not (search.cv_results_["state"] == "failed").any()
    assert search.score(X[60:], y[60:]) > 0.9
    with pytest.raises(ValueError, match="prompts="):
        HeadSearchCV(space=["prompt_probe"]).fit(X, y)


def test_an_svm_is_left_out_where_scores_are_probabilities(X, phantoms):
    search = HeadSearchCV(n_trials=5, cv=3, scoring="neg_log_loss", random_state=0)
    assert "svm" not in search.fit(X, phantoms.target[:, 1]).cv_results_["param_head"]
    search = HeadSearchCV(space=["svm"], n_trials=1, cv=3)
    search.fit(X, phantoms.target[:, 1])
    assert not hasattr(search, "predict_proba")
    assert search.decision_function(X).shape == (160,)


def test_images_are_embedded_once_before_all_trials(images, monkeypatch):
    calls = []
    whole = MedSigLIPEmbedder.transform

    def counted(self, images):
        calls.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(MedSigLIPEmbedder, "transform", counted)
    paths, y = list(images.images), images.target[:, 1]
    search = HeadSearchCV(QUICK, n_trials=3, cv=3)
    pipe = make_pipeline(MedSigLIPEmbedder("demo"), search).fit(
        paths, y, headsearchcv__groups=images.groups
    )
    assert calls == [24]
    assert pipe.predict(paths[:5]).shape == (5,)


def test_groups_are_never_on_both_sides(X, phantoms):
    seen = []

    def spy(estimator, X, y):
        seen.append(X[:, -1])
        return roc_auc_score(y, estimator.decision_function(X))

    marked = np.column_stack([X, np.arange(160) // 2])
    search = HeadSearchCV(["prototypes"], n_trials=1, cv=4, scoring=spy)
    search.fit(marked, phantoms.target[:, 1], groups=phantoms.groups)
    assert len(seen) == search.n_splits_ == 4
    for tested in seen:  # two rows a patient
        assert (np.unique(tested, return_counts=True)[1] == 2).all()


def test_steps_before_a_head_see_no_row_of_a_test_fold(X, phantoms, monkeypatch):
    seen = []
    fit = StandardScaler.fit

    def counted(self, X, y=None, sample_weight=None):
        seen.append(len(X))
        return fit(self, X, y, sample_weight)

    monkeypatch.setattr(StandardScaler, "fit", counted)
    folds = [(np.arange(50), np.arange(50, 160)), (np.arange(60, 160), np.arange(60))]
    search = HeadSearchCV(["svm"], n_trials=1, cv=folds)
    search.fit(X, phantoms.target[:, 1])
    assert seen == [50, 100, 160]


def test_folds_speak_of_the_rows_as_passed():
    """Rows that are left out, without a label or a weight, keep their numbers."""
    rng = np.random.default_rng(0)
    y = (np.arange(80) % 2).astype(float)
    X = rng.normal(size=(80, 4)) + y[:, None]
    out = rng.random(80) < 0.3
    half = np.arange(80) % 4 < 2
    pairs = [(np.flatnonzero(half), np.flatnonzero(~half))]
    search = HeadSearchCV(["logistic"], n_trials=1, cv=pairs)
    kept = [[np.flatnonzero(side[~out]) for side in (half, ~half)]]
    alone = clone(search).set_params(cv=kept).fit(X[~out], y[~out])
    for given, weight in (
        (np.where(out, np.nan, y), None),
        (y, np.where(out, 0.0, 1.0)),
    ):
        search.fit(X, given, sample_weight=weight)
        assert search.best_score_ == pytest.approx(alone.best_score_)
        np.testing.assert_allclose(
            search.predict_proba(X), alone.predict_proba(X), rtol=1e-5
        )


def test_labels_in_another_order_are_refused(X, phantoms):
    Y = pd.DataFrame(phantoms.target[:, [1, 5]], columns=["effusion", "device"])
    search = HeadSearchCV(["prototypes"], n_trials=1, cv=2).fit(X, Y)
    assert search.label_names_.tolist() == ["effusion", "device"]
    with pytest.raises(ValueError, match="'effusion', 'device'"):
        search.score(X, Y[["device", "effusion"]])
    assert search.score(X, Y) == search.score(X, Y.to_numpy())
    assert not hasattr(search.fit(X, Y.to_numpy()), "label_names_")


def test_weights_of_rows_where_a_label_is_not_known(X, phantoms):
    Y = phantoms.target[:, [1, 5]].astype(float)
    Y[np.random.default_rng(0).random(Y.shape) < 0.3] = np.nan
    weight = np.random.default_rng(2).random(len(X))
    by_scikit_learn = {
        None: roc_auc_score,
        "average_precision": average_precision_score,
        "neg_log_loss": lambda *args, **weights: -log_loss(*args, **weights),
    }
    for scoring, score in by_scikit_learn.items():
        search = HeadSearchCV(["prototypes"], n_trials=1, cv=2, scoring=scoring)
        found = search.fit(X, Y).score(X, Y, sample_weight=weight)
        proba = search.predict_proba(X)
        expected = []
        for i, column in enumerate(Y.T):
            known = ~np.isnan(column)
            truth = column[known].astype(int)
            some = proba[known, i]
            expected.append(score(truth, some, sample_weight=weight[known]))
        assert found == pytest.approx(np.mean(expected))
        assert found != pytest.approx(search.score(X, Y))


@pytest.mark.parametrize(
    ("wrong", "key_word"),
    [
        ({"space": ["logistc"]}, "logistc"),
        ({"space": "logistic"}, "space"),
        ({"space": 3}, "space"),
        ({"space": []}, "space"),
        ({"space": ["prompt_probe"]}, "prompts="),
        ({"scoring": "auc"}, "scoring"),
        ({"timeout": 1e-6}, "timeout"),
    ],
)
def test_wrong_parameters_are_named(wrong, key_word, made_up):
    with pytest.raises(ValueError, match=key_word):
        HeadSearchCV(**wrong).fit(*made_up)


def test_a_class_that_is_too_rare_is_named(X, phantoms):
    search = HeadSearchCV(["prototypes"], n_trials=1)
    with pytest.raises(ValueError, match="'NA'"):
        search.fit(X, np.array(["NA"] + ["ill", "well"] * 79 + ["ill"]))
    Y = pd.DataFrame(phantoms.target[:, [1, 5]], columns=["effusion", "device"])
    Y["device"] = (np.arange(160) // 2 == 3).astype(int)
    with pytest.raises(ValueError, match="'device'"):
        search.fit(X, Y, groups=phantoms.groups)
    Y["device"] = (np.arange(160) != 5).astype(int)
    with pytest.raises(ValueError, match="column 1"):
        search.fit(X, Y.to_numpy())


def test_failed_trials_count_as_the_worst(made_up):
    X, y = made_up
    weight = np.ones(len(X))
    search = HeadSearchCV(["prototypes", "knn"], n_trials=4, random_state=0)
    with pytest.warns(FitFailedWarning, match="KNeighborsClassifier"):
        search.fit(X, y, sample_weight=weight)
    failed = search.cv_results_["state"] == "failed"
    assert failed.any()
    assert np.isnan(search.cv_results_["mean_test_score"][failed]).all()
    assert (search.cv_results_["rank_test_score"][failed] > 1).all()
    assert search.best_params_["head"] == "prototypes"
    with pytest.raises(ValueError, match="KNeighborsClassifier"):
        search.set_params(space=["knn"]).fit(X, y, sample_weight=weight)
    errors = [t.user_attrs.get("error", "") for t in search.study_.trials]
    assert not any("Traceback" in one for one in errors)


def test_time_ends_a_search_and_a_repeated_setting_costs_nothing(X, phantoms):
    y = phantoms.target[:, 1]
    search = HeadSearchCV(QUICK, n_trials=100_000, timeout=0.5).fit(X, y)
    assert 0 < len(search.cv_results_["params"]) < 100_000
    search = HeadSearchCV(["prototypes"], n_trials=8).fit(X, y)
    # Two settings, with and without class weights; the others repeat them.
    assert len(set(search.cv_results_["mean_fit_time"])) == 2


def test_folds_in_parallel_change_no_result_and_are_quiet(X, phantoms, capfd):
    y = phantoms.target[:, 1]
    search = HeadSearchCV(QUICK, n_trials=5, cv=2, random_state=0).fit(X, y)
    both = clone(search).set_params(n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(
        both.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(both.predict(X), search.predict(X))
    said = capfd.readouterr()
    assert said.out + said.err == ""


# --- storage ----------------------------------------------------------------------


class Area:
    """A score that counts its calls, and does something at one of them."""

    def __init__(self, at=None, what=None):
        self.at, self.what, self.n_calls = at, what, 0

    def __call__(self, estimator, X, y):
        self.n_calls += 1
        if self.n_calls == self.at:
            self.what()
        return get_scorer("roc_auc_ovr")(estimator, X, y)

    def __getstate__(self):
        return {}  # the same score, whatever was counted


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("file", "at"), [("trials.db", 1), ("trials.journal", 5)])
def test_a_stopped_search_goes_on_where_it_was(made_up, tmp_path, file, at):
    """Two folds a trial: the first or the third trial is interrupted."""
    X, y = made_up
    search = HeadSearchCV(QUICK, n_trials=6, cv=2, storage=tmp_path / file)
    with pytest.raises(KeyboardInterrupt):
        clone(search).set_params(scoring=Area(at, interrupt)).fit(X, y)
    search.set_params(scoring=Area()).fit(X, y)
    before = search.cv_results_["trial"].tolist()
    assert before == [i for i in range(7) if i != at // 2]
    assert PROBE in search.cv_results_["params"]
    assert search.fit(X, y).cv_results_["trial"].tolist() == before  # nothing left
    assert len(search.set_params(n_trials=7).fit(X, y).cv_results_["params"]) == 7


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"X": 1.0}, "X"),
        ({"y": True}, "y"),
        ({"scoring": "accuracy"}, "scoring"),
        ({"space": ["logistic"]}, "space"),
        ({"cv": 3}, "cv"),
        ({"random_state": 5}, "random_state"),
    ],
)
def test_another_search_in_a_storage_is_refused(change, name, made_up, tmp_path):
    X, y = made_up
    search = HeadSearchCV(
        ["prototypes", "knn"], n_trials=1, cv=2, storage=tmp_path / "trials.journal"
    )
    search.fit(X, y)
    X = X + change.pop("X", 0.0)
    y = y[::-1] if change.pop("y", False) else y
    with pytest.raises(ValueError, match=f"other .*{name}"):
        search.set_params(**change).fit(X, y)


def test_a_pickle_holds_neither_storage_nor_machine(made_up, tmp_path):
    X, y = made_up
    file = tmp_path / "trials.db"
    search = HeadSearchCV(QUICK, n_trials=3, storage=file).fit(X, y)
    held = pickle.dumps(search)
    file.unlink()
    copy = pickle.loads(held)
    np.testing.assert_array_equal(copy.predict(X), search.predict(X))
    assert len(copy.study_.trials) == 3
    assert copy.study_.best_value == max(search.cv_results_["mean_test_score"])
    for word in (str(tmp_path), os.path.dirname(sklearn.__file__), "_head_"):
        assert word.encode() not in held


def search_beside_others(storage, n_trials, at=None, what=None):
    search = HeadSearchCV(
        ["logistic", "knn"], n_trials=n_trials, cv=2, storage=storage,
        scoring=Area(at, what),
    )  # fmt: skip
    y = np.arange(60) % 2
    X = np.random.default_rng(0).normal(size=(60, 4)) + y[:, None]
    assert len(search.fit(X, y).cv_results_["trial"]) == n_trials


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
        backend = optuna.storages.journal.JournalFileBackend(str(file))
        storage = optuna.storages.JournalStorage(backend)
    return optuna.load_study(study_name="head-search", storage=storage)


@pytest.mark.skipif(os.name == "nt", reason="runs on Windows without fork")
@pytest.mark.parametrize("name", ["trials.journal", "trials.db"])
def test_processes_share_a_storage(name, tmp_path, start):
    file, n = tmp_path / name, 8
    processes = [start(file, n) for _ in range(3)]
    for one in processes:
        one.join(120)
    assert [one.exitcode for one in processes] == [0, 0, 0]
    trials = load(file).trials
    assert [one.number for one in trials] == list(range(len(trials)))
    done = [one for one in trials if one.state.name == "COMPLETE"]
    # A process that runs one when there are enough lets it end.
    assert n <= len(done) <= n + 2


@pytest.mark.skipif(os.name == "nt", reason="runs on Windows without fork")
def test_another_trial_takes_the_place_of_one_whose_process_died(tmp_path, start):
    file = tmp_path / "trials.journal"
    fitting = tmp_path / "fitting"

    def hang():
        Path(fitting).touch()
        time.sleep(100)

    hangs = start(file, 4, 1, hang)
    for _ in range(600):
        if fitting.exists():
            break
        time.sleep(0.1)
    hangs.kill()
    hangs.join()
    works = start(file, 4)
    works.join(120)
    assert works.exitcode == 0
    trials = load(file).trials
    assert trials[0].state.name == "RUNNING"
    done = [one for one in trials if one.state.name == "COMPLETE"]
    assert len(done) == 4
    assert PROBE in [one.params for one in done]  # LinearProbe is among them


def test_without_optuna_the_error_names_the_extra(made_up, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="tune"):
        HeadSearchCV(n_trials=1).fit(*made_up)
