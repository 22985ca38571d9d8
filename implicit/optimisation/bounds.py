"""Bounds on the unknowns of a call: checked, made tensors like the unknown, and put around its function.

The function is evaluated between the bounds alone: at `P(z)`, the nearest point to `z` there. Solvers keep
their iterates inside, so that this changes no iterate; checks that look beside one, and differences, are
kept inside by it. On the bounds `P` has the derivative one, so that derivatives of a root there are its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ...solvers.interface.box import onto, reduced
from ..arrays.array_function import BoundArrayFunction
from ..calls.settings import Settings
from ..surroundings.auxiliary import parts_of
from .stationarity import Stationarity

# Names of the bounds among keyword arguments, which no function of the user has.
_NAMES = ("lower bounds", "upper bounds")


@dataclass(frozen=True)
class Conditions:
    """The function of a complementarity problem: it vanishes but where a bound is active.

    Attributes:
        function: The user's function.
        described: Its name in messages.
        has_aux: It returns a pair, of which the second is not part of the problem.
    """

    function: Callable[..., Any]
    described: str = "the function"
    has_aux: bool = False

    def __call__(self, z: Any, *args: Any) -> Any:
        value = self.function(z, *args)
        return parts_of(self.described, value)[0] if self.has_aux else value

    def pair(self, z: Any, *args: Any) -> Any:
        """The value of the user's function, with its auxiliary output."""
        return getattr(self.function, "pair", self.function)(z, *args)


class Bounded:
    """A function of an unknown between bounds, which are its last two arguments.

    Attributes:
        function: The function without bounds.
        reduces: Its value is that of the reduced equation (`solvers.interface.box`).
        names: Names of the last arguments, for derivatives that the caller gives.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.reduces = isinstance(function, (Stationarity, Conditions))
        self.names = (*getattr(function, "names", ()), *_NAMES)

    def __call__(self, z: Any, *args: Any) -> Any:
        """The value between the bounds, or that of the reduced equation."""
        value = self.unreduced(z, *args)
        return tree_map(reduced, z, *args[-2:], value) if self.reduces else value

    def unreduced(self, z: Any, *args: Any) -> Any:
        """The value between the bounds."""
        *own, lower, upper = args
        inside = tree_map(onto, z, lower, upper)
        if isinstance(self.function, BoundArrayFunction):
            return self.function.within(inside, (lower, upper), *own)
        return self.function(inside, *own)

    def pair(self, z: Any, *args: Any) -> Any:
        """The value with the auxiliary output, between the bounds."""
        *own, lower, upper = args
        assert isinstance(self.function, (Stationarity, Conditions))  # for the type checker
        return self.function.pair(tree_map(onto, z, lower, upper), *own)

    def parts(self, z: Any, *args: Any) -> Tensor:
        """The residuals or the objective between the bounds, see `Stationarity`."""
        *own, lower, upper = args
        assert isinstance(self.function, Stationarity)  # for the type checker
        return self.function.parts(tree_map(onto, z, lower, upper), *own)


def bounded_call(
    function: Callable[..., Any], z0: Any, args: tuple[Any, ...], settings: Settings
) -> tuple[Bounded, tuple[Any, ...], Settings]:
    """The function of a call, its arguments with the bounds, and the settings that fit them."""
    lower, upper = bounds_like(z0, settings.bounds)
    derivatives, flags = settings.derivatives, settings.batched_args
    if derivatives is not None and derivatives.jacobian is not None:
        derivatives = replace(derivatives, jacobian=_without_bounds(derivatives.jacobian))
    settings = replace(
        settings,
        derivatives=derivatives,
        batched_args=None if flags is None else (*flags, True, True),
    )
    return Bounded(function), (*args, lower, upper), settings


def _without_bounds(jacobian: Callable[..., Any]) -> Callable[..., Any]:
    def of_own(z: Any, *args: Any, **keywords: Any) -> Any:
        return jacobian(z, *args, **{k: v for k, v in keywords.items() if k not in _NAMES})

    return of_own


def bounds_like(z0: Any, bounds: Any) -> tuple[Any, Any]:
    """Lower and upper bounds in the structure, shapes and dtypes of `z0`.

    Raises:
        TypeError: `bounds` is no pair, a bound is neither a number nor a tensor, or has another dtype.
        ValueError: A bound has another structure than `z0`, or a shape that does not broadcast to it.
    """
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(
            f"bounds must be a pair (lower, upper) of numbers, tensors or structures like z0, got {bounds!r}"
        )
    leaves, spec = tree_flatten(z0)
    found = []
    for name, bound, free in zip(("lower", "upper"), bounds, (-torch.inf, torch.inf), strict=True):
        given = [bound] * len(leaves)
        if not (
            bound is None or _is_number(bound) or (isinstance(bound, Tensor) and bound.dim() == 0)
        ):
            given, structure = tree_flatten(bound)
            if structure != spec:
                raise ValueError(
                    f"the {name} bound must be a number or have the structure of z0, {spec}, got {structure}"
                )
        like = zip(leaves, given, strict=True)
        found.append(tree_unflatten([_like(leaf, b, name, free) for leaf, b in like], spec))
    return found[0], found[1]


def _is_number(bound: object) -> bool:
    return isinstance(bound, (int, float)) and not isinstance(bound, bool)


def _like(leaf: Tensor, bound: Any, name: str, free: float) -> Tensor:
    if not isinstance(leaf, Tensor) or leaf.is_complex():
        raise TypeError(
            f"bounds need real unknowns, got {getattr(leaf, 'dtype', type(leaf).__name__)}: give z0 by its "
            "real and imaginary parts"
        )
    if bound is None:
        bound = free
    if _is_number(bound):
        return torch.full_like(leaf.detach(), float(bound))
    if not isinstance(bound, Tensor):
        raise TypeError(f"the {name} bound must be a number or a tensor, got {bound!r}")
    if bound.dtype != leaf.dtype or bound.device != leaf.device:
        raise TypeError(
            f"the {name} bound must have the dtype and device of the unknown, {leaf.dtype} on {leaf.device}, "
            f"got {bound.dtype} on {bound.device}: convert it by .to(z0)"
        )
    try:
        return bound.expand(leaf.shape).contiguous()
    except RuntimeError as error:
        raise ValueError(
            f"the {name} bound must have a shape that broadcasts to that of the unknown, "
            f"{tuple(leaf.shape)}, got {tuple(bound.shape)}"
        ) from error
