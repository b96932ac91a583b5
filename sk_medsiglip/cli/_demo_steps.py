"""The steps of ``demo``, each printed with its result, its Python code and its cost.

The results are also written to ``results.json``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from sk_medsiglip.cli import _options as options
from sk_medsiglip.cli._cache import format_bytes
from sk_medsiglip.cli._collection import LabelledImages
from sk_medsiglip.cli._console import (
    CommandError,
    complain,
    heading,
    model_notice,
    say,
    say_remarks,
    show_code,
    show_table,
)
from sk_medsiglip.cli._embedding import count_passes, embed_images
from sk_medsiglip.cli._files import save_pipeline
from sk_medsiglip.cli._plot import draw_overview
from sk_medsiglip.cli._splits import WITHOUT_PATIENTS, check_enough, hold_out
from sk_medsiglip.cli._training import judge, label_scores, train_head
from sk_medsiglip.embedding import MedSigLIPEmbedder
from sk_medsiglip.encoder import load_encoder
from sk_medsiglip.evaluation import label_efficiency, write_report
from sk_medsiglip.exceptions import MissingDependencyError
from sk_medsiglip.heads import LinearProbe
from sk_medsiglip.prompts import check_prompts
from sk_medsiglip.retrieval import ImageRetriever
from sk_medsiglip.zero_shot import ZeroShotClassifier

# A third is held out, for an AUC that is stable enough for comparisons.
_HELD_OUT = 1 / 3
_FEW = (8, 32, 128)
_DRAWS = 6
_NEAREST = 10
_SHOWN = 5


@dataclass
class DemoSteps:
    """The main tasks on one labelled collection."""

    data: LabelledImages
    prompts: dict[str, Any]
    sentence: str
    out: Path
    embedder: MedSigLIPEmbedder
    seed: int
    results: dict[str, Any] = field(default_factory=dict)

    def run(self) -> None:
        """Run every step, and write the results."""
        X = self._embed_twice()
        rows = hold_out(self.data, _HELD_OUT, self.seed)
        self.train, self.test = (self.data.keep(part) for part in rows)
        self.X_train, self.X_test = (X[part] for part in rows)
        self._say_split()
        prompts = self._classify_zero_shot()
        head = self._train()
        curve = self._compare_few_labels(prompts)
        nearest = self._find_nearest()
        self._save_and_reload(head)
        self._report(prompts, head, curve, nearest)
        self._print_summary()
        text = json.dumps(self.results, indent=2)
        (self.out / "results.json").write_text(text + "\n", "utf-8")

    @property
    def model(self) -> str:
        """Name of the model, for a folder without its path."""
        model = str(self.embedder.model)
        return Path(model).name if Path(model).is_absolute() else model

    @property
    def notice(self) -> str:
        """Notice to show with the output of the model."""
        return model_notice(str(self.embedder.model))

    def _embed_twice(self) -> NDArray[np.float32]:
        heading("1. Embed: every image goes through the model once")
        show_code(
            f"embedder = MedSigLIPEmbedder({self.model!r})",
            "X = embedder.fit_transform(paths)",
        )
        start = time.perf_counter()
        encoder = load_encoder(self.embedder.model, device=self.embedder.device)
        say(
            f"Model {self.model} loaded on {encoder.device}, {encoder.dtype}, in "
            f"{time.perf_counter() - start:.1f} s."
        )
        first = embed_images(self.data.collection.paths, self.embedder)
        self.data = self.data.keep(first.readable)
        say_remarks(first.remarks())
        check_enough(self.data, "The demo")
        again = embed_images(self.data.collection.paths, self.embedder)
        n_images = len(self.data.collection)
        say(
            f"First time:  {n_images:,} images, {first.passes:,} model passes, "
            f"{first.seconds:.2f} s ({n_images / first.seconds:,.0f} images/s)."
        )
        say(
            f"Second time: {n_images:,} images, {again.passes:,} model passes, "
            f"{again.seconds:.3f} s, since the rows come from the cache."
        )
        self.results |= {
            "model": self.embedder.model,
            "notice": self.notice,
            "revision": encoder.revision,
            "n_images": n_images,
            "embedding_dim": first.X.shape[1],
            "first": {"passes": first.passes, "seconds": first.seconds},
            "second": {"passes": again.passes, "seconds": again.seconds},
        }
        return again.X

    def _say_split(self) -> None:
        for part, name in ((self.train, "train.csv"), (self.test, "test.csv")):
            check_enough(part, "The demo")
            part.collection.write(self.out / name)
        held_out = f"{len(self.X_test):,} images"
        if self.train.groups is None or self.test.groups is None:
            say(WITHOUT_PATIENTS, "yellow")
        else:
            n_train, n_test = len(set(self.train.groups)), len(set(self.test.groups))
            held_out += f" of {n_test:,} patients ({n_train:,} others for training)"
        say(
            f"Held out for every comparison below: {held_out}; {len(self.X_train):,} "
            "images for training."
        )

    def _classify_zero_shot(self) -> ZeroShotClassifier:
        heading("2. Zero-shot: prompts instead of labels")
        show_code(
            f"zero_shot = ZeroShotClassifier(prompts, model={self.model!r})",
            "zero_shot.fit(X).predict_proba(X)",
        )
        asked = self.data.task.named_prompts(self.prompts)
        with self._measured("zero_shot") as entry:
            classifier = ZeroShotClassifier(
                asked, **options.text_side(self.embedder, "device")
            ).fit(self.X_test)
            figures = self._held_out(classifier)
        entry |= figures
        say(f'One of the prompts: "{check_prompts(self.prompts).texts[0][0]}".')
        say(
            f"Macro AUC on held-out images: {entry['auc']:.3f}, without any labels "
            f"({entry['texts']:,} prompts and {entry['passes']:,} images through the "
            "model)."
        )
        return classifier

    def _train(self) -> Any:
        heading("3. Train: a head on labels, with sk-medsiglip train or with")
        show_code(
            "pipe = make_pipeline(embedder, LinearProbe())",
            "pipe.fit(paths, y, linearprobe__groups=patients)",
        )
        paths, y = self.train.collection.paths, self.train.y
        groups = {"linearprobe__groups": self.train.groups}
        with self._measured("logistic") as entry:
            pipe = make_pipeline(self.embedder, LinearProbe()).fit(paths, y, **groups)
        trained = train_head(LinearProbe(), self.train, self.X_train, self.seed)
        n_fits = pipe[-1].Cs_.size * 5
        entry |= self._held_out(pipe[-1]) | {"n_labels": len(paths), "fits": n_fits}
        show_table(trained.columns, trained.rows)
        for note in trained.notes:
            say(note)
        say(
            f"{pipe[-1].Cs_.size} penalties in 5 folds, starting from files, took "
            f"{entry['seconds']:.1f} s and {entry['passes']:,} model passes "
            f"({n_fits * len(paths):,} without the cache). Macro AUC on held-out "
            f"images: {entry['auc']:.3f}."
        )
        return pipe[-1]

    def _compare_few_labels(self, prompts: ZeroShotClassifier) -> pd.DataFrame:
        heading("4. How many labels beat the prompts?")
        show_code(
            "label_efficiency({'prompts': zero_shot, 'labels': LinearProbe()}, X, y, "
            "sizes)"
        )
        n_classes = len(self.data.task.names) if self.data.task.kind == "classes" else 2
        sizes = [size for size in _FEW if n_classes <= size < len(self.X_train)]
        with self._measured("few_labels") as entry, warnings.catch_warnings():
            # The area does not depend on the choice of the positive class.
            warnings.filterwarnings("ignore", ".* sorts second", UserWarning)
            table = label_efficiency(
                {"prompts": prompts, "labels": LinearProbe(tol=1e-4)},
                self.X_train,
                self.train.y,
                sizes,
                groups=self.train.groups,
                n_repeats=_DRAWS,
                X_test=self.X_test,
                y_test=self.test.y,
                groups_test=self.test.groups,
                random_state=self.seed,
            )
        label = "macro" if "macro" in set(table["label"]) else table["label"].iloc[0]
        of_labels = table[(table["label"] == label) & (table["estimator"] == "labels")]
        curve = of_labels.groupby("size")["score"].agg(["mean", "std"])
        entry["curve"] = [
            {"n_labels": int(size), "auc": float(mean), "std": float(std)}
            for size, mean, std in curve.itertuples()
        ]
        without, everything = self.results["zero_shot"], self.results["logistic"]
        rows = []
        for one in ({"n_labels": 0, **without}, *entry["curve"], everything):
            spread = f"{one['std']:.3f}" if "std" in one else ""
            rows.append([f"{one['n_labels']:,}", f"{one['auc']:.3f}", spread])
        show_table(["Labelled images", "AUC", "+/- over draws"], rows)
        entry["answer"] = _answer([*entry["curve"], everything], without["auc"])
        say(entry["answer"], "bold")
        say(f"0 labels: the prompts. Others are means of {_DRAWS} draws.")
        return table

    def _find_nearest(self) -> pd.DataFrame:
        heading("5. Search images by a sentence")
        show_code(
            f"retriever = ImageRetriever(model={self.model!r}).fit(paths)",
            f"retriever.search({self.sentence!r})",
        )
        collection, task = self.data.collection, self.data.task
        labels = [task.labels_of(row) for row in range(len(collection))]
        with self._measured("nearest") as entry:
            retriever = ImageRetriever(embedder=self.embedder).fit(
                collection.paths, metadata={"labels": labels}
            )
            hits = retriever.search(self.sentence, len(collection))
        # Cosines of SigLIP are small, so they are compared with those of all images.
        scores = hits["score"]
        hits["similarity"] = (scores - scores.mean()) / scores.std()
        nearest = hits.head(_NEAREST)
        names = collection.names
        entry["sentence"] = self.sentence
        entry["images"] = [
            {"path": names[row.id], "similarity": row.similarity, "labels": row.labels}
            for row in nearest.itertuples()
        ]
        rows = [
            [one["path"], f"{one['similarity']:+.1f}", one["labels"]]
            for one in entry["images"][:_SHOWN]
        ]
        show_table(["Nearest image", "Similarity", "Its labels"], rows)
        say("Similarity: standard deviations above the mean of all images.")
        truth = task.truth() == 1
        shares = pd.DataFrame(
            {"nearest": truth[nearest["id"]].mean(axis=0), "all": truth.mean(axis=0)},
            index=list(task.names),
        ).sort_values("nearest", ascending=False)
        entry["shares"] = shares.to_dict("index")
        rows = [
            [row.Index, f"{row.nearest:.0%}", f"{row.all:.0%}"]
            for row in shares.head(_SHOWN).itertuples()
        ]
        show_table(["Label", f"The {len(nearest)} nearest", "All images"], rows)
        return nearest

    def _save_and_reload(self, head: Any) -> None:
        heading("6. Save the pipeline and use it in a new process")
        file, out = self.out / "pipeline.joblib", self.out / "predictions.csv"
        command = ["predict", file.name, "test.csv", "--out", out.name]
        show_code(f"sk-medsiglip {' '.join(command)}")
        store = self.embedder.cache.location  # type: ignore[union-attr]
        with self._measured("saved") as entry:
            n_bytes = save_pipeline(clone(self.embedder), head, file)
            done = subprocess.run(
                [sys.executable, "-m", "sk_medsiglip.cli", *command]
                + ["--cache", str(store), "--device", str(self.embedder.device)],
                cwd=self.out,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise CommandError(f"A new process failed: {done.stderr.strip()[-500:]}")
        here = np.asarray(head.predict_proba(self.X_test))
        there = pd.read_csv(out).iloc[:, 1 : 1 + here.shape[1]].to_numpy(float)
        difference = float(np.abs(there - here).max())
        entry |= {"bytes": n_bytes, "max_difference": difference}
        say(
            f"{file.name}: {format_bytes(n_bytes)}, with embedder and head, and with "
            "the name of the model instead of its weights."
        )
        same = difference < 1e-5  # the file has six digits
        say(
            f"A new process predicts {'the same' if same else 'DIFFERENT'} values for "
            f"{len(here):,} images in {entry['seconds']:.1f} s, including imports, "
            f"with {entry['passes']:,} model passes.",
            None if same else "bold red",
        )

    def _report(
        self,
        prompts: ZeroShotClassifier,
        head: Any,
        curve: pd.DataFrame,
        nearest: pd.DataFrame,
    ) -> None:
        heading("7. Report on the held-out patients, with sk-medsiglip report or with")
        show_code("write_report('report.html', {'labels': pipe}, paths, y)")
        task = self.data.task
        picture = self.out / "overview.png"
        try:
            hits = nearest.head(_SHOWN).assign(score=nearest["similarity"])
            draw_overview(curve, hits, self.sentence, self.notice, picture)
            write_report(
                self.out / "report.html",
                {"labels": head, "prompts": prompts},
                self.X_test,
                self.test.y,
                groups=self.test.groups,
                X_train=self.X_train,
                y_train=self.train.y,
                groups_train=self.train.groups,
                pos_label=task.names[0] if task.kind == "finding" else None,
                embedder=self.embedder,
                n_bootstrap=500,
            )
        except MissingDependencyError as error:
            complain(f"The figure and the report were left out: {error}", "yellow")
        self.results["picture"] = picture.name if picture.exists() else None

    def _print_summary(self) -> None:
        """Print the AUC, model passes and seconds of every step."""
        heading("Results")
        steps = {
            "first": f"Embed {self.results['n_images']:,} images, first time",
            "second": "Embed them again",
            "zero_shot": "Zero-shot, no labels",
            "logistic": f"A head, {len(self.X_train):,} labels",
            "few_labels": "Heads on few labels",
            "nearest": "Search by a sentence",
            "saved": "Save, load, predict in a new process",
        }
        rows = []
        for key, step in steps.items():
            entry = self.results[key]
            auc = f"{entry['auc']:.3f}" if "auc" in entry else ""
            rows.append([step, auc, f"{entry['passes']:,}", f"{entry['seconds']:.2f}"])
        show_table(["Step", "AUC", "Model passes", "Seconds"], rows)
        say(
            "AUC: macro average on held-out images. Model passes count images; each "
            "prompt or sentence needs one additional short pass, once."
        )

    @contextmanager
    def _measured(self, step: str) -> Iterator[dict[str, Any]]:
        """Record seconds and model passes of a step under its name."""
        entry: dict[str, Any] = {}
        cache: Any = self.embedder.cache
        before, start = count_passes(cache), time.perf_counter()
        yield entry
        entry["seconds"] = time.perf_counter() - start
        images, texts = (count_passes(cache) - before).tolist()
        entry |= {"passes": images, "texts": texts}
        self.results[step] = entry

    def _held_out(self, classifier: Any) -> dict[str, Any]:
        """Return the AUC of each label on the held-out images, and their mean."""
        scores = label_scores(self.data.task, classifier, self.X_test)
        aucs = judge(self.test, scores).set_index("label")["value"].dropna()
        aucs = aucs.drop(["macro", "micro"], errors="ignore")
        return {"auc": float(aucs.mean()), "aucs": aucs.to_dict()}


def _answer(points: list[dict[str, Any]], prompts: float) -> str:
    """Return a sentence on the number of labels that beat the prompts."""
    beaten = None
    for point in reversed(points):  # all larger numbers must beat them too
        if point["auc"] <= prompts:
            break
        beaten = point
    first = points[-1] if beaten is None else beaten
    said = "About {:,}" if beaten is not None else "Not even all {:,}"
    return (
        f"{said.format(first['n_labels'])} labels beat the prompts here: an AUC of "
        f"{first['auc']:.3f} against {prompts:.3f}."
    )
