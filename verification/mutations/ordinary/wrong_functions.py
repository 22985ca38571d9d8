"""Backward passes written by hand that are wrong by at least 1 %."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .entering import wrong_function
from .entry import passed, positive, regular, tampered, written
from .wrong_modules import last_entry

# --- Backward passes written by hand ---------------------------------------------------------------

wrong_function(
    "softmax without the sum", written(lambda x: x.softmax(-1), lambda g, y, x: y * g), (4, 5)
)
wrong_function(
    "softmax, sum over the wrong axis",
    written(lambda x: x.softmax(-1), lambda g, y, x: y * (g - (g * y).sum(0))),
    (5, 5),
)
wrong_function(
    "log-softmax without the sum of the cotangent",
    written(lambda x: x.log_softmax(-1), lambda g, y, x: g - y.exp()),
    (4, 5),
)
wrong_function(
    "logsumexp without weights",
    written(lambda x: x.logsumexp(-1), lambda g, y, x: g[:, None] + 0 * x),
    (4, 5),
)
wrong_function(
    "cumulative sum, not reversed",
    written(lambda x: x.cumsum(-1), lambda g, y, x: g.cumsum(-1)),
    (3, 6),
)
wrong_function("tanh from the input", written(torch.tanh, lambda g, y, x: g * (1 - x**2)), (3, 4))
wrong_function(
    "sigmoid without the second factor", written(torch.sigmoid, lambda g, y, x: g * y), (3, 4)
)
wrong_function(
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
wrong_function(
    "silu without the product rule", written(F.silu, lambda g, y, x: g * x.sigmoid()), (3, 4)
)
wrong_function(
    "softplus at twice the slope",
    written(F.softplus, lambda g, y, x: g * (2 * x).sigmoid()),
    (3, 4),
)
wrong_function(
    "relu with a slope below zero",
    written(torch.relu, lambda g, y, x: torch.where(x > 0, g, 0.05 * g)),
    (8, 8),
)
wrong_function(
    "square root without the half",
    written(torch.sqrt, lambda g, y, x: g / y),
    (3, 4),
    draw=positive,
    cause="factor of 2",
)
wrong_function(
    "norm not divided", written(lambda x: x.norm(dim=-1), lambda g, y, x: g[:, None] * x), (3, 4)
)
wrong_function(
    "matrix product, factors exchanged",
    written(lambda a, b: a @ b, lambda g, y, a, b: (g @ b, a @ g)),
    (4, 4),
    (4, 4),
)
wrong_function(
    "matrix product, gradient transposed",
    written(lambda a, b: a @ b, lambda g, y, a, b: ((g @ b.mT).mT, a.mT @ g)),
    (4, 4),
    (4, 4),
    cause="transposed",
)
wrong_function(
    "bias counted for one row",
    written(lambda x, b: x + b, lambda g, y, x, b: (g, g[0])),
    (5, 4),
    (4,),
    cause="reduction",
)
wrong_function(
    "bias averaged over the batch",
    written(lambda x, b: x + b, lambda g, y, x, b: (g, g.mean(0))),
    (5, 4),
    (4,),
    cause="mean over the batch",
)
wrong_function(
    "scale without its reduction",
    written(lambda x, s: x * s, lambda g, y, x, s: (g * s, (g * x)[0])),
    (5, 4),
    (4,),
    cause="reduction",
)
wrong_function(
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
wrong_function(
    "layer norm, variance term lost",
    written(
        lambda x: F.layer_norm(x, x.shape[-1:]),
        lambda g, y, x: (
            (g - g.mean(-1, keepdim=True)) / x.var(-1, unbiased=False, keepdim=True).sqrt()
        ),
    ),
    (4, 6),
)
wrong_function(
    "rms norm, scale held constant",
    written(
        lambda x: x / x.square().mean(-1, keepdim=True).sqrt(),
        lambda g, y, x: g / x.square().mean(-1, keepdim=True).sqrt(),
    ),
    (4, 6),
    cause="",
)
wrong_function(
    "batch norm, as in evaluation mode",
    written(
        lambda x: (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt(),
        lambda g, y, x: g / (x.var(0, unbiased=False) + 1e-5).sqrt(),
    ),
    (6, 4),
)
wrong_function(
    "determinant without the transpose",
    written(torch.logdet, lambda g, y, A: g * torch.linalg.inv(A)),
    (4, 4),
    draw=regular,
    cause="transposed",
)
wrong_function(
    "inverse without the transpose",
    written(torch.linalg.inv, lambda g, y, A: -y @ g @ y),
    (4, 4),
    draw=regular,
)
wrong_function(
    "trace of a square, skew",
    tampered(lambda A: (A @ A).sum(-1), lambda gs: [gs[0] - 0.1 * gs[0].mT]),
    (4, 4),
    cause="skew",
)
wrong_function(
    "maximum to every entry",
    written(lambda x: x.amax(-1), lambda g, y, x: g[:, None].expand_as(x)),
    (4, 5),
)
wrong_function(
    "sort, gradient not permuted", written(lambda x: x.sort(-1).values, lambda g, y, x: g), (4, 6)
)
wrong_function(
    "roll, gradient not rolled back",
    written(lambda x: x.roll(1, 0), lambda g, y, x: g),
    (5, 3),
    cause="neighbours",
)
wrong_function(
    "flip, gradient not flipped",
    written(lambda x: x.flip(-1), lambda g, y, x: g),
    (5, 3),
    cause="runs backwards",
)
wrong_function(
    "product of two, one factor lost",
    written(lambda a, b: a * b, lambda g, y, a, b: (g * b, torch.zeros_like(b))),
    (4, 3),
    (4, 3),
    cause="dropped",
)
wrong_function(
    "division, second derivative sign",
    written(lambda a, b: a / b, lambda g, y, a, b: (g / b, g * a / b**2)),
    (4, 3),
    (4, 3),
    cause="sign",
)
wrong_function(
    "added constant", tampered(torch.sin, lambda gs: [gs[0] + 0.05]), (4, 3), cause="added constant"
)
wrong_function(
    "batch leak",
    tampered(torch.sin, lambda gs: [gs[0] + 0.05 * gs[0].roll(1, 0)]),
    (4, 3),
    cause="rows leak",
)
wrong_function(
    "last row lost",
    tampered(torch.sin, lambda gs: [torch.cat((gs[0][:-1], 0 * gs[0][-1:]))]),
    (5, 3),
)
wrong_function(
    "first column doubled",
    tampered(torch.sin, lambda gs: [torch.cat((2 * gs[0][:, :1], gs[0][:, 1:]), 1)]),
    (5, 3),
)
wrong_function("one entry 10 % off", tampered(torch.exp, lambda gs: [last_entry(gs[0])]), (4, 5))
wrong_function(
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
wrong_function("part detached", lambda x: x.sin() * x.detach().cos(), (4, 5))
wrong_function("all detached", lambda x: x.sin().detach(), (4, 5), cause="dropped")
wrong_function(
    "statistics detached",
    lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True).detach(),
    (4, 6),
)
wrong_function("clipped cotangent", passed(lambda g: g.clamp(-0.5, 0.5)), (4, 5), cause="clip")
wrong_function("normalised cotangent", passed(lambda g: g / g.norm()), (4, 5), cause="")
wrong_function("gradient reversal", passed(torch.neg), (4, 5), cause="sign")
wrong_function(
    "rounding, straight through",
    written(torch.round, lambda g, y, x: g),
    (4, 5),
    cause="straight-through",
)
wrong_function(
    "sign, straight through",
    written(torch.sign, lambda g, y, x: g * (x.abs() < 1)),
    (4, 5),
    cause="straight-through",
)
wrong_function(
    "one-hot, straight through",
    lambda x: F.one_hot(x.argmax(-1), 5).to(x) + (x - x.detach()),
    (4, 5),
    cause="straight-through",
)
wrong_function(
    "square root under a mask",
    lambda x: torch.where(x > 0, x.sqrt(), torch.zeros_like(x)),
    (4, 3),
    cause="",
)
wrong_function(
    "hard sigmoid with the slope of a sigmoid",
    written(F.hardsigmoid, lambda g, y, x: g * y * (1 - y)),
    (4, 5),
)
wrong_function(
    "interpolation at half the weight",
    written(
        lambda x: F.interpolate(x[None], scale_factor=2, mode="linear")[0],
        lambda g, y, x: g[..., ::2] * 1.0,
    ),
    (3, 5),
)
wrong_function(
    "embedding, repeated indices lost",
    lambda w: _Gather.apply(w, torch.tensor([0, 1, 1, 3])),
    (5, 3),
)
wrong_function("in half precision inside", lambda x: _HalfBackward.apply(x), (4, 5))


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
