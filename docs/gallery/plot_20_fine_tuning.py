"""
Teach the encoder a finding it does not know
============================================

A few hundred images and one pair of prompts change the encoder itself, by small
matrices beside its layers. The picture shows the run, what it brought, and its price.
"""

# %%
# The demonstration was never shown a hiatal hernia. Here one is a drawn bubble behind
# the heart, gas above fluid, in half of the patients.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import roc_auc_score

from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPFineTuner, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms


def make_images(n_images, seed):
    """Return phantoms with a bubble in half of the patients, and which have one."""
    phantoms = make_chest_phantoms(n_images, random_state=seed)
    _, patient = np.unique(phantoms.groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    ill = (rng.random(patient.max() + 1) < 0.5)[patient]
    bubbles = rng.uniform(-1, 1, (patient.max() + 1, 3))[patient]
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    images = phantoms.images.astype(float)
    for row in np.flatnonzero(ill):
        across, down, size = bubbles[row]
        level = 0.35 + 0.06 * down
        far = np.hypot(x - 0.05 - 0.06 * across, y - level) / (0.17 + 0.05 * size)
        images[row] += 30 * (far < 1) - 75 * ((far < 0.8) & (y < level))
    phantoms.images = images.clip(0, 255).astype(np.uint8)
    return phantoms, ill.astype(int)


learn, hernia = make_images(320, seed=11)
judge, hernia_to_judge = make_images(240, seed=12)

# %%
# Zero-shot before and after: the new finding, and three that the model knew.

prompts = {
    name: {"positive": [name], "negative": [f"no {name}"]}
    for name in ("hiatal hernia", "cardiomegaly", "pleural effusion", "lung nodule")
}
truth = [hernia_to_judge]
for name in ("cardiomegaly", "effusion", "nodule"):
    truth.append(judge.target[:, judge.target_names.index(name)])


def zero_shot_auc(model):
    """Return one area under the ROC curve a finding, without any label."""
    X = MedSigLIPEmbedder(model).transform(judge.images)
    present = ZeroShotClassifier(prompts, model=model).fit(X).predict_proba(X)
    return [roc_auc_score(y, p) for y, p in zip(truth, present.T, strict=True)]


before = zero_shot_auc("demo")
new = {"hiatal hernia": prompts.pop("hiatal hernia")}
tuner = MedSigLIPFineTuner(
    MedSigLIPEmbedder("demo"),
    prompts=new,
    keep=prompts,
    keep_weight=5.0,
    lora_rank=16,
    lora_layers="all",
    epochs=6,
    random_state=0,
).fit(learn.images, hernia, groups=learn.groups)
prompts = new | prompts
after = zero_shot_auc(tuner.save(Path(tempfile.mkdtemp()) / "tuned"))

# %%
# What is learned may be paid for with what was known, so measure both. ``keep`` holds
# the scores of its prompts to what they were, and needs no labels of them.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
tuner.plot_history(ax=left)
left.set_title(f"The run: {tuner.n_trained_:,} trained values")
for place, (old, new) in enumerate(zip(before, after, strict=True)):
    right.plot([old, new], [place, place], color="0.7", lw=2, zorder=0)
    right.plot(old, place, "o", color="#999999", label="" if place else "before")
    right.plot(new, place, "o", color="#0072b2", label="" if place else "after")
    right.text(1.03, place, f"{old:.2f} to {new:.2f}", va="center", fontsize=9)
right.axvline(0.5, color="0.5", ls="--", lw=1)
right.set(yticks=range(4), yticklabels=list(prompts), ylim=(3.5, -0.5), xlim=(0.4, 1.3))
right.set(xticks=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0], xlabel="zero-shot AUC; 0.5 is a coin")
right.set_title("What it brought, what it cost")
right.legend(frameon=False, loc="center left")
right.spines[["top", "right"]].set_visible(False)
