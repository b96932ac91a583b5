"""The release script: the address of the project, and the links of the README."""

import json
import re
import tomllib
from pathlib import Path

import pytest

build = pytest.importorskip(
    "release.build", reason="the sdist is tested from its own folder"
)

ROOT = Path(__file__).parents[1]
URL = "https://example.org/group/project"


@pytest.mark.parametrize(
    "url", ["", "example.org/a", "http://example.org/a", "https://example.org/"]
)
def test_nothing_is_built_without_an_address(url):
    with pytest.raises(SystemExit, match="https"):
        build.check_url(url)


def test_every_link_of_the_readme_can_be_followed_from_elsewhere():
    text = build.absolute_links((ROOT / "README.md").read_text(), URL, "0" * 40)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 10
    assert all(link.startswith(("https://", "#")) for link in links)
    ours = [link for link in links if link.startswith(URL)]
    paths = [link.split("0" * 40 + "/")[1].split("#")[0] for link in ours]
    assert all((ROOT / path).exists() for path in paths), paths
    assert f"{URL}/raw/" in text  # the picture


def test_the_address_stands_in_the_metadata_of_a_copy(tmp_path):
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    build.write_addresses(tmp_path, URL, "0" * 40)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Source"] == URL
    assert "plot" in project["optional-dependencies"]
    with pytest.raises(SystemExit, match="urls"):
        build.write_addresses(tmp_path, URL, "0" * 40)


def test_provenance_names_every_file(tmp_path):
    file = tmp_path / "some.whl"
    file.write_bytes(b"wheel")
    told = json.loads(json.dumps(build.describe([file], URL, "0" * 40)))
    assert told["subject"] == [
        {"name": "some.whl", "digest": {"sha256": build.digest(file)}}
    ]


def test_versions_agree():
    version = (ROOT / "sk_medsiglip/_version.py").read_text().split('"')[-2]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    recipe = (ROOT / "release/conda/recipe.yaml").read_text()
    assert f'version: "{version}"' in recipe
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in needed["dependencies"]:
        bound = requirement.partition(">=")[2]
        assert f">={bound}" in recipe, requirement
