"""`root` and `fixed_point`: differentiable solutions of an equation from a start and arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..solvers import Callback, Solution, Solver, Stopping
from .calls.settings import Settings
from .calls.solving import solve_equation
from .derivatives.given import GivenDerivatives
from .gradients import Gradient
from .surroundings.arguments import describe
from .surroundings.compilation import outside_of_graphs
from .surroundings.failure import FailurePolicy
from .surroundings.keywords import check_keywords, options_of


@outside_of_graphs
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
    has_aux: bool = False,
    jacobian: Callable[..., Any] | None = None,
    sparsity: Any = None,
    preconditioner: Callable[[Any], Any] | None = None,
    progress: bool = False,
    history: bool = False,
    bounds: Any = None,
    **keywords: Any,
) -> Solution:
    """Solve `F(z, *args) = 0` for `z`, differentiably in every tensor of `args`.

    Args:
        F: Gives the residual at `z`, in the structure, shapes and device of `z`. It is evaluated many
            times, later also for derivatives, and must be the same function each time: random
            numbers (dropout) and the autocast state are replayed.
        z0: The start: a floating-point tensor or a pytree of them. There is no derivative with respect
            to it, since the root does not depend on it.
        args: Pytrees and dataclasses of tensors and constants. Gradients also reach leaf tensors that `F`
            closes over.
        solver: The solver; `None` for `Polyalgorithm()`, for `NewtonKrylov()` if its steps are to be
            unrolled (`gradient=Unrolled()`), or for `GMRES()` if `linear`.
        stopping: Tolerances and limits; `None` for the defaults of the dtype.
        gradient: The gradient mode; `None` for `Exact()`, the implicit function theorem.
        batch_dims: Leading axes of every leaf of `z0` that index independent systems, each solved
            to its own tolerance; 0 for one coupled system.
        on_failure: `"raise"` a `SolveError`, `"warn"` or `"accept"` when a system is not solved.
        linear: `F` is affine in `z`; solvers of linear equations may then be used.
        batched_args: With `batch_dims=1`, for each argument, keyword arguments last, true if its first axis
            indexes the systems. Systems that have ended are then dropped from the evaluation.
        trace: Record the residual norms of every check in `Solution.trace`.
        callback: Called at every check with a `Check` (step, residual norms, statuses, iterate), or, if it
            takes two arguments, with the step and the norms; a true result ends the solve.
        causal: The systems along the last of the `batch_dims` axes are time steps, and each may depend
            on the ones before it. A solver's coefficients are then per time step, so that the future does
            not change the past at any iteration. A time step converges only once all before it have
            ended, so that its residual is that of the value returned. The adjoint, which runs against
            time, takes each sequence as one system.
        has_aux: `F` returns a pair, the residual and any pytree beside it. `Solution.aux` is that pytree
            at the solution, by one more evaluation; derivatives of its tensors go through `z` as well.
        jacobian: Gives `∂F/∂z` at `(z, *args)` for solvers, in place of autograd: a tensor or array
            `(*batch, n, n)` for `n` unknowns of a system in their flattened order, a sparse matrix of SciPy
            or PyTorch for one system, or a pair of functions `v ↦ J v` and `u ↦ Jᵀ u` of tensors like `z`.
            Derivatives of the solution go on from autograd.
        sparsity: The places of `∂F/∂z` of every system, as a matrix with an entry at each: sparse, or a
            tensor or array `(n, n)`. One product for each colour of its columns then gives the Jacobian, and
            one with the transpose for each of a few full rows. It serves adjoints as well.
        preconditioner: A linear map of tensors like `z` that approximates `(∂F/∂z)⁻¹` (of a fixed point
            `(1 − ∂f/∂z)⁻¹`), for `NewtonKrylov` and the Krylov methods. It serves tangents too, and
            adjoints if autograd can transpose it.
        progress: Write a line to standard error at the first check, then twice a second at most, and once
            all systems have ended.
        history: Keep the iterates of all checks in `Solution.history`.
        bounds: `(lower, upper)`, numbers, tensors that broadcast to `z`, or structures like it; `None` or
            infinite where free. `F` is not evaluated outside; solved by `ProjectedNewton()`.
        keywords: Arguments of `F` by name, as those in `args`.

    Returns:
        The solution: `value` in the structure of `z0`, and status, residual norm and steps per system.

    Raises:
        SolveError: A system was not solved, with `on_failure="raise"`.
        TypeError: `z0` or the value of `F` has the wrong type or structure, or a solver of linear
            equations meets a nonlinear one.
        ValueError: Shapes do not fit, `z0` is not finite, an option is out of range.
        CapturedTensorError: `F` closes over a tensor whose derivative would be lost.
        WrongDerivativeError: `jacobian`, `sparsity` or `preconditioner` is wrong at the first point where it
            is used, by one product of autograd.
        InPlaceError: `F` changes an argument in place.
        TracingError: Operations are being traced (`torch.func.linearize`, `make_fx`, `torch.export`).

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
        batched_args, trace, callback,
        causal, has_aux, GivenDerivatives.of(jacobian, sparsity, preconditioner),
        progress, history, bounds,
    )  # fmt: skip
    return solve_equation(F, z0, args, settings, keywords=_checked(F, keywords))


@outside_of_graphs
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
    has_aux: bool = False,
    jacobian: Callable[..., Any] | None = None,
    sparsity: Any = None,
    preconditioner: Callable[[Any], Any] | None = None,
    progress: bool = False,
    history: bool = False,
    bounds: Any = None,
    **keywords: Any,
) -> Solution:
    """Solve `z = f(z, *args)` for `z`, differentiably in every tensor of `args`.

    Args:
        f: Gives the next iterate from `z`, in the structure, shapes and device of `z`.
        z0: The start; see `root`.
        args: Pytrees of tensors and constants; see `root`.
        solver: The solver; `None` for `Anderson()`, or `GMRES()` if `linear`.
        stopping: Tolerances, relative to the size of `z`, and limits; see `root`.
        gradient: The gradient mode; `None` for `Exact()`, the implicit function theorem.
        batch_dims: Leading axes that index independent systems; see `root`.
        on_failure: `"raise"`, `"warn"` or `"accept"`; see `root`.
        linear: `f` is affine in `z`.
        batched_args: True for each argument with one entry per system; see `root`.
        trace: Record residual norms; see `root`.
        callback: Called at every check; see `root`.
        causal: The systems along the last batch axis are time steps of a causal equation; see `root`.
        has_aux: `f` returns a pair, the next iterate and what is to be `Solution.aux`; see `root`.
        jacobian: Gives `∂f/∂z`; see `root`.
        sparsity: The places of `∂f/∂z`; see `root`.
        preconditioner: Approximates `(1 − ∂f/∂z)⁻¹`; see `root`.
        progress: Write lines of progress; see `root`.
        history: Keep iterates; see `root`.
        bounds: Bounds on `z`; see `root`.
        keywords: Arguments of `f` by name; see `root`.

    Returns:
        The solution: `value` in the structure of `z0`, and status, residual norm and steps per system.

    Raises:
        SolveError: A system was not solved, with `on_failure="raise"`.
        TypeError: See `root`.
        ValueError: See `root`.
        CapturedTensorError: See `root`.
        WrongDerivativeError: See `root`.
        InPlaceError: See `root`.
        TracingError: See `root`.

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
        batched_args, trace, callback,
        causal, has_aux, GivenDerivatives.of(jacobian, sparsity, preconditioner),
        progress, history, bounds,
    )  # fmt: skip
    return solve_equation(f, z0, args, settings, keywords=_checked(f, keywords))


_OPTIONS = options_of(root)


def _checked(function: Callable[..., Any], keywords: dict[str, Any]) -> dict[str, Any]:
    if keywords:
        check_keywords(describe(function), function, keywords, _OPTIONS)
    return keywords
