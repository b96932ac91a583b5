"""
Is it worth acting on?
======================

An AUC does not say whether anybody is better off. Net benefit does: it counts the
findings that one acts on, and takes off the needless actions in the weight that one
gives them.
"""

# %%
# Phantoms of patients who are learned from, and of others who are judged.

import numpy as np
from sklearn.model_selection import GroupShuffleSplit

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import DecisionCurveDisplay

phantoms = make_chest_phantoms(500, random_state=3)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target[:, list(phantoms.target_names).index("nodule")]
patients = phantoms.groups
halves = GroupShuffleSplit(1, test_size=0.5, random_state=0)
learn, judge = next(halves.split(X, y, patients))
probe = LinearProbe().fit(X[learn], y[learn], groups=patients[learn])
zero_shot = ZeroShotClassifier(
    {"nodule": {"positive": "a lung nodule", "negative": "no lung nodule"}},
    model="demo",
).fit(X)

# %%
# The threshold probability is the risk from which on one would act, such as by ordering
# a CT. A classifier is of use where its curve lies above both acting on everybody and
# acting on nobody. Look at thresholds at which reasonable people would act. The band is
# by patient, at each threshold by itself.

thresholds = np.arange(1, 51) / 100
display = DecisionCurveDisplay.from_estimator(
    probe,
    X[judge],
    y[judge],
    groups=patients[judge],
    name="linear probe",
    thresholds=thresholds,
)
DecisionCurveDisplay.from_estimator(
    zero_shot,
    X[judge],
    y[judge],
    groups=patients[judge],
    name="zero-shot",
    thresholds=thresholds,
    ax=display.ax_,
)

# %%
# The same as numbers: per 100 images, at three thresholds.

table = display.table[display.table["threshold"].isin([0.1, 0.2, 0.4])]
100 * table.pivot(index="threshold", columns="strategy", values="value").round(3)
