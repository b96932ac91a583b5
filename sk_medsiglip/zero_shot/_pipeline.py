"""``make_zero_shot_pipeline``: a zero-shot classifier for images."""

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
    """Make a pipeline of an image embedder and a zero-shot classifier.

    Parameters
    ----------
    prompts, templates, scoring, ensemble, ordinal, calibrate, prevalence
        Parameters of :class:`ZeroShotClassifier`.
    grid : int or None, default=None
        Number of cells along a side of the image, as in
        :class:`~sk_medsiglip.MedSigLIPPatchEmbedder`. Prompts then score each cell
        separately, for findings that are too small for a vector of the whole image. By
        default, there is one vector per image.
    aggregate, top_k
        Pooling of the scores of cells, as in :class:`ZeroShotClassifier`, without
        effect without ``grid``.
    model, revision, dtype, device, engine, cache, verbose
        Parameters of both steps.
    **embedder_params
        Further parameters of :class:`~sk_medsiglip.MedSigLIPEmbedder`, such as
        ``resize``, ``intensity`` and ``n_jobs``. ``on_error="nan"`` is not possible,
        since unreadable images cannot be classified; leave them out first, with
        :func:`~sk_medsiglip.images.check_images`.

    Returns
    -------
    sklearn.pipeline.Pipeline
        Pipeline that takes images. ``fit(X)`` encodes the prompts, and needs labels
        only to calibrate by them. Methods that a Pipeline does not forward, such as
        ``predict_grade``, are called as
        ``pipe[-1].predict_grade(pipe[:-1].transform(X))``.

    Raises
    ------
    ValueError
        If ``on_error`` is "nan".

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
            "on_error='nan' leaves rows that cannot be classified; leave unreadable "
            "images out first with check_images(X)."
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
