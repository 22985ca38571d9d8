"""Errors of a study itself; an error within a cell becomes a row."""

from __future__ import annotations


class StudyError(ValueError):
    """A study that cannot be run as it is written; the message names what is valid.

    Examples:
        >>> from implicitly.studies import StudyError
        >>> issubclass(StudyError, ValueError)
        True
    """


class StoreError(RuntimeError):
    """A store that cannot be read or written; the message says what to do.

    Examples:
        >>> from implicitly.studies import StoreError
        >>> issubclass(StoreError, RuntimeError)
        True
    """


class StoreWarning(UserWarning):
    """A damaged part of a store was left out or repaired."""
