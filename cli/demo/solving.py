"""Work, residual and time of several solvers on one equation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from ... import Anderson, Broyden, FixedPointIteration, NewtonKrylov, Solution, Solver, Stopping
from .network import EquilibriumNetwork

SOLVERS: tuple[Solver, ...] = (FixedPointIteration(), Anderson(), Broyden(), NewtonKrylov())


@dataclass(frozen=True)
class SolverRun:
    """Result of a solver on a batch of systems.

    Attributes:
        name: The solver.
        evaluations: Evaluations of the cell, on the whole batch.
        jvps: Products with its Jacobian, on the whole batch.
        residual: Largest residual norm of any system.
        seconds: Median wall time.
        converged: Number of systems solved.
        systems: Number of systems.
        work: Evaluations and products up to each step.
        residuals: Largest residual norm after each step.
    """

    name: str
    evaluations: int
    jvps: int
    residual: float
    seconds: float
    converged: int
    systems: int
    work: tuple[int, ...]
    residuals: tuple[float, ...]

    @property
    def applications(self) -> int:
        """Number of applications of the cell: evaluations and products."""
        return self.evaluations + self.jvps


@torch.no_grad()
def run_solver(
    network: EquilibriumNetwork, embedded: Tensor, solver: Solver, *, repeats: int
) -> SolverRun:
    """Solve the network's equation for a batch with the default tolerances of its dtype."""
    x = network.injection(embedded)

    def solve(max_steps: int | None = None, trace: bool = False) -> Solution:
        layer = network.solved_by(
            solver, Stopping(max_steps=max_steps), on_failure="accept", trace=trace
        ).equilibrium
        layer(x)
        assert layer.solution is not None  # for the type checker: the layer has been called
        return layer.solution

    solution = solve(trace=True)
    assert solution.trace is not None  # for the type checker: a trace was asked for
    layer = network.solved_by(solver, Stopping(), on_failure="accept").equilibrium
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        layer(x)
        seconds.append(time.perf_counter() - start)
    # A step may take several evaluations, so the work up to a step is that of a solve limited to it.
    work = [solve(max_steps=step).counts for step in range(len(solution.trace))]
    return SolverRun(
        name=type(solver).__name__,
        evaluations=solution.counts.evaluations,
        jvps=solution.counts.jvps,
        residual=float(solution.residual_norm.max()),
        seconds=median(seconds),
        converged=int(solution.converged.sum()),
        systems=len(x),
        work=tuple(counts.evaluations + counts.jvps for counts in work),
        residuals=largest_residuals(solution.trace),
    )


def largest_residuals(trace: np.ndarray) -> tuple[float, ...]:
    """The largest norm at each step; a system that has ended (NaN) keeps its last norm."""
    held = trace.copy()
    for now, before in zip(held[1:], held, strict=False):
        np.copyto(now, before, where=np.isnan(now))
    return tuple(float(row.max()) for row in held)


@torch.no_grad()
def spectral_radius(network: EquilibriumNetwork, embedded: Tensor) -> float:
    """Largest spectral radius of the cell's Jacobian at the solution of any system."""
    x = network.injection(embedded)
    jacobians = torch.func.vmap(torch.func.jacrev(network.cell))(network.equilibrium(x), x)
    return float(torch.linalg.eigvals(jacobians).abs().max())
