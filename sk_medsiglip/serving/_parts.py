"""A fitted classifier of images, taken apart: its embedder, and what follows it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPPatchEmbedder

ImageEmbedder = MedSigLIPEmbedder | MedSigLIPPatchEmbedder


def split_classifier(classifier: Any) -> tuple[ImageEmbedder, Any]:
    """Return the embedder of a fitted classifier of images, and a classifier of rows.

    Meta-estimators around the pipeline, such as ``ConformalZeroShot``, stay around what
    remains of it.
    """
    if isinstance(classifier, Pipeline):
        steps = [step for step in classifier.steps if step[1] != "passthrough"]
        if isinstance(steps[0][1], ImageEmbedder) and len(steps) > 1:
            # An embedder does not need to be fitted to transform.
            check_is_fitted(steps[0][1], "revision_")
            check_is_fitted(steps[-1][1])
            return steps[0][1], Pipeline(steps[1:])
    elif name := _name_of_inner(classifier):
        embedder, rest = split_classifier(vars(classifier)[name])
        around = copy.copy(classifier)
        setattr(around, name, rest)
        return embedder, around
    raise TypeError(
        "the classifier must be a fitted pipeline from images to classes, one that "
        "begins with a MedSigLIPEmbedder or MedSigLIPPatchEmbedder and goes on with a "
        f"classifier; got {type(classifier).__name__}. Make one with make_pipeline("
        "MedSigLIPEmbedder(), LinearProbe()), or on the command line with: "
        "sk-medsiglip train"
    )


def iter_layers(
    classifier: Any, before: tuple[Any, ...] = ()
) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield a classifier and all that is in it, each with the steps that lead to it."""
    yield classifier, before
    if isinstance(classifier, Pipeline):
        steps = [step for _, step in classifier.steps if step != "passthrough"]
        for i, step in enumerate(steps):
            yield from iter_layers(step, (*before, *steps[:i]))
    elif name := _name_of_inner(classifier):
        yield from iter_layers(vars(classifier)[name], before)


def image_embedder(embedder: ImageEmbedder) -> MedSigLIPEmbedder:
    """Return the embedder that reads the images."""
    if isinstance(embedder, MedSigLIPPatchEmbedder):
        return embedder.embedder_
    return embedder


def _name_of_inner(estimator: Any) -> str | None:
    """Return the attribute in which a meta-estimator keeps what it has fitted."""
    names = ["best_estimator_", "estimator_"]
    if isinstance(estimator, FrozenEstimator):
        names = ["estimator"]
    held = vars(estimator)
    # A forest's ``estimator_`` is a mere template of its trees.
    return next((name for name in names if hasattr(held.get(name), "classes_")), None)
