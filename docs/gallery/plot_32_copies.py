"""
One picture under two patients
==============================

A picture that is there twice leaks from training into test, however patients are split.
Copies under two patients, or with two labels, come first.
"""

# %%
# 60 drawn chest X-rays; three are copied to other patients.

import matplotlib.pyplot as plt

from sk_medsiglip.audit import find_copies
from sk_medsiglip.datasets import make_chest_phantoms

phantoms = make_chest_phantoms(60, random_state=1)
images, y = list(phantoms.images), phantoms.target[:, 0]
for copy, original in ((50, 4), (51, 9), (55, 20)):
    images[copy] = images[original]
copies = find_copies(images, y, groups=phantoms.groups)
print(copies[["kind", "row", "other_row", "same_group", "same_label"]])

# %%
# Each pair, and what the labels say.

figure, axes = plt.subplots(2, 3, figsize=(7, 5), layout="constrained")
for (upper, lower), pair in zip(axes.T, copies.itertuples(), strict=False):
    for ax, row, patient in (
        (upper, pair.other_row, pair.other_group),
        (lower, pair.row, pair.group),
    ):
        ax.imshow(images[row], cmap="gray")
        ax.set(xticks=[], yticks=[], title=f"row {row}, {patient}")
    lower.set_xlabel("same label" if pair.same_label else "another label")
figure.suptitle("The same picture under two patients")
