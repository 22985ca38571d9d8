"""Functions and losses whose gradients are right."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .entering import right_function
from .entry import DOUBLE, WIDE, drawn, positive, regular

# --- Elementwise -----------------------------------------------------------------------------------

for _f in (
    torch.sin, torch.exp, torch.tanh, torch.sigmoid, torch.atan, torch.sinh, torch.erf, F.gelu,
    F.silu, F.softplus, F.elu, F.selu, F.celu, F.mish, F.logsigmoid, torch.relu, F.leaky_relu,
    F.hardtanh, F.hardswish, torch.abs, torch.square, F.softsign, F.tanhshrink, F.hardshrink,
):  # fmt: skip
    right_function(_f.__name__, _f, (4, 5))
for _f in (
    torch.log, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.lgamma, torch.digamma, torch.log1p,
):  # fmt: skip
    right_function(f"{_f.__name__} of positive numbers", _f, (4, 5), draw=positive)
right_function("power", lambda x, p: x**p, (3, 4), (3, 4), draw=positive)
right_function("clamp", lambda x: x.clamp(-1, 1), (8, 8))
right_function("where", lambda x: torch.where(x > 0, x.exp(), x.sin()), (5, 5))
right_function("dead relu", lambda x: torch.relu(x - 100), (4, 5))
right_function("saturated tanh", lambda x: torch.tanh(10 * x), (4, 5))
right_function("saturated softmax", lambda x: (40 * x).softmax(-1), (4, 5))
right_function("log-sum-exp of a shift", lambda x, b: (x + b).softmax(-1), (4, 5), (4, 1))
right_function("atan2", torch.atan2, (4, 5), (4, 5))

# --- Reductions, indices, shapes -------------------------------------------------------------------

right_function("sum of squares", lambda x: x.square().sum(), (4, 5))
right_function("variance", lambda x: x.var(-1), (4, 6))
right_function("standard deviation", lambda x: x.std(0), (6, 4))
right_function("norm", lambda x: x.norm(dim=-1), (4, 5))
right_function("maximum", lambda x: x.amax(-1), (4, 5))
right_function("minimum and its index", lambda x: x.min(-1), (4, 5))
right_function("sort", torch.sort, (4, 5))
right_function("top three", lambda x: x.topk(3).values, (4, 6))
right_function("median", lambda x: x.median(-1).values, (4, 5))
right_function("softmax", lambda x: x.softmax(-1), (4, 5))
right_function("log-softmax", lambda x: x.log_softmax(-1), (4, 5))
right_function("log-sum-exp", lambda x: x.logsumexp(-1), (4, 5))
right_function("cumulative sum", lambda x: x.cumsum(-1), (4, 5))
right_function("cumulative product", lambda x: x.cumprod(-1), (4, 5), dtypes=WIDE)
right_function("product", lambda x: x.prod(-1), (4, 5))
right_function("flip", lambda x: x.flip(-1), (4, 5))
right_function("roll", lambda x: x.roll(2, 0), (4, 5))
right_function("gather", lambda x: x.gather(1, torch.tensor([[0, 2], [1, 1], [3, 0]])), (3, 4))
right_function("repeated rows", lambda x: x[torch.tensor([0, 0, 2, 1])], (3, 4))
right_function(
    "scatter", lambda x: torch.zeros(5, 4).to(x).index_add(0, torch.tensor([0, 0, 3]), x), (3, 4)
)
right_function("pad", lambda x: F.pad(x, (1, 2)), (3, 4))
right_function("reflect", lambda x: F.pad(x, (1, 1), mode="reflect"), (3, 4))
right_function("several outputs", lambda x: {"a": x.sin(), "b": (x.sum(), x.mean(0))}, (3, 4))
right_function("an empty tensor beside", lambda x, e: x.sin() + e.sum(), (3, 4), (0, 4))
right_function("a scalar", lambda a: a.sin(), ())

# --- Linear algebra --------------------------------------------------------------------------------


def _definite(*shape: int, dtype: torch.dtype) -> Tensor:
    n = shape[-1]
    A = torch.randn(*shape, dtype=torch.float64) / n**0.5
    return (A @ A.mT + torch.eye(n, dtype=torch.float64)).to(dtype).requires_grad_()


right_function("matrix product", torch.matmul, (4, 5), (5, 3))
right_function("batched product", torch.bmm, (2, 3, 4), (2, 4, 3))
right_function("einsum", lambda a, b: torch.einsum("bij,bjk->bik", a, b), (2, 3, 4), (2, 4, 3))
right_function("gram matrix", lambda x: x @ x.mT, (4, 5))
right_function(
    "solve",
    torch.linalg.solve,
    (4, 4),
    (4, 2),
    draw=lambda *s, dtype: (regular if s[0] == s[1] else drawn)(*s, dtype=dtype),
    dtypes=WIDE,
)
right_function("inverse", torch.linalg.inv, (4, 4), draw=regular, dtypes=WIDE)
right_function("log-determinant", torch.logdet, (4, 4), draw=_definite, dtypes=WIDE)
right_function("determinant", torch.linalg.det, (4, 4), draw=regular, dtypes=WIDE)
right_function("singular values", torch.linalg.svdvals, (4, 3), dtypes=WIDE)
right_function(
    "eigenvalues of a symmetric matrix",
    lambda A: torch.linalg.eigvalsh(A + A.mT),
    (4, 4),
    dtypes=WIDE,
)
right_function(
    "Cholesky of a symmetrised matrix",
    lambda A: torch.linalg.cholesky((A + A.mT) / 2),
    (4, 4),
    draw=_definite,
    dtypes=WIDE,
)
right_function("QR, triangle", lambda A: torch.linalg.qr(A).R, (4, 3), dtypes=WIDE)
right_function(
    "least squares", lambda A, b: torch.linalg.lstsq(A, b).solution, (5, 3), (5, 1), dtypes=DOUBLE
)
right_function("matrix exponential", torch.linalg.matrix_exp, (3, 3), dtypes=WIDE)
right_function(
    "triangular solve",
    lambda A, b: torch.linalg.solve_triangular(A.tril(), b, upper=False),
    (4, 4),
    (4, 4),
    draw=regular,
    dtypes=WIDE,
)
right_function("Kronecker product", torch.kron, (2, 3), (3, 2))
right_function("cross product", lambda a, b: torch.linalg.cross(a, b), (4, 3), (4, 3))
# torch.cdist has a wrong backward pass under vmap (PyTorch 2.13).
right_function(
    "pairwise distances by hand",
    lambda a, b: (a[:, None] - b).norm(dim=-1),
    (4, 3),
    (5, 3),
    dtypes=WIDE,
)
# The operator of torch.nn has a wrong second derivative (PyTorch 2.13; gradgradcheck agrees).
right_function(
    "weight norm by hand",
    lambda x, v, g: x @ (g * v / v.norm(dim=1, keepdim=True)).mT,
    (5, 4),
    (3, 4),
    (3, 1),
    dtypes=WIDE,
)
right_function("cosine similarity", lambda a, b: F.cosine_similarity(a, b), (4, 5), (4, 5))
right_function("bilinear", lambda a, W, b: F.bilinear(a, b, W), (4, 3), (2, 3, 3), (4, 3))

# --- Losses ----------------------------------------------------------------------------------------

right_function("cross entropy", lambda x: F.cross_entropy(x, torch.tensor([0, 2, 1, 4])), (4, 5))
right_function("mean squared error", F.mse_loss, (4, 5), (4, 5))
right_function("absolute error", F.l1_loss, (4, 5), (4, 5))
right_function("Huber loss", F.huber_loss, (4, 5), (4, 5))
right_function(
    "binary cross entropy", lambda x, t: F.binary_cross_entropy_with_logits(x, t), (4, 5), (4, 5)
)
right_function(
    "divergence",
    lambda x, t: F.kl_div(x.log_softmax(-1), t.softmax(-1), reduction="batchmean"),
    (4, 5),
    (4, 5),
)
right_function("hinge loss", lambda x: F.relu(1 - x * x.detach().sign()).mean(), (6, 5))
