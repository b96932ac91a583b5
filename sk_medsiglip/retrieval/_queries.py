"""``Query``: texts, images and their differences, as one vector."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sk_medsiglip.images import source_name

#: Endings by which a text is taken for the name of a file.
_FILE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".webp",
    ".nii", ".nii.gz", ".svs",
)  # fmt: skip


class _Term(NamedTuple):
    """A part of a query with its weight."""

    kind: str  # "text", "image" or "embedding"
    value: Any
    weight: float = 1.0


class Query:
    """A query: texts, an image or an embedding, and sums and differences of these.

    Each part becomes a vector of unit length. The weighted sum of the parts is scaled
    to unit length again.

    Parameters
    ----------
    text : str or sequence of str, default=None
        Words to search for. The vectors of several texts, which are different wordings
        of one query, are averaged.
    image : image, default=None
        A path, an array, a PIL image, or anything else that may be a row of ``X``.
    embedding : array-like of shape (width,), default=None
        A vector of the model of the index.

    Notes
    -----
    ``+`` searches for both parts, ``-`` avoids a part, and a number in front of a part
    is its weight. A plain text may take the place of its query. Images are closer to
    each other than texts are to images, so an image dominates its sum with a text: give
    the text more weight, ``Query(image=path) + 3 * Query("pacemaker")``, and check the
    results.

    Examples
    --------
    >>> from sk_medsiglip.retrieval import Query
    >>> Query("cardiomegaly") - "pacemaker"
    Query('cardiomegaly') - Query('pacemaker')
    >>> Query(["enlarged heart", "cardiomegaly"]) + 0.5 * Query(image="chest.png")
    Query(['enlarged heart', 'cardiomegaly']) + 0.5 * Query(image='chest.png')
    """

    # So that multiplication by a numpy number is left to this class.
    __array_ufunc__ = None

    def __init__(
        self,
        text: str | Sequence[str] | None = None,
        *,
        image: Any = None,
        embedding: ArrayLike | None = None,
    ) -> None:
        given = [value is not None for value in (text, image, embedding)]
        if sum(given) != 1:
            raise TypeError(
                f"Query takes one of text, image and embedding, got {sum(given)}. Add "
                'them up: Query("effusion") + Query(image=path).'
            )
        if text is not None:
            term = _Term("text", _check_texts(text))
        elif image is not None:
            term = _Term("image", image)
        else:
            term = _Term("embedding", _check_embedding(embedding))
        #: The parts, with their weights.
        self.terms: tuple[_Term, ...] = (term,)

    def __add__(self, other: Query | str) -> Query:
        if isinstance(other, str):
            other = Query(other)
        if not isinstance(other, Query):
            return NotImplemented
        return _of_terms(self.terms + other.terms)

    def __radd__(self, other: str) -> Query:
        return Query(other) + self if isinstance(other, str) else NotImplemented

    def __sub__(self, other: Query | str) -> Query:
        return self + -(Query(other) if isinstance(other, str) else other)

    def __rsub__(self, other: str) -> Query:
        return Query(other) - self if isinstance(other, str) else NotImplemented

    def __neg__(self) -> Query:
        return self * -1.0

    def __mul__(self, weight: float) -> Query:
        if not isinstance(weight, Real) or isinstance(weight, bool):
            return NotImplemented
        if not np.isfinite(weight):
            raise ValueError(f"a weight must be a finite number, got {weight}.")
        weighted = (t._replace(weight=float(weight) * t.weight) for t in self.terms)
        return _of_terms(tuple(weighted))

    __rmul__ = __mul__

    def __repr__(self) -> str:
        shown = ""
        for term in self.terms:
            negative = term.weight < 0
            size = "" if abs(term.weight) == 1 else f"{abs(term.weight):g} * "
            sign = (" - " if negative else " + ") if shown else "-" * negative
            shown += f"{sign}{size}Query({_show(term)})"
        return shown


def _of_terms(terms: tuple[_Term, ...]) -> Query:
    query = object.__new__(Query)
    query.terms = terms
    return query


def _show(term: _Term) -> str:
    if term.kind == "text":
        return repr(term.value[0] if len(term.value) == 1 else list(term.value))
    if term.kind == "embedding":
        return f"embedding=array of shape {term.value.shape}"
    is_path = isinstance(term.value, str | os.PathLike)
    return f"image={source_name(term.value)!r}" if is_path else "image=..."


def _check_texts(text: Any) -> tuple[str, ...]:
    texts = (text,) if isinstance(text, str) else tuple(text)
    for one in texts:
        if not isinstance(one, str):
            raise TypeError(
                f"a query's text must be str, got {type(one).__name__}. An image is "
                "Query(image=...)."
            )
        if not one.strip():
            raise ValueError("the text of a query is empty; name what to look for.")
    if not texts:
        raise ValueError("a query needs at least one text; name what to look for.")
    return tuple(map(str, texts))


def _check_embedding(embedding: Any) -> NDArray[np.float32]:
    vector = np.asarray(embedding, dtype=np.float64)
    length = np.linalg.norm(vector)
    if vector.ndim != 1 or not np.isfinite(length) or length == 0:
        raise ValueError(
            "an embedding must be one row of finite numbers that are not all 0, got "
            f"shape {vector.shape}, length {length:g}."
        )
    return (vector / length).astype(np.float32)


def as_queries(query: Any) -> tuple[list[Query], bool]:
    """Return queries, and whether the caller passed several.

    A ``str`` is a text, so a path must be a ``pathlib.Path`` or ``Query(image=...)``.
    """
    if isinstance(query, np.ndarray) and query.dtype.kind == "f" and query.ndim == 2:
        return [Query(embedding=row) for row in query], True
    if isinstance(query, list | tuple):
        if not query:
            raise ValueError("the list of queries is empty.")
        return [_one_query(one) for one in query], True
    return [_one_query(query)], False


def _one_query(query: Any) -> Query:
    if isinstance(query, Query):
        return query
    if isinstance(query, str):
        if query.lower().endswith(_FILE_ENDINGS) and " " not in query.strip():
            raise ValueError(
                f"{query!r} looks like a file, and a str is a text here. Search by an "
                f"image with Query(image={query!r})."
            )
        return Query(query)
    if isinstance(query, np.ndarray) and query.dtype.kind in "fiu" and query.ndim == 1:
        return Query(embedding=query)
    if isinstance(query, os.PathLike | bytes | bytearray | np.ndarray | Image.Image):
        return Query(image=query)
    raise TypeError(
        "a query is text, a Query, an image or an embedding, or a list of these; got "
        f"{type(query).__name__}."
    )
