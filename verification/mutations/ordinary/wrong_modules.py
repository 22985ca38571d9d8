"""Modules whose gradient is wrong by at least 1 %, as such mistakes are met in practice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .entering import wrong
from .entry import DOUBLE, FLOATS, WIDE, Made, drawn, passed, positive, written


def _modules() -> dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]]:
    return {
        "linear": lambda: (nn.Linear(5, 4), (6, 5)),
        "relu network": lambda: (
            nn.Sequential(
                nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
            ),
            (16, 8),
        ),
        "leaky network": lambda: (
            nn.Sequential(nn.Linear(6, 32), nn.LeakyReLU(0.1), nn.Linear(32, 4)),
            (8, 6),
        ),
        "batch norm": lambda: (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), (6, 4)),
        "layer norm": lambda: (nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)), (5, 4)),
        "convolution": lambda: (nn.Conv2d(2, 3, 3), (2, 2, 6, 6)),
        "max pooling": lambda: (
            nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2)),
            (3, 2, 10),
        ),
        "gru": lambda: (_First(nn.GRU(4, 5, batch_first=True)), (2, 5, 4)),
        "attention": lambda: (_Attention(8, 2), (2, 5, 8)),
    }


class _First(nn.Module):
    """The first result of a module that returns several."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)[0]
        return y


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return y


def _behind(module: str, change: Callable[[Tensor], Tensor]) -> Callable[[torch.dtype], Made]:
    """A changed gradient behind a module."""

    def build(dtype: torch.dtype) -> Made:
        net, shape = _modules()[module]()
        net, after = net.to(dtype), passed(change)
        return (lambda x: after(net(x))), (drawn(*shape, dtype=dtype),)

    return build


def last_entry(g: Tensor) -> Tensor:
    """A gradient whose last entry is 10 % too large."""
    changed = g.clone()
    changed[(-1,) * g.ndim] *= 1.1
    return changed


def _first_row(g: Tensor) -> Tensor:
    changed = g.clone()
    changed[0] = 0
    return changed


for _module in _modules():
    wrong(f"{_module}, 1 % too large", "factor of 1.01")(_behind(_module, lambda g: 1.01 * g))
    wrong(f"{_module}, wrong sign", "sign", FLOATS)(_behind(_module, torch.neg))
wrong("relu network, 10 % too large", "factor of 1.1", FLOATS)(
    _behind("relu network", lambda g: 1.1 * g)
)
wrong("relu network, one entry")(_behind("relu network", last_entry))
wrong("convolution, first image lost")(_behind("convolution", _first_row))
wrong("attention, mean over the batch", "mean over the batch")(
    _behind("attention", lambda g: g / g.shape[0])
)
wrong("gru, gradient clipped", "clip")(_behind("gru", lambda g: g.clamp(-0.5, 0.5)))


# --- Modules ---------------------------------------------------------------------------------------


@wrong("running statistics are differentiated")
def _running(dtype: torch.dtype) -> Made:
    class Stale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            y = torch.tanh(x @ self.weight.mT)
            return y / (1 + y.square().mean().detach())

    return Stale().to(dtype), (drawn(5, 4, dtype=dtype),)


@wrong("stale linearisation", "stale")
def _stale(dtype: torch.dtype) -> Made:
    return written(torch.sin, lambda g, y, x: g * (0.9 * x).cos()), (drawn(4, 5, dtype=dtype),)


@wrong("lost parameter", "dropped")
def _lost(dtype: torch.dtype) -> Made:
    class Lost(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.weight, None if self.bias is None else self.bias.detach())

    return Lost(4, 3).to(dtype), (drawn(5, 4, dtype=dtype),)


@wrong("dropout without its scale", "factor of 0.5")
def _dropout(dtype: torch.dtype) -> Made:
    def layer(x: Tensor) -> Tensor:
        mask = (torch.rand(6, 4) > 0.5).to(x)
        return written(lambda x: 2 * x * mask, lambda g, y, x: g * mask)(x)

    return layer, (drawn(6, 4, dtype=dtype),)


@wrong("reparameterised sample, scale's noise lost")
def _sample(dtype: torch.dtype) -> Made:
    def layer(mean: Tensor, scale: Tensor) -> Tensor:
        noise = torch.randn(mean.shape, dtype=torch.float32).to(mean)
        return written(lambda m, s: m + s * noise, lambda g, y, m, s: (g, g * noise.abs()))(
            mean, scale
        )

    return layer, (drawn(4, 3, dtype=dtype), positive(4, 3, dtype=dtype))


@wrong("complex product without conjugates", "", DOUBLE)
def _complex(dtype: torch.dtype) -> Made:
    product = written(lambda a, b: a * b, lambda g, y, a, b: (g * b, g * a))
    return product, (drawn(3, 4, dtype=torch.complex128), drawn(3, 4, dtype=torch.complex128))


@wrong("complex modulus, 2 % too large", "factor of 1.02", DOUBLE)
def _modulus(dtype: torch.dtype) -> Made:
    modulus = written(torch.abs, lambda g, y, z: 1.02 * g * z / y)
    return modulus, (drawn(3, 4, dtype=torch.complex128),)


@wrong("sparse gradient, values halved", "factor of 0.5", DOUBLE)
def _sparse(dtype: torch.dtype) -> Made:
    table = nn.Embedding(6, 3, sparse=True).to(dtype)
    halved = passed(lambda g: g / 2)
    return (lambda i: halved(table(i))), (torch.tensor([[0, 1, 1], [4, 5, 0]]),)


@wrong("cotangent assumed contiguous", "", WIDE, True)
def _contiguous(dtype: torch.dtype) -> Made:
    def backward(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        if g.untyped_storage().nbytes() >= g.numel() * g.element_size():
            g = g.as_strided(x.shape, torch.empty(x.shape).stride())
        return g * x.cos()

    return written(torch.sin, backward), (drawn(3, 4, dtype=dtype),)


@wrong("tail of a block skipped", "", WIDE, True)
def _tail(dtype: torch.dtype) -> Made:
    def backward(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        gradient = g * x.cos()
        if len(gradient) > 4:
            gradient[len(gradient) // 4 * 4 :] = 0
        return gradient

    return written(torch.sin, backward), (drawn(4, 3, dtype=dtype),)


@wrong("wrong for negative inputs", "", WIDE, True)
def _signs(dtype: torch.dtype) -> Made:
    cube = written(lambda x: x**3, lambda g, y, x: 3 * g * x * x.abs())
    return cube, (positive(4, 3, dtype=dtype),)


@wrong("backward writes into its cotangent", "writes into its cotangent", WIDE)
def _writes(dtype: torch.dtype) -> Made:
    return written(torch.sin, lambda g, y, x: g.mul_(x.cos())), (drawn(4, 3, dtype=dtype),)


@wrong("backward writes into what it saved", "", WIDE, True)
def _spoils(dtype: torch.dtype) -> Made:
    class Spoils(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.slope = x.cos()
            return x.sin()

        @staticmethod
        def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
            return ctx.slope.mul_(cotangents[0]).clone()

    return Spoils.apply, (drawn(4, 3, dtype=dtype),)


@wrong("nondeterministic backward", "nondeterministic", WIDE)
def _random(dtype: torch.dtype) -> Made:
    generator = torch.Generator().manual_seed(1)

    def backward(g: Tensor, y: Tensor, x: Tensor) -> Tensor:
        return g * x.cos() * (1 + 0.1 * torch.rand(x.shape, generator=generator).to(x))

    return written(torch.sin, backward), (drawn(4, 3, dtype=dtype),)
