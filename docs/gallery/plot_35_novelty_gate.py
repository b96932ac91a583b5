"""
Images that a classifier should not answer for
==============================================

A classifier of chest radiographs answers for any image. A gate before it measures how
far an embedding lies from the training images, with a chosen rate of false alarms.
"""

# %%
# A gate that has learned from drawn chest X-rays, asked about new ones: as they are,
# inverted, and turned.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.audit import NoveltyGate
from sk_medsiglip.datasets import make_chest_phantoms

embedder = MedSigLIPEmbedder("demo")
learned = make_chest_phantoms(400, random_state=0)
gate = NoveltyGate(0.05).fit(embedder.transform(learned.images), groups=learned.groups)
images = make_chest_phantoms(120, random_state=3).images
asked = {
    "ordinary": images,
    "inverted": 255 - images,
    "turned": np.rot90(images, axes=(1, 2)),
}
rows = {kind: embedder.transform(some) for kind, some in asked.items()}
for kind, X in rows.items():
    print(f"{kind}: {np.mean(gate.predict(X) == -1):.0%} are novel")

# %%
# The scores, and the one from which an image is novel. The gate is not made for unknown
# diseases: it sees other body parts, modalities and grey values.

figure, ax = plt.subplots(figsize=(6.5, 3.4), layout="constrained")
scores = {kind: gate.score_samples(X) for kind, X in rows.items()}
bins = np.linspace(*np.quantile(np.concatenate([*scores.values()]), [0, 1]), 40)
for kind, some in scores.items():
    ax.hist(some, bins, alpha=0.6, label=kind)
ax.axvline(gate.offset_, color="black", linestyle="--", label="novel to the left")
ax.set(xlabel="score", ylabel="images", title="Inverted and turned images lie far out")
ax.legend()
