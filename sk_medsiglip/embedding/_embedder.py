"""Base classes of the embedders: a model by name, and names of features."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags

from sk_medsiglip._bags import is_bags
from sk_medsiglip._persistence import VersionedPickle
from sk_medsiglip._validation import Integral, Interval, StrOptions
from sk_medsiglip.cache import EmbeddingCache
from sk_medsiglip.embedding._model_facts import ModelFacts, find_facts, open_cache
from sk_medsiglip.embedding._model_rows import ModelRows
from sk_medsiglip.encoder import ENGINES
from sk_medsiglip.exceptions import CheckpointError


class Stateless(VersionedPickle, TransformerMixin, BaseEstimator):
    """Abstract stateless transformer of images, studies or texts."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        # The output is float32, whatever the type of the input.
        tags.transformer_tags.preserves_dtype = []
        return tags


class Embedder(Stateless):
    """Abstract transformer that holds the name of a model, but not its weights."""

    _parameter_constraints: dict[str, Any] = {
        "model": [str, os.PathLike],
        "revision": [str, None],
        "normalize": ["boolean"],
        "dtype": [StrOptions({"auto", "float32", "bfloat16"})],
        "device": [str],
        "engine": [StrOptions({"auto", *ENGINES})],
        "batch_size": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
        ],
        "cache": ["boolean", str, os.PathLike, EmbeddingCache],
        "verbose": ["verbose"],
    }

    # Set by the subclasses' __init__.
    model: str | os.PathLike[str]
    revision: str | None
    normalize: bool
    dtype: str
    device: str
    engine: str
    batch_size: int | str
    cache: bool | str | os.PathLike[str] | EmbeddingCache
    verbose: int | bool

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return names of the output columns; needs neither ``fit`` nor weights."""
        facts = find_facts(self.model, self.revision, self.cache)
        prefix = type(self).__name__.lower()
        return np.array(
            [f"{prefix}{i}" for i in range(facts.embedding_dim)], dtype=object
        )

    def _record_model(self) -> Self:
        self.revision_ = find_facts(self.model, self.revision, self.cache).revision
        return self

    def _model_rows(self, kind: str, facts: ModelFacts | None = None) -> ModelRows:
        """Return the source of rows for the present parameters."""
        cache = open_cache(self.cache)
        if facts is None:
            facts = find_facts(self.model, self.revision, cache)
        fitted = getattr(self, "revision_", facts.revision)
        if fitted != facts.revision:
            raise CheckpointError(
                f"This {type(self).__name__} was fitted with {self.model!r} at "
                f"{fitted}, but now finds {facts.revision}. Vectors of the two cannot "
                "be mixed. Fit again, or restore the fitted weights: pass "
                f"revision={fitted!r} for a hub model, or restore the folder."
            )
        return ModelRows(
            kind,
            # The key of an image is the exact input of the model.
            "pixels"
            if kind == "image"
            else f"text-1;lower;max_length={facts.text_tokens}",
            facts,
            self.model,
            self.revision,
            self.dtype,
            self.device,
            self.engine,
            cache,
        )

    def _finish(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise rows, which are stored unnormalised for both settings."""
        if self.normalize:
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows


def plain_rows(transformer: Any, X: Any) -> NDArray[Any]:
    """Transform ``X`` to an array under every configuration of scikit-learn.

    Bags that are read from the store on demand are returned as they are.

    Parameters
    ----------
    transformer : transformer
        Transformer such as an embedder, fitted if it needs to be.
    X : array-like
        Its input.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        An array even if ``set_config(transform_output=...)`` requests data frames.
    """
    with config_context(transform_output="default"):
        rows = transformer.transform(X)
    return rows if is_bags(rows) else np.asarray(rows, order="C")
