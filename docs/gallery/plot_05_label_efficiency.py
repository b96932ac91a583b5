"""
How many labels are worth it
============================

Zero-shot needs no label, heads get better with each. Where they cross says whether
labelling a hundred more images is worth the afternoon.
"""

# %%
# Nodules are what the demonstration knows least by its prompts, so labels help most.

import matplotlib.pyplot as plt

from sk_medsiglip import (
    LinearProbe,
    MedSigLIPEmbedder,
    PromptProbe,
    ZeroShotClassifier,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import LabelEfficiencyDisplay

phantoms = make_chest_phantoms(700, random_state=7)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target[:, list(phantoms.target_names).index("nodule")]
prompts = {
    "nodule": {
        "positive": ["lung nodule", "a round nodule in the lung"],
        "negative": ["no lung nodule", "clear lungs"],
    }
}

# %%
# Every draw takes whole patients, none of whom is in the test set. Lines are means of
# four draws, bands hold the middle 80 % of them.

figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
LabelEfficiencyDisplay.from_estimators(
    {
        "zero-shot": ZeroShotClassifier(prompts, model="demo"),
        "PromptProbe": PromptProbe(prompts, model="demo"),
        "LinearProbe": LinearProbe(),
    },
    X,
    y,
    [4, 16, 64, 256],
    groups=phantoms.groups,
    n_repeats=4,
    ax=ax,
)
ax.set_title("Nodules in drawn phantoms, demonstration model")
