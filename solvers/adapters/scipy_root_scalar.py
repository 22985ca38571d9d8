"""All methods of `scipy.optimize.root_scalar` as a solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...options.libraries import needs
from ...options.options import check_callable, check_names, one_of
from ..interface.goal import Goal
from ..interface.per_system import as_numbers, for_systems
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import RunOutcome, WholeSolver
from .numpy_system import FAILURES, NumPySystem, quiet
from .one_system import OneSystem, solve_each

_BRACKETING = ("brentq", "brenth", "ridder", "bisect", "toms748")
_FROM_A_START = ("newton", "secant", "halley")
_OPTIONS = ("xtol", "rtol", "maxiter")
_TOLERANCES = ("xtol", "rtol")
# SciPy's default limits on iterations.
_MAX_ITERATIONS = {**dict.fromkeys(_BRACKETING, 100), **dict.fromkeys(_FROM_A_START, 50)}


@dataclass(frozen=True, eq=False)
class ScipyRootScalar(WholeSolver):
    """A method of `scipy.optimize.root_scalar` for systems of one unknown, one at a time.

    SciPy gets `F` of a root and `f(z) − z` of a fixed point, in float64. With `xtol` or `rtol` among
    `options` a run ends by these, as in SciPy alone; without, at the first point that meets the `Stopping`
    of the call. `Stopping.max_steps`, if given, replaces `maxiter`. A step is an evaluation.

    The bracketing methods need `lower` and `upper`, and no start: `z0` only gives the shape. A system
    whose residual has one sign at both ends gets the status `NO_SIGN_CHANGE`, and the others go on.
    `"newton"` and `"halley"` get exact first derivatives.

    Attributes:
        method: `"brentq"`, `"brenth"`, `"ridder"`, `"bisect"`, `"toms748"` (between two points);
            `"newton"`, `"secant"`, `"halley"` (from a start).
        lower: Lower ends: a number, or a tensor with an entry for each system.
        upper: Upper ends.
        x1: Second starts of `"secant"`, one or one for each system; `None` for SciPy's.
        second_derivative: `F″` (of a fixed point, `f″`) on `(batch, 1)` tensors, for `"halley"`.
        options: `xtol`, `rtol`, `maxiter`, and `k` of `"toms748"`.

    Raises:
        ValueError: No such method, ends missing or not finite, or, when it is used, a system has more
            than one unknown.
        TypeError: An option that the method does not take, or that needs another method.

    Source: Virtanen et al. 2020 (SciPy); Brent 1973; Ridders 1979; Alefeld, Potra & Shi 1995.

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.zeros(3, dtype=torch.float64)
        >>> mean = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
        >>> kepler = lambda E, M: E - 0.99 * torch.sin(E) - M
        >>> solver = implicitly.ScipyRootScalar("brentq", lower=0.0, upper=torch.pi)
        >>> E = implicitly.root(kepler, z0, mean, solver=solver, batch_dims=1).value
        >>> bool(kepler(E, mean).abs().max() < 1e-9)
        True
    """

    method: str = "brentq"
    lower: float | Tensor | None = None
    upper: float | Tensor | None = None
    x1: float | Tensor | None = None
    second_derivative: Callable[[Tensor], Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    suits: ClassVar[str] = "SciPy's methods for scalar equations, one system at a time"

    # Tensors compare entry by entry.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        one_of("method", self.method, _BRACKETING + _FROM_A_START)
        owner = f"ScipyRootScalar({self.method!r})"
        valid = (*_OPTIONS, "k") if self.method == "toms748" else _OPTIONS
        check_names(owner, self.options, valid)
        check_callable("second_derivative", self.second_derivative)
        for name, numbers in (("lower", self.lower), ("upper", self.upper), ("x1", self.x1)):
            if numbers is not None:
                as_numbers(name, numbers)
        ends = self.lower is not None, self.upper is not None
        if self.method in _BRACKETING and not all(ends):
            raise ValueError(f"{owner} needs both ends of a bracket: give lower and upper")
        if self.method not in _BRACKETING and any(ends):
            raise TypeError(f"{owner} takes no bracket; {', '.join(_BRACKETING)} do")
        if self.x1 is not None and self.method != "secant":
            raise TypeError(f"{owner} takes no second start x1; secant does")
        if (self.second_derivative is None) == (self.method == "halley"):
            raise TypeError(
                f"{owner} takes no second_derivative; halley does"
                if self.second_derivative is not None
                else f"{owner} needs second_derivative, F″ on (batch, 1) tensors"
            )

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        if z.shape[1] != 1:
            raise ValueError(
                "ScipyRootScalar solves one equation in one unknown per system, and each of these has "
                f"{z.shape[1]} unknowns: make every scalar equation a system of its own (batch_dims), "
                "or choose a solver of systems such as ScipyRoot('hybr')"
            )
        explicit = any(name in self.options for name in _TOLERANCES)
        sign = -1.0 if problem.form == "root" else 1.0
        given = {
            name: for_systems(name, ends, z).double().cpu().numpy().ravel()
            for name, ends in (("lower", self.lower), ("upper", self.upper), ("x1", self.x1))
            if ends is not None
        }
        options = {**({} if explicit else _strictest(self.method)), **_limit(goal), **self.options}

        def solve_one(system: OneSystem) -> None:
            there = {name: float(values[system.index]) for name, values in given.items()}
            second = self._second_derivative(system, z)
            self._solve_one(system, NumPySystem(system, sign), there, second, options)

        return solve_each(problem, z, residual, goal, solve_one, stops_at_goal=not explicit)

    def _solve_one(
        self,
        system: OneSystem,
        view: NumPySystem,
        given: dict[str, float],
        second: Callable[[float], float] | None,
        options: dict[str, Any],
    ) -> None:
        with needs("scipy", "ScipyRootScalar"):
            from scipy.optimize import root_scalar

        seen: dict[float, float] = {}

        def function(x: float) -> float:
            value = float(view.function_as_step(np.array([x]))[0])
            if x in (given.get("lower"), given.get("upper")):
                seen[x] = value
            return value

        call: dict[str, Any] = {"x0": float(view.start[0])}
        if self.method in _BRACKETING:
            call = {"bracket": (given["lower"], given["upper"])}
        elif "x1" in given:
            call["x1"] = given["x1"]
        if self.method in ("newton", "halley") and system.differentiable:
            call["fprime"] = lambda x: float(view.jacobian(np.array([x]))[0, 0])
        if second is not None:
            call["fprime2"] = second
        with quiet():
            result = system.run(
                lambda: root_scalar(function, method=self.method, options=options, **call),
                FAILURES,
            )
        if result is not None:
            limited = result.iterations >= options.get("maxiter", _MAX_ITERATIONS[self.method])
            otherwise = Status.MAX_STEPS if limited and not result.converged else Status.STALLED
            system.returned(view.tensor(np.array([result.root])), otherwise, str(result.flag))
        elif len(seen) == 2 and min(seen.values()) * max(seen.values()) > 0:
            system.ended_as(Status.NO_SIGN_CHANGE)

    def _second_derivative(self, system: OneSystem, z: Tensor) -> Callable[[float], float] | None:
        second = self.second_derivative
        if second is None:
            return None

        def at(x: float) -> float:
            rows = z.index_fill(0, torch.tensor([system.index], device=z.device), x)
            return float(system.call(lambda: second(rows))[system.index])

        return at


def _strictest(method: str) -> dict[str, float]:
    """Tolerances so strict that the goal of the call ends the method instead."""
    finfo = np.finfo(np.float64)
    if method in _BRACKETING:
        return {"xtol": float(finfo.tiny), "rtol": 4 * float(finfo.eps)}
    return {"xtol": float(finfo.tiny), "rtol": 0.0}


def _limit(goal: Goal) -> dict[str, int]:
    """The limit of the call on steps, as the method's own."""
    given = (goal.stopping.max_steps, goal.stopping.max_evaluations)
    limits = [limit for limit in given if limit is not None]
    return {"maxiter": max(min(limits), 1)} if limits else {}
