"""Equations with arguments filled in, as flat problems for solvers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ...solvers.interface.derivative import Derivative
from ...solvers.interface.derived_at import DerivedAt
from ...solvers.interface.problem import Problem
from ...solvers.interface.programme import Programme
from ...solvers.interface.time_steps import TimeSteps
from ...solvers.interface.traced import Part, TracedEquation
from ..graphs.memory import MEMORY
from .derived import AdjointEquation, DerivedEquation, Packed
from .differentiation import (
    Product,
    forward_product,
    matrix,
    once_differentiable,
    pullback,
    transposed,
)
from .equation import Equation, GivenEquation
from .layout import Layout, Leaves
from .objectives import flat_objective
from .programmes import flat_programme


def flat_problem(
    equation: Equation, layout: Layout, args: Leaves, precision: torch.dtype | None = None
) -> Problem:
    """The problem on `(batch, n)` tensors for given arguments."""
    bound = equation.bind(args)
    function = _on_flat(bound.function, layout)
    linearize = _linearizing(function)
    operator = None if bound.operator is None else _on_flat(bound.operator, layout)
    transpose = None if bound.transpose is None else _on_flat(bound.transpose, layout)

    compiled = equation.compiled if isinstance(equation, GivenEquation) else None
    if compiled is not None and layout.sizes != [compiled.n]:
        compiled = None  # A system here is not one system of the compiled form.
    problem = Problem(
        function=function,
        form=equation.form,
        linearize=linearize,
        operator=operator,
        transpose=transpose,
        operator_matrix=None if operator is None else lambda z: matrix(operator, z),
        compiled=None if compiled is None else lambda: compiled.at(layout.batch_shape, args),
        graph=_graph(equation, layout, args) if equation.traceable else None,
        precision=precision,
        sizes=layout.moduli if layout.has_complex else None,
        programme=_programme(equation, layout, args),
        time=_time_steps(equation, layout),
        derived_at=_derived_at(equation, layout, args),
    )
    if equation.derivatives is not None:
        problem = equation.derivatives.applied(problem, layout, args)
    if isinstance(equation, GivenEquation) and equation.objective is not None:
        at_args = equation.objective_at(args)
        problem.objective = flat_objective(equation.objective, at_args, layout, problem.counts)
    if isinstance(equation, GivenEquation) and equation.box is not None:
        problem.box = equation.box.at(layout, args)
        if equation.box.unreduced is not None:
            unreduced = _on_flat(equation.unreduced_at(args), layout)
            problem.unreduced = Problem(
                unreduced, "root", _linearizing(unreduced),
                precision=precision, counts=problem.counts,
            )  # fmt: skip
    batched = equation.batched_args if isinstance(equation, GivenEquation) else None
    if batched is None or layout.batch_shape != (layout.systems,):
        return problem

    def restrict(index: Tensor) -> Problem:
        some = tuple(
            arg.index_select(0, index) if is_batched else arg
            for arg, is_batched in zip(args, batched, strict=True)
        )
        smaller = flat_problem(equation, layout.restricted(len(index)), some, precision)
        objective = smaller.objective
        if objective is not None:
            objective = replace(objective, counts=problem.counts)
        unreduced = smaller.unreduced
        if unreduced is not None:
            unreduced = replace(unreduced, counts=problem.counts)
        return replace(
            smaller, counts=problem.counts, restrict=None, objective=objective, unreduced=unreduced
        )

    return replace(problem, restrict=restrict)


def _linearizing(
    function: Callable[[Tensor], Tensor],
) -> Callable[[Tensor], tuple[Tensor, Derivative]]:
    """The value of a function of flat tensors and its derivative at a point."""

    def linearize(z: Tensor) -> tuple[Tensor, Derivative]:
        (value,), back = pullback(lambda z: (function(z),), (z,))
        derivative = _FlatDerivative(function, z, value, back)
        return (value if torch.is_grad_enabled() else value.detach()), derivative

    return linearize


def _programme(equation: Equation, layout: Layout, args: Leaves) -> Callable[[], Programme] | None:
    if not (isinstance(equation, GivenEquation) and equation.programme):
        return None
    return lambda: flat_programme(layout, args)


def _derived_at(equation: Equation, layout: Layout, args: Leaves) -> DerivedAt | None:
    """The solution at which a derived equation was derived."""
    if not isinstance(equation, DerivedEquation):
        return None
    solution = layout.flatten(Packed.of(args, equation.leaves).z).detach()
    sizes = layout.moduli if layout.has_complex else torch.abs
    return DerivedAt(solution, isinstance(equation, AdjointEquation), sizes)


def _time_steps(equation: Equation, layout: Layout) -> TimeSteps | None:
    """The time steps of a causal equation or of one derived from it."""
    direction = equation.direction
    if direction is None:
        return None
    against, sizes = direction == "backward", layout.sizes
    if equation.causal:
        return TimeSteps(max(layout.batch_shape[-1], 1), tuple(sizes), reversed=against)
    length = max(layout.shapes[0][len(layout.batch_shape)], 1)
    return TimeSteps(length, tuple(size // length for size in sizes), whole=True, reversed=against)


def _graph(
    equation: Equation, layout: Layout, args: Leaves
) -> Callable[[Part, Tensor], TracedEquation]:
    return lambda part, z: MEMORY.find(equation, layout, args, part, z)


def _on_flat(function: Product, layout: Layout) -> Callable[[Tensor], Tensor]:
    return lambda z: layout.flatten(function(layout.unflatten(z)))


@dataclass
class _FlatDerivative:
    """Products with `J` at one point, all from one evaluation if it can be differentiated twice."""

    function: Callable[[Tensor], Tensor]
    z: Tensor
    value: Tensor
    back: Product
    once: RuntimeError | None = None
    """PyTorch's error if it refuses a second differentiation."""

    @cached_property
    def _forward(self) -> Product:
        return transposed(self.back, (self.value,))

    def jvp(self, v: Tensor) -> Tensor:
        if self.once is None:
            try:
                return self._forward((v,))[0]
            except RuntimeError as error:
                if not once_differentiable(error):
                    raise
                self.once = error
        return forward_product(self.function, self.z, v, self.once)

    def vjp(self, u: Tensor) -> Tensor:
        return self.back((u,))[0]

    def jacobian(self, like: Tensor) -> Tensor:
        return matrix(self.vjp, like).mT
