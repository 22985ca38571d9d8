"""Errors of a layer under verification."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class LayerError(Exception):
    """The layer raised an error, or returned an unusable output."""


class NoForwardModeError(Exception):
    """The layer has no forward-mode derivative."""


@contextmanager
def foreign_errors(what: str) -> Iterator[None]:
    """Turn every error of code under verification into a `LayerError`."""
    try:
        yield
    except LayerError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        raise LayerError(
            f"{what} raised {type(error).__name__}: {text[0] if text else ''}"
        ) from error
