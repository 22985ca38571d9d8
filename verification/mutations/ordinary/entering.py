"""Entering of ordinary layers in the registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .entry import FLOATS, WIDE, Kind, Made, Ordinary, drawn

WRONG: list[Ordinary] = []
RIGHT: list[Ordinary] = []
DOUBTFUL: list[Ordinary] = []


def wrong(
    name: str,
    cause: str = "",
    dtypes: tuple[torch.dtype, ...] = WIDE,
    full: bool = False,
) -> Callable[[Callable[[torch.dtype], Made]], Callable[[torch.dtype], Made]]:
    """Enter a wrong layer in the registry."""

    def enter(build: Callable[[torch.dtype], Made]) -> Callable[[torch.dtype], Made]:
        WRONG.append(Ordinary(name, "wrong", build, dtypes, cause, full))
        return build

    return enter


def wrong_function(
    name: str,
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    cause: str = "",
    dtypes: tuple[torch.dtype, ...] = WIDE,
    full: bool = False,
    draw: Callable[..., Tensor] = drawn,
) -> None:
    """Enter a function of drawn inputs."""

    def build(dtype: torch.dtype) -> Made:
        return function, tuple(draw(*shape, dtype=dtype) for shape in shapes)

    WRONG.append(Ordinary(name, "wrong", build, dtypes, cause, full))


def enter(
    name: str,
    build: Callable[[torch.dtype], Made],
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    kind: Kind = "right",
) -> None:
    """Enter a right or a doubtful layer."""
    (RIGHT if kind == "right" else DOUBTFUL).append(Ordinary(name, kind, build, dtypes))


def right_function(
    name: str,
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    draw: Callable[..., Tensor] = drawn,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
) -> None:
    """Enter a function of drawn inputs."""

    def build(dtype: torch.dtype) -> Made:
        return function, tuple(draw(*shape, dtype=dtype) for shape in shapes)

    enter(name, build, dtypes)


def right_module(
    name: str,
    make: Callable[[], nn.Module],
    *shape: int,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    call: Callable[[nn.Module, Tensor], Any] | None = None,
) -> None:
    """Enter a module with a drawn input."""

    def build(dtype: torch.dtype) -> Made:
        net = make().to(dtype)
        if call is None:
            return net, (drawn(*shape, dtype=dtype),)
        return (lambda x: call(net, x)), (drawn(*shape, dtype=dtype),)

    enter(name, build, dtypes)


def at_point(
    name: str,
    function: Callable[..., Any],
    values: Any,
    dtypes: tuple[torch.dtype, ...] = WIDE,
    kind: Kind = "doubtful",
) -> None:
    """Enter a function at a given point."""

    def build(dtype: torch.dtype) -> Made:
        return function, (torch.tensor(values, dtype=torch.float64).to(dtype).requires_grad_(),)

    enter(name, build, dtypes, kind)
