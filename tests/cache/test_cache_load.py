"""The store with four processes writing and four reading, for as long as it takes."""

import contextlib
import random
import time

import forked
import pytest
from test_cache import SPACE, fingerprint, read, vectors_of

from sk_medsiglip.cache import EmbeddingCache

SHARED = 2000  # contents that every writer stores, in an order of its own


def write_until(location, name, deadline, pipe):
    """Store rows that all store and rows of one's own; report what is there.

    Late starters do their least too, so that a busy machine ends no test early.
    """
    chosen = random.Random(name)
    if name in ("writer 0", "writer 1"):
        # These two are always at it. The process ends before anything is undone.
        few = "sk_medsiglip.cache._recent_rows.MOST_RECENT"
        pytest.MonkeyPatch().setattr(few, 300)
    cache = EmbeddingCache(location)
    own = 0
    while own < 240 or time.time() < deadline:
        contents = [chosen.randrange(SHARED) for _ in range(20)]
        contents += [f"{name} {own + i}" for i in range(12)]
        own += 12
        contents = list(dict.fromkeys(contents))
        known = [fingerprint(content) for content in contents]
        cache.put_many(SPACE, known, vectors_of(known))
        assert read(cache, known).all()
        if chosen.random() < 0.05:
            cache.close()
    pipe.send(own)


def read_until(location, name, deadline, pipe):
    """Read what may be there; whatever is found must be right (``read`` checks)."""
    chosen = random.Random(name)
    cache = EmbeddingCache(location)
    n_found = 0
    while not n_found or time.time() < deadline:
        contents = [chosen.randrange(SHARED) for _ in range(50)]
        contents += [f"writer 0 {chosen.randrange(500)}" for _ in range(10)]
        n_found += int(read(cache, [fingerprint(one) for one in contents]).sum())
        if chosen.random() < 0.02:
            cache.close()
    pipe.send(n_found)


@pytest.mark.parametrize(
    "seconds",
    [2, pytest.param(64, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_four_write_while_four_read(tmp_path, seconds):
    location = tmp_path / "store"
    deadline = time.time() + seconds  # of which starting takes some
    with contextlib.ExitStack() as stack:
        pipes = {}
        for i in range(4):
            for kind, work in (("writer", write_until), ("reader", read_until)):
                name = f"{kind} {i}"
                ours, theirs = forked.context.Pipe()
                process = forked.context.Process(
                    target=work, args=(location, name, deadline, theirs)
                )
                process.start()
                theirs.close()
                stack.callback(process.join)
                stack.callback(process.kill)
                pipes[name] = ours
        told = {name: pipe.recv() for name, pipe in pipes.items()}
    cache = EmbeddingCache(location)
    for name, count in told.items():
        assert count > 0, name
        if name.startswith("writer"):
            own = [fingerprint(f"{name} {i}") for i in range(count)]
            assert read(cache, own).all()
    report = cache.verify()
    assert report.ok
    n_own = sum(count for name, count in told.items() if name.startswith("writer"))
    assert n_own < report.rows <= n_own + SHARED
    cache.close()
