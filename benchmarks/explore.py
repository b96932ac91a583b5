"""The explore page with 100,000 images: from an action to what the eye sees.

Run ``python -m benchmarks.explore``; chromium, its driver and selenium are needed. The
page is the real one, in a browser without a window, and its server a process of its
own. Times are taken in the page, from the event (a click, a key, the mouse let go) to
the first frame in which the answer is drawn and its images are loaded. The rows are
made up and memory-mapped, as wide as MedSigLIP's; the prompts are encoded by a model of
one layer and have been tried before, so that texts come from the store. Thumbnails are
of 200 files of phantoms, each of which stands for many rows.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from benchmarks._measure import setting, write_results
from benchmarks.scaling import WIDTH, write_checkpoint

FINDING = "nodule"
TEXTS = ("a nodule", "a small round nodule in the lung")
N_FILES, N_LABELS = 200, 200
#: Share of the map that an outline holds, so that it holds as large a share of rows.
OUTLINED = 0.05
#: Rows that are made at a time.
_MADE = 10_000

#: Waits, a frame at a time, until a condition holds, once an event has happened.
_WATCH = """
const [type, condition] = [arguments[0], new Function("before", arguments[1])];
const image = document.getElementById("map-image");
const before = {
  map: image.src,
  tried: document.getElementById("tried").innerHTML,
  figures: document.getElementById("figures").innerHTML,
  why: document.getElementById("why").textContent,
  tile: document.querySelector("#grid .current"),
};
window.watched = null;
document.addEventListener(type, () => {
  const start = performance.now();
  const look = () => {
    if (condition(before)) window.watched = performance.now() - start;
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}, { capture: true, once: true });
"""
_WATCHED = """
const tell = arguments[arguments.length - 1];
const look = () => window.watched === null ? setTimeout(look, 5) : tell(window.watched);
look();
"""
_IS_DRAWN = """
const image = document.getElementById("map-image");
const isDrawn = image.src !== before.map && image.complete && image.naturalWidth > 0;
"""
_TRIED = (
    _IS_DRAWN
    + """
const tried = document.getElementById("tried");
return isDrawn && tried.innerHTML !== before.tried
  && tried.querySelectorAll("svg").length > 1;
"""
)
_REFITTED = (
    _IS_DRAWN + "return isDrawn && document.getElementById('figures').innerHTML !== "
    "before.figures;"
)
_SELECTED = """
const grid = document.getElementById("grid");
const box = grid.getBoundingClientRect();
const seen = [...grid.querySelectorAll("img")].filter((one) => {
  const { top, bottom } = one.getBoundingClientRect();
  return bottom > box.top && top < Math.min(box.bottom, innerHeight);
});
return document.getElementById("why").textContent !== before.why && seen.length > 0
  && seen.every((one) => one.complete && one.naturalWidth > 0);
"""
_LABELLED = "return before.tile.querySelector('.answer').textContent.includes('yes');"
_PAINTED = """
window.painted = null;
const look = () => {
  const image = document.getElementById("map-image");
  if (image && image.complete && image.naturalWidth > 0)
    window.painted = performance.now();
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


def write_rows(file: Path, n_rows: int) -> NDArray[np.bool_]:
    """Write rows whose map is evenly filled; return which have the finding."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(WIDTH, 3)))[0].T.astype(np.float32)
    rows = np.lib.format.open_memmap(file, "w+", np.float32, (n_rows, WIDTH))
    truth = rng.random(n_rows) < 0.2
    for start in range(0, n_rows, _MADE):
        part = slice(start, min(start + _MADE, n_rows))
        n = part.stop - part.start
        places = rng.uniform(-1, 1, (n, 3)) * [30, 20, 2]
        places[:, 2] += 3 * truth[part]
        noise = rng.standard_normal((n, WIDTH), dtype=np.float32) / 10
        rows[part] = 1 + noise + places.astype(np.float32) @ axes
    rows.flush()
    return truth


def write_images(folder: Path) -> list[str]:
    """Write phantoms as PNG files."""
    from sk_medsiglip.datasets import make_chest_phantoms

    folder.mkdir()
    paths = []
    for i, image in enumerate(make_chest_phantoms(N_FILES, random_state=0).images):
        paths.append(str(folder / f"{i:03}.png"))
        Image.fromarray(image).save(paths[-1])
    return paths


def asked_of(folder: Path) -> dict[str, Any]:
    """Return the parameters of the session, the same in every process."""
    from sk_medsiglip import EmbeddingCache, MedSigLIPEmbedder

    rows = np.load(folder / "rows.npy", mmap_mode="r")
    files = sorted(map(str, (folder / "images").iterdir()))
    return {
        "X": rows,
        "images": [files[i % len(files)] for i in range(len(rows))],
        "groups": np.arange(len(rows)) // 2,
        "prompts": {FINDING: {"positive": TEXTS[0], "negative": "no nodule"}},
        "labels_path": folder / "labels.jsonl",
        "model": MedSigLIPEmbedder(
            folder / "model", device="cpu", cache=EmbeddingCache(folder / "store")
        ),
    }


def prepare(folder: Path, n_rows: int) -> None:
    """Write rows, images and a model, and answer some rows by the truth."""
    from sk_medsiglip.explore import ExploreSession

    truth = write_rows(folder / "rows.npy", n_rows)
    write_images(folder / "images")
    write_checkpoint(folder / "model")
    session = ExploreSession(**asked_of(folder), locked=0.1)
    rng = np.random.default_rng(1)
    rows = rng.permutation(np.flatnonzero(~session.locked))[:N_LABELS]
    for value, word in ((True, "yes"), (False, "no")):
        session.label(rows[truth[rows] == value], FINDING, word)
    for text in TEXTS:  # into the store
        session.score({FINDING: {"positive": text, "negative": "no nodule"}})


def serve(folder: Path) -> None:
    """Serve the page until the process ends; its address is printed."""
    from sk_medsiglip.explore import explore

    explore(**asked_of(folder), folder=folder / "out", open_browser=False)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the address of a page, and the process that serves it."""
    command = [sys.executable, "-u", "-m", "benchmarks.explore", "--serve", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if address := next((w for w in line.split() if "?token=" in w), None):
                yield address, psutil.Process(process.pid)
                return
        raise RuntimeError("the server ended before it printed its address")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def browsing() -> Iterator[Any]:
    """Yield a browser without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    options.add_argument("--window-size=1280,800")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        browser.set_script_timeout(60)
        yield browser
    finally:
        browser.quit()


class Page:
    """The page in a browser, and how long it takes to answer."""

    def __init__(self, browser: Any, address: str) -> None:
        self._browser = browser
        self._rng = np.random.default_rng(2)
        browser.execute_cdp_cmd(
            "Page.addScriptToEvaluateOnNewDocument", {"source": _PAINTED}
        )
        browser.get(address)
        self._painted()

    def paint(self, turn: int) -> float:
        """Load the page again."""
        self._browser.get(self._browser.current_url.partition("?")[0])
        return self._painted()

    def try_prompts(self, turn: int) -> float:
        """Try one of two texts that were tried before."""
        return self.try_text(TEXTS[turn % 2])

    def try_text(self, text: str) -> float:
        """Try a text."""
        self._click("#tab-prompts")
        self._browser.execute_script(
            "const box = document.querySelector('#prompts textarea');"
            "box.value = arguments[0];"
            "box.dispatchEvent(new Event('input', { bubbles: true }));",
            text,
        )
        return self._measured("click", _TRIED, lambda: self._click("#try"))

    def lasso(self, turn: int) -> float:
        """Draw an outline somewhere on the map."""
        box = self._browser.execute_script(
            "const box = document.getElementById('map').getBoundingClientRect();"
            "return [box.left, box.top, box.width, box.height];"
        )
        corner, sides = np.array(box[:2]), np.array(box[2:])
        angles = np.linspace(0, 2 * np.pi, 40)
        outline = np.column_stack([np.cos(angles), np.sin(angles)])
        outline *= np.sqrt(OUTLINED / np.pi)
        places = corner + sides * (self._rng.uniform(0.25, 0.75, 2) + outline)

        def draw() -> None:
            self._mouse("mousePressed", places[0])
            for place in places[1:]:
                self._mouse("mouseMoved", place)
            self._mouse("mouseReleased", places[-1])

        return self._measured("pointerup", _SELECTED, draw)

    def label(self, turn: int) -> float:
        """Answer the image in hand; the queue gives images before."""
        self._measured("click", _SELECTED, lambda: self._click("#queue"))
        return self._measured("keydown", _LABELLED, lambda: self._key("y"))

    def refit(self, turn: int) -> float:
        """Train again, and take the last label back first."""
        return self._measured("keydown", _REFITTED, lambda: self._key("r"))

    def n_selected(self) -> int:
        """Return how many images the last outline held."""
        said = self._browser.find_element("id", "why").text
        return int(said.split()[0].replace(",", ""))

    def _painted(self) -> float:
        return float(
            self._browser.execute_async_script(
                _WATCHED.replace("window.watched", "window.painted")
            )
        )

    def _measured(self, event: str, until: str, act: Callable[[], None]) -> float:
        self._browser.execute_script(_WATCH, event, until)
        act()
        return float(self._browser.execute_async_script(_WATCHED))

    def _click(self, selector: str) -> None:
        self._browser.execute_script(
            "document.querySelector(arguments[0]).click();", selector
        )

    def _mouse(self, kind: str, place: NDArray[np.float64]) -> None:
        x, y = map(float, place)
        asked = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        asked["buttons"] = 0 if kind == "mouseReleased" else 1
        self._browser.execute_cdp_cmd("Input.dispatchMouseEvent", asked)

    def _key(self, letter: str) -> None:
        for kind in ("keyDown", "keyUp"):
            asked = {"type": kind, "key": letter, "text": letter}
            if kind == "keyUp":
                del asked["text"]
            self._browser.execute_cdp_cmd("Input.dispatchKeyEvent", asked)


def measure(folder: Path, n_turns: int) -> dict[str, Any]:
    """Return the times of every action, and the memory of the server."""
    with served(folder) as (address, server), browsing() as browser:
        page = Page(browser, address)
        actions: dict[str, Callable[[int], float]] = {
            "prompt to histogram, ROC and map": page.try_prompts,
            "outline to thumbnails": page.lasso,
            "key to labelled": page.label,
            "refit to figures and map": page.refit,
            "first paint": page.paint,
        }
        times: dict[str, list[float]] = {name: [] for name in actions}
        selected = []
        for turn in range(-2, n_turns):  # the first two warm up
            for name, act in actions.items():
                took = act(turn)
                if turn >= 0:
                    times[name].append(took)
                if act == page.lasso:
                    selected.append(page.n_selected())
            print(turn, {name: round(one[-1]) for name, one in times.items() if one})
        memory = server.memory_info().rss
        page.try_text("a text that nobody has tried")
        with_model = server.memory_info().rss
    rows = (folder / "rows.npy").stat().st_size
    return {
        **{
            f"{name}, ms": {
                "median": float(np.median(one)),
                "p95": float(np.percentile(one, 95)),
                "best": min(one),
            }
            for name, one in times.items()
        },
        "memory": {
            "server / rows": memory / rows,
            "after a text that is not in the store": with_model / rows,
            "rows, MB": rows / 1e6,
        },
        "images in an outline": {"median": float(np.median(selected))},
    }


def main() -> None:
    """Read the command line, measure, write and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--serve", type=Path, help="serve the page of a folder")
    parser.add_argument("--dry", action="store_true", help="write no results")
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, arguments.rows)
        results = setting(
            "numpy", "scikit-learn", rows=arguments.rows, width=WIDTH,
            turns=arguments.turns, labels=N_LABELS,
        )  # fmt: skip
        results |= measure(folder, arguments.turns)
    print(results)
    if not arguments.dry:
        write_results("explore", results)


if __name__ == "__main__":
    main()
