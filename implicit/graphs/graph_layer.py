"""A layer as graphs alone: for `torch.export`, `torch.compile(fullgraph=True)` and packages without Python.

No driver stands behind these graphs. A system that they do not solve is NaN in the value, so that nobody
takes it for a solution; `solve` has the statuses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ...solvers import Compiled, Newton, Status, Stopping
from ...solvers.graph.building import loop_graph
from ...solvers.graph.loop import Asked
from ...solvers.graph.run import loop_of, rule_numbers
from ...solvers.interface.solver import Solver
from ..equations.derived import AdjointEquation, Packed
from ..equations.equation import GivenEquation
from ..equations.layout import Layout, Leaves
from ..gradients import Exact
from ..layer import ImplicitLayer
from ..surroundings.evaluation import UserFunction
from ..surroundings.module import PureModule
from ..surroundings.replay import Replay
from .tracing import Example, Sizes, trace, trace_product

_CONVERGED = int(Status.CONVERGED)


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


class GraphLayer(nn.Module):
    """The solve of an `ImplicitLayer` as one graph, and its gradient as another.

    It shares the parameters of the layer, and can be exported (`torch.export.export`), compiled as a part of
    a model (`torch.compile(model, fullgraph=True)`, also in training), and packaged (`package`). Derivatives
    are those of first order.

    Args:
        layer: A layer with `solver=Compiled(...)`, and for gradients `Exact(solver=Compiled(...))`, whose
            unknown and inputs are tensors and whose function is a module.
        inputs: An example of its inputs. Each whose first axis has as many entries as there are systems may
            come with another number of them, if that is at least two.

    Raises:
        TypeError: The layer has another solver (for roots, another one than `Newton`), or more than one
            tensor as its unknown.
        GraphError: Its function cannot be traced.

    Examples:
        >>> import implicitly
        >>> class Halved(torch.nn.Module):
        ...     def forward(self, z, x):
        ...         return 0.5 * z + x
        >>> solver = implicitly.Compiled(implicitly.FixedPointIteration())
        >>> graph = implicitly.GraphLayer(implicitly.ImplicitLayer(Halved(), solver=solver), torch.ones(3, 2))
        >>> graph(torch.ones(4, 2))[0].round(decimals=4).tolist()
        [2.0, 2.0]
    """

    def __init__(self, layer: ImplicitLayer, *inputs: Tensor) -> None:
        super().__init__()
        settings = layer.settings
        solver, gradient = settings.chosen_solver, settings.chosen_gradient
        if type(solver) is not Compiled or not isinstance(layer.f, nn.Module):
            raise TypeError(
                "GraphLayer takes a layer whose function is a module and whose solver is Compiled(...), got "
                f"{type(layer.f).__name__} and {solver!r}"
            )
        if settings.form == "root" and type(solver.solver) is not Newton:
            raise TypeError(
                "GraphLayer takes roots with solver=Compiled(Newton()), whose last step tells how far a root "
                f"is; a small residual does not, got {solver!r}"
            )
        if settings.batch_dims != 1 or settings.causal:
            raise TypeError("GraphLayer takes a layer with batch_dims=1 and without causal=True")
        if settings.has_aux:
            raise TypeError(
                "GraphLayer takes a layer without has_aux=True, since it returns the solution: evaluate the "
                "auxiliary output at that"
            )
        self.layer = layer
        self._pure = PureModule(layer.f)
        start = layer._start(inputs, {})
        args = (*inputs, self._pure.parameters, self._pure.buffers)
        described = f"the module {type(layer.f).__name__}"
        given = UserFunction(self._pure, described, start, args, 1, Replay(described, start, args))
        first = given.evaluate_first()
        if len(given.start) != 1 or first.captured:
            raise TypeError(
                "GraphLayer takes one tensor as unknown, and a module that holds its parameters; "
                f"{described} has {len(given.start)} tensors as unknown, and closes over "
                f"{len(first.captured)} that it does not hold"
            )
        equation = GivenEquation(given.bind, settings.form, 1, described=described)
        layout = Layout.of(given.start, 1)
        example = Example(layout, tuple(t.detach() for t in given.tensors), given.start[0].device)
        self._rule = settings.chosen_stopping or Stopping()
        self._solver: Solver = solver.solver
        self._form = settings.form
        self._accepts = settings.on_failure == "accept"
        self._solve, solve_constants = _loop(equation, solver.solver, example, layout)
        self._constants(("solve", solve_constants))
        self._adjoint: GraphModule | None = None
        if isinstance(gradient, Exact) and type(gradient.solver) is Compiled:
            adjoint = AdjointEquation(equation, 1)
            packed = Packed((start.detach(),), (start.detach(),), example.args).flat
            wider = Example(layout, packed, example.device)
            self._adjoint_solver = gradient.solver.solver
            self._adjoint_rule = gradient.stopping or Stopping()
            self._adjoint, constants = _loop(adjoint, gradient.solver.solver, wider, layout)
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

    def forward(self, *inputs: Tensor) -> Tensor:
        """The solution for these inputs; NaN for systems that are not solved, unless that is accepted."""
        start = self.layer._start(inputs, {}).detach()
        args = (*inputs, *self._pure.parameters.values(), *self._pure.buffers.values())
        if torch.is_grad_enabled() and any(arg.requires_grad for arg in args):
            if self._adjoint is None:
                raise TypeError(
                    "this graph has no gradients: give the layer gradient=Exact(solver=Compiled(...)), or "
                    "call it under torch.no_grad()"
                )
            value: Tensor = self._function.apply(start, *args)
            return value
        return self._value(self._solved(start, args))

    def solve(self, *inputs: Tensor) -> GraphSolution:
        """The same without derivatives, with statuses, steps and residual norms."""
        args = (*inputs, *self._pure.parameters.values(), *self._pure.buffers.values())
        # Derivatives that autograd takes through a loop of a graph are wrong.
        with torch.no_grad():
            return self._solved(self.layer._start(inputs, {}), args)

    def _solved(self, start: Tensor, args: Leaves) -> GraphSolution:
        shape = start.shape
        z = start.reshape(shape[0], -1).contiguous()
        asked = _asked(z, self._rule, self._solver, self._solver.linear_only)
        ones = z.new_ones(z.shape[0], 1)
        found, systems, _ = self._solve(
            z, z, ones, *asked, *(a.contiguous() for a in args), *self._of("solve")
        )
        status, steps, _, norm, error = systems.unbind()
        # No driver examines a claim of which nothing is known.
        unknown = (status == _CONVERGED) & torch.isnan(error) & (steps > 0) & (norm > 0)
        status = torch.where(unknown, float(Status.STALLED), status)
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


def _function(layer: GraphLayer) -> Any:
    """The autograd function of a layer: a graph in each pass."""

    class Solve(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, start: Tensor, *args: Tensor) -> Tensor:
            value = layer._value(layer._solved(start, args))
            ctx.save_for_backward(value, *args)
            return value

        @staticmethod
        def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
            # Compiled models refuse a second backward pass by themselves.
            if torch.is_grad_enabled() and not torch.compiler.is_compiling():
                raise RuntimeError(
                    "a GraphLayer has derivatives of first order, and create_graph=True asks for more: use "
                    "the ImplicitLayer that it was made of"
                )
            z, *args = ctx.saved_tensors
            gradients = iter(layer._gradients(z, cotangent, tuple(args)))
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
    make, part = loop_of(solver, equation.form, linear, layout.dtype)
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


def package(layer: ImplicitLayer, inputs: tuple[Tensor, ...], path: str | Path) -> Path:
    """Write a layer as a package of AOTInductor, which runs without Python.

    The package takes the inputs, and gives value, statuses, steps and residual norms. The parameters are part
    of it. In Python it is loaded by `torch._inductor.aoti_load_package`, in C++ by
    `torch::inductor::AOTIModelPackageLoader`.

    Args:
        layer: As for `GraphLayer`.
        inputs: An example of its inputs; see `GraphLayer`.
        path: The file to write, with the ending `.pt2`.

    Returns:
        The file.

    Raises:
        TypeError: See `GraphLayer`.
        GraphError: See `GraphLayer`.

    Examples:
        >>> import implicitly
        >>> implicitly.package(torch.nn.Identity(), (torch.ones(3, 2),), "layer.pt2")
        Traceback (most recent call last):
        TypeError: package takes an ImplicitLayer, got Identity()
    """
    if not isinstance(layer, ImplicitLayer):
        raise TypeError(f"package takes an ImplicitLayer, got {layer!r}")
    graph = _Solving(GraphLayer(layer, *inputs)).eval()
    batch = inputs[0].shape[0]
    symbol = torch.export.Dim("batch", min=2)
    sizes = tuple({0: symbol} if t.ndim and t.shape[0] == batch > 1 else None for t in inputs)
    with torch.no_grad():
        exported = torch.export.export(graph, inputs, dynamic_shapes=(sizes,), strict=False)
        from torch._inductor import aoti_compile_and_package

        return Path(aoti_compile_and_package(exported, package_path=str(path)))


class _Solving(nn.Module):
    """The statuses beside the value, as a module."""

    def __init__(self, graph: GraphLayer) -> None:
        super().__init__()
        self.layer = graph

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.layer.solve(*inputs))
