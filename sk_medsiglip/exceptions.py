"""Errors and warnings of this package.

::

    SkMedSiglipError
    ├── ImageReadError          (ValueError)   one image cannot be read
    ├── PromptError             (ValueError)   a prompt set is malformed
    ├── CheckpointError         (ValueError)   weights are missing, damaged or wrong
    ├── FilterError             (ValueError)   a filter of a search is malformed
    ├── SessionError            (ValueError)   a labelling session cannot do this
    ├── ModelAccessError        (OSError)      weights are not available
    ├── CacheError              (OSError)      the embedding store is damaged
    │   └── CacheFormatError                   another version wrote the store
    ├── ForkedProcessError      (RuntimeError) a forked worker cannot use the model
    ├── OutOfMemoryError        (MemoryError)  a model pass does not fit into memory
    ├── SearchIndexError        (OSError)      an index is missing or damaged
    ├── DatasetError            (OSError)      a data set is missing or damaged
    ├── RunFolderError          (OSError)      a fine-tuning run cannot be written
    ├── AddressError            (OSError)      a service cannot listen at an address
    └── MissingDependencyError  (ImportError)  an optional library is not installed

    SkMedSiglipWarning          (UserWarning)
    ├── UnreadableImageWarning  rows are NaN because of ``on_error="nan"``
    ├── TruncatedTextWarning    texts are longer than the model reads
    ├── UnknownTextWarning      texts contain no word that the model knows
    ├── PromptWarning           prompts of two classes are nearly the same to a model
    ├── LeakageWarning          test images may be in the training data
    ├── NoveltyWarning          images are unlike the training images
    ├── LabelCodesWarning       numbers in ``y`` were read as places among class names
    ├── CheckpointWarning       part of a checkpoint or adapter is ignored
    ├── LabelFileWarning        lines of a session's label file cannot be used
    └── CacheWarning            the store cannot be used; work continues without it

Each error is also the built-in exception that a caller would expect, so that ``except
ValueError`` around a bad image works.
"""

from __future__ import annotations

import copy

__all__ = [
    "AddressError",
    "CacheError",
    "CacheFormatError",
    "CacheWarning",
    "CheckpointError",
    "CheckpointWarning",
    "DatasetError",
    "FilterError",
    "ForkedProcessError",
    "ImageReadError",
    "LabelCodesWarning",
    "LabelFileWarning",
    "LeakageWarning",
    "MissingDependencyError",
    "ModelAccessError",
    "NoveltyWarning",
    "OutOfMemoryError",
    "PromptError",
    "PromptWarning",
    "RunFolderError",
    "SearchIndexError",
    "SessionError",
    "SkMedSiglipError",
    "SkMedSiglipWarning",
    "TruncatedTextWarning",
    "UnknownTextWarning",
    "UnreadableImageWarning",
]


class SkMedSiglipError(Exception):
    """Base class of the errors of this package."""


class ImageReadError(SkMedSiglipError, ValueError):
    """One image cannot be read.

    Parameters
    ----------
    reason : str
        The problem, as a clause: ``"the file is empty"``.
    hint : str, default=""
        The remedy, as a sentence.
    source : str, default=""
        Path of the image, or a description such as ``"array of shape (0, 3)"``.
    row : int or None, default=None
        Index of the image in ``X``; None if a single image was read.
    """

    def __init__(
        self, reason: str, hint: str = "", *, source: str = "", row: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.source = source
        self.row = row

    def at_row(self, row: int) -> ImageReadError:
        """Return a copy of the error that names a row of ``X``."""
        located = copy.copy(self)
        located.row = row
        return located

    def __str__(self) -> str:
        where = "" if self.row is None else f"row {self.row}: "
        source = f"{self.source}: " if self.source else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{source}{self.reason}.{hint}"


class PromptError(SkMedSiglipError, ValueError):
    """A prompt, a template or a set of prompts is malformed."""


class CheckpointError(SkMedSiglipError, ValueError):
    """A checkpoint is incomplete, damaged, or differs from the one used in ``fit``."""


class ModelAccessError(SkMedSiglipError, OSError):
    """A checkpoint is not available: gated, not found, or without a network."""


class CacheError(SkMedSiglipError, OSError):
    """The embedding store is damaged or was written by another version."""


class CacheFormatError(CacheError):
    """Another version of this package wrote the embedding store."""


class ForkedProcessError(SkMedSiglipError, RuntimeError):
    """A forked worker cannot use a GPU or an engine that its parent uses."""


class OutOfMemoryError(SkMedSiglipError, MemoryError):
    """The model pass of a single image or text does not fit into memory."""


class FilterError(SkMedSiglipError, ValueError):
    """A filter (``where=``) is malformed, or uses SQL that is not supported."""


class SearchIndexError(SkMedSiglipError, OSError):
    """A stored index is missing, damaged, or of another version of this package."""


class SessionError(SkMedSiglipError, ValueError):
    """A labelling session cannot do this: a row is locked, or the session has ended."""


class DatasetError(SkMedSiglipError, OSError):
    """A data set is missing, damaged, or cannot be downloaded."""


class RunFolderError(SkMedSiglipError, OSError):
    """A run cannot be written: the disk is full, or permission is missing."""


class AddressError(SkMedSiglipError, OSError):
    """A service cannot listen: the port is in use, or not of this machine."""


class MissingDependencyError(SkMedSiglipError, ImportError):
    """An optional library is missing; the message gives the command to install it."""


class SkMedSiglipWarning(UserWarning):
    """Base class of the warnings of this package."""


class UnreadableImageWarning(SkMedSiglipWarning):
    """Some images could not be read; their rows are NaN."""


class TruncatedTextWarning(SkMedSiglipWarning):
    """Some texts are longer than the model reads; they were truncated."""


class UnknownTextWarning(SkMedSiglipWarning):
    """Texts contain no word that the model knows, so it cannot distinguish them."""


class PromptWarning(SkMedSiglipWarning):
    """Prompts of two classes are nearly the same to a model."""


class LabelCodesWarning(SkMedSiglipWarning):
    """``y`` holds numbers where prompts name classes; they were read as places."""


class LeakageWarning(SkMedSiglipWarning):
    """Test images or patients may be in the training data, or could not be compared."""


class NoveltyWarning(SkMedSiglipWarning):
    """Images are unlike the training images, or there are too few of those."""


class CheckpointWarning(SkMedSiglipWarning):
    """Part of a checkpoint or adapter is ignored, since it has no effect."""


class LabelFileWarning(SkMedSiglipWarning):
    """Lines of a session's label file cannot be used; the other lines are used."""


class CacheWarning(SkMedSiglipWarning):
    """The store cannot be read or written; rows are correct but are not stored."""
