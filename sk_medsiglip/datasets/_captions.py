"""State the facts on a phantom, and write them down as a report would.

A *fact* is something a report can say of one image. Of each image every fact is true,
false or left open. A report leaves open what it cannot be sure of: a finding
that is barely visible is described by a sign ("a blunted costophrenic angle") and
neither named nor denied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sk_medsiglip.datasets._findings import Finding

# What a report may add to the name of a finding.
_DETAILS = {
    "cardiomegaly": ("mild", "severe", "sign"),
    "effusion": ("left", "right", "small", "large", "sign"),
    "pneumothorax": ("left", "right", "small", "large", "sign"),
    "consolidation": ("left", "right", "upper", "lower", "sign"),
    "nodule": ("left", "right", "upper", "lower", "sign"),
    "device": ("pacemaker", "line", "tube", "sign"),
}
FACTS = (
    "normal",
    *(
        fact
        for name, details in _DETAILS.items()
        for fact in (name, *(f"{name}_{detail}" for detail in details))
    ),
)

# Sizes between the two are called neither small nor large.
SMALL, LARGE = 0.5, 0.6

_SIZES = {
    "cardiomegaly": ("mild", "severe"),
    "effusion": ("small", "large"),
    "pneumothorax": ("small", "large"),
}

_SENTENCES = {
    "cardiomegaly": "The heart is {size} enlarged.",
    "effusion": "There is a {size} {side} pleural effusion.",
    "pneumothorax": "There is a {size} {side} pneumothorax.",
    "consolidation": "There is a consolidation in the {side} {zone} zone.",
    "nodule": "There is a nodule in the {side} {zone} zone.",
    "device": "{kind} is in place.",
}

_SIGNS = {
    "cardiomegaly": "The heart size is borderline.",
    "effusion": "A costophrenic angle is blunted.",
    "pneumothorax": "There is a thin line at the apex.",
    "consolidation": "There is a faint haze.",
    "nodule": "There is a tiny speck.",
    "device": "There is a faint wire.",
}

_DENIALS = {
    "cardiomegaly": "The heart is not enlarged.",
    "effusion": "There is no pleural effusion.",
    "pneumothorax": "There is no pneumothorax.",
    "consolidation": "There is no consolidation.",
    "nodule": "There is no nodule.",
    "device": "There is no device.",
}

_KINDS = {
    "pacemaker": "A pacemaker",
    "line": "A central line",
    "tube": "An endotracheal tube",
}

_MENTIONED, _SIGN_MENTIONED, _DENIED = 0.85, 0.7, 0.3


def state_facts(found: Mapping[str, Finding]) -> np.ndarray:
    """Return, for each of ``FACTS``, 1 for true, 0 for false and -1 for left open."""
    facts = dict.fromkeys(FACTS, 0)
    for name, finding in found.items():
        family = [fact for fact in FACTS if fact.startswith(name)]
        if finding.subtle:
            facts.update(dict.fromkeys(family, -1))
            facts[f"{name}_sign"] = 1
            continue
        facts[name] = 1
        facts[f"{name}_sign"] = -1
        for detail in (*finding.sides, finding.zone, finding.kind):
            if detail:
                facts[f"{name}_{detail}"] = 1
        if name in _SIZES:
            little, much = (f"{name}_{word}" for word in _SIZES[name])
            facts[little] = int(finding.size < SMALL)
            facts[much] = int(finding.size > LARGE)
            if SMALL <= finding.size <= LARGE:
                facts[little] = facts[much] = -1
    overt = any(not finding.subtle for finding in found.values())
    facts["normal"] = 1 if not found else (0 if overt else -1)
    return np.array([facts[fact] for fact in FACTS], dtype=np.int8)


def write_caption(
    facts: np.ndarray, rng: np.random.Generator, names: Sequence[str]
) -> str:
    """Write true sentences on some of the facts, in random order."""
    known = dict(zip(FACTS, facts.tolist(), strict=True))
    if known["normal"] == 1:
        return "Normal chest radiograph."
    present, absent = [], []
    for name in names:
        if known[name] == 1:
            if rng.random() < _MENTIONED:
                present.append(_describe(name, known))
        elif known[name] == -1:
            if rng.random() < _SIGN_MENTIONED:
                present.append(_SIGNS[name])
        elif rng.random() < _DENIED:
            absent.append(_DENIALS[name])
    rng.shuffle(present)
    rng.shuffle(absent)
    return " ".join([*present, *absent]) or "Chest radiograph."


def _describe(name: str, known: Mapping[str, int]) -> str:
    said = [
        fact.removeprefix(f"{name}_")
        for fact in FACTS
        if fact.startswith(f"{name}_") and known[fact] == 1
    ]
    sides = [word for word in said if word in ("left", "right")]
    sizes = [word for word in said if word in _SIZES.get(name, ())]
    zones = [word for word in said if word in ("upper", "lower")]
    kinds = [_KINDS[word] for word in said if word in _KINDS]
    words = {
        "side": "bilateral" if len(sides) == 2 else "".join(sides),
        "size": "".join(sizes),
        "zone": "".join(zones),
        "kind": "".join(kinds),
    }
    if name == "cardiomegaly":
        words["size"] = {"mild": "mildly", "severe": "severely"}.get(words["size"], "")
    return " ".join(_SENTENCES[name].format(**words).split())
