"""
What is wrong with these data?
==============================

Wrong labels, copies, metadata that could stand in for a finding: some faults are
planted here, and found before anybody trains.
"""

# %%
# Drawn chest X-rays of two scanners. Five labels are flipped, and four of five images
# with an effusion come from the darker scanner.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from sk_medsiglip.audit import audit
from sk_medsiglip.datasets import make_chest_phantoms

phantoms = make_chest_phantoms(300, random_state=5)
images = phantoms.images.copy()
truth = phantoms.target[:, list(phantoms.target_names).index("effusion")]
rng = np.random.default_rng(0)
portable = np.where(rng.random(300) < 0.8, truth, 1 - truth)
images[portable == 1] = images[portable == 1] // 3 * 2
flipped = rng.choice(300, 5, replace=False)
y = pd.Series(truth, name="effusion")
y[flipped] = 1 - y[flipped]

# %%
# One call; each sentence has a table behind it.

found = audit(
    images,
    y,
    groups=phantoms.groups,
    metadata={"scanner": np.where(portable == 1, "portable", "fixed")},
    embedder="demo",
)
print(found.summary())

# %%
# The labels that look worst. Whether they are wrong is for a reader to say: here it is
# known.

worst = found.label_issues.head(5)
figure, axes = plt.subplots(1, 5, figsize=(11, 3.4), layout="constrained")
for ax, issue in zip(axes, worst.itertuples(), strict=False):
    ax.imshow(images[issue.row], cmap="gray")
    ax.set(xticks=[], yticks=[], title=f"row {issue.row}")
    planted = "planted" if issue.row in flipped else "a hard image"
    ax.set_xlabel(f"given {issue.given}, likelier {issue.suggested}\n{planted}")
figure.suptitle("Labels of effusion that look wrong")

# %%
# ``found.to_html("audit.html")`` writes all tables as one page: :doc:`/audit`.
