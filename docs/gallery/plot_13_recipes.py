"""
Three ways to make an image square
==================================

Google published three recipes, and they are different images to the model. The default
is the one that the model card names "to reproduce the evaluations".
"""

# %%
# A drawn phantom, cut so that it is wider than high, and another patient to compare
# with.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms

phantoms = make_chest_phantoms(
    2, image_size=512, views_per_patient=1, noise=(0.03, 0.03), random_state=6
)
image, other = phantoms.images[:, 60:400]

# %%
# Embed it under each recipe, and compare the rows by their cosine.

recipes = {
    'resize="medsiglip"\n(default)': {},
    'resize="processor"\nbicubic': {"resize": "processor"},
    "pad=True\nblack above and below": {"pad": True},
}
rows = np.vstack(
    [
        MedSigLIPEmbedder("demo", normalize=True, **one).transform([image])[0]
        for one in recipes.values()
    ]
    + [MedSigLIPEmbedder("demo", normalize=True).transform([other])[0]]
)
names = [*recipes, "another patient,\ndefault"]
cosines = rows @ rows.T

# %%
# Padding changes this image more than another patient does, at least to the
# demonstration. So stay with one recipe in a project. Rows never mix, since the pixels
# are the key of a row.

figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
ax.imshow(cosines, cmap="Blues", vmin=cosines.min() - 0.2, vmax=1.2)
for i in range(4):
    for j in range(4):
        color = "white" if cosines[i, j] > 0.9 else "black"
        ax.text(j, i, f"{cosines[i, j]:.3f}", color=color, ha="center", va="center")
ax.set(xticks=range(4), yticks=range(4))
ax.set_xticklabels(names, fontsize=7)
ax.set_yticklabels(names, fontsize=8)
ax.set_title("Cosines of one image's rows under three recipes")
