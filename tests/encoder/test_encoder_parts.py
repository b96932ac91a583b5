"""Parts of the room by themselves: sizes of batches, patterns, forks."""

import os

import pytest

from sk_medsiglip.encoder import _adapter_config, _batch_size, _fork
from sk_medsiglip.exceptions import ForkedProcessError


def test_batch_size_doubles_up_to_the_most():
    batch = _batch_size.BatchSize(32, 100)
    sizes = []
    for _ in range(4):
        sizes.append(batch.size)
        batch.passed(batch.size)
    assert sizes == [32, 64, 100, 100]
    batch.passed(3)  # the rest of a collection says nothing
    assert batch.size == 100


def test_batch_size_halves_and_remembers():
    batch = _batch_size.BatchSize(32, 128)
    batch.passed(32)
    batch.failed(64)
    assert (batch.size, batch.limit) == (32, 32)
    batch.passed(32)
    assert batch.size == 32
    batch.failed(32)
    batch.failed(64)  # another thread's, late
    assert (batch.size, batch.limit) == (16, 16)
    batch.failed(1)
    assert batch.limit == 1


@pytest.mark.parametrize(
    "pattern",
    [
        r"(vision_model|text_model)\.encoder\.layers\.\d+\.self_attn\.(q|v)_proj",
        r".*\.(q_proj|v_proj)",
        r".*(?:fc1|fc2)$",
        r"^.*layers\.[0-9]+\.mlp\.fc1",
        "all-linear",
        ["q_proj", "self_attn.v_proj"],
    ],
)
def test_plain_patterns_are_taken(pattern):
    assert _adapter_config.lora_settings({"target_modules": pattern}) == {
        "target_modules": pattern
    }


def test_weights_on_a_gpu_do_not_survive_a_fork():
    _fork.check_device_after_fork("cuda:0", os.getpid())
    _fork.check_device_after_fork("cpu", os.getpid() + 1)
    with pytest.raises(ForkedProcessError, match="loky"):
        _fork.check_device_after_fork("cuda:0", os.getpid() + 1)
