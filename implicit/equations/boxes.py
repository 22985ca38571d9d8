"""Bounds on the unknown of an equation, among its arguments, and as solvers see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...solvers.interface.box import Box
from .differentiation import Product
from .layout import Layout, Leaves


@dataclass(frozen=True)
class BoxForm:
    """The place of bounds among the arguments of an equation.

    Attributes:
        first: The position of the first lower bound; those of other leaves follow, then the upper bounds.
        unreduced: The map from arguments to the function of `z` that need not vanish where a bound is active;
            `None` where bounds leave the equation as it is.
    """

    first: int
    unreduced: Callable[[Leaves], Product] | None = None

    def with_unreduced(self, unreduced: Callable[[Leaves], Product]) -> BoxForm:
        """The same bounds of another function."""
        return replace(self, unreduced=unreduced)

    def at(self, layout: Layout, args: Leaves) -> Box:
        """The bounds on flat tensors."""
        leaves = len(layout.shapes)
        lower = args[self.first : self.first + leaves]
        upper = args[self.first + leaves : self.first + 2 * leaves]
        return Box(_flat(layout, lower), _flat(layout, upper))


def _flat(layout: Layout, bounds: Leaves) -> Tensor:
    """Bounds of all systems; the same ones along axes that `vmap` has added."""
    return layout.flatten(
        tuple(b.detach().expand(s) for b, s in zip(bounds, layout.shapes, strict=True))
    )


def check_box(box: Box, z: Tensor, layout: Layout) -> None:
    """Raise a `ValueError` that names the first entry with a wrong bound, or a start outside."""
    lower, upper = box.lower, box.upper
    for wrong, what, remedy in (
        (lower.isnan() | upper.isnan(), "a bound is NaN", "give -inf and inf where it is free"),
        (
            (lower > upper) | (lower == torch.inf) | (upper == -torch.inf),
            "no number lies between the bounds",
            "the problem has no solution with these",
        ),
        (
            (z < lower) | (z > upper),
            "the start lies outside of the bounds",
            "give a start between them, such as onto_box(z0, lower, upper)",
        ),
    ):
        found = wrong.nonzero()
        if len(found):
            system, entry = found[0].tolist()
            numbers = (f"{t[system, entry].item():.6g}" for t in (z, lower, upper))
            start, low, high = numbers
            raise ValueError(
                f"{what} at {_place(layout, system, entry)}, first of {len(found)}: start {start}, "
                f"lower {low}, upper {high}; {remedy}"
            )


def _place(layout: Layout, system: int, entry: int) -> str:
    """The leaf and the index of an entry of a flat system."""
    leaf = 0
    while entry >= layout.sizes[leaf]:
        entry, leaf = entry - layout.sizes[leaf], leaf + 1
    within = _index(entry, layout.shapes[leaf][len(layout.batch_shape) :])
    index = (*_index(system, layout.batch_shape), *within)
    name = "z0" if len(layout.shapes) == 1 else f"leaf {leaf} of z0"
    return f"{name}[{', '.join(map(str, index))}]" if index else name


def _index(number: int, shape: torch.Size) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(number), shape)) if shape else ()
