"""The captions that the demonstration checkpoint learns from.

A clause is a piece of text and the facts that it asserts or denies; a caption is one
to three clauses. All clauses can be listed, so that a test can tell which prompts are
worded as no training caption is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from sk_medsiglip.datasets._findings import FACTS

NOUNS = {
    "cardiomegaly": (
        "cardiomegaly",
        "an enlarged heart",
        "enlarged heart",
        "cardiac enlargement",
        "enlargement of the heart",
        "an enlarged cardiac silhouette",
        "enlarged cardiac silhouette",
        "a big heart",
        "big heart",
        "increased heart size",
        "a wide heart shadow",
        "a large heart",
        "enlarged heart size",
    ),
    "effusion": (
        "pleural effusion",
        "a pleural effusion",
        "effusion",
        "an effusion",
        "pleural fluid",
        "fluid in the pleural space",
        "fluid in the pleural cavity",
        "fluid around the lung",
        "fluid at the lung base",
        "a pleural fluid collection",
        "layering pleural fluid",
    ),
    "pneumothorax": (
        "pneumothorax",
        "a pneumothorax",
        "a collapsed lung",
        "collapsed lung",
        "lung collapse",
        "free air in the pleural space",
        "air in the pleural space",
        "air in the pleural cavity",
        "pleural air",
        "air around the lung",
        "a collapsed lung with free air",
        "a visible visceral pleural line",
    ),
    "consolidation": (
        "consolidation",
        "a consolidation",
        "pneumonia",
        "an infiltrate",
        "infiltrate",
        "infiltrates",
        "airspace opacity",
        "an airspace opacity",
        "airspace disease",
        "a lung opacity",
        "lung opacity",
        "lung infiltrate",
        "a patchy opacity",
        "patchy consolidation",
        "airspace consolidation",
    ),
    "nodule": (
        "nodule",
        "a nodule",
        "a lung nodule",
        "lung nodule",
        "pulmonary nodule",
        "a pulmonary nodule",
        "a coin lesion",
        "a round lesion",
        "lung lesion",
        "a rounded lesion",
        "a round mass",
        "lung mass",
        "a nodular lesion",
    ),
    "device": (
        "a device",
        "device",
        "devices",
        "support device",
        "support devices",
        "a medical device",
        "medical devices",
        "hardware",
        "support hardware",
        "foreign material",
        "an inserted device",
        "an implanted device",
    ),
    "device_pacemaker": (
        "a pacemaker",
        "pacemaker",
        "cardiac pacemaker",
        "a pacing device",
        "pacemaker with lead",
        "pacemaker and lead",
    ),
    "device_line": (
        "a central line",
        "central line",
        "central venous catheter",
        "a venous catheter",
        "catheter",
        "a catheter",
    ),
    "device_tube": (
        "an endotracheal tube",
        "endotracheal tube",
        "breathing tube",
        "a tube in the trachea",
        "tracheal tube",
    ),
}

# What a report calls the slightest forms; never the finding's own name.
SIGNS = {
    "cardiomegaly_sign": (
        "borderline heart size",
        "the heart size is borderline",
        "heart size at the upper limit",
    ),
    "effusion_sign": (
        "a costophrenic angle is blunted",
        "blunted costophrenic angle",
        "blunting of a costophrenic angle",
    ),
    "pneumothorax_sign": (
        "a thin line at the apex",
        "there is a thin line at the apex",
        "faint apical line",
    ),
    "consolidation_sign": ("a faint haze", "there is a faint haze", "slight haze"),
    "nodule_sign": ("a tiny speck", "there is a tiny speck", "faint tiny dot"),
    "device_sign": ("a faint wire", "there is a faint wire", "thin faint thread"),
}

ASSERTING = (
    "{x}",
    "{x} present",
    "{x} is present",
    "there is {x}",
    "{x} is seen",
    "{x} seen",
    "evidence of {x}",
    "there is evidence of {x}",
    "signs of {x}",
    "shows {x}",
    "findings of {x}",
    "x-ray with {x}",
    "chest x-ray with {x}",
    "a chest x-ray showing {x}",
    "chest radiograph with {x}",
    "radiograph showing {x}",
    "an image of {x}",
    "a film of a chest with {x}",
    "patient with {x}",
    "positive for {x}",
    "{x} is visible",
    "{x} is noted",
    "impression: {x}",
    "consistent with {x}",
    "the picture shows {x}",
    "{x} in this patient",
)

DENYING = (
    "no {x}",
    "no {x} present",
    "no {x} is present",
    "there is no {x}",
    "no {x} is seen",
    "no {x} seen",
    "no evidence of {x}",
    "there is no evidence of {x}",
    "no sign of {x}",
    "no signs of {x}",
    "shows no {x}",
    "without {x}",
    "without evidence of {x}",
    "absence of {x}",
    "{x} is absent",
    "{x} absent",
    "{x} is not seen",
    "{x} is not present",
    "negative for {x}",
    "free of {x}",
    "chest x-ray without {x}",
    "chest radiograph with no {x}",
    "a chest x-ray showing no {x}",
    "patient without {x}",
    "no visible {x}",
    "not {x}",
    "the picture shows no {x}",
)

NORMAL = (
    "normal",
    "normal chest radiograph",
    "normal chest x-ray",
    "normal x-ray",
    "a normal chest",
    "normal film",
    "normal radiograph",
    "no abnormality",
    "no abnormality is seen",
    "no acute finding",
    "no finding",
    "no findings",
    "no disease",
    "unremarkable",
    "unremarkable chest",
    "unremarkable chest x-ray",
    "a healthy chest",
    "healthy patient",
    "normal study",
    "normal heart and clear lungs",
    "clear lungs and a normal heart",
    "without abnormality",
    "nothing abnormal",
    "a chest x-ray showing a normal chest",
)

ABNORMAL = (
    "abnormal",
    "abnormal chest x-ray",
    "abnormal chest radiograph",
    "abnormal x-ray",
    "an abnormality is seen",
    "an abnormal finding",
    "there is an abnormality",
    "disease",
    "not normal",
)

# Ways of denying that do not name what is denied.
CLEAR = {
    ("cardiomegaly",): (
        "the heart is normal in size",
        "normal heart size",
        "normal heart",
        "heart size is normal",
        "the heart is not enlarged",
        "normal cardiac silhouette",
        "a small heart",
    ),
    ("effusion",): (
        "the costophrenic angles are sharp",
        "sharp costophrenic angles",
        "the pleural spaces are clear",
        "dry pleural space",
    ),
    ("pneumothorax",): (
        "the lungs are fully expanded",
        "fully expanded lungs",
        "both lungs are expanded",
    ),
    ("consolidation", "nodule"): (
        "the lungs are clear",
        "clear lungs",
        "clear lung fields",
    ),
    ("consolidation",): ("no opacity", "well aerated lungs"),
    ("device",): ("nothing is implanted", "no tubes or lines"),
}

# Words that say nothing, so that a stray word does not decide.
FILLERS = (
    "pa view",
    "ap view",
    "frontal view",
    "portable film",
    "chest",
    "chest x-ray",
    "radiograph",
    "as before",
    "in an adult",
    "today",
    "an image",
    "in this image",
    "on this film",
    "the",
    "this",
    "on the chest radiograph",
    "appearance",
    "report",
    "impression",
    "findings",
    "again",
    "demonstrates",
    "we see",
    "likely",
    "suggests",
    "compatible with",
    "can be made out",
    "is identified",
    "has",
    "study",
    "scan",
    "photo",
    "drawing of",
    "phantom",
    "of the thorax",
    "thorax",
    "examination",
    "current",
    "acute",
)


@dataclass(frozen=True)
class Clause:
    """A text with the facts that it asserts and denies."""

    text: str
    true: tuple[str, ...] = ()
    false: tuple[str, ...] = ()


@dataclass(frozen=True)
class Captions:
    """Texts with indicator matrices of shape (n_captions, n_facts)."""

    texts: list[str]
    true: np.ndarray
    false: np.ndarray


def sample_captions(n_captions: int, rng: np.random.Generator) -> Captions:
    """Return captions of one to three clauses that do not contradict each other."""
    groups, shares = _groups()
    texts = []
    matrices = np.zeros((2, n_captions, len(FACTS)), dtype=np.float32)
    column = {fact: index for index, fact in enumerate(FACTS)}
    for row in range(n_captions):
        wanted = rng.choice(3, p=(0.7, 0.2, 0.1)) + 1
        said: list[str] = []
        topics: set[str] = set()
        while len(said) < wanted:
            group = groups[rng.choice(len(groups), p=shares)]
            clause = group[rng.integers(len(group))]
            about = {fact.partition("_")[0] for fact in clause.true + clause.false}
            if topics & (about | {"normal"}) or (topics and "normal" in about):
                wanted -= 1
                continue
            topics |= about
            said.append(clause.text)
            for fact in clause.true:
                matrices[0, row, column[fact]] = 1
            for fact in clause.false:
                matrices[1, row, column[fact]] = 1
        text = (". ", ", ", " and ")[rng.integers(3)].join(said)
        if rng.random() < 0.25:
            text = f"{FILLERS[rng.integers(len(FILLERS))]} {text}"
        if rng.random() < 0.25:
            text = f"{text} {FILLERS[rng.integers(len(FILLERS))]}"
        texts.append(text)
    return Captions(texts, matrices[0], matrices[1])


def judge(facts: np.ndarray, captions: Captions) -> np.ndarray:
    """Return 1 where a caption is true of an image, 0 where false, -1 where open.

    Parameters
    ----------
    facts : ndarray of shape (n_images, n_facts)
        1 true, 0 false, -1 left open.
    captions : Captions
        What is said.

    Returns
    -------
    verdict : ndarray of shape (n_images, n_captions)
    """
    true = (facts == 1).astype(np.float32)
    false = (facts == 0).astype(np.float32)
    agreeing = true @ captions.true.T + false @ captions.false.T
    opposing = false @ captions.true.T + true @ captions.false.T
    entailed = agreeing == (captions.true + captions.false).sum(axis=1)
    return np.where(opposing > 0, 0, np.where(entailed, 1, -1)).astype(np.int8)


def list_clauses() -> list[Clause]:
    """Return every clause of which captions are made."""
    groups, _ = _groups()
    return [clause for group in groups for clause in group]


@cache
def _groups() -> tuple[list[list[Clause]], np.ndarray]:
    groups: list[list[Clause]] = []
    shares: list[float] = []

    def add(share: float, clauses: list[Clause]) -> None:
        groups.append(clauses)
        shares.append(share)

    for name, nouns in NOUNS.items():
        general = "_" not in name
        implied = (name,) if general else (name, "device")
        add(
            3.0 if general else 1.0,
            [Clause(f.format(x=x), true=implied) for x in nouns for f in ASSERTING],
        )
        add(
            2.5 if general else 0.8,
            [Clause(f.format(x=x), false=(name,)) for x in nouns for f in DENYING],
        )
    for name in ("effusion", "pneumothorax"):
        add(1.2, _sided(name) + _sized(name, "small", "large"))
    for name in ("consolidation", "nodule"):
        add(1.2, _sided(name) + _zoned(name))
    add(0.8, _sized("cardiomegaly", "mild", "severe"))
    add(3.0, [Clause(text, true=("normal",)) for text in NORMAL])
    add(1.5, [Clause(text, false=("normal",)) for text in ABNORMAL])
    for names, texts in CLEAR.items():
        add(1.0, [Clause(text, false=names) for text in texts])
    for sign, texts in SIGNS.items():
        add(0.8, [Clause(text, true=(sign,)) for text in texts])
    probability = np.array(shares) / sum(shares)
    return groups, probability


def _bare(name: str) -> list[str]:
    """Return the nouns without article, so that an adjective can go before."""
    return sorted({noun.removeprefix("a ").removeprefix("an ") for noun in NOUNS[name]})


_WITH_DETAIL = ("{x}", "there is a {x}", "a {x} is seen", "{x} present")


def _sided(name: str) -> list[Clause]:
    clauses = []
    for side in ("left", "right"):
        for noun in _bare(name):
            for shape in (
                f"{side} {noun}",
                f"{side}-sided {noun}",
                f"{noun} on the {side}",
                f"{noun} on the {side} side",
            ):
                clauses += [
                    Clause(f.format(x=shape), true=(name, f"{name}_{side}"))
                    for f in _WITH_DETAIL
                ]
            clauses.append(Clause(f"no {side} {noun}", false=(f"{name}_{side}",)))
            clauses.append(
                Clause(f"no {noun} on the {side}", false=(f"{name}_{side}",))
            )
    return clauses


def _sized(name: str, little: str, much: str) -> list[Clause]:
    words = {little: ("small", "mild", "slight"), much: ("large", "severe", "marked")}
    clauses = []
    for size, adjectives in words.items():
        for adjective in adjectives:
            for noun in _bare(name):
                clauses += [
                    Clause(
                        f.format(x=f"{adjective} {noun}"),
                        true=(name, f"{name}_{size}"),
                    )
                    for f in _WITH_DETAIL
                ]
    if name == "cardiomegaly":
        clauses += [
            Clause("the heart is mildly enlarged", true=(name, f"{name}_{little}")),
            Clause("the heart is severely enlarged", true=(name, f"{name}_{much}")),
            Clause("the heart is enlarged", true=(name,)),
        ]
    return clauses


def _zoned(name: str) -> list[Clause]:
    clauses = []
    for side in ("left", "right"):
        for zone in ("upper", "lower"):
            for noun in _bare(name):
                for where in (
                    f"{noun} in the {side} {zone} zone",
                    f"{noun} in the {side} {zone} lobe",
                    f"{side} {zone} {noun}",
                    f"{side} {zone} lobe {noun}",
                ):
                    true = (name, f"{name}_{side}", f"{name}_{zone}")
                    clauses += [
                        Clause(f.format(x=where), true=true) for f in _WITH_DETAIL
                    ]
    return clauses
