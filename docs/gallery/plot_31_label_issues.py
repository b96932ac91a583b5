"""
Labels that look wrong
======================

Classifiers that did not learn from a patient judge the patient's labels. The lower the
probability of the label that is given, the likelier it is wrong.
"""

# %%
# Drawn chest X-rays with six findings; 5 % of the labels of pneumothorax are flipped.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.audit import find_label_issues
from sk_medsiglip.datasets import make_chest_phantoms

phantoms = make_chest_phantoms(300, random_state=2)
truth = phantoms.target[:, list(phantoms.target_names).index("pneumothorax")]
wrong = np.random.default_rng(0).random(300) < 0.05
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
issues = find_label_issues(X, np.where(wrong, 1 - truth, truth), groups=phantoms.groups)
print(issues.head())

# %%
# How many of the flipped labels are among the first of the list: all that are to the
# left of the point where the curve is flat.

found = np.cumsum(wrong[issues["row"]])
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
ax.plot(np.arange(1, len(found) + 1), found, marker=".", label="the list")
ax.axhline(wrong.sum(), color="grey", linestyle="--", label="all flipped labels")
ax.set(xlabel="labels looked at", ylabel="flipped labels found", ylim=(0, None))
ax.set_title("The first of the list are worth a look")
ax.legend()
