"""Error of texts; its message names the file."""

from __future__ import annotations


class CorpusError(ValueError):
    """A corpus is missing, incomplete, empty, or no text."""
