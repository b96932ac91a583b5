"""``MedSigLIPEmbedder``: images in, embeddings out, each through the model once."""

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
    """Turn medical images into MedSigLIP embeddings, each image once.

    Rows are kept on disk under the content of the image, the weights and the
    preprocessing. Whatever asks for the same image again (another fold, another head,
    another process, tomorrow's run) reads its row and runs no model.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        A repository on the Hugging Face hub, a checkpoint folder, or ``"demo"``, the
        small demonstration checkpoint that ships in the package. Looked up anew on
        every machine: the estimator and its pickle hold the name, no weights.
    revision : str or None, default=None
        Commit, branch or tag of a repository. None takes the commit that lies in the
        local hub cache, else the newest.
    resize : {"medsiglip", "processor"}, default="medsiglip"
        "medsiglip" is bilinear without antialiasing, as TensorFlow does it: the model
        card's recipe "to reproduce the evaluations". "processor" is the checkpoint's
        own image processor (bicubic).
    pad : bool, default=False
        Pad the shorter side with black to a square before resizing, which keeps
        proportions, as Google's fine-tuning notebook does.
    intensity : "auto", Window, CTWindows or Percentiles, default="auto"
        How grey values become 0 to 255. "auto" goes by type and, for DICOM, by
        modality; the white of a 16-bit picture file is the smallest of 255, 4095 and
        65535 that no pixel exceeds, so say ``Window(center, width)`` where all files
        share one scale. See :func:`~sk_medsiglip.images.read_image`.
    frame : int, "middle" or None, default=None
        Which frame of a multi-frame file. None refuses such files.
    normalize : bool, default=False
        Scale every row to length 1. Zero-shot does that itself; linear heads are
        usually better without.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Numeric type of the model pass: bfloat16 on a GPU that has it, and for
        ``engine="openvino"`` on a CPU that is faster in it; else float32. "auto" also
        accepts rows that were stored under another type.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"mps"``; "auto" takes the best one there is.
    engine : {"auto", "torch", "openvino"}, default="auto"
        Engine that runs the model. "openvino" is about twice as fast as torch's
        float32 on CPUs that are fast in bfloat16, and a fifth faster on others; it
        needs ``pip install "sk-medsiglip[openvino]"``. The checkpoint is converted
        once, a minute for MedSigLIP, and kept beside the cache. "auto" is torch, and
        accepts rows of either.
    batch_size : int or "auto", default="auto"
        Images in one model pass. Rows are stored after every pass. A pass that memory
        does not hold is halved and tried again; "auto" grows on a GPU.
    n_jobs : int or None, default=None
        Threads that read images ahead of the model. None is 1.
    cache : bool, str, path-like or EmbeddingCache, default=True
        Where rows are kept. True is a per-user folder, or ``SK_MEDSIGLIP_CACHE``;
        False keeps nothing.
    max_pixels : int, default=178956970
        Larger images are refused before they are decoded. The default is Pillow's.
    on_error : {"raise", "nan"}, default="raise"
        Whether an unreadable image raises, or leaves its row NaN with one warning.
    verbose : int, default=0
        Over 0 shows a progress bar.

    Attributes
    ----------
    revision_ : str
        Commit or folder digest of the weights at ``fit``. A fitted or loaded embedder
        that meets other weights raises.

    See Also
    --------
    MedSigLIPTextEmbedder : The same for texts.
    sk_medsiglip.images.check_images : Find unreadable images before ``fit``.

    Notes
    -----
    On 2 CPU cores an image costs MedSigLIP 3 to 8 s, the demo checkpoint about 10 ms;
    a stored row costs microseconds. Workers of ``n_jobs`` elsewhere (threads, loky,
    spawn) share the store and never compute one row twice at the same moment; forked
    ones compute on one thread.

    Not a medical device; embeddings and what is built on them are for research.

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
        """Check the collection and record which weights there are; nothing is learned.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            Images, as for :meth:`transform`. None is opened here.
        y : ignored
            For pipelines.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If ``X`` is not a collection of images.
        ModelAccessError, CheckpointError
            If the model cannot be had.
        """
        image_rows(X)
        return self._record_model()

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return one row an image.

        Parameters
        ----------
        X : array-like of shape (n_samples,), (n_samples, H, W) or (n_samples, H, W, C)
            A list, array, Series or one-column DataFrame of paths, bytes, file
            objects, PIL images or arrays, in any mixture; or one numeric array.

        Returns
        -------
        ndarray of shape (n_samples, embedding_dim), float32
            Under ``on_error="nan"``, rows of unreadable images are NaN.

        Raises
        ------
        ImageReadError
            If an image cannot be read: names its row, its source, what is wrong and
            what to do. What was embedded before it is kept.
        CheckpointError
            If the weights are others than at ``fit``, or damaged.
        ModelAccessError
            If a row is not stored and the model cannot be had.

        Warns
        -----
        UnreadableImageWarning
            Under ``on_error="nan"``: once, with the number and the first rows.
        CacheWarning
            If rows cannot be kept (disk full, no permission); they are right.
        """
        self._validate_params()
        validate_intensity(self.intensity)
        sources = image_rows(X)
        images = self._image_work().embed(sources)
        if images.failures:
            warn_about_unreadable(images.failures, len(sources), "rows of NaN")
        return self._finish(images.vectors)

    def verify_files(self, X: ArrayLike) -> NDArray[np.bool_]:
        """Read images again, to find files that changed without showing it.

        A file is known by its path, size, times and inode. What changes it and leaves
        all of these as they were (a tool that sets times back, some network disks) is
        not seen by :meth:`transform`; it is by this, which forgets what it finds, so
        that the next ``transform`` reads those files.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            As for :meth:`transform`.

        Returns
        -------
        ndarray of shape (n_samples,), bool
            False where a file is not the picture that it is remembered as. Files that
            are not remembered are not read, and True.

        Raises
        ------
        CacheError
            If what is outdated cannot be forgotten: the cache is read-only.

        Notes
        -----
        Costs the reading of every remembered file, and no model pass.
        """
        self._validate_params()
        validate_intensity(self.intensity)
        sources = image_rows(X)
        same = np.ones(len(sources), dtype=bool)
        same[self._image_work().find_outdated(sources)] = False
        return same

    def _image_work(self, rows: ModelRows | None = None) -> ImageWork:
        """Return how images become rows, as the parameters are now."""
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


def prepare_image(
    embedder: MedSigLIPEmbedder, facts: ModelFacts, source: Any
) -> NDArray[np.uint8]:
    """Return an image at the model's size, prepared as an embedder does it.

    Parameters
    ----------
    embedder : MedSigLIPEmbedder
        Its parameters say how images are read and resized.
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
        If it cannot be read.
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
    """Warn of images that cannot be read, and say what stands in their place."""
    shown = [str(error) for error in list(failures.values())[:_ROWS_IN_WARNING]]
    more = len(failures) - len(shown)
    if more:
        shown.append(f"and {more} more")
    warn_user(
        f"{len(failures)} of {total} images cannot be read and are {result}:\n  "
        + "\n  ".join(shown)
        + "\nsk_medsiglip.images.check_images(X) lists them all and which to keep.",
        UnreadableImageWarning,
    )
