"""Whole solves in one compiled graph: equation, steps of the solver and stopping of each system."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..driving.driver import solve
from ..driving.estimate import MOST_DENSE
from ..driving.ledger import Ledger
from ..driving.progress import CONVERGED, MAX_STEPS, REFINED, SLOW, STALLED
from ..graph.methods import method_of
from ..graph.run import CompiledLoop, Run
from ..interface.goal import Goal
from ..interface.norms import rms_unit
from ..interface.problem import Problem
from ..interface.scale import first_step_length
from ..interface.solver import RunOutcome, Solver, WholeSolver
from ..interface.tolerance import threshold
from ..interface.traced import TracedEquation
from ..linear.rows import norm

# Runs of the graph on a system whose residual was larger than the graph said, or whose cycle ended.
_MOST_RUNS = 64
# The graph is another equation if its residual norm is off by this part of itself,
_SAME = 0.1
# and by so many roundings of the size of iterate and first residual.
_ROUNDINGS = 1e3


class NotCompiledWarning(UserWarning):
    """A solve that was to be compiled runs operation by operation."""


@dataclass(frozen=True)
class Compiled(WholeSolver):
    """The solve of `solver` in one compiled graph: equation, steps, and the stopping of each system.

    The equation is traced to a graph of tensor operations when it is first solved, and compiled together with
    the loop, which takes 10 to 60 s; a later process on the same machine finds the library on disk. Further
    calls take it from memory: the same function with other arguments, parameters and, after a second
    compilation, numbers of systems. Nothing compiles unless this solver is asked for.

    The driver judges the end like that of any solver. It evaluates the function itself at the values of the
    graph, so that a graph which no longer fits (a module has got another attribute since) is found out, and
    dropped. Systems that the graph has not solved are solved by `solver` operation by operation.

    Numbers of Python become part of the graph. A function that cannot be traced raises a `GraphError`: one
    that draws random numbers, branches on values, or leaves PyTorch. Derivatives of second order, forward
    mode, `vmap` and other transforms of `torch.func` run without a graph, as do solves with a callback, a
    trace or a limit on seconds; a `NotCompiledWarning` says so once.

    Attributes:
        solver: `FixedPointIteration`, `Anderson`, `Broyden` or `Newton`, of linear equations `NeumannSeries`,
            `BiCGStab` or `GMRES`. In a graph `Newton` halves the steps that do not lower the residual, and
            `Broyden` drops its updates where 24 are stored.

    Raises:
        TypeError: `solver` is none of these, or has a preconditioner.

    Source: Ansel et al. 2024 (the compiler); Bai, Kolter & Koltun 2019 (one graph for a solve needs no memory
    of its steps).

    Examples:
        >>> import implicitly
        >>> solver = implicitly.Compiled(implicitly.Anderson())
        >>> gradient = implicitly.Exact(solver=implicitly.Compiled(implicitly.GMRES()))
        >>> layer = implicitly.ImplicitLayer(torch.cos, solver=solver, gradient=gradient)
        >>> implicitly.Compiled(implicitly.DenseLU())
        Traceback (most recent call last):
        TypeError: Compiled(solver) takes one of FixedPointIteration, Anderson, Broyden, Newton, NeumannSeries, BiCGStab, GMRES, got DenseLU()
    """  # noqa: E501

    solver: Solver
    needs: ClassVar[str] = "an equation that can be traced; a compiler"
    suits: ClassVar[str] = "many calls of one equation, as in training: whole solves in one graph"

    def __post_init__(self) -> None:
        method_of(self.solver)

    @property
    def linear_only(self) -> bool:  # type: ignore[override]
        return self.solver.linear_only

    @property
    def default_max_steps(self) -> int:  # type: ignore[override]
        return self.solver.default_max_steps

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        reason = _why_not(problem, z, goal)
        if reason is not None:
            _say_once(reason)
            return self._rest(problem, z, residual, goal, goal.held).outcome(norms_known=True)
        loop, equation = CompiledLoop.of(self.solver, problem, z)
        solving = _Solving(self.solver, problem, goal, loop, equation)
        ledger, start, unsolved = solving.run(z, residual)
        if unsolved is not None and unsolved.any():
            rest = self._rest(problem, start, None, goal, ~unsolved)
            solved = unsolved & ((rest.norm <= ledger.norm) | (rest.status == CONVERGED))
            ledger.steps = np.where(unsolved, ledger.steps + rest.steps, ledger.steps)
            ledger.end(unsolved, rest.status[unsolved], ledger.steps[unsolved])
            ledger.keep(solved, rest.z, rest.norm, ledger.steps)
            ledger.error = np.where(unsolved, rest.error, ledger.error)
            ledger.reasons.update(rest.reasons)
        if problem.form == "fixed_point" and z.shape[1] <= MOST_DENSE:
            # Extrapolation may have hidden the slowest part of the error: the driver finds out.
            ledger.error = np.where(ledger.steps >= SLOW, np.nan, ledger.error)
        return ledger.outcome(norms_known=True)

    def _rest(
        self,
        problem: Problem,
        z: Tensor,
        residual: Tensor | None,
        goal: Goal,
        held: np.ndarray | None,
    ) -> Ledger:
        """The systems that are not `held`, solved operation by operation."""
        result = solve(
            problem, self.solver, z, goal.budget.limit(goal.stopping), residual=residual,
            tolerance=goal.tolerance, reference=goal.reference, callback=goal.callback, trace=goal.trace,
            held=held,
        )  # fmt: skip
        ledger = Ledger(result.z)
        ledger.end(slice(None), result.status, result.steps)
        ledger.norm, ledger.error = result.residual_norm, result.error
        ledger.reasons.update(result.reasons)
        if result.trace is not None:
            ledger.trace.extend(result.trace)
        return ledger


def _why_not(problem: Problem, z: Tensor, goal: Goal) -> str | None:
    """The reason for which a solve runs without a graph."""
    if problem.graph is None:
        return (
            "this equation has no graph: it is a derivative of second order or in forward mode, is mapped by "
            "vmap, is causal, has numbers at the ends of the range of its dtype, or was given to a solver "
            "as a Problem without one"
        )
    if goal.callback is not None or goal.trace or goal.budget.deadline < math.inf:
        return "a graph has no callback, records no trace, and looks at no clock (max_seconds)"
    if torch._C._functorch.is_functorch_wrapped_tensor(z):
        return "a transform of torch.func is at work"
    if z.numel() == 0:
        return "there is nothing to solve"
    if z.device.type not in ("cpu", "cuda"):
        return f"there is no compiler for {z.device.type}"
    return None


_SAID: set[str] = set()


def _say_once(reason: str) -> None:
    if reason not in _SAID:
        _SAID.add(reason)
        warnings.warn(
            f"Compiled(...) solves operation by operation, since {reason}",
            NotCompiledWarning,
            stacklevel=2,
        )


@dataclass
class _Solving:
    """Runs of the graph on one batch, each confirmed by an evaluation of the function."""

    solver: Solver
    problem: Problem
    goal: Goal
    loop: CompiledLoop
    equation: TracedEquation

    def run(self, z: Tensor, residual: Tensor) -> tuple[Ledger, Tensor, np.ndarray | None]:
        """The ledger of all systems, and from where those should go on that the graph has not solved."""
        goal, problem = self.goal, self.problem
        length = None
        if not problem.linear and problem.form == "root":
            length = first_step_length(problem, z, residual)
        ledger, held = Ledger(z), goal.held
        ran = self._once(z, residual, length, held, goal.budget.steps, None)
        value, norms = self._evaluated(ran.z)
        if held is None and (ran.status == CONVERGED).all() and (norms[0] <= norms[1]).all():
            return self._entered(ledger, ran, norms[0]), z, None
        return self._again(z, residual, length, ran, value, norms)

    def _once(
        self,
        z: Tensor,
        residual: Tensor,
        length: Tensor | None,
        held: np.ndarray | None,
        limit: float,
        first: Tensor | None,
    ) -> Run:
        """One run of the graph, and its work in the counts."""
        counts, method, budget = self.problem.counts, method_of(self.solver), self.goal.budget
        products = z.shape[1] if method.part == "jacobian" else 0
        limit = min(limit, budget.evaluations_left // method.evaluations)
        if products:
            limit = min(limit, max(budget.products - counts.products, 0) // products)
        precision = self.problem.dtype(z)
        asked = self.loop.asked(self.goal, z, precision, held, limit, first)
        ran = self.loop(self.equation, z, residual, length, asked)
        counts.evaluations += ran.total * method.evaluations
        counts.jvps += (ran.total + 1) * products
        return ran

    def _evaluated(self, z: Tensor) -> tuple[Tensor, np.ndarray]:
        """The residual at `z` by the function itself, and for each system its norm and the tolerance."""
        residual, goal = self.problem.residual(z), self.goal
        norms = [norm(residual)] if goal.reference is not None else [norm(residual), norm(z)]
        read = torch.cat(norms, dim=1).detach().cpu().numpy().astype(np.float64).T
        read = read * rms_unit(z.shape[1])
        size = read[1] if goal.reference is None else goal.reference.cpu().double().numpy()
        return residual, np.stack(
            (read[0], threshold(goal.tolerance.rtol, goal.tolerance.atol, size))
        )

    def _entered(self, ledger: Ledger, ran: Run, norms: np.ndarray) -> Ledger:
        ledger.z, ledger.norm, ledger.error = ran.z, norms, ran.error
        ledger.best_step = ran.best_step
        ledger.end(slice(None), ran.status, ran.steps)
        return ledger

    def _again(
        self,
        z: Tensor,
        residual: Tensor,
        length: Tensor | None,
        ran: Run,
        value: Tensor,
        norms: np.ndarray,
    ) -> tuple[Ledger, Tensor, np.ndarray]:
        """Further runs, for systems that fall short or whose cycle has ended."""
        goal, at = self.goal, ran.z
        held = np.zeros(z.shape[0], dtype=bool) if goal.held is None else goal.held
        unit = rms_unit(z.shape[1])
        begun = norm(residual).squeeze(1).cpu().double().numpy() * unit
        first = torch.from_numpy(begun).to(z.device)
        before, status, steps, error = begun, ran.status.copy(), ran.steps, ran.error
        same = self._same(at, ran, norms[0], begun) | held
        limit = goal.budget.steps
        for _ in range(_MOST_RUNS):
            short = (status == CONVERGED) & ~(norms[0] <= norms[1])
            unfinished = (status == MAX_STEPS) & (steps < limit)
            again = (short | unfinished) & ~held & same & (steps < limit)
            again &= norms[0] <= REFINED * before
            if not again.any() or goal.budget.exhausted:
                break
            ran = self._once(at, value, length, ~again, limit - steps[again].min(), first)
            column = torch.from_numpy(again).to(z.device).unsqueeze(1)
            at = torch.where(column, ran.z, at)
            before = norms[0]
            value, norms = self._evaluated(at)
            status, error = np.where(again, ran.status, status), np.where(again, ran.error, error)
            steps = np.where(again, steps + ran.steps, steps)
            same &= self._same(at, ran, norms[0], begun) | ~again
        if not same.all():
            self.equation.forget()
        met = norms[0] <= norms[1]
        ended = (status == CONVERGED) & met | (status == MAX_STEPS) & (steps >= limit) & same | held
        ended |= ~held & (goal.budget.exhausted & same)
        going_on = (
            ~ended & same & ((status == STALLED) | (status == CONVERGED) | (status == MAX_STEPS))
        )
        ledger = self._entered(
            Ledger(z), ran._replace(z=at, status=status, steps=steps, error=error), norms[0]
        )
        column = torch.from_numpy(going_on | held | ended).to(z.device).unsqueeze(1)
        return ledger, torch.where(column, at, z), ~ended

    def _same(self, z: Tensor, ran: Run, evaluated: np.ndarray, begun: np.ndarray) -> np.ndarray:
        """The systems of which the graph is still the equation, by residuals at one point."""
        size = norm(z).squeeze(1).cpu().double().numpy() * rms_unit(z.shape[1])
        rounding = _ROUNDINGS * self.problem.eps(z) * (size + begun)
        off = np.abs(evaluated - ran.norm)
        # Of a start that was not left the graph has evaluated nothing.
        return np.asarray((off <= _SAME * ran.norm + rounding) & (ran.best_step > 0))
