"""The recipe for a container, line by line; nothing here builds it."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from command_line import run
from http_server import running

from sk_medsiglip.serving import make_app

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def lines():
    """The instructions with their arguments; continued lines are one."""
    text = (ROOT / "docs" / "deploying" / "Dockerfile").read_text("utf-8")
    joined = re.sub(r"(?m)^#.*\n", "", text).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines()]


def argument(lines, instruction):
    (found,) = [words for name, words in lines if name == instruction]
    return found


def test_instructions_are_in_order(lines):
    names = [name for name, _ in lines]
    assert names == (
        "FROM ARG RUN USER ENV COPY EXPOSE HEALTHCHECK CMD".split()
    )  # what follows USER is not done as root


def test_it_installs_what_the_service_needs(lines):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    minor = re.match(r"python:3\.(\d+)-", argument(lines, "FROM"))[1]
    assert int(minor) >= int(project["requires-python"].removeprefix(">=3."))
    words = shlex.split(argument(lines, "RUN"))
    (wanted,) = [word for word in words if word.startswith("sk-medsiglip[")]
    extras = set(wanted.removeprefix("sk-medsiglip[").removesuffix("]").split(","))
    assert {"dicom", "serve", "skops"} == extras
    assert extras <= project["optional-dependencies"].keys()
    assert argument(lines, "ARG").startswith("TORCH=https://")
    assert "${TORCH}" in words  # the build for CPUs, or for a GPU


def test_it_runs_without_rights_offline_and_with_mounted_weights(lines):
    user = argument(lines, "USER")
    assert int(user) > 0  # a number: Kubernetes cannot tell that a name is not root
    assert f"--uid {user}" in argument(lines, "RUN")
    variables = dict(one.split("=") for one in argument(lines, "ENV").split())
    assert variables == {"HF_HUB_OFFLINE": "1", "HF_HOME": "/weights"}
    # Only the classifier is copied; weights come from the folder that is mounted.
    assert argument(lines, "COPY").split()[0] == "model.skops"
    page = (ROOT / "docs" / "deploying.md").read_text("utf-8")
    assert f":{variables['HF_HOME']}:ro" in page
    assert f"-p 127.0.0.1:8000:{argument(lines, 'EXPOSE')}" in page


def test_its_command_is_one_that_the_package_knows(lines):
    program, *options = json.loads(argument(lines, "CMD"))
    assert program == "sk-medsiglip"
    assert options[1] == argument(lines, "COPY").split()[1]
    assert "There is no file" in run(*options, code=2)


def test_its_health_check_asks_the_service(lines, probe):
    options, _, command = argument(lines, "HEALTHCHECK").partition(" CMD ")
    assert "--start-period" in options  # weights take a while
    python, flag, code = json.loads(command)
    assert (python, flag) == ("python", "-c")
    address = f"http://127.0.0.1:{argument(lines, 'EXPOSE')}"
    assert address in code
    with running(make_app(probe, n_decoders=1)) as client:
        there = str(client.base_url).rstrip("/")
        exec(code.replace(address, there))
    with pytest.raises(OSError, match="refused"):
        exec(code.replace(address, there))
