"""Run the notebooks, and make pages of what they printed and drew.

The files in ``notebooks/`` hold no outputs. A page is made again when its notebook
changed; delete ``docs/generated/notebooks`` to run all of them again.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

__all__ = ["make_notebooks", "run_notebook"]

#: Seconds a cell may take.
_TIMEOUT = 300
#: tqdm misses ipywidgets, for bars that nobody looks at here.
_ALLOWED = "ignore:IProgress not found"


def run_notebook(path: Path) -> Any:
    """Return a notebook with the outputs of a run in an empty folder.

    Parameters
    ----------
    path : Path
        The notebook; it is not changed.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell raises; it names the cell and holds the traceback.
    ValueError
        If a cell warns: whoever runs it would wonder.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="sk-medsiglip-notebook-") as folder:
        client = NotebookClient(
            notebook,
            timeout=_TIMEOUT,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],
        )
        client.execute(env=os.environ | {"PYTHONWARNINGS": _ALLOWED})
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise ValueError(f"{path.name}, cell {number}: {output.text}")
    return notebook


def make_notebooks(folder: Path, out: Path, *, run: bool = True) -> None:
    """Write one Markdown page a notebook, its pictures, and the notebook beside it.

    Parameters
    ----------
    folder : Path
        Where the notebooks are.
    out : Path
        Where the pages go.
    run : bool, default=True
        False leaves outputs out, for a quick look at the words.
    """
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.ipynb")):
        state = f"{hashlib.sha256(path.read_bytes()).hexdigest()} run={run}"
        stamp = out / f"{path.stem}.made-of"
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == state:
            continue
        notebook = run_notebook(path) if run else nbformat.read(path, as_version=4)
        shutil.copyfile(path, out / path.name)
        page = "\n\n".join(_parts(notebook, out, path))
        (out / f"{path.stem}.md").write_text(page + "\n", encoding="utf-8")
        stamp.write_text(state, encoding="utf-8")


def _parts(notebook: Any, out: Path, path: Path) -> list[str]:
    """Return what the page is made of, pictures being written on the way."""
    parts, n_pictures = [], 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in _joined(cell.get("outputs", [])):
            data = output.get("data", {})
            if "image/png" in data:
                n_pictures += 1
                name = f"{path.stem}_{n_pictures}.png"
                (out / name).write_bytes(base64.b64decode(data["image/png"]))
                alt = cell.metadata.get("alt", "")
                if not alt:
                    raise ValueError(
                        f"{path.name}: a cell draws a picture and says nothing of it "
                        'to those who do not see it. Set its metadata {"alt": "..."}.'
                    )
                parts.append(f"![{alt}]({name})")
            elif "<table" in data.get("text/html", ""):
                parts.append(f"```{{raw}} html\n{_table(data['text/html'])}\n```")
            else:
                text = output.get("text") or data.get("text/plain", "")
                parts.append(f"```{{code-block}} text\n:class: output\n\n{text}\n```")
    note = f"{{download}}`The notebook itself <{path.name}>`, to run and change."
    return [parts[0], note, *parts[1:]]


def _joined(outputs: list[Any]) -> list[Any]:
    """Return outputs with what was printed piece by piece in one."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _table(html: str) -> str:
    """Return a table without the styles that pandas puts in, for the page's own."""
    return re.sub(r"<style.*?</style>\s*", "", html, flags=re.DOTALL)
