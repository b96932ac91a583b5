"""What the package says of its own shape is true."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sk_medsiglip"
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def docstring_of(room):
    text = (room / "__init__.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)) or ""


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_lists_its_files(room):
    """The list is what somebody reads who opens the folder for the first time."""
    files = {path.name for path in room.glob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"\b\w+\.py\b", docstring_of(room)))
    missing, gone = files - named, named - files
    assert not missing, (
        f"say in one line of the docstring of sk_medsiglip/{room.name}/__init__.py "
        f"what there is in {', '.join(sorted(missing))}"
    )
    assert not gone, f"{room.name} has no {', '.join(sorted(gone))}"


def test_the_page_names_every_room_and_every_file_outside_of_rooms():
    for room in ROOMS:
        assert f"`{room.name}/`" in PAGE
    for path in PACKAGE.glob("*.py"):
        if path.name != "__init__.py":
            assert f"`{path.name}`" in PAGE


def test_every_file_that_the_page_names_is_there():
    folders = ("sk_medsiglip", "tests", "benchmarks", "training", "docs")
    files = {path.name for one in folders for path in (ROOT / one).rglob("*.py")}
    named = set(re.findall(r"`(?:[\w/]+/)?(\w+\.py)`", PAGE))
    assert len(named) > 40
    assert not named - files
    for room, name in re.findall(r"`(\w+)/(\w+\.py)`", PAGE):
        inside = PACKAGE / room if (PACKAGE / room).is_dir() else ROOT / room
        assert (inside / name).is_file(), f"{room}/{name}"
