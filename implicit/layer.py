"""Layer of a network that is defined by an equation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from ..solvers import Callback, Solution, Solver, Stopping
from ..solvers.interface.problem import Form
from .calls.settings import Settings
from .calls.solving import solve_equation
from .derivatives.given import GivenDerivatives
from .equations.capture import levels
from .equations.differentiation import transforming
from .gradients import Gradient
from .graphs.prepared import PREPARED
from .graphs.within import Graphs, in_one_graph, solved_within
from .surroundings.arguments import describe
from .surroundings.closer import block
from .surroundings.compilation import outside_of_graphs
from .surroundings.failure import FailurePolicy
from .surroundings.keywords import accepted, check_keywords
from .surroundings.kinds import in_the_way
from .surroundings.module import PureModule, initialise


class ImplicitLayer(nn.Module):
    """A layer whose output solves `z = f(z, *inputs)` or `F(z, *inputs) = 0`.

    Gradients reach the inputs, the parameters of `f` if it is a module, and leaf tensors that it closes
    over. Evaluations share one dropout mask per call; buffers that `f` changes (batch statistics) change
    once per call, by the evaluation at the solution. Threads may share a layer. Under
    `torch.compile(model, fullgraph=True)` and `torch.export` it becomes a part of the graph, in which a
    system that is not solved is NaN.

    Args:
        f: A function or module called as `f(z, *inputs, **keywords)`, returning the structure and shapes
            of `z`.
        form: `"fixed_point"` for `z = f(z, ...)`, `"root"` for `f(z, ...) = 0`.
        solver: The solver; `None` for the default of the form (see `root`, `fixed_point`).
        stopping: Tolerances and limits of the solve; `None` for the defaults of the dtype.
        gradient: The gradient mode; `None` for `Exact()`.
        batch_dims: Leading axes of `z` that index independent systems.
        on_failure: `"raise"`, `"warn"` or `"accept"` when a system is not solved.
        init: Gives the start from the inputs, and from keyword inputs that it names; `None` for zeros like
            the first input.
        linear: `f` is affine in `z`.
        batched_args: For each input, keyword inputs last, true if its first axis indexes the systems (needs
            `batch_dims=1`). Systems that have ended are then dropped from the evaluation.
        trace: Record the residual norms of every check in `solution.trace`.
        callback: Called at every check; see `root`.
        causal: The systems along the last batch axis are time steps of a causal equation; see `root`.
        has_aux: `f` returns a pair, its value and any pytree beside it, and the layer returns a pair, the
            solution and that pytree at the solution; see `root`.
        jacobian: Gives `∂f/∂z` from `(z, *inputs, **keywords)`; see `root`.
        sparsity: The places of `∂f/∂z`; see `root`.
        preconditioner: Approximates the inverse Jacobian; see `root`.
        progress: Write lines of progress; see `root`.
        history: Keep iterates in `solution.history`; see `root`.
        bounds: Bounds on `z`, numbers or tensors of its dtype and device; see `root`.

    Attributes:
        solution: The detached `Solution` of the last call, or `None`; its `adjoints` are filled by
            the backward pass.

    Shape:
        Output: as the start, by default that of the first input; with `has_aux` the first of a pair.

    Raises:
        TypeError: `f` is not callable, or an option has the wrong type.
        ValueError: An option is out of range; when called, see `root`.

    Examples:
        >>> import torch, implicitly
        >>> class Cell(torch.nn.Module):
        ...     def __init__(self, size):
        ...         super().__init__()
        ...         self.linear = torch.nn.Linear(size, size)
        ...         torch.nn.init.orthogonal_(self.linear.weight, gain=0.7)
        ...     def forward(self, z, x):
        ...         return torch.tanh(self.linear(z) + x)
        >>> layer = implicitly.ImplicitLayer(Cell(3))
        >>> z = layer(torch.randn(5, 3))
        >>> z.square().sum().backward()
        >>> z.shape, layer.solution.converged.all().item(), layer.f.linear.weight.grad.shape
        (torch.Size([5, 3]), True, torch.Size([3, 3]))
    """

    def __init__(
        self,
        f: Callable[..., Any],
        form: Form = "fixed_point",
        *,
        solver: Solver | None = None,
        stopping: Stopping | None = None,
        gradient: Gradient | None = None,
        batch_dims: int = 1,
        on_failure: FailurePolicy = "raise",
        init: Callable[..., Any] | None = None,
        linear: bool = False,
        batched_args: Sequence[bool] | None = None,
        trace: bool = False,
        callback: Callback | None = None,
        causal: bool = False,
        has_aux: bool = False,
        jacobian: Callable[..., Any] | None = None,
        sparsity: Any = None,
        preconditioner: Callable[[Any], Any] | None = None,
        progress: bool = False,
        history: bool = False,
        bounds: Any = None,
    ) -> None:
        super().__init__()
        for name, function in (("f", f), ("init", init)):
            if not callable(function) and function is not None:
                raise TypeError(f"{name} must be callable, got {function!r}")
        self.f = f
        self.init = init
        self.settings = Settings(
            form, solver, stopping, gradient, batch_dims, on_failure, linear,
            batched_args, trace, callback,
            causal, has_aux, GivenDerivatives.of(jacobian, sparsity, preconditioner),
            progress, history, bounds,
        )  # fmt: skip
        self.graphs = Graphs()
        self._solution: Solution | None = None

    def forward(self, *inputs: Any, z0: Any = None, **keywords: Any) -> Any:
        """The solution for the inputs of `f`, from a start.

        Args:
            inputs: Arguments of `f` behind `z`: pytrees and dataclasses of tensors and constants.
            z0: The start; `None` for the one that `init` gives.
            keywords: Arguments of `f` by name.
        """
        if torch.compiler.is_compiling() and in_one_graph():
            self._solution = None
            start = self.start(*inputs, **keywords) if z0 is None else z0
            return solved_within(self, start, inputs, keywords)
        return self._solve(inputs, z0, keywords)

    @outside_of_graphs
    def _solve(self, inputs: tuple[Any, ...], z0: Any, keywords: dict[str, Any]) -> Any:
        if z0 is None:
            z0 = self.start(*inputs, **keywords)
        function = self.f.forward if isinstance(self.f, nn.Module) else self.f
        if keywords:
            check_keywords(describe(self.f), function, keywords, ("z0",))
        if isinstance(self.f, nn.Module):
            solution = self._solve_module(self.f, z0, inputs, keywords)
        else:
            solution = solve_equation(self.f, z0, inputs, self.settings, keywords=keywords)
        self._solution = solution.detach()
        return (solution.value, solution.aux) if self.settings.has_aux else solution.value

    @property
    def solution(self) -> Solution | None:
        """The solution of the last call, without gradients; `None` before it."""
        if self._solution is not None and not transforming():
            self._solution = _unwrapped(self._solution)
        return self._solution

    @solution.setter
    def solution(self, value: Solution | None) -> None:
        self._solution = value

    def __getstate__(self) -> dict[str, Any]:
        # For copies and files.
        return {**self.__dict__, "_solution": self.solution, "graphs": Graphs()}

    def _solve_module(
        self, module: nn.Module, z0: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Solution:
        around = block()
        if not keywords and (around is None or not around.finest):
            known = PREPARED.solved(module, z0, inputs, self.settings)
            if known is not None:
                if around is not None:
                    around.solves += 1
                return known
        pure = PureModule(module, tuple(keywords))
        start = [leaf for leaf in tree_leaves(z0) if isinstance(leaf, Tensor)]
        if start:
            pure.check_devices(start[0])
        if pure.is_lazy:
            initialise(module, z0, inputs, keywords)
            pure = PureModule(module, tuple(keywords))
        settings = self.settings
        if settings.batched_args is not None:
            # Keep the same solver object from call to call: it may remember.
            settings = replace(
                settings,
                solver=settings.chosen_solver,
                batched_args=(*settings.batched_args, False, False),
            )
        described = f"the module {type(module).__name__}"
        return solve_equation(
            pure,
            z0,
            (*inputs, *keywords.values(), pure.parameters, pure.buffers),
            settings,
            described,
        )

    def start(self, *inputs: Any, **keywords: Any) -> Any:
        """The start for these inputs: what `init` gives, or zeros like the first."""
        if self.init is not None:
            return self.init(*inputs, **accepted(self.init, keywords))
        if not inputs:
            raise ValueError(
                "the layer has no input to take the shape of z from: give init=... or z0=..."
            )
        first = inputs[0]
        if type(first) is Tensor and first.layout == torch.strided and first.is_floating_point():
            return torch.zeros_like(first)
        leaves = tree_leaves(first)
        if not leaves or not all(
            isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex()) for x in leaves
        ):
            raise TypeError(
                "without init the start is zeros like the first input, which must then hold "
                "floating-point or complex tensors: give init=lambda *inputs: ... or z0=..."
            )
        for leaf in leaves:
            if (way := in_the_way(leaf)) is not None:
                raise TypeError(f"without init the start is zeros like the first input: {way}")
        return tree_map_only(Tensor, torch.zeros_like, inputs[0])

    def extra_repr(self) -> str:
        function = "" if isinstance(self.f, nn.Module) else f"{describe(self.f)}, "
        s = self.settings
        return (
            f"{function}form={s.form!r}, solver={s.chosen_solver}, "
            f"gradient={s.chosen_gradient}, batch_dims={s.batch_dims}"
        )


def _unwrapped(solution: Solution) -> Solution:
    """The solution without the wrappers that a call inside of a transform, now over, has left in it.

    A mapped tensor gets its axis back.
    """

    def inner(tensor: Tensor) -> Tensor:
        *_, innermost = levels(tensor)
        return innermost

    given = (solution.value, solution.aux)
    leaves = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    if all(inner(leaf) is leaf for leaf in (solution.status, *leaves)):
        return solution
    solution.adjoints[:] = map(_unwrapped, solution.adjoints)
    return replace(
        solution,
        value=tree_map_only(Tensor, inner, solution.value),
        status=inner(solution.status),
        residual_norm=inner(solution.residual_norm),
        steps=inner(solution.steps),
        error=inner(solution.error),
        aux=tree_map_only(Tensor, inner, solution.aux),
    )
