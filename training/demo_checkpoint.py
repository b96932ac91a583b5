"""Train the checkpoint behind ``model="demo"`` from a seed.

Run from the repository's root::

    python -m training.demo_checkpoint --seed 0

Three phases: the text tower against the facts themselves, the image tower against a
bank of the text tower's vectors, both together. Everything is drawn; no real image.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from transformers import SiglipImageProcessor, SiglipModel

from sk_medsiglip.datasets import make_chest_phantoms
from training.evaluate import zero_shot_auc
from training.network import (
    IMAGE_SIZE,
    WIDTH,
    FactEncoder,
    build_model,
    patch_loss,
    sigmoid_loss,
)
from training.pool import Pool, draw_pool
from training.tokenizer import tokenize, train_tokenizer
from training.wording import judge, sample_captions

BATCH = 64
BANK = 2048
JOINT_SHARE = 0.25
WARM_UP = 0.04


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("sk_medsiglip/encoder/demo_checkpoint")
    )
    parser.add_argument("--log", type=Path, default=Path("training/log.json"))
    parser.add_argument("--images", type=int, default=36_000)
    parser.add_argument("--text-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=1_600)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    Trainer(arguments).run()


class Trainer:
    """One training run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.rng = np.random.default_rng(arguments.seed)
        self.started = time.perf_counter()
        settings = {k: v for k, v in vars(arguments).items() if k not in ("out", "log")}
        self.log: dict = {"arguments": {k: str(v) for k, v in settings.items()}}
        self.log["progress"] = []

    def run(self) -> None:
        """Train, evaluate now and then, and save."""
        out = self.arguments.out
        # Far from the seeds that tests and the benchmark use.
        self.pool: Pool = draw_pool(
            self.arguments.images, 10**6 * (self.arguments.seed + 1)
        )
        self._note(phase="drawing", images=len(self.pool.images))
        self.held_out = make_chest_phantoms(600, random_state=424242)
        self.tokenizer = train_tokenizer(out)
        self.model = build_model(len(self.tokenizer))
        n_parameters = sum(p.numel() for p in self.model.parameters())
        self._note(parameters=n_parameters, vocabulary=len(self.tokenizer))
        self._train_text()
        self._train_images()
        self._save()
        self._note(phase="done", auc=self._evaluate())

    def _train_text(self) -> None:
        model = self.model
        encoder = FactEncoder(self.pool.facts.shape[1])
        parameters = [*model.text_model.parameters(), *encoder.parameters()]
        optimizer = torch.optim.AdamW(
            [
                {"params": parameters, "lr": 1e-3},
                {"params": [model.logit_scale, model.logit_bias], "lr": 1e-2},
            ],
            weight_decay=0.01,
        )
        steps = self.arguments.text_steps
        schedule = _cosine(optimizer, steps)
        for step in range(steps):
            rows = self.rng.integers(len(self.pool.facts), size=256)
            facts = self.pool.facts[rows]
            captions = sample_captions(160, self.rng)
            with torch.autocast("cpu", torch.bfloat16):
                texts = self._embed(captions.texts)
                loss = sigmoid_loss(
                    model,
                    encoder(torch.from_numpy(facts)),
                    texts,
                    torch.from_numpy(judge(facts, captions)),
                )
            _step(optimizer, schedule, loss)
            if step % 100 == 0 or step == steps - 1:
                self._note(phase="text", step=step, loss=loss.item())
        with torch.no_grad():
            facts = torch.from_numpy(self.held_out.facts.to_numpy(copy=True))
            vectors = encoder(facts).numpy()
        self._note(text_only_auc=self._evaluate(vectors))

    def _train_images(self) -> None:
        model, steps = self.model, self.arguments.steps
        patches = torch.nn.Linear(WIDTH, self.pool.coverage.shape[2])
        inner = [
            parameter
            for parameter in model.vision_model.encoder.parameters()
            if parameter.ndim == 2
        ]
        chosen = {id(parameter) for parameter in inner}
        outer = [p for p in model.vision_model.parameters() if id(p) not in chosen]
        outer += list(patches.parameters())
        muon = torch.optim.Muon(
            inner, lr=2e-3, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(
            [
                {"params": outer, "lr": 1e-3},
                {"params": [model.logit_scale, model.logit_bias], "lr": 1e-2},
                {"params": list(model.text_model.parameters()), "lr": 3e-4},
            ],
            weight_decay=0.01,
        )
        schedules = [_cosine(muon, steps), _cosine(adam, steps)]
        bank = sample_captions(BANK, self.rng)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            bank_vectors = torch.cat(
                [self._embed(bank.texts[i : i + 256]) for i in range(0, BANK, 256)]
            ).float()
        joint_from = round(steps * (1 - JOINT_SHARE))
        order = np.empty(0, dtype=np.int64)
        phase_started = time.perf_counter()
        for step in range(steps):
            if len(order) < BATCH:
                order = self.rng.permutation(len(self.pool.images))
            rows, order = order[:BATCH], order[BATCH:]
            pixels = _augment(self.pool.images[rows], self.rng)
            facts = self.pool.facts[rows]
            joint = step >= joint_from
            captions = sample_captions(96, self.rng) if joint else bank
            with torch.autocast("cpu", torch.bfloat16):
                seen = model.vision_model(pixel_values=pixels)
                texts = self._embed(captions.texts) if joint else bank_vectors
                loss = sigmoid_loss(
                    model,
                    seen.pooler_output,
                    texts,
                    torch.from_numpy(judge(facts, captions)),
                )
                where = patch_loss(
                    patches(seen.last_hidden_state),
                    torch.from_numpy(self.pool.coverage[rows]),
                )
                if joint:
                    # The bank keeps the image tower where the probe found it good.
                    loss = 0.5 * loss + 0.5 * sigmoid_loss(
                        model,
                        seen.pooler_output,
                        bank_vectors,
                        torch.from_numpy(judge(facts, bank)),
                    )
            for optimizer in (muon, adam):
                optimizer.zero_grad(set_to_none=True)
            (loss + where).backward()
            for optimizer, schedule in zip((muon, adam), schedules, strict=True):
                optimizer.step()
                schedule.step()
            if step % 200 == 0 or step == steps - 1:
                rate = BATCH * (step + 1) / (time.perf_counter() - phase_started)
                self._note(
                    phase="joint" if joint else "images",
                    step=step,
                    loss=loss.item(),
                    patch_loss=where.item(),
                    images_per_second=rate,
                    auc=self._evaluate(),
                    scale=model.logit_scale.exp().item(),
                    bias=model.logit_bias.item(),
                )
                self._save()

    def _embed(self, texts: list[str]) -> torch.Tensor:
        ids = tokenize(self.tokenizer, texts)
        return self.model.text_model(input_ids=ids).pooler_output

    def _evaluate(self, vectors: np.ndarray | None = None) -> dict[str, float]:
        return zero_shot_auc(self.model, self.tokenizer, self.held_out, vectors)

    def _save(self) -> None:
        out = self.arguments.out
        weights = {k: v.half().clone() for k, v in self.model.state_dict().items()}
        smaller = SiglipModel(self.model.config).half()
        smaller.load_state_dict(weights)
        smaller.save_pretrained(out)
        SiglipImageProcessor(
            size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            resample=3,
            do_rescale=True,
            rescale_factor=1 / 255,
            do_normalize=True,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ).save_pretrained(out)
        self.arguments.log.write_text(json.dumps(self.log, indent=1) + "\n")

    def _note(self, **entry: object) -> None:
        entry["elapsed_s"] = round(time.perf_counter() - self.started, 1)
        entry["cpu_s"] = round(time.process_time(), 1)
        self.log["progress"].append(entry)
        print(json.dumps(entry), flush=True)


def _augment(images: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """Return RGB pixels in [-1, 1] of pictures slightly moved, toned and grained."""
    pixels = torch.from_numpy(images).float().div_(255)[:, None]
    n_images, size = len(images), images.shape[-1]
    down, right = rng.integers(0, 9, size=(2, n_images))
    padded = functional.pad(pixels, (4, 4, 4, 4), mode="replicate")
    pixels = torch.stack(
        [
            padded[i, :, down[i] : down[i] + size, right[i] : right[i] + size]
            for i in range(n_images)
        ]
    )
    tone = torch.from_numpy(rng.uniform([0.85, -0.05], [1.15, 0.05], (n_images, 2)))
    tone = tone.float()[:, :, None, None, None]
    pixels = pixels * tone[:, 0] + tone[:, 1]
    grain = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32))
    grain *= torch.from_numpy(rng.uniform(0, 0.02, n_images)).float()[
        :, None, None, None
    ]
    pixels = (pixels + grain).clamp_(0, 1).mul_(2).sub_(1)
    return pixels.expand(-1, 3, -1, -1)


def _cosine(
    optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    warm = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _step(optimizer, schedule, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    schedule.step()


if __name__ == "__main__":
    main()
