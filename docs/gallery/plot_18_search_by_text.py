"""
Search a collection by words
============================

Type what you are looking for, and see the images that are nearest to it. No label is
needed; those below the pictures say what was drawn, so that you can judge.
"""

# %%
# 200 drawn chest X-rays become an index: a row an image, and a table beside.

import matplotlib.pyplot as plt
import pandas as pd

from sk_medsiglip import ImageRetriever
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.retrieval import Query, RetrievalDisplay

phantoms = make_chest_phantoms(200, random_state=8)
table = pd.DataFrame(phantoms.target, columns=phantoms.target_names)
table = table.replace({0: "no", 1: "yes"})
table["patient"] = phantoms.groups
images = list(phantoms.images)
retriever = ImageRetriever(model="demo").fit(images, metadata=table)

# %%
# Three questions: by words; by words and not others; by an image, of which only other
# patients' images count. ``where`` is written as after SQL's WHERE.

example = 5
questions = [
    ("a large pleural effusion", "effusion", {}),
    (Query("a pacemaker") - 0.5 * Query("cardiomegaly"), "device", {}),
    (
        images[example],
        "device",
        {"where": f"patient <> '{phantoms.groups[example]}'"},
    ),
]
figure, axes = plt.subplots(3, 1, figsize=(9, 8.4), layout="constrained")
for ax, (query, label, options) in zip(axes, questions, strict=True):
    RetrievalDisplay.from_retriever(
        retriever, query, n=4, images=images, label=label, ax=ax, **options
    )

# %%
# Scores are cosines, which rank and are no probabilities; those of words and of images
# are not to be compared. How good a search is, is measured on labelled images:
# :doc:`/retrieval`.
