"""The adjoint of many small compiled systems, each by factors of its own Jacobian, in compiled code.

The general way differentiates the equation through autograd and keeps the books of a linear solver. For
10,000 systems of one unknown that takes three times as long as the solve. Here one pass of compiled code
factors the Jacobians, scaled by rows and columns, and refines each solution once. It is taken where every
system then meets its equation to rounding, entry by entry, and none is close to singular; elsewhere the
general way finds out what is wrong.

Source: Golub & Van Loan 2013, section 3.5 (scaling, refinement); Skeel 1980 (one step of refinement makes
the backward error small in each entry); Oettli & Prager 1964 (that error).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...solvers import Counts, Status
from ...solvers.interface.compiled_systems import in_blocks
from ..calls.outcome import CallOutcome
from ..equations.differentiation import transforming
from ..equations.equation import Equation, GivenEquation
from ..equations.layout import Layout, Leaves


def compiled_adjoint(
    equation: Equation, z: Leaves, cotangents: Leaves, args: Leaves, needed: list[int]
) -> tuple[CallOutcome, Counts, Leaves, Leaves] | None:
    """The adjoint and the gradients of the arguments; `None` where the general way is to be taken.

    Args:
        equation: The equation that was solved.
        z: The solution, plain tensors.
        cotangents: The cotangents of the solution.
        args: The arguments.
        needed: The arguments whose gradients are asked for.

    Returns:
        The outcome of the adjoint, its work, the value of the function at the solution, and the gradients.
    """
    form = equation.compiled if isinstance(equation, GivenEquation) else None
    layout = Layout.of(z, equation.batch_dims)
    if form is None or transforming() or len(z) != 1 or layout.sizes != [form.n]:
        return None
    plain = (*z, *cotangents, *args)
    if len(args) != 1 or any(t.dtype != torch.float64 or t.device.type != "cpu" for t in plain):
        return None
    parameters = form.expand(layout.batch_shape, args)
    known = form.map(parameters.shape[-1])
    found = _solved(
        _flat(known.jacobian("z", z[0], parameters), form.n, form.n),
        _flat(cotangents[0], form.n),
        fixed=equation.form == "fixed_point",
    )
    if found is None:
        return None
    flat, norm = found
    u = torch.from_numpy(flat).reshape(z[0].shape)
    gradients: Leaves = ()
    if needed:
        by_parameters = known.jacobian("parameters", z[0], parameters)
        gradient = (u.unsqueeze(-1) * by_parameters).sum(-2)
        gradients = (gradient.sum_to_size(args[0].shape),)
    counts = Counts(evaluations=1, vjps=form.n)
    return _outcome(u, norm, layout), counts, (known.values(z[0], parameters),), gradients


def _solved(
    jacobians: np.ndarray, cotangents: np.ndarray, *, fixed: bool
) -> tuple[np.ndarray, np.ndarray] | None:
    """The adjoints and the norms of their residuals; `None` if a system is not solved to rounding."""
    from .compiled_kernels import adjoint_kernel

    systems, n = cotangents.shape
    out, norm = np.empty_like(cotangents), np.empty(systems)
    solve, workspace = adjoint_kernel(n)

    def work(start: int, stop: int) -> None:
        solve(jacobians, cotangents, out, norm, fixed, start, stop, *workspace())

    in_blocks(work, systems)
    return None if np.isnan(norm).any() else (out, norm)


def _flat(tensor: Tensor, *shape: int) -> np.ndarray:
    rows: np.ndarray = tensor.detach().reshape(-1, *shape).contiguous().numpy()
    return rows


def _outcome(u: Tensor, norm: np.ndarray, layout: Layout) -> CallOutcome:
    shape = layout.batch_shape
    once = torch.ones(shape, dtype=torch.int64)
    status = torch.full(shape, int(Status.CONVERGED), dtype=torch.int8)
    unknown = torch.full(shape, torch.nan, dtype=u.dtype)
    return CallOutcome((u,), status, torch.from_numpy(norm).reshape(shape), once, once, unknown)
