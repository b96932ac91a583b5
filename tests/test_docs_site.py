"""The site: complete, true to the code, and readable on a telephone."""

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sk_medsiglip
from sk_medsiglip.encoder import clear_encoders

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
SITE = DOCS / "_site"
TESTS = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))

pytest.importorskip("sphinx", reason="sphinx is not installed")


@pytest.fixture
def site_module(monkeypatch):
    """Import one of the modules that make the site."""
    monkeypatch.syspath_prepend(str(SITE))
    return importlib.import_module


# ----------------------------------------------------------------------- examples run


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_first_lines_run_as_they_stand(page):
    """Whoever looks for the first time copies these, and has no files at hand."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names = {}
    for code in re.findall(r"(?ms)^```python\n(.*?)^```", text):
        exec(compile(code, page, "exec"), names)
    clear_encoders()
    assert names["search"].best_score_ > 0.5
    assert "demonstration" in text


def test_the_citation_names_this_version():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"version = {{{sk_medsiglip.__version__}}}" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page):
    text = page.read_text(encoding="utf-8")
    if ">>> " in text:
        assert page.name in TESTS, (
            f"no test runs the examples of {page.name}: name it in tests/test_docs.py"
        )
        outside = re.sub(r"(?ms)^```.*?^```$", "", text)
        assert "\n>>> " not in outside, (
            f"{page.name}: put examples between ```python and ``` (an empty line "
            "before the end, for doctest); without, Markdown shows them as quotations"
        )
    if re.search(r'"demo"', text):
        assert "demonstration" in text.lower()


# --------------------------------------------------------------------- it is complete


def names_of_api_page():
    """Every name that docs/api.rst lists, with the module it lists it in."""
    listed, module, in_table = set(), "", False
    for line in (DOCS / "api.rst").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\.\. (?:py:)?currentmodule:: (\S+)", line):
            module = found[1]
        elif found := re.match(r"(?:\.\. py:\w+::| {12}) (\w+)", line):
            listed.add(f"{module}.{found[1]}")
        elif line.startswith(".. "):
            in_table = line == ".. autosummary::"
        elif in_table and (found := re.fullmatch(r"   (\w+)", line)):
            listed.add(f"{module}.{found[1]}")
    return listed


def test_api_page_lists_every_public_name():
    listed = names_of_api_page()
    top = set(sk_medsiglip.__all__)
    missing = [name for name in top if f"sk_medsiglip.{name}" not in listed]
    paths = (ROOT / "sk_medsiglip").glob("*/__init__.py")
    rooms = [path.parent.name for path in paths]
    for room in ["exceptions", *rooms]:
        module = importlib.import_module(f"sk_medsiglip.{room}")
        missing += [
            f"{room}.{name}"
            for name in module.__all__
            if name not in top and f"sk_medsiglip.{room}.{name}" not in listed
        ]
    assert not missing, f"add to docs/api.rst: {', '.join(sorted(missing))}"


def test_api_page_lists_nothing_else():
    for name in names_of_api_page():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_fragment_is_in_the_change_log(site_module, tmp_path):
    make_changes = site_module("changes").make_changes
    page = make_changes(ROOT / "changelog")
    fragments = [p for p in (ROOT / "changelog").glob("*.md") if p.name != "README.md"]
    for path in fragments:
        first = path.read_text(encoding="utf-8").split("\n")[0].removeprefix("- ")
        assert first in page, path.name
    (tmp_path / "speed.improved.md").write_text("Faster.", encoding="utf-8")
    with pytest.raises(ValueError, match="improved"):
        make_changes(tmp_path)


def test_every_command_is_in_the_reference(site_module):
    page = site_module("commands").make_commands()
    for words in ("demo", "train", "prompts compare", "cache export"):
        assert f"\n## {words}\n" in page
        assert f"Usage: sk-medsiglip {words}" in page


def test_the_files_of_every_room_are_on_a_page(site_module):
    package = ROOT / "sk_medsiglip"
    page = site_module("rooms").make_rooms(package)
    for path in package.glob("*/*.py"):
        if path.name == "__init__.py":
            assert f"\n## {path.parent.name}/\n" in page
        else:
            assert path.name in page
    assert "::" not in page
    assert page.count("```") == 2 * page.count("```text")


# -------------------------------------------------------------------------- it builds
#
# Slow, since ``make docs`` builds the whole site and looks for the same faults.


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site, built from a copy without running gallery and notebooks."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("docs", "changelog", "notebooks", "benchmarks"):
        kept_out = shutil.ignore_patterns("generated", "__pycache__", "results")
        shutil.copytree(ROOT / name, root / name, ignore=kept_out)
    shutil.copy(ROOT / "CONTRIBUTING.md", root)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-D", "plot_gallery=0", "-D", "run_notebooks=0", "docs", "site"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "site"


@pytest.mark.slow
def test_nothing_is_missing_or_loaded_from_elsewhere(built, site_module):
    assert not site_module("check_built").find_faults(built)
    assert (built / "generated" / "changes.html").is_file()


def test_faults_of_pages_are_found(site_module, tmp_path):
    (tmp_path / "page.html").write_text(
        '<script src="https://cdn.example/x.js"></script><img src="no.png">'
        '<a href="gone.html#part">there</a><a href="https://example.org">out</a>'
        '<link rel="stylesheet" href="//fonts.example/f.css">',
        encoding="utf-8",
    )
    assert site_module("check_built").find_faults(tmp_path) == [
        "page.html: loads https://cdn.example/x.js",
        "page.html: there is no no.png",
        "page.html: loads //fonts.example/f.css",
        "page.html: there is no gone.html#part",
        "page.html: no words for no.png",
    ]


@pytest.mark.slow
def test_pages_fit_a_telephone(built):
    webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    for one in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(one)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True},
        )
        pages = [*PAGES, DOCS / "api.md", DOCS / "generated" / "command_line.md"]
        for page in pages:
            name = page.relative_to(DOCS).with_suffix(".html")
            browser.get((built / name).as_uri())
            width = browser.execute_script("return document.body.scrollWidth")
            assert width <= 390, f"{name} is {width} pixels wide"
    finally:
        browser.quit()
