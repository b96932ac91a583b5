"""
Why splits go by patient
========================

Images of one patient are alike. Where they are on both sides of a split, a classifier
is praised for knowing the patient. Here the label has nothing to do with the image at
all, and still seems to be learned.
"""

# %%
# 100 drawn patients with five images each, and a coin that is thrown once a patient.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.model_selection import check_leakage

phantoms = make_chest_phantoms(500, views_per_patient=5, random_state=0)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
_, patient = np.unique(phantoms.groups, return_inverse=True)
coin = np.random.default_rng(0).integers(0, 2, patient.max() + 1)[patient]

# %%
# The same classifier under two splitters.

knn = KNeighborsClassifier(5)
splitters = {
    "by image": KFold(5, shuffle=True, random_state=0),
    "by patient": GroupKFold(5),
}
scores = {
    name: cross_val_score(
        knn, X, coin, cv=list(cv.split(X, coin, groups)), scoring="roc_auc"
    )
    for (name, cv), groups in zip(splitters.items(), [None, patient], strict=True)
}

# %%
# ``check_leakage`` lists what is on both sides, before anything is fitted.

found = check_leakage(phantoms.images, phantoms.groups, splitters["by image"])
print(len(found), "leaks; by patient:", end=" ")
print(len(check_leakage(phantoms.images, phantoms.groups, GroupKFold(5))))

# %%

figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
for place, values in enumerate(scores.values()):
    ax.plot(values, [place] * 5, "o", color=["#d55e00", "#0072b2"][place], ms=8)
    ax.text(values.mean(), place - 0.25, f"mean {values.mean():.2f}", ha="center")
ax.axvline(0.5, color="0.5", ls="--", lw=1)
ax.set(yticks=[0, 1], yticklabels=list(scores), ylim=(1.5, -0.6), xlim=(0.3, 1))
ax.set(xlabel="area under the ROC curve in each fold; 0.5 is a coin")
ax.set_title("Learning a coin that was thrown for each patient")
