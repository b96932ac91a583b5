"""The findings of a phantom: their sampling, drawing and wording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sk_medsiglip._json import read_json
from sk_medsiglip.datasets._anatomy import ORGAN, Canvas, chest_wall, ramp, smooth_noise

#: The details that a report may add to each finding, and its sentences.
_WORDS = read_json(Path(__file__).with_name("captions.json"))
FINDINGS = tuple(_WORDS)
#: Facts that a report may state about an image.
FACTS = (
    "normal",
    *(
        fact
        for name, words in _WORDS.items()
        for fact in (name, *(f"{name}_{detail}" for detail in words["details"]))
    ),
)

# Findings below this size are subtle: a report names only a sign of them.
SUBTLE = 1 / 6

# Sizes between the two are called neither small nor large.
SMALL, LARGE = 0.5, 0.6

DEVICES = ("pacemaker", "line", "tube")
ZONES = ("upper", "lower")

#: Placeholders of sentences, their details, and the wording of details.
_SLOTS = {
    "side": ("left", "right"),
    "size": ("mild", "severe", "small", "large"),
    "zone": ZONES,
    "kind": DEVICES,
}
_SPOKEN = {
    "mild": "mildly",
    "severe": "severely",
    "pacemaker": "A pacemaker",
    "line": "A central line",
    "tube": "An endotracheal tube",
}

#: Probabilities that a report mentions a finding, mentions its sign, or excludes it.
_MENTIONED, _SIGN_MENTIONED, _DENIED = 0.85, 0.7, 0.3


@dataclass(frozen=True)
class Finding:
    """One finding of a patient, which is the same in all views."""

    name: str
    size: float  # 0 is the smallest, 1 the largest
    contrast: float  # 0 is faint, 1 is clear
    sides: tuple[str, ...] = ()
    zone: str = ""
    kind: str = ""
    place: tuple[float, float] = (0.5, 0.5)  # within its zone, from 0 to 1

    @property
    def subtle(self) -> bool:
        """Whether a report names only a sign of it."""
        return self.size < SUBTLE


def sample_findings(
    rng: np.random.Generator, names: Sequence[str], prevalence: float
) -> dict[str, Finding]:
    """Sample the findings of a patient, each with probability ``prevalence``."""
    found = {}
    for name in names:
        # All numbers are drawn even for absent findings, so that another prevalence
        # changes only which findings are present.
        present = rng.random() < prevalence
        size, contrast, across, along = rng.random(4)
        side = ("left", "right")[rng.integers(2)]
        both = name == "effusion" and rng.random() < 0.2
        zone = ZONES[rng.integers(len(ZONES))]
        kind = DEVICES[rng.integers(len(DEVICES))]
        if not present:
            continue
        found[name] = Finding(
            name=name,
            size=size,
            contrast=contrast,
            sides=()
            if name in ("cardiomegaly", "device")
            else (("left", "right") if both else (side,)),
            zone=zone if name in ("consolidation", "nodule") else "",
            kind=kind if name == "device" else "",
            place=(across, along),
        )
    return found


def draw_finding(
    canvas: Canvas, finding: Finding, rng: np.random.Generator
) -> np.ndarray:
    """Draw one finding, and return its boolean mask."""
    return _PAINTERS[finding.name](canvas, finding, rng)


def _cardiomegaly(
    canvas: Canvas, finding: Finding, rng: np.random.Generator
) -> np.ndarray:
    # The heart has been drawn with the chest, at this size.
    return canvas.heart > 0.5


def _effusion(canvas: Canvas, finding: Finding, rng: np.random.Generator) -> np.ndarray:
    wide = np.abs(canvas.x)
    fluid = np.zeros_like(canvas.x)
    for side in finding.sides:
        height = 0.13 + 0.55 * finding.size + rng.uniform(-0.02, 0.02)
        lateral = np.clip(wide / np.clip(canvas.wall, 0.05, None), 0, 1)
        corner = canvas.body.dome + 0.24
        level = corner - height * (0.45 + 0.75 * lateral**3)
        fluid += ramp(canvas.y - level, 0.06) * canvas.side(side)
    inside = ramp(canvas.wall + 0.01 - wide, 0.03) * ramp(
        canvas.diaphragm + 0.02 - canvas.y, 0.03
    )
    fluid *= inside
    canvas.blend(ORGAN - 0.02, (0.65 + 0.33 * finding.contrast) * fluid)
    return fluid * (1 - canvas.heart) > 0.4


def _pneumothorax(
    canvas: Canvas, finding: Finding, rng: np.random.Generator
) -> np.ndarray:
    (side,) = finding.sides
    body = canvas.body
    gap = 0.035 + 0.20 * finding.size + rng.uniform(-0.01, 0.01)
    depth = np.clip((canvas.y - body.apex) / np.float32(0.9), 0, 1)
    # Air rises: the gap is widest at the top, and may end above the base.
    reach = 0.35 + 1.1 * finding.size
    rim = gap * np.clip(1.25 - depth / np.float32(reach), 0, 1)
    fallen = chest_wall(body, canvas.y - np.float32(1.5 * gap))
    collapsed = fallen - rim - np.abs(canvas.x)
    air = ramp(-collapsed, 0.02) * canvas.lung * canvas.side(side)
    air *= ramp(np.float32(1.25 * reach) - depth, 0.1)
    dark = 0.10 + 0.10 * body.habitus
    canvas.blend(dark, (0.6 + 0.35 * finding.contrast) * air)
    thickness = max(0.012, 0.8 * canvas.pixel)
    line = ramp(thickness - np.abs(collapsed), 0.012) * canvas.lung
    line *= canvas.side(side) * ramp(np.float32(1.2 * reach) - depth, 0.1)
    canvas.density += (0.12 + 0.16 * finding.contrast) * line
    return air > 0.4


def _consolidation(
    canvas: Canvas, finding: Finding, rng: np.random.Generator
) -> np.ndarray:
    center_x, center_y = _place_in_lung(canvas, finding, rng)
    radius = 0.11 + 0.17 * finding.size
    stretch = rng.uniform(0.8, 1.25)
    distance = np.hypot(
        (canvas.x - center_x) / np.float32(radius * stretch),
        (canvas.y - center_y) / np.float32(radius / stretch),
    )
    size = canvas.x.shape[0]
    ragged = distance + 0.22 * smooth_noise(rng, size, 14)
    patch = ramp(1 - ragged, 0.6) * canvas.lung
    texture = 1 + 0.18 * smooth_noise(rng, size, 24)
    strength = 0.16 + 0.16 * finding.size + 0.18 * finding.contrast
    canvas.density += strength * patch * texture
    return patch > 0.4


def _nodule(canvas: Canvas, finding: Finding, rng: np.random.Generator) -> np.ndarray:
    center_x, center_y = _place_in_lung(canvas, finding, rng)
    radius = 0.042 + 0.062 * finding.size
    distance = np.hypot(canvas.x - center_x, canvas.y - center_y)
    disc = ramp(1 - distance / np.float32(radius), 0.35)
    canvas.density += (0.20 + 0.22 * finding.contrast) * disc
    return disc > 0.4


def _device(canvas: Canvas, finding: Finding, rng: np.random.Generator) -> np.ndarray:
    faint = finding.subtle
    bright = (0.10 if faint else 0.22) + 0.22 * finding.contrast
    half = max((0.009 if faint else 0.014) + 0.008 * finding.size, 0.6 * canvas.pixel)
    across, along = finding.place
    if finding.kind == "tube":
        end = -0.36 + 0.14 * along
        stroke = ramp(half - np.abs(canvas.x - 0.01 - 0.03 * (across - 0.5)), half)
        stroke *= ramp(end - canvas.y, 0.03)
        canvas.density += bright * stroke
        return stroke > 0.4
    sign = np.float32(1.0 if along < 0.5 else -1.0)
    if finding.kind == "pacemaker":
        sign = np.float32(1.0)
    start_x, start_y = 0.44 + 0.06 * across, canvas.body.apex + 0.26 + 0.06 * along
    stroke = _lead(canvas, sign, start_x, start_y, half, deep=finding.kind != "line")
    canvas.density += bright * stroke
    if finding.kind == "pacemaker":
        case_x = np.abs(canvas.x * sign - np.float32(start_x)) / np.float32(0.095)
        case_y = np.abs(canvas.y - np.float32(start_y)) / np.float32(0.08)
        case = ramp(1 - np.sqrt(np.sqrt(case_x**4 + case_y**4)), 0.2)
        case *= 0.45 if faint else 1.0
        canvas.density += bright * 1.3 * case
        stroke = np.maximum(stroke, case)
    return stroke > 0.4


def _lead(
    canvas: Canvas,
    sign: np.float32,
    start_x: float,
    start_y: float,
    half: float,
    deep: bool,
) -> np.ndarray:
    """Return a wire from the collar bone to the great vein, then to the heart."""
    x, y = canvas.x * sign, canvas.y
    bend_x, bend_y = np.float32(0.05), np.float32(-0.42)
    share = np.clip((start_x - x) / np.float32(start_x - bend_x), 0, 1)
    arch = start_y + (bend_y - start_y) * share - 0.10 * np.sin(np.pi * share)
    upper = ramp(half - np.abs(y - arch) * np.float32(0.9), half)
    upper *= ramp(np.float32(start_x) - x, 0.02) * ramp(x - bend_x, 0.02)
    end = 0.28 if deep else -0.02
    drift = (0.20 if deep else 0.0) * np.clip((y - bend_y) / np.float32(0.7), 0, 1) ** 2
    lower = ramp(half - np.abs(x - bend_x - drift), half)
    lower *= ramp(y - bend_y, 0.02) * ramp(np.float32(end) - y, 0.02)
    return np.maximum(upper, lower)


def _place_in_lung(
    canvas: Canvas, finding: Finding, rng: np.random.Generator
) -> tuple[np.float32, np.float32]:
    (side,) = finding.sides
    body = canvas.body
    across, along = finding.place
    if finding.zone == "upper":
        y = body.apex + 0.26 + 0.24 * along
    else:
        y = body.dome - 0.30 + 0.22 * along
    inner, outer = 0.42, 0.80
    if finding.zone == "lower" and side == "left":
        # Behind the heart it would be invisible.
        inner = 0.68
    wall = float(chest_wall(body, y))
    x = wall * (inner + (outer - inner) * across) + rng.uniform(-0.015, 0.015)
    y += rng.uniform(-0.015, 0.015)
    return np.float32(x if side == "left" else -x), np.float32(y)


_PAINTERS = {
    "cardiomegaly": _cardiomegaly,
    "effusion": _effusion,
    "pneumothorax": _pneumothorax,
    "consolidation": _consolidation,
    "nodule": _nodule,
    "device": _device,
}


# ---------------------------------------------------------------- the words of a report

# A fact is a statement of a report about one image, which is true, false or uncertain.
# A finding that is barely visible is uncertain: it is described by a sign ("a blunted
# costophrenic angle"), and neither named nor excluded.


def state_facts(found: Mapping[str, Finding]) -> np.ndarray:
    """Return 1 (true), 0 (false) or -1 (uncertain) for each of ``FACTS``."""
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
        sizes = [word for word in _WORDS[name]["details"] if word in _SLOTS["size"]]
        if sizes:
            little, much = (f"{name}_{word}" for word in sizes)
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
    """Write true sentences about some of the facts, in random order."""
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
                present.append(_WORDS[name]["sign"])
        elif rng.random() < _DENIED:
            absent.append(_WORDS[name]["absent"])
    rng.shuffle(present)
    rng.shuffle(absent)
    return " ".join([*present, *absent]) or "Chest radiograph."


def _describe(name: str, known: Mapping[str, int]) -> str:
    details = _WORDS[name]["details"]
    true = [detail for detail in details if known[f"{name}_{detail}"] == 1]
    words = {
        slot: " ".join(_SPOKEN.get(word, word) for word in true if word in options)
        for slot, options in _SLOTS.items()
    }
    if words["side"] == "left right":
        words["side"] = "bilateral"
    return " ".join(_WORDS[name]["present"].format(**words).split())
