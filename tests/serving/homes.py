"""Homes of a saved pipeline: each takes a folder and gives its probabilities.

The folder holds ``model.skops``, ``model.onnx`` and images ``0.png``, ``1.png``, ...
Every home is a process of its own; the servers are those of ``docs/deploying``.
"""

import base64
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

RECIPES = Path(__file__).parents[2] / "docs" / "deploying"
BAD = b"%PDF-1.7 and not an image"

_OPTED_OUT = {
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_LOAD = """
import json, skops.io
types = skops.io.get_untrusted_types(file="model.skops")
pipe = skops.io.load("model.skops", trusted=types)
found = [pipe.predict_proba([f"{i}.png"])[0].tolist() for i in range(10)]
print(json.dumps(found))
"""
# "serve run" has no option for the port.
_RAY = """
from ray import serve
from ray_app import app
serve.start(http_options={{"host": "127.0.0.1", "port": {port}}})
serve.run(app, blocking=True)
"""


def plain_python(folder):
    """Load the file and predict from paths, without a server."""
    said = _run(folder, "-c", _LOAD)
    return json.loads(said), None


def our_service(folder):
    """Ask ``sk-medsiglip serve``."""

    def ask(content):
        return client.post("/predict", content=content)

    options = ["serve", "model.skops"]
    with _server(folder, "sk_medsiglip.cli", *options, ready="/health") as client:
        answers = [ask(one).json()["predictions"][0] for one in _contents(folder)]
        bad = ask(BAD)
    return [list(one["probabilities"].values()) for one in answers], bad


def mlflow(folder):
    """Save and serve with MLflow."""
    _run(folder, RECIPES / "mlflow_log.py")
    options = ["models", "serve", "-m", "mlflow_model", "--env-manager", "local"]

    def ask(text):
        body = {"dataframe_split": {"columns": ["image"], "data": [[text]]}}
        return client.post("/invocations", json=body)

    with _server(folder, "mlflow", *options, ready="/ping") as client:
        found = [
            ask(_base64(one)).json()["predictions"][0] for one in _contents(folder)
        ]
        assert ask("0.png").status_code == 400  # a file of the server
        bad = ask(_base64(BAD))
    return found, bad


def bentoml(folder):
    """Serve with BentoML."""

    def ask(content):
        return client.post("/predict", json={"image": _base64(content)})

    options = ["serve", "bentoml_service:Classifier"]
    with _server(folder, "bentoml", *options, ready="/readyz") as client:
        found = [ask(one).json() for one in _contents(folder)]
        bad = ask(BAD)
    return found, bad


def ray_serve(folder):
    """Serve with Ray."""
    with _server(folder, "-c", _RAY, ready="/-/routes") as client:
        found = [client.post("/", content=one).json() for one in _contents(folder)]
        bad = client.post("/", content=BAD)
    return found, bad


def fastapi(folder):
    """Serve with FastAPI."""

    def ask(content):
        return client.post("/predict", files={"image": content})

    with _server(folder, "uvicorn", "fastapi_app:app", ready="/docs") as client:
        found = [ask(one).json() for one in _contents(folder)]
        bad = ask(BAD)
    return found, bad


def onnx_runtime(folder):
    """Run the ONNX file, image tower included, on pixels; nothing of this package."""
    import onnxruntime

    images = [Image.open(folder / f"{i}.png").convert("RGB") for i in range(10)]
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": np.stack(images)})[0], None


#: Each home with the distribution that it needs.
HOMES = {
    "plain Python": (plain_python, "scikit-learn"),
    "`sk-medsiglip serve`": (our_service, "sk-medsiglip"),
    "MLflow": (mlflow, "mlflow-skinny"),
    "BentoML": (bentoml, "bentoml"),
    "Ray Serve": (ray_serve, "ray"),
    "FastAPI": (fastapi, "fastapi"),
    "ONNX Runtime": (onnx_runtime, "onnxruntime"),
}


def version_of(home):
    """Return the version of what a home runs on, or None if it is not installed."""
    try:
        return importlib.metadata.version(HOMES[home][1])
    except importlib.metadata.PackageNotFoundError:
        return None


def _base64(content):
    return base64.b64encode(content).decode()


def _contents(folder):
    return [(folder / f"{i}.png").read_bytes() for i in range(10)]


def _environment():
    python = [str(RECIPES), os.environ.get("PYTHONPATH", "")]
    commands = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        **os.environ,
        **_OPTED_OUT,
        "PYTHONPATH": os.pathsep.join(python),
        "PATH": os.pathsep.join(commands),
    }


def _run(folder, *command):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@contextmanager
def _server(folder, module, *options, ready):
    """Run a server of a module, or of code after ``-c``, until ``ready`` answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if module == "-c":
        command = ["-c", options[0].format(port=port)]
    else:
        command = ["-m", module, *options, "--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "server.log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client,
    ):
        try:
            _wait_until_ready(process, client, log, ready)
            yield client
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait_until_ready(process, client, log, path):
    for _ in range(2400):
        if process.poll() is not None:
            log.seek(0)
            raise AssertionError(log.read()[-3000:])
        try:
            answer = client.get(path)
            if answer.status_code == 200 and answer.text != "{}":  # Ray: no route yet
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("the server did not start")
