"""`ArrayFunction`: a function of NumPy arrays as an equation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from ...options.options import Options, is_positive, one_of
from ...solvers import (
    DFSANE,
    Broyden,
    LevenbergMarquardt,
    Newton,
    Polyalgorithm,
    Solver,
)
from ..calls.settings import Settings
from ..equations.differentiation import MissingDerivativeError, constants
from ..equations.layout import Leaves
from ..surroundings.arguments import Tree, describe
from .evaluation import ArrayCall, Called

Differences = Literal["finite differences"]
_CHOICES = (None, "finite differences")


@dataclass(frozen=True)
class ArrayFunction(Options):
    """A function of NumPy arrays as an equation for `root`, `fixed_point` and `ImplicitLayer`.

    `function(z, *args)` is called with arrays in the place of tensors, in the dtypes of these, and returns
    arrays in the structure and shapes of `z`. PyTorch does not see inside, so that the only derivatives are
    those asked for by name. Any other that a solver or a gradient needs is a `MissingDerivativeError`, and
    never zero. Finite differences give first derivatives; one of second order is an error too.

    Without `solver=` roots are solved by `Broyden` first, which takes one evaluation a step, and then by
    `DFSANE`; with a Jacobian there are `Newton` and `LevenbergMarquardt` between them. Without a Jacobian
    nothing is known of the error of `z`: a solution is accepted by its residual alone.

    Attributes:
        function: The function.
        jacobian: `"finite differences"` for `∂F/∂z`, in `2 n` evaluations for `n` unknowns of a system, of
            all systems at once; `None` for no Jacobian.
        arguments: `"finite differences"` for `∂F/∂args`, in two evaluations for each number of an argument
            that requires gradients; `None` for no such derivative. Gradients of a solution need both.
        typical: The size of a number below which steps of differences get no smaller.

    Raises:
        TypeError: `function` is not callable.
        ValueError: A choice that there is not, or `typical` is not positive.

    Source: Dennis & Schnabel 1983, section 5.6 (finite differences); Broyden 1965.

    Examples:
        >>> import numpy as np, torch, implicitly
        >>> def F(z, x):
        ...     return np.array([z[0] ** 2 + z[1] - x, z[0] - z[1] ** 3])
        >>> x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> z0 = torch.ones(2, dtype=torch.float64)
        >>> differences = dict(jacobian="finite differences", arguments="finite differences")
        >>> z = implicitly.root(implicitly.ArrayFunction(F, **differences), z0, x).value
        >>> z[0].backward()
        >>> z.detach().numpy().round(6).tolist(), round(x.grad.item(), 6)  # 3 z₁² / (6 z₀ z₁² + 1)
        ([1.0, 1.0], 0.428571)
    """

    function: Callable[..., Any]
    jacobian: Differences | None = None
    arguments: Differences | None = None
    typical: float = 1.0

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be callable, got {self.function!r}")
        one_of("jacobian", self.jacobian, _CHOICES)
        one_of("arguments", self.arguments, _CHOICES)
        if not is_positive(self.typical):
            raise ValueError(f"typical must be a number > 0, got {self.typical!r}")

    def __call__(self, z: Any, *args: Any) -> Any:
        """The value for tensors, as one coupled system."""
        return self.at(0, z, args)

    def at(
        self, batch_dims: int, z: Any, args: tuple[Any, ...], bounds: tuple[Any, Any] | None = None
    ) -> Any:
        """The value for tensors, of which the first `batch_dims` axes of `z` index independent systems.

        With bounds like `z`, differences in it are between points that are between them.
        """
        unknown, spec = tree_flatten(z)
        tree, tensors = Tree.of(args)
        self._check_derivatives(tuple(unknown), tensors)
        named = describe(self.function)
        called = Called(
            self.function, self.typical, named, batch_dims, len(unknown), spec, tree,
            bounded=bounds is not None,
        )  # fmt: skip
        beside = () if bounds is None else constants(tuple(tree_flatten(bounds)[0]))
        value = ArrayCall.apply(called, *unknown, *tensors, *beside)
        return tree_unflatten(list(value), spec)

    def _check_derivatives(self, unknown: Leaves, tensors: Leaves) -> None:
        """Raise a `MissingDerivativeError` if a derivative is asked for that nobody has asked for by name."""
        if not torch.is_grad_enabled():
            return
        if self.jacobian is None and any(leaf.requires_grad for leaf in unknown):
            raise MissingDerivativeError(
                f"a Jacobian is asked for, and {describe(self.function)}, a function of arrays, has none: "
                'give ArrayFunction(..., jacobian="finite differences"), or choose a solver without '
                "derivatives (Broyden, DFSANE, Anderson) and take no gradients"
            )
        if self.arguments is None and any(tensor.requires_grad for tensor in tensors):
            raise MissingDerivativeError(
                f"a derivative in the arguments is asked for, and {describe(self.function)}, a function of "
                'arrays, has none: give ArrayFunction(..., arguments="finite differences"), or detach() the '
                "arguments"
            )


class BoundArrayFunction:
    """An `ArrayFunction` in a call with batch axes."""

    def __init__(self, function: ArrayFunction, batch_dims: int) -> None:
        self._function, self._batch_dims = function, batch_dims

    def __call__(self, z: Any, *args: Any) -> Any:
        return self._function.at(self._batch_dims, z, args)

    def within(self, z: Any, bounds: tuple[Any, Any], *args: Any) -> Any:
        """The value between bounds, outside of which no difference looks."""
        return self._function.at(self._batch_dims, z, args, bounds)


def array_call(
    function: ArrayFunction, settings: Settings
) -> tuple[BoundArrayFunction, str, Settings]:
    """The function of a call, its name, and the settings with its default solver.

    Raises:
        TypeError: An auxiliary output is asked for.
    """
    described = describe(function.function)
    if settings.has_aux:
        raise TypeError(
            f"has_aux=True needs a function of tensors, and {described} is one of arrays: call it again "
            "at the solution"
        )
    chosen = settings.solver
    cheapest = settings.form == "root" and not settings.linear and settings.derivatives is None
    if chosen is None and cheapest and settings.bounds is None:
        settings = replace(settings, solver=Polyalgorithm(_members(function), remember=False))
    return BoundArrayFunction(function, settings.batch_dims), described, settings


def _members(function: ArrayFunction) -> tuple[Solver, ...]:
    """Solvers in the order of their evaluations: a Jacobian takes as many as there are unknowns."""
    if function.jacobian is None:
        return (Broyden(), DFSANE())
    return (Broyden(), Newton(), LevenbergMarquardt(), DFSANE())
