"""
Look at embeddings before you train
===================================

What images differ in most is often the scanner, not the disease. Two principal
components show it; colour by site first, by finding second.
"""

# %%
# Phantoms of two drawn scanners: the second is darker and noisier.

import matplotlib.pyplot as plt
import numpy as np

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import EmbeddingMapDisplay

first = make_chest_phantoms(150, random_state=0)
second = make_chest_phantoms(150, gamma=(2.2, 2.6), noise=(0.12, 0.16), random_state=1)
embedder = MedSigLIPEmbedder("demo")
X = np.vstack([embedder.transform(one.images) for one in (first, second)])
scanner = ["scanner A"] * 150 + ["scanner B"] * 150
heart = np.concatenate([one.target[:, 0] for one in (first, second)])
size = np.where(heart == 1, "cardiomegaly", "normal heart")

# %%
# If A held more of the ill, a classifier could learn the scanner. Check the shares,
# split by site where you can.

figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
EmbeddingMapDisplay.from_embeddings(X, scanner, title="by scanner", ax=axes[0])
EmbeddingMapDisplay.from_embeddings(X, size, title="by finding", ax=axes[1])
