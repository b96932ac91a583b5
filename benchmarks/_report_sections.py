"""Titles and words of the sections of ``docs/benchmarks.md``, one a results file."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks import _report_serving

__all__ = ["SECTIONS", "Section"]


class Section(NamedTuple):
    """Words around the tables of one results file."""

    title: str
    words: str


#: By results file, in the order of the page; other files follow in the order of names.
SECTIONS = {
    "embedding": Section(
        "From files to embeddings",
        "The same PNG files and checkpoint for every side. Loading weights is not "
        "counted. Ours also stores its rows on disk; the others keep nothing. Cosines "
        "are to the loop over transformers, on images of the model's own size, which "
        "no side resizes; on others the resize differs (ours is that of the model "
        "card). The full-size checkpoint has MedSigLIP's shape and random weights; few "
        "images are embedded with it, and the time of 500 is computed from them.",
    ),
    "search": Section(
        "GridSearchCV over image files",
        "Ten values of `C` in five folds and the refit, the demonstration checkpoint. "
        "Model passes are counted, in every process. The plain pipeline runs on fewer "
        "images, as its row says: its passes and time grow as their number does.",
    ),
    "persistence": Section(
        "Saving and loading a fitted pipeline",
        "Against a transformer that holds its network as an attribute. Ours names its "
        "model and looks it up again where it is loaded: the bytes are no copy of the "
        "model, and the other machine needs it, or the stored rows.",
    ),
    "scaling": Section(
        "Cost against size",
        "`transform` of files whose rows are stored: rows as wide as MedSigLIP's. What "
        "no way round can avoid stands beside it: asking for every file's state, and "
        "gathering the rows from memory. Sizes under *beyond* are computed from the "
        "slope, not measured. What breaks there first is memory, not time: `transform` "
        "returns one array, and the paths are one list. So beyond what memory holds, "
        "embed in parts; the store itself was not tried at these sizes.",
    ),
    "scale_out": Section(
        "A collection through Ray",
        "`embed_dataset` on a Ray that it starts itself, against `MedSigLIPEmbedder`: "
        "the same files, two cores, empty outputs, each turn in a process of its own. "
        "*Without start* is what further images cost. Memory is seen from outside; "
        "PSS shares pages among those who use them. The demonstration checkpoint, "
        "which knows nothing of medicine. *Parts* are of MedSigLIP's size. All under "
        "*paper* is calculated from them and from what stands there as assumed: "
        "[many machines](scaling.md). Nothing of it was run on a GPU.",
    ),
    "heads": Section(
        "LinearProbe",
        "Against scikit-learn's ways to the same solutions: the same folds and "
        "penalties, scoring and refit in every time. *objective above the best* is how "
        "far the refit ends above the best known objective, as a share: ours is not "
        "faster by being less exact.",
    ),
    "few_shot": Section(
        "Heads with few labels",
        "AUC and log loss on images that were not learned from; columns are labels of "
        "each class, means over draws. The demonstration checkpoint embeds them, which "
        "knows nothing of medicine: a pattern, not a promise. The constants of "
        "PromptProbe and of the closed forms were chosen on draws of these very sets. "
        "On phantoms the prompts are good: up to 16 labels no head that knows them "
        "falls by more than .01 AUC below zero-shot, for any finding, and PromptProbe "
        "has the lowest loss of all. On PneumoniaMNIST (Yang et al. 2023; X-rays of "
        "Kermany et al. 2018; CC BY 4.0), whose like the checkpoint never saw, they "
        "are poor: LinearProbe ranks best from two labels on, PromptProbe gains "
        "fastest of the heads that start from prompts, from 8 a probe of raw pixels "
        "is as good or better, and losses of the heads without a calibrated scale are "
        "high everywhere.",
    ),
    "zero_shot": Section(
        "Zero-shot",
        "The demonstration checkpoint, which knows nothing of medicine: a pattern, not "
        "a promise. *Calibration*: labels and figures from different patients, means "
        "over draws; a temperature moves no AUC, and alone it cannot mend scores that "
        "lean to one side, so biases go with it. How much labels are smoothed was "
        "chosen on other phantoms and on PneumoniaMNIST's test images. *Raw scores* "
        "shows what not to believe. *Choosing prompts* compares what `PromptSearchCV` "
        "says it gained with what it gains on 2,000 other patients' images; an "
        "interval is that of the search on its own images, so a few patients decide. "
        "*Parity* is with transformers' `zero-shot-image-classification` pipeline.",
    ),
    "conformal": Section(
        "Conformal sets",
        "Coverage asked for 0.90, means over splits by patient, the demonstration "
        "checkpoint on phantoms. Promised over all images together (*none*), images "
        "*with* a finding are covered far less; promised by class (the default) they "
        "are not. Leaving patients out, or another share of ill, breaks the promise.",
    ),
    "heatmaps": Section(
        "Places shown by heatmaps",
        "The pointing game on phantoms whose findings' places are known, prompt minus "
        "negative. The demonstration checkpoint learned from such places and MedSigLIP "
        "did not: the figures say which method reads patches best, and nothing of "
        "MedSigLIP's maps. Cardiomegaly and devices prove nothing, since one fixed "
        "point hits them as often.",
    ),
    "patches": Section(
        "Bags of image parts",
        "An image tower of MedSigLIP's shape with random weights, one image, with and "
        "without the vectors of 8 x 8 cells. Other work ran on the machine, so times "
        "are CPU time of one thread; a pass still varies by as much as the cells cost, "
        "so the pooling head is also timed alone and its difference divided by the "
        "pass. Cosines are of a vector with its stored form. Bags are read in shuffled "
        "order from a warm page cache, by numpy as float32 without checksums.",
    ),
    "bags": Section(
        "Bags beside rows",
        "AUC on other patients' images, means over seeds; vectors of the demonstration "
        "checkpoint, a demonstration: its patches are 16 of 128 pixels, and it was "
        "trained on drawings. *Spots* of 3 to 12 pixels are planted into a lung of "
        "half of the images; all heads learn from labels of images, but for the probe "
        "*trained with places* and that which is told the place. *Studies* have 85 "
        "slices, one of which may show a nodule. *Ordinary* findings fill a large part "
        "of the image. *Margins* are differences of these AUCs. Sharpness and "
        "shrinkage of `BagProbe` were chosen on other seeds.",
    ),
    "tuning": Section(
        "Choosing a head",
        "Searches with the same folds, score and number of candidates: the AUC of "
        "their best on rows kept apart. Embeddings are the demonstration checkpoint's.",
    ),
    "splits": Section(
        "Folds by patient",
        "Five folds of made-up tables like NIH's, fourteen labels, heavy-tailed images "
        "a patient: how far a label's share in a fold is from its share in all, and a "
        "fold's size from a fifth. Other work ran on the machine meanwhile.",
    ),
    "queue": Section(
        "Choosing images to label",
        "`ExploreSession.queue` against random draws of the same pool, and against a "
        "strategy of scikit-activeml that asks the same classifier: of seven the best "
        "on each set, chosen on other draws. Eight labels at a time, paired over "
        "draws; low and high are the 95 % interval of the mean difference. The area "
        "under the ROC curve is that of the session's classifier "
        "on other patients. Phantoms and PneumoniaMNIST (Yang et al., MedMNIST v2; CC "
        "BY 4.0) are embedded by the demonstration checkpoint, which knows nothing of "
        "medicine; the digits are pixels without prompts. The constants of the queue "
        "were chosen on other draws of the same sets.",
    ),
    "explore": Section(
        "The explore page",
        "The real page and its server, in a browser without a window on the same "
        "machine: milliseconds from an event (a click, a key, the mouse let go) to the "
        "first frame in which the answer is drawn and its images are loaded. Rows are "
        "made up and memory-mapped; texts come from the store, so that no model is "
        "loaded; a new text loads it, and the second figure of memory has it. Other "
        "work ran on the machine meanwhile.",
    ),
    "audit_labels": Section(
        "Label errors",
        "Planted into 1,500 phantoms a seed, rows of the demonstration checkpoint, "
        "means over seeds: the precision of the list where it holds 60 % of the wrong "
        "labels. *likely* is the number of labels that are counted as likely wrong, "
        "for each wrong one. cleanlab's self-confidence is fed by `cross_val_predict` "
        "of a standardised logistic regression, its penalty chosen on another seed.",
    ),
    "audit_label_cost": Section(
        "Cost of judging labels",
        "Made-up rows of 1,152 values, 14 findings, three in ten labels blank. The "
        "other side's seconds are those of one finding, times 14. Other work ran on "
        "the machine, so processor seconds are the better figures.",
    ),
    "audit_shortcuts": Section(
        "Shortcuts",
        "Sets of 400 patients, rows of the demonstration checkpoint: a mark that goes "
        "with the nodules of four patients in five, beside four columns that mean "
        "nothing, at a level of .01. In clean sets the mark is in the table but not in "
        "the images.",
    ),
    "audit_slices": Section(
        "Slices in which a classifier does worse",
        "Made-up scores of patients with one to three images, an area of .92, six "
        "columns of metadata; in one pair of levels, 8 % of patients, the area is "
        "lower. Counted are the sets in which a slice is found at a level of .05.",
    ),
    "audit_novelty": Section(
        "Novel images",
        "Gates that learned from 1,500 phantoms, rows of the demonstration checkpoint: "
        "areas under ROC curves between other phantoms and other images, and false "
        "alarms. The checkpoint learned from phantoms with all of the findings; that "
        "it places a finding the gate never met far out says nothing of MedSigLIP.",
    ),
    "audit_drift": Section(
        "Drift",
        "150 patients against 100 others, rows of the demonstration checkpoint: the "
        "share of draws that are found to differ at a level of .05. Without a fault it "
        "is the share of false alarms. Other work ran on the machine.",
    ),
    "evaluate": Section(
        "Figures with intervals",
        "Resamples of patients, the same for both sides; the loop is run for some of "
        "them, and its time for all is computed from these.",
    ),
    "coverage": Section(
        "Intervals and gaps with few patients",
        "Made-up scores of known worth; shares of data sets. *Gaps*: how often the "
        "test finds one (p of .05 or less) by the number of patients in the subgroup, "
        "where there is none (type I) and where the AUC is .80 against .95 (power). "
        "*Intervals* of 95 %: how often they hold the truth, their mean width, and how "
        "often there is one. *Pairs*: two classifiers of the same 100 images. "
        "*Operating points*: what thresholds chosen for a sensitivity of .95 reach on "
        "new images, by the number of positive ones that chose them.",
    ),
    "retrieval_exact": Section(
        "Exact search",
        "The ten nearest of unit vectors in clusters; all sides with the same threads, "
        "rows in memory before the clock starts. Slow sides are asked fewer queries.",
    ),
    "retrieval": Section(
        "Finding images",
        "Phantoms of a seed that no training saw, the demonstration checkpoint. Mates "
        "are captions that read the same; many others are true of an image as well, "
        "and short ones lie near to all, which is why the way from image to caption "
        "is below chance. *example*: images like one with the finding, of other "
        "patients. Then approximate search, one query at a time, and random filters "
        "against pandas.",
    ),
    "fine_tuning_new_finding": Section(
        "Fine-tuning: a finding the checkpoint never saw",
        "Phantoms with a hiatal hernia drawn in, and reports; the demonstration "
        "checkpoint, low-rank adaptation of both towers. *keep* names the prompts of "
        "the old findings, at *keep_weight* 2. Settings were chosen on other seeds "
        "than those judged here; one run each, while other work ran on the machine.",
    ),
    "fine_tuning_other_scanner": Section(
        "Fine-tuning: another scanner",
        "Phantoms of a scanner with another tone, more noise and enhanced edges. "
        "*Reports* of that scanner tune the encoder before any label is seen; "
        "*classification* tunes it by the labels themselves. Means over findings and "
        "three draws of labels.",
    ),
    "fine_tuning_pneumonia": Section(
        "Fine-tuning: real X-rays",
        "PneumoniaMNIST (Yang et al. 2023; X-rays of Kermany et al. 2018; CC BY 4.0), "
        "28 px, its test split; the demonstration checkpoint never saw its like. "
        "Its patients are not told, so intervals are of images.",
    ),
    "fine_tuning_cost": Section(
        "Cost of fine-tuning",
        "*Bare* is forward and backward of the same network on one batch, and nothing "
        "else. *Steps* adds reading, changed pictures, optimizer and log; *whole fit* "
        "everything, from reading images to the last checkpoint. The full-size "
        "checkpoint has MedSigLIP's shape and random weights.",
    ),
    "engines": Section(
        "Engines",
        "Full size means MedSigLIP's shape with random weights. Whether bfloat16 pays "
        "depends on the processor: on the one named here it is slower than float32, "
        'and `dtype="auto"` keeps float32. Other work ran on the machine meanwhile.',
    ),
    "serving": Section(_report_serving.TITLE, _report_serving.WORDS),
    "pipeline": Section("From files to rows, against what the parts allow", ""),
    "reading": Section("Reading images", ""),
    "cache": Section("The store", ""),
    "demo_checkpoint": Section("The demonstration checkpoint", ""),
}
