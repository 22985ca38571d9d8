"""Options objects made from choices."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from ..options.text import fields_of, made, takes
from .errors import StudyError
from .selection import Choice, Names, not_called, single


def build(kind: type, choice: Choice, parts: Mapping[str, type]) -> Any:
    """An instance of a dataclass of options.

    Args:
        kind: Its class.
        choice: Its options.
        parts: Classes by name, for options whose values are options objects.

    Raises:
        StudyError: An option is unknown (the nearest is named), or the class refuses a value.
    """
    fields = fields_of(kind)
    options = {}
    for name, value in choice.options:
        if name not in fields:
            listed = ", ".join(sorted(fields)) or "none"
            raise StudyError(
                f"{choice.text}: {not_called('option', name, fields)}; its options: {listed}"
            )
        if isinstance(value, str) and not _takes_text(fields[name].hint):
            among = Names("part", sorted(parts), lambda tag: ())
            inner = single(value, among)
            value = build(parts[inner.name], inner, parts)
        options[name] = value
    return made(kind, options, lambda text: StudyError(f"{choice.text}: {text}"))


def _takes_text(hint: Any) -> bool:
    """True if a hint mentions text, even within a mapping."""
    return takes(hint, str) or any(map(_takes_text, typing.get_args(hint)))
