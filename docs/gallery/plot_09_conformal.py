"""
Answers that say "cannot tell"
==============================

A conformal set holds the truth as often as was asked for. Poor scores make larger sets,
not wrong ones.
"""

# %%
# Zero-shot scores for a finding that the demonstration reads less well.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from sk_medsiglip import ConformalZeroShot, MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms

phantoms = make_chest_phantoms(900, random_state=4)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target[:, list(phantoms.target_names).index("nodule")]
patients = phantoms.groups
clf = ZeroShotClassifier(
    {"nodule": {"positive": "a lung nodule", "negative": "no nodule"}}, model="demo"
).fit(X)

# %%
# For each error rate that may be asked for: how often is the truth in the set, and how
# often is the answer a single one? Means over ten halvings of the patients; one halving
# alone may be some points off.

alphas = np.array([0.05, 0.1, 0.15, 0.2, 0.3])
halvings = GroupShuffleSplit(10, test_size=0.5, random_state=0)
covered, single = np.zeros((2, len(alphas), 10))
for k, (calibrate, judge) in enumerate(halvings.split(X, y, patients)):
    for i, alpha in enumerate(alphas):
        conformal = ConformalZeroShot(clf, alpha=alpha)
        conformal.fit(X[calibrate], y[calibrate], groups=patients[calibrate])
        sets = conformal.predict_set(X[judge])  # columns: absent, present
        covered[i, k] = sets[np.arange(len(judge)), y[judge]].mean()
        single[i, k] = (sets.sum(axis=1) == 1).mean()

# %%
# The promise, the dashed line, is kept to a point or two on new patients of the same
# kind; another hospital breaks it. Asking for fewer errors costs answers.

figure, ax = plt.subplots(figsize=(6.5, 4), layout="constrained")
ax.plot(1 - alphas, 1 - alphas, "--", color="0.5", label="asked for")
ax.plot(1 - alphas, covered.mean(1), "o-", color="#0072b2", label="truth is in the set")
ax.plot(1 - alphas, single.mean(1), "s-", color="#d55e00", label="one answer only")
ax.set(xlabel="asked for", ylabel="share of images", ylim=(0, 1.05))
ax.set_title("Conformal sets for a nodule, present or absent")
ax.legend()
