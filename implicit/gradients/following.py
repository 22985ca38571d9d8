"""The solver of a derived equation, by what the solver of its parent knows of the Jacobian."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...solvers import Solver
from ...solvers.interface.golden import golden_signs
from ...solvers.interface.solver import LinearMap, Transpose
from ...solvers.linear.preconditioned import Preconditioned
from ..equations.derived import AdjointEquation
from ..equations.differentiation import MissingDerivativeError, pullback
from ..equations.layout import Layout
from .mode import LinearSolve

# `uᵀ(M v)` and `(Mᵀu)ᵀ v` may differ by this power of the unit of rounding, relative to the terms' size.
_CLOSE = 0.5


def following(linear: LinearSolve) -> Solver | None:
    """The solver that the one of the parent gives for its derivative; `None` where it knows nothing.

    Factors take the pattern of the entries along, transposed for an adjoint. A preconditioner is transposed
    by autograd; one that autograd cannot follow, or that belongs to other systems, is left out.
    """
    equation = linear.equation
    constant = equation.constant(linear.args)
    layout = Layout.of(constant, equation.batch_dims)
    if tuple(layout.batch_shape) != linear.record.batch_shape:
        return None
    like = torch.zeros(
        layout.systems, sum(layout.sizes), dtype=layout.dtype, device=constant[0].device
    )
    transpose = _transposing(like) if isinstance(equation, AdjointEquation) else None
    given = equation.parent.derivatives
    if given is None:
        found = linear.solver.for_derivative(transpose)
    else:
        found = given.for_derivative(linear.solver, layout, transpose)
    if not isinstance(found, Preconditioned) or found.preconditioner is None:
        return found
    return replace(found, preconditioner=_by_parts(found.preconditioner, layout.systems))


def _by_parts(apply: LinearMap, systems: int) -> LinearMap:
    """The map for several batches of `systems`: `vmap` puts its axis before theirs."""

    def product(v: Tensor) -> Tensor:
        if len(v) == systems:
            return apply(v)
        return torch.cat([apply(part) for part in v.split(systems)])

    return product


def _transposing(like: Tensor) -> Transpose:
    """Gives the transposes of linear maps on tensors like this one."""

    def transpose(apply: LinearMap) -> LinearMap | None:
        u = golden_signs(like).expand_as(like)
        v = golden_signs(like, like.shape[1] + 1).expand_as(like)
        try:
            with torch.no_grad():
                _, back = pullback(lambda v: (apply(v),), (like,))
                mine, other = v * back((u,))[0], u * apply(v)
        except (MissingDerivativeError, RuntimeError):
            # Autograd does not follow the map, which may compute by NumPy.
            return None
        size = (mine.abs() + other.abs()).sum()
        close = (mine.sum() - other.sum()).abs() <= torch.finfo(like.dtype).eps ** _CLOSE * size
        return (lambda u: back((u,))[0]) if bool(close) else None

    return transpose
