"""Where maps point: methods compared on phantoms whose findings' places are known.

Run ``python -m benchmarks.heatmaps``. Phantoms are of a seed that training and the
choice of the default never used. In every image that has a finding, the highest patch
of the finding's map is looked up in the finding's mask: the pointing game [1]_. A hit
is a patch whose centre lies within half a patch of the mask (strict: in it). The AUC
is over the pixels of an image, in the mask or not, by the interpolated map. Both are
compared with what never looks at the image: any pixel by chance, the centre, the mean
place and the mean mask of the finding on other phantoms, and the one point that would
hit most of those.

The demonstration checkpoint learned from the masks of its training phantoms, patch by
patch, beside captions; MedSigLIP learned from captions only. So the figures say which
method reads its patches best, and nothing of how well MedSigLIP's maps point.

Compared with the package's two methods are: the exact decomposition of the pooled
vector into patches, to first order in what follows [2]_; Grad-CAM on the last layer
[3]_; the drop of the cosine when a patch is painted over [4]_, on fewer images, for
it takes a pass a patch; and the attention of the pooling head, which knows no text.

References
----------
.. [1] Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016.
.. [2] Gandelsman, Efros and Steinhardt, "Interpreting CLIP's Image Representation via
   Text-Based Decomposition", ICLR 2024.
.. [3] Selvaraju et al., "Grad-CAM", ICCV 2017.
.. [4] Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks",
   ECCV 2014.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import roc_auc_score
from sklearn.utils import Bunch
from torch.nn import functional
from transformers import SiglipVisionConfig, SiglipVisionModel

from benchmarks._measure import in_turns, setting, write_results
from benchmarks.demo_checkpoint import TEST_SEED, TRAIN_SEED
from sk_medsiglip import MedSigLIPTextEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.encoder import Encoder, load_encoder, score_patches
from sk_medsiglip.encoder._patch_scores import _by_gradient, _by_value
from sk_medsiglip.prompts import encode_class_vectors
from sk_medsiglip.zero_shot._heatmap import map_on_image
from training.prompts import EVALUATION_PROMPTS

SIZE, GRID = 128, 8
PATCH = SIZE // GRID
OCCLUDED = 200
Maps = NDArray[np.floating]


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    n_threads = torch.get_num_threads()
    # Threads of a light pass wait for each other where anything else wants a core.
    torch.set_num_threads(1)
    encoder = load_encoder("demo", device="cpu", engine="torch")
    n = arguments.images
    test = make_chest_phantoms(n, random_state=TEST_SEED, return_masks=True)
    other = make_chest_phantoms(n, random_state=TRAIN_SEED, return_masks=True)
    names = test.target_names
    present, absent = (
        encode_class_vectors(
            [EVALUATION_PROMPTS[name][side] for name in names],
            MedSigLIPTextEmbedder("demo", cache=False),
        )
        for side in ("positive", "negative")
    )
    pixels = np.repeat(test.images[..., None], 3, axis=3)
    results: dict[str, Any] = {
        **setting(
            "numpy",
            "torch",
            "transformers",
            images=n,
            occluded=min(n, OCCLUDED),
            test_seed=TEST_SEED,
        ),
        "images_with_finding": dict(
            zip(
                names, [len(rows_with(test, k)) for k in range(len(names))], strict=True
            )
        ),
        "baselines": baselines(test, other),
        "methods": {},
    }
    for wording, texts in (("prompt", present), ("minus_negative", present - absent)):
        for name, method in methods().items():
            figures = judge(method(encoder, pixels, texts), test)
            results["methods"].setdefault(name, {})[wording] = figures
            mean = {key: round(value["mean"], 3) for key, value in figures.items()}
            print(name, wording, mean, flush=True)
    torch.set_num_threads(n_threads)
    results["seconds_per_image"] = {
        "demo": demo_cost(encoder, pixels, present[:1], arguments.repeats),
        "so400m_448_random_weights": full_size_cost(),
    }
    write_results("heatmaps", results)
    print(as_markdown(results))


def methods() -> dict[str, Callable[[Encoder, NDArray, NDArray], Maps]]:
    """Return functions from images and text vectors to maps (n, k, grid, grid)."""
    return {
        "value": score_patches,
        "legrad": lambda *args: score_patches(*args, method="legrad"),
        "decomposition": in_batches(decomposition),
        "grad_cam": in_batches(grad_cam),
        "occlusion": occlusion,
        "attention": in_batches(attention),
    }


def in_batches(method: Callable[..., torch.Tensor]) -> Callable[..., Maps]:
    """Return the method for uint8 images, fed to the network by batches."""

    def run(encoder: Encoder, pixels: NDArray, texts: NDArray) -> Maps:
        vision = encoder._towers._network.vision_model  # type: ignore[attr-defined]
        wanted = torch.from_numpy(texts)
        maps = []
        for start in range(0, len(pixels), 50):
            some = torch.from_numpy(pixels[start : start + 50])
            values = some.permute(0, 3, 1, 2).float() / 127.5 - 1
            with torch.no_grad():
                patches = vision(pixel_values=values).last_hidden_state
            maps.append(method(vision.head, patches, wanted).detach())
        return torch.cat(maps).unflatten(2, (GRID, GRID)).numpy()

    return run


def weights_and_values(
    head: Any, patches: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention (n, heads, p), and what each head would add (n, heads, p, w)."""
    module = head.attention
    width, heads = patches.shape[2], module.num_heads
    query, key, value = (
        functional.linear(x, weight, bias).unflatten(2, (heads, -1)).transpose(1, 2)
        for x, weight, bias in zip(
            (head.probe, patches, patches),
            module.in_proj_weight.split(width),
            module.in_proj_bias.split(width),
            strict=True,
        )
    )
    weights = (query @ key.transpose(2, 3) / query.shape[3] ** 0.5).softmax(dim=3)
    out = module.out_proj.weight.unflatten(1, (heads, -1))
    return weights[:, :, 0], torch.einsum("nhpd,whd->nhpw", value, out)


def decomposition(
    head: Any, patches: torch.Tensor, texts: torch.Tensor
) -> torch.Tensor:
    """Return what each patch adds to the pooled vector, along the score's gradient."""
    weights, values = weights_and_values(head, patches)
    parts = torch.einsum("nhp,nhpw->npw", weights, values)
    pooled = (parts.sum(dim=1) + head.attention.out_proj.bias).requires_grad_()
    vectors = pooled + head.mlp(head.layernorm(pooled))
    cosines = functional.normalize(vectors, dim=1) @ texts.T
    gradients = [
        torch.autograd.grad(column.sum(), pooled, retain_graph=True)[0]
        for column in cosines.unbind(dim=1)
    ]
    return torch.einsum("npw,nkw->nkp", parts, torch.stack(gradients, dim=1))


def grad_cam(head: Any, patches: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Return Grad-CAM on the last layer's patches."""
    patches = patches.requires_grad_()
    cosines = functional.normalize(head(patches), dim=1) @ texts.T
    maps = []
    for column in cosines.unbind(dim=1):
        (by_patch,) = torch.autograd.grad(column.sum(), patches, retain_graph=True)
        channels = by_patch.mean(dim=1, keepdim=True)
        maps.append((channels * patches).sum(dim=2).clamp(min=0))
    return torch.stack(maps, dim=1)


def attention(head: Any, patches: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """Return the pooling head's attention, the same for every text."""
    weights, _ = weights_and_values(head, patches)
    return weights.mean(dim=1, keepdim=True).expand(-1, len(texts), -1)


def occlusion(encoder: Encoder, pixels: NDArray, texts: NDArray) -> Maps:
    """Return how much the cosine falls when a patch is painted in the mean grey."""
    pixels = pixels[:OCCLUDED]

    def cosines(images: NDArray) -> NDArray:
        step = encoder.image_batch_size
        vectors = np.concatenate(
            [
                encoder.encode_images(images[start : start + step])
                for start in range(0, len(images), step)
            ]
        )
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) @ texts.T

    whole = cosines(pixels)
    mean = pixels.mean(axis=(1, 2, 3)).astype(np.uint8)[:, None, None, None]
    maps = np.empty((len(pixels), len(texts), GRID, GRID))
    for row, column in np.ndindex(GRID, GRID):
        painted = pixels.copy()
        place = np.s_[
            :, row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH
        ]
        painted[place] = mean
        maps[:, :, row, column] = whole - cosines(painted)
    return maps


def rows_with(phantoms: Bunch, finding: int) -> NDArray[np.intp]:
    """Return the images in which a finding has a place."""
    return np.flatnonzero(phantoms.masks[:, finding].any(axis=(1, 2)))


def judge(maps: Maps, test: Bunch) -> dict[str, dict[str, float]]:
    """Return hits and pixel AUC of each finding's map, on the images that have one."""
    centres = np.arange(SIZE) + 0.5
    found: dict[str, list[float]] = {"hit": [], "strict_hit": [], "pixel_auc": []}
    for k in range(len(test.target_names)):
        rows = rows_with(test, k)
        rows = rows[rows < len(maps)]
        distances, aucs = [], []
        for row in rows:
            top, left = np.unravel_index(maps[row, k].argmax(), (GRID, GRID))
            mask = test.masks[row, k]
            place = (PATCH * top + PATCH // 2, PATCH * left + PATCH // 2)
            distances.append(distance_transform_edt(~mask)[place])
            spread = map_on_image(maps[row, k], centres, centres, (SIZE, SIZE))
            aucs.append(roc_auc_score(mask.ravel(), spread.ravel()))
        found["hit"].append(np.mean(np.array(distances) <= PATCH / 2))
        found["strict_hit"].append(np.mean(np.array(distances) == 0))
        found["pixel_auc"].append(np.mean(aucs))
    return {key: named(test, values) for key, values in found.items()}


def baselines(test: Bunch, other: Bunch) -> dict[str, dict[str, dict[str, float]]]:
    """Return what is reached without looking at the image."""
    found: dict[str, dict[str, list[float]]] = {
        name: {"hit": [], "strict_hit": []}
        for name in ("chance", "centre", "mean_place", "best_point")
    }
    found["mean_mask"] = {"pixel_auc": []}
    for k in range(len(test.target_names)):
        masks = test.masks[rows_with(test, k), k]
        seen = other.masks[rows_with(other, k), k]
        for key, reach in (("hit", PATCH / 2), ("strict_hit", 0)):
            near, near_seen = within(masks, reach), within(seen, reach)
            mean_place = np.argwhere(seen)[:, 1:].mean(axis=0).round().astype(int)
            best = np.unravel_index(near_seen.mean(axis=0).argmax(), (SIZE, SIZE))
            found["chance"][key].append(near.mean())
            for name, (y, x) in (
                ("centre", (SIZE // 2, SIZE // 2)),
                ("mean_place", mean_place),
                ("best_point", best),
            ):
                found[name][key].append(near[:, y, x].mean())
        prior = seen.mean(axis=0).ravel()
        aucs = [roc_auc_score(mask.ravel(), prior) for mask in masks]
        found["mean_mask"]["pixel_auc"].append(np.mean(aucs))
    return {
        name: {key: named(test, values) for key, values in figures.items()}
        for name, figures in found.items()
    }


def within(masks: NDArray[np.bool_], reach: float) -> NDArray[np.bool_]:
    """Return the pixels not further than ``reach`` from each mask."""
    return np.stack([distance_transform_edt(~mask) <= reach for mask in masks])


def named(test: Bunch, values: list[float]) -> dict[str, float]:
    """Return one figure a finding, and their mean."""
    each = dict(zip(test.target_names, map(float, values), strict=True))
    return {"mean": float(np.mean(values)), **each}


def demo_cost(
    encoder: Encoder, pixels: NDArray, texts: NDArray, n_repeats: int
) -> dict[str, float]:
    """Return seconds an image, in batches as the encoder has them."""
    some = pixels[: encoder.image_batch_size]
    sides = {
        "embedding": lambda: encoder.encode_images(some),
        "value": lambda: score_patches(encoder, some, texts),
        "legrad": lambda: score_patches(encoder, some, texts, method="legrad"),
    }
    best = in_turns(4 * n_repeats, sides)
    return {name: seconds / len(some) for name, seconds in best.items()}


def full_size_cost() -> dict[str, float]:
    """Return seconds an image of a network of MedSigLIP's size."""
    config = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=448,
        patch_size=14,
    )
    config._attn_implementation = "sdpa"
    model = SiglipVisionModel(config).eval().requires_grad_(False)
    vision = getattr(model, "vision_model", model)
    values, texts = torch.rand(1, 3, 448, 448), torch.rand(1, 1152)
    with torch.no_grad():
        return in_turns(
            2,
            {
                "embedding": lambda: vision(pixel_values=values),
                "value": lambda: _by_value(vision, values, texts),
                "legrad": lambda: _by_gradient(vision, values, texts),
            },
        )


def as_markdown(results: dict[str, Any]) -> str:
    """Return the table for the page."""
    names = ["mean", *results["images_with_finding"]]
    lines = [f"| hits | {' | '.join(names)} | pixel AUC |"]
    lines.append("| --- |" + " --- |" * (len(names) + 1))
    rows = [
        (f"{name}, {wording}", figures)
        for name, both in results["methods"].items()
        for wording, figures in both.items()
    ]
    for name, figures in [*rows, *results["baselines"].items()]:
        hits = figures.get("hit", {})
        cells = [f"{hits[key]:.3f}" if hits else "" for key in names]
        auc = figures.get("pixel_auc")
        cells.append(f"{auc['mean']:.3f}" if auc else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
