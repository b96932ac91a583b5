"""``prompt_heatmap``: similarity of the patches of an image to a prompt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from sk_medsiglip.embedding import (
    MedSigLIPEmbedder,
    MedSigLIPTextEmbedder,
    find_facts,
    prepare_image,
)
from sk_medsiglip.encoder import load_encoder, score_patches
from sk_medsiglip.exceptions import CheckpointError
from sk_medsiglip.images import image_rows
from sk_medsiglip.prompts import check_texts, encode_class_vectors


def prompt_heatmap(
    image: Any,
    prompt: str | Sequence[str],
    *,
    negative: str | Sequence[str] | None = None,
    method: str = "value",
    model: str | os.PathLike[str] = "google/medsiglip-448",
    **embedder_params: Any,
) -> NDArray[np.float32]:
    """Compute the similarity of each patch of an image to a prompt.

    The map is a hint at the basis of a score, and not a localisation: the model was
    trained on whole images, without the positions of findings.

    Parameters
    ----------
    image : path, bytes, file object, PIL image or array
        One image, as in :meth:`MedSigLIPEmbedder.transform`.
    prompt : str or list of str
        Text to look for. Several prompts are normalised and averaged, like those of a
        class.
    negative : str or list of str, default=None
        Text to contrast with, such as ``"no pleural effusion"``. The map is then the
        difference of the two, and a patch with 0 is equally similar to both. Without
        it only patches of this image can be compared, and some patch is the highest
        even in an image without the finding.
    method : {"value", "legrad"}, default="value"
        Method of the map. "value" is the cosine of prompt and patch, as if the head
        attended to this patch only [1]_. "legrad" is the growth of the image's score
        with the attention of the head to the patch, over the last two layers [2]_; it
        is never negative and has no unit. If the two disagree, trust neither.
    model : str or path-like, default="google/medsiglip-448"
        Model, as in :class:`~sk_medsiglip.MedSigLIPEmbedder`.
    **embedder_params
        Further parameters of :class:`~sk_medsiglip.MedSigLIPEmbedder`: ``revision``,
        ``resize``, ``pad``, ``intensity``, ``frame``, ``dtype``, ``device``, ``cache``.
        Maps are always computed by torch, since other engines do not give access to the
        layers. Vectors of prompts are stored, but maps are not.

    Returns
    -------
    ndarray of shape (grid, grid), float32
        One number per patch, (32, 32) for MedSigLIP and (8, 8) for the demonstration
        checkpoint. The first row is the top. The patches divide the square input of the
        model, including padding.

    Raises
    ------
    PromptError
        If a prompt is empty.
    ImageReadError
        If the image cannot be read, or has several frames and ``frame`` is None.
    ValueError
        If a parameter is invalid.
    ModelAccessError, CheckpointError
        If the model cannot be loaded.

    See Also
    --------
    HeatmapDisplay : Draw the map over the image.

    Notes
    -----
    The cost is one model pass of the image, even if its embedding is stored, plus 3 to
    12%. The attention of lower layers mixes patches, so a value does not depend on the
    pixels of its patch alone.

    On phantoms with known findings "value" was the best of six methods (see
    ``docs/heatmaps.md``). The maps of MedSigLIP have not been evaluated.

    References
    ----------
    .. [1] Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022.
    .. [2] Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers
       via Feature Formation Sensitivity", ICCV 2025.

    Examples
    --------
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> from sk_medsiglip.zero_shot import prompt_heatmap
    >>> image = make_chest_phantoms(1, random_state=0).images[0]
    >>> heatmap = prompt_heatmap(
    ...     image,
    ...     "pleural effusion",
    ...     negative="no pleural effusion",
    ...     model="demo",
    ... )
    >>> heatmap.shape, heatmap.dtype
    ((8, 8), dtype('float32'))
    """
    embedder = MedSigLIPEmbedder(model, **embedder_params)
    embedder._validate_params()
    groups = [check_texts(prompt, "prompt")]
    if negative is not None:
        groups.append(check_texts(negative, "negative"))
    shared = ("revision", "dtype", "device", "cache")
    texts = MedSigLIPTextEmbedder(
        model, **{name: getattr(embedder, name) for name in shared}
    )
    vectors = encode_class_vectors(groups, texts)
    wanted = vectors[0] if negative is None else vectors[0] - vectors[1]
    return heatmap_of(embedder, image, wanted, method)


def heatmap_of(
    embedder: MedSigLIPEmbedder, image: Any, text: NDArray[np.floating], method: str
) -> NDArray[np.float32]:
    """Return the map of an image for a text vector, read as an embedder reads it."""
    facts = find_facts(embedder.model, embedder.revision, embedder.cache)
    fitted = getattr(embedder, "revision_", facts.revision)
    if fitted != facts.revision:
        raise CheckpointError(
            f"the embedder was fitted with {embedder.model!r} at {fitted}, which is "
            f"now {facts.revision}: fit again, or restore the former weights."
        )
    pixels = prepare_image(embedder, facts, image_rows([image])[0])
    encoder = load_encoder(
        embedder.model,
        facts.revision,
        device=embedder.device,
        dtype=embedder.dtype,
        engine="torch",
    )
    return score_patches(encoder, pixels[None], text[None], method=method)[0, 0]


def map_on_image(
    heatmap: NDArray[np.floating], rows: NDArray[Any], columns: NDArray[Any], side: Any
) -> NDArray[np.float32]:
    """Interpolate a map between the centres of its patches."""
    values = np.asarray(heatmap, dtype=np.float32)
    places = [
        np.asarray(along) * (n / length) - 0.5
        for along, n, length in zip((rows, columns), values.shape, side, strict=True)
    ]
    at = np.meshgrid(*places, indexing="ij")
    return map_coordinates(values, at, order=1, mode="nearest")
