"""One run of a compiled loop: tensors in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..driving.demand import Demand
from ..driving.progress import Rules
from ..driving.rounding import level_of
from ..interface.goal import Goal
from ..interface.problem import Form, Problem
from ..interface.solver import Solver
from ..interface.stopping import Stopping
from ..interface.traced import Part, TracedEquation
from .building import compiled, loop_graph
from .cut import Cut
from .loop import Asked, Loop, Report
from .methods import method_of

_UNLIMITED = 2.0**52
# Stopping rules of which the numbers are kept as tensors.
_MOST_RULES = 16


class Run(NamedTuple):
    """The end of a run; arrays have an entry per system, norms are root-mean-square.

    Attributes:
        z: The iterates to return.
        status: `Status` codes by residuals of the graph.
        steps: Steps of each system.
        best_step: The steps that reached `z`.
        norm: Residual norms at `z`, by the graph.
        error: Estimates of the relative error of `z`, NaN where nothing is known.
        total: Steps of the loop.
    """

    z: Tensor
    status: np.ndarray
    steps: np.ndarray
    best_step: np.ndarray
    norm: np.ndarray
    error: np.ndarray
    total: int


@dataclass
class CompiledLoop:
    """The compiled loop of one solver on one traced equation."""

    solver: Solver
    _run: Callable[..., Report]
    _asked: dict[Any, Asked] = field(default_factory=dict)
    _columns: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)

    @staticmethod
    def of(solver: Solver, problem: Problem, z: Tensor) -> tuple[CompiledLoop, TracedEquation]:
        """The loop for a problem, compiled if it is new, and its equation at the arguments of the problem.

        Raises:
            GraphError: The equation cannot be traced.
        """
        assert problem.graph is not None  # for the type checker
        equation = problem.graph(method_of(solver).part, z)
        precision = problem.dtype(z)
        key = loop_key(solver, problem.form, problem.linear, precision)
        found = equation.trace.parts.get(key)
        if found is None:
            found = equation.trace.parts[key] = _compiled(
                solver, equation, problem.form, problem.linear, precision
            )
        return found, equation

    def __call__(
        self,
        equation: TracedEquation,
        z: Tensor,
        residual: Tensor,
        length: Tensor | None,
        asked: Asked,
    ) -> Run:
        """Run from `z`, whose residual is `residual`.

        Args:
            equation: The traced equation.
            z: The start.
            residual: The residual there; used of a linear equation alone.
            length: The length of a first step, `(batch, 1)`; `None` for 1.
            asked: Tolerances and limits.
        """
        ones = self._constants(z)[2] if length is None else length
        tensors = (z, residual, ones, *asked, *equation.inputs)
        report = self._run(*map(_plain, tensors))
        systems = report.systems.cpu().numpy()
        status, steps, best_step = systems[:3].astype(np.int64)
        return Run(report.z, status, steps, best_step, systems[3], systems[4], int(report.steps))

    def asked(
        self,
        goal: Goal,
        z: Tensor,
        precision: torch.dtype,
        held: np.ndarray | None,
        limit: float,
        first: Tensor | None,
    ) -> Asked:
        """The numbers of a run.

        Args:
            goal: Tolerances.
            z: The start.
            precision: The dtype that residuals are computed in.
            held: Systems that take no part.
            limit: The most steps.
            first: Norms of the first residual; `None` if that is the one at `z`.
        """
        unknown, nobody, _ = self._constants(z)
        reference = goal.reference
        return Asked(
            torch.from_numpy(goal.tolerance.rtol).to(z.device),
            torch.from_numpy(goal.tolerance.atol).to(z.device),
            unknown if first is None else first,
            unknown if reference is None else reference.detach().to(torch.float64),
            nobody if held is None else torch.from_numpy(held).to(z.device),
            self._rules(goal.stopping, z, precision, limit),
        )

    def asked_plainly(self, stopping: Stopping, z: Tensor, precision: torch.dtype) -> Asked:
        """The numbers of a run of all systems by a rule alone; the same tensors each time."""
        key = (stopping, z.shape[0], precision)
        found = self._asked.get(key)
        if found is None:
            unknown, nobody, _ = self._constants(z)
            rtol = torch.full_like(unknown, stopping.relative(precision))
            atol = unknown if stopping.atol is None else torch.full_like(unknown, stopping.atol)
            if self.solver.linear_only and stopping.atol is None:
                atol = torch.zeros_like(unknown)
            numbers = self._rules(stopping, z, precision, None)
            found = Asked(rtol, atol, unknown, unknown, nobody, numbers)
            _bounded(self._asked)[key] = found
        return found

    def _constants(self, z: Tensor) -> tuple[Tensor, ...]:
        """NaN for each system, False for each, and ones as a column."""
        batch = z.shape[0]
        found = self._columns.get(batch)
        if found is None:
            unknown = torch.full((batch,), torch.nan, dtype=torch.float64, device=z.device)
            found = unknown, torch.zeros_like(unknown, dtype=torch.bool), z.new_ones(batch, 1)
            _bounded(self._columns)[batch] = found
        return found

    def _rules(
        self, stopping: Stopping, z: Tensor, precision: torch.dtype, limit: float | None
    ) -> Tensor:
        numbers = rule_numbers(stopping, self.solver, z.shape[1], precision, limit)
        return torch.tensor(numbers, dtype=torch.float64, device=z.device)


def rule_numbers(
    stopping: Stopping, solver: Solver, n: int, precision: torch.dtype, limit: float | None
) -> tuple[float, ...]:
    """The `numbers` of an `Asked`.

    Args:
        stopping: The stopping rule.
        solver: The solver.
        n: Unknowns of a system.
        precision: The dtype that residuals are computed in.
        limit: The most steps; `None` for those of the rule or of the solver.
    """
    rules = Rules.of(
        stopping,
        n,
        recursive=solver.confirm_residual,
        ends_itself=solver.ends_itself,
        most=solver.most_patience,
    )
    if limit is None:
        steps = stopping.max_steps
        limit = solver.default_max_steps if steps is None else steps
    cycle = method_of(solver).cycle(n)
    return (
        min(limit, _UNLIMITED if cycle is None else cycle),
        rules.patience,
        rules.patience_at_rounding,
        rules.divergence,
        level_of(precision),
        Demand.of(precision, stopping).xtol,
    )


def loop_key(solver: Solver, form: Form, linear: bool, precision: torch.dtype) -> Hashable:
    """The name of a loop among the parts of a traced equation."""
    return solver, form, linear, precision, torch.get_num_threads()


def _compiled(
    solver: Solver, equation: TracedEquation, form: Form, linear: bool, precision: torch.dtype
) -> CompiledLoop:
    make, _ = loop_of(solver, form, linear, precision)
    return CompiledLoop(solver, compiled(*loop_graph(make, equation.trace)))


def loop_of(
    solver: Solver, form: Form, linear: bool, precision: torch.dtype, *, unrolled: bool = True
) -> tuple[Callable[[Cut], Loop], Part]:
    """The loop of a solver for an equation that is to be cut, and the part of the equation that it takes.

    Args:
        solver: The solver.
        form: The form of the equation.
        linear: The equation is linear.
        precision: The dtype of residuals.
        unrolled: Small equations within a step are eliminated entry by entry; see `Method`.
    """
    method = replace(method_of(solver), unrolled=unrolled)
    fine = Demand.of(precision, Stopping()).is_fine

    def loop(equation: Cut) -> Loop:
        return Loop(
            method, equation, form, linear, recursive=solver.confirm_residual,
            ends_itself=solver.ends_itself, fine=fine,
        )  # fmt: skip

    return loop, method.part


def _bounded(memory: dict[Any, Any]) -> dict[Any, Any]:
    """The memory with room for one more entry."""
    if len(memory) >= _MOST_RULES:
        memory.clear()
    return memory


def _plain(tensor: Tensor) -> Any:
    """A tensor as compiled code takes it: in one piece, and of no graph."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor if tensor.is_contiguous() else tensor.contiguous()
