"""A run leaves the process as it was: what is logged, and its random numbers."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["quiet_trainer"]


@contextmanager
def quiet_trainer() -> Iterator[None]:
    """Silence what transformers logs and warns of on its own behalf.

    A run seeds the random numbers of Python, numpy and torch; they are those of before
    afterwards.
    """
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    python, in_numpy = random.getstate(), np.random.get_state()
    logging.set_verbosity_error()
    try:
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(range(torch.cuda.device_count())),
        ):
            # peft and transformers, of each other's coming changes.
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        random.setstate(python)
        np.random.set_state(in_numpy)
