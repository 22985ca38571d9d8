"""Families of equations for planted bugs: four common kinds of implicit layers.

Each is a residual `F(z, x, *parameters)` on rows, and a solver for it. Rows are independent systems;
`J = I − ∂F/∂z` is the Jacobian of the fixed-point map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Residual = Callable[..., Tensor]


@dataclass(frozen=True)
class Family:
    """A kind of equation.

    Attributes:
        name: Its name.
        residual: `F(z, x, *parameters)`, for one row or a batch of them.
        make: Returns `(x, *parameters)` for a batch size, a width and a generator.

    Examples:
        >>> import torch
        >>> family = FAMILIES["tanh"]
        >>> x, *parameters = family.make(2, 3, torch.Generator().manual_seed(0))
        >>> z = family.solve(x, *parameters)
        >>> bool(family.residual(z, x, *parameters).abs().max() < 1e-13)
        True
    """

    name: str
    residual: Residual
    make: Callable[[int, int, torch.Generator], tuple[Tensor, ...]]

    def solve(self, x: Tensor, *parameters: Tensor, tolerance: float = 0.0) -> Tensor:
        """The root by plain iteration, which stops once a step is below `tolerance`, or at rounding."""
        z, before = torch.zeros_like(x), torch.inf
        for _ in range(2000):
            step = self.residual(z, x, *parameters)
            z = z - step
            size = float(step.norm() / z.norm().clamp(min=1e-300))
            if size <= tolerance or (size >= before and size < 1e3 * torch.finfo(z.dtype).eps):
                break
            before = size
        return z


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _matrix(generator: torch.Generator, rows: int, columns: int, norm: float) -> Tensor:
    """A multiple of an isometry, which contracts by its norm in every direction and is not symmetric."""
    return norm * torch.linalg.qr(_draw(generator, rows, columns)).Q


def _tanh(z: Tensor, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    return z - torch.tanh(z @ W.mT + x + b)


def _make_tanh(batch: int, width: int, g: torch.Generator) -> tuple[Tensor, ...]:
    return _draw(g, batch, width), _matrix(g, width, width, 0.9), 0.1 * _draw(g, width)


def _attention(z: Tensor, x: Tensor, Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    scores = torch.softmax((z @ Q.mT) @ (z @ K.mT).mT / z.shape[-1] ** 0.5, dim=-1)
    return z - 0.5 * torch.nn.functional.layer_norm(x + scores @ (z @ V.mT), (z.shape[-1],))


def _make_attention(batch: int, width: int, g: torch.Generator) -> tuple[Tensor, ...]:
    weights = (_matrix(g, width, width, norm) for norm in (0.5, 0.5, 2.0))
    # Rows are large enough not to be amplified by layer normalisation.
    x = _draw(g, batch, 3, width)
    return 1.5 * x / x.std(dim=-1, keepdim=True), *weights


def _trellis(z: Tensor, x: Tensor, now: Tensor, past: Tensor) -> Tensor:
    before = torch.cat([torch.zeros_like(z[..., :1, :]), z[..., :-1, :]], dim=-2)
    mixed = z @ now.mT + before @ past.mT
    content, gate = mixed.chunk(2, dim=-1)
    return z - torch.sigmoid(gate + x) * torch.tanh(content + x)


def _make_trellis(batch: int, width: int, g: torch.Generator) -> tuple[Tensor, ...]:
    return (
        _draw(g, batch, 3, width),
        _matrix(g, 2 * width, width, 1.0),
        _matrix(g, 2 * width, width, 1.0),
    )


def _transport(u: Tensor, q: Tensor, k: Tensor, s: Tensor) -> Tensor:
    """Steady heat on a rod: conductivity `k` per edge, a stream to the right, radiation `s u³`."""
    padded = torch.nn.functional.pad(u, (1, 1))
    flux = k * (padded[..., 1:] - padded[..., :-1])
    stream = 0.2 * (u - padded[..., :-2])
    return u - 0.08 * (flux[..., 1:] - flux[..., :-1]) + stream + s * u**3 - q


def _make_transport(batch: int, width: int, g: torch.Generator) -> tuple[Tensor, ...]:
    conductivity = 1 + 0.5 * torch.rand(width + 1, generator=g, dtype=torch.float64)
    return (
        0.5 * _draw(g, batch, width).clamp(-1.5, 1.5),
        conductivity,
        0.1 * torch.ones(width, dtype=torch.float64),
    )


FAMILIES = {
    family.name: family
    for family in (
        Family("tanh", _tanh, _make_tanh),
        Family("attention", _attention, _make_attention),
        Family("trellis", _trellis, _make_trellis),
        Family("transport", _transport, _make_transport),
    )
}
