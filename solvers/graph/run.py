"""One run of a compiled loop: tensors in, arrays out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..driving.acceptance import Demand
from ..driving.progress import Rules
from ..driving.rounding import level
from ..interface.goal import Goal
from ..interface.problem import Problem
from ..interface.solver import Solver
from ..interface.traced import TracedEquation
from .building import compiled, loop_graph
from .cut import Cut
from .loop import Asked, Loop
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
    problem: Problem
    equation: TracedEquation
    _numbers: dict[tuple[float, ...], Tensor] = field(default_factory=dict)
    _whole: dict[int, tuple[Tensor, ...]] = field(default_factory=dict)

    @staticmethod
    def of(solver: Solver, problem: Problem, z: Tensor) -> tuple[CompiledLoop, TracedEquation]:
        """The loop for a problem, compiled if it is new, and its equation at the arguments of the problem.

        Raises:
            GraphError: The equation cannot be traced.
        """
        assert problem.graph is not None  # for the type checker
        equation = problem.graph(method_of(solver).part, z)
        precision = problem.dtype(z)
        key = (solver, problem.form, problem.linear, precision, torch.get_num_threads())
        found = equation.trace.parts.get(key)
        if found is None:
            found = equation.trace.parts[key] = CompiledLoop(solver, problem, equation)
            found.compile(z)
        return found, equation

    def compile(self, z: Tensor) -> None:
        """Trace and compile the loop."""
        problem, solver = self.problem, self.solver
        method, fine = method_of(solver), Demand.of(problem.dtype(z), None).is_fine

        def loop(equation: Cut) -> Loop:
            return Loop(
                method, equation, problem.form, problem.linear, recursive=solver.confirm_residual,
                ends_itself=solver.ends_itself, fine=fine,
            )  # fmt: skip

        self._run = compiled(*loop_graph(loop, self.equation.trace))
        self._cycle = method.cycle(z.shape[1])
        del self.problem, self.equation

    def __call__(
        self,
        problem: Problem,
        equation: TracedEquation,
        z: Tensor,
        residual: Tensor,
        length: Tensor | None,
        goal: Goal,
        held: np.ndarray | None,
        limit: float,
        first: Tensor | None,
    ) -> Run:
        """Run from `z`, whose residual is `residual`, for `limit` steps at most.

        Args:
            problem: The systems.
            equation: Its traced equation.
            z: The start.
            residual: The residual there.
            length: The length of a first step, `(batch, 1)`; `None` for 1.
            goal: Tolerances.
            held: Systems that take no part.
            limit: The most steps.
            first: Norms of the first residual; `None` if that is `residual`.
        """
        unknown, nobody, ones = self._constants(z)
        limit = min(limit, _UNLIMITED, math.inf if self._cycle is None else self._cycle)
        reference = goal.reference
        asked = Asked(
            torch.from_numpy(goal.tolerance.rtol).to(z.device),
            torch.from_numpy(goal.tolerance.atol).to(z.device),
            unknown if first is None else first,
            unknown if reference is None else reference.detach().to(torch.float64),
            nobody if held is None else torch.from_numpy(held).to(z.device),
            self._rules(problem, z, goal, limit),
        )
        inputs = (*asked, *equation.inputs)
        tensors = (z, residual, ones if length is None else length, *inputs)
        report = self._run(*(_plain(tensor) for tensor in tensors))
        systems = report.systems.cpu().numpy()
        status, steps, best_step = systems[:3].astype(np.int64)
        return Run(report.z, status, steps, best_step, systems[3], systems[4], int(report.steps))

    def _constants(self, z: Tensor) -> tuple[Tensor, ...]:
        """NaN for each system, False for each, and ones as a column."""
        batch = z.shape[0]
        found = self._whole.get(batch)
        if found is None:
            if len(self._whole) >= _MOST_RULES:
                self._whole.clear()
            unknown = torch.full((batch,), torch.nan, dtype=torch.float64, device=z.device)
            found = unknown, torch.zeros_like(unknown, dtype=torch.bool), z.new_ones(batch, 1)
            self._whole[batch] = found
        return found

    def _rules(self, problem: Problem, z: Tensor, goal: Goal, limit: float) -> Tensor:
        stopping, solver = goal.stopping, self.solver
        rules = Rules.of(
            stopping, z.shape[1], recursive=solver.confirm_residual, ends_itself=solver.ends_itself
        )
        xtol = Demand.of(problem.dtype(z), stopping.rtol).xtol
        key = (
            limit, rules.patience, rules.patience_at_rounding, rules.divergence, level(problem, z), xtol,
        )  # fmt: skip
        found = self._numbers.get(key)
        if found is None:
            if len(self._numbers) >= _MOST_RULES:
                self._numbers.clear()
            found = self._numbers[key] = torch.tensor(key, dtype=torch.float64, device=z.device)
        return found


def _plain(tensor: Tensor) -> Any:
    """A tensor as compiled code takes it: in one piece, and of no graph."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor if tensor.is_contiguous() else tensor.contiguous()
