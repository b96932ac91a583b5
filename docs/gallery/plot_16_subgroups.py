"""
Does it work for everybody?
===========================

The same figure in each subgroup, and the gap between it and the rest, with intervals by
patient. With few patients a gap may be large and within noise.
"""

# %%
# Phantoms of two drawn scanners; the second is darker and noisier, and the head never
# saw it.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import SubgroupForestDisplay

learned = make_chest_phantoms(300, random_state=0)
usual = make_chest_phantoms(250, random_state=1)
other = make_chest_phantoms(250, gamma=(1.7, 2.0), noise=(0.08, 0.11), random_state=2)
embedder = MedSigLIPEmbedder("demo")
nodule = list(learned.target_names).index("nodule")
probe = LinearProbe().fit(
    embedder.transform(learned.images), learned.target[:, nodule], groups=learned.groups
)

# %%
# Judge on new patients of both.

X = np.vstack([embedder.transform(one.images) for one in (usual, other)])
y = np.concatenate([one.target[:, nodule] for one in (usual, other)])
patients = np.concatenate([usual.groups, [f"other {one}" for one in other.groups]])
scanner = np.repeat(["usual", "other"], 250)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), layout="constrained")
forest = SubgroupForestDisplay.from_estimator(
    probe,
    X,
    y,
    subgroups={"scanner": scanner},
    groups=patients,
    n_bootstrap=500,
    ax=axes[0],
)
SubgroupForestDisplay(forest.table).plot(ax=axes[1], gaps=True)
axes[0].set_title("AUC of nodules")
axes[1].set_title("and the gap to the rest")
