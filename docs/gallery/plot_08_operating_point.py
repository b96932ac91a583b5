"""
A threshold that finds nine in ten
==================================

Choose it on some patients, report what it reaches on others: the first figure flatters.
"""

# %%
# Zero-shot scores of drawn phantoms; two sets of different patients.

from sklearn.model_selection import GroupShuffleSplit

from sk_medsiglip import MedSigLIPEmbedder, ZeroShotClassifier
from sk_medsiglip.datasets import make_chest_phantoms
from sk_medsiglip.evaluation import RocBandDisplay, choose_operating_point

phantoms = make_chest_phantoms(500, random_state=11)
X = MedSigLIPEmbedder("demo").transform(phantoms.images)
y = phantoms.target[:, list(phantoms.target_names).index("pneumothorax")]
patients = phantoms.groups
clf = ZeroShotClassifier(
    {"pneumothorax": {"positive": "a pneumothorax", "negative": "no pneumothorax"}},
    model="demo",
).fit(X)
scores = clf.predict_proba(X)[:, 1]
halves = GroupShuffleSplit(1, test_size=0.5, random_state=0)
choose, judge = next(halves.split(X, y, patients))

# %%
# The report holds what the threshold does on patients that did not choose it.

point = choose_operating_point(
    y[choose], scores[choose], sensitivity=0.9, groups=patients[choose]
)
report = point.report(y[judge], scores[judge], groups=patients[judge])
report.round(3)

# %%
# On the curve of the judging half, with its band over patients.

reached = report["value"]
display = RocBandDisplay.from_estimator(
    clf, X[judge], y[judge], groups=patients[judge], n_bootstrap=300
)
display.ax_.plot(
    1 - reached["specificity"], reached["sensitivity"], "o", color="#d55e00", ms=9
)
display.ax_.annotate(
    "the threshold, on new patients",
    (1 - reached["specificity"], reached["sensitivity"]),
    xytext=(20, -35),
    textcoords="offset points",
    arrowprops={"arrowstyle": "-"},
)
display.ax_.set_title("A threshold chosen for a sensitivity of 0.9")
