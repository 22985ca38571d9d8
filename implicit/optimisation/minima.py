"""`least_squares` and `minimise`: differentiable minimisers of an objective from a start and arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...solvers import (
    Callback,
    GaussNewton,
    NewtonCG,
    NewtonTrustRegion,
    Solution,
    Solver,
    Stopping,
)
from ...solvers.interface.loss import Loss
from ..calls.settings import Settings
from ..calls.solving import solve_equation, with_keywords
from ..gradients import Gradient, TapedGradient
from ..surroundings.arguments import describe
from ..surroundings.compilation import outside_of_graphs
from ..surroundings.failure import FailurePolicy
from ..surroundings.keywords import check_keywords, options_of
from .stationarity import Stationarity, size_of_system

# Up to so many unknowns of a system dense matrices are formed by default.
_FEW_UNKNOWNS = 128


@outside_of_graphs
def least_squares(
    r: Callable[..., Any],
    z0: Any,
    *args: Any,
    loss: Loss | None = None,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    batch_dims: int = 0,
    on_failure: FailurePolicy = "raise",
    batched_args: Sequence[bool] | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    has_aux: bool = False,
    progress: bool = False,
    history: bool = False,
    bounds: Any = None,
    **keywords: Any,
) -> Solution:
    """Minimise `½ Σ r(z, *args)²` over `z`, differentiably in every tensor of `args`.

    The equation that is solved, and differentiated, is that the gradient vanishes, `Jᵀ r = 0`: derivatives of
    the minimiser have the whole Hessian, and are exact to every order. A minimiser is accepted by the
    estimated error of `z`, as a root is, and must be a minimum to second order.

    Args:
        r: Gives the residuals at `z`: a tensor, or a pytree of them, of any shapes behind the `batch_dims`
            leading axes. There may be fewer or more of them than unknowns. See `root` for what holds of a
            function in general.
        z0: The start: a floating-point tensor or a pytree of them.
        args: Pytrees and dataclasses of tensors and constants. Gradients also reach leaf tensors that `r`
            closes over.
        loss: The loss of each residual, such as `Huber(scale=0.1)`, which gives outliers less weight: the
            objective is `½ Σ s² ρ((r / s)²)`. `None` for squares.
        solver: The solver; `None` for `GaussNewton()` up to 128 unknowns, and `NewtonCG()` for more.
            Solvers of roots find points at which the gradient vanishes.
        stopping: Tolerances and limits; `rtol` is the accepted error of every unknown. Residuals and their
            norms are those of the gradient.
        gradient: The gradient mode; `None` for `Exact()`. `MinimumNorm()` where the minimiser is one of
            many; `GaussNewtonApproximation()` to leave out the curvature of the residuals.
        batch_dims: Leading axes that index independent problems; see `root`.
        on_failure: `"raise"`, `"warn"` or `"accept"`; see `root`.
        batched_args: True for each argument with one entry per problem; see `root`.
        trace: Record the norms of the gradient; see `root`.
        callback: Called at every check; see `root`.
        has_aux: `r` returns a pair, the residuals and what is to be `Solution.aux`; see `root`.
        progress: Write lines of progress; see `root`.
        history: Keep iterates; see `root`.
        bounds: `(lower, upper)` on `z`, as in `root`: a minimiser on a bound has a gradient that the bound
            holds back, and its derivatives are those with the active bounds fixed. Solvers: `GaussNewton()`
            and `NewtonTrustRegion()`.
        keywords: Arguments of `r` by name.

    Returns:
        The solution: `value` in the structure of `z0`, and status, norm of the gradient and steps of each.

    Raises:
        SolveError: A problem was not solved, with `on_failure="raise"`: a saddle point, for example, has the
            status `NOT_A_MINIMUM`. In a backward pass: the Hessian is singular, and no derivative exists.
        TypeError: `r` returns no real or complex tensors; the gradient mode records iterations.
        ValueError: The leading axes of residuals are not those of the problems, or their shapes change
            between evaluations. See `root` for others.
        CapturedTensorError: See `root`.

    Source: Nocedal & Wright 2006, chapter 10; Gould et al. 2016, section 3 (derivatives of minimisers).

    Examples:
        >>> import torch, implicitly
        >>> t = torch.linspace(0, 2, 9, dtype=torch.float64)
        >>> y = (3 * torch.exp(-0.7 * t) + 0.1 * torch.cos(5 * t)).requires_grad_()
        >>> r = lambda z, y: z[0] * torch.exp(-z[1] * t) - y
        >>> solution = implicitly.least_squares(r, torch.ones(2, dtype=torch.float64), y)
        >>> solution.value.sum().backward()
        >>> bool(solution.converged), y.grad.shape
        (True, torch.Size([9]))
    """
    if loss is not None and not isinstance(loss, Loss):
        what = f"the class {loss.__name__}" if isinstance(loss, type) else repr(loss)
        raise TypeError(f"loss must be an instance such as Huber(scale=0.1), or None; got {what}")
    default = GaussNewton() if bounds is not None or _few(z0, batch_dims) else NewtonCG()
    settings = Settings(
        "root", solver or default, stopping, _differentiable(gradient), batch_dims, on_failure, False,
        batched_args, trace, callback, has_aux=has_aux, progress=progress, history=history, bounds=bounds,
    )  # fmt: skip
    return _solved(r, z0, args, keywords, settings, residuals=True, loss=loss)


@outside_of_graphs
def minimise(
    objective: Callable[..., Any],
    z0: Any,
    *args: Any,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
    batch_dims: int = 0,
    on_failure: FailurePolicy = "raise",
    batched_args: Sequence[bool] | None = None,
    trace: bool = False,
    callback: Callback | None = None,
    has_aux: bool = False,
    progress: bool = False,
    history: bool = False,
    bounds: Any = None,
    **keywords: Any,
) -> Solution:
    """Find a local minimiser of `objective(z, *args)` over `z`, differentiably in every tensor of `args`.

    The equation that is solved, and differentiated, is that the gradient vanishes. A minimiser is accepted by
    the estimated error of `z`, as a root is, and by the second-order condition: a saddle point or a maximum
    has the status `NOT_A_MINIMUM`, an objective that goes on falling `UNBOUNDED`.

    Args:
        objective: Gives one real number for each problem: a tensor of the shape of the `batch_dims` leading
            axes, `()` for one problem.
        z0: The start: a floating-point tensor or a pytree of them.
        args: Pytrees and dataclasses of tensors and constants. Gradients also reach leaf tensors that the
            objective closes over.
        solver: The solver; `None` for `NewtonTrustRegion()` up to 128 unknowns, and `NewtonCG()` for more.
            Others are `LBFGS()` and `GradientDescent()`.
        stopping: Tolerances and limits; see `least_squares`.
        gradient: The gradient mode; `None` for `Exact()`. `MinimumNorm()` where the minimiser is one of
            many.
        batch_dims: Leading axes that index independent problems; see `root`.
        on_failure: `"raise"`, `"warn"` or `"accept"`; see `root`.
        batched_args: True for each argument with one entry per problem; see `root`.
        trace: Record the norms of the gradient; see `root`.
        callback: Called at every check; see `root`.
        has_aux: The objective returns a pair, the number and what is to be `Solution.aux`; see `root`.
        progress: Write lines of progress; see `root`.
        history: Keep iterates; see `root`.
        bounds: `(lower, upper)` on `z`; see `least_squares`. The solver: `NewtonTrustRegion()`.
        keywords: Arguments of `objective` by name.

    Returns:
        The solution: `value` in the structure of `z0`, and status, norm of the gradient and steps of each.

    Raises:
        SolveError: A problem was not solved, with `on_failure="raise"`.
        TypeError: The objective is not a tensor or not real; the gradient mode records iterations.
        ValueError: The objective is not one number for each problem. See `root` for others.
        CapturedTensorError: See `root`.

    Source: Nocedal & Wright 2006, chapters 2, 4, 6 and 7; Gould et al. 2016, section 3 (derivatives).

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
        >>> f = lambda z, x: (z**4 / 4 - x * z).sum()  # the minimiser is the cube root of x
        >>> z = implicitly.minimise(f, torch.ones(1, dtype=torch.float64), x).value
        >>> z.backward()
        >>> round(z.item(), 6), round(x.grad.item(), 6)
        (1.259921, 0.209987)
    """
    default = NewtonTrustRegion() if bounds is not None or _few(z0, batch_dims) else NewtonCG()
    settings = Settings(
        "root", solver or default, stopping, _differentiable(gradient), batch_dims, on_failure, False,
        batched_args, trace, callback, has_aux=has_aux, progress=progress, history=history, bounds=bounds,
    )  # fmt: skip
    return _solved(objective, z0, args, keywords, settings, residuals=False, loss=None)


def _few(z0: Any, batch_dims: Any) -> bool:
    """True if dense matrices are formed by default; what is wrong with `z0` is found out later."""
    return not isinstance(batch_dims, int) or size_of_system(z0, batch_dims) <= _FEW_UNKNOWNS


def _differentiable(gradient: Gradient | None) -> Gradient | None:
    """The gradient mode, which must not follow iterations."""
    if isinstance(gradient, TapedGradient):
        raise TypeError(
            f"{type(gradient).__name__} differentiates iterations, which minimisers do not record: leave "
            "gradient out, or give Exact(), MinimumNorm() or another mode of the implicit function theorem"
        )
    return gradient


def _solved(
    function: Callable[..., Any],
    z0: Any,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    settings: Settings,
    *,
    residuals: bool,
    loss: Loss | None,
) -> Solution:
    described = describe(function)
    if keywords:
        check_keywords(described, function, keywords, _OPTIONS)
        function, args = with_keywords(function, args, keywords)
    equation = Stationarity(
        function, described, settings.batch_dims,
        residuals=residuals, loss=loss, has_aux=settings.has_aux,
    )  # fmt: skip
    return solve_equation(equation, z0, args, settings, described)


_OPTIONS = options_of(least_squares)
