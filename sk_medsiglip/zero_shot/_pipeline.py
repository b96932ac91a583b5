"""``make_zero_shot_pipeline``: a zero-shot classifier of images."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from sklearn.pipeline import Pipeline, make_pipeline

from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding import MedSigLIPEmbedder, MedSigLIPPatchEmbedder
from sk_medsiglip.zero_shot._classifier import ZeroShotClassifier


def make_zero_shot_pipeline(
    prompts: Mapping[Any, Any],
    *,
    templates: str | Sequence[str] | Mapping[Any, Any] | None = None,
    model: str | os.PathLike[str] = "google/medsiglip-448",
    revision: str | None = None,
    scoring: str = "softmax",
    ensemble: str = "embeddings",
    ordinal: bool = False,
    calibrate: str | None = None,
    prevalence: float | Mapping[Any, float] | None = None,
    grid: int | None = None,
    aggregate: str | Mapping[Any, str] = "max",
    top_k: int = 5,
    dtype: str = "auto",
    device: str = "auto",
    engine: str = "auto",
    cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
    verbose: int | bool = 0,
    **embedder_params: Any,
) -> Pipeline:
    """Join an image embedder and a zero-shot classifier of the same model.

    Parameters
    ----------
    prompts, templates, scoring, ensemble, ordinal, calibrate, prevalence
        As in :class:`ZeroShotClassifier`.
    grid : int or None, default=None
        Cells along a side of the image, as in
        :class:`~sk_medsiglip.MedSigLIPPatchEmbedder`: prompts then score each cell by
        itself, for findings that one vector of the whole image loses. None is one
        vector an image.
    aggregate, top_k
        How the scores of the cells become one, as in :class:`ZeroShotClassifier`;
        without effect without ``grid``.
    model, revision, dtype, device, engine, cache, verbose
        Parameters of both.
    **embedder_params
        Further parameters of :class:`~sk_medsiglip.MedSigLIPEmbedder`: ``resize``,
        ``intensity``, ``n_jobs``, ... Not ``on_error="nan"``: a classifier has no
        class for an image that it cannot see, so leave such images out first, with
        :func:`~sk_medsiglip.images.check_images`.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Takes images. ``fit(X)`` encodes the prompts; it needs labels only to
        calibrate by them. ``pipe[-1]`` has the methods that a Pipeline does not pass
        on, such as ``predict_grade``; ``pipe[:-1]`` gives what they take.

    Examples
    --------
    >>> from sk_medsiglip import make_zero_shot_pipeline
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> images = make_chest_phantoms(4, random_state=0).images
    >>> pipe = make_zero_shot_pipeline(
    ...     {"effusion": "pleural effusion", "normal": "normal chest X-ray"},
    ...     model="demo",
    ... )
    >>> pipe.fit(images).predict(images).shape
    (4,)
    """
    if embedder_params.get("on_error") == "nan":
        raise ValueError(
            "on_error='nan' leaves rows that no classifier has a class for; leave such "
            "images out first: check_images(X)."
        )
    shared: dict[str, Any] = {
        "model": model,
        "revision": revision,
        "dtype": dtype,
        "device": device,
        "engine": engine,
        "cache": cache,
        "verbose": verbose,
    }
    embedder: Any = MedSigLIPEmbedder(**shared, **embedder_params)
    if grid is not None:
        embedder = MedSigLIPPatchEmbedder(embedder, grid=grid, verbose=verbose)
    return make_pipeline(
        embedder,
        ZeroShotClassifier(
            prompts,
            templates=templates,
            scoring=scoring,
            ensemble=ensemble,
            ordinal=ordinal,
            calibrate=calibrate,
            prevalence=prevalence,
            aggregate=aggregate,
            top_k=top_k,
            **shared,
        ),
    )
