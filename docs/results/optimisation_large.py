"""Tables of `optimisation.md` for batches of quadratic programmes and for least squares of many unknowns."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import implicitly as im
import numpy as np
import scipy.optimize
import torch
from scipy import sparse
from torch import Tensor

BATCH, LOOPED = 1000, 100
SIZES = ((10, 10, 3), (10, 20, 0), (20, 40, 0), (50, 20, 5), (50, 50, 10))
D = torch.float64


class Timed(NamedTuple):
    """A result with the processor time that it took."""

    value: Any
    seconds: float


def timed(function: Callable[[], Any], times: int = 3) -> Timed:
    """The result of a call, with the least time of several."""
    seconds = []
    for _ in range(times):
        begun = time.process_time()
        value = function()
        seconds.append(time.process_time() - begun)
    return Timed(value, min(seconds))


def programmes(n: int, m: int, p: int) -> tuple[Tensor, ...]:
    """Random strictly convex programmes that zero is feasible for."""
    generator = np.random.default_rng(0)
    root = generator.standard_normal((BATCH, n, n))
    Q = root @ root.transpose(0, 2, 1) / n + 0.1 * np.eye(n)
    data = (
        Q, generator.standard_normal((BATCH, n)), generator.standard_normal((BATCH, p, n)),
        np.zeros((BATCH, p)), generator.standard_normal((BATCH, m, n)),
        0.05 + 0.5 * generator.random((BATCH, m)),
    )  # fmt: skip
    return tuple(map(torch.from_numpy, data))


def by_slsqp(Q: Any, q: Any, A: Any, b: Any, G: Any, h: Any) -> np.ndarray:
    """One programme by SciPy's SLSQP with exact derivatives."""
    constraints: list[Any] = [{"type": "ineq", "fun": lambda z: h - G @ z, "jac": lambda z: -G}]
    if len(b):
        constraints.append({"type": "eq", "fun": lambda z: A @ z - b, "jac": lambda z: A})
    found = scipy.optimize.minimize(
        lambda z: 0.5 * z @ Q @ z + q @ z, np.zeros(len(q)), jac=lambda z: Q @ z + q, method="SLSQP",
        constraints=constraints, options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    return np.asarray(found.x)


def optimality(data: tuple[Tensor, ...], found: im.ConstrainedMinimum) -> float:
    """The largest violation of a condition of optimality, which are sufficient."""
    Q, q, A, b, G, h = (part.numpy() for part in data)
    z, y, multiplier = (part.detach().numpy() for part in found)
    gradient = np.einsum("bij,bj->bi", Q, z) + q
    gradient += np.einsum("bij,bi->bj", A, y) + np.einsum("bij,bi->bj", G, multiplier)
    slack, off = h - np.einsum("bij,bj->bi", G, z), np.einsum("bij,bj->bi", A, z) - b
    parts = (gradient, off, np.minimum(slack, 0), np.minimum(multiplier, 0), slack * multiplier)
    return max(float(np.abs(part).max(initial=0.0)) for part in parts)


def programme_row(n: int, m: int, p: int) -> str:
    """A row of the table of programmes."""
    data = programmes(n, m, p)
    arrays = [part.numpy() for part in data]
    looped = timed(lambda: [by_slsqp(*(part[i] for part in arrays)) for i in range(LOOPED)])
    leaves = tuple(part.clone().requires_grad_() for part in data)
    # The first calls also load code.
    im.quadratic_programme(*(part[:2] for part in leaves)).value.z.sum().backward()
    plain = timed(lambda: im.quadratic_programme(*data))
    graph = timed(lambda: im.quadratic_programme(*leaves).value.z.square().sum().backward())
    exact = plain.value.value
    away = max(np.abs(exact.z[i].numpy() - z).max() for i, z in enumerate(looped.value))
    loop, own, both = looped.seconds / LOOPED, plain.seconds / BATCH, graph.seconds / BATCH
    return (
        f"| {n} | {m} | {p} | {1e3 * loop:.2f} | {1e3 * own:.2f} | {loop / own:.1f} | {1e3 * both:.2f} | "
        f"{loop / both:.1f} | {int(plain.value.converged.sum())} | {optimality(data, exact):.0e} | "
        f"{away:.0e} |"
    )


def programme_table() -> str:
    """The table of programmes."""
    head = (
        "| n | inequalities | equations | SLSQP, ms each | `quadratic_programme`, ms each | ratio | with "
        "gradient, ms each | ratio | solved | violation | SLSQP away |"
    )
    return "\n".join((head, "|" + "--:|" * 11, *(programme_row(*size) for size in SIZES)))


def smoothing_table(n: int = 10_000) -> str:
    """The table of a nonlinear smoothing spline."""
    generator = torch.Generator().manual_seed(0)
    t = torch.linspace(0, 1, n, dtype=D)
    y = torch.sin(12 * t) + 0.3 * torch.randn(n, generator=generator, dtype=D)
    second = sparse.diags_array([30.0, -60.0, 30.0], offsets=[0, 1, 2], shape=(n - 2, n))

    def r(z: Tensor, y: Tensor) -> Tensor:
        return torch.cat((torch.sinh(z) - y, 30.0 * z.diff(n=2)))

    def residual(z: np.ndarray) -> np.ndarray:
        return np.concatenate((np.sinh(z) - y.numpy(), second @ z))

    def jacobian(z: np.ndarray) -> Any:
        return sparse.vstack((sparse.diags_array(np.cosh(z)), second), format="csr")

    rows = [
        "| | seconds | objective above the least | largest entry of the gradient |",
        "|---|--:|--:|--:|",
    ]
    tight = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    theirs = timed(
        lambda: (
            scipy.optimize.least_squares(
                residual, np.zeros(n), jacobian, tr_solver="lsmr", x_scale="jac", **tight
            ).x
        )
    )
    runs = {'SciPy `least_squares(tr_solver="lsmr")`': theirs}
    zero = torch.zeros(n, dtype=D)
    for solver in (im.NewtonCG(), im.KrylovGaussNewton()):
        fit = partial(im.least_squares, r, zero, y, solver=solver)
        runs[f"`{type(solver).__name__}()`"] = timed(lambda fit=fit: fit().value.numpy(), 1)
    values = {title: 0.5 * float((residual(run.value) ** 2).sum()) for title, run in runs.items()}
    for title, run in runs.items():
        gradient = np.abs(jacobian(run.value).T @ residual(run.value)).max()
        above = values[title] - min(values.values())
        rows.append(f"| {title} | {run.seconds:.1f} | {above:.0e} | {gradient:.0e} |")
    return "\n".join(rows)
