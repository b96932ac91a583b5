"""What a step of fine-tuning costs: time against its bare passes, and memory.

Run ``python -m benchmarks.fine_tuning_cost FOLDER``, on a quiet machine, where FOLDER
is, or becomes, a checkpoint of MedSigLIP's shape with random weights (3.5 GB). Needs
24 GiB of memory.

*Bare* is the same network on one batch that is at hand: forward, backward, and nothing
else. *Steps* is what a step of ``fit`` takes, from two fits of which one has more of
them: reading rows, changing pictures, the optimizer and the log are in it. *Whole fit*
is everything from ``fit`` to its end: images are read, the checkpoint is loaded, epochs
end with a checkpoint of the run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import setting, write_results
from benchmarks.engines import make_full_size
from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.fine_tuning import MedSigLIPFineTuner

BATCH = 16
KINDS: dict[str, dict[str, Any]] = {
    "contrastive, lora, both towers": {},
    "classification, lora": {"objective": "classification"},
    "classification, full": {"objective": "classification", "train": "full"},
}

# Run by itself, so that its peak is its own.
_ONE_FIT = """
import json, resource, sys, time
import numpy as np
from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPFineTuner
settings = json.loads(sys.argv[1])
n = max(4, settings["batch_size"] * 2)
images = np.random.default_rng(0).integers(0, 255, (n, 512, 512), dtype=np.uint8)
y = [i % 2 for i in range(n)]
if settings.get("objective", "contrastive") == "contrastive":
    y = [f"caption {i}" for i in range(n)]
tuner = MedSigLIPFineTuner(MedSigLIPEmbedder(settings.pop("model")), **settings)
started = time.perf_counter()
tuner.fit(images, y)
print(json.dumps({
    "seconds of fit": time.perf_counter() - started,
    "peak memory, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    "trained values": tuner.n_trained_,
    "loss": float(tuner.history_["loss"].iloc[0]),
}))
"""


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="none leaves full size out"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    results = setting("torch", "transformers", "peft", "accelerate")
    results |= {
        "batch": BATCH,
        "steps": args.steps,
        "turns": args.turns,
        "images a second, demonstration": {
            name: told(name, speed(settings, args.steps, args.turns))
            for name, settings in KINDS.items()
        },
        "memory, demonstration, batch 64": {
            name: told(
                name,
                one_fit(batch_size=64, max_steps=2, gradient_checkpointing=again),
            )
            for name, again in (("kept", False), ("computed again", True))
        },
    }
    if args.folder is not None:
        results["one step, MedSigLIP's shape, float32 on a CPU"] = full_size(
            args.folder
        )
    if not args.dry:
        write_results("fine_tuning_cost", results)


def told(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print what was found, as it comes, and return it."""
    print(name, json.dumps(found), flush=True)
    return found


def speed(settings: dict[str, Any], n_steps: int, n_turns: int) -> dict[str, float]:
    """Return images a second of the bare passes, of steps and of a whole fit."""
    phantoms = make_chest_phantoms(8 * BATCH, random_state=0)
    images = list(phantoms.images)
    classifies = settings.get("objective") == "classification"
    y = phantoms.target if classifies else phantoms.captions
    with tempfile.TemporaryDirectory() as scratch:

        def fit(steps: int, every: int) -> float:
            tuner = MedSigLIPFineTuner(
                MedSigLIPEmbedder("demo", cache=scratch),
                batch_size=BATCH,
                max_steps=steps,
                checkpoint_every=every,
                random_state=0,
                **settings,
            )
            return _seconds(lambda: tuner.fit(images, y))

        bare_passes = _bare(settings, images, y)
        best = dict.fromkeys(("bare", "steps", "whole"), float("inf"))
        fit(1, 1)
        for _ in range(n_turns):
            bare = _seconds(lambda: [bare_passes() for _ in range(n_steps)])
            # Both with one checkpoint, at the end: what is left is steps.
            more = fit(3 * n_steps, 3 * n_steps) - fit(n_steps, n_steps)
            whole = fit(4 * n_steps, 8)
            now = {"bare": bare, "steps": more / 2, "whole": whole / 4}
            best = {name: min(best[name], now[name]) for name in best}
    rates = {name: BATCH * n_steps / one for name, one in best.items()}
    return {
        "bare": rates["bare"],
        "steps": rates["steps"],
        "whole fit": rates["whole"],
        "steps / bare": rates["steps"] / rates["bare"],
        "whole fit / bare": rates["whole"] / rates["bare"],
    }


def _bare(settings: dict[str, Any], images: Any, y: Any) -> Callable[[], None]:
    """Return forward and backward of the network that ``fit`` would train."""
    import torch

    from sk_medsiglip.encoder import find_checkpoint
    from sk_medsiglip.fine_tuning._batches import Collator
    from sk_medsiglip.fine_tuning._examples import check_examples
    from sk_medsiglip.fine_tuning._inputs import read_inputs
    from sk_medsiglip.fine_tuning._network import build_network
    from sk_medsiglip.fine_tuning._processes import Processes
    from sk_medsiglip.fine_tuning._settings import Settings

    embedder = MedSigLIPEmbedder("demo", cache=False)
    tuner = MedSigLIPFineTuner(embedder, random_state=0, **settings)
    told = Settings(**tuner.get_params(deep=False))
    checkpoint = find_checkpoint("demo")
    examples = check_examples(told, images, y, None, checkpoint)
    rows = np.arange(len(images))
    network, _ = build_network(told, examples, None, checkpoint, rows, bf16=False)
    network.train()
    inputs = read_inputs(told, examples, checkpoint, Path(), Processes())
    collator = Collator(rows, examples, inputs, None, 0)
    batch = collator.take(rows[:BATCH], np.zeros(BATCH, np.intp))
    trained = [one for one in network.parameters() if one.requires_grad]

    def passes() -> None:
        network(**batch)["loss"].backward()
        for one in trained:
            one.grad = None

    torch.manual_seed(0)
    passes()
    return passes


def full_size(folder: Path) -> dict[str, Any]:
    """Return what one step of a model of MedSigLIP's size takes."""
    model = str(make_full_size(folder))
    kinds: dict[str, dict[str, Any]] = {
        "classification, batch 1": {"objective": "classification", "batch_size": 1},
        "classification, batch 1, computed again": {
            "objective": "classification",
            "batch_size": 1,
            "gradient_checkpointing": True,
        },
        "contrastive, both towers, batch 2, computed again": {
            "batch_size": 2,
            "gradient_checkpointing": True,
        },
    }
    return {
        name: told(name, one_fit(model=model, max_steps=1, **settings))
        for name, settings in kinds.items()
    }


def one_fit(model: str = "demo", **settings: Any) -> dict[str, Any]:
    """Return time and peak memory of a fit in a process of its own.

    Parameters
    ----------
    model : str
    **settings
        Of the fine-tuner; ``batch_size`` among them. It sees two batches of noise.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given = {"model": model, "cache": scratch, "random_state": 0, "device": "cpu"}
        done = subprocess.run(
            [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                _ONE_FIT,
                json.dumps(given | settings),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
