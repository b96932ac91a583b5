"""The page of ``sk-medsiglip explore`` in a real browser, with a real server.

Tests wait for what the page shows, never for a time.
"""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.explore import explore

N = 120
PAIR = {"positive": "pleural effusion", "negative": "no pleural effusion"}
EVIL = "<img src=x onerror=alert(1)>"
SIZES = {"wide": (1280, 800), "zoomed to 200 %": (640, 400), "telephone": (390, 844)}


@pytest.fixture(scope="module")
def phantoms():
    """Fewer phantoms than other tests have, so that they are soon embedded."""
    return make_chest_phantoms(N, random_state=31_007)


@pytest.fixture(scope="module")
def phantom_vectors(phantoms):
    return MedSigLIPEmbedder("demo").transform(phantoms.images)


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Return a function that serves rows or images, on a port of this machine."""
    running = []

    def start(X, **how):
        how.setdefault("model", "demo")
        how.setdefault("folder", tmp_path_factory.mktemp("explore"))
        running.append(explore(X, block=False, open_browser=False, **how))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def labels_file(tmp_path_factory):
    return tmp_path_factory.mktemp("labels") / "labels.jsonl"


@pytest.fixture(scope="module")
def served(serve, phantoms, phantom_vectors, labels_file):
    """A page on phantoms with a table and a locked test set."""
    ages = np.arange(N) % 50 + 30
    frame = pd.DataFrame({"view": np.where(ages % 2, "AP", EVIL), "age": ages})
    return serve(
        phantom_vectors,
        images=phantoms.images,
        frame=frame,
        groups=phantoms.groups,
        prompts={"effusion": PAIR},
        locked=0.25,
        labels_path=labels_file,
    )


@pytest.fixture
def open_page(browser):
    """Return a function that opens a page in a window of 1280 x 800."""
    from page_driver import Page

    size_of_window(browser, *SIZES["wide"])
    yield lambda url: Page(browser, url)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture
def page(served, open_page):
    """The page on phantoms, with what the test before had in view."""
    return open_page(served.url)


def size_of_window(browser, width, height):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
    )


def label_of(served, row, column="effusion"):
    """Return a label as another program would read it."""
    served.session.refresh()
    found = served.session.labels[column][row]
    return None if pd.isna(found) else found


# --- What a newcomer sees -----------------------------------------------------------


def test_first_sight(page, served):
    assert "press q" in page.text("next-step")
    assert page.ask("return location.search") == ""  # the token is not kept
    assert not page.element("demo").get_attribute("hidden")
    assert f"{served.session.locked.sum()} for the test" in page.text("counts")
    page.show_queue()
    box = page.browser.find_element("css selector", "#prompts textarea")
    assert box.get_attribute("value") == PAIR["positive"]
    host = re.match(r"http://[^/]+/", served.url)[0]
    assert all(one.startswith((host, "data:")) for one in page.requests())
    assert page.faults() == []


def test_everything_has_a_name(page):
    page.show_queue()
    assert page.ask("return document.documentElement.lang") == "en"
    nameless = page.ask(
        "return [...document.querySelectorAll('input, select, textarea')].filter(e =>"
        " !e.labels.length && !e.ariaLabel).map(e => e.outerHTML)"
    )
    assert nameless == []
    silent = page.ask(
        "return [...document.querySelectorAll('button, [role=option], [role=tab]')]"
        ".filter(e => !(e.ariaLabel || e.textContent.trim())).map(e => e.outerHTML)"
    )
    assert silent == []
    assert page.ask("return [...document.images].every(i => i.hasAttribute('alt'))")
    assert page.ask("return document.getElementById('map-image').alt.length > 20")
    assert page.ask(
        "const ids = [...document.querySelectorAll('[id]')].map(e => e.id);"
        "return ids.length === new Set(ids).size"
    )
    referred = page.ask(
        "return [...document.querySelectorAll('[aria-labelledby], [aria-describedby],"
        " [aria-controls]')].flatMap(e => ['aria-labelledby', 'aria-describedby',"
        " 'aria-controls'].map(n => e.getAttribute(n)).filter(Boolean))"
        ".filter(id => !document.getElementById(id))"
    )
    assert referred == []


def test_tab_reaches_everything_and_one_tile(page):
    page.show_queue()
    page.click("title")  # from the top
    reached = []
    for _ in range(60):
        page.press("\ue004")  # Tab
        name = page.ask(
            "const e = document.activeElement;"
            "return e.role === 'option' ? 'tile' : e.id || e.textContent.trim()"
        )
        if name in reached:
            break
        reached.append(name)
    order = [
        "help-button", "colour", "zoom-in", "map", "queue", "undo", "tile",
        "tab-prompts",
    ]  # fmt: skip
    assert [one for one in reached if one in order] == order


def test_text_has_contrast(page):
    """Every text has a contrast of 4.5 to what is behind it, in the parts in view."""
    page.show_queue()
    pale = page.ask(
        """
        const numbers = c => c.match(/[\\d.]+/g).map(Number);
        const light = c => numbers(c).slice(0, 3).map(v => v / 255).map(v =>
          v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
          .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
        const behind = e => {
          for (; e; e = e.parentElement) {
            const c = getComputedStyle(e).backgroundColor;
            if ((numbers(c)[3] ?? 1) > 0) return c;
          }
          return "rgb(255, 255, 255)";
        };
        return [...document.querySelectorAll("body *")].filter(e =>
          e.checkVisibility() && [...e.childNodes].some(n =>
            n.nodeType === 3 && n.textContent.trim())).filter(e => {
          const a = light(getComputedStyle(e).color), b = light(behind(e));
          return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
        }).map(e => e.outerHTML.slice(0, 90));
        """
    )
    assert pale == []


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_cut_off(page, size):
    width, height = SIZES[size]
    size_of_window(page.browser, width, height)
    page.show_queue()
    assert page.ask("return document.documentElement.scrollWidth") <= width
    too_wide = page.ask(
        "return [...document.querySelectorAll('body *')].filter(e =>"
        " e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.scroll, .strip')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert too_wide == []


# --- Labels --------------------------------------------------------------------------


def test_label_with_keys(page, served):
    rows = page.show_queue()
    assert len(rows) == 16
    assert page.current() == rows[0]
    page.press("y")
    page.until_said(f"Image {rows[0]}: yes")
    page.press("nu")  # fast, one after the other
    page.until_said(f"Image {rows[2]}: unsure")
    assert [label_of(served, row) for row in rows[:3]] == ["yes", "no", "unsure"]
    assert page.answers()[:3] == ["✓ yes", "✗ no", "? unsure"]
    page.press("s")
    page.until_said("Skipped")
    assert page.current() == rows[4]
    assert label_of(served, rows[3]) is None
    page.press("z")
    page.until_said("Taken back: unsure")
    assert label_of(served, rows[2]) is None
    assert page.current() == rows[2]


def test_label_with_buttons_and_marks(page, served):
    rows = page.show_queue()
    page.press(" \ue014 ")  # mark, right, mark
    page.browser.find_element("css selector", "#values button").click()
    page.until_said("2 images: yes")
    assert [label_of(served, row) for row in rows[:2]] == ["yes", "yes"]
    page.click("undo")
    page.until_said("Taken back: yes of 2 images")
    assert label_of(served, rows[1]) is None


def test_keys_in_a_text_box_are_letters(page, served):
    page.show_queue()
    n_before = served.session.labels.notna().to_numpy().sum()
    box = page.browser.find_element("css selector", "#prompts textarea")
    page.write(box, "yes, no, quiet")
    assert box.get_attribute("value") == "yes, no, quiet"
    served.session.refresh()
    assert served.session.labels.notna().to_numpy().sum() == n_before
    page.press("\ue00c")


def test_arrows_walk_through_the_grid(page):
    rows = page.show_queue()
    page.press("\ue014\ue014\ue012")  # right, right, left
    assert page.current() == rows[1]
    page.press("\ue015")  # down
    assert page.current() in rows[3:]
    page.press("\ue013\ue010")  # up, end
    assert page.current() == rows[-1]


def test_help_lists_the_keys(page):
    page.press("?")
    page.until("document.getElementById('help').open")
    assert {"q", "y", "n", "u", "s", "z", "r"} <= set(
        page.ask(
            "return [...document.querySelectorAll('#help-keys th')]"
            ".map(e => e.innerText)"
        )
    )
    said = page.text("why")
    page.press("q")  # does nothing while the keys are in view
    assert page.text("why") == said
    page.press("\ue00c")  # Escape
    page.until("!document.getElementById('help').open")


# --- The map -------------------------------------------------------------------------


def test_outline_and_box_select(page, served):
    """What an outline holds is what the session says that it holds."""
    corners = [(0.1, 0.1), (0.6, 0.05), (0.7, 0.6), (0.4, 0.95), (0.08, 0.7)]
    x0, x1, y0, y1 = page.area()
    for tool in ("lasso", "box"):
        page.browser.find_element("css selector", f"input[value={tool}]").click()
        used = corners if tool == "lasso" else [corners[0], corners[3]]
        page.drag_on_map(used)
        page.until_said("selected")
        if tool == "box":
            (a, b), (c, d) = used
            used = [(a, b), (c, b), (c, d), (a, d)]
        inside = [(x0 + a * (x1 - x0), y1 - b * (y1 - y0)) for a, b in used]
        found = served.session.select(polygon=inside)
        said = int(re.match(r"[\d,]+", page.text("why"))[0])
        assert said == pytest.approx(len(found), abs=3)  # by pixels
        assert len(set(page.rows()) ^ set(found.tolist()[:60])) <= 6
        assert not served.session.locked[page.rows()].any()


def test_zoom_and_move(page):
    whole = page.area()
    page.wheel_on_map(-100)
    near = page.area()
    assert near[1] - near[0] == pytest.approx((whole[1] - whole[0]) / 1.5)
    page.press("0")
    assert page.area() == whole
    page.press("+")
    assert page.area()[1] < whole[1]
    page.ask("document.getElementById('map').focus()")
    before = page.area()
    page.press("\ue014")  # right
    assert page.area()[0] > before[0]
    page.click("zoom-out")
    page.click("zoom-all")
    assert page.area() == whole
    page.browser.find_element("css selector", "input[value=move]").click()
    page.drag_on_map([(0.5, 0.5), (0.75, 0.5)])
    assert page.area()[0] < whole[0]
    page.click("select-view")
    page.until_said("selected")


def test_colours_have_a_legend_in_words(page):
    colours = page.ask("return [...document.getElementById('colour').options].length")
    for i in range(colours):
        page.ask(
            "const it = document.getElementById('colour'); it.selectedIndex ="
            " arguments[0]; it.dispatchEvent(new Event('change'))",
            i,
        )
        name = page.ask(
            "return document.getElementById('colour').selectedOptions[0].text"
        )
        page.until(
            "document.getElementById('map-image').alt.includes(arguments[0])", name
        )
        assert page.ask("return document.getElementById('legend').children.length") > 1
    assert page.ask("return document.querySelector('#legend img')") is None
    assert page.faults() == []


def test_find_images(page, served):
    page.ask("document.getElementById('find').open = true")
    names = dict(
        page.ask(
            "return [...document.getElementById('find-in').options]"
            ".map(e => [e.text, e.value])"
        )
    )
    usable = ~served.session.locked
    ages = served.session.frame["age"].to_numpy()
    for name, low, high, n in (
        ("Score: effusion", 0, "", (served.session.scores["effusion"] >= 0).sum()),
        ("age", 40, 45, (usable & (ages >= 40) & (ages <= 45)).sum()),
        ("image numbers", 3, 9, usable[3:10].sum()),
    ):
        page.choose("find-in", names[name])
        page.write(page.element("find-low"), str(low))
        page.write(page.element("find-high"), str(high))
        page.browser.find_element("css selector", "#find button").click()
        page.until_said(f"{n} image")
    page.choose("find-in", names["view"])
    page.write(page.element("find-is"), EVIL)
    page.browser.find_element("css selector", "#find button").click()
    page.until_said(f"{(usable & (ages % 2 == 0)).sum()} image")
    assert EVIL in page.text("why")


# --- Prompts and refits --------------------------------------------------------------


def test_prompts_are_tried_and_taken(page, served):
    rows = page.show_queue()
    served.session.label(rows[:4], "effusion", "yes")
    served.session.label(rows[4:8], "effusion", "no")
    positive, negative = page.browser.find_elements("css selector", "#prompts textarea")
    page.write(positive, "fluid in the pleural space\npleural effusion")
    page.write(negative, "clear pleural space")
    page.click("try")
    page.until_said("Tried")
    assert page.ask("return document.querySelectorAll('#tried .histogram').length") == 1
    assert page.ask("return document.querySelectorAll('#tried .roc .band').length") == 1
    assert "area under the ROC curve" in page.text("tried")
    assert "What each text adds" in page.text("tried")
    assert served.session.prompts == {"effusion": PAIR}
    page.click("take")
    page.until_said("taken")
    assert list(served.session.prompts["effusion"]["positive"]) == [
        "fluid in the pleural space", "pleural effusion"
    ]  # fmt: skip
    served.session.use_prompts({"effusion": PAIR})
    served.session.label(rows[:8], "effusion", None)


def test_prompts_that_do_not_fit(page):
    positive, negative = page.browser.find_elements("css selector", "#prompts textarea")
    page.write(positive, "pleural effusion")
    page.write(negative, " ")
    page.click("try")
    page.until("!document.getElementById('alarm').hidden")
    assert page.text("alarm")
    assert page.element("alarm").get_attribute("role") == "alert"


def test_refit_shows_figures(page, served, phantoms, answer):
    truth = phantoms.target[:, list(phantoms.target_names).index("effusion")]
    for _ in range(2):
        answer(served.session, page.show_queue(), "effusion", truth)
        page.press("r")
        page.until_said("Trained")
    page.click("tab-figures")
    page.until("document.querySelectorAll('#figures tbody tr').length > 1")
    assert "PromptProbe" in page.text("figures")
    assert "press q" in page.text("next-step").lower()


# --- One image -----------------------------------------------------------------------


def test_large_view(page, served):
    rows = page.show_queue()
    page.press("\ue007")  # Enter
    page.until("document.getElementById('large-image').naturalWidth")
    assert page.text("large-title") == f"Image {rows[0]}"
    page.press("\ue014")  # right
    page.until("document.getElementById('large-title').textContent == arguments[0]",
               f"Image {rows[1]}")  # fmt: skip
    page.click("large-heat-on")
    page.until(
        "document.getElementById('large-heat').naturalWidth"
        " || !document.getElementById('large-problem').hidden"
    )
    page.press("y")
    page.until_said(f"Image {rows[1]}: yes")
    assert label_of(served, rows[1]) == "yes"
    page.press("z")
    page.until_said("Taken back")
    shown = page.text("large-title").split()[-1]
    page.click("large-neighbours")
    page.until("document.getElementById('why').textContent.includes('nearest')")
    assert page.rows()[0] == int(shown)
    nearest = served.session.neighbours(int(shown), k=12)["row"].tolist()
    assert page.rows()[1:] == nearest


def test_suspects(page, served, phantoms, answer):
    truth = phantoms.target[:, list(phantoms.target_names).index("effusion")].copy()
    free = np.flatnonzero(~served.session.locked)[:60]
    clear = int(served.session.scores["effusion"].iloc[free].idxmax())
    truth[clear] = 1 - truth[clear]
    answer(served.session, free, "effusion", truth)
    page.click("suspects")
    page.until_said("suspect")
    assert clear in page.rows()
    assert "looks like" in page.text("grid")


def test_slices_of_a_study(serve, open_page, phantoms, phantom_vectors):
    studies = [list(phantoms.images[i : i + 5]) for i in range(0, 40, 5)]
    rows = np.stack([phantom_vectors[i : i + 5].mean(axis=0) for i in range(0, 40, 5)])
    page = open_page(serve(rows, images=studies, prompts={"effusion": PAIR}).url)
    page.show_queue()
    page.press("\ue007")
    page.until("document.getElementById('large-image').naturalWidth")
    assert (
        page.ask("return document.getElementById('large-strip').children.length") == 5
    )
    assert page.text("large-slice-number") == "3 of 5"
    page.browser.find_element("css selector", "#large-strip button").click()
    page.until("document.getElementById('large-image').src.includes('slice=0')")
    page.until("document.getElementById('large-image').naturalWidth")


def test_20000_rows_without_images(serve, open_page):
    rows = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float32)
    page = open_page(serve(rows).url)
    page.drag_on_map([(0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6)])
    page.until_said("selected")
    assert int(re.sub(r"\D.*", "", page.text("why").replace(",", ""))) > 1000
    assert "first 500" in page.text("why")
    assert len(page.rows()) == 60
    page.click("more")
    page.until("document.querySelectorAll('.tile').length === 120")
    page.click("mark-all")
    page.press("y")
    page.until_said("120 images: yes")
    assert page.faults() == []


def test_images_that_cannot_be_read(serve, open_page, phantoms, tmp_path):
    paths = []
    for i in range(12):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(phantoms.images[i]).save(paths[-1])
    paths[3].unlink()
    paths[5] = tmp_path / "bad.dcm"
    paths[5].write_bytes(b"\0" * 128 + b"DICM" + b"not a data set")
    page = open_page(serve(paths, prompts={"effusion": PAIR}).url)
    page.until("document.getElementById('embedding').hidden")
    assert "2 unreadable" in page.text("counts")
    paths[7].unlink()  # after it was embedded
    assert set(page.show_queue()) == set(range(12)) - {3, 5}
    page.until("document.querySelectorAll('.unreadable').length === 1")
    page.click("suspects")
    page.until("document.querySelectorAll('.unreadable').length === 2")
    assert page.rows() == [3, 5]
    sentences = page.ask(
        "return [...document.querySelectorAll('.unreadable')].map(e => e.innerText)"
    )
    assert all(len(one) > 20 for one in sentences)


# --- Reload, tabs, restarts ----------------------------------------------------------


def test_reload_in_the_middle(page, served):
    rows = page.show_queue()
    page.press("y")
    page.until_said(f"Image {rows[0]}: yes")
    page.press("+")
    area = page.area()
    colour = page.ask("return document.getElementById('colour').options[1].value")
    page.choose("colour", colour)
    words = page.browser.find_element("css selector", "#prompts textarea")
    page.write(words, "fluid")
    page.until_kept("prompts?.effusion.positive[0]", "fluid")
    page.browser.refresh()
    page.until("document.querySelectorAll('.tile').length === 16")
    page.until("document.querySelector('.tile .answer').textContent === '✓ yes'")
    assert page.rows() == rows
    assert page.current() == rows[1]
    assert page.area() == area
    assert page.ask("return document.getElementById('colour').value") == colour
    typed = page.browser.find_element("css selector", "#prompts textarea")
    assert typed.get_attribute("value") == "fluid"
    page.click("undo")
    page.until_said("Taken back")


def test_two_tabs_and_another_program(page, served, labels_file):
    rows = page.show_queue()
    first = page.browser.current_window_handle
    address = page.browser.current_url
    page.browser.switch_to.new_window("tab")
    page.open(address)
    page.until("document.querySelectorAll('.tile').length === 16")
    page.press("n")
    page.until_said(f"Image {rows[0]}: no")
    page.browser.close()
    page.browser.switch_to.window(first)
    page.until("document.querySelector('.tile .answer').textContent === '✗ no'")
    with labels_file.open("a") as file:
        line = json.loads(labels_file.read_text().splitlines()[-1])
        line |= {"id": "other", "by": "other", "rows": [rows[1]], "value": "yes"}
        file.write(json.dumps(line) + "\n")
    page.until("document.querySelectorAll('.tile .answer')[1].textContent === '✓ yes'")


def test_classes_have_digits(serve, open_page, phantom_vectors, phantoms):
    prompts = {"device": "a pacemaker", "effusion": "effusion", "normal": "clear lungs"}
    started = serve(phantom_vectors[:60], images=phantoms.images[:60], prompts=prompts)
    page = open_page(started.url)
    rows = page.show_queue()
    page.press("13")
    page.until_said(f"Image {rows[1]}: normal")
    assert started.session.labels["label"][rows[:2]].tolist() == ["device", "normal"]
    page.click("try")
    page.until_said("Tried")
    assert page.ask("return document.querySelectorAll('#tried .histogram').length") == 3


@pytest.fixture(scope="module")
def folder_of_images(tmp_path_factory):
    """200 PNG files of patients, a table without labels, and the truth."""
    folder = tmp_path_factory.mktemp("images")
    phantoms = make_chest_phantoms(200, random_state=5)
    paths = [folder / f"{i:03}.png" for i in range(200)]
    for path, image in zip(paths, phantoms.images, strict=True):
        Image.fromarray(image).save(path)
    table = pd.DataFrame({"path": paths, "patient": phantoms.groups})
    table.to_csv(folder / "images.csv", index=False)
    table[:40].to_csv(folder / "some.csv", index=False)
    truth = phantoms.target[:, list(phantoms.target_names).index("nodule")]
    return folder, paths, phantoms.groups, truth


@pytest.fixture
def command(folder_of_images):
    """Return a function that starts the command, and returns it and its address."""
    folder = folder_of_images[0]
    started = []

    def start(*options):
        line = [sys.executable, "-m", "sk_medsiglip.cli", "explore"]
        line += ["--group-column", "patient", "--model", "demo", "--no-browser"]
        process = subprocess.Popen(
            [*line, *options], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        for printed in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\S+token=\S+", printed):
                return process, found[0]
        raise AssertionError("the command ended")

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_server_killed_and_started_again(command, open_page):
    labels = ("some.csv", "--labels-file", "killed.jsonl", "--lock", "0.2")
    process, url = command(*labels)
    page = open_page(url)
    page.until("document.getElementById('embedding').hidden")
    rows = page.show_queue()
    page.press("yyn")
    page.until_said(f"Image {rows[2]}: no")
    process.send_signal(signal.SIGKILL)
    process.wait()
    page.until("document.getElementById('connection').textContent.includes('saved')")
    _, url = command(*labels)
    page = open_page(url)
    assert "3 labels" in page.text("counts")
    assert not set(rows[:3]) & set(page.show_queue())


def test_from_files_to_a_judged_classifier(command, open_page, folder_of_images):
    """200 files without labels, at most 60 answers: as good as all labels."""
    folder, paths, patients, truth = folder_of_images
    _, url = command("images.csv", "--lock", "0.2", "--folder", "way")
    page = open_page(url)
    page.until("document.getElementById('embedding').hidden")
    positive, negative = page.browser.find_elements("css selector", "#prompts textarea")
    page.write(positive, "lung nodule")
    page.write(negative, "no lung nodule")
    page.click("try")
    page.until_said("Tried")
    page.click("take")
    page.until_said("taken")

    def answer_all(rows):
        for row in rows:
            assert page.current() == row
            page.press("y" if truth[row] else "n")
        page.until_said(f"Image {rows[-1]}: ")

    n_answers = 0
    for n in (16, 4):  # with the test set 60 at most
        rows = page.show_queue()[:n]
        answer_all(rows)
        n_answers += len(rows)
        page.press("r")
        page.until_said("Trained")

    page.click("tab-test")
    page.click("judge")
    page.until("document.getElementById('judge-dialog').open")
    assert "ends the training" in page.text("judge-words")
    page.click("judge-label")
    page.until_said("to label.")
    while rows := page.rows():
        assert "without scores" in page.text("why")
        answer_all(rows)
        n_answers += len(rows)
        page.press("q")
        page.until_said(" label.")  # to label, or nothing left to label
    assert n_answers <= 60
    page.click("judge")
    page.click("judge-yes")
    page.until("document.querySelector('#judged table')")
    assert "report and the classifier are under Files" in page.text("next-step")
    page.click("tab-files")
    links = page.ask(
        "return [...document.querySelectorAll('#files a')].map(e => e.textContent)"
    )
    assert {"labels.csv", "classifier.skops", "report.html"} <= set(links)
    assert page.faults() == []

    table = pd.read_csv(folder / "way" / "labels.csv")
    locked = table["locked"].to_numpy()
    assert (table.loc[locked, "label"] == truth[locked]).all()
    assert "patients" in (folder / "way" / "report.html").read_text("utf-8")
    loaded = load_classifier(folder / "way" / "classifier.skops")
    ours = loaded.decision_function([str(one) for one in np.array(paths)[locked]])
    X = MedSigLIPEmbedder("demo").transform(paths)
    probe = LinearProbe().fit(X[~locked], truth[~locked], groups=patients[~locked])
    best = roc_auc_score(truth[locked], probe.decision_function(X[locked]))
    assert roc_auc_score(truth[locked], ours) >= best - 0.01


def load_classifier(path):
    import skops.io

    own = skops.io.get_untrusted_types(file=path)
    return skops.io.load(path, trusted=own)
