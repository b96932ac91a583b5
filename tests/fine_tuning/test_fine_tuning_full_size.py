"""One step of a model of MedSigLIP's size on a CPU: it fits into 24 GiB."""

import shutil

import pytest

from benchmarks.engines import make_full_size
from benchmarks.fine_tuning_cost import one_fit


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "medsiglip-shaped"
    yield make_full_size(folder)
    shutil.rmtree(folder.parent)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "settings",
    [{"objective": "classification", "batch_size": 1}, {"batch_size": 2}],
    ids=["classification", "contrastive"],
)
def test_a_step_fits_into_24_gib(full_size, settings):
    told = one_fit(
        model=str(full_size), max_steps=1, gradient_checkpointing=True, **settings
    )
    assert told["peak memory, GiB"] < 24, told
    assert told["loss"] > 0
    assert told["trained values"] > 1_000_000
