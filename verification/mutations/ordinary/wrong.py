"""Ordinary layers whose gradient is wrong by at least 1 %, as such mistakes are met in practice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .entry import DOUBLE, FLOATS, WIDE, Made, Ordinary, drawn, passed, positive, tampered, written

WRONG: list[Ordinary] = []


def wrong(
    name: str,
    cause: str = "",
    dtypes: tuple[torch.dtype, ...] = WIDE,
    full: bool = False,
) -> Callable[[Callable[[torch.dtype], Made]], Callable[[torch.dtype], Made]]:
    """Enter a wrong layer in the registry."""

    def enter(build: Callable[[torch.dtype], Made]) -> Callable[[torch.dtype], Made]:
        WRONG.append(Ordinary(name, "wrong", build, dtypes, cause, full))
        return build

    return enter


def _of(
    name: str,
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    cause: str = "",
    dtypes: tuple[torch.dtype, ...] = WIDE,
    full: bool = False,
    draw: Callable[..., Tensor] = drawn,
) -> None:
    """Enter a function of drawn inputs."""

    def build(dtype: torch.dtype) -> Made:
        return function, tuple(draw(*shape, dtype=dtype) for shape in shapes)

    WRONG.append(Ordinary(name, "wrong", build, dtypes, cause, full))


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


def _last_entry(g: Tensor) -> Tensor:
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
wrong("relu network, one entry")(_behind("relu network", _last_entry))
wrong("convolution, first image lost")(_behind("convolution", _first_row))
wrong("attention, mean over the batch", "mean over the batch")(
    _behind("attention", lambda g: g / g.shape[0])
)
wrong("gru, gradient clipped", "clip")(_behind("gru", lambda g: g.clamp(-0.5, 0.5)))


# --- Backward passes written by hand ---------------------------------------------------------------

_of("softmax without the sum", written(lambda x: x.softmax(-1), lambda g, y, x: y * g), (4, 5))
_of(
    "softmax, sum over the wrong axis",
    written(lambda x: x.softmax(-1), lambda g, y, x: y * (g - (g * y).sum(0))),
    (5, 5),
)
_of(
    "log-softmax without the sum of the cotangent",
    written(lambda x: x.log_softmax(-1), lambda g, y, x: g - y.exp()),
    (4, 5),
)
_of(
    "logsumexp without weights",
    written(lambda x: x.logsumexp(-1), lambda g, y, x: g[:, None] + 0 * x),
    (4, 5),
)
_of(
    "cumulative sum, not reversed",
    written(lambda x: x.cumsum(-1), lambda g, y, x: g.cumsum(-1)),
    (3, 6),
)
_of("tanh from the input", written(torch.tanh, lambda g, y, x: g * (1 - x**2)), (3, 4))
_of("sigmoid without the second factor", written(torch.sigmoid, lambda g, y, x: g * y), (3, 4))
_of(
    "gelu by its tanh formula, 1 % off",
    written(
        F.gelu,
        lambda g, y, x: (
            1.01
            * g
            * (
                0.5 * (1 + torch.erf(x / 2**0.5))
                + x * torch.exp(-x * x / 2) / (2 * torch.pi) ** 0.5
            )
        ),
    ),
    (3, 4),
    cause="factor of 1.01",
)
_of("silu without the product rule", written(F.silu, lambda g, y, x: g * x.sigmoid()), (3, 4))
_of(
    "softplus at twice the slope",
    written(F.softplus, lambda g, y, x: g * (2 * x).sigmoid()),
    (3, 4),
)
_of(
    "relu with a slope below zero",
    written(torch.relu, lambda g, y, x: torch.where(x > 0, g, 0.05 * g)),
    (8, 8),
)
_of(
    "square root without the half",
    written(torch.sqrt, lambda g, y, x: g / y),
    (3, 4),
    draw=positive,
    cause="factor of 2",
)
_of("norm not divided", written(lambda x: x.norm(dim=-1), lambda g, y, x: g[:, None] * x), (3, 4))
_of(
    "matrix product, factors exchanged",
    written(lambda a, b: a @ b, lambda g, y, a, b: (g @ b, a @ g)),
    (4, 4),
    (4, 4),
)
_of(
    "matrix product, gradient transposed",
    written(lambda a, b: a @ b, lambda g, y, a, b: ((g @ b.mT).mT, a.mT @ g)),
    (4, 4),
    (4, 4),
    cause="transposed",
)
_of(
    "bias counted for one row",
    written(lambda x, b: x + b, lambda g, y, x, b: (g, g[0])),
    (5, 4),
    (4,),
    cause="reduction",
)
_of(
    "bias averaged over the batch",
    written(lambda x, b: x + b, lambda g, y, x, b: (g, g.mean(0))),
    (5, 4),
    (4,),
    cause="mean over the batch",
)
_of(
    "scale without its reduction",
    written(lambda x, s: x * s, lambda g, y, x, s: (g * s, (g * x)[0])),
    (5, 4),
    (4,),
    cause="reduction",
)
_of(
    "layer norm, mean term lost",
    written(
        lambda x: F.layer_norm(x, x.shape[-1:]),
        lambda g, y, x: (
            (g - y * (g * y).mean(-1, keepdim=True))
            / x.var(-1, unbiased=False, keepdim=True).sqrt()
        ),
    ),
    (4, 6),
)
_of(
    "layer norm, variance term lost",
    written(
        lambda x: F.layer_norm(x, x.shape[-1:]),
        lambda g, y, x: (
            (g - g.mean(-1, keepdim=True)) / x.var(-1, unbiased=False, keepdim=True).sqrt()
        ),
    ),
    (4, 6),
)
_of(
    "rms norm, scale held constant",
    written(
        lambda x: x / x.square().mean(-1, keepdim=True).sqrt(),
        lambda g, y, x: g / x.square().mean(-1, keepdim=True).sqrt(),
    ),
    (4, 6),
    cause="",
)
_of(
    "batch norm, as in evaluation mode",
    written(
        lambda x: (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt(),
        lambda g, y, x: g / (x.var(0, unbiased=False) + 1e-5).sqrt(),
    ),
    (6, 4),
)
_of(
    "determinant without the transpose",
    written(torch.logdet, lambda g, y, A: g * torch.linalg.inv(A)),
    (4, 4),
    draw=lambda *shape, dtype: (
        (
            drawn(*shape, dtype=torch.float64).detach() / 4
            + 2 * torch.eye(shape[0], dtype=torch.float64)
        )
        .to(dtype)
        .requires_grad_()
    ),
    cause="transposed",
)
_of(
    "inverse without the transpose",
    written(torch.linalg.inv, lambda g, y, A: -y @ g @ y),
    (4, 4),
    draw=lambda *shape, dtype: (
        (
            drawn(*shape, dtype=torch.float64).detach() / 4
            + 2 * torch.eye(shape[0], dtype=torch.float64)
        )
        .to(dtype)
        .requires_grad_()
    ),
)
_of(
    "trace of a square, skew",
    tampered(lambda A: (A @ A).sum(-1), lambda gs: [gs[0] - 0.1 * gs[0].mT]),
    (4, 4),
    cause="skew",
)
_of(
    "maximum to every entry",
    written(lambda x: x.amax(-1), lambda g, y, x: g[:, None].expand_as(x)),
    (4, 5),
)
_of("sort, gradient not permuted", written(lambda x: x.sort(-1).values, lambda g, y, x: g), (4, 6))
_of(
    "roll, gradient not rolled back",
    written(lambda x: x.roll(1, 0), lambda g, y, x: g),
    (5, 3),
    cause="neighbours",
)
_of(
    "flip, gradient not flipped",
    written(lambda x: x.flip(-1), lambda g, y, x: g),
    (5, 3),
    cause="runs backwards",
)
_of(
    "product of two, one factor lost",
    written(lambda a, b: a * b, lambda g, y, a, b: (g * b, torch.zeros_like(b))),
    (4, 3),
    (4, 3),
    cause="dropped",
)
_of(
    "division, second derivative sign",
    written(lambda a, b: a / b, lambda g, y, a, b: (g / b, g * a / b**2)),
    (4, 3),
    (4, 3),
    cause="sign",
)
_of(
    "added constant", tampered(torch.sin, lambda gs: [gs[0] + 0.05]), (4, 3), cause="added constant"
)
_of(
    "batch leak",
    tampered(torch.sin, lambda gs: [gs[0] + 0.05 * gs[0].roll(1, 0)]),
    (4, 3),
    cause="rows leak",
)
_of(
    "last row lost",
    tampered(torch.sin, lambda gs: [torch.cat((gs[0][:-1], 0 * gs[0][-1:]))]),
    (5, 3),
)
_of(
    "first column doubled",
    tampered(torch.sin, lambda gs: [torch.cat((2 * gs[0][:, :1], gs[0][:, 1:]), 1)]),
    (5, 3),
)
_of("one entry 10 % off", tampered(torch.exp, lambda gs: [_last_entry(gs[0])]), (4, 5))
_of(
    "noise of 5 %",
    tampered(
        torch.sin,
        lambda gs: [
            gs[0]
            * (
                1
                + 0.05
                * torch.randn(gs[0].shape, generator=torch.Generator().manual_seed(3)).to(gs[0])
            )
        ],
    ),
    (4, 5),
)
_of("part detached", lambda x: x.sin() * x.detach().cos(), (4, 5))
_of("all detached", lambda x: x.sin().detach(), (4, 5), cause="dropped")
_of(
    "statistics detached",
    lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).detach(),
    (4, 6),
)
_of("clipped cotangent", passed(lambda g: g.clamp(-0.5, 0.5)), (4, 5), cause="clip")
_of("normalised cotangent", passed(lambda g: g / g.norm()), (4, 5), cause="")
_of("gradient reversal", passed(torch.neg), (4, 5), cause="sign")
_of(
    "rounding, straight through",
    written(torch.round, lambda g, y, x: g),
    (4, 5),
    cause="straight-through",
)
_of(
    "sign, straight through",
    written(torch.sign, lambda g, y, x: g * (x.abs() < 1)),
    (4, 5),
    cause="straight-through",
)
_of(
    "one-hot, straight through",
    lambda x: F.one_hot(x.argmax(-1), 5).to(x) + (x - x.detach()),
    (4, 5),
    cause="straight-through",
)
_of(
    "square root under a mask",
    lambda x: torch.where(x > 0, x.sqrt(), torch.zeros_like(x)),
    (4, 3),
    cause="",
)
_of(
    "hard sigmoid with the slope of a sigmoid",
    written(F.hardsigmoid, lambda g, y, x: g * y * (1 - y)),
    (4, 5),
)
_of(
    "interpolation at half the weight",
    written(
        lambda x: F.interpolate(x[None], scale_factor=2, mode="linear")[0],
        lambda g, y, x: g[..., ::2] * 1.0,
    ),
    (3, 5),
)
_of(
    "embedding, repeated indices lost",
    lambda w: _Gather.apply(w, torch.tensor([0, 1, 1, 3])),
    (5, 3),
)
_of("in half precision inside", lambda x: _HalfBackward.apply(x), (4, 5))


class _Gather(torch.autograd.Function):
    """Rows of a table, whose gradient overwrites in place of adding."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, index: Tensor) -> Tensor:
        ctx.index, ctx.like = index, w.detach()
        return w[index]

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        gradient = torch.zeros_like(ctx.like)
        gradient[ctx.index] = cotangents[0]
        return gradient, None


class _HalfBackward(torch.autograd.Function):
    """A sine whose backward pass knows its input to two digits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward((50 * x).round() / 50)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        return cotangents[0] * ctx.saved_tensors[0].cos()


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
