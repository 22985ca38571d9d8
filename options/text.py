"""Options and text: fields of dataclasses, values as text, nearest names."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Value = str | int | float | bool | None
_WORDS: Mapping[str, Value] = {"true": True, "false": False, "none": None, "null": None}


class OptionField(NamedTuple):
    """An init field of a dataclass of options.

    Attributes:
        name: Its name.
        hint: Its type hint.
        default: Its default; `dataclasses.MISSING` for a required field.
    """

    name: str
    hint: Any
    default: Any

    @property
    def required(self) -> bool:
        """True if the field has no default."""
        return self.default is dataclasses.MISSING


def fields_of(kind: Any) -> dict[str, OptionField]:
    """Fields of a dataclass of options by name.

    Examples:
        >>> import implicitly
        >>> fields_of(implicitly.Anderson)["memory"].required
        False
    """
    hints = typing.get_type_hints(kind)
    return {
        field.name: OptionField(field.name, hints[field.name], _default(field))
        for field in dataclasses.fields(kind)
        if field.init
    }


def changed(instance: Any) -> dict[str, Any]:
    """Values of the fields that differ from their defaults, by name."""
    return {
        field.name: value
        for field in dataclasses.fields(instance)
        if field.init and (value := getattr(instance, field.name)) != _default(field)
    }


def made(kind: Any, values: Mapping[str, Any], fault: Callable[[str], Exception]) -> Any:
    """An instance of a class of options; `fault` turns its error message into the exception to raise."""
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise fault(str(error)) from error


def written(instance: Any) -> str:
    """A dataclass as Python writes it, without the options that have their defaults.

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
    shown = {field.name for field in dataclasses.fields(instance) if field.repr}
    given = (
        f"{name}={written(value)}" for name, value in changed(instance).items() if name in shown
    )
    return f"{type(instance).__name__}({', '.join(given)})"


def alternatives(hint: Any) -> Iterator[Any]:
    """The types that a hint allows: the members of a union, or the hint itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for member in typing.get_args(hint):
            yield from alternatives(member)
    else:
        yield hint


def takes(hint: Any, kind: type) -> bool:
    """True if a hint allows values of a type; a literal counts as text.

    Examples:
        >>> takes(float | None, float), takes(int, str)
        (True, False)
    """
    return any(
        part is kind or (kind is str and typing.get_origin(part) is typing.Literal)
        for part in alternatives(hint)
    )


def read_value(text: str) -> Value:
    """The value that a text stands for.

    Examples:
        >>> read_value("3"), read_value("1e-3"), read_value("true"), read_value("'3'"), read_value("full")
        (3, 0.001, True, '3', 'full')
    """
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if text[:1] in "'\"" and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def write_value(value: Value) -> str:
    """The text that `read_value` reads as this value."""
    if isinstance(value, str):
        return json.dumps(value) if read_value(value) != value else value
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def parted(text: str, by: str) -> list[str]:
    """The parts of a text between separators outside of brackets, without empty parts.

    Examples:
        >>> parted("a=1; b=c[d=2; e=3]", ";")
        ['a=1', 'b=c[d=2; e=3]']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == by and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def nearest(given: object, valid: Iterable[str]) -> str:
    """`"; the nearest is 'name'"`, the end of a message about an unknown name; empty if none is valid."""
    close = difflib.get_close_matches(str(given), list(valid), n=1, cutoff=0.0)
    return f"; the nearest is {close[0]!r}" if close else ""


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
