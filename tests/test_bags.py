"""Bags are read piece by piece, and what is wrong with them is named."""

import numpy as np
import pytest
import scipy.sparse

from sk_medsiglip._bags import check_bags, iter_bags


@pytest.fixture
def bags():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(7, 3, 4)).astype(np.float32)
    X[2, 1] = X[5, :2] = np.nan
    return X


def test_an_array_is_not_copied(bags):
    assert check_bags(bags) is bags
    bags.flags.writeable = False
    whole = np.ascontiguousarray(bags[:2])
    ((_, block, present),) = iter_bags(whole, 5)
    assert np.shares_memory(block, whole)
    assert present.all()


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_missing_instances_are_zeros_and_marked(bags, batch):
    pieces = list(iter_bags(check_bags(bags), batch))
    assert [rows.start for rows, _, _ in pieces] == list(range(0, 7, batch))
    present = np.concatenate([piece[2] for piece in pieces])
    np.testing.assert_array_equal(present, ~np.isnan(bags).all(axis=2))
    block = np.concatenate([piece[1] for piece in pieces])
    np.testing.assert_array_equal(block, np.nan_to_num(bags))
    assert block.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_other_types_are_read_as_float32(bags, dtype):
    X = np.nan_to_num(bags * 10).astype(dtype)
    ((_, block, _),) = iter_bags(check_bags(X), 10)
    assert block.dtype == np.float32
    np.testing.assert_array_equal(block, X.astype(np.float32))


def test_lists_are_bags():
    assert check_bags([[[1.0, 2.0]], [[3.0, 4.0]]]).shape == (2, 1, 2)
    with pytest.raises(ValueError, match="pad"):
        check_bags([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]])


def test_large_values_are_not_taken_for_infinite():
    X = np.full((2, 1, 9), 3e38, np.float32)
    ((_, _, present),) = iter_bags(check_bags(X), 2)
    assert present.all()


@pytest.mark.parametrize(
    ("shape", "match"),
    [((5, 4), "LinearProbe"), ((5, 4, 4, 3), "Embedder"), ((0, 2, 3), "0 sample")],
)
def test_other_shapes_are_refused(shape, match):
    with pytest.raises(ValueError, match=match):
        check_bags(np.zeros(shape), estimator="BagProbe")


def test_other_widths_and_types_are_refused(bags):
    with pytest.raises(ValueError, match="weights"):
        check_bags(bags, width=5)
    with pytest.raises(ValueError, match="numbers"):
        check_bags(bags.astype(str))
    with pytest.raises(TypeError, match="sparse"):
        check_bags(scipy.sparse.csr_array(np.eye(3)))


def test_broken_bags_are_named(bags):
    bags[5] = np.nan
    with pytest.raises(ValueError, match="rows 5"):
        check_bags(bags)
    bags[5] = 1.0
    bags[6, 1, 2] = np.nan
    with pytest.raises(ValueError, match="bag 6.*instance 1"):
        list(iter_bags(bags, 4))
    bags[6, 1, 2] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        check_bags(bags)
    assert check_bags(bags, values=False) is bags
