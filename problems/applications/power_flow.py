"""Power flow along a feeder, up to the nose at which the voltage collapses."""

from __future__ import annotations

import cmath
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from ...options.options import is_number
from ..problem import Root, TestProblem

_IMPEDANCE = 0.1 + 0.2j
_LOAD = 1 + 0.5j


@dataclass(frozen=True)
class PowerFlow(TestProblem):
    """`V · conj(Y V) = S` at the buses of a radial feeder behind a source of voltage 1.

    Lines have the impedance `(0.1 + 0.2i)/buses`, loads are `−loading (1 + 0.5i)/buses`. Unknowns are the
    real parts of all voltages, then the imaginary parts; equations alike.

    Attributes:
        loading: Total load. High and low voltage solutions meet at the nose: at 10/9 for one bus, 2.38
            for ten, and 2.63 for a long feeder. Above it there is no solution.
    """

    loading: float = 1.0

    name = "power-flow"
    tags = ("application", "scalable")
    source = "Tinney & Hart 1967; Van Cutsem & Vournas 1998, chapter 2 (nose)"
    standard_size = 20
    argument = "loading"
    sizes = "2m with m ≥ 1"
    remark = "With one bus both roots are given, else none is known."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_number(self.loading, 0):
            raise ValueError(f"loading must be a number ≥ 0, got {self.loading!r}")

    def allows(self, n: int) -> bool:
        return n >= 2 and n % 2 == 0

    def function(self, z: Tensor, loading: Tensor | float | None = None) -> Tensor:
        buses = z.shape[-1] // 2
        real, imaginary = z.unflatten(-1, (2, buses)).unbind(-2)
        admittance = buses / _IMPEDANCE
        a, b = _drops(real, 1.0), _drops(imaginary, 0.0)
        g, s = admittance.real, admittance.imag
        current_real, current_imaginary = g * a - s * b, g * b + s * a
        load = (self.loading if loading is None else loading) / buses
        active = real * current_real + imaginary * current_imaginary + load * _LOAD.real
        reactive = imaginary * current_real - real * current_imaginary + load * _LOAD.imag
        return torch.cat((active, reactive), dim=-1)

    def first(self, n: int) -> list[float]:
        return [1.0] * (n // 2) + [0.0] * (n // 2)

    def known(self, n: int) -> list[Root]:
        if n > 2:
            return []
        # |V|² − V = S conj(z): the imaginary part is linear, the real part quadratic.
        s = -self.loading * _LOAD * _IMPEDANCE.conjugate()
        discriminant = 1 + 4 * (s.real - s.imag**2)
        if discriminant < 0:
            return []
        root = cmath.sqrt(discriminant).real
        flat = discriminant == 0
        return [Root.of(((1 + sign * root) / 2, -s.imag), flat) for sign in (1, -1)]


def _drops(voltage: Tensor, source: float) -> Tensor:
    """`(2V_k − V_{k−1} − V_{k+1})` along the feeder, `V_m − V_{m−1}` at its end."""
    before = pad(voltage[..., :-1], (1, 0), value=source)
    to_source = voltage - before
    return to_source - pad(to_source[..., 1:], (0, 1))
