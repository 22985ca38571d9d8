"""The solve of a layer as one graph, and its gradient as others.

No driver stands behind these graphs. A system that they do not solve is NaN in the value, so that nobody
takes it for a solution; `solve` has the statuses.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ...solvers import GMRES, Compiled, FixedPointIteration, Newton, Status, Stopping
from ...solvers.graph.building import loop_graph
from ...solvers.graph.loop import Asked
from ...solvers.graph.methods import method_of
from ...solvers.graph.run import loop_of, rule_numbers
from ...solvers.interface.solver import Solver
from ...solvers.interface.stopping import DEFAULTS
from ..calls.settings import Settings
from ..equations.derived import AdjointEquation, Packed
from ..equations.equation import GivenEquation
from ..equations.layout import Layout, Leaves
from ..gradients import Exact
from ..surroundings.evaluation import UserFunction
from .tracing import Example, Sizes, trace, trace_product

# So many plain steps come first; 0.7 to this power is the tolerance in single precision.
_PLAIN_STEPS = 40
# Up to so many unknowns adjoints are solved by factors, as outside of graphs.
_FEW_UNKNOWNS = 32
_CONVERGED, _STALLED = int(Status.CONVERGED), float(Status.STALLED)


def graph_solver(settings: Settings) -> Solver:
    """The solver of a layer within a graph: its own, or `Newton()` for the default of roots.

    Raises:
        TypeError: It has no steps for a graph.
    """
    if settings.bounds is not None:
        raise TypeError(
            "bounds are kept by ProjectedNewton, which cannot become a part of a graph: compile without "
            "fullgraph=True"
        )
    solver = settings.chosen_solver
    if type(solver) is Compiled:
        solver = solver.solver
    elif settings.form == "root" and settings.solver is None:
        solver = Newton()
    method_of(solver)
    if settings.form == "root" and type(solver) is not Newton:
        raise TypeError(
            "a root is found in a graph by solver=Newton() or Compiled(Newton()), whose last step tells how "
            f"far a root is; a small residual does not. Got {solver!r}"
        )
    return solver


def _begins_plainly(settings: Settings) -> bool:
    """True for the default of fixed points, whose plain steps are a loop of their own.

    A loop has no branches: one of Anderson's method would take its steps in full, of whatever kind they are.
    """
    rule = settings.chosen_stopping or DEFAULTS
    default = settings.form == "fixed_point" and settings.solver is None
    return default and rule.max_steps is None


def _adjoint_solver(settings: Settings, n: int) -> tuple[Solver, Stopping] | None:
    """The solver of the adjoint within a graph and its rule; `None` for a mode that has none."""
    gradient = settings.chosen_gradient
    if not isinstance(gradient, Exact):
        return None
    # A step of Newton's method solves a linear equation, by factors.
    default = Newton() if n <= _FEW_UNKNOWNS else GMRES()
    solver = gradient.solver or default
    if type(solver) is Compiled:
        solver = solver.solver
    method_of(solver)
    return solver, gradient.stopping or DEFAULTS


class GraphSolution(NamedTuple):
    """The end of a solve in a graph; one entry per system but in `value`.

    Attributes:
        value: The iterates with the smallest residual.
        status: `Status` codes, `(batch,)`.
        steps: Steps of each system.
        residual_norm: Root-mean-square norms of the residual of `value`.

    Examples:
        >>> one = torch.ones(1)
        >>> GraphSolution(one, one.long(), one, 0 * one).status.tolist() == [Status.CONVERGED]
        True
    """

    value: Tensor
    status: Tensor
    steps: Tensor
    residual_norm: Tensor


class LayerGraphs(nn.Module):
    """The solve of one kind of call of a layer as a graph, and its gradient as two others.

    Args:
        given: The function of the layer with its inputs, parameters and buffers.
        settings: The settings of the layer.

    Raises:
        TypeError: The solver, the unknown or the function is none for a graph.
        GraphError: The function cannot be traced.

    Examples:
        >>> from implicitly.implicit.surroundings.replay import Replay
        >>> z0, x = torch.zeros(3, 1), torch.ones(3, 1)
        >>> replay = Replay("f", z0, x)
        >>> given = UserFunction(lambda z, x: 0.5 * z + x, "f", z0, (x,), 1, replay)
        >>> graphs = LayerGraphs(given, Settings("fixed_point", batch_dims=1))
        >>> graphs.solve(z0, (x,)).value.flatten().round(decimals=4).tolist()
        [2.0, 2.0, 2.0]
    """

    def __init__(self, given: UserFunction, settings: Settings) -> None:
        super().__init__()
        solver = graph_solver(settings)
        if settings.batch_dims != 1 or settings.causal:
            raise TypeError(
                "a layer becomes a part of a graph with batch_dims=1 and without causal=True, got "
                f"batch_dims={settings.batch_dims}, causal={settings.causal}"
            )
        if settings.has_aux or settings.derivatives is not None or settings.watched:
            raise TypeError(
                "a layer becomes a part of a graph without has_aux, jacobian, sparsity, preconditioner, "
                "callback, progress and history, which a graph has not: leave them out, or compile without "
                "fullgraph=True"
            )
        _check(given)
        equation = GivenEquation(given.bind, settings.form, 1, described=given.described)
        layout = Layout.of(given.start, 1)
        adjoint = _adjoint_solver(settings, sum(layout.sizes))
        example = Example(layout, tuple(t.detach() for t in given.tensors), given.start[0].device)
        self._rule = settings.chosen_stopping or DEFAULTS
        self._solver, self._form = solver, settings.form
        self._mode = type(settings.chosen_gradient).__name__
        self._accepts = settings.on_failure == "accept"
        self._solve, solve_constants = _loop(equation, solver, example, layout)
        self._constants(("solve", solve_constants))
        self._plain: GraphModule | None = None
        if _begins_plainly(settings):
            self._plain_solver = FixedPointIteration()
            self._plain_rule = replace(self._rule, max_steps=_PLAIN_STEPS)
            self._plain, constants = _loop(equation, self._plain_solver, example, layout)
            self._constants(("plain", constants))
        self._adjoint: GraphModule | None = None
        if adjoint is not None:
            self._adjoint_solver, self._adjoint_rule = adjoint
            at = given.start[0].detach()
            packed = Packed((at,), (at,), example.args).flat
            wider = Example(layout, packed, example.device)
            derived = AdjointEquation(equation, 1)
            self._adjoint, constants = _loop(derived, self._adjoint_solver, wider, layout)
            self._product, more = trace_product(equation, example, _symbols(example))
            self._constants(("adjoint", constants), ("product", more))
            self._function = _function(self)

    def _constants(self, *named: tuple[str, Leaves]) -> None:
        """Register tensors that a graph has as inputs, though they are no arguments."""
        for name, tensors in named:
            for position, tensor in enumerate(tensors):
                self.register_buffer(f"_{name}_{position}", tensor, persistent=False)
            setattr(self, f"_{name}_count", len(tensors))

    def _of(self, name: str) -> Leaves:
        return tuple(getattr(self, f"_{name}_{i}") for i in range(getattr(self, f"_{name}_count")))

    def forward(self, start: Tensor, args: Leaves) -> tuple[Tensor, Tensor]:
        """The solution from a start, NaN for systems that are not solved, unless that is accepted.

        Its residual norms come with it.
        """
        if torch.is_grad_enabled() and any(arg.requires_grad for arg in args):
            if self._adjoint is None:
                raise TypeError(
                    f"a layer with gradient={self._mode}(...) has no gradients in a graph: give it "
                    "gradient=Exact(), or call it under torch.no_grad()"
                )
            value, norm = self._function.apply(start, *args)
            return value, norm
        solution = self.solve(start, args)
        return self._value(solution), solution.residual_norm

    def solve(self, start: Tensor, args: Leaves) -> GraphSolution:
        """The end of a solve, without derivatives: those through a loop of a graph are wrong."""
        if self._plain is None:
            return self._end(self._solve, "solve", self._solver, self._rule, start, args)
        plain = self._end(self._plain, "plain", self._plain_solver, self._plain_rule, start, args)
        done = plain.status == _CONVERGED
        rows = done.reshape(-1, *(1,) * (start.ndim - 1))
        start = torch.where(rows, plain.value, start)
        rest = self._end(self._solve, "solve", self._solver, self._rule, start, args, done)
        return GraphSolution(
            torch.where(rows, plain.value, rest.value),
            torch.where(done, plain.status, rest.status),
            plain.steps + torch.where(done, 0, rest.steps),
            torch.where(done, plain.residual_norm, rest.residual_norm),
        )

    def _end(
        self,
        graph: GraphModule,
        name: str,
        solver: Solver,
        rule: Stopping,
        start: Tensor,
        args: Leaves,
        held: Tensor | None = None,
    ) -> GraphSolution:
        """The end of one loop, in which the systems `held` take no part."""
        shape = start.shape
        z = start.reshape(shape[0], -1).contiguous()
        asked = _asked(z, rule, solver, solver.linear_only)
        if held is not None:
            asked = asked._replace(held=held)
        ones = z.new_ones(z.shape[0], 1)
        found, systems, _ = graph(
            z, z, ones, *asked, *(a.contiguous() for a in args), *self._of(name)
        )
        status, steps, _, norm, error = systems.unbind()
        # No driver examines a claim of which nothing is known.
        unknown = (status == _CONVERGED) & torch.isnan(error) & (steps > 0) & (norm > 0)
        status = torch.where(unknown, _STALLED, status)
        return GraphSolution(found.reshape(shape), status.to(torch.int8), steps.long(), norm)

    def _value(self, solution: GraphSolution) -> Tensor:
        if self._accepts:
            return solution.value
        unsolved = (solution.status != _CONVERGED).reshape(-1, *(1,) * (solution.value.ndim - 1))
        return torch.where(unsolved, torch.nan, solution.value)

    def _gradients(self, z: Tensor, cotangent: Tensor, args: Leaves) -> Leaves:
        """The gradients of all arguments that have one, in order."""
        assert self._adjoint is not None  # for the type checker
        batch = z.shape[0]
        constant = cotangent.reshape(batch, -1).contiguous()
        right = constant if self._form == "fixed_point" else -constant
        asked = _asked(right, self._adjoint_rule, self._adjoint_solver, True)
        tensors = tuple(a.contiguous() for a in args)
        ones, zeros = right.new_ones(batch, 1), torch.zeros_like(right)
        flat, systems, _ = self._adjoint(
            zeros, right, ones, *asked, z.contiguous(), cotangent.contiguous(), *tensors,
            *self._of("adjoint"),
        )  # fmt: skip
        unsolved = (systems[0] != _CONVERGED).unsqueeze(1)
        # A gradient that is not known is no number.
        u = torch.where(unsolved, torch.nan, flat)
        products: Leaves = self._product(u, z.contiguous(), *tensors, *self._of("product"))
        return products


def _function(graphs: LayerGraphs) -> Any:
    """The autograd function of a layer in a graph: a graph in each pass."""

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, start: Tensor, *args: Tensor) -> tuple[Tensor, Tensor]:
            solution = graphs.solve(start, args)
            value, norm = graphs._value(solution), solution.residual_norm
            ctx.save_for_backward(value, *args)
            ctx.mark_non_differentiable(norm)
            return value, norm

        @staticmethod
        def backward(ctx: Any, cotangent: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
            # Compiled models refuse a second backward pass by themselves.
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                raise RuntimeError(
                    "a layer in a graph has derivatives of first order, and create_graph=True asks for more: "
                    "use the ImplicitLayer outside of graphs"
                )
            z, *args = ctx.saved_tensors
            gradients = iter(graphs._gradients(z, cotangent, tuple(args)))
            return (None, *(next(gradients) if a.is_floating_point() else None for a in args))

    return Solve


def _symbols(example: Example) -> Sizes:
    """The first axes with as many entries as there are systems are symbols."""
    batch = example.layout.systems
    return tuple(
        tuple(axis == 0 and size == batch > 1 for axis, size in enumerate(shape))
        for shape in example.shapes
    )


def _loop(
    equation: Any, solver: Solver, example: Example, layout: Layout
) -> tuple[GraphModule, Leaves]:
    """The graph of a whole solve, and the constants that are the last of its inputs."""
    linear = isinstance(equation, AdjointEquation)
    # The graph is traced again and again, by whoever compiles or exports the model: few operations count.
    make, part = loop_of(solver, equation.form, linear, layout.dtype, unrolled=False)
    made, constants = trace(equation, part, example, _symbols(example))
    graph, _ = loop_graph(make, made)
    return graph, constants


def _asked(z: Tensor, rule: Stopping, solver: Solver, linear: bool) -> Asked:
    """The numbers of a solve of all systems by a rule."""
    unknown = torch.full((z.shape[0],), torch.nan, dtype=torch.float64, device=z.device)
    default = 0.0 if linear else torch.nan
    atol = default if rule.atol is None else rule.atol
    numbers = rule_numbers(rule, solver, z.shape[1], z.dtype, None)
    return Asked(
        torch.full_like(unknown, rule.relative(z.dtype)),
        torch.full_like(unknown, atol),
        unknown,
        unknown.clone(),
        torch.zeros_like(unknown, dtype=torch.bool),
        torch.tensor(numbers, dtype=torch.float64, device=z.device),
    )


def _check(given: UserFunction) -> None:
    """Raise a `TypeError` for a function that no graph can hold."""
    first = given.evaluate_first()
    if len(given.start) != 1 or first.captured:
        raise TypeError(
            "a layer becomes a part of a graph with one tensor as unknown, and with a function that is a "
            f"module and holds its parameters; {given.described} has {len(given.start)} tensors as unknown, "
            f"and closes over {len(first.captured)} that it does not hold"
        )
    if given.moves_buffers:
        raise TypeError(
            f"{given.described} changes its buffers (batch statistics), which no graph of a solve does: call "
            "layer.eval()"
        )
