"""Backpropagation through the iterations of the solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...solvers.interface.state import map_tensors
from ..equations.differentiation import constants, transforming
from ..equations.flat import flat_problem
from ..equations.layout import Layout, Leaves
from .mode import Recording, TapedGradient

_MANY = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Unrolled(TapedGradient):
    """Backpropagation through the solver's own iterations: the weight-tied unrolled network.

    The solve is run again with as many steps as it took, and its steps are recorded. Memory grows
    with their number.

    Attributes:
        steps: Number of last iterations of each system to record. `None` records all of them, and gives
            the gradient of the computation itself, also with respect to `z0`. With a number the gradient
            is an approximation. At least one iteration is recorded.

    Raises:
        ValueError: `steps` is not `None` or an integer ≥ 1.

    Source: Bai, Kolter & Koltun 2019, section 3 (weight-tied networks of finite depth).

    Examples:
        >>> Unrolled(steps=3)
        Unrolled(steps=3)
    """

    steps: int | None = None
    records_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps is not None and not (isinstance(self.steps, int) and self.steps >= 1):
            raise ValueError(f"steps must be an integer ≥ 1 or None, got {self.steps!r}")

    def record(self, recording: Recording) -> Leaves:
        equation, solver, args = recording.equation, recording.solver, recording.args
        layout = Layout.of(recording.start, equation.batch_dims)
        last = recording.outcome.best_step.reshape(-1).clamp(min=1)
        most, fewest = _range(recording.record.best_steps)
        # Step j − 1 computes the residual of iterate j, and the one of the start comes before all steps. So
        # the graph of a system begins one step earlier than `last − steps`.
        graph_start = torch.full_like(last, -1) if self.steps is None else last - self.steps - 1
        first_recorded = -1 if self.steps is None else fewest - self.steps - 1

        live = flat_problem(equation, layout, args)
        problem, flat = live, layout.flatten(recording.start)
        tape = torch.is_grad_enabled()
        if first_recorded >= 0:
            problem = flat_problem(equation, layout, constants(args))
            flat = constants((flat,))[0]
        with torch.set_grad_enabled(tape and first_recorded < 0):
            residual = problem.residual(flat)
            if transforming():
                # Solvers write iterates into storage made from the start, which must be mapped like them.
                flat = torch.where(torch.ones_like(residual, dtype=torch.bool), flat, residual)
            state = solver.init(problem, flat, residual)
        for step in range(most):
            if step == first_recorded:
                problem = live
            if step >= fewest:
                # Time steps that have ended still act on later ones.
                ended = flat if equation.causal else constants((flat,))[0]
                problem.park((last <= step).unsqueeze(1), ended)
            with torch.set_grad_enabled(tape and step >= first_recorded):
                if self.steps is not None and step > first_recorded:
                    state = _constant_where(graph_start == step, state)
                state = solver.step(problem, state)
                # A system keeps the iterate that its own solve returned.
                flat = torch.where((last > step).unsqueeze(1), state.z, flat)
        return layout.unflatten(flat)


def _range(steps: np.ndarray) -> tuple[int, int]:
    """The largest and the smallest number of steps of a system, both at least one."""
    return max(int(steps.max(initial=1)), 1), max(int(steps.min(initial=_MANY)), 1)


def _constant_where(systems: Tensor, state: Any) -> Any:
    """The solver state without the derivatives of some systems."""

    def cut(tensor: Tensor) -> Tensor:
        column = systems.reshape(-1, *[1] * (tensor.ndim - 1))
        return torch.where(column, constants((tensor,))[0], tensor)

    return map_tensors(cut, state)
