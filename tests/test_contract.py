"""What holds for every estimator: global settings, second fits, folds, saved files."""

import copy
import importlib
import inspect
import os
import pickle
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import skops.io
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline

import sk_medsiglip
from sk_medsiglip import (
    BagProbe,
    ConformalZeroShot,
    HeadSearchCV,
    ImageRetriever,
    LinearProbe,
    MedSigLIPEmbedder,
    MedSigLIPFineTuner,
    MedSigLIPPatchEmbedder,
    MedSigLIPTextEmbedder,
    MedSigLIPVolumeEmbedder,
    PromptProbe,
    PromptSearchCV,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
    make_zero_shot_pipeline,
)
from sk_medsiglip.audit import NoveltyGate, audit, drift_test
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.encoder import DEMO_FOLDER
from sk_medsiglip.evaluation import (
    EmbeddingMapDisplay,
    OperatingPoint,
    OperatingPointClassifier,
    evaluate,
    label_efficiency,
    write_report,
)
from sk_medsiglip.exceptions import LabelCodesWarning
from sk_medsiglip.heads import explain_head
from sk_medsiglip.images import Percentiles
from sk_medsiglip.model_selection import (
    EachLabel,
    MultilabelStratifiedGroupKFold,
    check_leakage,
)
from sk_medsiglip.prompts import lint_prompts, load_prompt_set
from sk_medsiglip.serving import trusted_types
from sk_medsiglip.zero_shot import compare_prompts, prompt_heatmap

N = 40
DEMO = {"model": "demo"}
CLASSES = {"effusion": "pleural effusion", "normal": "normal chest X-ray"}
THREE = {"device": "a pacemaker", **CLASSES}
PAIR = {"effusion": {"positive": "pleural effusion", "negative": "no effusion"}}
PAIRS = {**PAIR, "device": {"positive": "a pacemaker", "negative": "no pacemaker"}}
PROMPT_HEADS = (
    PromptProbe,
    TipAdapterClassifier,
    SSTextClassifier,
    PrototypeClassifier,
)
CONFIGURATIONS = [
    {"transform_output": "pandas"},
    {"transform_output": "polars"},
    {"enable_metadata_routing": True},
]


def phantom_data():
    phantoms = make_chest_phantoms(N, random_state=0)
    images = list(phantoms.images)
    Y = phantoms.target[:, [1, phantoms.target_names.index("device")]]
    y = Y[:, 0]
    X = MedSigLIPEmbedder("demo").transform(images)
    return SimpleNamespace(
        images=images,
        X=X,
        bags=np.stack([X, X[::-1]], axis=1),
        Y=Y,
        y=y,
        names=np.where(y == 1, "effusion", "normal"),
        table=pd.DataFrame(Y, columns=["effusion", "device"]),
        groups=phantoms.groups,
        others=list(make_chest_phantoms(5, random_state=9).images),
        texts=["pleural effusion", "a pacemaker"],
    )


@pytest.fixture(scope="module")
def data():
    return phantom_data()


def estimators():
    """Return every public estimator: how it is made, and what ``fit`` takes."""
    frozen = {"n_trials": 2, "random_state": 0}
    tuner = {"objective": "classification", "max_steps": 1, "batch_size": 8}
    lora = MedSigLIPFineTuner(
        MedSigLIPEmbedder("demo", device="cpu"), random_state=0, **tuner
    )
    embedder = MedSigLIPEmbedder("demo")
    series = pd.Series({"effusion": 0.3, "normal": 0.7})
    point = OperatingPoint(0.3, ("sensitivity", 0.9), 0.95, 0.8, 20, 20, "effusion")
    return {
        "images": (embedder, "images"),
        "patches": (MedSigLIPPatchEmbedder(embedder, grid=2).set_output(transform="default"), "images"),  # noqa: E501
        "texts": (MedSigLIPTextEmbedder("demo"), "texts"),
        "studies": (MedSigLIPVolumeEmbedder(embedder), "images"),
        "zero-shot": (ZeroShotClassifier(PAIRS, **DEMO), "X"),
        "calibrated": (ZeroShotClassifier(CLASSES, calibrate="temperature_bias", **DEMO), "X", "names"),  # noqa: E501
        "prevalence": (ZeroShotClassifier(CLASSES, calibrate="prevalence", prevalence=series, **DEMO), "X"),  # noqa: E501
        "max": (ZeroShotClassifier(CLASSES, ensemble="max", **DEMO), "X"),
        "linear": (LinearProbe(), "X", "table"),
        "bags": (BagProbe(), "bags", "table"),
        **{one.__name__: (one(CLASSES, **DEMO), "X", "names") for one in PROMPT_HEADS},
        "conformal": (ConformalZeroShot(ZeroShotClassifier(CLASSES, **DEMO)), "X", "names"),  # noqa: E501
        "prompt search": (PromptSearchCV(PAIR, n_bootstrap=5, **DEMO), "X", "y"),
        "each label": (EachLabel(LogisticRegression()), "X", "table"),
        "head search": (HeadSearchCV(space=["logistic", "knn"], **frozen), "X", "y"),
        "scaled search": (HeadSearchCV(space=["svm"], n_trials=4, random_state=3), "X", "y"),  # noqa: E501
        "search of images": (make_pipeline(embedder, HeadSearchCV(space=["logistic"], **frozen)), "images", "y"),  # noqa: E501
        "retriever": (ImageRetriever(**DEMO), "images"),
        "vectors": (ImageRetriever(**DEMO), "X"),
        "fine-tuner": (lora, "images", "y"),
        "gate": (NoveltyGate(), "X"),
        "thresholds": (OperatingPointClassifier(LinearProbe(), {"effusion": point, "device": 0.2}), "X", "table"),  # noqa: E501
        "pipeline": (make_zero_shot_pipeline(CLASSES, **DEMO), "images"),
        "head pipeline": (make_pipeline(embedder, LinearProbe()), "images", "y"),
    }  # fmt: skip


NAMES = list(estimators())


def with_others():
    """Return every public estimator, inside those of scikit-learn, and with objects."""
    embedder = MedSigLIPEmbedder("demo")
    pipe = make_pipeline(embedder, LinearProbe())
    reading = {"intensity": Percentiles(1, 99), "cache": EmbeddingCache()}
    folds = MultilabelStratifiedGroupKFold(2)
    return {
        **estimators(),
        "grid search": (GridSearchCV(pipe, {"linearprobe__Cs": [[0.1], [1.0]]}, cv=2), "images", "y"),  # noqa: E501
        "calibrated head": (CalibratedClassifierCV(LinearProbe(), cv=2), "X", "y"),
        "objects": (MedSigLIPEmbedder(Path(DEMO_FOLDER), **reading), "images"),
        "prompt set": (ZeroShotClassifier(load_prompt_set("chest_xray_13"), **DEMO), "X"),  # noqa: E501
        "folds": (HeadSearchCV(["logistic"], n_trials=1, cv=folds), "X", "table"),
    }  # fmt: skip


def fit(name, data, estimator=None):
    made, *given = with_others()[name]
    estimator = made if estimator is None else estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return estimator.fit(*(getattr(data, one) for one in given))


def answers(name, estimator, data):
    """Return everything that a fitted estimator says."""
    X = getattr(data, with_others()[name][1])[:6]
    said = {}
    for method in (
        "transform", "predict", "predict_proba", "predict_log_proba",
        "decision_function", "predict_set", "kneighbors",
    ):  # fmt: skip
        if hasattr(estimator, method):
            said[method] = getattr(estimator, method)(X)
    if hasattr(estimator, "search"):
        hits = estimator.search("pleural effusion", n=3)
        said["search"] = hits["score"].to_numpy(), hits["id"].to_numpy()
    return said


def assert_same(one, other, *, atol=0.0):
    """Compare two values, whatever they hold."""
    if isinstance(one, pd.DataFrame | pd.Series):
        assert type(one) is type(other)
        pd.testing.assert_frame_equal(pd.DataFrame(one), pd.DataFrame(other))
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key], atol=atol)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair, atol=atol)
    elif np.asarray(one).dtype.kind in "biufc":
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), 1e-6, atol)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other)
    elif hasattr(one, "__dict__") and not callable(one):
        assert type(one) is type(other)
        assert_same(vars(one), vars(other), atol=atol)
    else:
        assert one == other or one is other


# -------------------------------------------------------------- scikit-learn's settings


@pytest.fixture(scope="module")
def expected(data):
    return {name: answers(name, fit(name, data), data) for name in NAMES}


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_answers_do_not_depend_on_configuration(name, configuration, data, expected):
    with sklearn.config_context(**configuration):
        said = answers(name, fit(name, data), data)
    output = configuration.get("transform_output")
    frames = {"pandas": pd.DataFrame, "polars": pl.DataFrame}
    if "transform" in said and output and name != "patches":  # bags have no columns
        assert isinstance(said["transform"], frames[output])
        said["transform"] = said["transform"].to_numpy()
    assert_same(said, expected[name], atol=1e-5)


@pytest.mark.parametrize(
    "configuration",
    [
        CONFIGURATIONS[0],
        *(pytest.param(one, marks=pytest.mark.slow) for one in CONFIGURATIONS[1:]),
    ],
    ids=str,
)
def test_functions_do_not_depend_on_configuration(configuration, data, tmp_path):
    X, y, images = data.X, data.y, data.images
    embedder, probe = MedSigLIPEmbedder("demo"), LinearProbe().fit(X, y)
    pipe = make_zero_shot_pipeline(PAIR, **DEMO)

    def say():
        fitted = clone(pipe).fit(images)
        display = EmbeddingMapDisplay.from_estimator(embedder, images)
        retriever = ImageRetriever(**DEMO).fit(images[:20])
        retriever.add(images[20:30]).update(retriever.to_frame()["id"][:2], images[:2])
        write_report(
            tmp_path / "report.html", {"m": fitted}, images, y, X_train=data.others,
            y_train=y[:5], embedder=embedder, n_bootstrap=5,
        )  # fmt: skip
        return {
            "lint": lint_prompts(THREE, **DEMO),
            "compare": compare_prompts(PAIR, X, y, **DEMO),
            "explain": explain_head(probe, ["a rib", "effusion"], **DEMO),
            "heatmap": prompt_heatmap(images[0], "effusion", **DEMO),
            "map": display.points,
            "leaks": check_leakage(images, splits=KFold(2), embedder=embedder),
            "labels": label_efficiency(
                {"m": make_pipeline(embedder, LinearProbe())}, images, y,
                sizes=[20], n_repeats=2,
            ),
            "evaluate": evaluate({"m": fitted}, images, y, n_bootstrap=5),
            "search": retriever.search(images[3], n=3)["score"].to_numpy(),
        }  # fmt: skip

    before = say()
    with sklearn.config_context(**configuration):
        assert_same(say(), before, atol=1e-5)


def test_an_estimators_own_output_is_the_users(data):
    pandas = MedSigLIPEmbedder("demo").set_output(transform="pandas")
    assert isinstance(pandas.transform(data.images[:2]), pd.DataFrame)
    retriever = ImageRetriever(embedder=pandas).fit(data.images[:5])
    assert isinstance(retriever.embedder_.transform(data.images[:2]), pd.DataFrame)
    pipe = make_pipeline(pandas, HeadSearchCV(space=["logistic"], n_trials=1))
    pipe.fit(data.images, data.y).predict(data.images[:3])
    pandas.set_output(transform="polars")
    assert isinstance(pipe[0].transform(data.images[:2]), pl.DataFrame)


# ---------------------------------------------------------------------- one fit, whole


def states(data):
    """Return labels that leave different attributes behind."""
    y, names, Y, table = data.y, data.names, data.Y, data.table
    few = np.where(np.arange(N)[:, None] < 4, Y, np.nan)
    return {
        "named": (data.X, table),
        "unnamed": (data.X, Y),
        "texts": (data.X, names),
        "three": (data.X, np.array([*THREE, *THREE.values()])[np.arange(N) % 3]),
        "few": (data.X, few),
        "two rows": (data.X[:2], ["effusion", "normal"]),
        "frame": (pd.DataFrame(data.X).add_prefix("c"), y),
    }


QUESTIONS = {
    "named": PAIRS, "unnamed": PAIRS, "texts": CLASSES, "three": THREE,
    "few": PAIRS, "two rows": CLASSES, "frame": PAIR,
}  # fmt: skip


def heads():
    return {
        "linear": LinearProbe([0.1, 1.0], cv=2),
        "averaged": LinearProbe([0.1, 1.0], cv=2, refit=False),
        **{head.__name__: head(**DEMO) for head in PROMPT_HEADS},
        "each": EachLabel(LogisticRegression()),
        "zero-shot": ZeroShotClassifier(None, **DEMO),
        "conformal": ConformalZeroShot(LinearProbe(), random_state=0),
        "conformal zero-shot": ConformalZeroShot(ZeroShotClassifier(None, **DEMO)),
        "prompt search": PromptSearchCV(None, n_bootstrap=5, cv=2, **DEMO),
    }


def fit_state(estimator, state, data, *, prompts=True):
    X, y = states(data)[state]
    question = QUESTIONS[state] if prompts else None
    if question is not None or hasattr(estimator, "C"):
        for name in {"prompts", "candidates", "estimator__prompts"} & {
            *estimator.get_params()
        }:
            estimator.set_params(**{name: question})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return estimator.fit(X, y)
    except ValueError:
        return None


# Half of the strides lead from each state to each other one way, all of them both ways.
@pytest.mark.parametrize("n_strides", [3, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", list(heads()))
def test_a_second_fit_leaves_nothing_of_the_first(name, n_strides, data):
    order = list(QUESTIONS)
    n = len(order)  # a prime, so that a stride visits every state
    fresh = {state: fit_state(heads()[name], state, data) for state in order}
    assert sum(one is not None for one in fresh.values()) >= 2
    again = heads()[name]
    for place in range(1, n * n_strides):
        state = order[place * (1 + place // n) % n]
        expected, before = fresh[state], dict(vars(again))
        if fit_state(again, state, data) is not None:
            assert vars(again).keys() == vars(expected).keys(), state
            assert_same(vars(again), vars(expected), atol=1e-6)
        else:  # one that fails changes nothing but the parameters set
            learned = {*before} - {*again.get_params(deep=False)}
            assert all(vars(again)[one] is before[one] for one in learned)


@pytest.mark.parametrize("head", PROMPT_HEADS)
def test_prompts_leave_nothing_when_they_go(head, data):
    again = head(PAIRS, **DEMO).fit(data.X, data.table)
    again.set_params(prompts=None).fit(data.X, data.Y)
    assert_same(vars(again), vars(head(**DEMO).fit(data.X, data.Y)))


def test_searches_retrievers_and_tuners_hold_one_fit(data):
    search = HeadSearchCV(space=["logistic"], n_trials=1, random_state=0)
    unnamed = clone(search).fit(data.X, data.Y)
    again = search.fit(pd.DataFrame(data.X).add_prefix("c"), data.table)
    assert {"label_names_", "feature_names_in_"} < vars(again).keys()
    assert vars(again.fit(data.X, data.Y)).keys() == vars(unnamed).keys()
    assert again.n_features_in_ == data.X.shape[1]
    retriever = ImageRetriever(**DEMO).fit(data.images[:4]).fit(data.X)
    assert vars(retriever).keys() == vars(ImageRetriever(**DEMO).fit(data.X)).keys()
    with pytest.raises(ValueError, match="ids"):
        retriever.fit(data.images[:4], ids=[1, 1, 1, 1])
    assert retriever.n_samples_fit_ == len(data.X)
    tuner = fit("fine-tuner", data)
    tuner.set_params(objective="contrastive", train="head").fit(
        data.images[:8], [f"text {i}" for i in range(8)]
    )
    assert not hasattr(tuner, "coef_")


# ---------------------------------------------------------------- folds without a class


@pytest.mark.parametrize("lacking", list(THREE))
@pytest.mark.parametrize(
    "estimator",
    [
        ZeroShotClassifier(THREE, **DEMO),
        ZeroShotClassifier(THREE, calibrate="temperature", **DEMO),
        *(head(THREE, **DEMO) for head in PROMPT_HEADS),
        ConformalZeroShot(ZeroShotClassifier(THREE, **DEMO)),
    ],
    ids=lambda one: f"{type(one).__name__}-{getattr(one, 'calibrate', None)}",
)
@pytest.mark.filterwarnings("ignore:a class|labels and scores:UserWarning")
@pytest.mark.filterwarnings("ignore:alpha=0.1 needs 9:UserWarning")
def test_a_fold_without_a_class_has_its_column(estimator, lacking, data):
    others = [name for name in THREE if name != lacking]
    y = np.array([lacking] * 5 + [others[i % 2] for i in range(N - 5)])
    folds = list(KFold(4).split(data.X))
    for method in ("predict_proba", "decision_function", "predict_log_proba"):
        if not hasattr(estimator, method):
            continue
        with pytest.warns(LabelCodesWarning, match="sorted order"):
            told = cross_val_predict(estimator, data.X, y, cv=folds, method=method)
        expected = np.empty((N, 3))
        for train, test in folds:  # by name, all columns are there as well
            fitted = clone(estimator).fit(data.X[train], y[train])
            expected[test] = getattr(fitted, method)(data.X[test])
        np.testing.assert_allclose(told, expected, atol=1e-6)


@pytest.mark.parametrize("head", [LinearProbe, *PROMPT_HEADS])
def test_without_prompts_a_missing_class_is_a_column_of_zeros(head, data):
    y = np.array(["a"] * 5 + ["b", "c"] * 20)[:N]
    with pytest.warns(RuntimeWarning, match="training fold"):
        told = cross_val_predict(head(), data.X, y, cv=KFold(8), method="predict_proba")
    assert told.shape == (N, 3)
    assert not told[:5, 0].any()
    assert told[5:, 0].all()


# ------------------------------------------------------------------------------ saving

LOAD = """
import pickle, sys, warnings, joblib, numpy as np, skops.io, sklearn
sys.path.insert(0, sys.argv[2])
import test_contract as contract
data, kinds = joblib.load(sys.argv[1])
with sklearn.config_context(array_api_dispatch=True):
    said = {
        (name, kind): contract.answers(name, contract.load(kind, saved), data)
        for (name, kind), saved in kinds.items()
    }
joblib.dump(said, sys.argv[1])
"""


def public_estimators():
    """Return every public class with ``fit``, of all rooms."""
    rooms = [
        importlib.import_module(f"sk_medsiglip.{room.name}")
        for room in pkgutil.iter_modules(sk_medsiglip.__path__)
        if room.ispkg
    ]
    public = [
        getattr(room, name) for room in rooms for name in getattr(room, "__all__", ())
    ]
    return {one for one in public if inspect.isclass(one) and hasattr(one, "fit")}


def test_every_public_estimator_is_here():
    steps = [getattr(one[0], "steps", [("", one[0])]) for one in estimators().values()]
    assert public_estimators() == {type(step) for one in steps for _, step in one}


def save(kind, estimator):
    if kind == "skops":
        return skops.io.dumps(estimator), trusted_types(estimator)
    return (cloudpickle if kind == "cloudpickle" else pickle).dumps(estimator)


def load(kind, saved):
    if kind == "skops":
        content, types = saved
        assert not [t for t in types if t.startswith(("pandas", "builtins", "pyarrow"))]
        return skops.io.loads(content, trusted=types)
    return pickle.loads(saved)


def test_saved_estimators_answer_as_before(data, expected, tmp_path):
    saved = {}
    for name in with_others():
        fitted = fit(name, data)
        if name not in expected:
            expected[name] = answers(name, fitted, data)
        joblib.dump(fitted, tmp_path / "one.joblib")
        for other in (copy.deepcopy(fitted), joblib.load(tmp_path / "one.joblib")):
            assert_same(answers(name, other, data), expected[name], atol=1e-6)
        for kind in ("pickle", "cloudpickle", "skops"):
            saved[name, kind] = save(kind, fitted)
            other = load(kind, saved[name, kind])
            assert vars(other).keys() == vars(fitted).keys()
            last = fitted[-1] if hasattr(fitted, "steps") else fitted
            # Studies and objects of scikit-learn cannot be compared.
            if name in NAMES and not hasattr(last, "study_"):
                assert_same(vars(other), vars(fitted))
    joblib.dump((data, saved), tmp_path / "all.joblib")
    subprocess.run(
        [
            sys.executable,
            "-c",
            LOAD,
            tmp_path / "all.joblib",
            Path(__file__).parent,
        ],
        env=os.environ
        | {
            "SCIPY_ARRAY_API": "1",
            "SK_MEDSIGLIP_CACHE": str(tmp_path / "another"),
        },
        check=True,
        timeout=300,
    )
    for (name, _), said in joblib.load(tmp_path / "all.joblib").items():
        assert_same(said, expected[name], atol=1e-6)


def test_results_with_tables_are_saved(data):
    metadata = pd.DataFrame({
        "site": ["A", "B"] * (N // 2),
        "late": pd.date_range("2020-01-01", periods=N)[np.arange(N) % 3],
    })  # fmt: skip
    found = audit(data.X, data.table, groups=data.groups, metadata=metadata)
    drift = drift_test(data.X[:20], data.X[20:], n_permutations=19)
    for kind in ("pickle", "cloudpickle", "skops"):
        other = load(kind, save(kind, found))
        assert_same(vars(other), vars(found))
        assert other.summary() == found.summary()  # some counts are attrs of tables
        assert_same(vars(load(kind, save(kind, drift))), vars(drift))


def test_metadata_of_every_kind_is_saved(data):
    times = pd.date_range("2020-01-01", periods=N, tz="Europe/Berlin")
    metadata = pd.DataFrame({
        "age": np.arange(N) / 7, "n": [None, 1, 2, 3] * (N // 4), "late": times,
        "read": times.tz_localize(None), "ok": [True, None] * (N // 2),
        "text": [None, "ä"] * (N // 2),
    })  # fmt: skip
    retriever = ImageRetriever(**DEMO).fit(
        data.X, ids=[f"i{i}" for i in range(N)], metadata=metadata
    )
    retriever.remove(["i3"])
    for kind in ("pickle", "skops"):
        again = load(kind, save(kind, retriever))
        pd.testing.assert_frame_equal(again.to_frame(), retriever.to_frame())
        again.add(data.X[:1], ids=["new"])
        assert again.search(data.X[3], n=1)["id"].tolist() != ["i3"]


def test_no_secret_is_saved():
    options = {"region": "eu-north-1", "aws_secret_access_key": "hush"}
    retriever = ImageRetriever(index="lancedb", storage_options=options, **DEMO)
    assert copy.deepcopy(retriever).storage_options == options
    for kind in ("pickle", "cloudpickle", "skops"):
        again = load(kind, save(kind, retriever))
        assert again.storage_options == {"region": "eu-north-1"}


# ------------------------------------------------------------------------ before a fit

STATELESS = {"base_embedder", "reader", "load", "from_parquet", "verify_files"}


@pytest.mark.parametrize(
    "name", [n for n, one in estimators().items() if not hasattr(one[0], "steps")]
)
def test_methods_before_fit_say_so(name, data):
    estimator = clone(estimators()[name][0])
    if not estimator.__sklearn_tags__().requires_fit:
        estimator.transform(getattr(data, estimators()[name][1])[:2])
        return
    given = {"X": data.X[:2], "y": data.y[:2], "scores": data.y[:2]}
    asked = 0
    for method in dir(estimator):
        if (
            method.startswith(
                ("_", "fit", "set_", "get_params", "get_meta", "partial_")
            )
            or method in STATELESS
            or not callable(getattr(estimator, method, None))
        ):
            continue
        function = getattr(estimator, method)
        needed = [
            given.get(one.name, "x")
            for one in inspect.signature(function).parameters.values()
            if one.default is one.empty and one.kind in (0, 1)
        ]
        with pytest.raises(NotFittedError):
            function(*needed)
        asked += 1
    assert asked


@pytest.mark.parametrize("form", ["arrays", "paths", "bytes", "pillow"])
def test_images_in_the_place_of_embeddings_are_named(form, data):
    from PIL import Image

    images = {
        "arrays": data.images, "paths": ["a.png"] * N, "bytes": [b"x"] * N,
        "pillow": [Image.fromarray(one) for one in data.images],
    }[form]  # fmt: skip
    for estimator in (
        HeadSearchCV(),
        ZeroShotClassifier(CLASSES, **DEMO),
        LinearProbe(),
        PromptProbe(),
        EachLabel(LogisticRegression()),
        PromptSearchCV(CLASSES, **DEMO),
    ):
        with pytest.raises((TypeError, ValueError)) as error:
            estimator.fit(images, data.y)
        assert "before the classifier in a pipeline" in str(error.value)
        assert "make_zero_shot_pipeline" in str(error.value)
    with pytest.raises((TypeError, ValueError), match="embeddings"):
        LinearProbe().fit(data.X, data.y).predict(images)
    with pytest.raises(ValueError, match="NaN") as error:
        LinearProbe().fit(np.where(data.X > 0, np.nan, data.X), data.y)
    assert "images" not in str(error.value)
