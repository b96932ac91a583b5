"""Errors and warnings of this package.

::

    SkMedSiglipError
    ├── ImageReadError          (ValueError)   one image cannot be read
    ├── PromptError             (ValueError)   a prompt set is malformed
    ├── CheckpointError         (ValueError)   weights are missing, damaged or wrong
    ├── FilterError             (ValueError)   a filter of a search is malformed
    ├── SessionError            (ValueError)   a labelling session cannot do that
    ├── ModelAccessError        (OSError)      weights cannot be had: gated, no network
    ├── CacheError              (OSError)      the embedding store is damaged
    │   └── CacheFormatError                   another version wrote the store
    ├── ForkedProcessError      (RuntimeError) a forked worker cannot use the model
    ├── OutOfMemoryError        (MemoryError)  a model pass of one does not fit
    ├── SearchIndexError        (OSError)      an index is missing or damaged
    ├── DatasetError            (OSError)      a data set is missing or damaged
    ├── RunFolderError          (OSError)      a fine-tuning run cannot be written
    └── MissingDependencyError  (ImportError)  an optional library is not installed

    SkMedSiglipWarning          (UserWarning)
    ├── UnreadableImageWarning  rows became NaN under ``on_error="nan"``
    ├── TruncatedTextWarning    texts were longer than the model reads
    ├── UnknownTextWarning      texts hold no word that the model knows
    ├── PromptWarning           prompts of two classes mean nearly the same to a model
    ├── LeakageWarning          test images may have been learned from
    ├── NoveltyWarning          images are unlike those that were learned from
    ├── LabelCodesWarning       numbers in ``y`` were read as places among class names
    ├── CheckpointWarning       part of a checkpoint or adapter is left out
    ├── LabelFileWarning        lines of a session's label file cannot be used
    └── CacheWarning            the store cannot be used; the work goes on without it

Each error is also the built-in exception that a caller would expect, so ``except
ValueError`` around a bad image keeps working.
"""

from __future__ import annotations

import copy

__all__ = [
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
    """Base of every error raised on purpose by this package."""


class ImageReadError(SkMedSiglipError, ValueError):
    """One image cannot be read.

    Parameters
    ----------
    reason : str
        What is wrong with it, as a clause: ``"the file is empty"``.
    hint : str, default=""
        What to do about it, as a sentence.
    source : str, default=""
        The image as its owner named it: a path, or a description such as
        ``"array of shape (0, 3)"``.
    row : int or None, default=None
        Its place in ``X``; None where a single image was read.
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
        """Return the same error, naming the row of ``X`` that it belongs to."""
        located = copy.copy(self)
        located.row = row
        return located

    def __str__(self) -> str:
        where = "" if self.row is None else f"row {self.row}: "
        what = f"{self.source}: " if self.source else ""
        mend = f" {self.hint}" if self.hint else ""
        return f"{where}{what}{self.reason}.{mend}"


class PromptError(SkMedSiglipError, ValueError):
    """A prompt, a template or a set of prompts is malformed."""


class CheckpointError(SkMedSiglipError, ValueError):
    """A checkpoint is incomplete, damaged, or not the one that was fitted with."""


class ModelAccessError(SkMedSiglipError, OSError):
    """A checkpoint cannot be had: gated, not logged in, not found, no network."""


class CacheError(SkMedSiglipError, OSError):
    """The embedding store is damaged or was written by another version."""


class CacheFormatError(CacheError):
    """Another version of this package wrote the embedding store."""


class ForkedProcessError(SkMedSiglipError, RuntimeError):
    """A forked worker needs a GPU or an engine that its parent already uses."""


class OutOfMemoryError(SkMedSiglipError, MemoryError):
    """Memory does not hold the model pass of a single image or text."""


class FilterError(SkMedSiglipError, ValueError):
    """A filter (``where=``) is malformed, or uses SQL that filters may not use."""


class SearchIndexError(SkMedSiglipError, OSError):
    """A stored index is missing, damaged, or of another version of this package."""


class SessionError(SkMedSiglipError, ValueError):
    """A labelling session cannot do that: a row is locked, or the session has ended."""


class DatasetError(SkMedSiglipError, OSError):
    """A data set cannot be downloaded, or what was downloaded is not it."""


class RunFolderError(SkMedSiglipError, OSError):
    """A run cannot be written: the disk is full, or permission is missing."""


class MissingDependencyError(SkMedSiglipError, ImportError):
    """An optional library is needed; the message holds the install command."""


class SkMedSiglipWarning(UserWarning):
    """Base of every warning issued by this package."""


class UnreadableImageWarning(SkMedSiglipWarning):
    """Some rows could not be read and hold NaN."""


class TruncatedTextWarning(SkMedSiglipWarning):
    """Some texts are longer than the model reads; their ends were cut off."""


class UnknownTextWarning(SkMedSiglipWarning):
    """Texts hold no word that the model knows, so it cannot tell them apart."""


class PromptWarning(SkMedSiglipWarning):
    """Prompts of two classes mean nearly the same to a model."""


class LabelCodesWarning(SkMedSiglipWarning):
    """``y`` holds numbers where prompts name classes; they were read as places."""


class LeakageWarning(SkMedSiglipWarning):
    """Test images or patients may have been learned from, or could not be compared."""


class NoveltyWarning(SkMedSiglipWarning):
    """Images are unlike those that were learned from, or too few were learned from."""


class CheckpointWarning(SkMedSiglipWarning):
    """Part of a checkpoint or adapter is left out, since it has no effect."""


class LabelFileWarning(SkMedSiglipWarning):
    """Lines of a session's label file cannot be used; the others are."""


class CacheWarning(SkMedSiglipWarning):
    """The store cannot be read or written; rows are right but are not kept."""
