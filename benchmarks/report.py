"""Make ``docs/benchmarks.md`` from the JSON files in ``benchmarks/results``.

Run ``python -m benchmarks.report``. Nothing is measured here and no figure is written
by hand: a results file without words of its own below becomes tables all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["make_report", "read_results"]

_RESULTS = Path(__file__).parent / "results"
_REPORT = Path(__file__).parents[1] / "docs" / "benchmarks.md"

_INTRODUCTION = """\
# Benchmarks

Made by `python -m benchmarks.report` from `benchmarks/results/*.json`; do not edit.
Each comparison runs both sides on the same machine, in one run, in turns; the best turn
of each side counts. How to run them, with what beside this package:
[benchmarks/README.md](../benchmarks/README.md). Absolute times belong to the machine
that each section names; ratios carry over better.
"""


class Section(NamedTuple):
    """Words around the tables of one results file."""

    title: str
    words: str


#: In the order of the page; files that are not named here follow by name.
_SECTIONS = {
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
        "Where maps point",
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
        "What to label next",
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
        "What judging labels costs",
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
        "Fine-tuning: what it costs",
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
    "pipeline": Section("From files to rows, against what the parts allow", ""),
    "reading": Section("Reading images", ""),
    "cache": Section("The store", ""),
    "demo_checkpoint": Section("The demonstration checkpoint", ""),
}

_BAGS_OF_SPOTS = [f"brightness {b}, {n} labels" for b in (90, 150) for n in (200, 2000)]
_BAGS_OF_SLICES = [
    f"{n} studies, {kind}"
    for kind in ("nodules alone", "among other findings")
    for n in (100, 400)
]
_BAGS_OF_MORE = [
    f"{name}, {n} labels"
    for name, all_labels in (("phantoms", 2000), ("PneumoniaMNIST", "all"))
    for n in (200, all_labels)
]

#: A row a target: what, the way to the figure, "at most" or "at least" what.
_TARGETS = [
    *(
        (
            f"Images/s of a job on Ray / of one machine, {way} start",
            ("scale_out", "throughput", "Ray / one machine", way),
            "at least",
            0.85,
        )
        for way in ("with", "without")
    ),
    *(
        (
            f"OpenVINO at full size, images: {what}",
            ("engines", "full size", *way),
            *limit,
        )
        for what, way, limit in [
            (
                "speed over torch float32",
                ("image", "openvino bfloat16", "speed over torch float32"),
                ("at least", 2.3),
            ),
            (
                "speed over torch bfloat16",
                ("image", "openvino bfloat16 over torch bfloat16"),
                ("at least", 1.25),
            ),
            (
                "cosine to torch float32",
                ("image", "openvino bfloat16", "smallest cosine"),
                ("at least", 0.9999),
            ),
        ]
    ),
    *(
        (
            f"Files to rows, share of what the parts allow: {name}, n_jobs={jobs}",
            ("pipeline", name, f"share, n_jobs={jobs}"),
            "at least",
            0.9,
        )
        for name in (
            "full size, 1024 px PNG",
            "demonstration, 256 px PNG",
            "demonstration, 2048 x 2500 DICOM",
        )
        for jobs in (1, 2)
    ),
    *(
        (f"Store, {n} rows: {what}", ("cache", f"{n} rows", *way), "at most", limit)
        for n in ("10,000", "100,000")
        for what, way, limit in [
            ("read / gather", ("ours", "read / gather"), 2.5),
            ("write in batches of 32 / LMDB", ("ours", "write / LMDB"), 1.0),
            ("disk / raw vectors", ("ours", "disk / raw"), 1.05),
        ]
    ),
    (
        "Store, 10,000 rows: transform of cached paths / gather",
        ("cache", "10,000 rows", "transform of cached paths", "transform / gather"),
        "at most",
        12.0,
    ),
    (
        "Store, 1,000,000 rows: import / plain write and read back",
        ("cache", "import in bulk", "import / plain"),
        "at most",
        5.0,
    ),
    *(
        (
            f"LinearProbe, {rows}: {peer} / ours",
            ("heads", rows, peer, "times as long as ours"),
            "at least",
            limit,
        )
        for rows, peer, limit in [
            ("two classes, 10,000 rows", "LogisticRegressionCV, n_jobs=2", 5.0),
            ("two classes, 10,000 rows", "LogisticRegressionCV, n_jobs=1", 12.0),
            ("two classes, 10,000 rows", "GridSearchCV, n_jobs=2", 15.0),
            ("five classes, 10,000 rows", "LogisticRegressionCV, n_jobs=2", 6.0),
            (
                "fourteen labels, 10,000 rows",
                "MultiOutputClassifier(LogisticRegressionCV), n_jobs=2",
                25.0,
            ),
            ("two classes, 200 rows", "LogisticRegressionCV, n_jobs=1", 10.0),
            ("two classes, 200 rows", "LogisticRegressionCV, n_jobs=2", 10.0),
        ]
    ),
    *(
        (
            f"Search over stored rows / on a ready matrix, {jobs}",
            ("search", jobs, "ours, stored / ready matrix"),
            "at most",
            1.3,
        )
        for n in (1, 2)
        for jobs in (f"n_jobs={n}", f"n_jobs={n}, 1152 values a row")
    ),
    *(
        (
            f"Exact search, 1,000,000 rows, 32 queries at a time: {peer} / ours",
            (
                "retrieval_exact",
                "1,000,000 rows",
                "queries at a time: 32",
                peer,
                "times as long as ours",
            ),
            "at least",
            least,
        )
        for peer, least in (("faiss", 1.0), ("scikit-learn, euclidean", 5.0))
    ),
    *(
        (f"Bags, {key}: {what}", ("bags", "margins", key, what), "at least", limit)
        for keys, what, limit in [
            (_BAGS_OF_SPOTS, "BagProbe - rows", 0.03),
            (_BAGS_OF_SPOTS, "BagProbe - trained with places", -0.005),
            (_BAGS_OF_SLICES, "BagProbe - trained on labelled slices, max", -0.01),
            (_BAGS_OF_SLICES, "BagProbe - mean of vectors, LinearProbe", 0.15),
            (_BAGS_OF_SLICES, "BagProbe - max of vectors, LinearProbe", 0.15),
            (_BAGS_OF_MORE, "with the row - rows, least", -0.01),
        ]
        for key in keys
    ),
    (
        "Bags, 10,000 of 64 x 1152, 5 folds and 5 penalties, seconds",
        ("bags", "speed", "BagProbe, 5 folds, 5 penalties and the refit", "s"),
        "at most",
        120.0,
    ),
    (
        "Bags, 100,000 of 64 x 1152 in a store: memory of a fit, GB",
        ("bags", "store", "memory of the process, GB"),
        "at most",
        8.0,
    ),
    (
        "Fine-tuning, new finding, zero-shot AUC",
        ("fine_tuning_new_finding", "zero-shot AUC", "reports, keep", "new finding"),
        "at least",
        0.85,
    ),
    (
        "Fine-tuning, new finding, what old findings lose, mean",
        ("fine_tuning_new_finding", "zero-shot AUC", "reports, keep", "lost, mean"),
        "at most",
        0.02,
    ),
    *(
        (
            f"Fine-tuning, {kind}: images a second, steps / bare passes",
            (
                "fine_tuning_cost",
                "images a second, demonstration",
                kind,
                "steps / bare",
            ),
            "at least",
            0.85,
        )
        for kind in (
            "contrastive, lora, both towers",
            "classification, lora",
            "classification, full",
        )
    ),
    (
        "Fine-tuning, one step of MedSigLIP's shape on a CPU, GiB",
        (
            "fine_tuning_cost",
            "one step, MedSigLIP's shape, float32 on a CPU",
            "contrastive, both towers, batch 2, computed again",
            "peak memory, GiB",
        ),
        "at most",
        24.0,
    ),
    *(
        (
            f"200 random filters that find what brute force finds, {index}",
            ("retrieval", "filters", f"{index}, right"),
            "at least",
            200,
        )
        for index in ("exact", "lancedb")
    ),
    (
        "2,000 resamples of 14 AUCs of 5,000 images, seconds",
        ("evaluate", "areas by patient", "seconds"),
        "at most",
        3.0,
    ),
    (
        "2,000 resamples of 14 AUCs of 5,000 images: loop over roc_auc_score / ours",
        ("evaluate", "areas by patient", "loop / ours"),
        "at least",
        50.0,
    ),
    *(
        (
            f"Zero-shot, sigmoid, difference to transformers: {which}",
            ("zero_shot", "parity", which, "largest difference of a sigmoid"),
            "at most",
            1e-5,
        )
        for which in ("demonstration", "random")
    ),
    *(
        (
            f"Gaps found where there is none, {which}, {size} in the group: {metric}",
            ("coverage", "gaps", f"type I, {which}", metric, size),
            "at most",
            0.07,
        )
        for which in ("120 patients", "300 patients")
        for size in ("3", "10", "40")
        for metric in ("roc_auc", "sensitivity", "brier")
    ),
    *(
        (
            f"Explore page, 100,000 images: {what}, {how}",
            ("explore", what, how),
            "at most",
            limit,
        )
        for what, how, limit in [
            ("prompt to histogram, ROC and map, ms", "p95", 300),
            ("outline to thumbnails, ms", "median", 300),
            ("key to labelled, ms", "p95", 200),
            ("refit to figures and map, ms", "p95", 500),
            ("first paint, ms", "p95", 2000),
            ("memory", "server / rows", 2),
        ]
    ),
    *(
        (
            f"Conformal sets for 90 %, {name}",
            ("conformal", *way),
            *limit,
        )
        for name, way in [
            ("findings, mean", ("findings", "class", "mean", "coverage")),
            ("one of seven classes", ("exclusive", "lac, class", "all", "coverage")),
        ]
        for limit in (("at least", 0.88), ("at most", 0.92))
    ),
]


def read_results(folder: Path = _RESULTS) -> dict[str, dict[str, Any]]:
    """Return what each results file holds, by its name."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def make_report(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page."""
    parts = [_INTRODUCTION]
    targets = list(_target_rows(results))
    if targets:
        parts.append("## Targets\n\n" + _table(["", "measured", "asked", ""], targets))
    known = [name for name in _SECTIONS if name in results]
    for name in known + sorted(set(results) - set(known)):
        section = _SECTIONS.get(name, Section(name.replace("_", " "), ""))
        parts.append(f"## {section.title}\n")
        if section.words:
            parts.append(_wrap(section.words))
        said, figures, nested = _parted(results[name])
        parts.append(_wrap(f"`benchmarks/results/{name}.json`: {said}."))
        parts.extend(figures + _tables(nested, level=3))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _target_rows(results: Mapping[str, Any]) -> Any:
    for what, way, sense, limit in _TARGETS:
        found: Any = results
        for key in way:
            found = found.get(key) if isinstance(found, Mapping) else None
        if isinstance(found, int | float):
            met = found <= limit if sense == "at most" else found >= limit
            asked = f"{sense} {_show(limit)}"
            yield [what, _show(found), asked, "met" if met else "**missed**"]


def _tables(nested: Mapping[str, Any], level: int) -> list[str]:
    """Return tables of records: neighbours with the same keys share one."""
    parts = []

    def shape(item: tuple[str, Any]) -> tuple[str, ...] | None:
        value = item[1]
        if not isinstance(value, Mapping) or not value:
            return None
        deep = any(isinstance(one, Mapping) for one in value.values())
        return None if deep else tuple(value)

    for columns, group in groupby(nested.items(), key=shape):
        items = list(group)
        if columns is not None and (len(items) > 1 or len(columns) <= 6):
            rows = [[k, *(_show(one) for one in v.values())] for k, v in items]
            parts.append(_table(["", *columns], rows))
        elif columns is not None:
            (key, value), *_ = items
            parts.append(
                _table([key, ""], [[k, _show(one)] for k, one in value.items()])
            )
        else:
            for key, value in items:
                if not isinstance(value, Mapping):
                    parts.append(f"{key}: {_show(value)}\n")
                    continue
                parts.append(f"{'#' * min(level, 5)} {key}\n")
                said, figures, deeper = _parted(value)
                if said:
                    parts.append(_wrap(f"{said}."))
                parts.extend(figures + _tables(deeper, level + 1))
    return parts


def _parted(values: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Any]]:
    """Return the words and numbers of a record, a table of its measures, the rest."""
    nested = {k: v for k, v in values.items() if isinstance(v, Mapping)}
    figures = [[k, _show(v)] for k, v in values.items() if isinstance(v, float)]
    said = [
        f"{k} {_show(v)}"
        for k, v in values.items()
        if not isinstance(v, Mapping | float)
    ]
    return ", ".join(said), [_table(["", ""], figures)] if figures else [], nested


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _show(value: Any) -> str:
    """Return a figure as people read it: three digits, thousands apart."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        # Cosines and areas live near 1: three digits would round what they say away.
        if 0.95 < value < 1:
            return f"{value:.5f}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    if isinstance(value, list):
        return " ".join(map(_show, value))
    return str(value)


def _wrap(text: str, width: int = 88) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line]) + "\n"


def main() -> None:
    """Write the page."""
    _REPORT.write_text(make_report(read_results()), encoding="utf-8")
    print(f"wrote {_REPORT.relative_to(_REPORT.parents[1])}")


if __name__ == "__main__":
    main()
