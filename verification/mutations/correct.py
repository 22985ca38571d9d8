"""Correct layers, on which a verification must not raise a false alarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...implicit import Exact, Gradient, ImplicitLayer, Reversible, Unrolled
from ...solvers import (
    DFSANE,
    GMRES,
    LSMR,
    Aitken,
    Anderson,
    BiCGStab,
    Broyden,
    CausalNewton,
    DenseLU,
    FixedPointIteration,
    Homotopy,
    LevenbergMarquardt,
    NeumannSeries,
    Newton,
    NewtonKrylov,
    Polyalgorithm,
    PseudoTransient,
    ScipyRoot,
    Solver,
    SteadyState,
    Steffensen,
    Stopping,
)
from .families import FAMILIES
from .planted import Recipe, planted

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Right:
    """A layer with right gradients, up to its own tolerance.

    Attributes:
        name: Description of the layer.
        make: Returns the layer and its inputs, for a batch size, a width and a generator.
        residual: Its equation, unless the layer knows it.

    Examples:
        >>> import torch
        >>> layer, inputs = CORRECT[0].make(2, 3, torch.Generator().manual_seed(0))
        >>> layer(*inputs).shape
        torch.Size([2, 3])
    """

    name: str
    make: Callable[[int, int, torch.Generator], tuple[Callable[..., Any], Inputs]]
    residual: Callable[..., Any] | None = None


def _tanh(z: Tensor, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return z - FAMILIES["tanh"].residual(z, x, W, b)


def _wanted(tensors: Inputs, dtype: torch.dtype = torch.float64) -> Inputs:
    return tuple(tensor.to(dtype).requires_grad_() for tensor in tensors)


def _solved(
    name: str,
    solver: Solver | None = None,
    rtol: float | None = None,
    adjoint: Solver | None = None,
    dtype: torch.dtype = torch.float64,
    gain: float = 1.0,
    gradient: Gradient | None = None,
) -> Right:
    def make(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
        x, W, b = FAMILIES["tanh"].make(batch, width, g)
        layer = ImplicitLayer(
            _tanh,
            solver=solver,
            stopping=Stopping(rtol=rtol, max_steps=2000),
            gradient=gradient or Exact(solver=adjoint),
        )
        return layer, _wanted((x, gain * W, b), dtype)

    return Right(name, make)


def _of_family(name: str) -> Right:
    family = FAMILIES[name]

    def make(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
        return planted(family, Recipe()), _wanted(family.make(batch, width, g))

    return Right(f"{name} layer written by hand", make, family.residual)


def _scaled(name: str, scale: float) -> Right:
    """The layer with unknown and input in other units."""

    def make(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
        x, W, b = FAMILIES["tanh"].make(batch, width, g)
        layer = ImplicitLayer(lambda z, x, W, b: scale * _tanh(z / scale, x / scale, W, b / scale))
        return layer, _wanted((scale * x, W, scale * b))

    return Right(name, make)


def _warm(name: str, rtol: float) -> Right:
    """A layer whose calls start at the solution of the last one."""

    def make(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
        inputs = _wanted(FAMILIES["tanh"].make(batch, width, g))
        layer = ImplicitLayer(_tanh, stopping=Stopping(rtol=rtol))
        last: list[Tensor] = []

        def warm(*tensors: Tensor) -> Tensor:
            z: Tensor = layer(*tensors, z0=last[-1] if last else None)
            last[:] = [z.detach()]
            return z

        return warm, inputs

    return Right(name, make, FAMILIES["tanh"].residual)


def _causal(name: str, solver: Solver, causal: bool = False) -> Right:
    """A recurrence along the last axis."""

    def cell(z: Tensor, x: Tensor, w: Tensor) -> Tensor:
        before = torch.nn.functional.pad(z[..., :-1], (1, 0))
        return torch.tanh(w * before + x)

    def make(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
        x = torch.randn(batch, width, generator=g, dtype=torch.float64)
        w = torch.tensor(0.9, dtype=torch.float64)
        layer = ImplicitLayer(
            cell, solver=solver, batch_dims=2 if causal else 1, causal=causal,
            stopping=Stopping(max_steps=2000),
        )  # fmt: skip
        return layer, _wanted((x, w))

    return Right(name, make)


def _relu(z: Tensor, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return torch.relu(z @ W.mT + x + b)


def _nonsmooth(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
    x, W, b = FAMILIES["tanh"].make(batch, width, g)
    return ImplicitLayer(_relu), _wanted((x, 0.7 * W, b))


def _ill_conditioned(condition: float) -> Right:
    """A linear equation whose matrix has singular values from 1 down to `1 / condition`."""

    def make(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
        x = torch.randn(batch, width, generator=g, dtype=torch.float64)
        left, right = (
            torch.linalg.qr(torch.randn(width, width, generator=g, dtype=torch.float64)).Q
            for _ in range(2)
        )
        values = torch.logspace(0, -float(torch.tensor(condition).log10()), width)
        A = left @ torch.diag(values.double()) @ right
        layer = ImplicitLayer(
            lambda z, x, A: z @ A.mT - x, "root", solver=Newton(),
            gradient=Exact(solver=DenseLU()), on_failure="accept",
        )  # fmt: skip
        return layer, _wanted((x, A))

    return Right(f"condition number {condition:.0e}", make)


def _plain(name: str, function: Callable[..., Any]) -> Right:
    def make(batch: int, width: int, g: torch.Generator) -> tuple[Callable[..., Any], Inputs]:
        return function, _wanted((torch.randn(batch, width, generator=g, dtype=torch.float64),))

    return Right(name, make)


CORRECT: tuple[Right, ...] = (
    _solved("Anderson"),
    _solved("Anderson, type I", Anderson(kind="I")),
    _solved("Broyden", Broyden()),
    _solved("bad Broyden", Broyden(kind="bad")),
    _solved("plain iteration", FixedPointIteration()),
    _solved("Newton", Newton()),
    _solved("Newton-Krylov", NewtonKrylov()),
    _solved("Aitken", Aitken()),
    _solved("Steffensen", Steffensen()),
    _solved("DF-SANE", DFSANE()),
    _solved("Levenberg-Marquardt", LevenbergMarquardt()),
    _solved("pseudo-transient continuation", PseudoTransient()),
    _solved("homotopy", Homotopy()),
    _solved("polyalgorithm", Polyalgorithm()),
    _solved("SciPy's hybr", ScipyRoot("hybr")),
    _solved("steady state of an ODE", SteadyState()),
    _solved("compiled Anderson", Anderson(compiled=True)),
    _causal("causal Newton", CausalNewton(block=1)),
    _causal("plain iteration, causal", FixedPointIteration(), causal=True),
    _solved("adjoint by GMRES", adjoint=GMRES()),
    _solved("adjoint by LSMR", adjoint=LSMR()),
    _solved("reversible iteration", rtol=1e-4, gain=0.3, gradient=Reversible(relaxation=0.2)),
    _solved("adjoint by BiCGStab", adjoint=BiCGStab()),
    _solved("adjoint by dense LU", adjoint=DenseLU()),
    _solved("adjoint by a Neumann series", adjoint=NeumannSeries()),
    _solved("adjoint by Broyden", adjoint=Broyden()),
    *(
        _solved(f"tolerance {rtol:.0e}", rtol=rtol)
        for rtol in (1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-12)
    ),
    _solved("plain iteration to 1e-2", FixedPointIteration(), 1e-2),
    _solved("plain iteration to 1e-13", FixedPointIteration(), 1e-13),
    _solved("unrolled", FixedPointIteration(), 1e-10, gradient=Unrolled()),
    _solved("single precision", dtype=torch.float32),
    _solved("Broyden in single precision", Broyden(), dtype=torch.float32),
    _solved("slow contraction", gain=1.08),
    _warm("warm starts to 1e-10", 1e-10),
    _warm("warm starts to 1e-4", 1e-4),
    _scaled("units of 1e-8", 1e-8),
    _scaled("units of 1e8", 1e8),
    _ill_conditioned(1e3),
    _ill_conditioned(1e6),
    Right("rectified, with kinks nearby", _nonsmooth),
    *(_of_family(name) for name in FAMILIES),
    _plain("sine", torch.sin),
    _plain("softmax", lambda x: torch.softmax(x, dim=-1)),
    _plain("layer normalisation", lambda x: torch.nn.functional.layer_norm(x, x.shape[-1:])),
    _plain("eigenvalues", lambda x: torch.linalg.eigvalsh(x.mT @ x)[..., -1]),
)
