"""Equations in compiled code: a function that Numba compiles, differentiable on tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...options.libraries import needs
from ...options.options import Options, is_integer
from ...solvers.interface.compiled_systems import CompiledSystems
from ..equations.equation import CompiledForm
from ..equations.layout import Leaves
from .compiled_map import CompiledMap


@dataclass(frozen=True)
class NumbaEquation(Options):
    """Many small systems given by one function that Numba compiles, with exact derivatives.

    `function(z, p, out)` writes the value of one system at `z`, `(n,)`, with its parameters `p`, `(k,)`,
    to every entry of `out`, `(n,)`. The equation is called with tensors of all systems, and is an
    equation like any other: `root` and `fixed_point` solve it by any solver (`NumbaRoot` runs wholly in
    compiled code), gradients flow to the parameters, and it works under `torch.func`.

    First derivatives are by complex steps, exact to rounding. `function` must therefore compile for
    complex numbers (`np.sin` takes them, `math.sin` does not) and be analytic (`abs`, real parts and
    comparisons of unknowns are not). For other functions give the Jacobians. With both of them there are
    derivatives of second order too, by complex steps through them. There are none of higher order.

    Attributes:
        function: A function decorated with `numba.njit`, or a plain one, which is then compiled.
        n: Unknowns of one system.
        jacobian: `jacobian(z, p, out)` writes `∂F_i/∂z_j` to `out[i, j]`, which is zero when it is
            called; `None` for complex steps.
        parameter_jacobian: `parameter_jacobian(z, p, out)` writes `∂F_i/∂p_j` to `out[i, j]`, `(n, k)`,
            zero when it is called; `None` for complex steps.

    Raises:
        TypeError: An argument for a function is not a function.
        ValueError: `n` is not an integer ≥ 1.
        CompilationError: Numba does not compile a function for float64 arguments.

    A call `equation(z, parameters)` takes `z`, `(*batch, n)`, and parameters whose leading axes broadcast
    to its batch, `(*batch, k)` or `(k,)`, in any floating-point dtype and on any device; it computes in
    float64 on the CPU and gives the value in the dtype and on the device of `z`. A system whose
    evaluation raises an exception has the value NaN.

    Source: Squire & Trapp 1998; Martins, Sturdza & Alonso 2003.

    Examples:
        >>> import numba, numpy as np, torch, implicitly
        >>> @numba.njit
        ... def kepler(z, p, out):
        ...     out[0] = z[0] - p[1] * np.sin(z[0]) - p[0]
        >>> equation = implicitly.NumbaEquation(kepler, n=1)
        >>> p = torch.tensor([[0.5, 0.1], [1.5, 0.9]], dtype=torch.float64, requires_grad=True)
        >>> solver = implicitly.NumbaRoot()
        >>> E = implicitly.root(equation, p[:, :1].detach(), p, solver=solver, batch_dims=1).value
        >>> E.sum().backward()
        >>> slope = 1 / (1 - p[:, 1:] * torch.cos(E))  # dE/dM
        >>> bool(torch.allclose(p.grad[:, :1], slope, rtol=1e-12))
        True
    """

    function: Callable[..., Any]
    n: int
    jacobian: Callable[..., Any] | None = None
    parameter_jacobian: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        from ...solvers.compiled.numba_code import compile_function

        if not is_integer(self.n, 1):
            raise ValueError(f"n must be an integer ≥ 1, the unknowns of a system, got {self.n!r}")
        for argument, axes in (("function", 1), ("jacobian", 2), ("parameter_jacobian", 2)):
            function = getattr(self, argument)
            if function is None and argument != "function":
                continue
            function = _compilable(argument, function)
            compile_function(function.__name__, function, "float64", axes)
            object.__setattr__(self, argument, function)
        # Error messages show this name, as for any function.
        object.__setattr__(self, "__qualname__", self.function.__name__)

    def __call__(self, z: Tensor, parameters: Tensor | None = None) -> Tensor:
        """The value, in the shape of `z`."""
        self._check("z", z)
        if z.ndim == 0 or z.shape[-1] != self.n:
            raise ValueError(
                f"z must have the shape (*batch, {self.n}), since {self.function.__name__} has "
                f"n={self.n} unknowns per system, got {tuple(z.shape)}"
            )
        expanded = self.expand(z.shape[:-1], () if parameters is None else (parameters,))
        return self._map(expanded.shape[-1])(z, expanded)

    def expand(self, batch: torch.Size, args: Leaves) -> Tensor:
        """The parameters of each system, `(*batch, k)`, from the arguments of a call."""
        if not args:
            return torch.zeros(*batch, 0, dtype=torch.float64)
        (parameters,) = args
        self._check("parameters", parameters)
        if parameters.ndim == 0:
            raise ValueError("parameters must have the shape (*batch, k) or (k,), got a number")
        try:
            return parameters.expand(*batch, parameters.shape[-1])
        except RuntimeError as error:
            raise ValueError(
                f"parameters of shape {tuple(parameters.shape)} do not fit z of shape "
                f"{(*batch, self.n)}: they must be (*batch, k), or (k,) where all systems share them"
            ) from error

    def systems(self, batch: torch.Size, parameters: Tensor) -> CompiledSystems:
        """The systems for these parameters, `(*batch, k)`, in the form for compiled solvers."""
        rows = parameters.detach().reshape(batch.numel(), parameters.shape[-1])
        return CompiledSystems(
            self.function,
            self.jacobian,
            self.n,
            rows.to("cpu", torch.float64).contiguous().numpy(),
            self.function.__name__,
        )

    @property
    def form(self) -> CompiledForm:
        """The compiled form of this equation."""
        return CompiledForm(self.n, self.expand, self.systems, self._map)

    def _map(self, k: int) -> CompiledMap:
        if k not in self._maps:
            self._maps[k] = CompiledMap(
                self.function,
                (self.n,),
                self.function.__name__,
                remedy="give NumbaEquation the derivatives, jacobian= and parameter_jacobian=",
                by_z=_given(self.jacobian, (self.n, self.n)),
                by_parameters=_given(self.parameter_jacobian, (self.n, k)),
            )
        return self._maps[k]

    @cached_property
    def _maps(self) -> dict[int, CompiledMap]:
        return {}

    def _check(self, argument: str, tensor: object) -> None:
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            return
        found = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(
            f"{argument} of {self.function.__name__} must be a floating-point tensor, got {found}"
        )


def _given(jacobian: Any, shape: tuple[int, ...]) -> CompiledMap | None:
    if jacobian is None:
        return None
    return CompiledMap(jacobian, shape, jacobian.__name__, remedy="do without its derivatives")


def _compilable(argument: str, function: Any) -> Any:
    with needs("numba", "NumbaEquation"):
        import numba

    if isinstance(function, numba.core.dispatcher.Dispatcher):
        return function
    if inspect.isfunction(function):
        return numba.njit(function)
    raise TypeError(
        f"{argument} must be a function decorated with numba.njit, or a plain function, "
        f"got {function!r}"
    )
