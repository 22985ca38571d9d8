"""`root` and `fixed_point`: an equation, a start and arguments in, a differentiable solution out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad

from ..solvers import Callback, Solution, Solver, Stopping
from .compiled.numba_equation import NumbaEquation
from .equations.capture import captured_leaves, check_mapped, graph_clock
from .equations.differentiation import Product, constants, transforming
from .equations.equation import GivenEquation
from .equations.layout import Leaves
from .gradients import Gradient, TapedGradient
from .rule import Call, Outcome, Report
from .settings import Settings
from .surroundings import inference
from .surroundings.arguments import Tree, Unknown, describe, per_leaf
from .surroundings.failure import FailurePolicy
from .surroundings.module import PureModule
from .surroundings.replay import Replay, without_autocast
from .surroundings.tracing import refuse_tracing
from .surroundings.writes import Lending, check_arguments, writes_to


def root(
    F: Callable[..., Any],
    z0: Any,
    *args: Any,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    batch_dims: int = 0,
    on_failure: FailurePolicy = "raise",
    linear: bool = False,
    batched_args: Sequence[bool] | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    causal: bool = False,
) -> Solution:
    """Solve `F(z, *args) = 0` for `z`, differentiably in every tensor of `args`.

    Args:
        F: Gives the residual at `z`, in the structure, shapes and device of `z`. It is evaluated many
            times, later also for derivatives, and must be the same function each time: random
            numbers (dropout) and the autocast state are replayed.
        z0: Where to start: a floating-point tensor or a pytree of them. No derivative with respect
            to it exists, since the root does not depend on it.
        args: Pytrees of tensors and constants. Leaf tensors that `F` closes over take part as well.
        solver: What finds the root; `None` for `Polyalgorithm()`, `NewtonKrylov()` if its steps
            are to be unrolled (`gradient=Unrolled()`), or `GMRES()` if `linear`.
        stopping: Tolerances and limits; `None` for the defaults of the dtype.
        gradient: How derivatives are formed; `None` for `Exact()`, the implicit function theorem.
        batch_dims: Leading axes of every leaf of `z0` that index independent systems, each solved
            to its own tolerance; 0 for one coupled system.
        on_failure: `"raise"` a `SolveError`, `"warn"` or `"accept"` when a system is not solved.
        linear: `F` is affine in `z`, so that solvers of linear equations may serve.
        batched_args: With `batch_dims=1`, for each argument whether its first axis indexes the
            systems; then systems that are finished are dropped from the evaluation.
        trace: Record the residual norms of every check in `Solution.trace`.
        callback: Called at every check with the step and the residual norms of all systems; a true
            result ends the solve.
        causal: The systems along the last of the `batch_dims` axes are time steps, and each may depend
            on those before it. Coefficients are then per time step, so that the future changes
            nothing of the past at any iteration; a step converges only once all before it have
            ended, so that its residual is that of the value returned; the adjoint, which runs
            against time, takes each sequence as one system.

    Returns:
        The solution: `value` in the structure of `z0`, and status, residual and steps per system.

    Raises:
        SolveError: A system was not solved, with `on_failure="raise"`.
        TypeError: `z0` or what `F` returns has the wrong type or structure, or a solver of linear
            equations meets a nonlinear one.
        ValueError: Shapes do not fit, `z0` is not finite, an option is out of range.
        CapturedTensorError: `F` closes over a tensor whose derivative would be lost.

    Examples:
        >>> import torch, implicitly
        >>> a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> z = implicitly.root(lambda z, a: z**2 - a, torch.ones((), dtype=torch.float64), a).value
        >>> z.backward()
        >>> round(z.item(), 6), round(a.grad.item(), 6)  # √2 and 1 / (2√2)
        (1.414214, 0.353553)
    """
    settings = Settings(
        "root", solver, stopping, gradient, batch_dims, on_failure, linear,
        None if batched_args is None else tuple(batched_args), trace, callback,
        causal,
    )  # fmt: skip
    return solve_equation(F, z0, args, settings)


def fixed_point(
    f: Callable[..., Any],
    z0: Any,
    *args: Any,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    batch_dims: int = 0,
    on_failure: FailurePolicy = "raise",
    linear: bool = False,
    batched_args: Sequence[bool] | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    causal: bool = False,
) -> Solution:
    """Solve `z = f(z, *args)` for `z`, differentiably in every tensor of `args`.

    Args:
        f: Gives the next iterate from `z`, in the structure, shapes and device of `z`.
        z0: Where to start; see `root`.
        args: Pytrees of tensors and constants; see `root`.
        solver: What finds the fixed point; `None` for `Anderson()`, or `GMRES()` if `linear`.
        stopping: Tolerances, relative to the size of `z`, and limits; see `root`.
        gradient: How derivatives are formed; `None` for `Exact()`, the implicit function theorem.
        batch_dims: Leading axes that index independent systems; see `root`.
        on_failure: `"raise"`, `"warn"` or `"accept"`; see `root`.
        linear: `f` is affine in `z`.
        batched_args: Which arguments have one entry per system; see `root`.
        trace: Record residual norms; see `root`.
        callback: Called at every check; see `root`.
        causal: The systems along the last batch axis are time steps of a causal equation; see `root`.

    Returns:
        The solution: `value` in the structure of `z0`, and status, residual and steps per system.

    Raises:
        SolveError: A system was not solved, with `on_failure="raise"`.
        TypeError: See `root`.
        ValueError: See `root`.
        CapturedTensorError: See `root`.

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor([0.5, 2.0], dtype=torch.float64)
        >>> f = lambda z, x: torch.cos(x * z)
        >>> solution = implicitly.fixed_point(f, torch.ones_like(x), x, batch_dims=1)
        >>> [round(z, 6) for z in solution.value.tolist()], solution.converged.tolist()
        ([0.900367, 0.514933], [True, True])
    """
    settings = Settings(
        "fixed_point", solver, stopping, gradient, batch_dims, on_failure, linear,
        None if batched_args is None else tuple(batched_args), trace, callback,
        causal,
    )  # fmt: skip
    return solve_equation(f, z0, args, settings)


def solve_equation(
    function: Callable[..., Any],
    z0: Any,
    args: tuple[Any, ...],
    settings: Settings,
    described: str | None = None,
) -> Solution:
    """Solve the equation of `function`; `root` says what the arguments are."""
    described = described or describe(function)
    refuse_tracing(described)
    replay = Replay(z0, args)
    with inference.left():
        return _solve_equation(function, z0, args, settings, described, replay)


def _solve_equation(
    function: Callable[..., Any],
    z0: Any,
    args: tuple[Any, ...],
    settings: Settings,
    described: str,
    replay: Replay,
) -> Solution:
    unknown, start = Unknown.of(z0, settings.batch_dims)
    tree, tensors = Tree.of(args)
    start, tensors = inference.ordinary(start), inference.ordinary(tensors)
    lending = Lending(described)

    def bind(arg_tensors: Leaves) -> Product:
        filled = tree.fill(arg_tensors)

        def of_leaves(z: Leaves) -> Leaves:
            value = replay.run(lambda: function(unknown.build(z), *filled))
            return unknown.leaves_of(described, value, z)

        return lambda z: lending.run(of_leaves, z)

    clock = graph_clock()
    before = [writes_to(tensor) for tensor in tensors]
    first = bind(constants(tensors))(constants(start))
    check_arguments(described, tensors, before)
    if isinstance(function, PureModule):
        tensors = function.freeze(tensors)
    captured = captured_leaves(described, first, clock)
    check_mapped(described, first, (*start, *tensors))

    flags = settings.batched_args
    if flags is not None:
        flags = per_leaf(flags, args, start[0].shape[0]) + (False,) * len(captured)
        if replay.random or (isinstance(function, PureModule) and function.changes_buffers):
            flags = None  # What a system sees would depend on which others are left.
    call = Call(
        equation=GivenEquation(
            given=bind,
            form=settings.form,
            batch_dims=settings.batch_dims,
            captured=captured,
            linear=settings.linear,
            batched_args=flags,
            described=described,
            compiled=function.form if isinstance(function, NumbaEquation) else None,
            causal=settings.causal,
        ),
        solver=settings.chosen_solver,
        stopping=settings.chosen_stopping,
        gradient=settings.chosen_gradient,
        on_failure=settings.on_failure,
        leaves=len(start),
        report=Report(),
        trace=settings.trace,
        callback=settings.callback,
        first=None if transforming() else tuple(leaf.detach() for leaf in first),
        build=unknown.build,
        precision=replay.autocast_dtype(start[0].device) or _coarsest(first),
    )
    outcome = _differentiable(call, start, (*tensors, *captured))
    if isinstance(function, PureModule) and function.changes_buffers:
        at, inputs = unknown.build(constants(outcome.value)), tree.fill(constants(tensors))[:-2]
        replay.run(lambda: function.move_buffers(at, *inputs))
    replay.check_unmoved(described)
    report = call.report.solution
    assert report is not None  # for the type checker: the call has solved
    return Solution(
        value=unknown.build(outcome.value),
        status=outcome.status,
        residual=outcome.residual,
        steps=outcome.steps,
        counts=report.counts,
        trace=report.trace,
        adjoints=call.report.adjoints,
    )


def _differentiable(call: Call, start: Leaves, args: Leaves) -> Outcome:
    if not isinstance(call.gradient, TapedGradient):
        return call.outcome(constants(start), args)
    outcome = call.outcome(constants(start), constants(args))
    if not _wanted((*start, *args)):
        return outcome
    with without_autocast():
        return outcome._replace(value=call.gradient.record(call, start, outcome, args))


def _coarsest(tensors: Leaves) -> torch.dtype:
    return max((tensor.dtype for tensor in tensors), key=lambda dtype: torch.finfo(dtype).eps)


def _wanted(tensors: Leaves) -> bool:
    """Whether any derivative with respect to `tensors` may be asked for."""
    if transforming():
        return True
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)
