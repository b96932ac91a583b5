"""
Classes from prompts, without a label
=====================================

Two prompts a finding, and images get probabilities: nothing is trained. The images are
drawn phantoms and the model is the demonstration; see :doc:`/zero_shot` for real ones.
"""

# %%
# Draw six phantoms. ``target`` says what was drawn into each; it is used for the titles
# only.

import matplotlib.pyplot as plt

from sk_medsiglip import make_zero_shot_pipeline
from sk_medsiglip.datasets import make_chest_phantoms

phantoms = make_chest_phantoms(
    6, findings=["effusion"], prevalence=0.4, views_per_patient=1, random_state=2
)

# %%
# A pair of prompts asks whether one finding is present. For MedSigLIP leave out
# ``model="demo"``.

pipe = make_zero_shot_pipeline(
    {
        "effusion": {
            "positive": ["pleural effusion", "fluid in the pleural space"],
            "negative": ["no pleural effusion", "clear costophrenic angles"],
        }
    },
    model="demo",
)
present = pipe.fit(phantoms.images).predict_proba(phantoms.images)[:, 1]

# %%
# The number is the softmax of "present" against "absent". It ranks images; whether 0.8
# comes true eight times in ten is another question, see
# :ref:`sphx_glr_generated_gallery_plot_06_calibration.py`.

figure, axes = plt.subplots(2, 3, figsize=(7, 5.4), layout="constrained")
figure.suptitle("Probability of an effusion, from prompts alone")
for ax, image, p, drawn in zip(
    axes.flat, phantoms.images, present, phantoms.target[:, 0], strict=True
):
    ax.imshow(image, cmap="gray")
    ax.set_title(f"{p:.2f} (drawn: {'yes' if drawn else 'no'})", fontsize=10)
    ax.axis("off")
