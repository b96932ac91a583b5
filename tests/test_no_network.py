"""Nothing leaves the machine: the whole way runs while every address is refused."""

import os
import subprocess
import sys
from pathlib import Path

GUARD = """
import os, socket

def _guard(method):
    def connect(self, address, *args):
        local = self.family == getattr(socket, "AF_UNIX", None) or (
            isinstance(address, tuple) and str(address[0]) in ("127.0.0.1", "::1")
        )
        if not local:
            with open(os.environ["ASKED"], "a") as file:
                file.write(f"{address!r}\\n")
            raise OSError("the network is not to be asked")
        return method(self, address, *args)
    return connect

socket.socket.connect = _guard(socket.socket.connect)
socket.socket.connect_ex = _guard(socket.socket.connect_ex)
_look_up = socket.getaddrinfo

def _refuse(host, *args, **kwargs):
    if host not in (None, "", "localhost", "127.0.0.1", "::1", socket.gethostname()):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{host!r}\\n")
        raise socket.gaierror("the network is not to be asked")
    return _look_up(host, *args, **kwargs)

socket.getaddrinfo = _refuse
"""

WALK = """
import warnings
warnings.simplefilter("ignore")
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
import sk_medsiglip as sm
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import evaluate, write_report

drawn = make_chest_phantoms(24, random_state=0)
images, y = list(drawn.images), np.arange(24) % 2
pipe = make_pipeline(sm.MedSigLIPEmbedder("demo"), LogisticRegression())
search = GridSearchCV(pipe, {"logisticregression__C": [0.1, 1]}, cv=2)
search.fit(images, y)
X = sm.MedSigLIPEmbedder("demo").transform(images)
sm.MedSigLIPEmbedder("demo", engine="openvino", cache=False).transform(images[:2])
pair = {"effusion": {"positive": "effusion", "negative": "no effusion"}}
zero = sm.ZeroShotClassifier(pair, model="demo").fit(X)
probe = sm.LinearProbe(cv=2).fit(X, y)
sm.HeadSearchCV(space=["logistic"], n_trials=1, cv=2).fit(X, y)
evaluate({"zero": zero, "probe": probe}, X, y, n_bootstrap=20)
write_report("r.html", {"probe": probe}, X, y, n_bootstrap=20)
for index in ("exact", "lancedb"):
    place = None if index == "exact" else "index"
    found = sm.ImageRetriever(model="demo", index=index, uri=place)
    found.fit(images).search("effusion", n=2)
tuner = sm.MedSigLIPFineTuner(
    sm.MedSigLIPEmbedder("demo"),
    objective="classification", epochs=1, batch_size=8, random_state=0
)
tuner.fit(images, y)
print("walked")
"""


def test_the_whole_way_asks_no_address(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(GUARD, "utf-8")
    asked = tmp_path / "asked"
    asked.touch()
    package = Path(__file__).parents[1]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{package}",
        "ASKED": str(asked),
        "HF_HUB_OFFLINE": "0",  # nobody has forbidden it
    }
    environment.pop("CI", None)  # some libraries are silent there
    ended = subprocess.run(
        [sys.executable, "-c", WALK],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert ended.stdout.strip().endswith("walked"), ended.stderr[-3000:]
    assert asked.read_text("utf-8") == ""
