"""Pages that are made before Sphinx reads.

Change log, commands, files of rooms, notebooks, and files of the repository that lie
outside ``docs``. They go to ``docs/generated``, which git ignores. A file is written
only if its text changed, so that Sphinx reads again what must be read again.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from changes import make_changes
from commands import make_commands
from rooms import make_rooms

import sk_medsiglip
from notebooks import make_notebooks

__all__ = ["setup", "write_pages"]

#: Links to files outside ``docs``, and the pages that stand for them on the site.
_ELSEWHERE = {
    "../benchmarks/README.md": "generated/running_benchmarks.md",
    "../CONTRIBUTING.md": "generated/contributing.md",
    "../changelog/README.md": "generated/changes.md",
}


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_config_value("run_notebooks", True, "env", types={bool, int, str})
    # Before autosummary and the gallery, which look at the pages there are.
    app.connect("builder-inited", _make, priority=100)
    app.connect("source-read", _mend_page)
    return {"parallel_read_safe": True}


def write_pages(docs: Path, *, run_notebooks: bool = True) -> None:
    """Write every page that is made of something else."""
    root, made = docs.parent, docs / "generated"
    made.mkdir(exist_ok=True)
    _write(made / "changes.md", make_changes(root / "changelog"))
    _write(made / "command_line.md", make_commands())
    _write(made / "rooms.md", make_rooms(Path(sk_medsiglip.__file__).parent))
    _write(made / "contributing.md", _carried_over(root / "CONTRIBUTING.md", root))
    _write(
        made / "running_benchmarks.md",
        _carried_over(root / "benchmarks" / "README.md", root),
    )
    make_notebooks(root / "notebooks", made / "notebooks", run=run_notebooks)


def _make(app: Any) -> None:
    run = str(app.config.run_notebooks).lower() not in ("0", "false")
    write_pages(Path(app.srcdir), run_notebooks=run)


def _write(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _carried_over(path: Path, root: Path) -> str:
    """Return a page of the repository whose links lead to pages of the site.

    What has no page there, a folder or a file of code, becomes its plain name.
    """

    def mend(found: re.Match[str]) -> str:
        words, target = found[1], found[2]
        if "://" in target or target.startswith("#"):
            return found[0]
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve().relative_to(root.resolve()).as_posix()
        page = _ELSEWHERE.get(f"../{place}", "")
        if page:
            page = page.removeprefix("generated/")
        elif place.startswith("docs/") and place.endswith(".md"):
            page = f"../{place.removeprefix('docs/')}"
        else:
            return words if "`" in words else f"`{words}`"
        return f"[{words}]({page}{'#' + anchor if anchor else ''})"

    text = path.read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", mend, text)


def _mend_page(app: Any, docname: str, source: list[str]) -> None:
    """Turn links that leave ``docs`` to the pages that stand for their files.

    And end code where it ends: doctest wants an empty line before a closing fence.
    """
    if "/" not in docname:
        for target, page in _ELSEWHERE.items():
            source[0] = source[0].replace(f"]({target}", f"]({page}")
        source[0] = source[0].replace("\n\n```\n", "\n```\n")
