"""Solves and gradients beside a loop written by hand, TorchDEQ, JAX, JAXopt and Optimistix, in one process.

Every contender solves `z = f(z, x)` to a relative residual of 1e-6 in each system, and differentiates the sum
of squares of the solution in the input and in the weights. Calls are interleaved, on one core, and the residual of
every answer is evaluated again in float64: a contender that stops earlier is shown with what it has reached. Libraries that
are not installed are left out.

Run from the root: python benchmarks/side_by_side.py [--cases tanh-64x1 ...] [--rounds 30] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})

import numpy as np
import torch
from implicitly import (
    Anderson,
    Broyden,
    Compiled,
    Exact,
    FixedPointIteration,
    ImplicitLayer,
    NeumannSeries,
    Newton,
    Solver,
    root,
)
from torch import Tensor, nn

TOLERANCE = 1e-6
# A call is repeated until a round has lasted so many seconds.
ROUND = 0.004


class Tanh(nn.Module):
    """`tanh(W z + x)` with all singular values of `W` alike."""

    def __init__(self, size: int, rate: float) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size), gain=rate))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ self.W.mT + x)


class MLP(nn.Module):
    """Two layers, the wider of which is inside."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.A = nn.Parameter(nn.init.orthogonal_(torch.empty(2 * size, size), gain=0.7))
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(size, 2 * size), gain=0.7))

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.relu(z @ self.A.mT + 0.1) @ self.W.mT + x)


class Attention(nn.Module):
    """One head over the unknowns of a sequence, with a residual of the input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(3 * size, size), gain=0.5))
        self.A = nn.Parameter(nn.init.orthogonal_(torch.empty(size, size), gain=0.5))
        self.size = size

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        q, k, v = (z @ self.W.mT).split(self.size, dim=-1)
        weights = torch.softmax(q @ k.mT / self.size**0.5, dim=-1)
        return torch.tanh((weights @ v) @ self.A.mT + x)


@dataclass(frozen=True)
class Case:
    """A cell with an input; the first axis of the input indexes systems."""

    name: str
    cell: nn.Module
    x: Tensor
    jax: Callable[[Any, Any, Any, Any], Any] | None


@dataclass(frozen=True)
class Contender:
    """A name, a solve, and a solve with gradients; each returns the solution as a tensor or array."""

    name: str
    solve: Callable[[], Any]
    gradient: Callable[[], Any] | None


def weights_of(cell: nn.Module) -> list[Tensor]:
    return list(cell.parameters())


def by_hand(case: Case) -> Contender:
    """A loop written by hand: one evaluation a step, plain iteration in both passes."""
    cell, x = case.cell, case.x
    leaf = x.clone().requires_grad_()

    def norms(rows: Tensor) -> Tensor:
        return torch.linalg.vector_norm(rows.flatten(1), dim=1)

    def solve() -> Tensor:
        with torch.no_grad():
            z = torch.zeros_like(x)
            while True:
                following = cell(z, x)
                if bool((norms(following - z) <= TOLERANCE * norms(z)).all()):
                    return z
                z = following

    def gradient() -> Tensor:
        z = solve().requires_grad_()
        value = cell(z, leaf)
        right = 2 * z.detach()
        u = right
        while True:
            (product,) = torch.autograd.grad(value, z, u, retain_graph=True)
            following = product + right
            if bool((norms(following - u) <= TOLERANCE * norms(right)).all()):
                break
            u = following
        torch.autograd.grad(value, [leaf, *weights_of(cell)], u)
        return z

    return Contender("by hand", solve, gradient)


def ours(name: str, case: Case, solver: Solver | None, adjoint: Solver | None) -> Contender:
    layer = ImplicitLayer(
        case.cell, solver=solver, gradient=None if adjoint is None else Exact(solver=adjoint)
    )
    leaf = case.x.clone().requires_grad_()

    def solve() -> Tensor:
        with torch.no_grad():
            value: Tensor = layer(case.x)
            return value

    def gradient() -> Tensor:
        z: Tensor = layer(leaf)
        torch.autograd.grad(z.square().sum(), [leaf, *weights_of(case.cell)])
        return z

    return Contender(name, solve, gradient)


def torchdeq(case: Case) -> Contender:
    from torchdeq import get_deq

    deq = get_deq(
        f_solver="fixed_point_iter", f_max_iter=200, f_tol=TOLERANCE, b_solver="fixed_point_iter",
        b_max_iter=200, b_tol=TOLERANCE, ift=True,
    )  # fmt: skip
    leaf = case.x.clone().requires_grad_()

    def solve() -> Tensor:
        with torch.no_grad():
            return deq(lambda z: case.cell(z, case.x), torch.zeros_like(case.x))[0][-1]

    def gradient() -> Tensor:
        z = deq(lambda z: case.cell(z, leaf), torch.zeros_like(case.x))[0][-1]
        torch.autograd.grad(z.square().sum(), [leaf, *weights_of(case.cell)])
        return z

    return Contender("TorchDEQ, plain", solve, gradient)


def jax_loop(case: Case) -> Contender:
    """`lax.while_loop` in both passes, with a tolerance for each system, under `jit`."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    f, x = case.jax, jnp.asarray(case.x.numpy())
    weights = [jnp.asarray(w.detach().numpy()) for w in weights_of(case.cell)]
    assert f is not None

    def norms(rows: Any) -> Any:
        return jnp.linalg.norm(rows.reshape(rows.shape[0], -1), axis=1)

    def iterate(g: Any, start: Any, size: Any) -> Any:
        def goes_on(carry: Any) -> Any:
            z, following, _ = carry
            return jnp.any(norms(following - z) > TOLERANCE * size(z))

        def body(carry: Any) -> Any:
            _, z, step = carry
            return z, g(z), step + 1

        return lax.while_loop(goes_on, body, (start, g(start), 0))[0]

    @jax.custom_vjp
    def fixed(weights: Any, x: Any) -> Any:
        return iterate(lambda z: f(z, x, weights, jnp), jnp.zeros_like(x), norms)

    def forward(weights: Any, x: Any) -> Any:
        z = fixed(weights, x)
        return z, (weights, x, z)

    def backward(saved: Any, cotangent: Any) -> Any:
        weights, x, z = saved
        pull = jax.vjp(lambda z: f(z, x, weights, jnp), z)[1]
        size = norms(cotangent)
        u = iterate(lambda u: pull(u)[0] + cotangent, cotangent, lambda _: size)
        return jax.vjp(lambda w, x: f(z, x, w, jnp), weights, x)[1](u)

    fixed.defvjp(forward, backward)
    solve = jax.jit(fixed)
    gradient = jax.jit(
        jax.value_and_grad(lambda w, x: (jnp.sum((z := fixed(w, x)) ** 2), z), (0, 1), has_aux=True)
    )

    def solved() -> Any:
        return jax.block_until_ready(solve(weights, x))

    def differentiated() -> Any:
        return jax.block_until_ready(gradient(weights, x))[0][1]

    return Contender("JAX, while_loop", solved, differentiated)


def jaxopt(case: Case) -> Contender:
    import jax
    import jax.numpy as jnp
    from jaxopt import FixedPointIteration as Plain
    from jaxopt import linear_solve

    f, x = case.jax, jnp.asarray(case.x.numpy())
    weights = [jnp.asarray(w.detach().numpy()) for w in weights_of(case.cell)]
    assert f is not None
    # Its tolerance is on the norm of the whole batch, and absolute.
    tolerance = TOLERANCE * float(np.linalg.norm(case.x.numpy()))
    plain = Plain(
        lambda z, w, x: f(z, x, w, jnp), maxiter=500, tol=tolerance, implicit_diff=True,
        implicit_diff_solve=linear_solve.solve_bicgstab,
    )  # fmt: skip

    def fixed(weights: Any, x: Any) -> Any:
        return plain.run(jnp.zeros_like(x), weights, x).params

    solve = jax.jit(fixed)
    gradient = jax.jit(
        jax.value_and_grad(lambda w, x: (jnp.sum((z := fixed(w, x)) ** 2), z), (0, 1), has_aux=True)
    )
    return Contender(
        "JAXopt, BiCGStab",
        lambda: jax.block_until_ready(solve(weights, x)),
        lambda: jax.block_until_ready(gradient(weights, x))[0][1],
    )


def optimistix(case: Case) -> Contender:
    import jax
    import jax.numpy as jnp
    import optimistix as optx

    f, x = case.jax, jnp.asarray(case.x.numpy())
    weights = [jnp.asarray(w.detach().numpy()) for w in weights_of(case.cell)]
    assert f is not None
    solver = optx.FixedPointIteration(rtol=TOLERANCE, atol=TOLERANCE)

    def fixed(weights: Any, x: Any) -> Any:
        return optx.fixed_point(
            lambda z, args: f(z, args[1], args[0], jnp),
            solver,
            jnp.zeros_like(x),
            (weights, x),
            max_steps=500,
        ).value

    solve = jax.jit(fixed)
    gradient = jax.jit(
        jax.value_and_grad(lambda w, x: (jnp.sum((z := fixed(w, x)) ** 2), z), (0, 1), has_aux=True)
    )
    small = case.x.numel() <= 256  # Its adjoint forms the matrix of the whole batch.
    return Contender(
        "Optimistix",
        lambda: jax.block_until_ready(solve(weights, x)),
        (lambda: jax.block_until_ready(gradient(weights, x))[0][1]) if small else None,
    )


def jax_tanh(z: Any, x: Any, weights: Any, xp: Any) -> Any:
    return xp.tanh(z @ weights[0].T + x)


def jax_mlp(z: Any, x: Any, weights: Any, xp: Any) -> Any:
    return xp.tanh(xp.maximum(z @ weights[0].T + 0.1, 0.0) @ weights[1].T + x)


def jax_attention(z: Any, x: Any, weights: Any, xp: Any) -> Any:
    import jax

    q, k, v = xp.split(z @ weights[0].T, 3, axis=-1)
    scores = q @ xp.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5
    return xp.tanh((jax.nn.softmax(scores, axis=-1) @ v) @ weights[1].T + x)


def cases() -> dict[str, Callable[[], Case]]:
    def tanh(batch: int, size: int, rate: float) -> Callable[[], Case]:
        name = f"tanh-{size}x{batch}" + ("" if rate == 0.5 else f"-rate-{rate}")
        return lambda: Case(name, Tanh(size, rate), torch.randn(batch, size), jax_tanh)

    found = {
        f"tanh-{size}x{batch}": tanh(batch, size, 0.5)
        for size, batch in ((64, 1), (64, 128), (512, 128))
    }
    found |= {f"tanh-64x128-rate-{rate}": tanh(128, 64, rate) for rate in (0.9, 0.99)}
    found["mlp-64x128"] = lambda: Case("mlp-64x128", MLP(64), torch.randn(128, 64), jax_mlp)
    found["attention-64x32"] = lambda: Case(
        "attention-64x32", Attention(32), torch.randn(1, 64, 32), jax_attention
    )
    return found


def contenders(case: Case) -> list[Contender]:
    plain, series = FixedPointIteration(), NeumannSeries()
    several: list[Callable[[], Contender]] = [
        lambda: by_hand(case),
        lambda: ours("default", case, None, None),
        lambda: ours("Compiled, plain and Neumann", case, Compiled(plain), Compiled(series)),
        lambda: ours(
            "Compiled, Anderson and Neumann", case, Compiled(Anderson()), Compiled(series)
        ),
        lambda: ours("Compiled, Broyden and Neumann", case, Compiled(Broyden()), Compiled(series)),
        lambda: torchdeq(case),
        lambda: jax_loop(case),
        lambda: jaxopt(case),
        lambda: optimistix(case),
    ]
    made = []
    for make in several:
        try:
            made.append(make())
        except ModuleNotFoundError as error:
            print(f"{case.name}: left out, {error}")
    return made


def reached(case: Case, answer: Any) -> float:
    """The largest relative residual of a system, in float64."""
    z = torch.from_numpy(np.array(answer if not isinstance(answer, Tensor) else answer.detach()))
    z = z.double()
    cell, x = case.cell.double(), case.x.double()
    with torch.no_grad():
        residual = (cell(z, x) - z).flatten(1)
    case.cell.float()
    size = torch.linalg.vector_norm(z.flatten(1), dim=1)
    return float((torch.linalg.vector_norm(residual, dim=1) / size).max())


def measured(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call in each round, interleaved."""
    repeats = {}
    for name, call in calls.items():
        for _ in range(3):
            call()
        start = time.perf_counter()
        call()
        repeats[name] = max(int(ROUND / (time.perf_counter() - start)), 1)
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append(1e3 * (time.perf_counter() - start) / repeats[name])
    gc.enable()
    return times


def run(case: Case, rounds: int) -> list[dict[str, Any]]:
    several = contenders(case)
    first: dict[str, float] = {}
    rows: dict[str, dict[str, Any]] = {}
    for one in several:
        start = time.perf_counter()
        answer = one.solve()
        if one.gradient is not None:
            one.gradient()
        first[one.name] = time.perf_counter() - start
        rows[one.name] = {
            "case": case.name,
            "contender": one.name,
            "residual": reached(case, answer),
        }
    for kind in ("solve", "gradient"):
        calls = {c.name: getattr(c, kind) for c in several if getattr(c, kind) is not None}
        for name, times in measured(calls, rounds).items():
            rows[name][f"{kind}_min"] = min(times)
            rows[name][f"{kind}_median"] = float(np.median(times))
    for name, row in rows.items():
        row["first_s"] = first[name]
    return list(rows.values())


def table(rows: list[dict[str, Any]]) -> str:
    hand = next(row for row in rows if row["contender"] == "by hand")
    lines = [
        f"| {rows[0]['case']} | solve, ms | of by hand | solve and gradient, ms | of by hand | residual | first, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        parts = [row["contender"]]
        for kind in ("solve", "gradient"):
            least = row.get(f"{kind}_min")
            if least is None:
                parts += ["–", "–"]
                continue
            parts.append(f"{least:.3f} ({row[f'{kind}_median']:.3f})")
            parts.append(f"{least / hand[f'{kind}_min']:.2f}")
        lines.append(
            "| " + " | ".join([*parts, f"{row['residual']:.1e}", f"{row['first_s']:.1f}"]) + " |"
        )
    return "\n".join(lines)


def small_systems(rounds: int) -> list[dict[str, Any]]:
    """Newton's method on 4096 systems of three unknowns, the arctangent pulled by its neighbours."""
    torch.manual_seed(0)
    coupling = 0.3 * torch.randn(3, 3)
    x = torch.randn(4096, 3)

    def F(z: Tensor, x: Tensor) -> Tensor:
        return z + torch.atan(z @ coupling.mT) - x

    rows = []
    solvers: dict[str, Solver] = {"Newton": Newton(), "Compiled, Newton": Compiled(Newton())}
    calls = {}
    for name, solver in solvers.items():
        calls[name] = lambda solver=solver: (
            root(F, torch.zeros_like(x), x, solver=solver, batch_dims=1).value
        )
    first = {}
    for name, call in calls.items():
        start = time.perf_counter()
        value = call()
        first[name] = time.perf_counter() - start
        error = (
            float((F(value.double(), x.double())).abs().max())
            if False
            else float(F(value, x).abs().max())
        )
        rows.append(
            {"case": "newton-3x4096", "contender": name, "residual": error, "first_s": first[name]}
        )
    for row, times in zip(rows, measured(calls, rounds).values(), strict=True):
        row["solve_min"], row["solve_median"] = min(times), float(np.median(times))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = cases()
    parser.add_argument("--cases", nargs="*", default=[*known, "newton-3x4096"])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one core; minima (medians)\n"
    )
    everything = []
    for name in options.cases:
        torch.manual_seed(0)
        if name == "newton-3x4096":
            rows = small_systems(options.rounds)
            rows[0]["gradient_min"] = None
            for row in rows:
                print(
                    f"{row['case']}: {row['contender']}: {row['solve_min']:.3f} ms ({row['solve_median']:.3f})"
                )
        else:
            rows = run(known[name](), options.rounds)
            print(table(rows), "\n", flush=True)
        everything += rows
        if options.json:
            options.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
