"""What goes wrong with a study itself; what goes wrong within a cell is a row."""

from __future__ import annotations


class StudyError(ValueError):
    """A study that cannot be run as it is written; the message names what is valid.

    Examples:
        >>> from implicitly.studies import StudyError
        >>> issubclass(StudyError, ValueError)
        True
    """


class StoreError(RuntimeError):
    """A store that cannot be read or written; the message names the way out.

    Examples:
        >>> from implicitly.studies import StoreError
        >>> issubclass(StoreError, RuntimeError)
        True
    """


class StoreWarning(UserWarning):
    """Something of a store was damaged and has been left out or repaired."""
