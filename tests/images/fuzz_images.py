"""Read thousands of damaged files, and report what is no ``ImageReadError``.

::

    python -m tests.images.fuzz_images --files 20000 --seed 0 --jobs 2
    python -m tests.images.fuzz_images --reproduce findings.jsonl

Every file is a seed file (``fuzz_seeds.py``) after a few steps (``fuzz_mutations.py``),
both decided by the run's seed and the file's number. It is read in a child process
that has 1 GiB of memory to spare; a child that dies is replaced. Findings:

- ``crash``: the child died of a signal;
- ``exception``: something else than ``ImageReadError`` came out, or one without reason
  or hint, or a result that is no uint8 RGB image;
- ``memory``: more than 1 GiB was asked for or used;
- ``slow``: over 2 s of processor time, or no answer for 20 s.

A finding is a line of JSON that ``--reproduce`` replays: the seed file, how it was
read, and the steps.
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from sk_medsiglip.exceptions import ImageReadError
from sk_medsiglip.images import VOI, Percentiles, Region, read_image, read_study
from tests.images.fuzz_mutations import mutate, plan_mutations
from tests.images.fuzz_seeds import seed_files

MEMORY = 2**30
PROCESSOR_SECONDS = 2
WALL_SECONDS = 20

#: A user's bound on what a file may announce; the memory allowed goes with it.
MAX_PIXELS = 4_000_000

_FRAMES = (None, None, None, 0, "middle", "middle", "middle", 1)
_INTENSITIES = ("auto", "auto", "auto", "auto", "ct", "lung", "percentiles", "voi")


def plan_case(seed, number, seeds):
    """Return the case of this number, a dict that JSON can hold."""
    rng = np.random.default_rng([seed, number])
    names = list(seeds)
    kinds = sorted({name.split("/")[0] for name in names})
    kind = kinds[rng.integers(len(kinds))]
    of_kind = [name for name in names if name.split("/")[0] == kind]
    name = of_kind[rng.integers(len(of_kind))]
    return {
        "file": name,
        "sha256": hashlib.sha256(seeds[name]).hexdigest()[:16],
        "via": _draw_reader(rng, kind),
        "frame": _FRAMES[rng.integers(len(_FRAMES))],
        "intensity": _INTENSITIES[rng.integers(len(_INTENSITIES))],
        "steps": plan_mutations(rng, seeds[name], names),
    }


def _draw_reader(rng, kind):
    """Return which reader gets a file: whole, a region of it, or as a volume."""
    if kind == "nifti":
        return "study"
    if kind in ("tiff", "tiled"):
        return ("image", "region")[rng.integers(2)]
    return ("image", "image", "image", "image", "region", "study")[rng.integers(6)]


# ---------------------------------------------------------------------- in the children


def _child(connection, log, reader):
    """Answer every case with ``(finding or "read" or "refused", text)``."""
    import faulthandler
    import os

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)  # codecs write there, and so does faulthandler
    faulthandler.enable()
    seeds = seed_files()
    _warm_up(seeds)
    _limit_memory()
    connection.send("ready")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        while True:
            case = connection.recv()
            if case is None:
                return
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            path.write_bytes(mutate(seeds[case["file"]], case["steps"], seeds))
            connection.send(_read(reader, path, case))


def _warm_up(seeds):
    """Import every codec before the memory is counted."""
    for content in seeds.values():
        try:
            read_image(content, frame="middle")
        except ImageReadError:
            pass  # some real files are damaged on purpose


def _limit_memory():
    import resource

    size = _status("VmSize")
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def _status(name):
    """Return bytes from this process's status, of Linux."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _read(reader, path, case):
    # Resets the peak of resident memory.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    start = time.process_time()
    try:
        result = _judge_pixels(_pixels(reader, path, case))
    except ImageReadError as error:
        result = _judge_error(error, path)
    except MemoryError:
        result = "memory", "MemoryError"
    except Exception as error:
        result = "exception", f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    used = _status("VmHWM") - before
    if used > MEMORY:
        return "memory", f"{used / 2**20:.0f} MiB resident"
    if seconds > PROCESSOR_SECONDS:
        return "slow", f"{seconds:.1f} s: {result[1]}"
    return result


def _pixels(reader, path, case):
    values = {"percentiles": Percentiles(2, 98), "voi": VOI(0)}
    intensity = values.get(case["intensity"], case["intensity"])
    if case.get("via") == "study":
        slices = read_study(
            path, n_slices=3, intensity=intensity, max_pixels=MAX_PIXELS
        )
        return slices[-1]
    source = path
    if case.get("via") == "region":
        source = Region(path, x=2, y=3, width=20, height=17)
    return reader(
        source, frame=case["frame"], intensity=intensity, max_pixels=MAX_PIXELS
    )


def _judge_pixels(pixels):
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        if pixels.size:
            return "read", ""
    return "exception", f"result of shape {pixels.shape} and type {pixels.dtype}"


def _judge_error(error, path):
    if not error.reason or not error.hint or str(path) not in error.source:
        return "exception", f"incomplete error: {error!r}, hint {error.hint!r}"
    cause = error.__cause__
    while cause is not None:
        if isinstance(cause, MemoryError):
            return "memory", f"hidden MemoryError: {error.reason}"
        cause = cause.__cause__ or cause.__context__
    return "refused", error.reason


# ------------------------------------------------------------------------ in the parent


class Child:
    """A process that reads one case at a time, replaced when it dies."""

    def __init__(self, log, reader, wall_seconds):
        self.log, self.reader, self.wall_seconds = log, reader, wall_seconds
        self.start()

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=_child, args=(theirs, str(self.log), self.reader), daemon=True
        )
        self.process.start()
        theirs.close()
        self.case, self.is_ready = None, False

    def give(self, case):
        if not self.is_ready:
            self.is_ready = self.connection.recv() == "ready"
        self.case, self.given = case, time.monotonic()
        self.connection.send(case)

    def result(self):
        """Return the answer; of a dead or silent child, what became of it."""
        try:
            if self.connection.poll():
                result = self.connection.recv()
                self.case = None
                return result
            self.process.kill()
            result = "slow", f"no answer for {self.wall_seconds} s"
        except (EOFError, ConnectionError):
            self.process.join()
            result = "crash", f"exit code {self.process.exitcode}\n{self._trace()}"
        self.process.join()
        self.start()
        return result

    def is_silent(self):
        return time.monotonic() - self.given > self.wall_seconds

    def stop(self):
        self.process.kill()
        self.process.join()

    def _trace(self):
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("Extension"))


def run_cases(cases, jobs=1, *, reader=read_image, wall_seconds=WALL_SECONDS):
    """Read all cases; yield ``(case, outcome, text)`` as they are answered."""
    cases = iter(cases)
    with tempfile.TemporaryDirectory() as folder:
        children = [
            Child(Path(folder) / f"{index}.log", reader, wall_seconds)
            for index in range(jobs)
        ]
        try:
            while True:
                for child in children:
                    if child.case is None and (case := next(cases, None)) is not None:
                        child.give(case)
                busy = {c.connection: c for c in children if c.case is not None}
                if not busy:
                    return
                ready = wait(list(busy), timeout=1)
                silent = [c for c in busy if c not in ready and busy[c].is_silent()]
                for connection in [*ready, *silent]:
                    case = busy[connection].case
                    yield case, *busy[connection].result()
        finally:
            for child in children:
                child.stop()


def main(arguments=None):
    """Run the command line; return how many findings there were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--findings", type=Path, help="file to add findings to")
    parser.add_argument("--reproduce", type=Path, help="file of findings to replay")
    options = parser.parse_args(arguments)
    seeds = seed_files()
    if options.reproduce:
        lines = options.reproduce.read_text().splitlines()
        cases = [json.loads(line) for line in lines if line.startswith("{")]
        cases = _with_their_seeds(cases, seeds)
    else:
        numbers = range(options.first, options.first + options.files)
        cases = (
            plan_case(options.seed, number, seeds) | {"number": [options.seed, number]}
            for number in numbers
        )
    counts, findings = Counter(), 0
    for case, outcome, text in run_cases(cases, options.jobs):
        counts[case["file"].split("/")[0], outcome] += 1
        if outcome in ("read", "refused"):
            continue
        findings += 1
        line = json.dumps({**case, "outcome": outcome, "text": text[:3000]})
        _say(line)
        if options.findings:
            with options.findings.open("a") as file:
                file.write(line + "\n")
    for (kind, outcome), count in sorted(counts.items()):
        _say(f"{kind:12} {outcome:10} {count:7}")
    _say(f"{sum(counts.values())} files, {findings} findings")
    return findings


def _with_their_seeds(cases, seeds):
    """Return the cases whose seed file is here; say where it is another one."""
    for case in cases:
        content = seeds.get(case["file"])
        if content is None:
            _say(f"{case['file']} is not here: a package that holds it is missing")
        elif hashlib.sha256(content).hexdigest()[:16] != case["sha256"]:
            _say(f"{case['file']} is another file here than when this was found")
    return [case for case in cases if case["file"] in seeds]


def _say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(min(main(), 1))
