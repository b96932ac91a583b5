"""Vectors of cells against plain transformers code, on both engines."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sk_medsiglip.encoder import clear_encoders, load_encoder


@pytest.fixture(scope="module")
def grid_checkpoint(make_checkpoint):
    """A random checkpoint of 4 x 4 patches."""
    return make_checkpoint(image_size=56)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 56, 56, 3), dtype=np.uint8)


def reference(tower, pixels, grid):
    """Return cells by torch's own attention, one masked call for each cell."""
    from transformers import SiglipImageProcessorPil

    half = [0.5] * 3
    processor = SiglipImageProcessorPil(image_mean=half, image_std=half)
    images = processor(list(pixels), do_resize=False, return_tensors="pt")
    head = tower.head
    with torch.no_grad():
        patches = tower(images.pixel_values).last_hidden_state
        side = round(patches.shape[1] ** 0.5)
        place = torch.arange(side) * grid // side
        cell_of_patch = (place[:, None] * grid + place).flatten()
        cells = []
        for cell in range(grid**2):
            elsewhere = (cell_of_patch != cell).repeat(len(patches), 1)
            probe = head.probe.repeat(len(patches), 1, 1)
            pooled, _ = head.attention(
                probe, patches, patches, key_padding_mask=elsewhere
            )
            cells.append((pooled + head.mlp(head.layernorm(pooled)))[:, 0])
    return torch.stack(cells, dim=1).numpy()


@pytest.mark.parametrize("grid", [1, 2, 4])
def test_cells_equal_plain_transformers(grid_checkpoint, pixels, grid):
    from transformers import SiglipModel

    rows, cells = load_encoder(grid_checkpoint).encode_cells(pixels, grid)
    tower = SiglipModel.from_pretrained(grid_checkpoint).eval().vision_model
    expected = reference(tower, pixels, grid)
    np.testing.assert_allclose(cells, expected, atol=1e-4)
    assert cells.shape == (3, grid**2, 32)
    np.testing.assert_allclose(
        rows, load_encoder(grid_checkpoint).encode_images(pixels), atol=1e-5
    )


def test_a_single_cell_is_the_row(grid_checkpoint, pixels):
    encoder = load_encoder(grid_checkpoint)
    _, cells = encoder.encode_cells(pixels, 1)
    np.testing.assert_allclose(cells[:, 0], encoder.encode_images(pixels), atol=1e-5)


def test_a_cell_knows_its_place(pixels):
    # The last layer has seen the whole image, so a changed corner shows everywhere;
    # most of all in its own cell.
    encoder = load_encoder("demo")
    before = np.full((1, 128, 128, 3), 60, np.uint8)
    after = before.copy()
    after[:, 100:116, 4:20] = 250
    moved = np.linalg.norm(
        encoder.encode_cells(after, 4)[1] - encoder.encode_cells(before, 4)[1], axis=2
    )
    assert moved[0].argmax() == 12


@pytest.mark.parametrize("grid", [0, 3, 8])
def test_a_grid_that_cuts_patches_is_refused(grid_checkpoint, pixels, grid):
    with pytest.raises(ValueError, match="1, 2"):
        load_encoder(grid_checkpoint).encode_cells(pixels, grid)


def test_bfloat16_cells_are_near(grid_checkpoint, pixels):
    exact = load_encoder(grid_checkpoint, dtype="float32").encode_cells(pixels, 2)[1]
    near = load_encoder(grid_checkpoint, dtype="bfloat16").encode_cells(pixels, 2)[1]
    assert F.cosine_similarity(*map(torch.tensor, (exact, near)), dim=-1).min() > 0.99


def test_cells_of_a_pass_that_memory_does_not_hold(grid_checkpoint, pixels):
    encoder = load_encoder(grid_checkpoint)
    expected = encoder.encode_cells(pixels, 2)[1]
    run = encoder._towers.run_images

    def run_two_at_most(sent, grid=None):
        if len(sent.tensor) > 2:
            raise torch.OutOfMemoryError("DefaultCPUAllocator: not enough memory")
        return run(sent, grid)

    encoder._towers.run_images = run_two_at_most
    try:
        np.testing.assert_allclose(
            encoder.encode_cells(pixels, 2)[1], expected, atol=1e-5
        )
    finally:
        clear_encoders()


def test_openvino_gives_the_same_cells(grid_checkpoint, pixels, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="openvino is not installed")
    options = {"engine": "openvino", "dtype": "float32", "converted": tmp_path}
    expected = load_encoder(grid_checkpoint, dtype="float32").encode_cells(pixels, 2)
    found = load_encoder(grid_checkpoint, **options).encode_cells(pixels, 2)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    # Kept under its own name, and not converted a second time.
    [folder] = tmp_path.glob("*-grid2")
    assert (folder / "cells.xml").is_file()
    clear_encoders()
    monkeypatch.setattr("sk_medsiglip.encoder._openvino_towers.load_network", None)
    again = load_encoder(grid_checkpoint, **options).encode_cells(pixels, 2)
    np.testing.assert_array_equal(again[1], found[1])
    clear_encoders()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cells_equal_plain_transformers_at_full_size(tmp_path):
    from safetensors.torch import save_file
    from transformers import (
        SiglipImageProcessorPil,
        SiglipVisionConfig,
        SiglipVisionModel,
    )

    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=448,
        patch_size=14,
    )
    tower = SiglipVisionModel(config).eval()
    config.save_pretrained(tmp_path)
    weights = {f"vision_model.{name}": w for name, w in tower.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    half = [0.5] * 3
    SiglipImageProcessorPil(
        size={"height": 448, "width": 448}, image_mean=half, image_std=half
    ).save_pretrained(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 448, 448, 3), dtype=np.uint8)
    _, cells = load_encoder(tmp_path).encode_cells(pixels, 8)
    clear_encoders()
    np.testing.assert_allclose(cells, reference(tower, pixels, 8), atol=1e-4)
