"""Base class of frozen options, and checks whose errors list the valid choices."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any


class Options:
    """Base class of frozen dataclasses of options; an error about an unknown one has the nearest name."""

    def __new__(cls, *args: Any, **options: Any) -> Options:
        if options:
            valid = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
            for name in options:
                if name not in valid:
                    raise TypeError(_unknown(cls.__name__, name, valid))
        return super().__new__(cls)


def _unknown(owner: str, name: str, valid: list[str]) -> str:
    listed = ", ".join(valid) if valid else "none"
    return f"{owner} has no option {name!r}{did_you_mean(name, valid)} Its options: {listed}"


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """`"; did you mean 'other'?"` if a valid name is near, else a full stop."""
    nearest = difflib.get_close_matches(name, valid, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else "."


def check_names(owner: str, given: object, valid: tuple[str, ...]) -> None:
    """Raise a `TypeError` unless `given` is a mapping whose keys are all among `valid`."""
    if not isinstance(given, Mapping):
        raise TypeError(f"options of {owner} must be a dictionary, got {given!r}")
    for name in given:
        if name not in valid:
            raise TypeError(_unknown(owner, name, list(valid)))


def one_of(argument: str, value: object, valid: tuple[object, ...]) -> None:
    """Raise a `ValueError` that names `argument` unless `value` is among `valid`."""
    if value not in valid:
        listed = ", ".join(repr(choice) for choice in valid)
        raise ValueError(f"{argument} must be one of {listed}, got {value!r}")


def check_callable(argument: str, value: object) -> None:
    """Raise a `TypeError` that names `argument` unless `value` can be called or is `None`."""
    if value is not None and not callable(value):
        raise TypeError(f"{argument} must be callable or None, got {value!r}")


def check_truth(argument: str, value: object) -> None:
    """Raise a `TypeError` that names `argument` unless `value` is `True` or `False`."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be True or False, got {value!r}")


def is_integer(value: object, least: int) -> bool:
    """True for an integer ≥ `least`; a truth value does not count as one."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def check_integer(argument: str, value: object, least: int) -> None:
    """Raise a `ValueError` that names `argument` unless `value` is an integer ≥ `least`."""
    if not is_integer(value, least):
        raise ValueError(f"{argument} must be an integer ≥ {least}, got {value!r}")


def check_optional_integer(argument: str, value: object, least: int) -> None:
    """The same, unless `value` is an integer ≥ `least` or `None`."""
    if value is not None and not is_integer(value, least):
        raise ValueError(f"{argument} must be an integer ≥ {least} or None, got {value!r}")


def is_number(value: object, least: float) -> bool:
    """True for a finite number ≥ `least`; a truth value does not count as one."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return least <= float(value) < math.inf


def is_positive(value: object) -> bool:
    """True for a finite number > 0."""
    return is_number(value, 0.0) and value != 0
