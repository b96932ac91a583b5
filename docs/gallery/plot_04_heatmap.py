"""
Where a prompt looks
====================

A map says how much each patch of the image is like a prompt. It is a hint about the
score, not a localisation: see :doc:`/heatmaps`.
"""

# %%
# One phantom with an effusion and one without, and a pipeline that asks for it.

import matplotlib.pyplot as plt

from sk_medsiglip import make_zero_shot_pipeline
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.zero_shot import HeatmapDisplay

phantoms = make_chest_phantoms(
    8, findings=["effusion"], prevalence=0.5, views_per_patient=1, random_state=1
)
pipe = make_zero_shot_pipeline(
    {
        "effusion": {
            "positive": "pleural effusion",
            "negative": "no pleural effusion",
        }
    },
    model="demo",
).fit(phantoms.images)

# %%
# Of a finding the map is present minus absent, so 0 has a meaning and nothing is
# coloured where the denial is likelier. The demonstration was told in training where
# findings lie, MedSigLIP was not: its maps are rougher than these.

present = phantoms.target[:, 0] == 1
pictures = [phantoms.images[present][0], phantoms.images[~present][0]]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for ax, picture, name in zip(axes, pictures, ["effusion", "none"], strict=True):
    HeatmapDisplay.from_estimator(
        pipe, picture, "effusion", title=f"effusion? (drawn: {name})", ax=ax
    )
