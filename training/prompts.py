"""Prompts that measure the checkpoint; none is worded as a training caption is."""

from __future__ import annotations

import string

# The demonstration shows what is measured: one set of prompts, in the package.
from sk_medsiglip.cli._phantoms import PHANTOM_PROMPTS as EVALUATION_PROMPTS
from training.wording import list_clauses

__all__ = ["EVALUATION_PROMPTS", "shared_with_training"]


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
