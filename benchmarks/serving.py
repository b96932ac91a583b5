"""A service: ``serve`` against a hand-written handler around the same pipeline.

Run ``python -m benchmarks.serving``. Each side is a process of its own, and so are the
clients; the sides take turns. The plain handler is a function that Starlette runs in
its threads, as FastAPI does, one ``predict_proba`` a request; "plain, 2 workers" is two
processes of it.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
from PIL import Image

from benchmarks._measure import setting, write_results

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
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    pipeline = joblib.load(os.environ["PIPELINE"])
    pipeline.predict_proba([np.zeros((8, 8, 3), np.uint8)])  # loads the weights

    async def predict(request: Any) -> Any:
        body = await request.body()
        shares = await run_in_threadpool(pipeline.predict_proba, [body])
        return JSONResponse({"probabilities": shares[0].tolist()})

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


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
        parent = psutil.Process(self.process.pid)
        family = [parent, *parent.children(recursive=True)]
        return float(sum(one.memory_info().rss for one in family) / 2**20)

    def stop(self) -> None:
        """End it as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


async def load(port: int, contents: list[bytes], clients: int, n: int) -> list[float]:
    """Send requests over lasting connections; return the seconds of each."""
    times: list[float] = []
    left = iter(range(n))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for i in left:
            body = contents[i % len(contents)]
            head = "POST /predict HTTP/1.1\r\nHost: localhost\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            began = time.perf_counter()
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


def send(port: int, folder: Path, clients: int, n: int) -> dict[str, float]:
    """Run the clients in a process of their own; return what they saw."""
    command = [sys.executable, "-m", "benchmarks.serving", "--clients", str(clients)]
    done = subprocess.run(
        [*command, "--port", str(port), "--requests", str(n), "--folder", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(folder: Path, n: int, rounds: int, n_memory: int) -> dict[str, Any]:
    """Return requests a second and times, by side and number of clients."""
    file = folder / "pipe.joblib"
    contents = make_file(file)
    joblib.dump(contents, folder / "contents.joblib")
    sides = {
        "ours": Service("our_app", file),
        "plain": Service("plain_app", file),
        "plain, 2 workers": Service("plain_app", file, workers=2),
    }
    figures: dict[str, Any] = {}
    try:
        for service in sides.values():
            send(service.port, folder, 8, 50)  # the first requests load the weights
        for clients in _CLIENTS:
            seen: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
            for _ in range(rounds):
                for name, service in sides.items():
                    seen[name].append(send(service.port, folder, clients, n))
            table = {
                name: {
                    key: float(np.median([one[key] for one in rows])) for key in rows[0]
                }
                for name, rows in seen.items()
            }
            rates = [
                ours["requests a second"] / plain["requests a second"]
                for ours, plain in zip(seen["ours"], seen["plain"], strict=True)
            ]
            table["ours / plain, requests a second"] = float(np.median(rates))
            figures[f"{clients} clients"] = table
            print(clients, json.dumps(table), flush=True)
        figures["one pass"] = one_pass(file, contents)
        rate = figures["64 clients"]["ours"]["requests a second"]
        figures["64 clients / one pass of all"] = rate / figures["one pass"]
        memory = [sides["ours"].memory()]
        for _ in range(4 if n_memory else 0):
            send(sides["ours"].port, folder, 8, n_memory // 4)
            memory.append(sides["ours"].memory())
        figures[f"MiB before and over {n_memory} requests"] = memory
    finally:
        for service in sides.values():
            service.stop()
    return figures


def one_pass(file: Path, contents: list[bytes]) -> float:
    """Return the images a second of one call with many images."""
    pipeline = joblib.load(file)
    pipeline.predict_proba(contents)
    many = contents * 4
    best = min(_seconds(pipeline, many) for _ in range(3))
    return len(many) / best


def _seconds(pipeline: Any, images: list[bytes]) -> float:
    began = time.perf_counter()
    pipeline.predict_proba(images)
    return time.perf_counter() - began


def main() -> None:
    """Measure, or be the clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=20_000, help="requests")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/serving"))
    parser.add_argument("--clients", type=int)
    parser.add_argument("--port", type=int)
    given = parser.parse_args()
    if given.port:
        contents = joblib.load(given.folder / "contents.joblib")
        began = time.perf_counter()
        times = asyncio.run(load(given.port, contents, given.clients, given.requests))
        seconds = time.perf_counter() - began
        p50, p99 = np.percentile(times, [50, 99])
        rate = len(times) / seconds
        print(json.dumps({"requests a second": rate, "p50, s": p50, "p99, s": p99}))
        return
    given.folder.mkdir(exist_ok=True, parents=True)
    figures = measure(given.folder, given.requests, given.rounds, given.memory)
    packages = ("starlette", "uvicorn", "torch", "scikit-learn")
    where = setting(*packages, requests=given.requests, rounds=given.rounds)
    print(write_results("serving", {**where, **figures}))


if __name__ == "__main__":
    main()
