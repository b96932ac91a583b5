"""
Metadata that stand in for a finding
====================================

Where most positives come from one scanner, a classifier may learn the scanner. A column
is a shortcut if it goes with the label and can be read from images of the same label.
"""

# %%
# Most images with a nodule are darker, as if they came from a portable scanner. The
# site goes with the label too, but leaves no trace in the images.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.audit import find_shortcuts
from sk_medsiglip.datasets import make_chest_phantoms

phantoms = make_chest_phantoms(300, views_per_patient=1, random_state=5)
y = phantoms.target[:, list(phantoms.target_names).index("nodule")]
agrees = np.random.default_rng(0).random((2, 300)) < 0.85
portable, north = np.where(agrees, y, 1 - y)
images = phantoms.images.copy()
images[portable == 1] = images[portable == 1] // 3 * 2
metadata = {
    "scanner": np.where(portable, "portable", "fixed"),
    "site": np.where(north, "north", "south"),
}
X = MedSigLIPEmbedder("demo").transform(images)
found = find_shortcuts(X, y, metadata)
print(found[["column", "shortcut", "p_association", "p_readable"]])

# %%
# How well each column can be read, and how well the finding is told from the images:
# over all pairs, and over those whose levels suggest the opposite.

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
measures = {
    "auc_readable": "reading the column",
    "auc": "finding, all pairs",
    "auc_conflicting": "finding, where the column misleads",
}
for marker, (name, label) in zip("so^", measures.items(), strict=True):
    ax.plot(found[name], found["column"], marker, markersize=9, label=label)
ax.axvline(0.5, color="grey", linestyle="--")
ax.set(xlim=(0.35, 1.02), ylim=(1.5, -0.5), xlabel="AUC")
ax.set_title("The scanner is a shortcut, the site is not")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
