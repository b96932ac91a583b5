"""
Which prompt does the work, and which one hurts
===============================================

With some labelled images, ``compare_prompts`` says what each text is worth alone and
what all of them lose without it. Denials are where models go wrong.
"""

# %%
# 200 drawn phantoms with labels, and the texts of a set that ships.

import matplotlib.pyplot as plt

from sk_medsiglip import MedSigLIPEmbedder
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.prompts import load_prompt_set
from sk_medsiglip.zero_shot import PromptComparisonDisplay, compare_prompts

phantoms = make_chest_phantoms(200, random_state=9)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target[:, list(phantoms.target_names).index("consolidation")]
asked = load_prompt_set("chest_xray_13").select(["consolidation"])

# %%
# ``auc`` is the prompt alone for its side, ``gain`` what it adds to the others. The
# first row is all of them together.

table = compare_prompts(asked, X, y, groups=phantoms.groups, model="demo")
table[["side", "text", "auc", "gain"]].round(2)

# %%
# The same as a picture, with intervals by patient. One denial carries the finding; this
# model, the demonstration, misreads the two beside it. Another model misreads others:
# draw this with yours.

figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
PromptComparisonDisplay(table).plot(ax=ax)
