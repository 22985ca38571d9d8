"""Values of a row as its tables take them: Unicode text, integers of 64 bits, floats, and tuples of these.

Methods of other libraries report NumPy scalars, tensors, enumerations and texts that are not Unicode. Arrow
refuses such a value, and with it the whole table. Each value is converted where that changes nothing; another
value is refused with the reason.
"""

from __future__ import annotations

import operator
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin

LONGEST = {"exception": 2000, "status": 200}
"""Characters of the columns that hold the texts of others; of a longer text the start is kept."""
_BITS = 63
_PLAIN = 2**62
_SHOWN = 60


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        kind: `str`, `int` or `float`.
        several: True for a tuple of values.
        nullable: True if it may be unknown.

    Examples:
        >>> Column("evaluations", int, several=False, nullable=True).normal(3.0)
        3
    """

    name: str
    kind: type
    several: bool
    nullable: bool

    def is_plain(self, value: Any) -> bool:
        """True for a value that the column surely takes as it is; a quick look, for most values.

        Examples:
            >>> Column("steps", int, several=False, nullable=True).is_plain(3)
            True
        """
        if value is None or self.several or type(value) is not self.kind:
            return value is None and self.nullable
        plain: Any = value
        if self.kind is str:
            longest = LONGEST.get(self.name)
            return plain.isascii() and (longest is None or len(plain) <= longest)
        return self.kind is float or -_PLAIN < plain < _PLAIN

    def normal(self, value: Any) -> Any:
        """The value in the type of the column.

        Raises:
            ValueError: The column cannot hold it; the message says why.
        """
        if self.several:
            return self._tuple(value)
        if value is None:
            if not self.nullable:
                raise ValueError("must be given, got None")
            return None
        if self.kind is str:
            return _text(value, LONGEST.get(self.name))
        return _integer(value) if self.kind is int else _number(value)

    def _tuple(self, value: Any) -> tuple[Any, ...]:
        if type(value) is tuple and self.kind is float and all(type(one) is float for one in value):
            return value
        try:
            listed = value.tolist() if hasattr(value, "tolist") else value
        except Exception as error:  # Of a tensor without storage.
            raise ValueError(f"must be several values, got {_shown(value)}") from error
        if not isinstance(listed, (tuple, list)):
            raise ValueError(f"must be several values, got {_shown(value)}")
        single = Column(self.name, self.kind, several=False, nullable=False)
        return tuple(map(single.normal, listed))

    def holds(self, value: Any) -> bool:
        """True for a value, as JSON has it, that a table takes as it is.

        Examples:
            >>> Column("status", str, several=False, nullable=True).holds(3)
            False
        """
        if self.several:
            single = Column(self.name, self.kind, several=False, nullable=False)
            return isinstance(value, list) and all(map(single.holds, value))
        if value is None:
            return self.nullable
        if self.kind is str:
            return isinstance(value, str) and (value.isascii() or _text(value, None) == value)
        if isinstance(value, bool) or not isinstance(value, int):
            return self.kind is float and isinstance(value, float)
        return -(2**_BITS) <= value < 2**_BITS

    @property
    def unknown(self) -> Any:
        """The value for an unknown entry."""
        return () if self.several else None


def columns_of(kind: type) -> dict[str, Column]:
    """The columns of a dataclass, from its annotations.

    Examples:
        >>> from implicitly.studies import Row
        >>> columns_of(Row)["residual"].nullable
        True
    """
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        arguments = get_args(hint)
        several = get_origin(hint) is tuple
        nullable = not several and type(None) in arguments
        found[name] = Column(name, arguments[0] if arguments else hint, several, nullable)
    return found


def normalised(
    values: Mapping[str, Any], columns: Mapping[str, Column]
) -> tuple[dict[str, Any], list[str]]:
    """Values in the types of their columns; one that its column cannot hold becomes unknown.

    Returns:
        The values, and a note for each one that was left out.

    Raises:
        ValueError: There is no such column, or its value must be known.

    Examples:
        >>> from implicitly.studies import Row
        >>> normalised({"evaluations": 2**70}, columns_of(Row))
        ({'evaluations': None}, ['evaluations left out: must fit in 64 bits, got an integer of 71 bits'])
    """
    found, notes = {}, []
    for name, value in values.items():
        column = columns.get(name)
        if column is None:
            raise ValueError(f"there is no column {_shown(name)}")
        if column.is_plain(value):
            found[name] = value
            continue
        try:
            found[name] = column.normal(value)
        except ValueError as error:
            if not (column.nullable or column.several):
                raise ValueError(f"{name} {error}") from error
            found[name] = column.unknown
            notes.append(f"{name} left out: {error}")
    return found, notes


def with_notes(text: str | None, notes: list[str]) -> str | None:
    """A text with notes at its end, within the limit of exceptions.

    Examples:
        >>> with_notes("ValueError: no", ["steps left out: text"])
        'ValueError: no; steps left out: text'
    """
    if not notes:
        return text
    added = "; ".join(notes)[: LONGEST["exception"] // 2]
    room = LONGEST["exception"] - len(added) - 2
    return added if not text else f"{text[:room]}; {added}"


def said(error: BaseException) -> str:
    """An exception as text, whatever its own text does.

    Examples:
        >>> said(KeyError("a"))
        "KeyError: 'a'"
    """
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception as another:  # Its own method failed.
        text = f"{type(error).__name__}, whose text raised {type(another).__name__}"
    return _text(text, LONGEST["exception"])


def _text(value: Any, longest: int | None) -> str:
    """Text in which lone surrogates, which no encoding of Unicode has, are escaped."""
    if isinstance(value, Enum):
        value = value.name
    if not isinstance(value, str):
        try:
            value = str(value)
        except Exception as error:
            raise ValueError(f"must be text, got what raised {type(error).__name__}") from error
    # By the class itself, since a subclass may have its own methods.
    length = str.__len__(value)
    if longest is not None and length > longest:
        said_length = f"… ({length} characters)"
        value = str.__getitem__(value, slice(longest - len(said_length))) + said_length
    if type(value) is str and value.isascii():
        return value
    text = str.encode(value, "utf-8", "backslashreplace").decode("utf-8")
    return text if longest is None else text[:longest]


def _integer(value: Any) -> int:
    value = _scalar(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        # The plain integer of a subclass.
        whole = int.__add__(operator.index(value), 0)
    except Exception as error:
        raise ValueError(f"must be an integer, got {_shown(value)}") from error
    if not -(2**_BITS) <= whole < 2**_BITS:
        raise ValueError(f"must fit in 64 bits, got {_shown(whole)}")
    return whole


def _number(value: Any) -> float:
    value = _scalar(value)
    if type(value) is float:
        return value
    if isinstance(value, (str, bytes, bytearray)):
        raise ValueError(f"must be a number, got {_shown(value)}")
    try:
        return float(value)
    except (
        Exception
    ) as error:  # Of a complex number, an integer beyond the range, any other object.
        raise ValueError(f"must be a number, got {_shown(value)}") from error


def _scalar(value: Any) -> Any:
    """The Python scalar of a NumPy or tensor scalar."""
    if isinstance(value, (int, float)) or not hasattr(value, "item"):
        return value
    try:
        return value.item()
    except Exception as error:  # Of an array of several values, or on a device that is gone.
        raise ValueError(f"must be one value, got {_shown(value)}") from error


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"an integer of {int.bit_length(value)} bits"
    try:
        text = _text(repr(value), None)
    except Exception:  # The name of its class is known in any case.
        return f"an object of {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
