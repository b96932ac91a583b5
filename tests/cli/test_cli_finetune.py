"""``sk-medsiglip finetune``, on files."""

import numpy as np
import pytest
from command_line import run, write_collection

from sk_medsiglip import MedSigLIPEmbedder


@pytest.fixture(autouse=True, scope="module")
def peft():
    """Import it late: collecting tests does not need its three seconds."""
    return pytest.importorskip("peft", reason="peft is not installed")


N = 36


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collection")
    write_collection(folder, N, seed=4, gap=["text", *[""] * (N - 1)])
    return folder


def command(folder, out, *arguments):
    return (
        "finetune", "--images", folder / "labels.csv", "--out", out, "--model", "demo",
        "--epochs", 1, "--batch-size", 12, "--group-column", "patient", *arguments,
    )  # fmt: skip


def test_captions_make_an_encoder_that_other_commands_take(folder, tmp_path):
    out = tmp_path / "tuned"
    said = run(*command(folder, out, "--captions", "caption"))
    assert f"{N} images" in said
    assert "Validation loss" in said
    assert "not for clinical use" in said
    paths = [folder / f"{i}.png" for i in range(4)]
    tuned = MedSigLIPEmbedder(out).fit_transform(paths)
    before = MedSigLIPEmbedder("demo").fit_transform(paths)
    assert np.abs(tuned - before).max() > 1e-4
    rows = tmp_path / "rows.npz"
    run("embed", folder / "labels.csv", rows, "--model", out)
    np.testing.assert_allclose(np.load(rows)["embeddings"][:4], tuned, atol=1e-5)
    assert "exists" in run(*command(folder, out, "--captions", "caption"), code=2)


def test_labels_with_a_classifier_or_with_prompts(folder, tmp_path):
    labels = ("--label-column", "effusion", "--validation", 0)
    said = run(*command(folder, tmp_path / "a", *labels))
    assert "Validation loss" not in said
    assert (tmp_path / "a" / "classifier.safetensors").exists()
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text(
        "effusion: {positive: pleural effusion, negative: no effusion}\n"
    )
    kept = ("--keep", "chest_xray_13")
    run(*command(folder, tmp_path / "b", *labels, "--prompts", prompts, *kept))
    assert not (tmp_path / "b" / "classifier.safetensors").exists()


def test_what_is_asked_wrongly(folder, tmp_path):
    out = tmp_path / "x"
    for arguments, message in [
        ((), "either --captions COLUMN, or --label-column"),
        (("--captions", "caption", "--label-column", "effusion"), "either --captions"),
        (("--captions", "caption", "--prompts", "chest_xray_13"), "--prompts needs"),
        (("--captions", "report"), "there is no column 'report'"),
        (("--captions", "caption", "--keep", "no.yaml"), "--keep: there is no file"),
        (("--captions", "gap"), f"{N - 1} of {N} images have no text"),
    ]:
        assert message in run(*command(folder, out, *arguments), code=2)
    assert not out.exists()
