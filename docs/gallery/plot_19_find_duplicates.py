"""
Find one picture under two names
================================

A radiograph that was exported twice, once as JPEG, has other pixels, another file name,
and sometimes another patient's number. On both sides of a split it flatters every
figure. Its embedding gives it away.
"""

# %%
# 150 drawn chest X-rays; four of them come back as JPEG under new patients.

import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from sk_medsiglip import ImageRetriever
from sk_medsiglip.datasets import make_chest_phantoms


def export_again(image):
    """Return an image as another program might have written it."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=85)
    return np.asarray(Image.open(file))


phantoms = make_chest_phantoms(150, random_state=4)
copied = [10, 60, 110, 140]
images = [*phantoms.images, *(export_again(phantoms.images[row]) for row in copied)]
patients = [*phantoms.groups, *(f"NEW{number}" for number in range(4))]

# %%
# What is near to an earlier image. Views of one patient may be near to each other:
# pairs of *different* patients are what must not be.

retriever = ImageRetriever(model="demo").fit(images)
found = retriever.find_duplicates(threshold=0.999)
found["patient"] = [patients[row] for row in found["id"]]
found["other"] = [patients[row] for row in found["duplicate_of"]]
across = found[found["patient"] != found["other"]].sort_values("score")
print("of two patients:", len(across), "pairs; copies among them:", end=" ")
print(int(across["id"].ge(len(phantoms.images)).sum()), "of", len(copied))

# %%
# Look at the pairs before you decide: "nearly the same" to a model is no proof, and
# where to draw the line depends on the model. A picture that was cropped or turned is
# less near.

shown = across.tail(5).iloc[::-1]
figure, axes = plt.subplots(
    2, len(shown), figsize=(2.1 * len(shown), 4.9), layout="constrained", squeeze=False
)
for (upper, lower), (_, pair) in zip(axes.T, shown.iterrows(), strict=True):
    for ax, row in ((upper, pair["duplicate_of"]), (lower, pair["id"])):
        ax.imshow(images[row], cmap="gray")
        ax.set_title(patients[row], fontsize=9)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    lower.set_xlabel(f"cosine {pair['score']:.4f}", fontsize=9)
figure.suptitle("One picture, two patients?")

# %%
# ``retriever.remove(found["id"])`` keeps one of each. For a split,
# ``check_leakage(images, patients, cv, embeddings=X)`` looks for such pairs on both
# sides: :doc:`/splits`.
