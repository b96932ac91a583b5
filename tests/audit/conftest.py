"""Fixtures of the tests of audits: findings of phantoms, with planted faults."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def findings(phantoms):
    """The findings of the phantoms as float64; do not change them."""
    return phantoms.target.astype(np.float64)


@pytest.fixture(scope="session")
def patients(phantoms):
    """The patients of the phantoms."""
    return np.asarray(phantoms.groups)
