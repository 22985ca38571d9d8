"""The one derivative rule: `z = root(F, z0, *args)` as an autograd function that differentiates itself.

`_Root` evaluates a call. Its reverse rule solves the adjoint equation, its forward rule the tangent
equation, and both do so by `_Root` again; its arguments are then the solution, the cotangent or tangent,
and the arguments of the call. Derivatives of every order, forward over reverse, and all of `torch.func`
follow. The rule for `vmap` solves one problem with one more axis of independent systems.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from ..solvers import FlatSolution, Solver, Status, Stopping
from ..solvers.driving.driver import solve
from ..solvers.driving.end_states import EndStates
from ..solvers.interface.check import Watcher
from ..solvers.interface.norms import rms
from ..solvers.interface.problem import Problem
from .equations.boxes import check_box
from .equations.derived import AdjointEquation, DerivedEquation, Packed, TangentEquation
from .equations.differentiation import (
    coarsest,
    derivative_wanted,
    transforming,
    unwrap_dead,
    without_tangent,
)
from .equations.equation import Equation
from .equations.exchange import set_aside
from .equations.flat import flat_problem
from .equations.hooks import without_hooks
from .equations.layout import Layout, Leaves
from .equations.mapping import in_front, mapped_by_autograd, with_axis_of_autograd
from .gradients.mode import ImplicitGradient, TapedGradient
from .graphs.shortcut import adjoint
from .outcome import CallOutcome, Record, Solved
from .surroundings.autocast import without_autocast
from .surroundings.compilation import outside_of_graphs
from .surroundings.failure import FailurePolicy, check_start, handle_failure, with_edges_named
from .surroundings.purity import check_at_solution
from .surroundings.refinement import refined, refines
from .surroundings.tracing import refuse_tracing
from .surroundings.watching import flat_watcher


@dataclass(frozen=True)
class Call:
    """An equation with its solver, stopping rule and gradient mode.

    Attributes:
        equation: The equation.
        solver: The solver.
        stopping: The stopping rule; `None` for the defaults of the dtype.
        gradient: The gradient mode.
        leaves: Number of tensors of the unknown.
    """

    equation: Equation
    solver: Solver
    stopping: Stopping | None
    gradient: ImplicitGradient | TapedGradient
    leaves: int

    def solve(self, z0: Leaves, args: Leaves, asking: Asking) -> CallOutcome:
        """The differentiable solution, with status, residual norm and steps of each system."""
        if not derivative_wanted((*z0, *args)):
            with torch.no_grad():
                return _solved(self, asking, z0, args)
        return CallOutcome.of(_Root.apply(self, asking, *z0, *args), self.leaves)


@dataclass(frozen=True)
class Asking:
    """One request for the solution of a call: the output asked for, and the values known already.

    Attributes:
        record: Receives everything but the tensors of the outcome.
        on_failure: The policy for systems that are not solved.
        trace: Record the residual norms of every check.
        callback: Called at every check.
        first: The value of the equation's function at the start, if known.
        from_zero: The equation is a derived one and starts at zero, where its value is its constant.
        precision: The dtype that the given function computes in, if coarser than that of its values.
        outcome: The result, if it is known already.
        build: Puts leaves of the unknown in the structure of `z0`, for the solution that an error carries.
    """

    record: Record = field(default_factory=Record)
    on_failure: FailurePolicy = "raise"
    trace: bool = False
    callback: Watcher | None = None
    first: Leaves | None = None
    from_zero: bool = False
    precision: torch.dtype | None = None
    outcome: CallOutcome | None = None
    build: Callable[[Leaves], Any] = tuple

    def again(self) -> Asking:
        """The same request for another start."""
        return replace(self, first=None, outcome=None)


@dataclass(frozen=True)
class _LinearSolve:
    """A derived equation of a call, to be solved by its gradient mode."""

    call: Call
    asking: Asking
    equation: DerivedEquation
    args: Leaves

    @property
    def record(self) -> Record:
        return self.asking.record

    def solve(
        self,
        solver: Solver,
        stopping: Stopping | None,
        start: Leaves | None = None,
        *,
        accept_failure: bool = False,
    ) -> Leaves:
        asking = Asking(
            record=self.record.derived(),
            on_failure="accept" if accept_failure else self.asking.on_failure,
            from_zero=start is None,
            precision=self.asking.precision,
        )
        if start is None:
            start = tuple(map(torch.zeros_like, self.equation.constant(self.args)))
        call = replace(self.call, equation=self.equation, solver=solver, stopping=stopping)
        return call.solve(start, self.args, asking).value


def _derivative(
    kind: type[DerivedEquation],
    call: Call,
    asking: Asking,
    z: Leaves,
    constant: Leaves,
    args: Leaves,
) -> Leaves:
    """The solution of the adjoint or tangent equation at `z`, by the gradient mode of the call."""
    if isinstance(call.gradient, TapedGradient):
        raise TypeError(
            f"{type(call.gradient).__name__} differentiates iterations, not the solution"
        )
    equation = kind(call.equation, len(z))
    packed = Packed(z, constant, args)
    return call.gradient.solve_linear(_LinearSolve(call, asking, equation, packed.flat))


def _solved(call: Call, asking: Asking, z0: Leaves, args: Leaves) -> CallOutcome:
    """The outcome if it is known already, or a solve on plain tensors."""
    outcome = asking.outcome
    if outcome is None:
        with without_autocast(), without_hooks():
            outcome = _solve(call, asking, z0, args)
    # An output must not be an input, and a solve may return its start.
    value = tuple(
        leaf.clone() if any(_share(leaf, start) for start in z0) else leaf for leaf in outcome.value
    )
    return outcome._replace(value=value)


def _solve(call: Call, asking: Asking, z0: Leaves, args: Leaves) -> CallOutcome:
    """Solve on plain tensors."""
    equation, record = call.equation, asking.record
    refuse_tracing(equation.described)
    layout = Layout.of(z0, equation.batch_dims)
    first, evaluations = asking.first, 1
    if asking.from_zero:
        first, evaluations = Packed.of(args, call.leaves).constant, 0
    elif first is None:
        first = equation.evaluate(z0, args)
    precision = coarsest((*z0, *first), asking.precision)
    problem = flat_problem(equation, layout, args, precision)
    problem.counts.evaluations = evaluations
    z, value = layout.flatten(z0), layout.flatten(first)
    if problem.box is not None:
        check_box(problem.box, z, layout)
    if call.gradient.keeps_inverse and record.order == 0:
        record.ends = EndStates()
    record.batch_shape = tuple(layout.batch_shape)
    solver = call.solver
    if equation.derivatives is not None:
        solver = equation.derivatives.solver(solver, layout, z)
    result = solve(
        problem,
        solver,
        z,
        call.stopping,
        residual=_residual_at_start(equation, z, value, asking),
        callback=flat_watcher(asking.callback, asking.build, layout) if asking.callback else None,
        trace=asking.trace,
        ends=record.ends,
        sequence=max(layout.batch_shape[-1], 1) if equation.causal else None,
    )
    if not call.solver.judges_start:
        check_start(equation.described, z, result.status, result.steps)
    # Modes that follow the steps of the solver, and causal equations, keep its own last iterate.
    kept = layout.narrows or equation.causal or call.solver.judges_start
    free = record.ends is None and not kept
    if free and isinstance(call.gradient, ImplicitGradient) and refines(problem, call.stopping):
        result = refined(problem, solver, result)
    record.counts, record.trace, record.best_steps = problem.counts, result.trace, result.best_step
    outcome = _outcome(problem, layout, result)
    if asking.on_failure != "accept" and (result.status != Status.CONVERGED).any():
        result = with_edges_named(problem, result)
    if record.order == 0:
        norms = result.residual_norm
        if layout.narrows:
            norms = outcome.residual_norm.flatten().cpu().double().numpy()
        record.solved = Solved(norms, result.status == Status.CONVERGED, precision)
    handle_failure(
        asking.on_failure,
        equation.described,
        call.solver,
        result,
        record.batch_shape,
        lambda: record.solution(asking.build(outcome.value), outcome),
    )
    record.note(outcome)
    return outcome


def _residual_at_start(equation: Equation, z: Tensor, value: Tensor, asking: Asking) -> Tensor:
    """The residual at the start, without a copy of the constant where that is all of it."""
    if equation.form == "root":
        return -value
    return value if asking.from_zero else value - z


def _outcome(problem: Problem, layout: Layout, result: FlatSolution) -> CallOutcome:
    """The flat result in the shapes and dtypes of the unknown."""
    value, norms = layout.unflatten(result.z), torch.from_numpy(result.residual_norm)
    if layout.narrows:
        # The value is rounded to the narrower dtype of the unknown, so its residual is evaluated again.
        problem.unpark()
        norms = rms(problem.residual(layout.flatten(value)))

    def per_system(entries: Tensor, dtype: torch.dtype) -> Tensor:
        return entries.to(result.z.device, dtype).reshape(layout.batch_shape)

    return CallOutcome(
        value,
        per_system(torch.from_numpy(result.status), torch.int8),
        per_system(norms, layout.dtype),
        per_system(torch.from_numpy(result.steps), torch.int64),
        per_system(torch.from_numpy(result.best_step), torch.int64),
        per_system(torch.from_numpy(result.error), layout.dtype),
    )


def _share(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()


def _recording(tensors: Leaves) -> bool:
    """True if a derivative with respect to one of `tensors` may be asked for later."""
    return torch.is_grad_enabled() and (
        transforming() or any(tensor.requires_grad for tensor in tensors)
    )


def _gradient(
    call: Call, asking: Asking, saved: Leaves, cotangents: Leaves, needed: list[int]
) -> Leaves:
    """The gradients of the arguments `needed`, from the cotangents of the solution."""
    z, args = saved[: call.leaves], saved[call.leaves :]
    recording = _recording((*saved, *cotangents))
    if not recording and asking.record.order == 0 and call.gradient.compiled is not None:
        found = _gradient_by_graph(call, asking, z, args, cotangents, needed)
        if found is not None:
            return found
    with torch.set_grad_enabled(recording), set_aside():
        u = _derivative(AdjointEquation, call, asking, z, cotangents, args)
        value, back = call.equation.pullback_arguments(z, args, needed)
        if asking.record.order == 0:
            layout = Layout.of(z, call.equation.batch_dims)
            equation = call.equation
            check_at_solution(equation.described, equation.form, z, value, asking.record, layout)
        return back(u)


def _gradient_by_graph(
    call: Call, asking: Asking, z: Leaves, args: Leaves, cotangents: Leaves, needed: list[int]
) -> Leaves | None:
    """The same by the compiled graph of the adjoint; `None` where the general way is to be taken."""
    assert call.gradient.compiled is not None  # for the type checker
    if transforming() or torch._C._len_torch_function_stack():
        return None
    solver, stopping = call.gradient.compiled
    with set_aside():
        found = adjoint(call.equation, solver, stopping, z, cotangents, args, needed)
        if found is None:
            return None
        outcome, counts, value, gradients = found
        record = asking.record.derived()
        record.counts = counts
        record.note(outcome)
        layout = Layout.of(z, call.equation.batch_dims)
        equation = call.equation
        check_at_solution(equation.described, equation.form, z, value, asking.record, layout)
    return gradients


def _tangent(
    call: Call, asking: Asking, saved: Leaves, tangents: Leaves, given: list[int]
) -> Leaves:
    """The tangent of the solution, from those of the arguments `given`."""
    z, args = saved[: call.leaves], saved[call.leaves :]
    with torch.set_grad_enabled(_recording((*saved, *tangents))), set_aside():
        _, forward = call.equation.pushforward_arguments(z, args, given)
        return _derivative(TangentEquation, call, asking, z, forward(tangents), args)


class _Root(torch.autograd.Function):
    @staticmethod
    def forward(call: Call, asking: Asking, *tensors: Tensor) -> tuple[Tensor, ...]:
        z0, args = tensors[: call.leaves], tensors[call.leaves :]
        outcome = _solved(call, asking, z0, args)
        return (*outcome.value, *outcome[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call, asking, *tensors = inputs
        ctx.call, ctx.asking = call, asking.again()
        ctx.mark_non_differentiable(*output[call.leaves :])
        ctx.set_materialize_grads(False)
        saved = (*output[: call.leaves], *tensors[call.leaves :])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    @outside_of_graphs
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        # Read once: a non-reentrant checkpoint allows each saved tensor to be unpacked only once.
        saved = tuple(map(unwrap_dead, ctx.saved_tensors))
        args = saved[call.leaves :]
        needed = [i for i, wanted in enumerate(ctx.needs_input_grad[2 + call.leaves :]) if wanted]
        gradients: list[Tensor | None] = [None] * len(args)
        own = cotangents[: call.leaves]
        if needed and any(cotangent is not None for cotangent in own):
            filled = tuple(
                torch.zeros_like(leaf) if cotangent is None else cotangent
                for leaf, cotangent in zip(saved, own, strict=False)
            )

            def gradient(*cotangents: Tensor) -> Leaves:
                return _gradient(call, ctx.asking, saved, cotangents, needed)

            mapped = mapped_by_autograd(filled)
            found = with_axis_of_autograd(gradient, filled) if mapped else gradient(*filled)
            for position, one in zip(needed, found, strict=True):
                gradients[position] = one
        return (None, None, *[None] * call.leaves, *gradients)

    @staticmethod
    @outside_of_graphs
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call: Call = ctx.call
        given = {i: t for i, t in enumerate(tangents[2 + call.leaves :]) if t is not None}
        # Autograd functions switch forward mode off while this rule runs, also for enclosing transforms,
        # whose derivatives are then lost silently (pytorch/pytorch issue 197867). So it is switched on
        # again, and the tangents of the rule's own level are removed.
        with forward_ad._set_fwd_grad_enabled(True):
            saved = tuple(map(without_tangent, ctx.saved_tensors))
            if not given:
                return (*(torch.zeros_like(leaf) for leaf in saved[: call.leaves]), *[None] * 5)

            def tangent(*tangents: Tensor) -> Leaves:
                return _tangent(call, ctx.asking, saved, tangents, list(given))

            own = tuple(given.values())
            w = with_axis_of_autograd(tangent, own) if mapped_by_autograd(own) else tangent(*own)
        return (*w, *[None] * 5)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], call: Call, asking: Asking, *tensors: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        dims = in_dims[2:]
        expanded = call.leaves + call.equation.batched_prefix
        moved = tuple(
            in_front(tensor, dim, info.batch_size, expand=position < expanded)
            for position, (tensor, dim) in enumerate(zip(tensors, dims, strict=True))
        )
        mapped = tuple(dim is not None or position < expanded for position, dim in enumerate(dims))
        equation = call.equation.vmapped(mapped[call.leaves :], info.randomness)
        outputs = _Root.apply(replace(call, equation=equation), asking.again(), *moved)
        return outputs, (0,) * len(outputs)


# PyTorch asks for the signature in each call, which without this takes a twentieth of a small solve.
_Root.forward.__signature__ = inspect.signature(_Root.forward)  # type: ignore[attr-defined]
