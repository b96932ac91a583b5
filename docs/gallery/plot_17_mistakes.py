"""
Look at the worst mistakes
==========================

Before you tune anything, look at what was most wrong: some mistakes are wrong labels,
other projections, images cut in half.
"""

# %%
# Zero-shot on phantoms, three of whose labels were turned round on purpose.

from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import MistakesDisplay

phantoms = make_chest_phantoms(200, random_state=0)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target[:, list(phantoms.target_names).index("effusion")].copy()
wrong = [20, 90, 150]
y[wrong] = 1 - y[wrong]

# %%
# Pictures are named by their row, the worst first. They are patients' images: treat the
# figure as such.

clf = ZeroShotClassifier(
    {"effusion": {"positive": "pleural effusion", "negative": "no pleural effusion"}},
    model="demo",
).fit(X)
display = MistakesDisplay.from_estimator(
    clf, X, y, images=phantoms.images, n_images=8, title="Effusion: the worst mistakes"
)
print(
    "turned round:",
    wrong,
    "- found:",
    sorted(set(display.mistakes["row"]) & set(wrong)),
)
