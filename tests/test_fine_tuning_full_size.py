"""One step of a model of MedSigLIP's size on a CPU: memory and time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sk_medsiglip.encoder import DEMO_FOLDER

# MedSigLIP's shape with random weights, written in bfloat16 to spare the disk.
MAKE = """
import sys, torch
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel
tower = {"num_hidden_layers": 27, "num_attention_heads": 16, "hidden_size": 1152,
         "intermediate_size": 4304}
config = SiglipConfig(
    vision_config={**tower, "image_size": 448, "patch_size": 14},
    text_config={**tower, "projection_size": 1152, "vocab_size": 32000,
                 "max_position_embeddings": 64},
)
torch.set_default_dtype(torch.bfloat16)
model = SiglipModel(config)
model.logit_scale.data.fill_(2.3)
model.logit_bias.data.fill_(-10)
model.save_pretrained(sys.argv[1])
SiglipImageProcessorPil(
    size={"height": 448, "width": 448}, image_mean=[0.5] * 3, image_std=[0.5] * 3
).save_pretrained(sys.argv[1])
"""

STEP = """
import json, resource, sys, time
import numpy as np
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner
images = np.random.default_rng(0).integers(0, 255, (4, 512, 512), dtype=np.uint8)
settings = json.loads(sys.argv[2])
y = [0, 1, 0, 1] if settings.get("objective") else ["a", "b", "c", "d"]
tuner = MedSigLIPFineTuner(
    sys.argv[1], max_steps=1, device="cpu", random_state=0, train="lora",
    cache=sys.argv[1] + "-store", gradient_checkpointing=True, **settings,
)
start = time.monotonic()
tuner.fit(images, y)
print(json.dumps({
    "seconds": time.monotonic() - start,
    "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "loss": tuner.history_["loss"].iloc[0],
    "trained": tuner.n_trained_,
}))
"""


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "medsiglip-shaped"
    subprocess.run([sys.executable, "-c", MAKE, str(folder)], check=True)
    for name in (
        "spiece.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ):
        shutil.copyfile(DEMO_FOLDER / name, folder / name)
    yield folder
    shutil.rmtree(folder.parent)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "settings",
    [{"objective": "classification", "batch_size": 1}, {"batch_size": 2}],
    ids=["classification", "contrastive"],
)
def test_a_step_fits_into_24_gib(full_size, settings):
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(full_size), json.dumps(settings)],
        cwd=Path(__file__).parents[1],
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    print(told)  # noqa: T201
    assert told["gib"] < 24, told
    assert told["loss"] > 0
