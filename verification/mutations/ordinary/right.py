"""Ordinary layers whose gradients are right, and points at which a layer has no derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .entry import DOUBLE, FLOATS, WIDE, Kind, Made, Ordinary, drawn, positive, written

RIGHT: list[Ordinary] = []
DOUBTFUL: list[Ordinary] = []


def _enter(
    name: str,
    build: Callable[[torch.dtype], Made],
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    kind: Kind = "right",
) -> None:
    (RIGHT if kind == "right" else DOUBTFUL).append(Ordinary(name, kind, build, dtypes))


def _of(
    name: str,
    function: Callable[..., Any],
    *shapes: tuple[int, ...],
    draw: Callable[..., Tensor] = drawn,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
) -> None:
    def build(dtype: torch.dtype) -> Made:
        return function, tuple(draw(*shape, dtype=dtype) for shape in shapes)

    _enter(name, build, dtypes)


def _module(
    name: str,
    make: Callable[[], nn.Module],
    *shape: int,
    dtypes: tuple[torch.dtype, ...] = FLOATS,
    call: Callable[[nn.Module, Tensor], Any] | None = None,
) -> None:
    def build(dtype: torch.dtype) -> Made:
        net = make().to(dtype)
        if call is None:
            return net, (drawn(*shape, dtype=dtype),)
        return (lambda x: call(net, x)), (drawn(*shape, dtype=dtype),)

    _enter(name, build, dtypes)


def _at(
    name: str,
    function: Callable[..., Any],
    values: Any,
    dtypes: tuple[torch.dtype, ...] = WIDE,
    kind: Kind = "doubtful",
) -> None:
    def build(dtype: torch.dtype) -> Made:
        return function, (torch.tensor(values, dtype=torch.float64).to(dtype).requires_grad_(),)

    _enter(name, build, dtypes, kind)


# --- Elementwise -----------------------------------------------------------------------------------

for _f in (
    torch.sin, torch.exp, torch.tanh, torch.sigmoid, torch.atan, torch.sinh, torch.erf, F.gelu,
    F.silu, F.softplus, F.elu, F.selu, F.celu, F.mish, F.logsigmoid, torch.relu, F.leaky_relu,
    F.hardtanh, F.hardswish, torch.abs, torch.square, F.softsign, F.tanhshrink, F.hardshrink,
):  # fmt: skip
    _of(_f.__name__, _f, (4, 5))
for _f in (
    torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.lgamma, torch.digamma, torch.log1p,
):  # fmt: skip
    _of(f"{_f.__name__} of positive numbers", _f, (4, 5), draw=positive)
_of("power", lambda x, p: x**p, (3, 4), (3, 4), draw=positive)
_of("clamp", lambda x: x.clamp(-1, 1), (8, 8))
_of("where", lambda x: torch.where(x > 0, x.exp(), x.sin()), (5, 5))
_of("dead relu", lambda x: torch.relu(x - 100), (4, 5))
_of("saturated tanh", lambda x: torch.tanh(10 * x), (4, 5))
_of("saturated softmax", lambda x: (40 * x).softmax(-1), (4, 5))
_of("log-sum-exp of a shift", lambda x, b: (x + b).softmax(-1), (4, 5), (4, 1))
_of("atan2", torch.atan2, (4, 5), (4, 5))

# --- Reductions, indices, shapes -------------------------------------------------------------------

_of("sum of squares", lambda x: x.square().sum(), (4, 5))
_of("variance", lambda x: x.var(-1), (4, 6))
_of("standard deviation", lambda x: x.std(0), (6, 4))
_of("norm", lambda x: x.norm(dim=-1), (4, 5))
_of("maximum", lambda x: x.amax(-1), (4, 5))
_of("minimum and its index", lambda x: x.min(-1), (4, 5))
_of("sort", torch.sort, (4, 5))
_of("top three", lambda x: x.topk(3).values, (4, 6))
_of("median", lambda x: x.median(-1).values, (4, 5))
_of("softmax", lambda x: x.softmax(-1), (4, 5))
_of("log-softmax", lambda x: x.log_softmax(-1), (4, 5))
_of("log-sum-exp", lambda x: x.logsumexp(-1), (4, 5))
_of("cumulative sum", lambda x: x.cumsum(-1), (4, 5))
_of("cumulative product", lambda x: x.cumprod(-1), (4, 5), dtypes=WIDE)
_of("product", lambda x: x.prod(-1), (4, 5))
_of("flip", lambda x: x.flip(-1), (4, 5))
_of("roll", lambda x: x.roll(2, 0), (4, 5))
_of("gather", lambda x: x.gather(1, torch.tensor([[0, 2], [1, 1], [3, 0]])), (3, 4))
_of("repeated rows", lambda x: x[torch.tensor([0, 0, 2, 1])], (3, 4))
_of("scatter", lambda x: torch.zeros(5, 4).to(x).index_add(0, torch.tensor([0, 0, 3]), x), (3, 4))
_of("pad", lambda x: F.pad(x, (1, 2)), (3, 4))
_of("reflect", lambda x: F.pad(x, (1, 1), mode="reflect"), (3, 4))
_of("several outputs", lambda x: {"a": x.sin(), "b": (x.sum(), x.mean(0))}, (3, 4))
_of("an empty tensor beside", lambda x, e: x.sin() + e.sum(), (3, 4), (0, 4))
_of("a scalar", lambda a: a.sin(), ())

# --- Linear algebra --------------------------------------------------------------------------------


def _definite(*shape: int, dtype: torch.dtype) -> Tensor:
    n = shape[-1]
    A = torch.randn(*shape, dtype=torch.float64) / n**0.5
    return (A @ A.mT + torch.eye(n, dtype=torch.float64)).to(dtype).requires_grad_()


def _regular(*shape: int, dtype: torch.dtype) -> Tensor:
    n = shape[-1]
    A = torch.randn(*shape, dtype=torch.float64) / n
    return (A + 2 * torch.eye(n, dtype=torch.float64)).to(dtype).requires_grad_()


_of("matrix product", torch.matmul, (4, 5), (5, 3))
_of("batched product", torch.bmm, (2, 3, 4), (2, 4, 3))
_of("einsum", lambda a, b: torch.einsum("bij,bjk->bik", a, b), (2, 3, 4), (2, 4, 3))
_of("gram matrix", lambda x: x @ x.mT, (4, 5))
_of(
    "solve",
    torch.linalg.solve,
    (4, 4),
    (4, 2),
    draw=lambda *s, dtype: (_regular if s[0] == s[1] else drawn)(*s, dtype=dtype),
    dtypes=WIDE,
)
_of("inverse", torch.linalg.inv, (4, 4), draw=_regular, dtypes=WIDE)
_of("log-determinant", torch.logdet, (4, 4), draw=_definite, dtypes=WIDE)
_of("determinant", torch.linalg.det, (4, 4), draw=_regular, dtypes=WIDE)
_of("singular values", torch.linalg.svdvals, (4, 3), dtypes=WIDE)
_of(
    "eigenvalues of a symmetric matrix",
    lambda A: torch.linalg.eigvalsh(A + A.mT),
    (4, 4),
    dtypes=WIDE,
)
_of(
    "Cholesky of a symmetrised matrix",
    lambda A: torch.linalg.cholesky((A + A.mT) / 2),
    (4, 4),
    draw=_definite,
    dtypes=WIDE,
)
_of("QR, triangle", lambda A: torch.linalg.qr(A).R, (4, 3), dtypes=WIDE)
_of("least squares", lambda A, b: torch.linalg.lstsq(A, b).solution, (5, 3), (5, 1), dtypes=DOUBLE)
_of("matrix exponential", torch.linalg.matrix_exp, (3, 3), dtypes=WIDE)
_of(
    "triangular solve",
    lambda A, b: torch.linalg.solve_triangular(A.tril(), b, upper=False),
    (4, 4),
    (4, 4),
    draw=_regular,
    dtypes=WIDE,
)
_of("Kronecker product", torch.kron, (2, 3), (3, 2))
_of("cross product", lambda a, b: torch.linalg.cross(a, b), (4, 3), (4, 3))
_of("pairwise distances", torch.cdist, (4, 3), (5, 3), dtypes=WIDE)
# The operator of torch.nn has a wrong second derivative (PyTorch 2.13; gradgradcheck agrees).
_of(
    "weight norm by hand",
    lambda x, v, g: x @ (g * v / v.norm(dim=1, keepdim=True)).mT,
    (5, 4),
    (3, 4),
    (3, 1),
    dtypes=WIDE,
)
_of("cosine similarity", lambda a, b: F.cosine_similarity(a, b), (4, 5), (4, 5))
_of("bilinear", lambda a, W, b: F.bilinear(a, b, W), (4, 3), (2, 3, 3), (4, 3))

# --- Losses ----------------------------------------------------------------------------------------

_of("cross entropy", lambda x: F.cross_entropy(x, torch.tensor([0, 2, 1, 4])), (4, 5))
_of("mean squared error", F.mse_loss, (4, 5), (4, 5))
_of("absolute error", F.l1_loss, (4, 5), (4, 5))
_of("Huber loss", F.huber_loss, (4, 5), (4, 5))
_of("binary cross entropy", lambda x, t: F.binary_cross_entropy_with_logits(x, t), (4, 5), (4, 5))
_of(
    "divergence",
    lambda x, t: F.kl_div(x.log_softmax(-1), t.softmax(-1), reduction="batchmean"),
    (4, 5),
    (4, 5),
)
_of("hinge loss", lambda x: F.relu(1 - x * x.detach().sign()).mean(), (6, 5))

# --- Modules ---------------------------------------------------------------------------------------

_module("linear", lambda: nn.Linear(5, 4), 6, 5)
_module("linear, one row", lambda: nn.Linear(2, 1), 1, 2)
_module("linear, wide", lambda: nn.Linear(256, 128), 8, 256)
_module(
    "relu network",
    lambda: nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    ),
    16,
    8,
)
_module(
    "deep relu network",
    lambda: nn.Sequential(*(m for _ in range(8) for m in (nn.Linear(16, 16), nn.ReLU()))),
    4,
    16,
)
_module("gelu network", lambda: nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)), 4, 8)
_module("prelu network", lambda: nn.Sequential(nn.Linear(6, 8), nn.PReLU(), nn.Linear(8, 2)), 5, 6)
_module("batch norm", lambda: nn.BatchNorm1d(5), 6, 5)
_module("bias before batch norm", lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5)), 6, 4)
_module("batch norm in evaluation mode", lambda: nn.BatchNorm1d(5).eval(), 6, 5)
_module(
    "convolution and batch norm",
    lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU()),
    3,
    2,
    5,
    5,
)
_module("layer norm", lambda: nn.LayerNorm(6), 4, 6)
_module("layer norm and linear", lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)), 4, 6)
_module("group norm", lambda: nn.GroupNorm(2, 4), 3, 4, 5)
_module("instance norm", lambda: nn.InstanceNorm1d(3), 2, 3, 6)
_module("rms norm", lambda: nn.RMSNorm(6), 4, 6)
_module(
    "spectral norm",
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)).eval(),
    5,
    4,
    dtypes=WIDE,
)
_module("convolution", lambda: nn.Conv2d(2, 3, 3), 2, 2, 6, 6)
_module("one-dimensional convolution", lambda: nn.Conv1d(3, 4, 3, padding=1), 2, 3, 8)
_module("transposed convolution", lambda: nn.ConvTranspose1d(3, 2, 3), 2, 3, 5)
_module("depthwise convolution", lambda: nn.Conv1d(4, 4, 3, groups=4), 2, 4, 7)
_module("max pooling", lambda: nn.MaxPool2d(2), 2, 2, 6, 6)
_module("average pooling", lambda: nn.AvgPool1d(2), 2, 3, 6)
_module("adaptive pooling", lambda: nn.AdaptiveAvgPool1d(2), 2, 3, 5)
_module(
    "convolutional network",
    lambda: nn.Sequential(
        nn.Conv1d(2, 8, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(32, 3)
    ),
    3,
    2,
    10,
)
_module("upsampling", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), 1, 2, 3, 3)
_module("lstm", lambda: nn.LSTM(4, 5, batch_first=True), 2, 5, 4, dtypes=WIDE)
_module("gru", lambda: nn.GRU(4, 5), 5, 2, 4, dtypes=WIDE)
_module("recurrent, relu", lambda: nn.RNN(4, 5, nonlinearity="relu"), 5, 2, 4, dtypes=WIDE)
_module(
    "attention",
    lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    2,
    5,
    8,
    call=lambda m, x: m(x, x, x)[0],
)
_module(
    "encoder layer",
    lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    2,
    4,
    8,
    dtypes=WIDE,
)
_module(
    "decoder layer",
    lambda: nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
    2,
    4,
    8,
    call=lambda m, x: m(x, x),
    dtypes=WIDE,
)
_module(
    "residual block",
    lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU()),
    4,
    6,
    call=lambda m, x: x + m(x),
)
_module("gated unit", lambda: nn.Sequential(nn.Linear(6, 8), nn.GLU()), 4, 6)
_module("dropout", lambda: nn.Dropout(0.5), 6, 5)
_module(
    "network with dropout",
    lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)),
    5,
    6,
)
_module("frozen weight", lambda: _frozen(nn.Linear(4, 3)), 5, 4)
_module(
    "checkpoint",
    lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)),
    5,
    4,
    call=lambda m, x: checkpoint(m, x, use_reentrant=False),
)
_module(
    "reentrant checkpoint",
    lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)),
    5,
    4,
    call=lambda m, x: checkpoint(m, x, use_reentrant=True),
)
_of(
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


_enter("embedding", _table(False))
_enter("embedding with a sparse gradient", _table(True), WIDE)
_enter("bag of embeddings", _table(False, bag=True), WIDE)


# --- Sampling, scales, complex, lower precision ----------------------------------------------------


def _sampled(mean: Tensor, scale: Tensor) -> Tensor:
    return mean + scale * torch.randn_like(mean)


_of("reparameterised normal", _sampled, (4, 3), (4, 3), draw=positive, dtypes=WIDE)
_of(
    "normal of torch.distributions",
    lambda m, s: torch.distributions.Normal(m, s).rsample(),
    (4, 3),
    (4, 3),
    draw=positive,
    dtypes=WIDE,
)
_of(
    "relaxed categorical",
    lambda x: (x - torch.log(-torch.log(0.05 + 0.9 * torch.rand_like(x)))).softmax(-1),
    (4, 5),
    dtypes=WIDE,
)
_at("logarithm over twelve decades", torch.log, [1e-6, 1e-3, 1.0, 1e6], kind="right")
_at("square root over decades", torch.sqrt, [1e-8, 1e-3, 1.0, 1e5], kind="right")
_at("tiny inputs", lambda x: (1e20 * x).tanh(), [1e-20, -3e-20, 5e-21], kind="right")
_at("huge inputs", lambda x: (1e-20 * x).tanh(), [1e20, -3e20, 5e19], kind="right")
_at("inputs at zero", lambda x: x.sin() + x.exp(), [0.0, 0.0, 0.0], kind="right")
_of("sums with cancellation", lambda x: x - x.mean(-1, keepdim=True) + (x - x), (4, 5))
_of("mixed precision inside", lambda x: x.float().sin().to(x) * 2, (4, 5), dtypes=WIDE)
_of("autocast inside", lambda x: _autocast(x), (4, 6), dtypes=WIDE)
_of("a function of autograd, right", written(torch.sin, lambda g, y, x: g * x.cos()), (4, 5))
_of(
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

    _enter(name, build, WIDE)


_complex("complex exponential and conjugate", lambda z: z.exp() * z.conj(), (3, 4))
_complex("complex modulus", torch.abs, (3, 4))
_complex("complex matrix product", torch.matmul, (3, 4), (4, 2))
_complex("complex solve", lambda A, b: torch.linalg.solve(A + 4 * torch.eye(3), b), (3, 3), (3, 2))
_complex("inverse Fourier transform", torch.fft.ifft, (3, 8))
_of("Fourier transform", torch.fft.rfft, (3, 8), dtypes=WIDE)
_of(
    "spectral filter",
    lambda x, w: torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(w), n=8),
    (3, 8),
    (5, 2),
    dtypes=WIDE,
)


# --- Points without a derivative -------------------------------------------------------------------

_at("absolute value at zero", torch.abs, [[0.0, 0.0], [0.0, 0.0]])
_at("relu at zero", torch.relu, [0.0, 1.0, -1.0])
_at("norm at zero", lambda x: x.norm(), [0.0, 0.0, 0.0])
_at("maximum of equals", lambda x: x.amax(-1), [1.0, 1.0, 0.5])
_at("sort of equals", lambda x: x.sort().values, [1.0, 1.0, 0.5])
_at("clamp at its bound", lambda x: x.clamp(-1, 1), [1.0, 0.3, -1.0])
_at("median of equals", lambda x: x.median(), [1.0, 1.0, 0.5, 2.0, 0.1])
_at("singular values of a multiple of the identity", torch.linalg.svdvals, [[2.0, 0.0], [0.0, 2.0]])
_at(
    "eigenvalues that coincide",
    lambda A: torch.linalg.eigvalsh((A + A.mT) / 2),
    [[1.0, 0.0], [0.0, 1.0]],
)
_at("hard shrinkage at its edge", F.hardshrink, [0.5, 0.7, -0.2])
_at("distance of a point to itself", lambda x: torch.cdist(x, x), [[1.0, 2.0], [0.0, 1.0]])
