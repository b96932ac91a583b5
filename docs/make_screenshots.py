"""Take pictures of the page of ``sk-medsiglip explore``, on phantoms.

Run ``python docs/make_screenshots.py``; it needs chromium and selenium, and writes
``docs/images/explore_*.png``. The model is the demonstration, the images are drawings,
and the truth answers in the place of a person. Nothing of it says anything about
medicine.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.explore import explore

FOLDER = Path(__file__).with_name("images")
PAIR = {"positive": ["pleural effusion"], "negative": ["no pleural effusion"]}
N = 600
SIZES = {"": (1280, 800), "_zoomed": (640, 400), "_telephone": (390, 844)}
N_COLOURS = 256  # of a palette, which takes a third of the bytes


def main(folder: Path = FOLDER) -> None:
    """Label and refit, and take pictures on the way."""
    folder.mkdir(exist_ok=True)
    phantoms = make_chest_phantoms(N, random_state=11)
    truth = phantoms.target[:, list(phantoms.target_names).index("effusion")]
    with tempfile.TemporaryDirectory() as results:
        served = explore(
            MedSigLIPEmbedder("demo").transform(phantoms.images),
            images=phantoms.images,
            groups=phantoms.groups,
            prompts={"effusion": PAIR},
            locked=0.2,
            model="demo",
            title="Chest phantoms",
            folder=results,
            block=False,
            open_browser=False,
        )
        browser = open_browser()
        try:
            Shots(browser, folder).take(served.url, truth)
        finally:
            browser.quit()
            served.stop()


def open_browser() -> webdriver.Chrome:
    """Open a browser without a window."""
    options = webdriver.ChromeOptions()
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


class Shots:
    """A browser on the page, and the folder of its pictures."""

    def __init__(self, browser: webdriver.Chrome, folder: Path) -> None:
        self.browser, self.folder = browser, folder

    def take(self, url: str, truth: list[int]) -> None:
        """Go through a session, and take the pictures."""
        self.resize(*SIZES[""])
        self.browser.get(url)
        self.until("document.getElementById('map').dataset.drawn")
        for _ in range(2):
            self.label_queue(truth)
            self.press("r")
            self.until_said("Trained")
        self.press("q")
        self.until_said("to label.")
        self.press("yn")
        self.click("try")
        self.until_said("Tried")
        for ending, size in SIZES.items():
            self.resize(*size)
            self.browser.execute_script("scrollTo(0, 0)")
            self.save(f"explore{ending}.png")
        self.resize(*SIZES[""])
        self.browser.execute_script("document.querySelector('.tile.current').focus()")
        self.press(Keys.ENTER)
        self.until("document.getElementById('large-image').naturalWidth")
        self.save("explore_large.png")

    def label_queue(self, truth: list[int]) -> None:
        """Answer all that the page asks by the truth."""
        self.press("q")
        self.until_said("to label.")
        numbers = self.browser.execute_script(
            "return [...document.querySelectorAll('.tile .number')]"
            ".map(e => e.innerText)"
        )
        for number in numbers:
            self.press("y" if truth[int(number)] else "n")
        self.until_said("All of these are answered")

    def until(self, condition: str) -> None:
        """Wait for a condition in JavaScript."""
        WebDriverWait(self.browser, 60, poll_frequency=0.05).until(
            lambda browser: browser.execute_script(f"return {condition}")
        )

    def until_said(self, words: str) -> None:
        """Wait for words in the status line."""
        self.until(f"document.getElementById('status').textContent.includes('{words}')")

    def press(self, keys: str) -> None:
        """Press keys wherever the focus is."""
        ActionChains(self.browser).send_keys(keys).perform()

    def click(self, name: str) -> None:
        """Click an element by its id."""
        self.browser.find_element("id", name).click()

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window, in CSS pixels."""
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )

    def save(self, name: str) -> None:
        """Write a picture of the window, when all in it is there."""
        self.until("[...document.images].every(i => i.hidden || i.complete)")
        shot = Image.open(io.BytesIO(self.browser.get_screenshot_as_png()))
        small = shot.convert("RGB").quantize(N_COLOURS, kmeans=2)
        small.save(self.folder / name, optimize=True)


if __name__ == "__main__":
    main()
