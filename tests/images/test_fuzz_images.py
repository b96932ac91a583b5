"""A short run of the fuzzer, and proof that it sees what it looks for."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sk_medsiglip.exceptions import ImageReadError

ROOT = Path(__file__).parents[2]

# So that "tests.images.fuzz_images" is found by this process and by its children.
sys.path.insert(0, str(ROOT))
fuzz_images = pytest.importorskip(
    "tests.images.fuzz_images", exc_type=ModuleNotFoundError, reason="needs POSIX"
)
from tests.images.fuzz_mutations import mutate, plan_mutations  # noqa: E402
from tests.images.fuzz_seeds import seed_files  # noqa: E402

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="memory is bounded and measured as Linux does"
)


def test_three_hundred_damaged_files(capsys):
    n_findings = fuzz_images.main(["--files", "300", "--seed", "11"])
    said = capsys.readouterr().out
    assert n_findings == 0, said
    assert "300 files, 0 findings" in said
    counts = said.split()
    # Enough of both: a fuzzer whose files are all refused at once tests nothing.
    for outcome in ("read", "refused"):
        places = [i for i, word in enumerate(counts) if word == outcome]
        assert sum(int(counts[i + 1]) for i in places) > 50


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_thousand_damaged_files(capsys):
    arguments = ["--files", "20000", "--seed", "12", "--jobs", "2"]
    assert fuzz_images.main(arguments) == 0, capsys.readouterr().out


def test_what_once_ended_the_process_is_read_or_refused(capsys):
    known = ROOT / "tests" / "images" / "fuzz_known.txt"
    n_findings = fuzz_images.main(["--reproduce", str(known)])
    said = capsys.readouterr().out
    assert n_findings == 0, said
    n_replayed = int(said.split()[-4])
    # Of the real files; the drawn ones hang on the packages that draw them.
    assert n_replayed >= known.read_text().count('.dcm"')


# ------------------------------------------------------- what children meet, on purpose


def reads_badly(path, *, frame, intensity, max_pixels):
    """Do what the case's frame says, in place of ``read_image``."""
    if frame == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if frame == "hang":
        time.sleep(1000)
    if frame == "allocate":
        return np.ones(2**31, np.uint8)
    if frame == "hide":
        try:
            np.ones(2**31, np.uint8)
        except MemoryError as error:
            raise ImageReadError("it is bad", "Mend it.", source=str(path)) from error
    if frame == "raise":
        raise KeyError("Rows")
    if frame == "no hint":
        raise ImageReadError("it is bad", source=str(path))
    if frame == "float":
        return np.zeros((2, 2, 3))
    if frame == "refuse":
        raise ImageReadError("it is bad", "Mend it.", source=str(path))
    return np.zeros((2, 2, 3), np.uint8)


def test_the_fuzzer_sees_what_it_looks_for():
    expected = {
        "crash": ("crash", f"exit code {-signal.SIGSEGV}\nFatal Python error"),
        "hang": ("slow", "no answer for 3 s"),
        "allocate": ("memory", "MemoryError"),
        "hide": ("memory", "hidden MemoryError: it is bad"),
        "raise": ("exception", "KeyError: 'Rows'"),
        "no hint": ("exception", "incomplete error"),
        "float": ("exception", "result of shape (2, 2, 3) and type float64"),
        "refuse": ("refused", "it is bad"),
        "read": ("read", ""),
    }
    cases = [
        {"file": "bmp/L", "frame": frame, "intensity": "auto", "steps": []}
        for frame in expected
    ]
    met = {
        case["frame"]: (outcome, text)
        for case, outcome, text in fuzz_images.run_cases(
            cases, reader=reads_badly, wall_seconds=3
        )
    }
    assert met.keys() == expected.keys()
    for frame, (outcome, text) in expected.items():
        assert met[frame][0] == outcome, met[frame]
        assert met[frame][1].startswith(text), met[frame]


def test_plans_are_decided_by_their_numbers():
    seeds = seed_files()
    first = [fuzz_images.plan_case(0, number, seeds) for number in range(50)]
    assert first == [fuzz_images.plan_case(0, number, seeds) for number in range(50)]
    assert first != [fuzz_images.plan_case(1, number, seeds) for number in range(50)]
    kinds = {case["file"].split("/")[0] for case in first}
    assert kinds >= {"png", "jpeg", "tiff", "webp", "bmp", "dicom", "encapsulated"}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (["flip", 1, 0], b"accdef"),
        (["set", 4, "2d2d2d"], b"abcd--"),
        (["cut", 2], b"ab"),
        (["drop", 1, 3], b"aef"),
        (["repeat", 1, 2, 2], b"abcbcbcdef"),
        (["swap", 4, 0, 2], b"efcdab"),
        (["splice", "other", 3, 1], b"abcYZ"),
        (["set", 6, "2d"], b"-bcdef"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_steps(step, expected):
    assert mutate(b"abcdef", [step], {"other": b"XYZ"}) == expected


def test_checksums_make_an_edited_png_readable():
    content = seed_files()["png/L"]
    # The height, in the header: another checksum is due.
    edited = ["set", 8 + 8 + 7, "10"]
    whole = mutate(content, [edited, ["checksums"]], {})
    assert fuzz_images.read_image(whole).shape == (16, 24, 3)
    with pytest.raises(ImageReadError):
        fuzz_images.read_image(mutate(content, [edited], {}))


def test_every_plan_can_be_written_down_and_done():
    import json

    seeds = seed_files()
    rng = np.random.default_rng(0)
    for name, content in seeds.items():
        steps = plan_mutations(rng, content, list(seeds))
        again = json.loads(json.dumps(steps))
        assert mutate(content, steps, seeds) == mutate(content, again, seeds), name
