"""Heads that know the prompts, each beside its paper's equation in a few lines."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_expit, log_softmax, softmax
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline

from sk_medsiglip import (
    LinearProbe,
    MedSigLIPEmbedder,
    PromptProbe,
    PrototypeClassifier,
    SSTextClassifier,
    TipAdapterClassifier,
    ZeroShotClassifier,
)
from sk_medsiglip.exceptions import PromptError

# Weights of the cache of shots that are tried.
ALPHAS = (0.01, 0.05, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)

HEADS = [PromptProbe, SSTextClassifier, TipAdapterClassifier, PrototypeClassifier]

CLASSES = {
    "effusion": ["pleural effusion", "fluid in the pleural space"],
    "heart": "an enlarged heart",
    "normal": "normal chest radiograph",
}
PAIR = {"effusion": {"positive": "pleural effusion", "negative": "no effusion"}}
PAIRS = {
    **PAIR,
    "cardiomegaly": {"positive": "enlarged heart", "negative": "normal heart size"},
}


@pytest.fixture(scope="module")
def X(phantom_vectors):
    return phantom_vectors


@pytest.fixture(scope="module")
def findings(phantoms):
    """Return effusion and cardiomegaly, in the order of the prompts."""
    names = list(phantoms.target_names)
    return phantoms.target[:, [names.index("effusion"), names.index("cardiomegaly")]]


@pytest.fixture(scope="module")
def classes(findings):
    return np.select(
        [findings[:, 0] == 1, findings[:, 1] == 1], ["effusion", "heart"], "normal"
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def prompt_vectors(prompts, X):
    clf = ZeroShotClassifier(prompts, model="demo").fit(X)
    return clf.class_embeddings_.astype(float), clf.logit_scale_


def pick(y, n, seed=0):
    """Return rows with ``n`` of each class."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.choice(np.flatnonzero(y == one), n, replace=False) for one in np.unique(y)]
    )


def softmaxed(logits):
    return softmax(logits, axis=1)


# ---------------------------------------------------------------- the papers' equations


def fair_count(F, center, T):
    """Return how many images the prompts count as by default."""
    of_images = ((F - center) ** 2).sum(1).mean() ** 0.5
    of_texts = ((T - T.mean(0)) ** 2).sum(1).mean() ** 0.5
    return 16 * of_images / of_texts


@pytest.mark.parametrize("tau", ["auto", None, 0.5])
def test_ss_text_is_its_equation(X, classes, tau):
    rows = np.concatenate([pick(classes, 4), np.flatnonzero(classes == "heart")[:5]])
    T, scale = prompt_vectors(CLASSES, X)
    F, y = unit(X[rows].astype(float)), classes[rows]
    names = np.unique(y)
    center = np.mean([F[y == c].mean(0) for c in names], axis=0)
    N = len(y)
    head = SSTextClassifier(CLASSES, model="demo", tau=tau).fit(X[rows], y)
    tau = {"auto": fair_count(F, center, T) / 3, None: 1 / scale}.get(tau, tau)
    W = []
    for c, t in zip(names, T - T.mean(0), strict=True):
        f = F[y == c] - center
        lambda_c = 1 / len(f)
        W.append(f.sum(0) / (N * lambda_c * tau) + t)
    W = unit(np.array(W))
    # The vectors of the prompts are in float32.
    np.testing.assert_allclose(head.class_embeddings_, W, atol=1e-7)
    expected = scale * (unit(X.astype(float)) - center) @ W.T
    np.testing.assert_allclose(head.decision_function(X), expected, atol=1e-5)
    np.testing.assert_allclose(head.predict_proba(X), softmaxed(expected), atol=1e-5)


@pytest.mark.parametrize("k", [0.0, 0.5, 3.0, "auto"])
def test_prototypes_are_their_equation(X, classes, k):
    rows = pick(classes, 4)
    T, scale = prompt_vectors(CLASSES, X)
    F, y = unit(X[rows].astype(float)), classes[rows]
    center = F.mean(0)  # as many of each class
    head = PrototypeClassifier(CLASSES, model="demo", shrinkage=k).fit(X[rows], y)
    k = fair_count(F, center, T) if k == "auto" else k
    W = [
        ((F[y == c] - center).sum(0) + k * t) / (4 + k)
        for c, t in zip(np.unique(y), T - T.mean(0), strict=True)
    ]
    np.testing.assert_allclose(head.class_embeddings_, unit(np.array(W)), atol=1e-7)
    expected = scale * (unit(X.astype(float)) - center) @ unit(np.array(W)).T
    np.testing.assert_allclose(head.decision_function(X), expected, atol=1e-5)


def test_tip_adapter_is_its_equation(X, classes):
    rows = pick(classes, 4)
    T, scale = prompt_vectors(CLASSES, X)
    F, f = unit(X[rows].astype(float)), unit(X.astype(float))
    L = (classes[rows][:, None] == np.unique(classes)).astype(float)
    head = TipAdapterClassifier(CLASSES, model="demo", alpha=2.0, beta=3.0)
    head.fit(X[rows], classes[rows])
    expected = 2.0 * np.exp(-3.0 * (1 - f @ F.T)) @ L + scale * f @ T.T
    np.testing.assert_allclose(head.decision_function(X), expected, atol=1e-8)
    assert (head.alpha_, head.beta_) == (2.0, 3.0)


def test_tip_adapter_f_lowers_the_loss_of_its_shots(X, classes):
    torch = pytest.importorskip("torch")
    rows = pick(classes, 6)
    settings = {"model": "demo", "alpha": 2.0, "beta": 3.0}
    plain = TipAdapterClassifier(CLASSES, **settings).fit(X[rows], classes[rows])
    tuned = TipAdapterClassifier(CLASSES, fine_tune=True, random_state=0, **settings)
    tuned.fit(X[rows], classes[rows])
    before, after = (
        log_loss(classes[rows], one.predict_proba(X[rows])) for one in (plain, tuned)
    )
    assert after < before
    # The same twenty steps by torch: all shots are one batch.
    T, scale = prompt_vectors(CLASSES, X)
    f = torch.tensor(unit(X[rows].astype(float)))
    target = torch.tensor(np.searchsorted(np.unique(classes), classes[rows]))
    L = torch.nn.functional.one_hot(target).double()
    keys = f.clone().requires_grad_()
    optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    for _ in range(20):
        logits = (
            2 * torch.exp(-3 * (1 - f @ keys.T)) @ L + scale * f @ torch.tensor(T).T
        )
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, target).backward()
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(tuned.keys_, keys.detach().numpy(), atol=1e-6)


def probe_objective(F, target, T, scale, C, K):
    """Return the objective of PromptProbe's docstring, of all its parameters."""
    weights = scale * T
    W0 = weights[1:] - weights[:1] if K == 2 else weights
    n_rows, d = W0.shape
    centered, shift = F - F.mean(0), (F - F.mean(0)) @ W0.T

    def value(parameters):
        v, e, b = np.split(parameters, [n_rows * d, n_rows * d + n_rows**2])
        v, e = v.reshape(n_rows, d), e.reshape(n_rows, n_rows)
        logits = F @ W0.T + shift @ e.T + centered @ v.T + b
        if K == 2:
            loss = -log_expit(np.where(target == 1, logits[:, 0], -logits[:, 0])).sum()
        else:
            loss = -log_softmax(logits, axis=1)[np.arange(len(F)), target].sum()
        return (
            loss
            + (v**2).sum() / (2 * C)
            + (e**2).sum() / (2 * 0.3**2)
            + (b**2).sum() / (2 * 3.0**2)
        )

    start = np.zeros(n_rows * d + n_rows**2 + n_rows)
    best = minimize(value, start, options={"maxiter": 2000, "gtol": 1e-6})
    v, e, b = np.split(best.x, [n_rows * d, n_rows * d + n_rows**2])
    v, e = v.reshape(n_rows, d), e.reshape(n_rows, n_rows)
    coef = W0 + v + e @ W0
    return coef, b - (v + e @ W0) @ F.mean(0)


@pytest.mark.parametrize("K", [2, 3])
def test_prompt_probe_minimises_what_it_says(K):
    # A few dimensions, so that a plain minimiser finds the same.
    rng = np.random.default_rng(0)
    T = unit(rng.normal(size=(K, 6)))
    target = np.arange(30) % K
    X = rng.normal(size=(30, 6)) + T[target]
    prompts = ZeroShotClassifier({"a": "a", "b": "b"}, model="demo")
    prompts.classes_, prompts.class_embeddings_ = np.arange(K), T
    prompts.logit_scale_ = 8.0
    head = PromptProbe(prompts, C=0.7, tol=1e-13).fit(X, target)
    coef, intercept = probe_objective(unit(X), target, T, 8.0, 0.7, K)
    found = unit(X) @ head.coef_.T + head.intercept_
    expected = unit(X) @ coef.T + intercept
    np.testing.assert_allclose(
        found - found.mean(1, keepdims=True) * (K > 2),
        expected - expected.mean(1, keepdims=True) * (K > 2),
        atol=2e-3,
    )


# ------------------------------------------------------------- between the extremes


@pytest.mark.parametrize("head", HEADS)
def test_a_class_without_a_sample_is_predicted_by_its_prompts(X, classes, head):
    rows = pick(classes, 6)
    rows = rows[classes[rows] != "normal"]
    fitted = head(CLASSES, model="demo").fit(X[rows], classes[rows])
    assert fitted.classes_.tolist() == ["effusion", "heart", "normal"]
    found = fitted.predict(X)
    assert (found == "normal").any()
    of_normal = fitted.predict_proba(X)[:, 2]
    assert roc_auc_score(classes == "normal", of_normal) > 0.8


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_few_labels_take_nothing_from_good_prompts(X, findings, head, n):
    zero_shot = ZeroShotClassifier(PAIRS, model="demo").fit(X)
    before = roc_auc_score(findings, zero_shot.decision_function(X), average=None)
    gains = []
    for label, (name, pair) in enumerate(PAIRS.items()):
        y = findings[:, label]
        prompts = ZeroShotClassifier({name: pair}, model="demo").fit(X)
        for seed in range(5):
            rows = pick(y, n, seed)
            fitted = head(prompts).fit(X[rows], y[rows])
            after = roc_auc_score(y, fitted.decision_function(X))
            gains.append(after - before[label])
    assert np.mean(gains) > -0.01


@pytest.mark.parametrize("head", [SSTextClassifier, PrototypeClassifier])
def test_how_alike_prompts_are_makes_no_difference(head):
    # Images differ in six dimensions; texts share most of their direction in a seventh.
    rng = np.random.default_rng(0)
    T = unit(rng.normal(size=(2, 6)))
    T[1] = -T[0]
    X = np.column_stack([rng.normal(size=(9, 6)), np.zeros(9)])
    vectors = []
    for share in (1.0, 0.1):
        prompts = ZeroShotClassifier({"a": "a", "b": "b"}, model="demo")
        apart = np.full((2, 1), np.sqrt(1 - share**2))
        prompts.classes_ = np.arange(2)
        prompts.class_embeddings_ = np.hstack([share * T, apart])
        prompts.logit_scale_ = 8.0
        vectors.append(head(prompts).fit(X, np.arange(9) % 2).class_embeddings_)
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_few_labels_are_enough_to_be_better_than_a_plain_head(X, classes, head):
    gains = []
    for seed in range(6):
        rows = pick(classes, 2, seed)
        test = np.setdiff1d(np.arange(len(X)), rows)
        with_prompts, without = (
            roc_auc_score(
                classes[test],
                one.fit(X[rows], classes[rows]).predict_proba(X[test]),
                multi_class="ovr",
            )
            for one in (head(CLASSES, model="demo"), head())
        )
        gains.append(with_prompts - without)
    assert np.mean(gains) > 0.005


def test_prompt_probe_goes_from_zero_shot_to_the_probe(X, findings):
    y = findings[:, 0]
    zero_shot = ZeroShotClassifier(PAIR, model="demo").fit(X)
    near = PromptProbe(zero_shot, C=1e-9).fit(X[:20], y[:20])
    ranks = np.corrcoef(zero_shot.decision_function(X), near.decision_function(X))[0, 1]
    assert ranks > 0.999999
    train, test = np.arange(300), np.arange(300, 400)
    anchored = PromptProbe(zero_shot).fit(X[train], y[train])
    plain = LinearProbe().fit(X[train], y[train])
    losses = [
        log_loss(y[test], one.predict_proba(X[test])) for one in (anchored, plain)
    ]
    assert losses[0] < losses[1] + 0.02
    free = PromptProbe().fit(X[train], y[train])
    assert log_loss(y[test], free.predict_proba(X[test])) < losses[1] + 0.05


def test_prompt_probe_chooses_c(X, findings, monkeypatch):
    y = findings[:, 0]
    rows = pick(y, 4)
    F = unit(X[rows].astype(float))
    variance = ((F - F.mean(0)) ** 2).sum(1).mean()
    closed = PromptProbe(PAIR, model="demo").fit(X[rows], y[rows])
    assert closed.C_ == pytest.approx(7 / variance)
    chosen = PromptProbe(PAIR, model="demo", C="cv", Cs=[1e-3, 1e3]).fit(X, y)
    assert chosen.C_ in (1e-3, 1e3)
    groups = np.where(y == 1, 0, 1 + np.arange(len(y)))
    of_one_patient = PromptProbe(PAIR, model="demo").fit(X, y, groups=groups)
    whole = unit(X.astype(float))
    spread = ((whole - whole.mean(0)) ** 2).sum(1).mean()
    # The closed rule, however many images: one patient cannot be split.
    assert of_one_patient.C_ == pytest.approx(7 / spread)
    with pytest.warns(UserWarning, match="choose"):
        PromptProbe(PAIR, model="demo", C="cv").fit(X, y, groups=groups)
    assert PromptProbe(PAIR, model="demo", C=2.0).fit(X, y).C_ == 2.0


def test_tip_adapter_chooses_and_falls_back(X, findings):
    y = findings[:, 0]
    rows = pick(y, 1)
    # One shot of each class shows nothing: zero-shot, and 1 where there is none.
    few = TipAdapterClassifier(PAIR, model="demo", fine_tune=True)
    few.fit(X[rows], y[rows])
    assert (few.alpha_, few.beta_) == (0.0, 5.5)
    zero_shot = ZeroShotClassifier(PAIR, model="demo").fit(X)
    np.testing.assert_allclose(
        few.decision_function(X), zero_shot.decision_function(X), atol=1e-4
    )
    plain = TipAdapterClassifier().fit(X[rows], y[rows])
    assert (plain.alpha_, plain.beta_) == (1.0, 5.5)
    assert TipAdapterClassifier().fit(X, y).alpha_ in ALPHAS
    many = TipAdapterClassifier(PAIR, model="demo").fit(X, y)
    half = TipAdapterClassifier(PAIR, model="demo", alpha=4.0).fit(X, y)
    assert half.alpha_ == 4.0
    assert many.keys_.shape == X.shape
    assert many.alpha_ in (0.0, *ALPHAS)
    assert many.beta_ in (1.0, 3.0, 5.5, 10.0, 20.0, 50.0)
    assert roc_auc_score(y, many.decision_function(X)) > 0.98


def test_tip_adapter_leaves_zero_shot_only_for_better(X, findings):
    y = findings[:, 0]
    rows = pick(y, 8)
    good = TipAdapterClassifier(PAIR, model="demo").fit(X[rows], y[rows])
    assert good.alpha_ == 0  # its prompts rank nearly all images right
    other = {"effusion": PAIRS["cardiomegaly"]}  # prompts of something else
    poor = TipAdapterClassifier(other, model="demo").fit(X[rows], y[rows])
    assert poor.alpha_ > 0
    zero_shot = ZeroShotClassifier(other, model="demo").fit(X)
    before, after = (
        roc_auc_score(y, one.decision_function(X)) for one in (zero_shot, poor)
    )
    assert after > before + 0.1


# --------------------------------------------------------------- shapes and manners


@pytest.mark.parametrize("head", HEADS)
def test_several_labels_by_every_head(X, findings, head):
    Y = findings.astype(float)
    Y[np.random.default_rng(0).random(Y.shape) < 0.3] = np.nan
    together = head(PAIRS, model="demo").fit(X, Y)
    assert together.findings_.tolist() == ["effusion", "cardiomegaly"]
    assert [one.tolist() for one in together.classes_] == [[0, 1], [0, 1]]
    assert together.predict_proba(X).shape == together.predict(X).shape == (len(X), 2)
    assert together.decision_function(X).shape == (len(X), 2)
    for label, name in enumerate(PAIRS):
        known = ~np.isnan(Y[:, label])
        alone = head({name: PAIRS[name]}, model="demo")
        alone.fit(X[known], Y[known, label].astype(int))
        assert alone.classes_.tolist() == [0, 1]
        np.testing.assert_allclose(
            together.decision_function(X)[:, label],
            alone.decision_function(X),
            atol=1e-6,
        )
        assert roc_auc_score(findings[:, label], alone.decision_function(X)) > 0.9
    without = head().fit(X, Y)
    assert without.predict_proba(X).shape == (len(X), 2)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("fitted", [True, False])
def test_prompts_may_be_a_zero_shot_classifier(X, classes, head, fitted):
    rows = pick(classes, 3)
    zero_shot = ZeroShotClassifier(CLASSES, model="demo")
    if fitted:
        zero_shot.fit(X)
    one = head(zero_shot).fit(X[rows], classes[rows])
    other = head(CLASSES, model="demo").fit(X[rows], classes[rows])
    np.testing.assert_allclose(one.decision_function(X), other.decision_function(X))
    again = clone(one).fit(X[rows], classes[rows])
    np.testing.assert_allclose(one.decision_function(X), again.decision_function(X))


@pytest.mark.parametrize("head", HEADS)
def test_scale_of_the_embeddings_does_not_matter(X, classes, head):
    rows = pick(classes, 3)
    scales = np.random.default_rng(0).uniform(0.1, 10, (len(X), 1))
    one = head(CLASSES, model="demo").fit(X[rows], classes[rows])
    other = head(CLASSES, model="demo").fit((X * scales)[rows], classes[rows])
    np.testing.assert_allclose(
        one.decision_function(X), other.decision_function(X * scales), atol=1e-3
    )


def test_in_a_search_with_embedder_and_groups(phantoms, findings):
    pipe = make_pipeline(MedSigLIPEmbedder("demo"), PromptProbe(PAIR, model="demo"))
    search = GridSearchCV(
        pipe,
        {"promptprobe__C": ["auto", 10.0]},
        scoring="roc_auc",
        cv=StratifiedKFold(3),
    )
    search.fit(phantoms.images[:90], findings[:90, 0])
    assert search.best_score_ > 0.9
    pipe.fit(phantoms.images, findings[:, 0], promptprobe__groups=phantoms.groups)
    assert pipe.score(phantoms.images, findings[:, 0]) > 0.8


@pytest.mark.parametrize("head", HEADS)
def test_wrong_input_is_refused(X, classes, findings, head):
    with pytest.raises(ValueError, match="nodule"):
        head(CLASSES, model="demo").fit(X[:2], ["normal", "nodule"])
    with pytest.raises(ValueError, match=r"\(n_samples,\)"):
        head(PAIR, model="demo").fit(X, findings)
    with pytest.raises(ValueError, match="order"):
        head(PAIRS, model="demo").fit(X, np.column_stack([findings, findings]))
    frame = pd.DataFrame(findings, columns=["cardiomegaly", "effusion"])
    with pytest.raises(ValueError, match="compare"):
        head(PAIRS, model="demo").fit(X, frame)
    with pytest.raises(PromptError, match="one class"):
        head({"a": "text"}, model="demo").fit(X, classes)
    with pytest.raises(TypeError, match="ZeroShotClassifier"):
        head("effusion", model="demo").fit(X, classes)
    with pytest.raises(ValueError, match="7 columns"):
        head(CLASSES, model="demo").fit(X[:, :7], classes)
    with pytest.raises(ValueError, match="one model"):
        head(ZeroShotClassifier(CLASSES, model="demo").fit(X)).fit(X[:, :7], classes)


def test_no_warning_where_nothing_is_wrong(X, findings):
    rows = pick(findings[:, 0], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for head in HEADS:
            head(PAIR, model="demo").fit(X[rows], findings[rows, 0]).predict_proba(X)
