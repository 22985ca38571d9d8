"""Measurements of the demonstration on a fitted network, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ... import Exact, FixedPointIteration, Solver, Stopping, Unrolled
from ...verification import unrolled
from ...verification.saved import saved_bytes
from .gradients import (
    DepthStudy,
    GradientCheck,
    Tensors,
    check_gradient,
    distance,
    random_direction,
)
from .network import EquilibriumNetwork
from .objective import Objective
from .solving import SolverRun, run_solver

# 135 units of rounding, the tightest tolerance that every solver can reach.
_TIGHT_RTOL = 3e-14
TIGHT = Stopping(rtol=_TIGHT_RTOL)


@dataclass(frozen=True)
class HeldOut:
    """The batch of the checks, in float64: embedded contexts and the characters that follow."""

    embedded: Tensor
    following: Tensor


@dataclass(frozen=True)
class MemoryStudy:
    """Bytes saved for the backward pass by number of iterations."""

    iterations: tuple[int, ...]
    implicit: tuple[int, ...]
    unrolled: tuple[int, ...]


@dataclass(frozen=True)
class SolverReport:
    """Everything measured with one solver.

    Attributes:
        run: Work, residual and time of a solve at default tolerances.
        differences: Its exact gradient against finite differences.
        unrolled: Its exact gradient against unrolled networks.
        saved: Bytes that a training step of the layer saves with this solver.
        saved_unrolled: Bytes of the unrolled network that applies the cell as often.
    """

    run: SolverRun
    differences: GradientCheck
    unrolled: DepthStudy
    saved: int
    saved_unrolled: int

    @property
    def memory_ratio(self) -> float:
        return self.saved / self.saved_unrolled

    @property
    def failures(self) -> list[str]:
        """Descriptions of failures; empty if there are none."""
        name, found = self.run.name, []
        if self.run.converged < self.run.systems:
            missing = self.run.systems - self.run.converged
            found.append(f"{name} did not solve {missing} of {self.run.systems} systems")
        if not self.differences.passed:
            found.append(
                f"{name}: the gradient differs from finite differences by "
                f"{self.differences.error:.1e}, more than {self.differences.threshold:.1e}"
            )
        if not self.unrolled.geometric:
            listed = ", ".join(f"{error:.1e}" for error in self.unrolled.errors)
            found.append(
                f"{name}: the distance to the unrolled gradient does not fall geometrically: {listed}"
            )
        return found


def unrolled_gradients(
    network: EquilibriumNetwork, batch: HeldOut, depths: Sequence[int]
) -> Iterator[Tensors]:
    """Gradients of the networks that iterate the cell `depths` times instead of solving."""
    for depth in depths:
        cut_off = network.solved_by(
            FixedPointIteration(),
            Stopping(rtol=0.0, atol=0.0, max_steps=depth),
            Unrolled(),
            on_failure="accept",
        )
        yield Objective(cut_off, batch.embedded, batch.following).gradient()


def report_solver(
    network: EquilibriumNetwork,
    batch: HeldOut,
    solver: Solver,
    *,
    unrolled: Sequence[Tensors],
    depths: Sequence[int],
    directions: int,
    repeats: int,
    seed: int,
) -> SolverReport:
    """Measure `solver` on the network's equation, and the gradients of the layer that it solves.

    Args:
        network: A fitted network in float64.
        batch: The batch to solve it for.
        solver: The solver to measure.
        unrolled: Gradients of the unrolled networks of `depths`.
        depths: Numbers of layers.
        directions: Number of random directions for finite differences. Half of them change the inputs,
            half the parameters.
        repeats: Number of timed solves.
        seed: Seed of the directions.
    """
    run = run_solver(network, batch.embedded, solver, repeats=repeats)
    tight = network.solved_by(solver, TIGHT, Exact(stopping=TIGHT))
    objective = Objective(tight, batch.embedded, batch.following)
    gradient = objective.gradient()
    generator = torch.Generator().manual_seed(seed)
    contraction = network.cell.contraction()
    uncertainty = gradient_uncertainty(contraction)
    point = objective.point
    along_inputs = [True] + [False] * (len(point) - 1)
    along_parameters = [not chosen for chosen in along_inputs]
    differences = check_gradient(
        objective,
        point,
        gradient,
        [
            random_direction(point, (along_inputs, along_parameters)[i % 2], generator)
            for i in range(directions)
        ],
        noise=objective.noise(),
        uncertainty=uncertainty,
    )
    # The head comes after the equation: its gradient does not depend on the rule.
    upstream = [i for i, name in enumerate(("", *objective.names)) if not name.startswith("head.")]
    errors = [
        distance([other[i] for i in upstream], [gradient[i] for i in upstream])
        for other in unrolled
    ]
    saved = saved_by_layer(network, batch, solver, Stopping())
    return SolverReport(
        run,
        differences,
        DepthStudy(tuple(depths), tuple(errors), contraction, uncertainty),
        saved,
        saved_by_unrolled(network, batch, run.applications),
    )


def gradient_uncertainty(contraction: float) -> float:
    """Bound on the relative error of an exact gradient that is solved to `TIGHT`.

    A relative residual `t` leaves an error up to `t / (1 − γ)` in the solution, and as much in the
    adjoint. A factor of 2 on each allows for curvature and directions.
    """
    return 4 * _TIGHT_RTOL / (1 - contraction)


def saved_by_layer(
    network: EquilibriumNetwork, batch: HeldOut, solver: Solver, stopping: Stopping
) -> int:
    """Bytes that the implicit layer saves for its backward pass."""
    layer = network.solved_by(solver, stopping, on_failure="accept").equilibrium
    x = network.injection(batch.embedded).detach().requires_grad_()
    return saved_bytes(lambda: layer(x), excluding=layer.parameters())


def saved_by_unrolled(network: EquilibriumNetwork, batch: HeldOut, iterations: int) -> int:
    """Bytes that backpropagation through `iterations` applications of the cell saves."""
    repeated = unrolled(network.equilibrium, iterations)
    x = network.injection(batch.embedded).detach().requires_grad_()
    return saved_bytes(lambda: repeated(x), excluding=network.cell.parameters())


def study_memory(
    network: EquilibriumNetwork, batch: HeldOut, iterations: Sequence[int]
) -> MemoryStudy:
    """Saved bytes of the layer and of the unrolled network by number of iterations."""
    layer = [
        saved_by_layer(
            network, batch, FixedPointIteration(), Stopping(rtol=0.0, atol=0.0, max_steps=n)
        )
        for n in iterations
    ]
    stacked = [saved_by_unrolled(network, batch, n) for n in iterations]
    return MemoryStudy(tuple(iterations), tuple(layer), tuple(stacked))
