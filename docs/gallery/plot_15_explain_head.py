"""
What did a head learn?
======================

The prompts that lie nearest to a linear head's weights, in words. A hint for finding
shortcuts, such as a head that looks for pacemakers to find big hearts.
"""

# %%
# A head for enlarged hearts, trained where every pacemaker sits in an ill patient.

import matplotlib.pyplot as plt

from sk_medsiglip import LinearProbe, MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.heads import explain_head

phantoms = make_chest_phantoms(1000, random_state=8)
names = list(phantoms.target_names)
heart = phantoms.target[:, names.index("cardiomegaly")]
device = phantoms.target[:, names.index("device")]
embedder = MedSigLIPEmbedder("demo")

# %%
# ``fair`` learns from all; ``skewed`` only from patients in whom both or neither are
# there, as a ward for heart failure might have them.

words = [
    "an enlarged heart",
    "a pacemaker",
    "pleural effusion",
    "a pneumothorax",
    "a lung nodule",
]
tables = {}
for name, rows in {"fair": heart >= 0, "skewed": heart == device}.items():
    X = embedder.transform(phantoms.images[rows])
    probe = LinearProbe().fit(X, heart[rows], groups=phantoms.groups[rows])
    tables[name] = explain_head(probe, words, model="demo", top=None)
tables["skewed"].round(3)

# %%

figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for name, color, shift in (("fair", "#0072b2", -0.18), ("skewed", "#d55e00", 0.18)):
    cosines = tables[name].set_index("prompt")["cosine"].reindex(words)
    places = [place + shift for place in range(len(words))]
    ax.barh(places, cosines, 0.34, color=color, label=name)
ax.axvline(0, color="0.3", lw=1)
ax.set(yticks=range(len(words)), yticklabels=words, xlabel="cosine with the weights")
ax.invert_yaxis()
ax.legend(title="the training patients")
ax.set_title("Words near a head for enlarged hearts")
