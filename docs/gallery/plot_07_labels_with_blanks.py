"""
Several findings, some not known
================================

Tables of reports hold blanks: nobody wrote about it. ``LinearProbe`` learns each
finding from the images where it is known, and ``evaluate`` judges it there, with
intervals by patient.
"""

# %%
# Draw phantoms, and blank out a third of the labels.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import evaluate
from sk_medsiglip.model_selection import MultilabelStratifiedGroupShuffleSplit

phantoms = make_chest_phantoms(600, random_state=5)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target.astype(float)
y[np.random.default_rng(0).random(y.shape) < 1 / 3] = np.nan

# %%
# A split that keeps patients whole and gives both sides their share of every finding.

once = MultilabelStratifiedGroupShuffleSplit(1, test_size=0.4, random_state=0)
learn, judge = next(once.split(X, y, phantoms.groups))
probe = LinearProbe().fit(X[learn], y[learn], groups=phantoms.groups[learn])

# %%
# One table with every figure. Findings of a matrix have no names of their own, so the
# columns' numbers stand in the table. Column 2 is told apart without a mistake on these
# few images; its interval is the exact one of as many patients as the smaller side has.

table = evaluate(
    probe,
    X[judge],
    y[judge],
    groups=phantoms.groups[judge],
    metrics="roc_auc",
)
table[["label", "value", "low", "high", "n", "n_positive"]].round(3)

# %%

rows = table[table["label"] != "micro"].iloc[::-1]
names = [*phantoms.target_names, "mean of all"][::-1]
error = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.errorbar(rows["value"], names, xerr=error, fmt="o", color="#0072b2", capsize=3)
ax.set(xlabel="area under the ROC curve, 95 % by patient")
ax.set_title("Six findings, a third of the labels blank")
