"""``MedSigLIPTextEmbedder``: texts to embeddings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from blake3 import blake3
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._progress import progress_bar
from sk_medsiglip._validation import _fit_context
from sk_medsiglip._warning import warn_user
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding._embedder import Embedder
from sk_medsiglip.embedding._model_facts import ModelFacts
from sk_medsiglip.embedding._model_rows import ModelRows
from sk_medsiglip.exceptions import TruncatedTextWarning, UnknownTextWarning

# Marks of texts, stored with their vectors so that every call warns.
_LONG, _UNKNOWN = b"long\0", b"unknown\0"
_ROWS_IN_WARNING = 5


class MedSigLIPTextEmbedder(Embedder):
    """Turn texts (prompts, captions, report sentences) into MedSigLIP embeddings.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        A repository on the Hugging Face hub, a checkpoint folder, or ``"demo"``, the
        small demonstration checkpoint included in the package. The estimator and its
        pickle hold the name and not the weights, so the model is looked up again on
        every machine.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    normalize : bool, default=False
        Whether to scale every row to unit length.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Numeric type of the model pass; "auto" also accepts rows that were stored
        with another type.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"`` or ``"mps"``; "auto" selects the best available.
    engine : {"auto", "torch", "openvino"}, default="auto"
        Engine that runs the model; see :class:`MedSigLIPEmbedder`.
    batch_size : int or "auto", default="auto"
        Number of texts in one model pass.
    cache : bool, str, path-like or EmbeddingCache, default=True
        Store for rows. True is a per-user folder, or ``SK_MEDSIGLIP_CACHE``; False
        stores nothing.
    verbose : int, default=0
        If positive, show a progress bar.

    Attributes
    ----------
    revision_ : str
        Commit or folder digest of the weights at ``fit``.

    See Also
    --------
    MedSigLIPEmbedder : The same for images.

    Notes
    -----
    The model reads 64 tokens, about 45 words. Longer texts are truncated, with one
    :class:`~sk_medsiglip.exceptions.TruncatedTextWarning` that names their rows.

    Examples
    --------
    >>> from sk_medsiglip import MedSigLIPTextEmbedder
    >>> texts = ["a normal chest X-ray", "a large pleural effusion"]
    >>> MedSigLIPTextEmbedder("demo").transform(texts).shape
    (2, 192)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "google/medsiglip-448",
        *,
        revision: str | None = None,
        normalize: bool = False,
        dtype: str = "auto",
        device: str = "auto",
        engine: str = "auto",
        batch_size: int | str = "auto",
        cache: bool | str | os.PathLike[str] | EmbeddingCache = True,
        verbose: int | bool = 0,
    ) -> None:
        self.model = model
        self.revision = revision
        self.normalize = normalize
        self.dtype = dtype
        self.device = device
        self.engine = engine
        self.batch_size = batch_size
        self.cache = cache
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Check the texts and record the revision of the weights.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts.
        y : ignored
            Not used, present for API consistency.

        Returns
        -------
        self
        """
        check_texts(X)
        return self._record_model()

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return one row per text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts: a list, array, Series or one-column DataFrame of str.

        Returns
        -------
        ndarray of shape (n_samples, embedding_dim), float32

        Raises
        ------
        TypeError, ValueError
            If ``X`` is not a collection of texts.
        CheckpointError
            If the weights are damaged, or differ from those at ``fit``.
        ModelAccessError
            If a row is not stored and the model is not available.
        """
        self._validate_params()
        return _encode_texts(self, check_texts(X), self._model_rows("text"))

    def logit_parameters(self) -> tuple[float, float]:
        """Return ``logit_scale`` and ``logit_bias`` of the model.

        ``logit_scale * cosine + logit_bias`` is the logit of SigLIP for a pair of an
        image and a text. The store records the parameters at the first model pass;
        before that, the model is loaded.

        Returns
        -------
        logit_scale : float
            The factor itself; the checkpoint stores its logarithm.
        logit_bias : float
        """
        return self._model_rows("text").logit_parameters()


class EncodedTexts(NamedTuple):
    """Vectors of texts, and the parameters that turn cosines into logits.

    Parameters
    ----------
    vectors : ndarray of shape (n_texts, embedding_dim), float32
        Result of :meth:`MedSigLIPTextEmbedder.transform`.
    logit_scale, logit_bias : float
        Result of :meth:`MedSigLIPTextEmbedder.logit_parameters`.
    """

    vectors: NDArray[np.float32]
    logit_scale: float
    logit_bias: float


def encode_texts(
    embedder: MedSigLIPTextEmbedder, texts: ArrayLike, facts: ModelFacts | None = None
) -> EncodedTexts:
    """Return the vectors of texts and the parameters of the logit in one call.

    Parameters
    ----------
    embedder : MedSigLIPTextEmbedder
    texts : array-like of shape (n_texts,)
    facts : ModelFacts or None, default=None
        Result of :func:`find_facts`, if already known.

    Returns
    -------
    EncodedTexts
    """
    embedder._validate_params()
    rows = embedder._model_rows("text", facts)
    vectors = _encode_texts(embedder, check_texts(texts), rows)
    return EncodedTexts(vectors, *rows.logit_parameters())


def _encode_texts(
    embedder: MedSigLIPTextEmbedder, texts: list[str], rows: ModelRows
) -> NDArray[np.float32]:
    # Embed equal texts once.
    unique = list(dict.fromkeys(texts))
    position = {text: i for i, text in enumerate(unique)}
    vectors, marks = _embed_unique(embedder, unique, rows)
    for mark, warn in ((_LONG, _warn_about_long), (_UNKNOWN, _warn_about_unknown)):
        marked = [i for i, text in enumerate(texts) if (mark, text) in marks]
        if marked:
            warn(marked, rows.facts)
    return embedder._finish(vectors[[position[text] for text in texts]])


def _embed_unique(
    embedder: MedSigLIPTextEmbedder, texts: list[str], rows: ModelRows
) -> tuple[NDArray[np.float32], set[tuple[bytes, str]]]:
    """Return the vectors, and the marks of texts that need a warning."""
    fingerprints = [blake3(text.encode("utf-8")).digest() for text in texts]
    vectors = np.empty((len(texts), rows.facts.embedding_dim), np.float32)
    known = rows.get(fingerprints, vectors)
    todo = np.flatnonzero(~known)
    marks = _recall_marks([texts[i] for i in np.flatnonzero(known)], rows)
    if todo.size:
        marks |= _find_marks([texts[i] for i in todo], rows)
    with progress_bar(
        len(texts),
        done=len(texts) - todo.size,
        desc=f"embedding ({rows.numerics})" if todo.size else "embedding",
        unit="text",
        verbose=embedder.verbose,
    ) as bar:
        while todo.size:
            elsewhere: list[np.intp] = []
            while todo.size:
                auto = embedder.batch_size == "auto"
                size = rows.text_batch_size() if auto else int(embedder.batch_size)
                batch, todo = todo[:size], todo[size:]
                filled = np.empty((batch.size, vectors.shape[1]), np.float32)
                chosen = [texts[i] for i in batch]
                done = rows.fill(
                    [fingerprints[i] for i in batch],
                    filled,
                    partial(_encode, rows, chosen),
                )
                vectors[batch[done]] = filled[done]
                elsewhere.extend(batch[~done])
                bar.update(int(done.sum()))
            rows.wait([fingerprints[i] for i in elsewhere])
            todo = np.array(elsewhere, dtype=np.intp)
    return vectors, marks


def _find_marks(texts: list[str], rows: ModelRows) -> set[tuple[bytes, str]]:
    """Find texts that are too long or unknown to the model, and store their marks."""
    marks = []
    for text, (n_tokens, n_known) in zip(
        texts, rows.encoder.count_tokens(texts), strict=True
    ):
        if n_tokens > rows.facts.text_tokens:
            marks.append((_LONG, text))
        if not n_known:
            marks.append((_UNKNOWN, text))
    if marks:
        out = np.empty((len(marks), rows.facts.embedding_dim), np.float32)
        rows.fill(
            [_key(*one) for one in marks], out, lambda new: np.ones_like(out[new])
        )
    return set(marks)


def _recall_marks(texts: list[str], rows: ModelRows) -> set[tuple[bytes, str]]:
    """Return the marks of stored texts, without loading a tokenizer."""
    # A token has at least one character, except for two that the tokenizer adds.
    shortest = rows.facts.text_tokens - 1
    asked = [(_LONG, text) for text in texts if len(text) >= shortest]
    asked += [(_UNKNOWN, text) for text in texts]
    out = np.empty((len(asked), rows.facts.embedding_dim), np.float32)
    found = rows.get([_key(*one) for one in asked], out)
    return {one for one, is_marked in zip(asked, found, strict=True) if is_marked}


def _key(mark: bytes, text: str) -> bytes:
    """Return the key of a mark, which is stored as a row of ones."""
    return blake3(mark + text.encode("utf-8")).digest()


def _encode(
    rows: ModelRows, texts: list[str], positions: NDArray[np.intp]
) -> NDArray[np.float32]:
    return rows.encoder.encode_texts([texts[i] for i in positions])


def check_texts(X: ArrayLike) -> list[str]:
    """Return the texts of ``X`` as a list."""
    if isinstance(X, str):
        raise TypeError(f"X is a single text; pass a list of texts: [{X[:40]!r}].")
    if hasattr(X, "to_pylist"):  # an array of pyarrow
        X = X.to_pylist()
    shape = np.shape(X) if hasattr(X, "shape") else (len(X),)  # type: ignore[arg-type]
    if len(shape) == 2 and shape[1] == 1:
        X = np.asarray(X, dtype=object).ravel()
    elif len(shape) != 1:
        raise ValueError(
            f"X must be a 1-D collection of texts, got shape {shape}. Pass one column."
        )
    texts: Sequence[Any] = list(X)  # type: ignore[arg-type]
    if not texts:
        raise ValueError(
            "Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is "
            "required by MedSigLIPTextEmbedder."
        )
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(
                f"row {row} of X is a {type(text).__name__}, not a text (str)."
            )
        if not text.strip():
            raise ValueError(
                f"row {row} of X is an empty text. Drop such rows, or replace them."
            )
    return [str(text) for text in texts]


def _warn_about_long(rows: list[int], facts: ModelFacts) -> None:
    warn_user(
        f"Texts longer than the {facts.text_tokens} tokens that the model reads are "
        f"truncated: {len(rows)}, in rows {_named(rows)}. Shorten them, or split them "
        "into sentences, embed those and average the rows.",
        TruncatedTextWarning,
    )


def _warn_about_unknown(rows: list[int], facts: ModelFacts) -> None:
    warn_user(
        f"Some texts contain no word that the model knows: {len(rows)}, in rows "
        f"{_named(rows)}. They are in another script or contain only symbols, and the "
        "model cannot distinguish them. Write them in English.",
        UnknownTextWarning,
    )


def _named(rows: list[int]) -> str:
    more = ", ..." if len(rows) > _ROWS_IN_WARNING else ""
    return ", ".join(map(str, rows[:_ROWS_IN_WARNING])) + more
