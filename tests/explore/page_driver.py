"""A page of the explore server in a real browser, for tests."""

import json

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.support.ui import WebDriverWait

_PATIENCE = 60  # seconds; on a busy machine some states take long to come


class Page:
    """What a person can do with the page, and what they see of it."""

    def __init__(self, browser, url):
        self.browser = browser
        self.ask = browser.execute_script
        browser.get("about:blank")
        browser.get_log("browser")
        browser.get_log("performance")  # what was before
        self.open(url)

    def open(self, url):
        """Open an address, and wait until keys and buttons work."""
        self.browser.get(url)
        self.until("document.getElementById('next-step')?.textContent")
        self.until("document.getElementById('map').dataset.drawn")

    def until(self, condition, *values):
        """Wait until a condition in JavaScript holds; return its value."""
        script = f"return {condition}"
        wait = WebDriverWait(self.browser, _PATIENCE, poll_frequency=0.03)
        return wait.until(
            lambda browser: browser.execute_script(script, *values), condition
        )

    def until_said(self, words):
        """Wait until the status line holds words."""
        held = "document.getElementById('status').textContent.includes(arguments[0])"
        self.until(held, words)

    def forget_said(self):
        """Empty the status line, so that its next words are new."""
        self.ask("document.getElementById('status').textContent = ''")

    def until_kept(self, part, value):
        """Wait until the server keeps a part of the view."""
        script = (
            "const done = arguments[0]; fetch('state').then(it => it.json())"
            f".then(it => done(it.view.{part}))"
        )
        WebDriverWait(self.browser, _PATIENCE, poll_frequency=0.1).until(
            lambda browser: browser.execute_async_script(script) == value
        )

    def text(self, name):
        return self.ask(f"return document.getElementById('{name}').textContent")

    def element(self, name):
        return self.browser.find_element("id", name)

    def click(self, name):
        self.element(name).click()

    def press(self, keys):
        """Press keys wherever the focus is."""
        ActionChains(self.browser).send_keys(keys).perform()

    def choose(self, name, value):
        """Choose an option of a select, as the keyboard or the mouse would."""
        self.ask(
            "const it = document.getElementById(arguments[0]); it.value = arguments[1];"
            "it.dispatchEvent(new Event('change'))",
            name,
            value,
        )

    def write(self, element, words):
        element.clear()
        element.send_keys(words)

    def drag_on_map(self, corners):
        """Draw with the mouse; corners are shares of the map, from its top left."""
        self.forget_said()
        box = self.element("map").rect
        chain = ActionChains(self.browser, duration=20)
        for i, (across, down) in enumerate(corners):
            to = (across - 0.5) * box["width"], (down - 0.5) * box["height"]
            chain.move_to_element_with_offset(self.element("map"), *map(int, to))
            if i == 0:
                chain.click_and_hold()
        chain.release().perform()

    def wheel_on_map(self, down):
        origin = ScrollOrigin.from_element(self.element("map"))
        ActionChains(self.browser).scroll_from_origin(origin, 0, down).perform()

    def area(self):
        """Return the part of the map in view: x0, x1, y0, y1."""
        self.until("document.getElementById('map-image').complete")
        query = self.ask(
            "return Object.fromEntries(new URL("
            "document.getElementById('map-image').src).searchParams)"
        )
        return [float(query[name]) for name in ("x0", "x1", "y0", "y1")]

    def rows(self):
        """Return the numbers of the images in the grid."""
        words = self.ask(
            "return [...document.querySelectorAll('.tile .number')]"
            ".map(one => one.textContent)"
        )
        return [int(one) for one in words]

    def answers(self):
        """Return the answers that the tiles show."""
        return self.ask(
            "return [...document.querySelectorAll('.tile .answer')]"
            ".map(one => one.textContent)"
        )

    def current(self):
        """Return the number of the image in hand."""
        return int(
            self.ask(
                "return document.querySelector('.tile.current .number')?.innerText"
            )
        )

    def show_queue(self):
        """Ask what to label next, and wait for it."""
        self.forget_said()
        self.press("q")
        self.until_said("to label.")
        return self.rows()

    def requests(self):
        """Return the addresses that were asked for since the page was opened."""
        events = [
            json.loads(one["message"])["message"]
            for one in self.browser.get_log("performance")
        ]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def faults(self):
        """Return what the console of the browser complains about."""
        return [one["message"] for one in self.browser.get_log("browser")]
