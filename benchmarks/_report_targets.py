"""Targets of the benchmarks: the first table of ``docs/benchmarks.md``."""

from __future__ import annotations

from benchmarks import _report_serving

__all__ = ["TARGETS"]

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

#: Each target: its name, the keys that lead to the figure, "at most" or "at least", and
#: the limit.
TARGETS = [
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
    *_report_serving.TARGETS,
]
