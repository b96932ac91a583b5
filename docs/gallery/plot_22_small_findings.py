"""
Small findings: bags of the parts of an image
=============================================

One vector an image loses what is small. ``MedSigLIPPatchEmbedder`` keeps a vector for
each part, and ``BagProbe`` learns from labels of images which parts count: see
:doc:`/small_findings`.
"""

# %%
# Phantoms, half of them with a bright spot somewhere in a lung. Labels say whether
# there is one, and nothing says where.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import (
    BagProbe,
    LinearProbe,
    MedSigLIPEmbedder,
    MedSigLIPPatchEmbedder,
    ZeroShotClassifier,
)
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import evaluate
from sk_medsiglip.zero_shot import HeatmapDisplay

phantoms = make_chest_phantoms(
    600, findings=["effusion"], views_per_patient=1, random_state=22
)
rng = np.random.default_rng(22)
down, across = np.mgrid[:128, :128]
images, spot = phantoms.images.copy(), np.arange(600) % 2
places = np.column_stack([rng.integers(40, 70, 600), rng.choice([36, 90], 600)])
places[:, 1] += rng.integers(-6, 7, 600)
for i in np.flatnonzero(spot):
    distance = np.hypot(down - places[i, 0], across - places[i, 1])
    bright = images[i] + 150 * np.exp(-((distance / 2) ** 2))
    images[i] = np.clip(bright, 0, 255).astype(np.uint8)

# %%
# One pass of the model gives both the parts and the row of the whole image, which is
# the last instance of each bag.

embedder = MedSigLIPEmbedder("demo")
patches = MedSigLIPPatchEmbedder(embedder, grid=8, pooled_row=True)
bags = patches.fit_transform(list(images))
rows = bags[:, -1]
train, test = np.arange(300), np.arange(300, 600)

# %%
# ``LinearProbe`` learns from rows and ``BagProbe`` from bags, with the same 300 labels.
# ``evaluate`` gives the AUC on the other 300 images, and the difference of the two,
# with 95 % intervals.

by_row = LinearProbe().fit(rows[train], spot[train])
by_part = BagProbe(pooled_row=True).fit(bags[train], spot[train])
scores = {
    "BagProbe": by_part.predict_proba(bags[test])[:, 1],
    "LinearProbe": by_row.predict_proba(rows[test])[:, 1],
}
table = evaluate(scores, np.zeros((300, 1)), spot[test], metrics="roc_auc")
table[["estimator", "value", "low", "high"]].round(3)

# %%

figure, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
for place, row in enumerate(table.head(2).itertuples()):
    ax.plot([row.low, row.high], [place, place], color="#0072b2", lw=2)
    ax.plot(row.value, place, "o", color="#0072b2")
ax.set(yticks=[0, 1], yticklabels=["parts, BagProbe", "rows, LinearProbe"])
ax.set(ylim=(1.6, -0.6), xlabel="AUC of spots in other phantoms, 95 % interval")
ax.set_title("What is small is found in the parts")

# %%
# ``instance_scores`` says which part decided. Prompts on the same parts look for a
# nodule and were never told of spots. Both are hints at the basis of a score, not
# localisations; the demonstration was told in training where findings of its drawings
# lie.

prompts = {"nodule": {"positive": "a lung nodule", "negative": "no lung nodule"}}
by_prompt = ZeroShotClassifier(prompts, model="demo").fit(bags[:, :-1])
ill = test[spot[test] == 1]
shown = ill[np.argmax(by_part.decision_function(bags[ill]))]
figure, axes = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
axes[0].imshow(images[shown], cmap="gray")
axes[0].plot(*places[shown][::-1], "o", ms=22, mfc="none", mec="#d55e00", mew=2)
axes[0].set_title("the spot that was drawn", fontsize="medium")
axes[0].axis("off")
one = bags[[shown]]
HeatmapDisplay.from_scores(
    images[shown], by_part.instance_scores(one)[0], title="BagProbe", ax=axes[1]
)
HeatmapDisplay.from_scores(
    images[shown],
    by_prompt.instance_scores(one[:, :-1])[0],
    title="prompts: a lung nodule",
    ax=axes[2],
)

# %%
# Slices of a study are shown as a sheet, coloured by one score each. Here 14 phantoms
# stand for slices, one of them has a spot, and each is scored by its own parts. Scores
# of slices by a head that was trained on studies are drawn in the same way:
# :doc:`/volumes`.

slices = np.roll(np.append(test[spot[test] == 0][:13], shown), 5)
HeatmapDisplay.from_slices(images[slices], by_part.decision_function(bags[slices]))
