"""Bugs that hide from a test of one call with float64 inputs in one mode.

Each layer is right for contiguous inputs in double precision, and wrong in one circumstance: in single
precision, for one row, after another call, ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .families import Family
from .planted import Backward, Recipe, Tensors, planted

Layer = Callable[..., Any]

_STEPS = 120
_OFF = 1.01


@dataclass(frozen=True)
class HidingBug:
    """A layer that is wrong in one circumstance.

    Attributes:
        name: Description of the bug and its circumstance.
        plant: Returns the layer, called as `layer(x, *parameters)`.
        check: Prefix of the name of the check that should find it.
        explored: True if only `effort="full"` can find it.
        equation: True if the family's residual is that of the layer.
        impossible: Families whose solver has no solution in the circumstance.

    Examples:
        >>> sum(bug.explored for bug in HIDING_BUGS)
        12
    """

    name: str
    plant: Callable[[Family], Layer]
    check: str
    explored: bool = True
    equation: bool = True
    impossible: tuple[str, ...] = ()


def _where(condition: Callable[[Backward], bool]) -> Callable[[Family], Layer]:
    """Gradients that are 1 % off under a condition."""

    def pull(b: Backward, u: Tensor) -> Tensors:
        factor = _OFF if condition(b) else 1.0
        return tuple(factor * gradient for gradient in b.pull(u))

    return lambda family: planted(family, Recipe(pull=pull))


def _again(family: Family) -> Layer:
    """A layer that accumulates gradients over passes, as in a buffer that is not cleared."""

    def layer(*tensors: Tensor) -> Tensor:
        passes: dict[float, int] = {}

        def pull(b: Backward, u: Tensor) -> Tensors:
            key = float(b.w.double().sum())
            passes[key] = passes.get(key, 0) + 1
            return tuple(passes[key] * gradient for gradient in b.pull(u))

        return planted(family, Recipe(pull=pull))(*tensors)

    return layer


def _latest(family: Family) -> Layer:
    """A layer that keeps the solution of the latest call on itself, not with the graph."""
    latest: list[Tensor] = []

    def pull(b: Backward, u: Tensor) -> Tensors:
        z = latest[-1] if latest[-1].shape == b.z.shape else b.z
        return b.pull(u, z.to(b.z.dtype))

    right = planted(family, Recipe(pull=pull))

    def layer(*tensors: Tensor) -> Tensor:
        z = right(*tensors)
        latest[:] = [z.detach()]
        return z

    return layer


def _cached(family: Family) -> Layer:
    """A layer that uses the Jacobian of the first call for all later ones."""
    first: dict[tuple[Any, ...], Tensor] = {}

    def adjoint(b: Backward) -> Tensor:
        key = (b.z.shape, b.z.dtype)
        if key not in first:
            first[key] = b.jacobian()
        return b.solve(first[key], b.w)

    return planted(family, Recipe(adjoint=adjoint))


def iterated(family: Family) -> Layer:
    """A correct layer of torch operations alone: a recorded iteration far beyond convergence.

    Examples:
        >>> import torch
        >>> from implicitly.verification.mutations.families import FAMILIES
        >>> tensors = FAMILIES["tanh"].make(2, 3, torch.Generator().manual_seed(0))
        >>> z = iterated(FAMILIES["tanh"])(*tensors)
        >>> bool(FAMILIES["tanh"].residual(z, *tensors).abs().max() < 1e-14)
        True
    """

    def layer(x: Tensor, *parameters: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(_STEPS):
            z = z - family.residual(z, x, *parameters)
        return z

    return layer


class _Scaled(torch.autograd.Function):
    """The identity, with a factor in its derivative in both modes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: float) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.factor = inputs[1]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        return ctx.factor * cotangents[0], None


class _Identity(torch.autograd.Function):
    """The identity, right in reverse mode and without any other."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        return cotangents[0]


class _WrongUnderVmap(_Identity):
    """The identity, whose batching rule loses a hundredth of the derivative."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return _Scaled.apply(x, _OFF), in_dims[0]


class _WrongForward(_Identity):
    """The identity, with another derivative in forward mode."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _OFF * tangents[0]


class _WrongForwardOverReverse(_Identity):
    """The identity, whose backward pass has another derivative in forward mode."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        return _WrongForward.apply(cotangents[0])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0].clone()


class _PerRow(torch.autograd.Function):
    """The identity, whose gradient is divided by the number of rows and multiplied by it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: int) -> Tensor:
        ctx.rows = torch.tensor(float(rows), dtype=x.dtype)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        return cotangents[0] / ctx.rows * ctx.rows, None


def _after(function: Any) -> Callable[[Family], Layer]:
    def plant(family: Family) -> Layer:
        right = iterated(family)
        return lambda *tensors: function.apply(right(*tensors))

    return plant


def _before(function: Any) -> Callable[[Family], Layer]:
    def plant(family: Family) -> Layer:
        right = iterated(family)
        return lambda x, *parameters: right(function.apply(x), *parameters)

    return plant


def _per_row(family: Family) -> Layer:
    right = iterated(family)

    def layer(x: Tensor, *parameters: Tensor) -> Tensor:
        return right(x, *(_PerRow.apply(p, len(x)) for p in parameters))

    return layer


class _InEvaluation(nn.Module):
    """A module whose gradient is 1 % off in evaluation mode."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.family = family

    def forward(self, *tensors: Tensor) -> Tensor:
        z = planted(self.family, Recipe())(*tensors)
        return z if self.training else _Scaled.apply(z, _OFF)


def _second_output(family: Family) -> Layer:
    """A second output whose graph is cut."""
    right = planted(family, Recipe())

    def layer(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        z = right(*tensors)
        return z, z.detach().square().sum(-1)

    return layer


class _Holder(nn.Module):
    """A module that holds a parameter, and loses its gradient."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.layer = planted(family, Recipe())
        self.gain = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, *parameters: Tensor) -> Tensor:
        z: Tensor = self.layer(x, *parameters)
        return self.gain.detach() * z


HIDING_BUGS: tuple[HidingBug, ...] = (
    HidingBug(
        "in single precision",
        _where(lambda b: b.x.dtype == torch.float32),
        "single precision",
    ),
    HidingBug("not contiguous", _where(lambda b: not b.x.is_contiguous()), "memory layout"),
    HidingBug("expanded", _where(lambda b: 0 in b.x.stride()), "expanded inputs"),
    HidingBug("one row", _where(lambda b: b.x.shape[0] == 1), "a row alone"),
    HidingBug(
        "saturated",
        _where(lambda b: bool(b.x.abs().max() > 12)),
        "saturated inputs",
        impossible=("transport",),
    ),
    HidingBug("second backward pass", _again, "second backward pass"),
    HidingBug("solution of the latest call", _latest, ""),
    HidingBug("Jacobian of the first call", _cached, "another point"),
    HidingBug("under vmap", _after(_WrongUnderVmap), "vmap"),
    HidingBug(
        "forward over reverse",
        _before(_WrongForwardOverReverse),
        "second order, forward over reverse",
    ),
    HidingBug("evaluation mode", _InEvaluation, "evaluation mode"),
    HidingBug("empty batch", _per_row, "empty batch"),
    HidingBug("forward mode", _after(_WrongForward), "forward against reverse", explored=False),
    HidingBug("second output undifferentiated", _second_output, "", explored=False, equation=False),
    HidingBug("hidden parameter", _Holder, "", explored=False, equation=False),
)
