"""Maps of an image or of the slices of a study by a fitted pipeline."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from sk_medsiglip._labels import finding_names
from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    MedSigLIPVolumeEmbedder,
    plain_rows,
)
from sk_medsiglip.images import read_study
from sk_medsiglip.zero_shot._classifier import ZeroShotClassifier
from sk_medsiglip.zero_shot._heatmap import heatmap_of
from sk_medsiglip.zero_shot._heatmap_parts import as_grid
from sk_medsiglip.zero_shot._prompt_search import PromptSearchCV


class PipelineMap(NamedTuple):
    """Map of an image, its class or finding, and the embedder of the image."""

    heatmap: NDArray[np.floating]
    label: Any
    embedder: MedSigLIPEmbedder
    relative: bool  # whether 0 has no meaning


def map_by_pipeline(
    estimator: Any, source: Any, label: Any, method: str
) -> PipelineMap:
    """Return the map of an image for a label, by default the most likely one."""
    steps = _steps(estimator)
    match steps:
        case [MedSigLIPEmbedder() as embedder, ZeroShotClassifier() as classifier]:
            return _map_by_prompts(embedder, classifier, source, label, method)
        case [MedSigLIPEmbedder() as embedder, PromptSearchCV() as search]:
            check_is_fitted(search)
            best = search.best_estimator_
            return _map_by_prompts(embedder, best, source, label, method)
        case [patches, head] if hasattr(patches, "grid") and (
            hasattr(head, "instance_scores")
        ):
            return _map_by_cells(patches, head, source, label)
    kinds = [type(step).__name__ for step in steps] or type(estimator).__name__
    raise TypeError(
        "A heatmap needs a pipeline of a MedSigLIPEmbedder and a ZeroShotClassifier, "
        "or of a MedSigLIPPatchEmbedder and an estimator with instance_scores; got "
        f"{kinds}. Use make_zero_shot_pipeline(prompts).fit(images), or for other "
        "models HeatmapDisplay.from_prompt(image, prompt)."
    )


def _map_by_prompts(
    embedder: MedSigLIPEmbedder,
    classifier: ZeroShotClassifier,
    source: Any,
    label: Any,
    method: str,
) -> PipelineMap:
    """Return the map of a class vector, or of present minus absent."""
    check_is_fitted(classifier)
    findings = getattr(classifier, "findings_", None)
    labels = np.asarray(classifier.classes_ if findings is None else findings)
    image: NDArray[Any] | None = None
    if classifier.ensemble == "max" or (label is None and len(labels) > 1):
        image = plain_rows(embedder, [source])
    if label is None:
        label = _likeliest(classifier, image, labels)
    place = _place(label, labels)
    vectors = classifier.class_embeddings_.reshape(-1, classifier.n_features_in_)
    if classifier._starts is not None and image is not None:
        of_answers = np.split(classifier.prompt_embeddings_, classifier._starts[1:])
        vectors = np.stack([own[np.argmax(own @ image[0])] for own in of_answers])
    if findings is None:
        wanted = vectors[place]
    else:
        absent, present = vectors.reshape(len(labels), 2, -1)[place]
        wanted = present - absent
    heatmap = heatmap_of(embedder, source, wanted, method)
    relative = findings is None or method != "value"
    return PipelineMap(heatmap, label, embedder, relative)


def _map_by_cells(patches: Any, head: Any, source: Any, label: Any) -> PipelineMap:
    """Return the scores of the cells of an image by a classifier of bags."""
    scores, label, relative = _score_instances(
        head, plain_rows(patches, [source]), label
    )
    embedder = patches.embedder or MedSigLIPEmbedder()
    return PipelineMap(as_grid(scores), label, embedder, relative)


def score_slices(
    estimator: Any, study: Any, label: Any
) -> tuple[list[NDArray[np.uint8]], NDArray[np.floating], bool] | None:
    """Return the slices of a study, their scores, and whether 0 has no meaning.

    None if the pipeline does not make bags of slices.
    """
    match _steps(estimator):
        case [MedSigLIPVolumeEmbedder() as volumes, head] if hasattr(
            head, "instance_scores"
        ):
            bag = plain_rows(volumes, [study])
            scores, _, relative = _score_instances(head, bag, label)
            slices = read_study(
                study,
                n_slices=volumes.n_slices,
                intensity=volumes.embedder.intensity,
                plane=volumes.plane,
                series=volumes.series,
                max_pixels=volumes.embedder.max_pixels,
            )
            return slices, scores, relative
    return None


def _score_instances(
    head: Any, bag: NDArray[Any], label: Any
) -> tuple[NDArray[np.floating], Any, bool]:
    """Return a bag's scores for a label, the label, and whether 0 has no meaning."""
    check_is_fitted(head)
    scores = head.instance_scores(bag)[0]
    names = finding_names(head)
    if names is None:
        classes = np.asarray(head.classes_)
        names = classes if classes.ndim == 1 else np.arange(len(classes))
    if scores.ndim == 1:
        names, scores = np.asarray(names)[-1:], scores[:, None]
    label = _likeliest(head, bag, np.asarray(names)) if label is None else label
    # 0 has a meaning only for present minus absent by prompts.
    by_prompts = isinstance(head, ZeroShotClassifier | PromptSearchCV)
    relative = not (by_prompts and hasattr(head, "findings_"))
    return scores[:, _place(label, np.asarray(names))], label, relative


def _steps(estimator: Any) -> list[Any]:
    """Return the steps of a pipeline, or an empty list for anything else."""
    steps = [step for _, step in getattr(estimator, "steps", ())]
    return [step for step in steps if step not in (None, "passthrough")]


def _likeliest(classifier: Any, X: Any, labels: NDArray[Any]) -> Any:
    """Return the label of one sample with the highest probability."""
    if len(labels) == 1:
        return labels[0]
    return labels[int(np.argmax(classifier.predict_proba(X)[0]))]


def _place(label: Any, labels: NDArray[Any]) -> int:
    listed = labels.tolist()
    if label not in listed:
        raise ValueError(
            f"label={label!r} is unknown to the classifier, which has {listed}."
        )
    return listed.index(label)
