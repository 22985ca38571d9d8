"""All methods of `scipy.optimize.root` as a solver."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ...options.libraries import needs
from ...options.options import check_names, one_of
from ..interface.goal import Goal
from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import RunOutcome, WholeSolver
from .numpy_system import FAILURES, NumPySystem, quiet
from .one_system import OneSystem, solve_each

_JACOBIANS = {
    "broyden1": ("alpha", "reduction_method", "max_rank"),
    "broyden2": ("alpha", "reduction_method", "max_rank"),
    "anderson": ("alpha", "w0", "M"),
    "linearmixing": ("alpha",),
    "diagbroyden": ("alpha",),
    "excitingmixing": ("alpha", "alphamax"),
    "krylov": ("rdiff", "method", "inner_maxiter", "inner_M", "outer_k"),
}
_QUASI_NEWTON = (
    "nit", "disp", "maxiter", "ftol", "fatol", "xtol", "xatol", "tol_norm", "line_search",
    "jac_options",
)  # fmt: skip
_OPTIONS: dict[str, tuple[str, ...]] = {
    "hybr": ("xtol", "maxfev", "band", "eps", "factor", "diag"),
    "lm": ("xtol", "ftol", "gtol", "maxiter", "eps", "factor", "diag"),
    **dict.fromkeys(_JACOBIANS, _QUASI_NEWTON),
    "df-sane": (
        "ftol", "fatol", "maxfev", "fnorm", "disp", "M", "eta_strategy", "sigma_eps", "sigma_0",
        "line_search",
    ),
}  # fmt: skip
_TAKE_JACOBIAN = ("hybr", "lm")
# Tolerances so strict that the goal of the call ends the method instead.
_STRICTEST: dict[str, dict[str, float]] = {
    "hybr": {"xtol": 0.0},
    "lm": {"xtol": 0.0, "ftol": 0.0, "gtol": 0.0},
    **{name: {"fatol": 0.0} for name in _JACOBIANS},
    "df-sane": {"ftol": 0.0, "fatol": 0.0},
}
_TOLERANCES = ("xtol", "ftol", "gtol", "fatol", "xatol", "nit")
_LINE_SEARCHES = {
    **dict.fromkeys(_JACOBIANS, (None, True, False, "armijo", "wolfe")),
    "df-sane": ("cruz", "cheng"),
}
# The code in a result's `status` for a run that reached the method's own limit.
_LIMIT = {"hybr": 2, "lm": 5, "df-sane": 2, **dict.fromkeys(_JACOBIANS, 2)}


@dataclass(frozen=True)
class ScipyRoot(WholeSolver):
    """A method of `scipy.optimize.root`, one system at a time.

    SciPy gets `F` of a root and `f(z) − z` of a fixed point, in float64 whatever the dtype of the
    unknown, and takes the same steps as on its own. A run ends in one of two ways:

    * with a tolerance among `options`, by that tolerance, as in SciPy alone. The `Stopping` of the call
      still decides whether the system has converged;
    * without one, at the first point that meets the `Stopping` of the call, whatever the method's own
      criterion.

    `Stopping.max_steps` and `max_evaluations`, if given, replace the method's own limits (`maxiter`,
    `maxfev`), unless these are among `options`. Each system has the whole limit. For `hybr` and `lm`,
    which do not report their iterations, a step is an evaluation.

    Attributes:
        method: `"hybr"`, `"lm"`, `"broyden1"`, `"broyden2"`, `"anderson"`, `"linearmixing"`,
            `"diagbroyden"`, `"excitingmixing"`, `"krylov"` or `"df-sane"`.
        options: Options of the method, as `scipy.optimize.root` takes them.
        jacobian: Give SciPy the exact Jacobian, which costs `n` products; only for `"hybr"` and `"lm"`.
            `None` gives it to the methods that take one. Without it SciPy uses finite differences.

    Raises:
        ValueError: No such method, a choice that the method does not have, or a Jacobian for one that
            takes none.
        TypeError: An option that the method does not take; the error lists those that it does.

    Source: Virtanen et al. 2020 (SciPy); Moré, Garbow & Hillstrom 1980 (MINPACK: `hybr`, `lm`).

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor([1.0, 1.0])
        >>> F = lambda z: torch.stack([z[0] ** 2 + z[1] ** 2 - 4, z[0] - z[1]])
        >>> implicitly.root(F, z0, solver=implicitly.ScipyRoot("krylov")).value
        tensor([1.4142, 1.4142])
    """

    method: str = "hybr"
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    jacobian: bool | None = None
    needs: ClassVar[str] = "evaluations (`hybr`, `lm`: dense Jacobians)"
    suits: ClassVar[str] = "SciPy's methods, one system at a time"

    def __post_init__(self) -> None:
        one_of("method", self.method, tuple(_OPTIONS))
        owner = f"ScipyRoot({self.method!r})"
        check_names(owner, self.options, _OPTIONS[self.method])
        if "jac_options" in self.options:
            check_names(f"jac_options of {owner}", *_jacobian_options(self.method, self.options))
        if "line_search" in self.options:
            one_of("line_search", self.options["line_search"], _LINE_SEARCHES[self.method])
        if self.jacobian and self.method not in _TAKE_JACOBIAN:
            raise ValueError(
                f"jacobian=True: {self.method!r} takes no Jacobian; 'hybr' and 'lm' do"
            )

    def run(self, problem: Problem, z: Tensor, residual: Tensor, goal: Goal) -> RunOutcome:
        explicit = any(name in self.options for name in _TOLERANCES)
        precision = problem.eps(z)
        options = {
            **({} if explicit else _STRICTEST[self.method]),
            **_limits(self.method, goal),
            **_differences(self.method, precision, self.options),
            **self.options,
        }
        sign = -1.0 if problem.form == "root" else 1.0

        def solve_one(system: OneSystem) -> None:
            self._solve_one(system, NumPySystem(system, sign), options)

        return solve_each(problem, z, residual, goal, solve_one, stops_at_goal=not explicit)

    def _solve_one(self, system: OneSystem, view: NumPySystem, options: dict[str, Any]) -> None:
        # SciPy is imported where it is used: each part of it takes time to load.
        with needs("scipy", "ScipyRoot"):
            from scipy.optimize import root

        function: Callable[[np.ndarray], np.ndarray] = view.function
        jacobian, extra = None, {}
        if self.method in _TAKE_JACOBIAN:
            function = view.function_as_step
            if self.jacobian or (self.jacobian is None and system.differentiable):
                jacobian = view.jacobian
        else:
            extra = {"callback": lambda x, f: system.stepped()}
        with quiet():
            result = system.run(
                lambda: root(
                    function, view.start, method=self.method, jac=jacobian, options=options, **extra
                ),
                FAILURES,
            )
            if result is not None:
                system.returned(view.tensor(result.x), self._status(result), result.message)

    def _status(self, result: Any) -> Status:
        # The result of df-sane has no code; a failure of it is always its limit.
        code = result.get("status", None if result.success else _LIMIT[self.method])
        return Status.MAX_STEPS if code == _LIMIT[self.method] else Status.STALLED


def _limits(method: str, goal: Goal) -> dict[str, int]:
    """The limits of the call in the method's own options."""
    steps, evaluations = goal.stopping.max_steps, goal.stopping.max_evaluations
    name = "maxfev" if method in ("hybr", "df-sane") else "maxiter"
    if method == "df-sane":
        steps = None
    given = [limit for limit in (steps, evaluations) if limit is not None]
    # MINPACK reads zero as no limit.
    return {name: max(min(given), 1)} if given else {}


def _differences(method: str, precision: float, given: Mapping[str, Any]) -> dict[str, Any]:
    """Steps of finite differences for functions that compute in less than float64."""
    if precision <= np.finfo(np.float64).eps:
        return {}
    if method in _TAKE_JACOBIAN:
        return {"eps": precision}
    if method == "krylov":
        return {"jac_options": {"rdiff": precision**0.5, **given.get("jac_options", {})}}
    return {}


def _jacobian_options(
    method: str, options: Mapping[str, Any]
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The options of the Jacobian approximation, and the valid ones."""
    with needs("scipy", "ScipyRoot"):
        import scipy.sparse.linalg

    given, valid = options["jac_options"], _JACOBIANS[method]
    if method == "krylov":
        inner = given.get("method", "lgmres")
        if isinstance(inner, str):
            known = ("lgmres", "gmres", "bicgstab", "cgs", "minres", "tfqmr")
            one_of("jac_options['method']", inner, known)
            inner = getattr(scipy.sparse.linalg, inner)
        valid += tuple(f"inner_{name}" for name in inspect.signature(inner).parameters)
    return given, valid
