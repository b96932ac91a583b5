"""
Probabilities that mean what they say
=====================================

Zero-shot probabilities rank images well and still may not come true as often as they
say. The labels of sixty patients mend that.
"""

# %%
# Sixty patients calibrate, the others judge.

import matplotlib.pyplot as plt
from sklearn.model_selection import GroupShuffleSplit

from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import ReliabilityDisplay

phantoms = make_chest_phantoms(800, random_state=2)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target[:, list(phantoms.target_names).index("device")]
patients = phantoms.groups
split = GroupShuffleSplit(1, train_size=60, random_state=0)
few, rest = next(split.split(X, y, patients))

# %%
# ``calibrate="temperature_bias"`` learns a temperature and a bias from labels.

prompts = {
    "device": {"positive": "a pacemaker", "negative": "no pacemaker"},
}
plain = ZeroShotClassifier(prompts, model="demo").fit(X)
calibrated = ZeroShotClassifier(prompts, calibrate="temperature_bias", model="demo")
calibrated = calibrated.fit(X[few], y[few])

# %%
# On the diagonal, what is said comes true. The legend has the calibration error, 0 at
# best, and the line through the points: a slope of 1 and an intercept of 0 are right.

figure, axes = plt.subplots(1, 2, figsize=(9, 5), layout="constrained")
figure.suptitle("A device, asked by prompts: alone (left), with labels (right)")
for ax, clf in zip(axes, [plain, calibrated], strict=True):
    ReliabilityDisplay.from_estimator(
        clf,
        X[rest],
        y[rest],
        groups=patients[rest],
        n_bins=8,
        ax=ax,
    )
