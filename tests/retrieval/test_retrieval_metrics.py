"""Figures of searches, against definitions in few lines, scikit-learn and ranx."""

import warnings
from functools import partial
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
)

from sk_medsiglip.retrieval import metrics

WITH_K = [metrics.recall_at_k, metrics.hit_rate_at_k, metrics.precision_at_k]
WITHOUT_K = [
    metrics.mean_average_precision,
    metrics.ndcg,
    metrics.mean_reciprocal_rank,
    metrics.median_rank,
]


def make_case(n_queries=30, n_items=60, seed=0, ties=False, grades=4):
    """Grades, of which each query has one above 0, and scores that know of them."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, grades, (n_queries, n_items))
    y_true *= rng.random(y_true.shape) < 0.2
    y_true[np.arange(n_queries), rng.integers(0, n_items, n_queries)] = grades - 1
    y_score = y_true + 2 * rng.standard_normal(y_true.shape)
    return y_true, np.round(y_score) if ties else y_score


# --- definitions, of one order of the items ---------------------------------------
def recall(grades, k):
    return (grades[:k] > 0).sum() / (grades > 0).sum()


def hit_rate(grades, k):
    return float((grades[:k] > 0).any())


def precision(grades, k):
    return (grades[:k] > 0).sum() / k


def average_precision(grades, k=None):
    relevant = grades > 0
    at = np.flatnonzero(relevant[:k])
    return sum(relevant[: i + 1].mean() for i in at) / relevant.sum()


def gain_ratio(grades, k=None):
    def gain(order):
        return sum(g / np.log2(i + 2) for i, g in enumerate(order[:k]))

    return gain(grades) / gain(np.sort(grades)[::-1])


def first_rank(grades):
    return np.flatnonzero(grades > 0)[0] + 1


def reciprocal_rank(grades, k=None):
    rank = first_rank(grades)
    return 1 / rank if k is None or rank <= k else 0


DEFINED = {
    metrics.recall_at_k: recall,
    metrics.hit_rate_at_k: hit_rate,
    metrics.precision_at_k: precision,
    metrics.mean_average_precision: average_precision,
    metrics.ndcg: gain_ratio,
    metrics.mean_reciprocal_rank: reciprocal_rank,
    metrics.median_rank: first_rank,
}


@pytest.mark.parametrize("k", [1, 3, 10, 60])
@pytest.mark.parametrize("metric", [*WITH_K, *WITHOUT_K[:3]])
def test_figures_by_their_definitions(metric, k):
    y_true, y_score = make_case()
    orders = np.argsort(-y_score, axis=1)
    expected = [
        DEFINED[metric](row[order], k)
        for row, order in zip(y_true, orders, strict=True)
    ]
    assert_allclose(metric(y_true, y_score, k=k, per_query=True), expected)
    assert metric(y_true, y_score, k=k) == pytest.approx(np.mean(expected))


def test_median_rank_by_its_definition():
    y_true, y_score = make_case()
    orders = np.argsort(-y_score, axis=1)
    expected = [first_rank(t[o]) for t, o in zip(y_true, orders, strict=True)]
    assert_array_equal(metrics.median_rank(y_true, y_score, per_query=True), expected)
    assert metrics.median_rank(y_true, y_score) == np.median(expected)


# --- ties -------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 0, 1, 3]), st.integers(0, 2)),
        min_size=1,
        max_size=6,
    ).filter(lambda items: any(grade for grade, _ in items)),
    st.data(),
)
def test_tied_items_count_as_the_mean_of_all_orders(items, data):
    grades, scores = (np.array(part) for part in zip(*items, strict=True))
    orders = [
        np.array(order)
        for order in permutations(range(len(grades)))
        if (np.diff(scores[list(order)]) <= 0).all()
    ]
    k = data.draw(st.integers(1, len(grades)))
    for metric, definition in DEFINED.items():
        options = {} if metric is metrics.median_rank else {"k": k}
        expected = np.mean([definition(grades[o], **options) for o in orders])
        assert metric([grades], [scores], **options) == pytest.approx(expected)


@pytest.mark.parametrize("metric", DEFINED)
def test_order_of_the_items_is_of_no_matter(metric):
    y_true, y_score = make_case(ties=True)
    order = np.random.default_rng(1).permutation(y_true.shape[1])
    options = {"k": 10} if metric in WITH_K else {}
    expected = metric(y_true, y_score, **options, per_query=True)
    shuffled = metric(y_true[:, order], y_score[:, order], **options, per_query=True)
    assert_allclose(shuffled, expected)


def test_hit_rate_of_large_groups_of_ties():
    """Of 1,000 alike, 30 relevant: none of 50 drawn is, by the hypergeometric law."""
    from scipy.stats import hypergeom

    y_true = np.zeros((1, 1000))
    y_true[0, :30] = 1
    found = metrics.hit_rate_at_k(y_true, np.ones((1, 1000)), k=50)
    assert found == pytest.approx(1 - hypergeom(1000, 30, 50).pmf(0), rel=1e-12)
    assert metrics.hit_rate_at_k(y_true, np.ones((1, 1000)), k=971) == 1
    one = np.zeros((1, 10**6))
    one[0, 7] = 1
    found = metrics.hit_rate_at_k(one, np.ones((1, 10**6)), k=5)
    assert found == pytest.approx(5e-6, rel=1e-9)


# --- others' implementations ------------------------------------------------------
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("k", [None, 1, 7])
def test_ndcg_is_that_of_scikit_learn(k, ties):
    y_true, y_score = make_case(ties=ties)
    expected = ndcg_score(y_true, y_score, k=k)
    assert metrics.ndcg(y_true, y_score, k=k) == pytest.approx(expected)


def test_average_precision_is_that_of_scikit_learn():
    y_true, y_score = make_case(grades=2)
    found = metrics.mean_average_precision(y_true, y_score, per_query=True)
    pairs = zip(y_true, y_score, strict=True)
    assert_allclose(found, [average_precision_score(t, s) for t, s in pairs])
    expected = label_ranking_average_precision_score(y_true, y_score)
    assert found.mean() == pytest.approx(expected)


# Not in the test group: it brings numba. Its compiled loops warn.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unsafe cast from uint64:Warning")
def test_figures_are_those_of_ranx():
    ranx = pytest.importorskip("ranx", reason="it brings numba; checked where it is")
    y_true, y_score = make_case(n_queries=50, n_items=200)
    qrels = ranx.Qrels(
        {
            f"q{q}": {f"d{d}": int(g) for d, g in enumerate(row) if g}
            for q, row in enumerate(y_true)
        }
    )
    run = ranx.Run(
        {
            f"q{q}": {f"d{d}": float(s) for d, s in enumerate(row)}
            for q, row in enumerate(y_score)
        }
    )
    sides = {
        "recall@10": partial(metrics.recall_at_k, k=10),
        "hit_rate@3": partial(metrics.hit_rate_at_k, k=3),
        "precision@10": partial(metrics.precision_at_k, k=10),
        "map": metrics.mean_average_precision,
        "map@20": partial(metrics.mean_average_precision, k=20),
        "ndcg": metrics.ndcg,
        "ndcg@10": partial(metrics.ndcg, k=10),
        "ndcg_burges@10": partial(metrics.ndcg, k=10, gain="exponential"),
        "mrr": metrics.mean_reciprocal_rank,
    }
    theirs = ranx.evaluate(qrels, run, list(sides))
    for name, metric in sides.items():
        assert metric(y_true, y_score) == pytest.approx(theirs[name]), name


# --- inputs -----------------------------------------------------------------------
@pytest.mark.parametrize("metric", DEFINED)
def test_columns_of_mates_are_a_matrix_with_one_each(metric):
    rng = np.random.default_rng(0)
    y_score, mates = rng.standard_normal((20, 30)), rng.integers(0, 30, 20)
    matrix = mates[:, np.newaxis] == np.arange(30)
    assert metric(mates, y_score) == metric(matrix, y_score)


def test_hit_rate_is_recall_where_each_query_has_one_mate():
    y_score = np.random.default_rng(0).standard_normal((40, 50))
    mates = np.arange(40)
    for k in (1, 5, 50):
        recall = metrics.recall_at_k(mates, y_score, k=k)
        assert metrics.hit_rate_at_k(mates, y_score, k=k) == recall


@pytest.mark.parametrize("metric", DEFINED)
def test_blocks_of_queries_do_not_matter(metric, monkeypatch):
    y_true, y_score = make_case(ties=True)
    expected = metric(y_true, y_score, per_query=True)
    monkeypatch.setattr("sk_medsiglip.retrieval.metrics._ranking._SCORES", 150)
    assert_allclose(metric(y_true, y_score, per_query=True), expected, rtol=1e-12)


@pytest.mark.parametrize("metric", DEFINED)
def test_numeric_types_and_containers(metric):
    y_true, y_score = make_case(n_queries=5, ties=True)
    expected = metric(y_true, y_score)
    assert metric(y_true.astype(float).tolist(), y_score.tolist()) == expected
    y_score = y_score.astype(np.float16)
    assert metric(y_true.astype(np.uint8), y_score.astype(np.int64)) == expected
    assert metric(np.asfortranarray(y_true), y_score[:, ::-1][:, ::-1]) == expected
    assert isinstance(expected, float)


def test_bool_relevance_counts_as_one():
    y_true, y_score = make_case(grades=2)
    for metric in DEFINED:
        assert metric(y_true > 0, y_score) == metric(y_true, y_score)


def test_items_left_out_by_minus_infinity_do_not_count():
    """An image that looks for its likes does not find itself."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 25)
    y_true = metrics.relevance_of_labels(labels, labels)
    y_score = rng.standard_normal(y_true.shape)
    others = ~np.eye(25, dtype=bool)
    left_out = np.where(others, y_score, -np.inf), np.where(others, y_true, 0)
    without = [part[others].reshape(25, 24) for part in (y_score, y_true)]
    for metric in DEFINED:
        options = {} if metric is metrics.median_rank else {"k": 8}
        found = metric(left_out[1], left_out[0], **options)
        assert found == pytest.approx(metric(without[1], without[0], **options))


@pytest.mark.parametrize(
    "metric", [metrics.recall_at_k, metrics.mean_average_precision]
)
def test_items_of_a_search_with_the_number_of_all_relevant(metric):
    y_true, y_score = make_case()
    order = np.argsort(-y_score, axis=1)[:, :12]
    found = [np.take_along_axis(part, order, axis=1) for part in (y_true, y_score)]
    totals = (y_true > 0).sum(axis=1)
    expected = metric(y_true, y_score, k=12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a query that found nothing has a 0
        assert metric(*found, k=12, n_relevant=totals) == pytest.approx(expected)
    with pytest.raises(ValueError, match="more"):
        metric(*found, k=12, n_relevant=np.zeros(len(totals)))
    with pytest.raises(ValueError, match="n_relevant"):
        metric(*found, k=12, n_relevant=totals[:3])


# --- nothing relevant -------------------------------------------------------------
@pytest.mark.parametrize("metric", DEFINED)
def test_queries_without_anything_relevant_are_counted_and_left_out(metric):
    y_true, y_score = make_case()
    y_true[[3, 17]] = 0
    kept = np.delete(np.arange(30), [3, 17])
    expected = metric(y_true[kept], y_score[kept])
    with pytest.warns(UndefinedMetricWarning, match="2 of") as caught:
        assert metric(y_true, y_score) == pytest.approx(expected)
    assert caught[0].filename == __file__
    skip = {"without_relevant": "skip"}
    assert metric(y_true, y_score, **skip) == pytest.approx(expected)
    each = metric(y_true, y_score, **skip, per_query=True)
    assert_array_equal(np.flatnonzero(np.isnan(each)), [3, 17])
    with pytest.raises(ValueError, match="2 of"):
        metric(y_true, y_score, without_relevant="raise")
    with pytest.raises(ValueError, match="30 of"):
        metric(np.zeros_like(y_true), y_score, **skip)


# --- chance -----------------------------------------------------------------------
def test_chance_by_the_formulas():
    y_true, _ = make_case(grades=2)
    n, share = y_true.shape[1], y_true.mean()
    level = metrics.chance_level
    assert level(metrics.precision_at_k, y_true, k=7) == pytest.approx(share)
    assert level(metrics.recall_at_k, y_true, k=7) == pytest.approx(7 / n)
    pairs = np.arange(40)
    assert level(metrics.hit_rate_at_k, pairs, n_items=80, k=5) == pytest.approx(5 / 80)
    assert level(metrics.median_rank, pairs, n_items=99) == 50


@pytest.mark.parametrize("metric", [*WITH_K, *WITHOUT_K[:2]])
def test_chance_is_the_mean_of_random_scores(metric):
    y_true, _ = make_case(n_queries=8, n_items=30)
    rng = np.random.default_rng(0)
    drawn = [metric(y_true, rng.random(y_true.shape), k=6) for _ in range(1500)]
    chance = metrics.chance_level(metric, y_true, k=6)
    error = np.std(drawn) / np.sqrt(len(drawn))
    assert abs(np.mean(drawn) - chance) < 4 * error
    each = metrics.chance_level(metric, y_true, k=6, per_query=True)
    assert each.mean() == pytest.approx(chance)


def test_chance_needs_the_number_of_items():
    with pytest.raises(ValueError, match="n_items"):
        metrics.chance_level(metrics.recall_at_k, np.arange(4), k=1)
    with pytest.raises(ValueError, match="n_items is 5"):
        metrics.chance_level(metrics.recall_at_k, np.eye(4), n_items=5, k=1)


# --- relevance --------------------------------------------------------------------
def test_relevance_of_classes_and_of_findings():
    found = metrics.relevance_of_labels(["a", "b"], ["b", "a", "b", "c"])
    assert_array_equal(found, [[0, 1, 0, 0], [1, 0, 1, 0]])
    found = metrics.relevance_of_labels(
        [[1, 1], [0, 0]], np.array([[True, True], [False, True], [False, False]])
    )
    assert_array_equal(found, [[2, 1, 0], [0, 0, 0]])
    assert found.dtype == np.int64


def test_relevance_refuses():
    with pytest.raises(ValueError, match="both"):
        metrics.relevance_of_labels([1, 0], [[1, 0]])
    with pytest.raises(ValueError, match="2 findings"):
        metrics.relevance_of_labels([[1, 0]], [[1, 0, 0]])
    for wrong in (-1, 2, np.nan):
        with pytest.raises(ValueError, match="item_labels"):
            metrics.relevance_of_labels([[1, 0]], [[1, wrong]])


# --- what is refused --------------------------------------------------------------
@pytest.mark.parametrize("metric", DEFINED)
def test_wrong_arguments_are_told(metric):
    scores = np.eye(3)
    with pytest.raises(ValueError, match="newaxis"):
        metric([1, 0, 0], scores[0])
    with pytest.raises(ValueError, match="y_true"):
        metric(np.eye(3)[:, :2], scores)
    with pytest.raises(ValueError, match="columns"):
        metric([0, 1, 3], scores)
    with pytest.raises(ValueError, match="one-dimensional"):
        metric([True, True, False], scores)
    with pytest.raises(ValueError, match="NaN"):
        metric(np.eye(3), np.where(scores, np.nan, 0))
    with pytest.raises(ValueError, match="NaN"):
        metric(np.eye(3), scores.astype(str))
    for wrong in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="y_true"):
            metric(np.where(scores, wrong, 0), scores)
    with pytest.raises(ValueError, match="y_score"):
        metric(np.empty((0, 3)), np.empty((0, 3)))
    options = {} if metric is metrics.median_rank else {"k": 2}
    with pytest.raises(ValueError, match="without_relevant"):
        metric(np.eye(3), scores, without_relevant="zero", **options)
    if options:
        for wrong in (0, 4, 1.5):
            with pytest.raises(ValueError, match="k must"):
                metric(np.eye(3), scores, k=wrong)


def test_gains_that_are_refused():
    with pytest.raises(ValueError, match="gain"):
        metrics.ndcg(np.eye(3), np.eye(3), gain="log")
    with pytest.raises(ValueError, match="grades"):
        metrics.ndcg(2000 * np.eye(3), np.eye(3), gain="exponential")
