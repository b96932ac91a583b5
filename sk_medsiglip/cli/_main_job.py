"""The main job, step by step: images in, cached embeddings, heads, a saved pipeline.

Every step prints what it does, the Python that does the same, how long it took and how
many images met the model. The numbers end up in ``results.json`` too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.cli._cache import format_bytes
from sk_medsiglip.cli._collection import Collection
from sk_medsiglip.cli._console import (
    bar,
    complain,
    console,
    heading,
    make_table,
    model_notice,
    say,
    show_code,
)
from sk_medsiglip.cli._embedding import Passes, embed_images
from sk_medsiglip.cli._examples import held_out_examples, nearest_examples
from sk_medsiglip.cli._few_labels import FEW, few_labels_auc, possible_sizes
from sk_medsiglip.cli._labels import Task
from sk_medsiglip.cli._plot import Overview, draw_overview
from sk_medsiglip.cli._result_tables import (
    print_aucs,
    print_few_labels,
    print_summary,
)
from sk_medsiglip.cli._saved_pipeline import predict_in_new_process, save_pipeline
from sk_medsiglip.cli._splits import Split, split_patients
from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPTextEmbedder
from sk_medsiglip.encoder import load_encoder
from sk_medsiglip.exceptions import MissingDependencyError
from sk_medsiglip.zero_shot import ZeroShotClassifier

__all__ = ["MainJob"]

_C = np.logspace(-5, 1, 10)
_DRAWS = 6
_NEAREST = 3


@dataclass
class MainJob:
    """The main job on one labelled collection.

    Parameters
    ----------
    collection : Collection
        Labelled images.
    task : Task
        What is to be told apart.
    groups : ndarray or None
        Patient of each image.
    prompts : dict
        Of the zero-shot classifier.
    sentence : str
        To search images by.
    out : pathlib.Path
        Where results go.
    cache : EmbeddingCache
        Where embeddings go.
    model, resize, pad, device, n_jobs, seed
        As on the command line.

    Attributes
    ----------
    results : dict
        What ``results.json`` will hold.
    """

    collection: Collection
    task: Task
    groups: NDArray[Any] | None
    prompts: dict[str, Any]
    sentence: str
    out: Path
    cache: EmbeddingCache
    model: str
    resize: str = "medsiglip"
    pad: bool = False
    device: str = "auto"
    n_jobs: int | None = None
    seed: int = 0
    results: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Do every step; return the results."""
        X = self._embed_twice()
        self._split = self._split_patients()
        zero_shot = self._classify_zero_shot(X)
        search = self._search_head(X)
        curve = self._compare_few_labels(X)
        nearest = self._find_nearest(X)
        self._save_and_reload(search.best_estimator_)
        self._draw(zero_shot, curve, nearest)
        print_summary(self.results)
        file = self.out / "results.json"
        file.write_text(json.dumps(self.results, indent=2) + "\n", "utf-8")
        return self.results

    # ---------------------------------------------------------------------- the steps

    def _embed_twice(self) -> NDArray[np.float32]:
        heading("1. Embed: every image meets the model once")
        show_code(
            f"embedder = MedSigLIPEmbedder({_shown(self.model)!r})",
            "X = embedder.fit_transform(paths)",
        )
        start = time.perf_counter()
        encoder = load_encoder(self.model, device=self.device)
        say(
            f"Model {_shown(self.model)} loaded on {encoder.device}, {encoder.dtype}, "
            f"in {time.perf_counter() - start:.1f} s."
        )
        embedder = self._embedder(verbose=bar(), on_error="nan")
        first = embed_images(self.collection.paths, embedder)
        if not first.readable.all():
            self._leave_out(~first.readable)
        X = first.X[first.readable]
        again = embed_images(self.collection.paths, self._embedder())
        n_images = len(self.collection)
        say(
            f"First time:  {n_images:,} images, {first.passes:,} model passes, "
            f"{first.seconds:.2f} s ({n_images / first.seconds:,.0f} images/s)."
        )
        say(
            f"Second time: {n_images:,} images, {again.passes:,} model passes, "
            f"{again.seconds:.3f} s: the rows come from the cache."
        )
        self.results |= {
            "model": self.model,
            "notice": model_notice(self.model),
            "revision": encoder.revision,
            "n_images": n_images,
            "embedding_dim": X.shape[1],
            "first": {"passes": first.passes, "seconds": first.seconds},
            "second": {"passes": again.passes, "seconds": again.seconds},
        }
        return X

    def _leave_out(self, unreadable: NDArray[np.bool_]) -> None:
        say(
            f"{unreadable.sum():,} images cannot be read and are left out of "
            "everything below.",
            "yellow",
        )
        keep = ~unreadable
        self.collection = self.collection.keep(keep)
        self.task = self.task.rows(np.flatnonzero(keep))
        if self.groups is not None:
            self.groups = self.groups[keep]

    def _split_patients(self) -> Split:
        split = split_patients(self.task, self.groups, self.seed)
        if self.groups is None:
            of_whom = "images"
            say(
                "No --group-column: every image counts as a patient of its own. If "
                "patients have several images, the figures below are too good.",
                "yellow",
            )
        else:
            n_train, n_test = (
                len(np.unique(self.groups[rows])) for rows in (split.train, split.test)
            )
            of_whom = (
                f"images of {n_test:,} patients ({n_train:,} others to learn from)"
            )
        say(
            f"Held out for every comparison below: {len(split.test):,} {of_whom}; "
            f"{len(split.train):,} images to learn from."
        )
        return split

    def _classify_zero_shot(self, X: NDArray[np.float32]) -> NDArray[np.floating]:
        heading("2. Zero-shot: prompts instead of labels")
        show_code(
            f"zero_shot = ZeroShotClassifier(prompts, model={_shown(self.model)!r})",
            "zero_shot.fit(X).predict_proba(X)",
        )
        with self._measured("zero_shot") as entry:
            classifier = ZeroShotClassifier(
                self.prompts, model=self.model, device=self.device, cache=self.cache
            ).fit(X)
            scores = self.task.scores(classifier, X)
        entry |= self._aucs(scores[self._split.test])
        say(_example_of(self.prompts))
        say(
            f"Macro AUC on held-out images: {entry['auc']:.3f}, without a single label "
            f"({entry['texts']:,} prompts and {entry['passes']:,} images through the "
            "model)."
        )
        return scores

    def _search_head(self, X: NDArray[np.float32]) -> GridSearchCV:
        folds = self._split.folds
        by = "stratified" if self.groups is None else "grouped by patient"
        heading(f"3. A logistic head: GridSearchCV, {len(folds)} folds {by}")
        pipeline, parameter = self._pipeline()
        show_code(
            "pipe = make_pipeline(embedder, StandardScaler(), "
            + (
                "OneVsRestClassifier(LogisticRegression()))"
                if self.task.kind == "findings"
                else "LogisticRegression())"
            ),
            f"GridSearchCV(pipe, {{{parameter!r}: C}}, cv=folds).fit(paths, y)",
        )
        train = self._split.train
        paths = [self.collection.paths[row] for row in train]
        of_train = self.task.rows(train)
        with self._measured("logistic") as entry, _one_blas_thread():
            search = GridSearchCV(
                pipeline,
                {parameter: _C},
                scoring=of_train.macro_auc,
                cv=folds,
                n_jobs=self.n_jobs,
                error_score="raise",
            ).fit(paths, of_train.y)
        # The held-out rows are those of X: the same pipeline on the same store.
        entry |= self._aucs(
            self.task.scores(search.best_estimator_[1:], X[self._split.test])
        )
        n_fits = len(_C) * len(folds)
        without = (n_fits + 1) * len(paths)
        entry |= {
            "folds": len(folds),
            "fits": n_fits + 1,
            "n_labels": len(paths),
            "cv_auc": float(search.best_score_),
            "C": float(search.best_params_[parameter]),
            "passes_without_cache": without,
        }
        say(
            f"{len(_C)} values of C x {len(folds)} folds + 1 refit = {n_fits + 1} "
            f"fits of the whole pipeline, from files, in {entry['seconds']:.1f} s: "
            f"{entry['passes']:,} model passes (without the cache: {without:,})."
        )
        say(
            f"Best C {entry['C']:.2g}. Macro AUC: {entry['cv_auc']:.3f} in "
            f"cross-validation, {entry['auc']:.3f} on held-out images."
        )
        print_aucs(self.results, self.task, self._split.test)
        return search

    def _compare_few_labels(
        self, X: NDArray[np.float32]
    ) -> list[tuple[int, float, float]]:
        heading("4. How many labels beat the prompts?")
        show_code(
            "head = make_pipeline(StandardScaler(), LogisticRegression())",
            "head.fit(X[few], y[few]).predict_proba(X[held_out])",
        )
        train, test = self._split.train, self._split.test
        of_train, of_test = self.task.rows(train), self.task.rows(test)
        sizes = possible_sizes(of_train)
        curve = []
        with self._measured("few_labels") as entry, _one_blas_thread():
            for size in sizes:
                aucs = few_labels_auc(
                    X[train],
                    of_train,
                    X[test],
                    of_test,
                    n_labels=size,
                    n_draws=_DRAWS,
                    seed=self.seed,
                )
                curve.append((size, float(np.mean(aucs)), float(np.std(aucs))))
        entry["curve"] = [
            {"n_labels": size, "auc": mean, "std": spread}
            for size, mean, spread in curve
        ]
        skipped = sorted(set(FEW) - set(sizes))
        if skipped:
            say(
                f"Left out: {', '.join(map(str, skipped))} labels; there are "
                f"{len(train):,} images to draw from, and each class must be among "
                "those drawn.",
                "yellow",
            )
        print_few_labels(self.results)
        say(
            f"Macro AUC on held-out images, mean of {_DRAWS} random draws; "
            f"{entry['passes']:,} model passes."
        )
        logistic = self.results["logistic"]
        return [*curve, (logistic["n_labels"], logistic["auc"], 0.0)]

    def _find_nearest(self, X: NDArray[np.float32]) -> list[tuple[int, float]]:
        heading("5. Search images by a sentence")
        show_code(
            f"sentence = {_abbreviate(self.sentence)}",
            f"texts = MedSigLIPTextEmbedder({_shown(self.model)!r})",
            "cosine_similarity(texts.transform([sentence]), X)",
        )
        with self._measured("nearest") as entry:
            query = MedSigLIPTextEmbedder(
                self.model, device=self.device, cache=self.cache
            ).transform([self.sentence])
            cosines = cosine_similarity(query, X)[0]
            best = np.argsort(-cosines, kind="stable")[:_NEAREST]
        table = make_table("Nearest image", "Cosine", "Its labels")
        names = self.collection.names
        for row in best:
            table.add_row(names[row], f"{cosines[row]:.3f}", self.task.labels_of(row))
        console.print(table)
        say("SigLIP's cosines are small, often negative; their order is what counts.")
        entry["sentence"] = self.sentence
        entry["images"] = [
            {
                "path": names[row],
                "cosine": float(cosines[row]),
                "labels": self.task.labels_of(row),
            }
            for row in best
        ]
        return [(int(row), float(cosines[row])) for row in best]

    def _save_and_reload(self, pipeline: Pipeline) -> None:
        heading("6. Save the pipeline, load it in a new process")
        file = self.out / "pipeline.joblib"
        show_code(
            f"joblib.dump(search.best_estimator_, {file.name!r})",
            f"joblib.load({file.name!r}).predict_proba(paths)   # in a new Python",
        )
        paths = [self.collection.paths[row] for row in self._split.test]
        here = np.asarray(pipeline.predict_proba(paths))
        with self._measured("saved") as entry:
            n_bytes = save_pipeline(pipeline, file)
            there = predict_in_new_process(file, paths)
        difference = float(np.abs(there.probabilities - here).max())
        entry |= {"bytes": n_bytes, "max_difference": difference}
        say(
            f"{file.name}: {format_bytes(n_bytes)}, embedder and head; it names the "
            "model and holds none of its weights."
        )
        same = "the same" if difference < 1e-6 else "DIFFERENT"
        say(
            f"A new process predicts {same} for {len(paths):,} images (largest "
            f"difference {difference:.1g}) in {there.seconds:.1f} s, imports included: "
            f"{entry['passes']:,} model passes.",
            None if same == "the same" else "bold red",
        )

    def _draw(
        self,
        scores: NDArray[np.floating],
        curve: list[tuple[int, float, float]],
        nearest: list[tuple[int, float]],
    ) -> None:
        file = self.out / "overview.png"
        picture = Overview(
            names=self.task.names,
            examples=held_out_examples(
                self.collection.paths, self.task, self._split.test, scores
            ),
            zero_shot_auc=self.results["zero_shot"]["auc"],
            curve=curve,
            sentence=self.sentence,
            nearest=nearest_examples(self.collection.paths, self.task, nearest),
            notice=model_notice(self.model),
            title=f"sk_medsiglip: {len(self.collection):,} images, "
            f'model "{_shown(self.model)}"',
        )
        try:
            draw_overview(picture, file)
        except MissingDependencyError as error:
            complain(f"No picture: {error}", "yellow")
            self.results["picture"] = None
        else:
            self.results["picture"] = file.name

    # -------------------------------------------------------------------- their pieces

    def _embedder(self, **parameters: Any) -> MedSigLIPEmbedder:
        return MedSigLIPEmbedder(
            self.model,
            resize=self.resize,
            pad=self.pad,
            device=self.device,
            n_jobs=self.n_jobs,
            cache=self.cache,
            **parameters,
        )

    def _pipeline(self) -> tuple[Pipeline, str]:
        """Return the unfitted pipeline and the name of its parameter C."""
        head = LogisticRegression(max_iter=1000)
        if self.task.kind == "findings":
            head, parameter = (
                OneVsRestClassifier(head),
                "onevsrestclassifier__estimator__C",
            )
        else:
            parameter = "logisticregression__C"
        return make_pipeline(self._embedder(), StandardScaler(), head), parameter

    @contextmanager
    def _measured(self, step: str) -> Iterator[dict[str, Any]]:
        """Note seconds and model passes of a step under its name."""
        entry: dict[str, Any] = {}
        before, start = Passes.so_far(self.cache), time.perf_counter()
        yield entry
        entry["seconds"] = time.perf_counter() - start
        passes = Passes.so_far(self.cache) - before
        entry |= {"passes": passes.images, "texts": passes.texts}
        self.results[step] = entry

    def _aucs(self, scores: NDArray[np.floating]) -> dict[str, Any]:
        aucs = self.task.rows(self._split.test).aucs(scores)
        return {"auc": float(np.mean(list(aucs.values()))), "aucs": aucs}


def _one_blas_thread() -> threadpool_limits:
    """Keep BLAS to one thread: these matrices are small.

    On a machine that is busy with something else, threads wait for each other for most
    of the time of such a fit.
    """
    return threadpool_limits(1, user_api="blas")


def _abbreviate(value: Any) -> str:
    """Return a literal for a line of code, cut to fit a terminal."""
    text = repr(value)
    return text if len(text) <= 56 else f"{text[:53]}..."


def _example_of(prompts: dict[str, Any]) -> str:
    """Return one finding's prompts, or two classes' prompts, as a sentence."""
    named = list(prompts.items())
    if isinstance(named[0][1], dict):
        name, pair = named[0]
        texts = [pair["positive"], pair["negative"]]
    else:
        name = " or ".join(name for name, _ in named[:2])
        texts = [value for _, value in named[:2]]
    first, second = (text if isinstance(text, str) else text[0] for text in texts)
    return f'Prompts of {name}, for example: "{first}" against "{second}".'


def _shown(model: str) -> str:
    """Return a model's name; of a folder the last part, its path may be long."""
    return Path(model).name if Path(model).is_absolute() else model
