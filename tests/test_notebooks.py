"""The notebooks run as they are, and hold no outputs."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

pytest.importorskip("nbclient", reason="nbclient is not installed")


def test_the_page_lists_every_notebook():
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) >= 8
    for path in NOTEBOOKS:
        assert f"](generated/notebooks/{path.stem}.md)" in page
        assert f"\ngenerated/notebooks/{path.stem}\n" in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_file(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    assert not any(cell.get("outputs") for cell in cells)
    assert not any(cell.get("execution_count") for cell in cells)
    assert sources[0].startswith("# ")
    assert "demonstration" in sources[0]
    assert '"google/medsiglip-448"' in sources[0]
    # One word changes the model.
    assert sources[1] == 'MODEL = "demo"'
    assert '"demo"' not in "".join(
        "".join(cell["source"]) for cell in cells[2:] if cell["cell_type"] == "code"
    )


@pytest.mark.slow  # "make docs" runs them all anyway
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_without_a_warning(path, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_site"))
    monkeypatch.setenv("SK_MEDSIGLIP_CACHE", str(tmp_path))
    run_notebook = importlib.import_module("notebooks").run_notebook
    notebook = run_notebook(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def test_a_notebook_that_warns_is_an_error(monkeypatch, tmp_path):
    nbformat = importlib.import_module("nbformat")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_site"))
    run_notebook = importlib.import_module("notebooks").run_notebook
    cell = nbformat.v4.new_code_cell("import warnings\nwarnings.warn('look here')")
    path = tmp_path / "loud.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    with pytest.raises(ValueError, match="look here"):
        run_notebook(path)
