"""Solver states as containers: dataclasses whose tensors have the batch as their first axis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """A copy of the dataclass `state` with `function` of every tensor in it, nested ones included."""

    def mapped(value: Any) -> Any:
        if isinstance(value, Tensor):
            return function(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return map_tensors(function, value)
        return value

    fields = [field.name for field in dataclasses.fields(state) if field.init]
    return dataclasses.replace(state, **{name: mapped(getattr(state, name)) for name in fields})
