"""Solvers of this package, and gradients through them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...implicit import fixed_point, root
from ...implicit.gradients import Exact, Gradient
from ...options.text import written
from ...solvers import Solution, Solver, Status, Stopping
from ...solvers.interface.problem import Form
from ...verification.equations import KnownEquation
from ...verification.polish import polish
from ...verification.subject import Subject
from ..row import Family
from .equation import StudyEquation
from .method import Attempt

ADAPTED = {"ScipyRoot": "scipy", "ScipyRootScalar": "scipy", "SteadyState": "torchdiffeq"}
# From the least to the most severe.
_SEVERITY = (
    Status.CONVERGED,
    Status.RUNNING,
    Status.MAX_STEPS,
    Status.STALLED,
    Status.NO_SIGN_CHANGE,
    Status.DISCONTINUITY,
    Status.NOT_A_MINIMUM,
    Status.UNBOUNDED,
    Status.BLOCKED,
    Status.INFEASIBLE,
    Status.NO_QUALIFICATION,
    Status.LINEAR_SOLVE_FAILED,
    Status.DIVERGED,
    Status.NON_FINITE,
)


@dataclass(frozen=True)
class Native:
    """A solver of this package, which may be an adapter to another library.

    Attributes:
        solver: The solver.
        gradient: A gradient mode; `None` for no gradient.
        name: Name that the user's file gives to the solver; `None` for its class and options.
    """

    solver: Solver
    gradient: Gradient | None = None
    name: str | None = None

    @property
    def label(self) -> str:
        return written(self.solver) if self.name is None else self.name

    def refusal(self, form: Form) -> str | None:
        """Reason why the gradient mode does not fit the solver; `None` if it fits."""
        if self.gradient is None:
            return None
        try:
            self.gradient.adapt(form, self.solver, None)
        except TypeError as error:
            return str(error)
        return None

    @property
    def family(self) -> Family:
        return "adapter" if type(self.solver).__name__ in ADAPTED else "native"

    @property
    def packages(self) -> tuple[str, ...]:
        name = type(self.solver).__name__
        return (ADAPTED[name],) if name in ADAPTED else ()

    def solve(self, equation: StudyEquation) -> Attempt:
        """Solve; with a gradient mode, also take the gradient of `⟨w, z⟩` in every argument.

        `w` is drawn from a fixed seed. The reference is the dense implicit gradient at the root that Newton's
        method finds in float64 from the result. Evaluations are then counted from outside and include
        the backward pass; VJPs are those of the adjoint equation.
        """
        if self.gradient is None:
            with torch.no_grad():
                solution = self._solution(equation, equation.args)
            return _attempt(solution)
        return self._differentiated(equation)

    def _solution(self, equation: StudyEquation, args: tuple[Tensor, ...]) -> Solution:
        call = fixed_point if equation.problem.form == "fixed_point" else root
        # A root-mean-square norm of target/√n bounds every entry by the target.
        stopping = Stopping(
            rtol=0.0,
            atol=equation.target / equation.z0.shape[-1] ** 0.5,
            max_steps=equation.limit,
            max_evaluations=equation.limit,
        )
        return call(
            equation.function,
            equation.z0,
            *args,
            solver=copy.deepcopy(self.solver),  # The next cell must not inherit a solver's memory.
            stopping=stopping,
            gradient=self._mode(equation),
            batch_dims=len(equation.problem.batch_shape),
            on_failure="accept",
        )

    def _mode(self, equation: StudyEquation) -> Gradient | None:
        if not isinstance(self.gradient, Exact) or self.gradient.stopping is not None:
            return self.gradient
        # The adjoint equation to the same tolerance, relative to its right-hand side.
        return replace(self.gradient, stopping=Stopping(rtol=equation.target))

    def _differentiated(self, equation: StudyEquation) -> Attempt:
        args = equation.args or equation.problem.args(
            equation.z0.shape[-1], equation.z0.dtype, equation.z0.device
        )
        if not args:
            raise TypeError(
                f"{equation.problem.name} has no parameters to take a gradient in: leave gradients out, "
                "or choose problems whose args() gives tensors"
            )
        solutions: list[Solution] = []

        def layer(*tensors: Tensor) -> Tensor:
            solutions.append(self._solution(equation, tensors))
            value: Tensor = solutions[-1].value
            return value

        subject = Subject(layer, tuple(arg.detach().requires_grad_() for arg in args))
        tape = subject.discover()
        generator = torch.Generator().manual_seed(0)
        w = torch.randn(equation.z0.shape, generator=generator, dtype=torch.float64)
        found = tape.pullback([w.to(equation.z0)])
        attempt = _attempt(solutions[0])
        if equation.watch is None:
            return attempt
        adjoints = [adjoint.counts for adjoint in solutions[0].adjoints]
        vjps = (attempt.vjps or 0) + sum(count.evaluations + count.vjps for count in adjoints)
        seen = equation.watch.evaluations
        known: Any = KnownEquation(equation.problem.residual, subject, tape)
        _, star = polish(known, known.flat([solutions[0].value.detach()]), generator)
        reference = star.gradient(w.flatten())
        error = torch.cat(
            [(a.double() - b).flatten() for a, b in zip(found, reference, strict=True)]
        )
        length = torch.cat([b.flatten() for b in reference]).norm()
        return replace(
            attempt, evaluations=seen, vjps=vjps, gradient_error=float(error.norm() / length)
        )


def _attempt(solution: Solution) -> Attempt:
    statuses = [Status(int(code)) for code in solution.status.flatten().tolist()]
    worst = max(statuses, key=_SEVERITY.index)
    counts = solution.counts
    return Attempt(
        value=solution.value.detach(),
        claimed=worst is Status.CONVERGED,
        status=worst.name,
        residual=float(solution.residual_norm.max()),
        evaluations=counts.evaluations,
        jvps=counts.jvps,
        vjps=counts.vjps,
        linear_iterations=counts.linear_iterations,
        steps=int(solution.steps.max()),
        reason=None if worst is Status.CONVERGED else worst.message,
    )
