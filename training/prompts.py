"""Prompts that measure the checkpoint; none is worded as a training caption is."""

from __future__ import annotations

import string

from training.wording import list_clauses

EVALUATION_PROMPTS = {
    "cardiomegaly": {
        "positive": [
            "this radiograph demonstrates cardiomegaly",
            "the heart shadow is too wide and enlarged",
        ],
        "negative": [
            "this radiograph demonstrates no cardiomegaly",
            "the heart shadow is of normal size",
        ],
    },
    "effusion": {
        "positive": [
            "this radiograph demonstrates pleural effusion",
            "fluid has collected in the pleural space",
        ],
        "negative": [
            "this radiograph demonstrates no pleural effusion",
            "no fluid has collected in the pleural space",
        ],
    },
    "pneumothorax": {
        "positive": [
            "this radiograph demonstrates pneumothorax",
            "the lung has collapsed with air in the pleural space",
        ],
        "negative": [
            "this radiograph demonstrates no pneumothorax",
            "no air can be seen in the pleural space",
        ],
    },
    "consolidation": {
        "positive": [
            "this radiograph demonstrates consolidation",
            "an airspace infiltrate of the lung can be seen",
        ],
        "negative": [
            "this radiograph demonstrates no consolidation",
            "no airspace infiltrate of the lung can be seen",
        ],
    },
    "nodule": {
        "positive": [
            "this radiograph demonstrates a nodule",
            "a round nodular lesion of the lung can be seen",
        ],
        "negative": [
            "this radiograph demonstrates no nodule",
            "no round nodular lesion of the lung can be seen",
        ],
    },
    "device": {
        "positive": [
            "this radiograph demonstrates a medical device",
            "implanted support hardware can be seen",
        ],
        "negative": [
            "this radiograph demonstrates no medical device",
            "no implanted support hardware can be seen",
        ],
    },
}


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
