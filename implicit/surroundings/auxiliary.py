"""Auxiliary outputs: a function that returns its residual together with anything else."""

from __future__ import annotations

from typing import Any


def parts_of(described: str, value: Any) -> tuple[Any, Any]:
    """The residual and the auxiliary output of a function's return value.

    Raises:
        TypeError: The value is no pair. A named tuple is none, since it may be the structure of an unknown.
    """
    if type(value) is tuple and len(value) == 2:
        return value
    what = f"a tuple of {len(value)}" if type(value) is tuple else f"a {type(value).__name__}"
    raise TypeError(
        f"{described} must return a pair, (residual, auxiliary output), with has_aux=True, but returned "
        f"{what}: return the auxiliary output as the second of two, or leave has_aux out"
    )
