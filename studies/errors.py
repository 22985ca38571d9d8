"""Errors of a study itself; an error within a cell becomes a row."""

from __future__ import annotations


class StudyError(ValueError):
    """A study is invalid; the message names valid choices.

    Examples:
        >>> from implicitly.studies import StudyError
        >>> issubclass(StudyError, ValueError)
        True
    """


class StoreError(RuntimeError):
    """A store is not readable or writable; the message says what to do.

    Examples:
        >>> from implicitly.studies import StoreError
        >>> issubclass(StoreError, RuntimeError)
        True
    """


class GuardError(RuntimeError):
    """No process for cells can be started; no cell is to blame, and the study can be resumed."""


class StoreWarning(UserWarning):
    """A damaged part of a store was left out or repaired."""
