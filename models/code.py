"""Models and data in a module of one's own, named in a configuration as `file.py:Name`."""

from __future__ import annotations

import os
import sys
from itertools import chain
from pathlib import Path
from types import ModuleType

from ..files.importing import import_source
from ..options.naming import kebab
from .registry import DATA, MODELS

_IMPORTED: dict[str, ModuleType] = {}
_SOURCES: dict[type, str] = {}


class CodeError(ValueError):
    """A module of models or data cannot be imported, has not been imported, or does not register a name."""


def import_code(source: str) -> None:
    """Run a module that registers models or data, once in a process.

    Args:
        source: `package.module`, or a path that ends in `.py`.

    Raises:
        CodeError: It cannot be imported; the message has the error.

    Examples:
        >>> import_code("implicitly.models")
    """
    place = str(Path(source).resolve()) if source.endswith(".py") else source
    if place not in _IMPORTED:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # Like `python -m`.
        try:
            _IMPORTED[place] = import_source(source)
        except Exception as error:  # The module is the user's, and may raise anything.
            raise CodeError(f"cannot import {source!r}: {type(error).__name__}: {error}") from error
    name = _IMPORTED[place].__name__
    for kind in chain(MODELS.values(), DATA.values()):
        if kind.__module__ == name:
            _SOURCES[kind] = source


def resolved(name: str, known: dict[str, type], *, run: bool) -> str:
    """The registered name that a configuration's `name` stands for.

    Args:
        name: A registered name, or `source:Name`, whose source registers `Name`.
        known: `MODELS` or `DATA`.
        run: True if the source may be imported; else it must have been.

    Raises:
        CodeError: The source cannot be imported, has not been, or does not register the name.

    Examples:
        >>> resolved("elsewhere.py:Transformer", MODELS, run=False)
        'transformer'
    """
    source, colon, last = name.rpartition(":")
    if not colon:
        return name
    if run:
        import_code(source)
    found = kebab(type(last, (), {})).removesuffix("-options")
    if found in known:
        return found
    if run:
        raise CodeError(f"{source!r} does not register {last!r}; registered are {', '.join(known)}")
    raise CodeError(
        f"{name!r} is in a module that has not been imported, and reading a file runs no code: import the "
        f"module first (models.import_code({source!r}), or --code {source})"
    )


def source_of(kind: type) -> str | None:
    """The source that was imported for a registered class; `None` for one that was not named so."""
    return _SOURCES.get(kind)


def full_name(kind: type, name: str) -> str:
    """The name of a registered class with the source that was imported for it."""
    return f"{_SOURCES[kind]}:{kind.__name__.removesuffix('Options')}" if kind in _SOURCES else name
