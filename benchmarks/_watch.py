"""What a process and all that it starts take, seen from outside: memory and core time.

By what Linux says of processes, so nothing in them changes how they are measured.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

__all__ = ["Watch"]

#: Seconds between looks: a process that ends has its last ones uncounted.
_LOOK = 0.25


class Watch:
    """Memory and time of a driver and all that it starts, looked at often.

    Parameters
    ----------
    pid : int
        Of the driver.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[str, int] = {}
        self._ticks: dict[int, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def megabytes(self) -> dict[str, float]:
        return {name: n / 1e6 for name, n in self._peaks.items()}

    @property
    def core_seconds(self) -> float:
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK):
            workers, own = [], []
            self._ticks[self._pid] = max(
                ticks_of(self._pid), self._ticks.get(self._pid, 0)
            )
            for pid, title in descendants(self._pid):
                self._ticks[pid] = max(ticks_of(pid), self._ticks.get(pid, 0))
                memory = memory_of(pid)
                (workers if title.startswith("ray::") else own).append(memory)
            now = {
                "driver, RSS, MB": memory_of(self._pid)[0],
                "largest worker, RSS, MB": max((m[0] for m in workers), default=0),
                "all workers, PSS, MB": sum(m[1] for m in workers),
                "all workers but shared pages, MB": sum(m[2] for m in workers),
                "Ray's own processes, PSS, MB": sum(m[1] for m in own),
            }
            for name, n in now.items():
                self._peaks[name] = max(self._peaks.get(name, 0), n)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def ticks_of(pid: int) -> int:
    """Return how long a process has computed so far, in the system's unit."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        return 0
    # After the name, which may hold anything.
    return sum(map(int, text.rpartition(")")[2].split()[11:13]))


def memory_of(pid: int) -> tuple[int, int, int]:
    """Return bytes of a process: resident, its share of them, and its alone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
    except OSError:
        return 0, 0, 0
    kilobytes: dict[str, int] = {}
    for line in text.splitlines()[1:]:
        name, value, *_ = line.split()
        kilobytes[name.rstrip(":")] = int(value)
    alone = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return kilobytes["Rss"] * 1024, kilobytes["Pss"] * 1024, alone * 1024


def descendants(pid: int) -> list[tuple[int, str]]:
    """Return what a process started, and what that did, with their titles."""
    found, waiting = [], [pid]
    while waiting:
        for one in _children(waiting.pop()):
            waiting.append(one)
            try:
                title = Path(f"/proc/{one}/cmdline").read_bytes()
            except OSError:
                continue
            found.append((one, title.decode(errors="replace")))
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        texts = [(task / "children").read_text("utf-8") for task in tasks]
    except OSError:
        return []
    return [int(child) for text in texts for child in text.split()]
