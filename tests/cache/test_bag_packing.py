"""Bags packed into rows: how small, how exact, and through the whole store."""

import numpy as np
import pytest
from blake3 import blake3

from sk_medsiglip.cache import BagPacking, EmbeddingCache, Space

RNG = np.random.default_rng(0)


def cosines(bags, others):
    a, b = bags.astype(float), others.astype(float)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / lengths


def space_of(packing):
    recipe = f"pixels;grid=2;{packing.stored}"
    return Space("cells", "demo", "1f0c", recipe, "float32", "torch", packing.n_words)


def store_bags(cache, packing, n=6):
    """Store bags; return their space, fingerprints and stored form."""
    bags = RNG.normal(size=(n, packing.n_instances, packing.width)).astype(np.float32)
    fingerprints = [blake3(bag.tobytes()).digest() for bag in bags]
    cache.put_many(space_of(packing), fingerprints, packing.pack(bags))
    return space_of(packing), fingerprints, packing.unpack(packing.pack(bags))


@pytest.mark.parametrize("width", [33, 48, 1152])
@pytest.mark.parametrize(
    ("stored", "least"), [("int8", 0.9999), ("float16", 0.999999), ("float32", 1)]
)
def test_the_stored_form_is_close(width, stored, least):
    bags = RNG.normal(size=(4, 3, width)).astype(np.float32)
    # Rows of these models have a few values that are far larger than all others.
    bags[1, :, [0, 7, width - 1]] *= 300
    bags[2] *= 1e-3
    packing = BagPacking(3, width, stored)
    found = packing.unpack(packing.pack(bags))
    assert found.shape == bags.shape
    assert found.dtype == np.float32
    assert cosines(bags, found).min() >= least - 1e-12


@pytest.mark.parametrize("stored", ["int8", "float16", "float32"])
def test_zeros_stay_zeros(stored):
    bags = np.zeros((2, 4, 32), np.float32)
    packing = BagPacking(4, 32, stored)
    np.testing.assert_array_equal(packing.unpack(packing.pack(bags)), bags)


def test_medsiglip_bags_take_less_than_80_kb():
    packing = BagPacking(64, 1152, "int8")
    head = 36  # fingerprint and checksum of a row
    assert 4 * packing.n_words + head <= 80_000


def test_tiny_and_huge_values_survive_int8():
    bags = np.array([1e-30, 1.0, 1e30], np.float32).reshape(3, 1, 1)
    bags = bags * RNG.normal(size=(3, 2, 40)).astype(np.float32)
    packing = BagPacking(2, 40, "int8")
    assert cosines(bags, packing.unpack(packing.pack(bags))).min() > 0.9999


def test_float16_refuses_values_beyond_its_range():
    with pytest.raises(ValueError, match="float16"):
        BagPacking(1, 2, "float16").pack(np.full((1, 1, 2), 1e6, np.float32))


@pytest.mark.parametrize("stored", ["int8", "float16", "float32"])
def test_export_and_import_keep_every_bit(store, tmp_path, stored):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    packing = BagPacking(4, 32, stored)
    space, fingerprints, bags = store_bags(store, packing)
    store.export_parquet(tmp_path / "cells.parquet")
    other = EmbeddingCache(tmp_path / "other")
    assert other.import_parquet(tmp_path / "cells.parquet").new == len(bags)
    words = np.empty((len(bags), packing.n_words), np.float32)
    assert other.get_many(space, fingerprints, words).all()
    np.testing.assert_array_equal(packing.unpack(words), bags)
    other.close()


def test_large_rows_are_checked_pruned_and_exported_in_pieces(store, tmp_path):
    packing = BagPacking(64, 1152, "float32")
    space, fingerprints, bags = store_bags(store, packing, n=40)
    assert store.verify().ok
    store.prune(len(bags) * 200_000)
    words = np.empty((len(bags), packing.n_words), np.float32)
    kept = store.get_many(space, fingerprints, words)
    assert 0 <= kept.sum() < len(bags)
    np.testing.assert_array_equal(packing.unpack(words[kept]), bags[kept])
