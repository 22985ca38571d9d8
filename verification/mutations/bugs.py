"""Common gradient bugs, planted in every family of equations.

A usual bug has the name that a diagnosis should give. Some bugs hide: they are small, or show in one row,
one component, or one parameter alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .families import Family
from .planted import Backward, Recipe, Tensors, exact_adjoint, planted

Layer = Callable[..., Any]

LEAST_ERROR = 1e-8
"""Ten times the error that an adjoint equation solved to its usual tolerance leaves in float64."""


@dataclass(frozen=True)
class Bug:
    """A wrong gradient.

    Attributes:
        name: Description of the bug.
        plant: Returns the layer, called as `layer(x, *parameters)`.
        cause: Part of the expected diagnosis.

    Examples:
        >>> sorted(bug.name for bug in BUGS)[:2]
        ['1-term Neumann', '20-term Neumann']
    """

    name: str
    plant: Callable[[Family], Layer]
    cause: str

    def error(self, family: Family, tensors: Tensors) -> float:
        """The largest relative error of a gradient of this layer against the layer without the bug.

        A bug may have no effect: a mean over one row is a sum, and a diagonal Jacobian is its own transpose.
        """
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        says, right = self.plant(family)(*leaves), planted(family, Recipe())(*leaves)
        generator = torch.Generator().manual_seed(11)
        # Large, so that a clip of the adjoint has an effect.
        w = 10 * torch.randn(right.shape, generator=generator, dtype=torch.float64).to(right.dtype)
        wrong = torch.autograd.grad(says, leaves, w, allow_unused=True, materialize_grads=True)
        exact = torch.autograd.grad(right, leaves, w)
        return max(
            float((g - e).norm() / e.norm().clamp(min=torch.finfo(e.dtype).tiny))
            for g, e in zip(wrong, exact, strict=True)
        )

    def shows(self, family: Family, tensors: Tensors) -> bool:
        """True if the bug has an effect for these inputs: its error exceeds that of an adjoint solve."""
        return self.error(family, tensors) > LEAST_ERROR


def _adjoint(rule: Callable[[Backward], Tensor]) -> Callable[[Family], Layer]:
    return lambda family: planted(family, Recipe(adjoint=rule))


def _pull(rule: Callable[[Backward, Tensor], Tensors]) -> Callable[[Family], Layer]:
    return lambda family: planted(family, Recipe(pull=rule))


def _gradients(change: Callable[[Tensors], Tensors]) -> Callable[[Family], Layer]:
    return _pull(lambda b, u: change(b.pull(u)))


def _neumann(terms: int) -> Callable[[Backward], Tensor]:
    def rule(b: Backward) -> Tensor:
        J, w = b.jacobian(), b.flat(b.w)
        u = w
        for _ in range(terms):
            u = J.mT @ u + w
        return u.reshape(b.w.shape)

    return rule


def _loose(relative: float, absolute: float) -> Callable[[Backward], Tensor]:
    """The Neumann series stopped by its own tolerance."""

    def rule(b: Backward) -> Tensor:
        J, w = b.jacobian(), b.flat(b.w)
        u = torch.zeros_like(w)
        for _ in range(1000):
            change = J.mT @ u + w - u
            if float(change.norm()) <= absolute + relative * float(w.norm()):
                break
            u = u + change
        return u.reshape(b.w.shape)

    return rule


def _no_transpose(b: Backward) -> Tensor:
    return b.solve(b.jacobian().mT, b.w)


def _regularised(b: Backward) -> Tensor:
    J = b.jacobian()
    return b.solve(J - 1e-4 * torch.eye(J.shape[-1], dtype=J.dtype), b.w)


def _diagonal(b: Backward) -> Tensor:
    return b.solve(torch.diag_embed(b.jacobian().diagonal(dim1=-2, dim2=-1)), b.w)


def _gauss_seidel(b: Backward) -> Tensor:
    return b.solve(b.jacobian().triu(), b.w)


def _single(b: Backward) -> Tensor:
    J, w = b.jacobian(), b.w
    return b.solve(J.float(), w.float()).to(w.dtype)


def _first_row(b: Backward) -> Tensor:
    J = b.jacobian()
    return b.solve(J[:1].expand_as(J), b.w)


def _stale(share: float) -> Callable[[Backward], Tensor]:
    return lambda b: b.solve(b.jacobian(share * b.z), b.w)


def _second_stale(b: Backward, u: Tensor) -> Tensors:
    return b.pull(u, torch.zeros_like(b.z))


def _mean(tensors: Tensors, batch: int) -> Tensors:
    return (tensors[0], *(t / batch for t in tensors[1:]))


def _edit_first(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: (change(tensors[0]), *tensors[1:])


def _edit_last(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: (*tensors[:-1], change(tensors[-1]))


def _scaled_entry(tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed[(-1,) * tensor.ndim] *= 1.1
    return changed


def _negated_row(tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed[-1] = -changed[-1]
    return changed


def _reversed_matrix(tensors: Tensors) -> Tensors:
    return (tensors[0], tensors[1].flip(0), *tensors[2:])


def _saturated(b: Backward, u: Tensor) -> Tensors:
    """A straight-through shortcut for the entries nearest to saturation."""
    x, *rest = b.pull(u)
    return (torch.where(b.z.abs() >= b.z.abs().max(), u, x), *rest)


def _hidden(family: Family) -> Layer:
    layer = planted(family, Recipe())
    return lambda x, *parameters: layer(x, *(p.detach() for p in parameters))


def _hidden_last(family: Family) -> Layer:
    layer = planted(family, Recipe())
    return lambda x, *parameters: layer(x, *parameters[:-1], parameters[-1].detach())


def _noisy(b: Backward, u: Tensor) -> Tensors:
    generator = torch.Generator().manual_seed(5)
    return tuple(
        t + 1e-3 * t.norm() / t.numel() ** 0.5
        * torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype)
        for t in b.pull(u)
    )  # fmt: skip


def _clipped(b: Backward) -> Tensor:
    u = exact_adjoint(b)
    return u.clamp(-1.5, 1.5)


def _over_batch(b: Backward) -> Tensor:
    return b.solve(b.jacobian(), b.w.mean(dim=0, keepdim=True).expand_as(b.w))


BUGS: tuple[Bug, ...] = (
    Bug("no adjoint solve", _adjoint(lambda b: b.w), cause="no adjoint solve"),
    Bug("no transpose", _adjoint(_no_transpose), cause="not transposed"),
    Bug("sign of J", _adjoint(lambda b: b.solve(-b.jacobian(), b.w)), cause="the sign of J"),
    Bug(
        "sign of the gradient",
        _gradients(lambda g: tuple(-t for t in g)),
        cause="the sign of the gradient",
    ),
    Bug("1-term Neumann", _adjoint(_neumann(1)), cause="after 1 terms"),
    Bug("5-term Neumann", _adjoint(_neumann(5)), cause="after 5 terms"),
    Bug("20-term Neumann", _adjoint(_neumann(20)), cause="after 20 terms"),
    Bug(
        "mean for sum",
        _pull(lambda b, u: _mean(b.pull(u), b.x.shape[0])),
        cause="a mean over the batch",
    ),
    Bug("dropped input", _gradients(_edit_first(torch.zeros_like)), cause="dropped"),
    Bug("dropped parameter", _gradients(_edit_last(torch.zeros_like)), cause="dropped"),
    Bug("all parameters detached", _hidden, cause="detached"),
    Bug("one parameter detached", _hidden_last, cause="detached"),
    Bug(
        "rows rolled",
        _gradients(_edit_first(lambda t: t.roll(1, 0))),
        cause="rows belong to their neighbours",
    ),
    Bug("last row negated", _gradients(_edit_first(_negated_row)), cause="only row"),
    Bug("Jacobian of row 0 for all", _adjoint(_first_row), cause="Jacobian of row 0"),
    Bug(
        "cotangent averaged over the batch",
        _adjoint(_over_batch),
        cause="cotangent is averaged",
    ),
    Bug("Jacobian at the start", _adjoint(_stale(0.0)), cause="the Jacobian is taken at the start"),
    Bug("Jacobian at a stale point", _adjoint(_stale(0.999)), cause="stale"),
    Bug(
        "input derivative at the start",
        _pull(_second_stale),
        cause="derivative in the inputs is taken at the start",
    ),
    Bug("factor 2", _gradients(lambda g: tuple(2 * t for t in g)), cause="factor of 2"),
    Bug(
        "factor 1.0005",
        _gradients(lambda g: tuple(1.0005 * t for t in g)),
        cause="factor of 1.0005",
    ),
    Bug(
        "factor 1.0005 in one parameter",
        _gradients(_edit_last(lambda t: 1.0005 * t)),
        cause="factor of 1.0005",
    ),
    Bug("one entry off by 10%", _gradients(_edit_last(_scaled_entry)), cause="only one entry"),
    Bug("adjoint solved to 1e-4", _adjoint(_loose(1e-4, 0.0)), cause="after"),
    Bug("adjoint with absolute tolerance", _adjoint(_loose(0.0, 1e-3)), cause="after"),
    Bug("adjoint regularised", _adjoint(_regularised), cause="regularised"),
    Bug("adjoint in single precision", _adjoint(_single), cause="single precision"),
    Bug("adjoint clipped", _adjoint(_clipped), cause="clipped"),
    Bug("adjoint damped", _adjoint(lambda b: b.solve(0.9 * b.jacobian(), b.w)), cause="damped"),
    Bug("diagonal of J only", _adjoint(_diagonal), cause="diagonal of J"),
    Bug("Gauss-Seidel adjoint", _adjoint(_gauss_seidel), cause="triangle of J"),
    Bug(
        "direct path counted twice",
        _pull(lambda b, u: b.pull(u + b.w)),
        cause="direct path is counted twice",
    ),
    Bug("parameter gradient mirrored", _gradients(_reversed_matrix), cause="runs backwards"),
    Bug(
        "shortcut where saturated",
        _pull(_saturated),
        cause="only one entry",
    ),
    Bug("noise in the gradient", _pull(_noisy), cause="noise"),
)
