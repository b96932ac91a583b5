"""Bags in large numbers: the time that ``BagProbe`` takes, and the memory.

References
----------
.. [1] Ilse et al., "Attention-based Deep Multiple Instance Learning", ICML 2018.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from sk_medsiglip import BagProbe, EmbeddingCache
from sk_medsiglip.cache import BagPacking, Space
from sk_medsiglip.embedding._model_rows import StoredRows
from sk_medsiglip.embedding._stored_bags import BagForm, StoredBags

N_INSTANCES = 64
PIECE = 100  # bags that are made and written together

Array = NDArray[Any]


def make_many(n: int, width: int, seed: int) -> tuple[Array, Array]:
    """Return bags of 64 vectors; in half of them one is five deviations away."""
    rng = np.random.default_rng(seed)
    spread = (np.arange(1, width + 1) ** -0.5).astype(np.float32)
    X = np.empty((n, N_INSTANCES, width), np.float32)
    for bag in X:
        bag[:] = rng.standard_normal(bag.shape, dtype=np.float32)
    X *= spread
    y = np.arange(n) % 2
    way = np.random.default_rng(0).standard_normal(width, dtype=np.float32)
    way *= 5 * spread / np.linalg.norm(way)
    X[np.arange(n), rng.integers(N_INSTANCES, size=n)] += y[:, None] * way
    return X, y


def train_attention(X: Array, y: Array, epochs: int) -> Callable[[Array], Array]:
    """Train attention-based pooling [1]_ with AdamW, and return its scores."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    width = X.shape[2]
    look, score = nn.Sequential(nn.Linear(width, 128), nn.Tanh()), nn.Linear(128, 1)
    head = nn.Linear(width, 1)
    parts = nn.ModuleList([look, score, head])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=1e-3, weight_decay=0.01)

    def answer(bags: Any) -> Any:
        shares = score(look(bags)).softmax(dim=1)
        return head((shares * bags).sum(dim=1))[:, 0]

    target = torch.as_tensor(y, dtype=torch.float32)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(64):
            bags = torch.from_numpy(X[rows.numpy()])
            loss = nn.functional.binary_cross_entropy_with_logits(
                answer(bags), target[rows]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def decide(bags: Array) -> Array:
        with torch.no_grad():
            pieces = torch.from_numpy(bags).split(256)
            return torch.cat([answer(piece) for piece in pieces]).numpy()

    return decide


def measure_speed(n: int, width: int, epochs: int) -> dict[str, Any]:
    """Return seconds of a fit with five folds and penalties, and of its rival."""
    X, y = make_many(n, width, 1)
    X_test, y_test = make_many(min(n, 1000), width, 2)
    figures: dict[str, Any] = {}
    start, used = time.perf_counter(), time.process_time()
    probe = BagProbe(np.logspace(-3, 0, 5), cv=5).fit(X, y)
    auc = roc_auc_score(y_test, probe.decision_function(X_test))
    figures["BagProbe, 5 folds, 5 penalties and the refit"] = {
        "s": time.perf_counter() - start,
        "CPU, s": time.process_time() - used,
        "AUC": float(auc),
        "steps, most": int(probe.n_iter_.max()),
        "memory of the process, GB": memory(),
    }
    print(figures, flush=True)
    start, used = time.perf_counter(), time.process_time()
    decide = train_attention(X, y, epochs)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    figures[f"attention, one training of {epochs} epochs"] = {
        "s": seconds,
        "CPU, s": used,
        "AUC": float(roc_auc_score(y_test, decide(X_test))),
    }
    print(figures, flush=True)
    return figures


def measure_store(n_stored: int, n_bags: int, width: int) -> dict[str, Any]:
    """Return the memory of a fit on bags that stay in a store.

    The steps are few, since memory does not grow with them. Bags that were not written
    are those of others again, read from the disk like all.
    """
    figures: dict[str, Any] = {"bags": n_bags, "bags on disk": n_stored}
    with tempfile.TemporaryDirectory() as folder:
        stored = write_bags(EmbeddingCache(folder), n_stored, width)
        bags = stored[np.arange(n_bags) % n_stored]
        y = np.arange(n_bags) % 2
        figures["memory before the fit, GB"] = memory()
        start, used = time.perf_counter(), time.process_time()
        probe = BagProbe(np.logspace(-3, 0, 5), cv=5, max_iter=1).fit(bags, y)
        figures["s, one step of 5 folds, 5 penalties and the refit"] = (
            time.perf_counter() - start
        )
        figures["CPU, s"] = time.process_time() - used
        figures["memory of the process, GB"] = memory()
        start = time.process_time()
        probe.decision_function(bags[:PIECE])
        figures["CPU, ms to score a bag"] = 1e3 * (time.process_time() - start) / PIECE
    return figures


def write_bags(cache: EmbeddingCache, n: int, width: int) -> StoredBags:
    """Write random bags to a store as the embedder does, and return them."""
    rng = np.random.default_rng(0)
    packing = BagPacking(N_INSTANCES, width, "int8")
    space = Space(
        "cells", "folder", "0" * 40, "int8", "float32", "torch", packing.n_words
    )
    fingerprints = [blake3(i.to_bytes(8, "little")).digest() for i in range(n)]
    for start in range(0, n, PIECE):
        some = fingerprints[start : start + PIECE]
        shape = (len(some), N_INSTANCES, width)
        bags = rng.standard_normal(shape, dtype=np.float32)
        cache.put_many(space, some, packing.pack(bags))
    rows = StoredRows(cache, (space,), False)
    return StoredBags.of(rows, rows, BagForm(packing, False, False), fingerprints)


def memory() -> float:
    """Return the most memory that this process held, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
