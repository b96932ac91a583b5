"""Importing the package, its command or a room loads no heavy library."""

import subprocess
import sys

import sk_medsiglip

# One interpreter for all, the lightest first: starting it is most of the cost.
WALK = """
import importlib, sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

import sk_medsiglip
assert not (found := loaded("torch", "transformers", "pydicom", "sklearn")), found
print(sk_medsiglip.__version__)

from sk_medsiglip.cli import app
heavy = ("torch", "transformers", "sklearn", "pandas", "scipy")
assert not (found := loaded(*heavy)), found

heavy = ("torch", "transformers", "peft", "accelerate", "ray", "matplotlib")
for name in ("distributed", "zero_shot", "evaluation", "fine_tuning"):
    room = importlib.import_module(f"sk_medsiglip.{name}")
    for public in room.__all__:
        getattr(room, public)
    assert not (found := loaded(*heavy)), (name, found)
room.MedSigLIPFineTuner()
assert not (found := loaded(*heavy)), found
"""


def test_importing_is_light():
    command = [sys.executable, "-c", WALK]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == sk_medsiglip.__version__
