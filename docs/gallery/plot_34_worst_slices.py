"""
Subgroups that are ranked worse
===============================

A classifier may fail in one subgroup and look well over all. All subgroups of one and
two columns are tested together, so that many of them give no more false alarms.
"""

# %%
# Made-up scores of 900 patients; among women of the third site they say little.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sk_medsiglip.audit import worst_slices

rng = np.random.default_rng(0)
y = rng.random(900) < 0.3
metadata = pd.DataFrame(
    {
        "site": rng.choice(["A", "B", "C"], 900),
        "sex": rng.choice(["F", "M"], 900),
        "age": rng.uniform(20, 90, 900),
    }
)
poor = (metadata["site"] == "C") & (metadata["sex"] == "F")
slices = worst_slices(y, rng.normal(2.5 * y * ~poor), metadata)
print(slices[["slice", "n_patients", "auc", "loss", "p_value"]].head(3).round(3))

# %%
# The loss of each subgroup, against the loss that half of all samples would show.
# Below the line a subgroup may be poor and go unseen.

clear = slices["p_value"] <= 0.05
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for is_clear, label in ((False, "chance explains it"), (True, "p at most .05")):
    some = slices[clear == is_clear]
    ax.scatter(some["findable"], some["loss"], s=some["n_patients"] / 4, label=label)
ends = [0, slices["findable"].max()]
ax.plot(ends, ends, color="grey", linestyle="--", label="findable")
ax.annotate(slices["slice"][0], (slices["findable"][0], slices["loss"][0]), (8, -4),
            textcoords="offset points")  # fmt: skip
ax.set(xlabel="findable loss", ylabel="loss of AUC", title="One subgroup stands out")
ax.legend(loc="upper left", bbox_to_anchor=(1, 1), markerscale=0.6)
