"""Weight-tied unrolled network of a fixed-point layer, and its convergence to the layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..implicit import ImplicitLayer
from .equations import KnownEquation, residual_of
from .fitting import Estimate, median_slope
from .polish import polish, relative_distance
from .probes import probe
from .subject import Subject

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROUNDING = 1e3
"""Errors below this multiple of the dtype's rounding are left out of fits."""


def unrolled(layer: ImplicitLayer, depth: int) -> Callable[..., Any]:
    """The network that applies the layer's map `depth` times from the layer's start.

    Autograd records every step. If the map contracts, the derivatives converge to those of the layer as the
    depth grows, at the rate of the spectral radius.

    Args:
        layer: A layer with `form="fixed_point"`.
        depth: Number of applications.

    Returns:
        A function of the layer's inputs, which shares its parameters.

    Raises:
        TypeError: `layer` is not an `ImplicitLayer`.
        ValueError: The layer solves a root, or `depth` is not an integer ≥ 1.

    Source: Bai, Kolter & Koltun 2019, section 3 (weight-tied networks of finite depth).

    Examples:
        >>> import torch, implicitly
        >>> layer = implicitly.ImplicitLayer(lambda z, x: 0.5 * torch.cos(z) + x)
        >>> x = torch.zeros(1, dtype=torch.float64)
        >>> [f"{(unrolled(layer, depth)(x) - layer(x)).abs().item():.0e}" for depth in (5, 10)]
        ['1e-04', '6e-08']
    """
    if not isinstance(layer, ImplicitLayer):
        raise TypeError(f"layer must be an ImplicitLayer, got {type(layer).__name__}")
    if layer.settings.form != "fixed_point":
        raise ValueError(
            "only a layer with form='fixed_point' is an iteration that can be unrolled"
        )
    if not (isinstance(depth, int) and depth >= 1):
        raise ValueError(f"depth must be an integer ≥ 1, got {depth!r}")

    def network(*inputs: Any) -> Any:
        if layer.init is not None:
            z = layer.init(*inputs)
        else:
            z = tree_map_only(Tensor, torch.zeros_like, inputs[0])
        has_aux = layer.settings.has_aux
        for _ in range(depth):
            value = layer.f(z, *inputs)
            z = value[0] if has_aux else value
        return (z, layer.f(z, *inputs)[1]) if has_aux else z

    return network


@dataclass(frozen=True)
class Agreement:
    """Convergence of the unrolled network to its layer.

    Attributes:
        depths: Numbers of layers.
        values: Relative distances of the network's output from the equilibrium.
        gradients: Distances of its gradients from the implicit ones, in all inputs and parameters together.
        spectral_radius: Spectral radius of the map's Jacobian at the equilibrium; `None` for large systems.
        value_rate: The factor by which `values` fall per layer, fitted to the second half of the errors
            above rounding; `None` if there are fewer than three.
        gradient_rate: The same for `gradients`, which fall later but at the same asymptotic rate.

    Examples:
        >>> import torch, implicitly
        >>> layer = implicitly.ImplicitLayer(lambda z, x: 0.5 * z + x)
        >>> x = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
        >>> [f"{error:.3f}" for error in agreement(layer, x, (1, 2, 3)).values]
        ['0.500', '0.250', '0.125']
    """

    depths: tuple[int, ...]
    values: tuple[float, ...]
    gradients: tuple[float, ...]
    spectral_radius: float | None
    value_rate: Estimate | None
    gradient_rate: Estimate | None

    def __str__(self) -> str:
        lines = ["depth    output  gradient"]
        rows = zip(self.depths, self.values, self.gradients, strict=True)
        lines += [f"{depth:5d}  {value:8.1e}  {gradient:8.1e}" for depth, value, gradient in rows]
        value_rate, gradient_rate = rate_text(self.value_rate), rate_text(self.gradient_rate)
        radius = "not known" if self.spectral_radius is None else f"{self.spectral_radius:.3f}"
        lines += [
            f"factor per layer: output {value_rate}, gradient {gradient_rate}",
            f"spectral radius at the equilibrium: {radius}",
        ]
        return "\n".join(lines)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draw the distances against the depth, with a line for the spectral radius.

        Args:
            axes: Axes to draw in; `None` for a new figure.

        Raises:
            ImportError: Matplotlib is missing (extra `figures`).
        """
        import matplotlib.pyplot as plt

        axes = axes if axes is not None else plt.figure().add_subplot()
        axes.semilogy(self.depths, self.values, "o-", label="output")
        axes.semilogy(self.depths, self.gradients, "s-", label="gradient")
        if self.spectral_radius is not None:
            depths = np.array(self.depths)
            line = self.values[0] * self.spectral_radius ** (depths - depths[0])
            shown = line > min(v for v in self.values if v > 0) if any(self.values) else line > 0
            label = f"spectral radius {self.spectral_radius:.2f}"
            axes.semilogy(depths[shown], line[shown], "--", color="0.5", label=label)
        axes.set_xlabel("layers of the unrolled network")
        axes.set_ylabel("relative distance from the equilibrium")
        axes.legend()
        return axes


def agreement(
    layer: ImplicitLayer,
    inputs: Any,
    depths: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    seed: int = 0,
) -> Agreement:
    """Compare the unrolled networks of several depths with the equilibrium, in value and gradient.

    The equilibrium is the layer's output polished to rounding in float64. Its gradient comes from the
    implicit function theorem by dense matrices or GMRES, independently of the layer.

    Args:
        layer: A layer with `form="fixed_point"`.
        inputs: A tensor, a tuple of arguments, or a dictionary of named ones. Derivatives are in tensors
            that require gradients, and in the layer's parameters.
        depths: Numbers of layers, increasing.
        seed: Seed of the cotangent.

    Raises:
        TypeError: `layer` is not an `ImplicitLayer`.
        ValueError: The layer solves a root, or `depths` do not increase from 1 or more.
        PolishError: No equilibrium is near the layer's output.

    Source: Bai, Kolter & Koltun 2019, section 3; for the rates Gilbert 1992, theorem 2.3.

    Examples:
        >>> import torch, implicitly
        >>> layer = implicitly.ImplicitLayer(lambda z, x: 0.5 * torch.sin(z) + x)
        >>> x = torch.full((1, 1), 0.2, dtype=torch.float64, requires_grad=True)
        >>> found = agreement(layer, x, range(5, 40, 5))
        >>> bool(found.value_rate.low < found.spectral_radius < found.gradient_rate.high)
        True
    """
    unrolled(layer, 1)
    chosen = tuple(depths)
    if not chosen or chosen[0] < 1 or any(a >= b for a, b in pairwise(chosen)):
        raise ValueError(f"depths must increase from 1 or more, got {chosen!r}")
    subject = Subject(layer, inputs, seed)
    tape = subject.discover()
    residual = residual_of(layer)
    assert residual is not None  # for the type checker: the layer is an ImplicitLayer
    generator = torch.Generator().manual_seed(seed)
    equation = KnownEquation(residual, subject, tape)
    _, star = polish(equation, equation.flat(tape.values), generator)
    cotangents = [probe(0, value, generator) for value in tape.values]
    right = _vector(star.gradient(equation.flat(cotangents)))
    values, gradients = [], []
    for depth in chosen:
        _, network = subject.like(unrolled(layer, depth))
        values.append(relative_distance(equation.flat(network.values), star.z))
        gradients.append(relative_distance(_vector(network.pullback(cotangents)), right))
    eps = max(torch.finfo(value.dtype).eps for value in tape.values)
    return Agreement(
        chosen,
        tuple(values),
        tuple(gradients),
        star.inverse.rate,
        rate_of(chosen, values, eps),
        rate_of(chosen, gradients, eps),
    )


def _vector(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as one float64 vector."""
    flat = [tensor.detach().double().reshape(-1) for tensor in tensors]
    return torch.cat(flat) if flat else torch.zeros(0, dtype=torch.float64)


def rate_of(depths: Sequence[int], errors: Sequence[float], eps: float) -> Estimate | None:
    """The factor of errors per layer, fitted to the second half of the errors above rounding."""
    floor = _ROUNDING * eps
    above = [(d, e) for d, e in zip(depths, errors, strict=True) if floor < e < float("inf")]
    late = above[len(above) // 2 :] if len(above) >= 6 else above
    if len(late) < 3:
        return None
    d, e = np.array(late).T
    slope = median_slope(d, np.log(e))
    return Estimate(*(float(np.exp(end)) for end in (slope.value, slope.low, slope.high)))


def rate_text(rate: Estimate | None) -> str:
    """A rate as text."""
    return "None" if rate is None else f"{rate:.3f}"
