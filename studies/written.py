"""Options objects made from text, and written with the options that are not their defaults."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from .errors import StudyError
from .selection import Choice, Names, not_called, single


def build(kind: type, choice: Choice, parts: Mapping[str, type]) -> Any:
    """An instance of a dataclass of options.

    Args:
        kind: Its class.
        choice: Its options.
        parts: Classes that an option which takes no text may name.

    Raises:
        StudyError: An option is unknown (the nearest is named), or what the class says of a value.
    """
    fields = {field.name for field in dataclasses.fields(kind) if field.init}
    hints = typing.get_type_hints(kind)
    options = {}
    for name, value in choice.options:
        if name not in fields:
            listed = ", ".join(sorted(fields)) or "none"
            raise StudyError(
                f"{choice.text}: {not_called('option', name, fields)}; its options: {listed}"
            )
        if isinstance(value, str) and not _takes_text(hints.get(name)):
            among = Names("part", sorted(parts), lambda tag: ())
            inner = single(value, among)
            value = build(parts[inner.name], inner, parts)
        options[name] = value
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{choice.text}: {error}") from error


def written(instance: Any) -> str:
    """A dataclass as Python writes it, without the options that are its defaults.

    Examples:
        >>> import implicitly
        >>> written(implicitly.Newton(globalisation=implicitly.LineSearch()))
        'Newton(globalisation=LineSearch())'
        >>> written(implicitly.Anderson(memory=10))
        'Anderson(memory=10)'
    """
    if isinstance(instance, tuple) and not hasattr(instance, "_fields"):
        return f"({', '.join(map(written, instance))})"
    if isinstance(instance, type) or not dataclasses.is_dataclass(instance):
        return repr(instance)
    given = (
        f"{field.name}={written(getattr(instance, field.name))}"
        for field in dataclasses.fields(instance)
        if field.init and field.repr and getattr(instance, field.name) != _default(field)
    )
    return f"{type(instance).__name__}({', '.join(given)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _takes_text(hint: Any) -> bool:
    if hint is str or typing.get_origin(hint) is typing.Literal:
        return True
    return any(map(_takes_text, typing.get_args(hint)))
