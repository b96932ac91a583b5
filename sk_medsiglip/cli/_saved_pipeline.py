"""Save a pipeline, and use it in a process that knows nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from sk_medsiglip.cli._errors import CommandError

__all__ = ["Reloaded", "predict_in_new_process", "save_pipeline"]

# The whole of what a colleague types.
_SCRIPT = """\
import json, sys
import joblib, numpy as np
pipeline = joblib.load(sys.argv[1])
paths = json.loads(sys.stdin.read())
np.save(sys.argv[2], pipeline.predict_proba(paths))
"""


@dataclass(frozen=True)
class Reloaded:
    """What the new process did.

    Parameters
    ----------
    probabilities : ndarray
        Of its ``predict_proba``.
    seconds : float
        From its start to its end, imports included.
    """

    probabilities: NDArray[Any]
    seconds: float


def save_pipeline(pipeline: Any, file: Path) -> int:
    """Write with joblib; return the bytes written."""
    joblib.dump(pipeline, file)
    return file.stat().st_size


def predict_in_new_process(file: Path, paths: list[str]) -> Reloaded:
    """Load a saved pipeline in a new Python and call its ``predict_proba``.

    Parameters
    ----------
    file : pathlib.Path
        The pipeline.
    paths : list of str
        Images.

    Returns
    -------
    Reloaded

    Raises
    ------
    CommandError
        If the new process fails; the message holds what it said.
    """
    answer = file.with_suffix(".answer.npy")
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(file), str(answer)],
            input=json.dumps(paths),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise CommandError(
                f"A new process could not use {file.name}: {done.stderr.strip()[-500:]}"
            )
        return Reloaded(np.load(answer), time.perf_counter() - start)
    finally:
        answer.unlink(missing_ok=True)
