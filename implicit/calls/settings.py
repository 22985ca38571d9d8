"""Options of a call, validated once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from ...options.options import check_truth, one_of
from ...solvers import (
    GMRES,
    Anderson,
    Callback,
    NewtonKrylov,
    Polyalgorithm,
    ProjectedNewton,
    Solver,
    Stopping,
    WholeSolver,
)
from ...solvers.interface.check import Watcher
from ...solvers.interface.problem import FORMS, Form
from ..derivatives.given import GivenDerivatives
from ..gradients import Exact, Gradient, ImplicitGradient, TapedGradient
from ..surroundings.failure import POLICIES, FailurePolicy

# Where plain steps multiply the residual by at most this, an extrapolation saves hardly an evaluation.
_FAST = 0.7
_EXACT = Exact()


@dataclass(frozen=True)
class Settings:
    """The options shared by `root`, `fixed_point` and `ImplicitLayer`, which document them."""

    form: Form
    solver: Solver | None = None
    stopping: Stopping | None = None
    gradient: Gradient | None = None
    batch_dims: int = 0
    on_failure: FailurePolicy = "raise"
    linear: bool = False
    batched_args: Sequence[bool] | None = None
    trace: bool = False
    callback: Callback | None = None
    causal: bool = False
    has_aux: bool = False
    derivatives: GivenDerivatives | None = None
    progress: bool = False
    history: bool = False
    bounds: Any = None

    def __post_init__(self) -> None:
        one_of("form", self.form, FORMS)
        one_of("on_failure", self.on_failure, POLICIES)
        _instance("solver", self.solver, Solver, "Anderson() or Broyden()")
        _instance("stopping", self.stopping, Stopping, "Stopping(rtol=1e-6)")
        _instance("gradient", self.gradient, Gradient, "Exact() or Unrolled()")
        if not isinstance(self.batch_dims, int) or self.batch_dims < 0:
            raise ValueError(f"batch_dims must be an integer ≥ 0, got {self.batch_dims!r}")
        _ = self._adapted  # Raises if the mode cannot be used with the solver.
        if self.batched_args is not None:  # A tuple can be compared and hashed.
            object.__setattr__(self, "batched_args", tuple(self.batched_args))
        if self.batched_args is not None and self.batch_dims != 1:
            raise ValueError(
                f"batched_args needs batch_dims=1, one axis of systems to drop from, "
                f"got batch_dims={self.batch_dims}"
            )
        check_truth("causal", self.causal)
        if not (self.has_aux is False and self.progress is False and self.history is False):
            for name in ("has_aux", "progress", "history"):
                check_truth(name, getattr(self, name))
        if self.callback is not None:
            Watcher.of(self.callback)  # Raises if it takes other arguments.
        if self.causal:
            self._check_causal()
        if self.bounds is not None:
            self._check_bounds()
        if self.derivatives is not None:
            self.derivatives.check_solver(self.chosen_solver)

    def _check_bounds(self) -> None:
        for name in ("linear", "causal"):
            if getattr(self, name):
                raise ValueError(f"{name}=True takes no bounds: leave {name} out, or bounds")
        if not self.chosen_solver.keeps_bounds:
            raise TypeError(
                f"{type(self.chosen_solver).__name__} does not keep its iterates within bounds: leave solver "
                "out, or give ProjectedNewton() to root and fixed_point, GaussNewton() to least_squares, "
                "NewtonTrustRegion() to minimise"
            )

    def _check_causal(self) -> None:
        if self.batch_dims < 1:
            raise ValueError(
                "causal=True needs time steps that are systems: batch_dims=1 for z of shape "
                f"(time, ...), 2 for (batch, time, ...); got batch_dims={self.batch_dims}"
            )
        if self.derivatives is not None:
            raise ValueError(
                "causal=True couples its systems, the time steps: leave jacobian, sparsity and "
                "preconditioner out"
            )
        if self.linear:
            raise ValueError("a linear causal equation is one system for its solver: causal=False")
        if self.batched_args is not None:
            raise ValueError(
                "causal=True evaluates all time steps together: leave batched_args out"
            )
        if isinstance(self.chosen_solver, WholeSolver):
            raise TypeError(
                f"causal=True needs a solver with steps (PrefixAnderson, FixedPointIteration, Anderson), and "
                f"{type(self.chosen_solver).__name__} runs whole. CausalNewton is causal without it: give "
                "each sequence as one system"
            )

    @cached_property
    def _adapted(self) -> tuple[Solver | None, Stopping | None]:
        return self.chosen_gradient.adapt(self.form, self.solver, self.stopping)

    @property
    def watched(self) -> bool:
        """True if checks of the solve are to be seen from outside."""
        return self.callback is not None or self.progress or self.history

    @property
    def chosen_stopping(self) -> Stopping | None:
        """The stopping rule asked for, adapted by the gradient mode."""
        return self._adapted[1]

    @cached_property
    def chosen_solver(self) -> Solver:
        """The solver asked for, or the default of the mode or form; always the same object."""
        solver = self._adapted[0]
        if solver is not None:
            return solver
        if self.bounds is not None:
            return ProjectedNewton()
        if self.derivatives is not None:
            return self.derivatives.default_solver(self.linear)
        if self.linear:
            return GMRES()
        if self.form == "fixed_point":
            return Anderson(plain_below=_FAST)
        return NewtonKrylov() if self.chosen_gradient.records_steps else Polyalgorithm()

    @property
    def chosen_gradient(self) -> ImplicitGradient | TapedGradient:
        """The gradient mode asked for, or `Exact()`."""
        return cast("ImplicitGradient | TapedGradient", self.gradient or _EXACT)


def _instance(argument: str, value: object, kind: type, example: str) -> None:
    if value is None or isinstance(value, kind):
        return
    what = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    raise TypeError(f"{argument} must be an instance such as {example}, got {what}")
