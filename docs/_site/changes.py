"""The change log, from the fragments in ``changelog``."""

from __future__ import annotations

from pathlib import Path

from sk_medsiglip import __version__

__all__ = ["make_changes"]

#: Kinds of change in the order of the page: what breaks comes first.
_KINDS = {
    "breaking": "What breaks",
    "added": "New",
    "changed": "Changed",
    "fixed": "Mended",
}

_INTRODUCTION = """\
# Changes

What changed for users, and what to do about it. Made of the files in `changelog/`;
[Contributing](contributing.md) says how to add one.

"""


def make_changes(folder: Path) -> str:
    """Return the page.

    Parameters
    ----------
    folder : Path
        Where the fragments lie, ``<name>.<kind>.md``.

    Raises
    ------
    ValueError
        If a file is named otherwise: it would silently be missing.
    """
    fragments: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        kind = path.name.removesuffix(".md").rpartition(".")[2]
        if kind not in fragments:
            raise ValueError(
                f"{path.name}: the kind {kind!r} is none of {', '.join(_KINDS)}. "
                "Name it <name>.<kind>.md."
            )
        text = path.read_text(encoding="utf-8").strip()
        fragments[kind].append(text if text.startswith("- ") else _as_point(text))
    parts = [_INTRODUCTION, f"## Version {__version__}, not released yet\n"]
    for kind, texts in fragments.items():
        if texts:
            parts.append(f"\n### {_KINDS[kind]}\n\n" + "\n".join(texts) + "\n")
    return "".join(parts)


def _as_point(text: str) -> str:
    """Return a paragraph as a point of a list."""
    return "- " + text.replace("\n", "\n  ")
