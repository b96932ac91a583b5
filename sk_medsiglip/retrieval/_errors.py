"""What goes wrong with an index or a filter, as errors a caller can catch."""

from __future__ import annotations

from sk_medsiglip.exceptions import SkMedSiglipError

__all__ = ["FilterError", "SearchIndexError"]


class FilterError(SkMedSiglipError, ValueError):
    """A filter (``where=``) is malformed, or says what filters may not say."""


class SearchIndexError(SkMedSiglipError, OSError):
    """A stored index is missing, damaged, or of another version of this package."""
