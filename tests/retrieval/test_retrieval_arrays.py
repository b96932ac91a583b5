"""Exact search by inner products, near copies and results that differ."""

import sys

import forked
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from sk_medsiglip.retrieval import _selection, _top_rows


def make_unit(n, d, seed=0, dtype=np.float32):
    rows = np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def brute_force(queries, rows, n, allowed=None):
    """Scores in float64, rounded; of equal ones the lowest position first."""
    allowed = np.arange(len(rows)) if allowed is None else allowed
    some = rows[allowed].astype(np.float64)
    scores = np.vecdot(queries.astype(np.float64)[:, None], some).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(scores, order, axis=1), allowed[order]


def assert_found(found, expected):
    scores, positions = found
    assert scores.dtype == np.float32
    assert positions.dtype == np.int64
    assert_array_equal(scores, expected[0])
    assert_array_equal(positions, expected[1])


@pytest.fixture(params=["numpy", "torch"])
def engine(request, monkeypatch):
    """The library that multiplies, which is chosen by size otherwise."""
    use(request.param, monkeypatch)


def use(library, patch):
    module = pytest.importorskip("torch") if library == "torch" else None
    patch.setattr(_top_rows, "_choose_torch", lambda *_: (module, "cpu"))


# --- search -----------------------------------------------------------------------


@st.composite
def searches(draw):
    """Rows with many equal ones among them, queries, and what is asked."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n_rows, d = draw(st.integers(1, 700)), draw(st.sampled_from([1, 2, 7, 64, 130]))
    rows = make_unit(n_rows, d, rng)
    if draw(st.booleans()):  # few different ones
        rows = rows[rng.integers(0, min(n_rows, 9), n_rows)]
    if draw(st.booleans()):
        rows[rng.random(n_rows) < 0.3] = 0
    rows = rows.astype(draw(st.sampled_from([np.float32, np.float16])))
    queries = make_unit(draw(st.integers(1, 70)), d, rng)
    if draw(st.booleans()):  # each finds itself, or its likes
        queries[:] = rows[rng.integers(0, n_rows, len(queries))]
    share = draw(st.sampled_from([None, 0.0, 0.04, 0.4, 0.8, 0.98]))
    mask = None if share is None else rng.random(n_rows) < share
    if draw(st.booleans()):
        rows.flags.writeable = False
    n = draw(st.sampled_from([1, 3, 10, 60, n_rows, n_rows + 3]))
    block_rows = draw(st.none() | st.integers(1, 2 * n_rows))
    return queries, rows, n, mask, block_rows


@settings(max_examples=100, deadline=None)
@given(searches())
@pytest.mark.parametrize("engine_name", ["numpy", "torch"])
def test_search_equals_brute_force(engine_name, search):
    queries, rows, n, mask, block_rows = search
    allowed = None if mask is None else np.flatnonzero(mask)
    with pytest.MonkeyPatch.context() as patch:
        use(engine_name, patch)
        if block_rows is not None:
            patch.setattr(_top_rows, "_block_rows", lambda *_: block_rows)
        found = _top_rows.top_rows(queries, rows, n, allowed=allowed)
    assert_found(found, brute_force(queries, rows, n, allowed))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_search_equals_brute_force_at_full_width(engine, dtype):
    rows = make_unit(6000, 1152, dtype=dtype)
    queries = make_unit(40, 1152, seed=1)
    expected = brute_force(queries, rows, 10)
    assert_found(_top_rows.top_rows(queries, rows, 10), expected)
    assert_found(
        _top_rows.top_rows(queries[:1], rows, 10), [one[:1] for one in expected]
    )


def test_result_does_not_depend_on_the_block(engine, monkeypatch):
    """Though products of other shapes round in other ways."""
    rng = np.random.default_rng(0)
    # Cosines nearer to each other than float32 sums keep apart.
    rows = make_unit(1, 300) + 1e-6 * rng.standard_normal((900, 300))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows[500:600] = rows[100:200]
    queries = rows[:37]
    expected = brute_force(queries, rows, 20)
    assert_found(_top_rows.top_rows(queries, rows, 20), expected)
    assert_found(
        _top_rows.top_rows(queries[:1], rows, 20), [one[:1] for one in expected]
    )
    for size in (1, 17, 64, 333, 900, 5000):
        monkeypatch.setattr(_top_rows, "_block_rows", lambda *_, size=size: size)
        assert_found(_top_rows.top_rows(queries, rows, 20), expected)


@pytest.mark.parametrize("order", [1, -1])
def test_rows_in_order_of_their_scores(engine, order, monkeypatch):
    """Every block better than the one before, or none."""
    angles = np.linspace(1.5, 0, 30_000)[::order]
    rows = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    queries = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    monkeypatch.setattr(_top_rows, "_block_rows", lambda *_: 2048)
    found = _top_rows.top_rows(queries, rows, 7)
    assert_found(found, brute_force(queries, rows, 7))


def test_many_equal_rows_take_the_lowest_positions(engine, monkeypatch):
    rows = np.tile(make_unit(2, 16), (20_000, 1))
    monkeypatch.setattr(_top_rows, "_block_rows", lambda *_: 1000)
    scores, positions = _top_rows.top_rows(rows[:2], rows, 50)
    assert_array_equal(positions[0], np.arange(0, 100, 2))
    assert_array_equal(positions[1], np.arange(1, 101, 2))
    assert (scores[0] == scores[0, 0]).all()


def test_thousands_of_equal_rows_that_look_for_themselves(engine):
    rows = np.vstack([make_unit(100, 8), np.tile(make_unit(1, 8, seed=1), (9900, 1))])
    scores, positions = _top_rows.top_rows(rows, rows, 3)
    assert (positions[100:] == [100, 101, 102]).all()
    assert_found((scores[:100], positions[:100]), brute_force(rows[:100], rows, 3))


def test_zero_query_takes_the_first_rows(engine):
    scores, positions = _top_rows.top_rows(
        np.zeros((1, 8), np.float32), make_unit(99, 8), 4
    )
    assert_array_equal(positions, [[0, 1, 2, 3]])
    assert_array_equal(scores, [[0, 0, 0, 0]])


def test_more_queries_than_are_taken_at_a_time(engine, monkeypatch):
    monkeypatch.setattr(_top_rows, "_QUERIES", 7)
    rows = make_unit(300, 12)
    assert_found(
        _top_rows.top_rows(rows[:50], rows, 5), brute_force(rows[:50], rows, 5)
    )


def test_memory_mapped_rows(engine, tmp_path):
    rows = make_unit(3000, 32, dtype=np.float16)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    queries = make_unit(5, 32, seed=1)
    queries.flags.writeable = False
    expected = brute_force(queries, rows, 10)
    assert_found(_top_rows.top_rows(queries, mapped, 10), expected)
    mask = np.arange(0, 3000, 7)
    expected = brute_force(queries, rows, 10, mask)
    assert_found(_top_rows.top_rows(queries, mapped, 10, allowed=mask), expected)


def test_fewer_allowed_than_asked_for(engine):
    rows = make_unit(50, 8)
    _, positions = _top_rows.top_rows(rows[:2], rows, 5, allowed=np.array([3, 40]))
    assert sorted(positions[0]) == [3, 40]
    scores, positions = _top_rows.top_rows(rows[:2], rows, 5, allowed=np.arange(0))
    assert scores.shape == positions.shape == (2, 0)
    scores, positions = _top_rows.top_rows(rows[:2], rows[:0], 5)
    assert scores.shape == positions.shape == (2, 0)
    scores, positions = _top_rows.top_rows(rows[:0], rows, 5)
    assert scores.shape == positions.shape == (0, 5)


def test_coarser_products_find_the_same():
    """A process may have allowed products in bfloat16, or TF32 on a GPU.

    Not every CPU has them, so that factors are cut here. By torch's old switch, by
    both, and by the new one alone.
    """
    code = (
        "import torch, numpy as np\n"
        "from sk_medsiglip.retrieval import _top_rows\n"
        "from sk_medsiglip.retrieval._top_rows import top_rows\n"
        "def cut(array): return torch.tensor(array).bfloat16().float().numpy()\n"
        "fine = _top_rows._blocks\n"
        "def coarse(queries, rows, *rest):\n"
        "    return fine(cut(queries), cut(rows), *rest)\n"
        "_top_rows._blocks = coarse\n"
        "rng = np.random.default_rng(0)\n"
        "rows = 0.05 * rng.standard_normal((1500, 1152), dtype=np.float32)\n"
        "centres = rng.standard_normal((50, 1152), dtype=np.float32)\n"
        "rows += centres[np.arange(1500) % 50]\n"
        "rows /= np.linalg.norm(rows, axis=1, keepdims=True)\n"
        "exact = rows.astype(float)\n"
        "true = np.array([np.vecdot(exact, one) for one in exact[:24]])\n"
        "true = true.astype(np.float32)\n"
        "best = np.argsort(-true, axis=1, kind='stable')[:, :10]\n"
        "highest = np.take_along_axis(true, best, axis=1)\n"
        "def check_same():\n"
        "    scores, positions = top_rows(rows[:24], rows, 10)\n"
        "    np.testing.assert_array_equal(positions, best)\n"
        "    np.testing.assert_array_equal(scores, highest)\n"
        "torch.set_float32_matmul_precision('medium')\n"
        "check_same()\n"
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'\n"
        "check_same()\n"
        "torch.set_float32_matmul_precision('highest')\n"
        "torch.backends.mkldnn.matmul.fp32_precision = 'none'\n"
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'\n"
        "check_same()\n"
        "print('same, three times')\n"
    )
    done = forked.run_code(code)
    assert done.stdout == "same, three times\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="fork is Linux's")
def test_search_in_a_forked_child():
    """torch's threads do not survive a fork."""
    code = (
        "import multiprocessing, queue, sys\n"
        "import numpy as np, torch\n"
        "from sk_medsiglip.retrieval._top_rows import top_rows\n"
        "torch.set_num_threads(2)\n"
        "rows = np.random.default_rng(0).standard_normal((4000, 256))\n"
        "rows = rows.astype(np.float32)\n"
        "rows /= np.linalg.norm(rows, axis=1, keepdims=True)\n"
        "here = top_rows(rows[:40], rows, 3)[1]\n"
        "torch.mm(torch.ones(500, 500), torch.ones(500, 500))\n"
        "fork = multiprocessing.get_context('fork')\n"
        "results = fork.Queue()\n"
        "def work(): results.put(top_rows(rows[:40], rows, 3)[1])\n"
        "child = fork.Process(target=work)\n"
        "child.start()\n"
        "there = results.get(timeout=60)\n"
        "child.join()\n"
        "np.testing.assert_array_equal(here, there)\n"
    )
    ran = forked.run_code(code)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(tmp_path):
    """A child's peak, beyond what it held before: none of the cases needs a copy."""
    code = (
        "import re, sys\n"
        "import numpy as np, torch\n"
        "from sk_medsiglip.retrieval._top_rows import top_rows\n"
        "def held(): # what is the process's own, not pages of the file\n"
        "    status = open('/proc/self/status').read()\n"
        "    return int(re.search(r'RssAnon:\\s+(\\d+)', status)[1]) / 1024\n"
        "import threading, time\n"
        "def added(rows, n_queries=32, mask=None):\n"
        "    queries = np.random.default_rng(0).standard_normal((n_queries, 128))\n"
        "    queries /= np.linalg.norm(queries, axis=1, keepdims=True)\n"
        "    queries = queries.astype(np.float32)\n"
        "    peak, over = 0, False\n"
        "    def watch():\n"
        "        nonlocal peak\n"
        "        while not over:\n"
        "            peak = max(peak, held())\n"
        "            time.sleep(0.002)\n"
        "    watcher = threading.Thread(target=watch)\n"
        "    watcher.start()\n"
        "    top_rows(queries, rows, 10, allowed=mask)\n"
        "    over = True\n"
        "    watcher.join()\n"
        "    print(peak - before)\n"
        "rows, alike = (np.load(path, mmap_mode='r') for path in sys.argv[1:])\n"
        "top_rows(np.eye(2, 128, dtype=np.float32), rows[:5000], 10)\n"
        "before = held()\n"
        "added(rows)\n"
        "added(rows, mask=np.arange(0, len(rows), 3))\n"
        "added(rows, n_queries=300)\n"
        "added(alike)\n"
    )
    n, d = 250_000, 128  # 64 MB of float16, 128 MB of float32
    paths = [tmp_path / "rows.npy", tmp_path / "alike.npy"]
    for path in paths:
        mapped = np.lib.format.open_memmap(path, "w+", np.float16, (n, d))
        if path.stem == "alike":
            mapped[:] = make_unit(1, d)
        else:
            for start in range(0, n, 50_000):
                mapped[start : start + 50_000] = make_unit(50_000, d, start)
        mapped.flush()
    ran = forked.run_code(code, *paths)
    assert ran.returncode == 0, ran.stderr
    cases = ["mapped", "masked", "many queries", "all alike"]
    found = dict(zip(cases, map(float, ran.stdout.split()), strict=True))
    # The most of it is 16 MB of scores and their peaks, and what numpy and torch pool.
    assert max(found.values()) < 90, found


def test_a_device_that_is_not_there_is_told():
    import torch  # noqa: F401 - so that a device is looked for

    rows = make_unit(10, 4)
    with pytest.raises(ValueError, match="'nonsense'"):
        _top_rows.top_rows(rows, rows, 1, device="nonsense")


# --- near copies ------------------------------------------------------------------


def make_copies(n, d, seed=0):
    """Vectors of any length, some equal, some near to others, in no order."""
    rng = np.random.default_rng(seed)
    different = rng.standard_normal((max(1, n // 3), d))
    vectors = different[rng.integers(0, len(different), n)]
    vectors += rng.choice([0, 0.02, 0.1, 0.3], n)[:, None] * rng.standard_normal((n, d))
    return (vectors * rng.uniform(0.1, 9, (n, 1))).astype(np.float32)


def all_cosines(vectors):
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    cosines = np.vecdot(vectors[:, None], vectors) / np.outer(lengths, lengths)
    return cosines.astype(np.float32)


def keep_first(near):
    """The rule in its few lines."""
    groups = []
    for row in range(len(near)):
        like = [one for one in range(row) if groups[one] == one and near[row, one]]
        groups.append(like[0] if like else row)
    return groups


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 130),
    st.integers(2, 40),
    st.integers(0, 1000),
    st.sampled_from([0.5, 0.9, 0.98, 0.999, 1.0]),
    st.integers(1, 200),
)
def test_near_duplicates_by_all_cosines(n, d, seed, threshold, block):
    vectors = make_copies(n, d, seed)
    near = all_cosines(vectors) >= np.float32(threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_selection, "_BLOCK", block)
        groups = _selection.near_duplicates(vectors, threshold=threshold)
    assert groups.dtype == np.int64
    assert_array_equal(groups, keep_first(near))


def test_exact_and_scaled_copies_are_near_at_one():
    vectors = make_unit(40, 1152).astype(np.float64)
    vectors = np.vstack([vectors, vectors, 3.7 * vectors])
    groups = _selection.near_duplicates(vectors, threshold=1)
    assert_array_equal(groups, np.tile(np.arange(40), 3))


def test_thousands_of_one_picture_take_no_pairs():
    vectors = np.tile(make_unit(2, 8), (5_000, 1))
    groups = _selection.near_duplicates(vectors, threshold=1)
    assert_array_equal(groups, np.tile([0, 1], 5_000))


def test_zero_vectors_are_near_to_nothing():
    vectors = np.array([[0, 0], [1, 0], [0, 0], [1, 0.01]], np.float16)
    assert_array_equal(
        _selection.near_duplicates(vectors, threshold=0.98), [0, 1, 2, 1]
    )
    assert _selection.near_duplicates(np.empty((0, 5)), threshold=0.98).shape == (0,)


# --- results that differ ----------------------------------------------------------


def naive_mmr(scores, vectors, n, diversity):
    """Carbonell and Goldstein's formula, word by word."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = [int(np.argmax(scores))]
    while len(chosen) < min(n, len(scores)):
        left = [one for one in range(len(scores)) if one not in chosen]
        worth = [
            (1 - diversity) * scores[one]
            - diversity * max(np.vecdot(unit[one], unit[other]) for other in chosen)
            for one in left
        ]
        chosen.append(left[int(np.argmax(worth))])
    return chosen


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(0, 1000),
    st.sampled_from([0, 0.2, 0.5, 0.9, 1]),
)
def test_marginal_relevance_by_the_formula(n_candidates, n, seed, diversity):
    vectors = make_copies(n_candidates, 6, seed).astype(np.float64)
    query = np.random.default_rng(seed).standard_normal(6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.vecdot(unit, query / np.linalg.norm(query))
    found = _selection.maximal_marginal_relevance(
        scores, vectors, n, diversity=diversity
    )
    assert found.dtype == np.int64
    assert_array_equal(found, naive_mmr(scores, vectors, n, diversity))


def test_no_diversity_is_the_order_of_scores_and_all_leaves_copies_for_last():
    vectors = np.repeat(np.eye(4), 3, axis=0)
    scores = np.linspace(1, 0.5, 12)
    kept = vectors.copy()
    found = _selection.maximal_marginal_relevance(scores, vectors, 12, diversity=0)
    assert_array_equal(found, np.arange(12))
    found = _selection.maximal_marginal_relevance(scores, vectors, 5, diversity=1)
    assert_array_equal(found, [0, 3, 6, 9, 1])
    assert_array_equal(vectors, kept)
