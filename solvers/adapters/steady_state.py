"""The steady state of an ordinary differential equation, by any integrator of torchdiffeq."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...options.libraries import needs
from ...options.options import check_names, is_number, is_positive, one_of
from ..driving.progress import Progress
from ..interface.goal import Goal
from ..interface.norms import rms
from ..interface.problem import Problem
from ..interface.scale import first_step_length
from ..interface.solution import Status
from ..interface.solver import RunOutcome, WholeSolver
from .one_system import OneSystem, solve_each

_RUNGE_KUTTA = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")
_FIXED_STEP = ("euler", "midpoint", "heun2", "heun3", "rk4")
_MULTISTEP = ("explicit_adams", "implicit_adams", "fixed_adams")
_SCIPY = "scipy_solver"
_OPTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        _RUNGE_KUTTA,
        ("first_step", "min_step", "max_step", "safety", "ifactor", "dfactor", "dtype"),
    ),
    **dict.fromkeys(_FIXED_STEP, ("perturb",)),
    **dict.fromkeys(_MULTISTEP, ("perturb", "max_order", "max_iters")),
    _SCIPY: ("solver", "min_step", "max_step"),
}
# Exceptions of an integrator that cannot go on: a step that underflows, a state that is not finite.
_FAILURES = (AssertionError, ArithmeticError, ValueError, RuntimeError)
# Warnings to silence: a failure has a status, and some of SciPy's integrators ignore options of torchdiffeq.
_SAID_BY_THE_STATUS = (
    "Functional iteration did not converge",
    "The following arguments have no effect",
)

# Integrator tolerance relative to the residual at the start of an interval. Looser is unstable; tighter
# only resolves the transient.
_ACCURACY = 0.01
# The embedded pair of fehlberg2 differs by only 1/512 of a step: its error estimate is far too small.
_ACCURACY_OF_FEHLBERG = 1e-3
# The first interval is this many times `step_size`.
_STEPS_OF_A_STRETCH = 8
# The next interval is twice as long unless the residual fell below this fraction of what it was.
_FAST = 0.1
# SciPy's integrators warn of smaller tolerances.
_LEAST_RTOL = 100 * float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class SteadyState(WholeSolver):
    """Integration of `dz/dt = f(z) − z` (fixed point) or `dz/dt = −F(z)` (root) to a steady state.

    The flow converges to a solution at which all eigenvalues of `∂r/∂z` have negative real parts. From
    other starts it diverges (`DIVERGED`), or circles for ever (`MAX_STEPS`, `STALLED`).

    Every system is integrated by itself, with its own step lengths, over intervals of time that grow while
    its residual falls slowly. A system ends at the first point that meets the `Stopping` of the call,
    among all that the integrator evaluates. Over an interval the integrator's error is kept below a
    hundredth of the distance that the flow covers in a unit of time at its start, whatever the units of
    the equation. Steps are those of the integrator (of `"scipy_solver"`, evaluations).

    The unit of time is 1 for a fixed point and `‖r‖ / ‖J r‖` at the start for a root. `"explicit_adams"`, of
    order 4 to 12, is stable only with small steps: `step_size=0.1` and `options={"max_order": 4}` suit
    a contraction.

    Attributes:
        method: A method of `torchdiffeq.odeint`: `"dopri8"`, `"dopri5"`, `"bosh3"`, `"fehlberg2"`,
            `"adaptive_heun"`; with fixed steps `"euler"`, `"midpoint"`, `"heun2"`, `"heun3"`, `"rk4"`,
            `"explicit_adams"`, `"implicit_adams"`, `"fixed_adams"`; `"scipy_solver"`.
        rtol: Relative tolerance of the integrator; `rtol` and `atol` replace the hundredth.
        atol: Absolute tolerance of the integrator.
        step_size: The length of fixed steps, or of the first step of other methods, in units of time.
        options: More options of the method, as `torchdiffeq.odeint` takes them.

    Raises:
        ValueError: No such method, or a number out of range.
        TypeError: An option that the method does not take; the error lists those that it does.

    Source: Chen et al. 2018 (torchdiffeq); Dormand & Prince 1980 (`dopri5`).

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor(0.0, dtype=torch.float64)
        >>> z = implicitly.fixed_point(torch.cos, z0, solver=implicitly.SteadyState()).value
        >>> round(z.item(), 9)
        0.739085133
    """

    method: str = "dopri5"
    rtol: float | None = None
    atol: float | None = None
    step_size: float = 0.5
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    suits: ClassVar[str] = "stable states, by torchdiffeq's integrators"

    default_max_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        one_of("method", self.method, tuple(_OPTIONS))
        for name in ("rtol", "atol"):
            tolerance = getattr(self, name)
            if tolerance is not None and not is_number(tolerance, 0):
                raise ValueError(f"{name} must be a number ≥ 0 or None, got {tolerance!r}")
        if not is_positive(self.step_size):
            raise ValueError(f"step_size must be a number > 0, got {self.step_size!r}")
        check_names(f"SteadyState({self.method!r})", self.options, _OPTIONS[self.method])

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        units = torch.ones_like(z[:, :1])
        if problem.form == "root" and (problem.linear or problem.linearize is not None):
            length = first_step_length(problem, z, residual)
            assert length is not None
            units = length.abs()

        def solve_one(system: OneSystem) -> None:
            with warnings.catch_warnings():
                for message in _SAID_BY_THE_STATUS:
                    warnings.filterwarnings("ignore", message=message)
                unit = float(units[system.index])
                system.run(lambda: self._follow(system, unit, goal), _FAILURES)

        return solve_each(
            problem, z, residual, goal, solve_one, default_steps=self.default_max_steps
        )

    def _follow(self, system: OneSystem, unit: float, goal: Goal) -> None:
        """Integrate over one interval of time after another, until an evaluation ends the run."""
        progress = Progress(np.inf, np.inf, np.int64(0), np.bool_(False))
        y, norm = system.start, system.first_norm
        stretch = _STEPS_OF_A_STRETCH * self.step_size * unit
        while True:
            y = self._integrate(system, y, stretch, norm, unit)
            last, norm = norm, float(rms(system.residual(y)))
            progress = progress.after(norm, system.steps)
            if system.steps - progress.since >= goal.stopping.patience:
                system.end(system.judged(Status.STALLED))
            if not norm < _FAST * last:
                stretch *= 2

    def _integrate(
        self, system: OneSystem, y: Tensor, stretch: float, norm: float, unit: float
    ) -> Tensor:
        """The state after an interval of time from `y`, whose residual has the norm `norm`."""
        with needs("torchdiffeq", "SteadyState"):
            from torchdiffeq import odeint

        flow = _Flow(system, steps_by_evaluation=self.method == _SCIPY)
        if self.method != _SCIPY:
            flow.callback_step = lambda t, y, dt: system.stepped()
        options = dict(self.options)
        if self.method in _RUNGE_KUTTA:
            # torchdiffeq guesses its first step from the size of the state, which fails at zero.
            options.setdefault("first_step", self.step_size * unit)
        elif self.method != _SCIPY:
            options["step_size"] = self.step_size * unit
        rtol, atol = self._tolerances(norm * unit)
        times = torch.tensor([0.0, stretch], dtype=torch.float64, device=y.device)
        path = odeint(
            flow, y, times, rtol=max(rtol, _LEAST_RTOL), atol=atol, method=self.method,
            options=options,
        )  # fmt: skip
        return torch.as_tensor(path)[-1]

    def _tolerances(self, distance: float) -> tuple[float, float]:
        """Tolerances of the integrator at a `distance` from the steady state."""
        if self.rtol is not None or self.atol is not None:
            return self.rtol or 0.0, self.atol or 0.0
        accuracy = _ACCURACY_OF_FEHLBERG if self.method == "fehlberg2" else _ACCURACY
        return 0.0, accuracy * distance


class _Flow:
    """Right-hand side of the differential equation; ends the run where it diverges."""

    callback_step: Callable[[Tensor, Tensor, Tensor], None]

    def __init__(self, system: OneSystem, steps_by_evaluation: bool) -> None:
        self._system = system
        self._steps_by_evaluation = steps_by_evaluation

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        residual = self._system.residual(y)
        if self._steps_by_evaluation:
            self._system.stepped()
        status = self._system.judged(Status.RUNNING)
        if status == Status.DIVERGED:
            self._system.end(status)
        return residual
