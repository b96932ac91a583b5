"""``MedSigLIPEmbedder``: images to embeddings, one model pass per image."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags

from sk_medsiglip._validation import Integral, Interval, StrOptions, _fit_context
from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding._embedder import Embedder
from sk_medsiglip.embedding._image_work import ImageWork
from sk_medsiglip.embedding._model_facts import ModelFacts
from sk_medsiglip.embedding._model_rows import ModelRows
from sk_medsiglip.encoder import load_image_processor
from sk_medsiglip.exceptions import ImageReadError, UnreadableImageWarning
from sk_medsiglip.images import (
    CTWindows,
    Percentiles,
    Window,
    image_rows,
    pad_to_square,
    read_image,
    read_resized,
    recipe_key,
    validate_intensity,
)

_ROWS_IN_WARNING = 5


class MedSigLIPEmbedder(Embedder):
    """Turn medical images into MedSigLIP embeddings, with one model pass per image.

    Rows are stored on disk, keyed by the content of the image, the weights and the
    preprocessing. If the same image is requested again (in another fold, by another
    head, in another process or run), its row is read and the model is not run.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        A repository on the Hugging Face hub, a checkpoint folder, or ``"demo"``, the
        small demonstration checkpoint included in the package. The estimator and its
        pickle hold the name and not the weights, so the model is looked up again on
        every machine.
    revision : str or None, default=None
        Commit, branch or tag of a repository. None uses the commit in the local hub
        cache, or else the newest.
    resize : {"medsiglip", "processor"}, default="medsiglip"
        Method of resizing. "medsiglip" is bilinear without antialiasing, as in
        TensorFlow: the recipe of the model card "to reproduce the evaluations".
        "processor" is the image processor of the checkpoint (bicubic).
    pad : bool, default=False
        Whether to pad the shorter side with black to a square before resizing, which
        keeps proportions, as in Google's fine-tuning notebook.
    intensity : "auto", Window, CTWindows or Percentiles, default="auto"
        Mapping of grey values to 0 to 255. "auto" depends on the type and, for DICOM,
        on the modality. White in a 16-bit image file is the smallest of 255, 4095 and
        65535 that no pixel exceeds, so use ``Window(center, width)`` if all files share
        one scale. See :func:`~sk_medsiglip.images.read_image`.
    frame : int, "middle" or None, default=None
        Frame of multi-frame files. None refuses such files.
    normalize : bool, default=False
        Whether to scale every row to unit length. Zero-shot classifiers do so
        themselves; linear heads usually perform better without.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Numeric type of the model pass. "auto" is bfloat16 on a GPU that supports it,
        and with ``engine="openvino"`` on a CPU that is faster in it; else float32. It
        also accepts rows that were stored with another type.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"`` or ``"mps"``; "auto" selects the best available.
    engine : {"auto", "torch", "openvino"}, default="auto"
        Engine that runs the model. "openvino" is about twice as fast as torch in
        float32 on CPUs that are fast in bfloat16, and a fifth faster on others; it
        needs ``pip install "sk-medsiglip[openvino]"``. The checkpoint is converted
        once, which takes a minute for MedSigLIP, and is stored next to the cache.
        "auto" is torch, and accepts rows of either.
    batch_size : int or "auto", default="auto"
        Number of images in one model pass. Rows are stored after every pass. A pass
        that does not fit into memory is halved and repeated; "auto" grows on a GPU.
    n_jobs : int or None, default=None
        Number of threads that read images ahead of the model. None means 1.
    cache : bool, str, path-like or EmbeddingCache, default=True
        Store for rows. True is a per-user folder, or ``SK_MEDSIGLIP_CACHE``; False
        stores nothing.
    max_pixels : int, default=178956970
        Largest number of pixels; larger images are refused before they are decoded.
        The default is that of Pillow.
    on_error : {"raise", "nan"}, default="raise"
        Whether an unreadable image raises an error, or gives a row of NaN and one
        warning.
    verbose : int, default=0
        If positive, show a progress bar.

    Attributes
    ----------
    revision_ : str
        Commit or folder digest of the weights at ``fit``. A fitted or loaded embedder
        raises if it finds other weights.

    See Also
    --------
    MedSigLIPTextEmbedder : The same for texts.
    sk_medsiglip.images.check_images : Find unreadable images before ``fit``.

    Notes
    -----
    On 2 CPU cores, an image takes 3 to 8 s with MedSigLIP and about 10 ms with the
    demonstration checkpoint; a stored row takes microseconds. Parallel workers of other
    estimators (threads, loky, spawn) share the store and never compute the same row at
    the same time; forked workers compute on one thread.

    This is not a medical device; embeddings and models built on them are for research.

    References
    ----------
    .. [1] Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023.
    .. [2] MedSigLIP model card,
       https://developers.google.com/health-ai-developer-foundations/medsiglip

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sk_medsiglip import MedSigLIPEmbedder
    >>> from sk_medsiglip.datasets import make_chest_phantoms
    >>> phantoms = make_chest_phantoms(20, random_state=0)
    >>> X, y = list(phantoms.images), phantoms.target[:, 0]
    >>> pipe = make_pipeline(MedSigLIPEmbedder("demo"), LogisticRegression())
    >>> pipe.fit(X, y).predict(X).shape
    (20,)
    """

    _parameter_constraints: dict[str, Any] = {
        **Embedder._parameter_constraints,
        "resize": [StrOptions({"medsiglip", "processor"})],
        "pad": ["boolean"],
        "intensity": [str, Window, CTWindows, Percentiles],
        "frame": [Integral, StrOptions({"middle"}), None],
        "n_jobs": [Integral, None],
        "max_pixels": [Interval(Integral, 1, None, closed="left")],
        "on_error": [StrOptions({"raise", "nan"})],
    }

    def __init__(
        self,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        *,
        revision: str | None = None,
        resize: str = "medsiglip",
        pad: bool = False,
        intensity: str | Window | CTWindows | Percentiles = "auto",
        frame: int | str | None = None,
        normalize: bool = False,
        dtype: str = "auto",
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | str = "auto",
        n_jobs: int | None = None,
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        max_pixels: int = 178_956_970,
        on_error: str = "raise",
        verbose: int | bool = 0,
    ) -> None:
        self.model = model
        self.revision = revision
        self.resize = resize
        self.pad = pad
        self.intensity = intensity
        self.frame = frame
        self.normalize = normalize
        self.dtype = dtype
        self.device = device
        self.engine = engine
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.cache = cache
        self.max_pixels = max_pixels
        self.on_error = on_error
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
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
            If ``X`` is not a collection of images.
        ModelAccessError, CheckpointError
            If the model is not available.
        """
        image_rows(X)
        return self._record_model()

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return one row per image.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            A list, array, Series or one-column DataFrame of paths, bytes, file
            objects, PIL images or arrays, also mixed; or one numeric array.

        Returns
        -------
        ndarray of shape (n_samples, embedding_dim), float32
            Embeddings. With ``on_error="nan"``, rows of unreadable images are NaN.

        Raises
        ------
        ImageReadError
            If an image cannot be read. The message gives its row, its source, the
            reason and a remedy. Images embedded before it stay stored.
        CheckpointError
            If the weights are damaged, or differ from those at ``fit``.
        ModelAccessError
            If a row is not stored and the model is not available.

        Warns
        -----
        UnreadableImageWarning
            Once with ``on_error="nan"``, with the number of unreadable images and the
            first of them.
        CacheWarning
            If rows cannot be stored (disk full, permission denied); the result is
            correct.
        """
        rows, failures = rows_and_failures(self, X)
        if failures:
            warn_about_unreadable(failures, len(rows), "rows of NaN")
        return rows

    def verify_files(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Read images again, to find changes that :meth:`transform` does not notice.

        A file is identified by its path, size, times and inode. :meth:`transform` does
        not notice a change that leaves all of these as they were (a tool that resets
        times, some network disks). This method does, and removes such files from the
        store, so that the next ``transform`` reads them.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            As for :meth:`transform`.

        Returns
        -------
        ndarray of shape (n_samples,), bool
            False for files whose content differs from that recorded in the store. Files
            without a record are not read and give True.

        Raises
        ------
        CacheError
            If outdated records cannot be removed because the cache is read-only.

        Notes
        -----
        Every file with a record is read. The model is not run.
        """
        self._validate_params()
        validate_intensity(self.intensity)
        sources = image_rows(X)
        same = np.ones(len(sources), dtype=bool)
        same[self._image_work().find_outdated(sources)] = False
        return same

    def _image_work(self, rows: ModelRows | None = None) -> ImageWork:
        """Return the steps from images to rows for the present parameters."""
        if rows is None:
            rows = self._model_rows("image")
        facts = rows.facts
        reading = recipe_key(self.intensity, self.frame)
        auto = self.batch_size == "auto"
        return ImageWork(
            rows,
            recipe=f"{reading};{self.resize};pad={self.pad};{facts.image_size}px",
            prepare=partial(prepare_image, self, facts),
            batch_size=rows.image_batch_size if auto else lambda: int(self.batch_size),
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            keep_going=self.on_error == "nan",
        )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def rows_and_failures(
    embedder: MedSigLIPEmbedder, X: ArrayLike
) -> tuple[NDArray[np.float32], dict[int, ImageReadError]]:
    """Transform images, and return the errors of unreadable ones without a warning.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder
        With ``on_error="raise"``, the first error is raised instead.
    X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
        Images, as for :meth:`MedSigLIPEmbedder.transform`.

    Returns
    -------
    rows : ndarray of shape (n_samples, embedding_dim), float32
        Embeddings, NaN for unreadable images.
    failures : dict of int to ImageReadError
        Errors by row.
    """
    embedder._validate_params()
    validate_intensity(embedder.intensity)
    images = embedder._image_work().embed(image_rows(X))
    return embedder._finish(images.vectors), images.failures


def prepare_image(
    embedder: MedSigLIPEmbedder, facts: ModelFacts, source: Any
) -> NDArray[np.uint8]:
    """Return an image at the size of the model, prepared as by an embedder.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder
        Embedder whose parameters decide how images are read and resized.
    facts : ModelFacts
        Sizes and revision of its model.
    source : path, bytes, file object, PIL image or array
        One image.

    Returns
    -------
    ndarray of shape (image_size, image_size, 3), uint8

    Raises
    ------
    ImageReadError
        If the image cannot be read.
    """
    reading: dict[str, Any] = {
        "intensity": embedder.intensity,
        "frame": embedder.frame,
        "max_pixels": embedder.max_pixels,
    }
    if embedder.resize == "medsiglip":
        return read_resized(source, facts.image_size, pad=embedder.pad, **reading)
    pixels = read_image(source, **reading)
    if embedder.pad:
        pixels = pad_to_square(pixels, embedder.max_pixels)
    return load_image_processor(os.fspath(embedder.model), facts.revision)(pixels)


def warn_about_unreadable(
    failures: dict[int, ImageReadError], total: int, result: str
) -> None:
    """Warn about unreadable images; ``result`` is their place in the output."""
    shown = [str(error) for error in list(failures.values())[:_ROWS_IN_WARNING]]
    more = len(failures) - len(shown)
    if more:
        shown.append(f"and {more} more")
    warn_user(
        f"{len(failures)} of {total} images cannot be read and are {result}:\n  "
        + "\n  ".join(shown)
        + "\nsk_medsiglip.images.check_images(X) lists all of them.",
        UnreadableImageWarning,
    )
