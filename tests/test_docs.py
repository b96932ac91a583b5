"""The examples on the pages of the documentation run as they are printed."""

import doctest
from pathlib import Path

import pytest

from sk_medsiglip.encoder import clear_encoders

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    ("page", "needs"),
    [
        ("audit.md", []),
        ("caching.md", ["pyarrow"]),
        ("deploying.md", ["skops"]),
        ("embedding.md", []),
        ("engines.md", ["openvino"]),
        ("explore.md", ["matplotlib", "skops"]),
        ("heatmaps.md", ["matplotlib"]),
        ("operating_points.md", []),
        ("evaluation.md", []),
        ("few_labels.md", []),
        ("heads.md", []),
        ("many_labels.md", []),
        ("multi_label.md", []),
        ("prompts.md", []),
        ("pictures.md", ["matplotlib"]),
        ("quick_start.md", []),
        ("recipes.md", []),
        ("splits.md", []),
        ("tuning.md", ["optuna"]),
        ("fine_tuning.md", ["peft"]),
        ("report.md", ["matplotlib"]),
        ("small_findings.md", ["matplotlib"]),
        ("retrieval.md", ["lancedb"]),
        ("volumes.md", ["h5py", "nibabel", "tifffile"]),
        ("zero_shot.md", []),
    ],
)
def test_page(page, needs, tmp_path, monkeypatch):
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    result = doctest.testfile(
        str(DOCS / page), module_relative=False, optionflags=flags
    )
    clear_encoders()
    assert result.failed == 0
    assert result.attempted > 2
