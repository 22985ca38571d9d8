"""The one derivative rule: `z = root(F, z0, *args)` as an autograd function that differentiates itself.

`_Root` evaluates a call. Its reverse rule solves the adjoint equation, its forward rule the tangent
equation, and both do so by `_Root` again; its arguments are then the solution, the cotangent or tangent,
and the arguments of the call. Derivatives of every order, forward over reverse, and all of `torch.func`
follow. The rule for `vmap` solves one problem with one more axis of independent systems.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from ..solvers import Solver, Stopping
from .calls.call import Asking, Call
from .calls.on_tensors import solved
from .calls.outcome import CallOutcome, Record
from .compiled.compiled_adjoint import compiled_adjoint
from .equations.derived import AdjointEquation, DerivedEquation, Packed, TangentEquation
from .equations.differentiation import (
    derivative_wanted,
    transforming,
    unwrap_dead,
    without_tangent,
)
from .equations.equation import GivenEquation
from .equations.exchange import set_aside
from .equations.layout import Layout, Leaves
from .equations.mapping import in_front, mapped_by_autograd, with_axis_of_autograd
from .gradients.mode import TapedGradient
from .graphs.shortcut import adjoint
from .surroundings.compilation import outside_of_graphs
from .surroundings.purity import check_at_solution


def solve_call(call: Call, z0: Leaves, args: Leaves, asking: Asking) -> CallOutcome:
    """The differentiable solution, with status, residual norm and steps of each system."""
    if not derivative_wanted((*z0, *args)):
        with torch.no_grad():
            return solved(call, asking, z0, args)
    return CallOutcome.of(_Root.apply(call, asking, *z0, *args), call.leaves)


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

    @property
    def solver(self) -> Solver:
        return self.call.solver

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
            # Zeros that take no memory.
            start = tuple(c.new_zeros(()).expand_as(c) for c in self.equation.constant(self.args))
        call = replace(self.call, equation=self.equation, solver=solver, stopping=stopping)
        return solve_call(call, start, self.args, asking).value


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
    if not recording and asking.record.order == 0:
        found = _gradient_at_once(call, asking, z, args, cotangents, needed)
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


def _gradient_at_once(
    call: Call, asking: Asking, z: Leaves, args: Leaves, cotangents: Leaves, needed: list[int]
) -> Leaves | None:
    """The same by compiled code for the whole adjoint; `None` where the general way is to be taken."""
    graph, equation = call.gradient.compiled, call.equation
    in_code = isinstance(equation, GivenEquation) and equation.compiled is not None
    if graph is None and not (in_code and call.gradient.by_factors):
        return None
    if transforming() or torch._C._len_torch_function_stack():
        return None
    with set_aside():
        if graph is not None:
            found = adjoint(equation, *graph, z, cotangents, args, needed)
        else:
            found = compiled_adjoint(equation, z, cotangents, args, needed)
        if found is None:
            return None
        outcome, counts, value, gradients = found
        record = asking.record.derived()
        record.counts = counts
        record.note(outcome)
        layout = Layout.of(z, equation.batch_dims)
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
        outcome = solved(call, asking, z0, args)
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
