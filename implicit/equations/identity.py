"""Identity of a function between calls: whether a graph that was traced in one may serve in another.

A function made anew in each call (a lambda) is the same if its code and the objects that it closes over are.
No identity sees everything that a function may read: a graph that no longer fits is found out, because every
solution is evaluated again by the function itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any

_VALUES = (bool, int, float, complex, str, bytes, type(None), type)


@dataclass(frozen=True)
class Identity:
    """A key, hashable, that equal functions share, and the objects that they must have in common."""

    key: Any
    objects: tuple[Any, ...] = ()

    def __add__(self, other: Identity) -> Identity:
        return Identity((self.key, other.key), (*self.objects, *other.objects))

    @staticmethod
    def of(function: Callable[..., Any]) -> Identity:
        """The identity of a function, a method, a partial or any other object that can be called."""
        if isinstance(function, MethodType):
            return Identity.of(function.__func__) + of_value(function.__self__)
        if isinstance(function, partial):
            bound = of_values((*function.args, *function.keywords.values()))
            names = Identity(tuple(function.keywords))
            return Identity.of(function.func) + bound + names
        if isinstance(function, FunctionType):
            cells = (_content(cell) for cell in function.__closure__ or ())
            defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
            return Identity(function.__code__) + of_values((*cells, *defaults))
        return of_value(function)


def of_value(value: Any) -> Identity:
    """Numbers, texts and types by value, functions by what they are made of, anything else as an object."""
    if isinstance(value, _VALUES):
        return Identity((type(value), value))
    if type(value) is FunctionType:
        return Identity.of(value) if value.__closure__ is None else Identity(None, (value,))
    if type(value) in (tuple, list):
        return of_values(value)
    return Identity(type(value), (value,))


def of_values(values: Iterable[Any]) -> Identity:
    """The identities of several values in one."""
    found = [of_value(value) for value in values]
    return Identity(
        tuple(one.key for one in found), tuple(entry for one in found for entry in one.objects)
    )


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # A name that is not yet bound.
        return None


class Holder:
    """Holds objects without keeping them alive, where Python can."""

    def __init__(self, objects: Iterable[Any]) -> None:
        self._references = tuple(map(_reference, objects))

    def objects(self) -> tuple[Any, ...]:
        """The objects, `None` for each that is gone."""
        return tuple(reference() for reference in self._references)

    def holds(self, objects: tuple[Any, ...]) -> bool:
        """True if these are the same objects."""
        if len(objects) != len(self._references):
            return False
        return all(
            reference() is one for reference, one in zip(self._references, objects, strict=True)
        )


def _reference(value: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value
