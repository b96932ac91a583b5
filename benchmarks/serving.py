"""A service: ``serve`` against a hand-written FastAPI handler of the same pipeline.

Run ``python -m benchmarks.serving``; it takes eight minutes. Each side is a process of
its own with torch's own number of threads, and so are the clients; the sides take
turns of a few seconds. The plain handler reads the body and runs one
``predict_proba`` a request in the threads of its server; "plain, 2 workers" is two
processes of it. Processor time counts all processes of a side, and not the clients: on
a busy machine it is the better figure.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
from PIL import Image

from benchmarks._measure import best_of, setting, write_results

_CLIENTS = (1, 8, 64)


def make_file(path: Path) -> list[bytes]:
    """Save a fitted pipeline; return images as clients send them."""
    from sklearn.pipeline import make_pipeline

    from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
    from sk_medsiglip.datasets import make_chest_phantoms

    phantoms = make_chest_phantoms(100, random_state=0)
    embedder = MedSigLIPEmbedder("demo", cache=False)
    pipeline = make_pipeline(embedder, LinearProbe(Cs=[1.0]))
    joblib.dump(pipeline.fit(list(phantoms.images), phantoms.target[:, 1]), path)
    contents = []
    for image in phantoms.images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    return contents


def plain_app() -> Any:
    """Return the hand-written service."""
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool

    pipeline = joblib.load(os.environ["PIPELINE"])
    pipeline.predict_proba([np.zeros((8, 8, 3), np.uint8)])  # loads the weights
    app = FastAPI()

    async def predict(request: Request) -> dict[str, Any]:
        body = await request.body()
        shares = await run_in_threadpool(pipeline.predict_proba, [body])
        return {"probabilities": shares[0].tolist()}

    # FastAPI cannot look the name Request up in this function.
    predict.__annotations__ = {"request": Request}
    app.post("/predict")(predict)
    return app


def our_app() -> Any:
    """Return ours."""
    from sk_medsiglip.serving import make_app

    return make_app(joblib.load(os.environ["PIPELINE"]))


class Service:
    """A service in a process of its own."""

    def __init__(self, factory: str, file: Path, workers: int = 1) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", f"benchmarks.serving:{factory}"]
        options = ["--factory", "--no-access-log", "--log-level", "error"]
        self.process = subprocess.Popen(
            [*command, *options, "--port", str(self.port), "--workers", str(workers)],
            env={**os.environ, "PIPELINE": str(file)},
        )
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.2)

    def memory(self) -> float:
        """Return the resident memory of all its processes, MiB."""
        return float(sum(one.memory_info().rss for one in self._family()) / 2**20)

    def processor_seconds(self) -> float:
        """Return the time that its processes have spent on processors."""
        return sum(sum(one.cpu_times()[:2]) for one in self._family())

    def _family(self) -> list[psutil.Process]:
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def stop(self) -> None:
        """End it as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


async def load(
    port: int, contents: list[bytes], clients: int, n: int | None, seconds: float
) -> list[float]:
    """Send requests over lasting connections; return the seconds of each.

    Clients stop after ``n`` requests, or else after some seconds.
    """
    times: list[float] = []
    end = time.perf_counter() + seconds
    numbers = itertools.count() if n is None else iter(range(n))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in numbers:
            body = contents[i % len(contents)]
            head = "POST /predict HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            began = time.perf_counter()
            if n is None and began > end:
                break
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in answer[:20], answer
            lines = answer.decode().lower().split("\r\n")
            length = next(line for line in lines if line.startswith("content-length"))
            await reader.readexactly(int(length.split(":")[1]))
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return times


@dataclass
class Turn:
    """What clients saw of a side, and what it spent."""

    seconds: float
    times: list[float]
    processor_seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.times) / self.seconds


def send(
    service: Service,
    folder: Path,
    clients: int,
    *,
    n: int | None = None,
    seconds: float = 0.0,
) -> Turn:
    """Run clients in a process of their own."""
    options = ["--clients", str(clients), "--port", str(service.port)]
    options += ["--folder", str(folder), "--seconds", str(seconds)]
    options += [] if n is None else ["--requests", str(n)]
    before = service.processor_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving", *options],
        check=True,
        capture_output=True,
        text=True,
    )
    spent = service.processor_seconds() - before
    return Turn(**json.loads(done.stdout), processor_seconds=spent)


def measure(folder: Path, seconds: float, rounds: int, n_memory: int) -> dict[str, Any]:
    """Return requests a second, times and ratios, by number of clients."""
    file = folder / "pipe.joblib"
    contents = make_file(file)
    joblib.dump(contents, folder / "contents.joblib")
    sides = {
        "ours": Service("our_app", file),
        "plain": Service("plain_app", file),
        "plain, 2 workers": Service("plain_app", file, workers=2),
    }
    figures: dict[str, Any] = {}
    ratios: dict[str, dict[str, float]] = {}
    try:
        for service in sides.values():
            send(service, folder, 8, n=50)  # the first requests load the weights
        for clients in _CLIENTS:
            turns: dict[str, list[Turn]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, service in sides.items():
                    turns[name].append(send(service, folder, clients, seconds=seconds))
            label = f"{clients} client" + "s" * (clients > 1)
            figures[label] = {name: _summary(one) for name, one in turns.items()}
            ratios[label] = _ratios(turns)
            print(label, json.dumps(figures[label]), json.dumps(ratios[label]))
        figures["ratios"] = ratios
        pass_rate = one_pass(file, contents)
        rate = figures["64 clients"]["ours"]["requests a second"]
        figures["one pass of many images"] = {
            "images a second": pass_rate,
            "ours with 64 clients / one pass": rate / pass_rate,
        }
        if n_memory:
            figures["memory"] = memory(sides["ours"], folder, n_memory)
    finally:
        for service in sides.values():
            service.stop()
    return figures


def _summary(turns: list[Turn]) -> dict[str, float]:
    """Return the best rate, and times of all requests."""
    times = np.concatenate([turn.times for turn in turns])
    p50, p99 = np.percentile(times, [50, 99])
    spent = min(turn.processor_seconds / len(turn.times) for turn in turns)
    return {
        "requests a second": max(turn.rate for turn in turns),
        "p50, ms": 1000 * float(p50),
        "p99, ms": 1000 * float(p99),
        "processor ms a request": 1000 * spent,
    }


def _ratios(turns: dict[str, list[Turn]]) -> dict[str, float]:
    """Return the median ratios of requests a second over the rounds."""
    return {
        f"ours / {name}": float(
            np.median(
                [a.rate / b.rate for a, b in zip(turns["ours"], them, strict=True)]
            )
        )
        for name, them in turns.items()
        if name != "ours"
    }


def memory(service: Service, folder: Path, n: int, parts: int = 5) -> dict[str, float]:
    """Return the memory of a service while it answers many requests."""
    found = {"before, MiB": service.memory()}
    for i in range(1, parts + 1):
        send(service, folder, 8, n=n // parts)
        found[f"after {i * n // parts:,} requests, MiB"] = service.memory()
    _, first, *_, last = found.values()
    return {**found, "last / first thousands": last / first}


def one_pass(file: Path, contents: list[bytes]) -> float:
    """Return the images a second of one call with many images."""
    pipeline = joblib.load(file)
    pipeline.predict_proba(contents)
    many = contents * 4
    return len(many) / best_of(3, lambda: pipeline.predict_proba(many))


def main() -> None:
    """Measure, or be the clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=20_000, help="requests")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/serving"))
    parser.add_argument("--clients", type=int)
    parser.add_argument("--port", type=int)
    parser.add_argument("--requests", type=int)
    given = parser.parse_args()
    if given.port:
        contents = joblib.load(given.folder / "contents.joblib")
        began = time.perf_counter()
        times = asyncio.run(
            load(given.port, contents, given.clients, given.requests, given.seconds)
        )
        print(json.dumps({"seconds": time.perf_counter() - began, "times": times}))
        return
    given.folder.mkdir(exist_ok=True, parents=True)
    figures = measure(given.folder, given.seconds, given.rounds, given.memory)
    packages = ("fastapi", "starlette", "uvicorn", "torch", "scikit-learn")
    where = setting(*packages, seconds=given.seconds, rounds=given.rounds)
    write_results("serving", {**where, **figures})
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
