"""Draw scores against the number of labels, on phantoms, with the demonstration model.

Run ``python docs/draw_label_efficiency.py``; it writes ``docs/label_efficiency.png``.
The finding is the nodule, the one that the demonstration checkpoint knows least by its
prompts. Nothing of it says anything about medicine.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from sk_medsiglip import (
    LinearProbe,
    MedSigLIPEmbedder,
    PromptProbe,
    PrototypeClassifier,
    ZeroShotClassifier,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import LabelEfficiencyDisplay

PICTURE = Path(__file__).with_name("label_efficiency.png")
PROMPTS = {
    "nodule": {
        "positive": ["lung nodule", "a round nodule in the lung"],
        "negative": ["no lung nodule", "clear lungs"],
    }
}
SIZES = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def main() -> None:
    """Draw the picture."""
    mpl.use("Agg")
    phantoms = make_chest_phantoms(3000, random_state=7)
    X = MedSigLIPEmbedder("demo").transform(phantoms.images)
    y = phantoms.target[:, list(phantoms.target_names).index("nodule")]
    display = LabelEfficiencyDisplay.from_estimators(
        {
            "zero-shot": ZeroShotClassifier(PROMPTS, model="demo"),
            "PromptProbe": PromptProbe(PROMPTS, model="demo"),
            "PrototypeClassifier": PrototypeClassifier(PROMPTS, model="demo"),
            "LinearProbe": LinearProbe(),
        },
        X,
        y,
        SIZES,
        groups=phantoms.groups,
        n_repeats=20,
    )
    display.figure_.savefig(PICTURE, dpi=100)


if __name__ == "__main__":
    main()
