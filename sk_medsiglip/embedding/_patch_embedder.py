"""``MedSigLIPPatchEmbedder``: images to bags of vectors of their parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.utils import Tags

from sk_medsiglip._progress import progress_bar
from sk_medsiglip._validation import Integral, Interval, StrOptions, _fit_context
from sk_medsiglip.cache import STORED_TYPES, EmbeddingCache
from sk_medsiglip.embedding._bag_output import refuse_data_frames
from sk_medsiglip.embedding._embedder import Stateless, plain_rows
from sk_medsiglip.embedding._image_embedder import (
    MedSigLIPEmbedder,
    warn_about_unreadable,
)
from sk_medsiglip.embedding._model_cells import ModelCells, cells_of
from sk_medsiglip.embedding._model_facts import ModelFacts
from sk_medsiglip.embedding._stored_bags import BagForm, StoredBags
from sk_medsiglip.encoder import check_grid
from sk_medsiglip.exceptions import CacheError, ImageReadError
from sk_medsiglip.images import image_rows, validate_intensity

# Largest size in bytes, in float32, of bags that lazy="auto" keeps in memory.
_LARGEST_IN_MEMORY = 2**30

# Size of packed bags that are in memory at a time, in bytes.
_CHUNK = 2**26


class MedSigLIPPatchEmbedder(Stateless):
    """Turn each image into a bag: one MedSigLIP vector for each part of it.

    A single vector of a whole image may lose small findings. This embedder returns a
    vector for each cell of a grid, from the same pass of the model: the result of its
    attention pooling for the patches of that cell alone. The vectors lie in the space
    of texts and whole images.

    Cells are stored on disk like rows of :class:`MedSigLIPEmbedder`, and the pass that
    computes them also stores that row, so that the row needs no further pass.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder or None, default=None
        Embedder that reads images and names the model. Its ``normalize`` scales each
        vector of a bag to unit length. None is ``MedSigLIPEmbedder()``.
    grid : int, default=8
        Number of cells along a side of the image. It must divide the number of patches
        along a side, 32 for MedSigLIP, so that every patch lies in one cell; otherwise
        ``fit`` and ``transform`` raise. ``grid=1`` is the row of the whole image, and
        is stored as such.
    dtype : {"int8", "float16", "float32"}, default="int8"
        Type in which cells are stored: 80, 147 or 295 kB per image at ``grid=8`` and
        the width of MedSigLIP. The vectors returned are always float32, and the same
        whether they were stored or have just been computed. The cosine of a vector with
        its int8 version is at least .9999.
    pooled_row : bool, default=False
        Whether to add the row of the whole image, as returned by
        :class:`MedSigLIPEmbedder`, as the last instance of its bag.
    lazy : bool or "auto", default="auto"
        Whether bags stay in the store until they are indexed. "auto" does so for
        results over 1 GiB (3,600 images at ``grid=8`` and the width of MedSigLIP),
        unless ``cache=False``.
    verbose : int, default=0
        If positive, show a progress bar.

    Attributes
    ----------
    embedder_ : MedSigLIPEmbedder
        Fitted clone of ``embedder``.
    revision_ : str
        Commit or folder digest of the weights at ``fit``. A fitted or loaded embedder
        raises if it finds other weights.

    See Also
    --------
    MedSigLIPEmbedder : One row per image.
    MedSigLIPVolumeEmbedder : The slices of a study, pooled or as a bag.

    Notes
    -----
    Cells add less than 3 % to the model pass of MedSigLIP. A bag cannot be a data
    frame: with ``set_output(transform="pandas")``, or the same setting in
    ``sklearn.set_config``, ``transform`` raises.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [2] Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022: the
       pooling head of a model applied to parts of an image.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPEmbedder, MedSigLIPPatchEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> images = list(make_chest_phantoms(3, random_state=0).images)
    >>> patches = MedSigLIPPatchEmbedder(MedSigLIPEmbedder("demo"), grid=4)
    >>> patches.fit_transform(images).shape
    (3, 16, 192)
    """

    _parameter_constraints: dict[str, Any] = {
        "embedder": [MedSigLIPEmbedder, None],
        "grid": [Interval(Integral, 1, None, closed="left")],
        "dtype": [StrOptions(set(STORED_TYPES))],
        "pooled_row": ["boolean"],
        "lazy": ["boolean", StrOptions({"auto"})],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        embedder: MedSigLIPEmbedder | None = None,
        *,
        grid: int = 8,
        dtype: str = "int8",
        pooled_row: bool = False,
        lazy: bool | str = "auto",
        verbose: int | bool = 0,
    ) -> None:
        self.embedder = embedder
        self.grid = grid
        self.dtype = dtype
        self.pooled_row = pooled_row
        self.lazy = lazy
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the collection and record the revision of the weights.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            Images, as for :meth:`transform`. They are not opened here.
        y : ignored
            Not used, present for API consistency.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If ``X`` is not a collection of images, or ``grid`` does not divide the
            patches.
        ModelAccessError, CheckpointError
            If the model is not available.
        """
        self.embedder_ = clone(self._given_embedder()).fit(X)
        self.revision_ = self.embedder_.revision_
        self._check_grid(self.embedder_._model_rows("image").facts)
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32] | StoredBags:
        """Return one bag per image.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            A list, array, Series or one-column DataFrame of paths, bytes, file
            objects, PIL images or arrays, also mixed; or one numeric array.

        Returns
        -------
        array-like of shape (n_samples, n_instances, embedding_dim), float32
            Bags of ``grid**2`` cells, row by row from the top left, and one more
            instance with ``pooled_row``. With ``on_error="nan"`` of the embedder, bags
            of unreadable images are NaN.

            The result is an ndarray, or with ``lazy`` an object with the same shape
            that is indexed along its first axis like an array: ``bags[index]`` selects
            without reading, and ``numpy.asarray(bags[index])`` reads. It can be used in
            the splitters and searches of scikit-learn. Its pickle takes 32 bytes per
            bag, and is valid only with the same store.

        Raises
        ------
        ImageReadError
            If an image cannot be read. The message gives its row, its source, the
            reason and a remedy. Images embedded before it stay stored.
        ValueError
            If ``grid`` does not divide the patches, if ``set_output`` requests a data
            frame, or if ``lazy=True`` without a store.
        CheckpointError
            If the weights are damaged, or differ from those at ``fit``.
        ModelAccessError
            If a bag is not stored and the model is not available.
        CacheError
            If bags are to stay in the store and it cannot be written.

        Warns
        -----
        UnreadableImageWarning
            Once with ``on_error="nan"``, with the number of unreadable images and the
            first of them.
        CacheWarning
            If bags cannot be stored (disk full, permission denied); the result is
            correct.
        """
        self._validate_params()
        refuse_data_frames(self, "MedSigLIPEmbedder")
        embedder = self._current_embedder()
        embedder._validate_params()
        validate_intensity(embedder.intensity)
        sources = image_rows(X)
        pooled = embedder._model_rows("image")
        self._check_grid(pooled.facts)
        if self.grid == 1:
            rows = plain_rows(embedder, X)
            return np.repeat(rows[:, None], 1 + self.pooled_row, axis=1)
        cells = cells_of(pooled, self.grid, self.dtype, with_row=self.pooled_row)
        return self._embed(sources, embedder, cells)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return names for the last axis of bags; ``fit`` is not needed.

        Parameters
        ----------
        input_features : ignored
            Not used, present for API consistency.

        Returns
        -------
        ndarray of shape (embedding_dim,), object
            ``"medsiglippatchembedder0"``, ...
        """
        n_values = len(self._current_embedder().get_feature_names_out())
        prefix = type(self).__name__.lower()
        return np.array([f"{prefix}{i}" for i in range(n_values)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _given_embedder(self) -> MedSigLIPEmbedder:
        return MedSigLIPEmbedder() if self.embedder is None else self.embedder

    def _current_embedder(self) -> MedSigLIPEmbedder:
        """Return the fitted embedder, or before ``fit`` the parameter."""
        return getattr(self, "embedder_", None) or self._given_embedder()

    def _check_grid(self, facts: ModelFacts) -> None:
        check_grid(self.grid, facts.image_size // facts.patch_size)

    def _embed(
        self, sources: Sequence[Any], embedder: MedSigLIPEmbedder, cells: ModelCells
    ) -> NDArray[np.float32] | StoredBags:
        """Embed images in steps that bound the memory of packed bags."""
        n = len(sources)
        form = BagForm(cells.packing, self.pooled_row, embedder.normalize)
        store = self._store_of_lazy(4 * n * math.prod(form.shape), cells.cache)
        n_in_memory = n if store is None else 0
        bags = np.full((n_in_memory, *form.shape), np.nan, np.float32)
        work = embedder._image_work(cells)
        fingerprints: list[bytes | None] = []
        failures: dict[int, ImageReadError] = {}
        step = max(1, _CHUNK // (4 * cells.width))
        with progress_bar(
            n, desc="embedding", unit="image", verbose=self.verbose
        ) as bar:
            for start in range(0, n, step):
                part = slice(start, min(start + step, n))
                try:
                    images = work.embed(sources[part], bar)
                except ImageReadError as error:
                    raise error.at_row(start + (error.row or 0)) from None
                readable = np.ones(len(images.vectors), dtype=bool)
                for row, failure in images.failures.items():
                    failures[start + row] = failure.at_row(start + row)
                    images.fingerprints[row] = None
                    readable[row] = False
                fingerprints += images.fingerprints
                if store is None:
                    words, rows = np.split(images.vectors, [cells.packing.n_words], 1)
                    form.write(bags[part], words, rows, readable)
                elif cells.cache_error is not None:
                    raise CacheError(
                        f"Bags cannot stay in the store: {cells.cache_error} Free some "
                        "space there, or use lazy=False to keep them in memory."
                    ) from cells.cache_error
        if failures:
            warn_about_unreadable(failures, n, "bags of NaN")
        if store is None:
            return bags
        stored = cells.stored_in(store), cells.pooled.stored_in(store)
        return StoredBags.of(*stored, form, fingerprints)

    def _store_of_lazy(
        self, n_bytes: int, store: EmbeddingCache | None
    ) -> EmbeddingCache | None:
        """Return the store in which bags of this size stay, or None."""
        if self.lazy == "auto":
            return store if n_bytes > _LARGEST_IN_MEMORY else None
        if self.lazy and store is None:
            raise ValueError(
                "lazy=True leaves bags in the store, but the embedder has cache=False. "
                "Use lazy=False, or an embedder with a cache."
            )
        return store if self.lazy else None
