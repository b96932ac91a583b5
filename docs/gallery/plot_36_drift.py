"""
Do new images differ from the training images?
==============================================

A new scanner or a new protocol changes all images a little. The test compares two sets
as a whole, by patient, and says how well they can be told apart.
"""

# %%
# Drawn chest X-rays of one year, and three sets of the next: of the same scanner, of a
# slightly darker one, and of a much darker one.

import matplotlib.pyplot as plt

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.audit import drift_test
from sk_medsiglip.datasets import make_chest_phantoms

embedder = MedSigLIPEmbedder("demo")
before = make_chest_phantoms(200, random_state=0)
X = embedder.transform(before.images)
scanners = {
    "the same": {},
    "gamma 1.2": {"gamma": (1.2, 1.3)},
    "gamma 1.6": {"gamma": (1.6, 1.7)},
}
found = {}
for seed, (name, scanner) in enumerate(scanners.items(), 1):
    after = make_chest_phantoms(120, random_state=seed, **scanner)
    found[name] = drift_test(
        X,
        embedder.transform(after.images),
        groups_reference=before.groups,
        groups_new=[f"new {one}" for one in after.groups],
    )
    print(f"{name}: p = {found[name].p_value:.3f}, AUC {found[name].auc:.2f}")

# %%
# The area under the ROC curve of telling new images from old ones is the size of the
# change: with many patients small changes have small p-values, too.

figure, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
for place, result in enumerate(found.values()):
    ax.plot([result.auc_low, result.auc_high], [place, place], color="C0")
    ax.plot(result.auc, place, "o", color="C0")
ax.axvline(0.5, color="grey", linestyle="--")
ax.set(
    yticks=range(len(found)), yticklabels=found, xlabel="AUC of telling new from old"
)
ax.set_title("A change of the scanner shows")
ax.invert_yaxis()
