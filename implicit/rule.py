"""The one derivative rule: `z = root(F, z0, *args)` as an autograd function that differentiates itself.

`_Root` evaluates a call. Its reverse rule solves the adjoint equation, its forward rule the tangent
equation, and both do so by `_Root` again, with the solution, the cotangent or tangent and the arguments
as arguments: hence derivatives of every order, forward over reverse, and all of `torch.func`. The rule
for `vmap` solves one problem with one more axis of independent systems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from ..solvers import Callback, Solution, Solver, Stopping
from ..solvers.driving.driver import solve
from ..solvers.driving.end_states import EndStates
from .equations.differentiation import pullback, pushforward, transforming, unwrap_dead
from .equations.equation import Equation
from .equations.flat import flat_problem
from .equations.layout import Layout, Leaves
from .gradients import ImplicitGradient, TapedGradient, adjoint, tangent
from .surroundings.failure import FailurePolicy, check_start, handle_failure
from .surroundings.replay import without_autocast
from .surroundings.tracing import refuse_tracing


class Outcome(NamedTuple):
    """What a call returns: the value, and an entry per system in each of the others."""

    value: Leaves
    status: Tensor
    residual: Tensor
    steps: Tensor
    best_step: Tensor
    """The solver step that reached the value: on failure not the last."""


@dataclass
class Report:
    """What a call leaves behind besides differentiable values: physical tensors, no wrappers.

    Attributes:
        solution: The outcome of the call.
        best_step: The solver step that reached the value, for each system.
        adjoints: Those of the derived equations; entry `k` is the newest of order `k + 1`.
        order: How often the equation was derived from the one that the user gave.
        ends: The states that the solver ended in, if the gradient mode keeps them.
        batch_shape: The systems that were solved.
    """

    solution: Solution | None = None
    best_step: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    adjoints: list[Solution] = field(default_factory=list)
    order: int = 0
    ends: EndStates | None = None
    batch_shape: tuple[int, ...] = ()

    def record(self, solution: Solution) -> None:
        """Take note of a solution, of the given or of a derived equation."""
        # Detached: an output reachable from its own graph would live until the collector runs.
        self.solution = solution.detach()
        if self.order > 0:
            self.adjoints[self.order - 1 :] = [self.solution]


@dataclass(frozen=True)
class Call:
    """Everything about a call of `root` but its tensors."""

    equation: Equation
    solver: Solver
    stopping: Stopping | None
    gradient: ImplicitGradient | TapedGradient
    on_failure: FailurePolicy
    leaves: int
    report: Report
    trace: bool = False
    callback: Callback | None = None
    first: Leaves | None = None
    """The value of the equation's function at the start, if known."""
    from_zero: bool = False
    """Whether the equation is a derived one and starts at zero, where its value is its constant."""
    precision: torch.dtype | None = None
    """The dtype that the given equation's function computes in, if coarser than its values show."""
    build: Callable[[Leaves], Any] = tuple
    """Leaves of the unknown in the structure of `z0`, for the solution that an error carries."""

    def root(self, z0: Leaves, args: Leaves) -> Leaves:
        """The solution alone."""
        return _Root.apply(self, *z0, *args)[: self.leaves]

    def outcome(self, z0: Leaves, args: Leaves) -> Outcome:
        """The solution, and how each system got there."""
        outputs = _Root.apply(self, *z0, *args)
        return Outcome(outputs[: self.leaves], *outputs[self.leaves :])

    def derived(
        self, equation: Equation, solver: Solver, stopping: Stopping | None, *, from_zero: bool
    ) -> Call:
        """The call that solves an adjoint or tangent equation of this one."""
        return replace(
            self,
            equation=equation,
            solver=solver,
            stopping=stopping,
            report=Report(adjoints=self.report.adjoints, order=self.report.order + 1),
            trace=False,
            callback=None,
            first=None,
            from_zero=from_zero,
        )

    def solve(self, z0: Leaves, args: Leaves) -> Solution:
        """Solve on plain tensors."""
        refuse_tracing(self.equation.described)
        with without_autocast():
            return self._solve(z0, args)

    def _solve(self, z0: Leaves, args: Leaves) -> Solution:
        layout = Layout.of(z0, self.equation.batch_dims)
        first, evaluations = self.first, 1
        if self.from_zero:
            first, evaluations = self.equation.constant(args), 0
        elif first is None:
            first = self.equation.evaluate(z0, args)
        problem = flat_problem(self.equation, layout, args, _coarsest(z0, first, self.precision))
        problem.counts.evaluations = evaluations
        z = layout.flatten(z0)
        value = layout.flatten(first)
        residual = value - z if self.equation.form == "fixed_point" else -value
        if self.gradient.keeps_inverse and self.report.order == 0:
            self.report.ends = EndStates()
        self.report.batch_shape = tuple(layout.batch_shape)
        result = solve(
            problem,
            self.solver,
            z,
            self.stopping,
            residual=residual,
            callback=self.callback,
            trace=self.trace,
            ends=self.report.ends,
            sequence=max(layout.batch_shape[-1], 1) if self.equation.causal else None,
        )
        check_start(self.equation.described, z, result.status, result.steps)
        self.report.best_step = result.best_step
        norms = torch.from_numpy(result.residual_norm)
        if layout.narrows:
            norms = _norms_after_rounding(problem, layout, result.z)

        def per_system(entries: Tensor, dtype: torch.dtype) -> Tensor:
            return entries.to(z.device, dtype).reshape(layout.batch_shape)

        solution = Solution(
            value=layout.unflatten(result.z),
            status=per_system(torch.from_numpy(result.status), torch.int8),
            residual=per_system(norms, layout.dtype),
            steps=per_system(torch.from_numpy(result.steps), torch.int64),
            counts=problem.counts,
            trace=result.trace,
            adjoints=[] if self.report.order else self.report.adjoints,
        )
        built = replace(solution, value=self.build(solution.value))
        handle_failure(self.on_failure, self.equation.described, self.solver, built, result)
        return solution


def _coarsest(z0: Leaves, first: Leaves, precision: torch.dtype | None) -> torch.dtype:
    """The coarsest floating-point type that takes part."""
    dtypes = {leaf.dtype for leaf in (*z0, *first)} | ({precision} if precision else set())
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)


def _norms_after_rounding(problem: Any, layout: Layout, z: Tensor) -> Tensor:
    """Residual norms of the iterate as it comes back, in the narrower dtype of the unknown."""
    rounded = layout.flatten(layout.unflatten(z))
    problem.unpark()
    norm = torch.linalg.vector_norm(problem.residual(rounded), dim=1)
    return norm / max(z.shape[1], 1) ** 0.5


def _share(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _recording(tensors: Leaves) -> bool:
    """Whether a derivative of what is computed from `tensors` may be asked for."""
    return torch.is_grad_enabled() and (
        transforming() or any(tensor.requires_grad for tensor in tensors)
    )


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        z0, args = tensors[: call.leaves], tensors[call.leaves :]
        solution = call.solve(z0, args)
        call.report.record(solution)
        # An output must not be an input: a solve may end where it began.
        value = tuple(
            leaf.clone() if any(_share(leaf, start) for start in z0) else leaf
            for leaf in solution.value
        )
        best_step = torch.from_numpy(call.report.best_step).to(solution.steps.device)
        best_step = best_step.reshape(solution.steps.shape)
        return (*value, solution.status, solution.residual, solution.steps, best_step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, *tensors = inputs
        ctx.call = replace(call, first=None)
        ctx.mark_non_differentiable(*output[call.leaves :])
        ctx.set_materialize_grads(False)
        saved = (*output[: call.leaves], *tensors[call.leaves :])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        # Read once: a non-reentrant checkpoint lets each saved tensor be unpacked a single time.
        saved = tuple(map(unwrap_dead, ctx.saved_tensors))
        z, args = saved[: call.leaves], saved[call.leaves :]
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[1 + call.leaves :]) if wanted]
        gradients: list[Tensor | None] = [None] * len(args)
        own = cotangents[: call.leaves]
        if needed and any(cotangent is not None for cotangent in own):
            filled = tuple(
                torch.zeros_like(leaf) if cotangent is None else cotangent
                for leaf, cotangent in zip(z, own, strict=True)
            )
            with torch.set_grad_enabled(_recording((*saved, *filled))):
                u = adjoint(call, z, filled, args)
                function, primals, captured = call.equation.argument_function(z, args, needed)
                _, back = pullback(function, primals, captured)
                for position, gradient in zip(needed, back(u), strict=True):
                    gradients[position] = gradient
        return (None, *[None] * call.leaves, *gradients)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        given = {i: t for i, t in enumerate(tangents[1 + call.leaves :]) if t is not None}
        # Autograd functions switch forward mode off while this rule runs, for enclosing
        # transforms as well, whose derivatives would be lost without a word (pytorch/pytorch
        # issue 197867). Switched on again, the rule must not see the tangents of its own level.
        with forward_ad._set_fwd_grad_enabled(True):
            saved = tuple(forward_ad.unpack_dual(tensor).primal for tensor in ctx.saved_tensors)
            z, args = saved[: call.leaves], saved[call.leaves :]
            if not given:
                return (*(torch.zeros_like(leaf) for leaf in z), None, None, None, None)
            with torch.set_grad_enabled(_recording((*saved, *given.values()))):
                function, primals, _ = call.equation.argument_function(z, args, list(given))
                _, forward = pushforward(function, primals)
                w = tangent(call, z, forward(tuple(given.values())), args)
        return (*w, None, None, None, None)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], call: Call, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size, dims = info.batch_size, in_dims[1:]
        expanded = call.leaves + call.equation.batched_prefix

        def front(position: int) -> Tensor:
            tensor, dim = tensors[position], dims[position]
            if dim is not None:
                return tensor.movedim(dim, 0)
            return tensor.expand(size, *tensor.shape) if position < expanded else tensor

        moved = tuple(front(position) for position in range(len(tensors)))
        mapped = tuple(dim is not None or position < expanded for position, dim in enumerate(dims))
        equation = call.equation.vmapped(mapped[call.leaves :], info.randomness)
        outputs = _Root.apply(replace(call, equation=equation, first=None), *moved)
        return outputs, (0,) * len(outputs)
