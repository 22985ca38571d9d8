"""The short way of a compiled solve, for calls in which nothing is new and all goes well.

A function that has been solved by a compiled graph before is solved by it straight away. Its evaluation at
the start, which examines it in every call, is made at the end instead, and confirms the solution as well.
Where anything is unusual, or the solution is not confirmed, the call takes the general way from the start.

The first-order adjoint likewise: one product with the transposed Jacobian, taken by autograd at the solution,
confirms the adjoint and gives the gradients of the arguments.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...solvers import Compiled, Counts, Status, Stopping
from ...solvers.driving.progress import SLOW
from ...solvers.graph.methods import method_of
from ...solvers.graph.run import CompiledLoop, Run, loop_key
from ...solvers.interface.norms import rms_unit
from ...solvers.interface.solver import Solver
from ...solvers.interface.stopping import DEFAULTS
from ...solvers.interface.tolerance import threshold
from ...solvers.interface.traced import Part, TracedEquation
from ..calls.outcome import CallOutcome, Record, Solved
from ..calls.settings import Settings
from ..equations.derived import AdjointEquation, Packed
from ..equations.differentiation import transforming
from ..equations.equation import Equation
from ..equations.identity import Holder, Identity
from ..equations.layout import Layout, Leaves
from ..gradients.mode import ImplicitGradient
from .memory import MEMORY

_CONVERGED = int(Status.CONVERGED)
_MOST_FUNCTIONS = 64


class _Captured:
    """The leaf tensors that functions close over, from call to call."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, tuple[Holder, Holder]] = OrderedDict()

    def note(self, identity: Identity, captured: Leaves) -> None:
        """Keep what a function was found to close over."""
        self._known[identity.key] = Holder(identity.objects), Holder(captured)
        self._known.move_to_end(identity.key)
        while len(self._known) > _MOST_FUNCTIONS:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget all functions."""
        self._known.clear()

    def find(self, identity: Identity) -> Leaves | None:
        """The tensors; `None` for a function that is not known."""
        found = self._known.get(identity.key)
        if found is None or not found[0].holds(identity.objects):
            return None
        captured = found[1].objects()
        return None if any(one is None for one in captured) else captured


CAPTURED = _Captured()
"""The functions that compiled graphs have solved in this process."""


class Straight(NamedTuple):
    """A solution by a compiled graph, not yet confirmed.

    Attributes:
        run: The end of the run.
        layout: The layout of the unknown.
        rtol: The relative tolerance.
        precision: The dtype that residuals are computed in.
        loop: The compiled loop.
        traced: Its equation.
    """

    run: Run
    layout: Layout
    rtol: float
    precision: torch.dtype
    loop: CompiledLoop | None = None
    traced: TracedEquation | None = None

    @property
    def leaves(self) -> Leaves:
        """The solution in leaves."""
        return self.layout.unflatten(self.run.z)

    def record(self, norm: np.ndarray) -> Record:
        """The record of a call that this has solved."""
        record = Record(counts=Counts(evaluations=self.run.total + 2))
        record.solved = Solved(norm, np.ones(len(norm), dtype=bool), self.precision)
        record.best_steps, record.batch_shape = self.run.best_step, tuple(self.layout.batch_shape)
        return record

    def confirmed(self, value: Leaves) -> tuple[CallOutcome, Record] | None:
        """The outcome and its record, if `value`, that of the function at the solution, confirms it."""
        z, run = self.run.z, self.run
        with torch.no_grad():
            norm, size = _norms(self.layout.flatten(value) - z), _norms(z)
        if not (norm <= self.rtol * size).all():
            return None
        return _outcome(self.leaves, run, norm, self.layout), self.record(norm)


def straight(
    equation: Equation, solver: Solver, stopping: Stopping | None, start: Leaves, args: Leaves
) -> Straight | None:
    """The fixed point of an equation by its compiled graph; `None` if that does not solve every system."""
    rule = stopping or DEFAULTS
    layout = Layout.of(start, equation.batch_dims)
    if layout.narrows or not _only_steps(rule) or layout.systems == 0:
        return None
    z = layout.flatten(start)
    found = _loop(equation, solver, layout, args, z, "function")
    if found is None:
        return None
    loop, traced = found
    run = loop(traced, z, z, None, loop.asked_plainly(rule, z, layout.dtype))
    if not solved_everywhere(run):
        return None
    return Straight(run, layout, rule.relative(layout.dtype), layout.dtype, loop, traced)


def solved_everywhere(run: Run) -> bool:
    """True if every system has converged soon, with a known error: the general way finds out any other."""
    if not bool((run.status == _CONVERGED).all()) or np.isnan(run.error).any():
        return False
    return not (run.steps >= SLOW).any()


def adjoint(
    equation: Equation,
    solver: Solver,
    stopping: Stopping | None,
    z: Leaves,
    cotangents: Leaves,
    args: Leaves,
    needed: list[int],
) -> tuple[CallOutcome, Counts, Leaves, Leaves] | None:
    """The adjoint by its compiled graph, and the gradients of the arguments; `None` to take the general way.

    Args:
        equation: The equation that was solved.
        solver: The solver of its adjoint.
        stopping: Its stopping rule.
        z: The solution.
        cotangents: The cotangents of the solution.
        args: The arguments.
        needed: The arguments whose gradients are asked for.

    Returns:
        The outcome of the adjoint, its work, the value of the function at the solution, and the gradients.
    """
    rule = stopping or DEFAULTS
    derived = AdjointEquation(equation, len(z))
    layout = Layout.of(z, equation.batch_dims)
    if layout.narrows or not _only_steps(rule) or layout.systems == 0:
        return None
    constant = layout.flatten(cotangents)
    start = torch.zeros_like(constant)
    packed = Packed(z, cotangents, args).flat
    found = _loop(derived, solver, layout, packed, start, "operator")
    if found is None:
        return None
    loop, traced = found
    sign = 1.0 if equation.form == "fixed_point" else -1.0
    asked = loop.asked_plainly(rule, start, layout.dtype)
    run = loop(traced, start, constant if sign > 0 else -constant, None, asked)
    if not (run.status == _CONVERGED).all():
        return None
    u = layout.unflatten(run.z)
    value, found_gradients = _pulled_back(equation, z, args, needed, u)
    with torch.no_grad():
        product = layout.flatten(found_gradients[: len(z)])
        residual = product + constant - run.z if sign > 0 else product + constant
        norm, size = _norms(residual), _norms(constant)
        if not (norm <= threshold(rule.relative(layout.dtype), rule.atol or 0.0, size)).all():
            return None
        outcome = _outcome(u, run, norm, layout)
    counts = Counts(evaluations=run.total * method_of(solver).evaluations + 1)
    return outcome, counts, value, found_gradients[len(z) :]


def _loop(
    equation: Equation, solver: Solver, layout: Layout, args: Leaves, z: Tensor, part: Part
) -> tuple[CompiledLoop, TracedEquation] | None:
    """The compiled loop and the traced equation, if there are."""
    if not equation.traceable:
        return None
    traced = MEMORY.known(equation, equation.identity(), layout, args, part, z)
    if traced is None:
        return None
    key = loop_key(solver, equation.form, part == "operator", layout.dtype)
    loop = traced.trace.parts.get(key)
    return None if loop is None else (loop, traced)


def inner(solver: Solver | None) -> Solver | None:
    """The solver in a `Compiled`; `None` for any other."""
    return solver.solver if type(solver) is Compiled else None


def by_graph(settings: Settings) -> bool:
    """True if a call with these settings may go straight to a compiled graph."""
    gradient = settings.chosen_gradient
    asks_more = settings.trace or settings.watched or settings.linear or settings.causal
    return (
        inner(settings.chosen_solver) is not None
        and settings.form == "fixed_point"
        and not asks_more
        and isinstance(gradient, ImplicitGradient)
        and not gradient.keeps_inverse
        and not transforming()
        # Within the function of another equation tensors stand in for others.
        and not torch._C._len_torch_function_stack()
    )


def _pulled_back(
    equation: Equation, z: Leaves, args: Leaves, needed: list[int], u: Leaves
) -> tuple[Leaves, Leaves]:
    """The value at `z`, and the products of `u` with its derivatives in `z` and in the arguments `needed`.

    Leaves of autograd are differentiated as themselves, unless one occurs twice: a module that holds them is
    then called as it is.
    """
    if len(set(map(id, args))) < len(args):
        value, back = equation.pullback_arguments(z, args, needed, with_z=True)
        return value, back(u)
    wanted = set(needed)
    own = tuple(
        arg if arg.is_leaf and (i in wanted) == arg.requires_grad else _apart(arg, i in wanted)
        for i, arg in enumerate(args)
    )
    at = tuple(leaf.detach().requires_grad_() for leaf in z)
    with torch.enable_grad():
        value = equation.evaluate(at, own)
    inputs = (*at, *(own[i] for i in needed))
    connected = [(v, c) for v, c in zip(value, u, strict=True) if v.requires_grad]
    if not connected:
        return value, tuple(map(torch.zeros_like, inputs))
    outputs, cotangents = zip(*connected, strict=True)
    return value, torch.autograd.grad(
        outputs, inputs, cotangents, allow_unused=True, materialize_grads=True
    )


def _apart(arg: Tensor, wanted: bool) -> Tensor:
    arg = arg.detach()
    return arg.requires_grad_() if wanted else arg


def _only_steps(rule: Stopping) -> bool:
    """True if no limit is asked for that the graph does not know."""
    return (
        rule.max_seconds is rule.max_evaluations is rule.max_products is rule.atol_residual is None
    )


def _norms(rows: Tensor) -> np.ndarray:
    norms = torch.linalg.vector_norm(rows, dim=1).cpu().numpy()
    return np.asarray(norms, np.float64) * rms_unit(rows.shape[1])


def _outcome(leaves: Leaves, run: Run, norm: np.ndarray, layout: Layout) -> CallOutcome:
    def per_system(entries: np.ndarray, dtype: torch.dtype | None = None) -> Tensor:
        made = torch.from_numpy(entries)
        if dtype is not None or run.z.device.type != "cpu":
            made = made.to(run.z.device, dtype)
        return made if len(layout.batch_shape) == 1 else made.reshape(layout.batch_shape)

    return CallOutcome(
        leaves,
        per_system(run.status.astype(np.int8)),
        per_system(norm, layout.dtype),
        per_system(run.steps),
        per_system(run.best_step),
        per_system(run.error, layout.dtype),
    )
