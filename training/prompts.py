"""Prompts that measure the checkpoint; none is worded as a training caption is."""

from __future__ import annotations

import string
from pathlib import Path

import sk_medsiglip.cli
from sk_medsiglip._json import read_json
from training.wording import list_clauses

__all__ = ["EVALUATION_PROMPTS", "shared_with_training"]

# The demonstration shows what is measured: one set of prompts, in the package.
EVALUATION_PROMPTS = read_json(
    Path(sk_medsiglip.cli.__file__).with_name("phantom_prompts.json")
)


def shared_with_training() -> list[str]:
    """Return the evaluation prompts that are a training clause word for word."""
    seen = {_plain(clause.text) for clause in list_clauses()}
    return [
        prompt
        for pair in EVALUATION_PROMPTS.values()
        for prompts in pair.values()
        for prompt in prompts
        if _plain(prompt) in seen
    ]


def _plain(text: str) -> str:
    return text.lower().translate(str.maketrans("", "", string.punctuation)).strip()
