"""Engines at MedSigLIP's size: seconds an image, agreement with float32.

Run ``python -m benchmarks.engines FOLDER``, where FOLDER is, or becomes, a checkpoint
of MedSigLIP's shape (So400m, 448 px) with random weights: 3.5 GB, made in a minute.
Needs the extra ``openvino``. Images a second depend on the shape of a model only, the
agreement on its weights too: random ones are a stand-in.
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import in_turns, setting, write_results
from sk_medsiglip.encoder import DEMO_FOLDER, clear_encoders, load_encoder

PAIRS = [
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
]
BASE = "torch float32"


def make_full_size(folder: Path, layers: int = 27) -> Path:
    """Write a checkpoint of MedSigLIP's shape with random weights, once."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

    tower = {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
    }
    config = SiglipConfig(
        vision_config={**tower, "image_size": 448, "patch_size": 14},
        text_config={**tower, "projection_size": 1152, "vocab_size": 32000},
    )
    torch.manual_seed(0)
    model = SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(4.7)
        model.logit_bias.fill_(-16.0)
    model.save_pretrained(folder)
    SiglipImageProcessorPil(
        size={"height": 448, "width": 448}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)
    # The demonstration's tokenizer: a stand-in of the right kind.
    for name in ("spiece.model", "tokenizer_config.json", "special_tokens_map.json"):
        if (DEMO_FOLDER / name).exists():
            shutil.copyfile(DEMO_FOLDER / name, folder / name)
    return folder


def measure(
    model: str | Path, n_images: int, n_texts: int, n_repeats: int, converted: Path
) -> dict[str, Any]:
    """Return seconds of every engine for images and texts, and cosines to float32."""
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {}
    # Two full-size models at a time in memory, the base being one of them.
    size = load_encoder(model, device="cpu", dtype="float32").image_size
    pixels = rng.integers(0, 256, (n_images, size, size, 3), dtype=np.uint8)
    texts = [f"a chest X-ray with finding {i}" for i in range(n_texts)]
    for engine, dtype in PAIRS:
        name = f"{engine} {dtype}"
        base = load_encoder(model, device="cpu", dtype="float32")
        other = load_encoder(
            model, device="cpu", engine=engine, dtype=dtype, converted=converted
        )
        for kind, values in (("image", pixels), ("text", texts)):
            way = f"encode_{kind}s"
            run_base = partial(getattr(base, way), values)
            run_other = partial(getattr(other, way), values)
            expected, rows = run_base(), run_other()
            cosine = (expected * rows).sum(1)
            cosine /= np.linalg.norm(expected, axis=1) * np.linalg.norm(rows, axis=1)
            if other is base:
                continue
            best = in_turns(n_repeats, {BASE: run_base, name: run_other})
            figures.setdefault(kind, {})[name] = {
                "seconds": best[name] / len(values),
                f"seconds of {BASE}, same turns": best[BASE] / len(values),
                f"speed over {BASE}": best[BASE] / best[name],
                "smallest cosine": float(cosine.min()),
            }
            print(kind, name, figures[kind][name], flush=True)
    clear_encoders()
    figures["batches"] = batches(model, n_repeats, converted)
    for kind in ("image", "text"):
        by_engine = figures[kind]
        ours, torch16 = by_engine["openvino bfloat16"], by_engine["torch bfloat16"]
        figures[kind]["openvino bfloat16 over torch bfloat16"] = (
            ours[f"speed over {BASE}"] / torch16[f"speed over {BASE}"]
        )
    return figures


def batches(
    model: str | Path, n_repeats: int, converted: Path
) -> dict[str, dict[str, float]]:
    """Return seconds an image in passes of several sizes, in turns."""
    rng = np.random.default_rng(0)
    found = {}
    for engine, dtype in (PAIRS[0], PAIRS[-1]):
        encoder = load_encoder(
            model, device="cpu", engine=engine, dtype=dtype, converted=converted
        )
        size, auto = encoder.image_size, encoder.image_batch_size
        pixels = rng.integers(0, 256, (4 * auto, size, size, 3), dtype=np.uint8)
        sizes = sorted({max(1, auto // 2), auto, 2 * auto, 4 * auto})
        sides = {str(n): partial(encoder.encode_images, pixels[:n]) for n in sizes}
        best = in_turns(n_repeats, sides)
        found[f"{engine} {dtype}"] = {n: s / int(n) for n, s in best.items()}
        print(found, flush=True)
        clear_encoders()
    return found


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=27)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no results")
    args = parser.parse_args()
    full = make_full_size(args.folder, args.layers)
    converted = args.folder.parent / "converted"
    results = setting(
        "torch", "transformers", "openvino", layers=args.layers, images=args.images
    )
    results["full size"] = measure(
        full, args.images, args.texts, args.repeats, converted
    )
    results["demonstration"] = measure("demo", 64, 64, 10, converted)
    if not args.dry:
        write_results("engines", results)


if __name__ == "__main__":
    main()
