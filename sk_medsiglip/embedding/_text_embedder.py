"""``MedSigLIPTextEmbedder``: texts in, embeddings out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import numpy as np
from blake3 import blake3
from numpy.typing import ArrayLike, NDArray

from sk_medsiglip._progress import progress_bar
from sk_medsiglip._validation import _fit_context
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding._embedder import Embedder
from sk_medsiglip.embedding._model_rows import (
    ModelFacts,
    ModelRows,
    find_facts,
    open_cache,
)
from sk_medsiglip.exceptions import TruncatedTextWarning, UnknownTextWarning

# Marks of texts, kept beside their vectors so that warnings come on every call.
_LONG, _UNKNOWN = b"long\0", b"unknown\0"
_ROWS_IN_WARNING = 5


class MedSigLIPTextEmbedder(Embedder):
    """Turn texts (prompts, captions, report sentences) into MedSigLIP embeddings.

    Parameters
    ----------
    model : str or path-like, default="google/medsiglip-448"
        A repository on the Hugging Face hub, a checkpoint folder, or ``"demo"``, the
        small demonstration checkpoint that ships in the package. Looked up anew on
        every machine: the estimator and its pickle hold the name, no weights.
    revision : str or None, default=None
        Commit, branch or tag of a repository.
    normalize : bool, default=False
        Scale every row to length 1.
    dtype : {"auto", "float32", "bfloat16"}, default="auto"
        Numeric type of the model pass; "auto" also accepts rows that were stored
        under another type.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"mps"``; "auto" takes the best one there is.
    engine : {"auto", "torch", "openvino"}, default="auto"
        What runs the model; see :class:`MedSigLIPEmbedder`.
    batch_size : int or "auto", default="auto"
        Texts in one model pass.
    cache : bool, str, path-like or EmbeddingCache, default=True
        Where rows are kept. True is a per-user folder, or ``SK_MEDSIGLIP_CACHE``.
    verbose : int, default=0
        Over 0 shows a progress bar.

    Attributes
    ----------
    revision_ : str
        Commit or folder digest of the weights at ``fit``.

    See Also
    --------
    MedSigLIPEmbedder : The same for images.

    Notes
    -----
    The model reads 64 tokens, about 45 words. The rest of a longer text is cut off,
    and one :class:`~sk_medsiglip.exceptions.TruncatedTextWarning` names the rows.

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
        """Check the texts and record which weights there are; nothing is learned.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts.
        y : ignored
            For pipelines.

        Returns
        -------
        self
        """
        check_texts(X)
        return self._record_model(find_facts(self.model, self.revision, self.cache))

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return one row a text.

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
            If the weights are others than at ``fit``.
        """
        self._validate_params()
        texts = check_texts(X)
        cache = open_cache(self.cache)
        facts = find_facts(self.model, self.revision, cache)
        self._check_same_model(facts)
        recipe = f"text-1;lower;max_length={facts.text_tokens}"
        rows = self._model_rows("text", recipe, facts, cache)

        # Equal texts are one row, however often they occur.
        unique = list(dict.fromkeys(texts))
        position = {text: i for i, text in enumerate(unique)}
        vectors, marks = self._embed_unique(unique, rows)
        for mark, warn in ((_LONG, _warn_about_long), (_UNKNOWN, _warn_about_unknown)):
            marked = [i for i, text in enumerate(texts) if (mark, text) in marks]
            if marked:
                warn(marked, facts)
        return self._finish(vectors[[position[text] for text in texts]])

    def logit_parameters(self) -> tuple[float, float]:
        """Return ``logit_scale`` and ``logit_bias`` of the model.

        ``logit_scale * cosine + logit_bias`` is the logit that SigLIP was trained to
        give the pair of an image and a text. On record in the store after the first
        model pass; before it, the model is loaded.

        Returns
        -------
        logit_scale : float
            The factor itself; the checkpoint stores its logarithm.
        logit_bias : float
        """
        cache = open_cache(self.cache)
        facts = find_facts(self.model, self.revision, cache)
        if facts.logit_scale is None or facts.logit_bias is None:
            encoder = self._model_rows("text", "", facts, cache).encoder
            return encoder.logit_scale, encoder.logit_bias
        return facts.logit_scale, facts.logit_bias

    def _embed_unique(
        self, texts: list[str], rows: ModelRows
    ) -> tuple[NDArray[np.float32], set[tuple[bytes, str]]]:
        """Return the vectors, and the marks of the texts to warn about."""
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
            verbose=self.verbose,
        ) as bar:
            while todo.size:
                elsewhere: list[np.intp] = []
                while todo.size:
                    auto = self.batch_size == "auto"
                    size = rows.text_batch_size() if auto else int(self.batch_size)
                    batch, todo = todo[:size], todo[size:]
                    wanted = [fingerprints[i] for i in batch]
                    filled = np.empty((batch.size, vectors.shape[1]), np.float32)
                    chosen = [texts[i] for i in batch]
                    done = rows.fill(wanted, filled, partial(_encode, rows, chosen))
                    vectors[batch[done]] = filled[done]
                    elsewhere.extend(batch[~done])
                    bar.update(int(done.sum()))
                rows.wait([fingerprints[i] for i in elsewhere])
                todo = np.array(elsewhere, dtype=np.intp)
        return vectors, marks


def _find_marks(texts: list[str], rows: ModelRows) -> set[tuple[bytes, str]]:
    """Return which texts are too long or unknown to the model, and store that."""
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
    """Return the marks of texts whose vectors are stored; no tokenizer is loaded."""
    # A token is one character at least, but for the two that a tokenizer adds.
    shortest = rows.facts.text_tokens - 1
    asked = [(_LONG, text) for text in texts if len(text) >= shortest]
    asked += [(_UNKNOWN, text) for text in texts]
    out = np.empty((len(asked), rows.facts.embedding_dim), np.float32)
    found = rows.get([_key(*one) for one in asked], out)
    return {one for one, is_marked in zip(asked, found, strict=True) if is_marked}


def _key(mark: bytes, text: str) -> bytes:
    """Return the key under which the store remembers a mark, as a row of ones."""
    return blake3(mark + text.encode("utf-8")).digest()


def _encode(
    rows: ModelRows, texts: list[str], positions: NDArray[np.intp]
) -> NDArray[np.float32]:
    return rows.encoder.encode_texts([texts[i] for i in positions])


def check_texts(X: ArrayLike) -> list[str]:
    """Return the texts of ``X`` as a list."""
    if isinstance(X, str):
        raise TypeError(f"X is one text; pass a list of texts: [{X[:40]!r}].")
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
                f"row {row} of X is an empty text. Drop such rows, or write what "
                "they mean."
            )
    return [str(text) for text in texts]


def _warn_about_long(rows: list[int], facts: ModelFacts) -> None:
    """Warn of texts whose ends the model does not read."""
    warnings.warn(
        f"Texts longer than the {facts.text_tokens} tokens that the model reads, whose "
        f"ends are ignored: {len(rows)}, in rows {_named(rows)}. Shorten them, or "
        "split them into sentences, embed those and average the rows.",
        TruncatedTextWarning,
        stacklevel=3,
    )


def _warn_about_unknown(rows: list[int], facts: ModelFacts) -> None:
    """Warn of texts without a word that the model knows."""
    warnings.warn(
        f"Texts without a word that the model knows: {len(rows)}, in rows "
        f"{_named(rows)}. They are in another script, or hold signs only; all such "
        "texts mean the same to it. Write them in English.",
        UnknownTextWarning,
        stacklevel=3,
    )


def _named(rows: list[int]) -> str:
    more = ", ..." if len(rows) > _ROWS_IN_WARNING else ""
    return ", ".join(map(str, rows[:_ROWS_IN_WARNING])) + more
