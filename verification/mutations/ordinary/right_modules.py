"""Modules, samples and complex functions whose gradients are right; points without a derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .entering import at_point, enter, right_function, right_module
from .entry import WIDE, Made, drawn, positive, written

# --- Modules ---------------------------------------------------------------------------------------

right_module("linear", lambda: nn.Linear(5, 4), 6, 5)
right_module("linear, one row", lambda: nn.Linear(2, 1), 1, 2)
right_module("linear, wide", lambda: nn.Linear(256, 128), 8, 256)
right_module(
    "relu network",
    lambda: nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    ),
    16,
    8,
)
right_module(
    "deep relu network",
    lambda: nn.Sequential(*(m for _ in range(8) for m in (nn.Linear(16, 16), nn.ReLU()))),
    4,
    16,
)
right_module(
    "gelu network", lambda: nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)), 4, 8
)
right_module(
    "prelu network", lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 2)), 5, 6
)
right_module("batch norm", lambda: nn.BatchNorm1d(5), 6, 5)
right_module(
    "bias before batch norm", lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), 6, 4
)
right_module("batch norm in evaluation mode", lambda: nn.BatchNorm1d(5).eval(), 6, 5)
right_module(
    "convolution and batch norm",
    lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
    3,
    2,
    5,
    5,
)
right_module("layer norm", lambda: nn.LayerNorm(6), 4, 6)
right_module("layer norm and linear", lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)), 4, 6)
right_module("group norm", lambda: nn.GroupNorm(2, 4), 3, 4, 5)
right_module("instance norm", lambda: nn.InstanceNorm1d(3), 2, 3, 6)
right_module("rms norm", lambda: nn.RMSNorm(6), 4, 6)
right_module(
    "spectral norm",
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)).eval(),
    5,
    4,
    dtypes=WIDE,
)
right_module("convolution", lambda: nn.Conv2d(2, 3, 3), 2, 2, 6, 6)
right_module("one-dimensional convolution", lambda: nn.Conv1d(3, 4, 3, padding=1), 2, 3, 8)
right_module("transposed convolution", lambda: nn.ConvTranspose1d(3, 2, 3), 2, 3, 5)
right_module("depthwise convolution", lambda: nn.Conv1d(4, 4, 3, groups=4), 2, 4, 7)
right_module("max pooling", lambda: nn.MaxPool2d(2), 2, 2, 6, 6)
right_module("average pooling", lambda: nn.AvgPool1d(2), 2, 3, 6)
right_module("adaptive pooling", lambda: nn.AdaptiveAvgPool1d(2), 2, 3, 5)
right_module(
    "convolutional network",
    lambda: nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(32, 3)
    ),
    3,
    2,
    10,
)
right_module("upsampling", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), 1, 2, 3, 3)
right_module("lstm", lambda: nn.LSTM(4, 5, batch_first=True), 2, 5, 4, dtypes=WIDE)
right_module("gru", lambda: nn.GRU(4, 5), 5, 2, 4, dtypes=WIDE)
right_module("recurrent, relu", lambda: nn.RNN(4, 5, nonlinearity="relu"), 5, 2, 4, dtypes=WIDE)
right_module(
    "attention",
    lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    2,
    5,
    8,
    call=lambda m, x: m(x, x, x)[0],
)
right_module(
    "encoder layer",
    lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    2,
    4,
    8,
    dtypes=WIDE,
)
right_module(
    "decoder layer",
    lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    2,
    4,
    8,
    call=lambda m, x: m(x, x),
    dtypes=WIDE,
)
right_module(
    "residual block",
    lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU()),
    4,
    6,
    call=lambda m, x: x + m(x),
)
right_module("gated unit", lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU()), 4, 6)
right_module("dropout", lambda: nn.Dropout(0.5), 6, 5)
right_module(
    "network with dropout",
    lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)),
    5,
    6,
)
right_module("frozen weight", lambda: _frozen(nn.Linear(4, 3)), 5, 4)
right_module(
    "checkpoint",
    lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)),
    5,
    4,
    call=lambda m, x: checkpoint(m, x, use_reentrant=False),
)
right_module(
    "reentrant checkpoint",
    lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)),
    5,
    4,
    call=lambda m, x: checkpoint(m, x, use_reentrant=True),
)
right_function(
    "scaled dot product, causal",
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    (2, 4, 6),
    (2, 4, 6),
    (2, 4, 6),
)


def _frozen(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    return net


def _table(sparse: bool, bag: bool = False) -> Callable[[torch.dtype], Made]:
    def build(dtype: torch.dtype) -> Made:
        made = (
            nn.EmbeddingBag(6, 3, sparse=sparse, mode="sum")
            if bag
            else nn.Embedding(6, 3, sparse=sparse)
        )
        return made.to(dtype), (torch.tensor([[0, 1, 1], [4, 5, 0]]),)

    return build


enter("embedding", _table(False))
enter("embedding with a sparse gradient", _table(True), WIDE)
enter("bag of embeddings", _table(False, bag=True), WIDE)


# --- Sampling, scales, complex, lower precision ----------------------------------------------------


def _sampled(mean: Tensor, scale: Tensor) -> Tensor:
    return mean + scale * torch.randn_like(mean)


right_function("reparameterised normal", _sampled, (4, 3), (4, 3), draw=positive, dtypes=WIDE)
right_function(
    "normal of torch.distributions",
    lambda m, s: torch.distributions.Normal(m, s).rsample(),
    (4, 3),
    (4, 3),
    draw=positive,
    dtypes=WIDE,
)
right_function(
    "relaxed categorical",
    lambda x: (x - torch.log(-torch.log(0.05 + 0.9 * torch.rand_like(x)))).softmax(-1),
    (4, 5),
    dtypes=WIDE,
)
at_point("logarithm over twelve decades", torch.log, [1e-6, 1e-3, 1.0, 1e6], kind="right")
at_point("square root over decades", torch.sqrt, [1e-8, 1e-3, 1.0, 1e5], kind="right")
at_point("tiny inputs", lambda x: (1e20 * x).tanh(), [1e-20, -3e-20, 5e-21], kind="right")
at_point("huge inputs", lambda x: (1e-20 * x).tanh(), [1e20, -3e20, 5e19], kind="right")
at_point("inputs at zero", lambda x: x.sin() + x.exp(), [0.0, 0.0, 0.0], kind="right")
right_function("sums with cancellation", lambda x: x - x.mean(-1, keepdim=True) + (x - x), (4, 5))
right_function("mixed precision inside", lambda x: x.float().sin().to(x) * 2, (4, 5), dtypes=WIDE)
right_function("autocast inside", lambda x: _autocast(x), (4, 6), dtypes=WIDE)
right_function(
    "a function of autograd, right", written(torch.sin, lambda g, y, x: g * x.cos()), (4, 5)
)
right_function(
    "a hand-written softmax",
    written(lambda x: x.softmax(-1), lambda g, y, x: y * (g - (g * y).sum(-1, keepdim=True))),
    (4, 5),
)


def _autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return (x @ x.mT).to(x) + x.sum()


def _complex(name: str, function: Callable[..., Any], *shapes: tuple[int, ...]) -> None:
    def build(dtype: torch.dtype) -> Made:
        kind = torch.complex128 if dtype == torch.float64 else torch.complex64
        return function, tuple(drawn(*shape, dtype=kind) for shape in shapes)

    enter(name, build, WIDE)


_complex("complex exponential and conjugate", lambda z: z.exp() * z.conj(), (3, 4))
_complex("complex modulus", torch.abs, (3, 4))
_complex("complex matrix product", torch.matmul, (3, 4), (4, 2))
_complex("complex solve", lambda A, b: torch.linalg.solve(A + 4 * torch.eye(3), b), (3, 3), (3, 2))
_complex("inverse Fourier transform", torch.fft.ifft, (3, 8))
right_function("Fourier transform", torch.fft.rfft, (3, 8), dtypes=WIDE)
right_function(
    "spectral filter",
    lambda x, w: torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(w), n=8),
    (3, 8),
    (5, 2),
    dtypes=WIDE,
)


# --- Points without a derivative -------------------------------------------------------------------

at_point("absolute value at zero", torch.abs, [[0.0, 0.0], [0.0, 0.0]])
at_point("relu at zero", torch.relu, [0.0, 1.0, -1.0])
at_point("norm at zero", lambda x: x.norm(), [0.0, 0.0, 0.0])
at_point("maximum of equals", lambda x: x.amax(-1), [1.0, 1.0, 0.5])
at_point("sort of equals", lambda x: x.sort().values, [1.0, 1.0, 0.5])
at_point("clamp at its bound", lambda x: x.clamp(-1, 1), [1.0, 0.3, -1.0])
at_point("median of equals", lambda x: x.median(), [1.0, 1.0, 0.5, 2.0, 0.1])
at_point(
    "singular values of a multiple of the identity", torch.linalg.svdvals, [[2.0, 0.0], [0.0, 2.0]]
)
at_point(
    "eigenvalues that coincide",
    lambda A: torch.linalg.eigvalsh((A + A.mT) / 2),
    [[1.0, 0.0], [0.0, 1.0]],
)
at_point("hard shrinkage at its edge", F.hardshrink, [0.5, 0.7, -0.2])
at_point(
    "distance of points that coincide",
    lambda x: torch.linalg.vector_norm(x[:2] - x[1:], dim=-1),
    [[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]],
)
