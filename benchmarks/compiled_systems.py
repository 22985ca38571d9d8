"""Many small systems: NumbaRoot beside JAX, Optimistix and SciPy, in one process, turn by turn.

10,000 Kepler equations with eccentricities up to 0.99 from Danby's start, and 100,000 systems of three
equations, all to residuals of 1e-12. The hand-written loops are Newton on the whole batch at once, jitted:
one until every residual is below the tolerance, one (Kepler) with a fixed number of steps that
suffices for this batch. Run with `python benchmarks/compiled_systems.py [--rounds N] [--threads N]` after
`pip install -c constraints.txt -e '.[peers]'`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numba
import numpy as np
import optimistix
import scipy.optimize
import torch
from implicitly import NumbaEquation, NumbaRoot, Solution, Stopping, root
from implicitly.solvers import Goal, Problem, solve
from rich.console import Console
from rich.table import Table

jax.config.update("jax_enable_x64", True)

TOLERANCE = 1e-12
OPTIMISTIX = "Optimistix Newton, vmap and jit"
Contestants = dict[str, Callable[[], Any]]


@numba.njit
def kepler(z: Any, p: Any, out: Any) -> None:
    out[0] = z[0] - p[1] * np.sin(z[0]) - p[0]


@numba.njit
def kepler_by_z(z: Any, p: Any, out: Any) -> None:
    out[0, 0] = 1 - p[1] * np.cos(z[0])


@numba.njit
def kepler_by_p(z: Any, p: Any, out: Any) -> None:
    out[0, 0] = -1
    out[0, 1] = -np.sin(z[0])


@numba.njit
def coupled(z: Any, p: Any, out: Any) -> None:
    out[0] = z[0] + p[0] * z[1] * z[2] - p[1]
    out[1] = z[1] + np.exp(-z[0]) - p[2]
    out[2] = z[2] * z[2] + z[0] * z[1] + z[2] - 2 * p[0]


@numba.njit
def coupled_by_z(z: Any, p: Any, out: Any) -> None:
    out[0, 0], out[0, 1], out[0, 2] = 1.0, p[0] * z[2], p[0] * z[1]
    out[1, 0], out[1, 1] = -np.exp(-z[0]), 1.0
    out[2, 0], out[2, 1], out[2, 2] = z[1], z[0], 2 * z[2] + 1


@numba.njit
def coupled_by_p(z: Any, p: Any, out: Any) -> None:
    out[0, 0], out[0, 1] = z[1] * z[2], -1.0
    out[1, 2] = -1.0
    out[2, 0] = -2.0


def ours(
    label: str, equation: NumbaEquation, z0: torch.Tensor, p: torch.Tensor
) -> tuple[Contestants, Solution]:
    """The solve as a user calls it, without the layer, and the compiled run alone; the gradient."""
    solver, stopping = NumbaRoot(), Stopping(rtol=0.0, atol=TOLERANCE)
    leaf = p.clone().requires_grad_()

    def layer() -> Solution:
        return root(equation, z0, p, solver=solver, stopping=stopping, batch_dims=1)

    def with_gradient() -> None:
        leaf.grad = None
        solution = root(equation, z0, leaf, solver=solver, stopping=stopping, batch_dims=1)
        solution.value.sum().backward()

    problem = Problem(
        lambda z: equation(z, p), "root", compiled=lambda: equation.form.at(z0.shape[:1], (p,))
    )
    residual = problem.residual(z0)
    goal = Goal.of(problem, stopping, z0, residual, max_steps=solver.default_max_steps)
    contestants = {
        f"NumbaRoot, {label}: root()": layer,
        f"NumbaRoot, {label}: solvers.solve()": lambda: solve(problem, solver, z0, stopping),
        f"NumbaRoot, {label}: compiled run alone": lambda: solver.run(problem, z0, residual, goal),
        f"NumbaRoot, {label}: root() and backward": with_gradient,
    }
    return contestants, layer()


def finished(function: Any, *arguments: Any) -> Any:
    return function(*arguments).block_until_ready()


def kepler_in_jax(z0: np.ndarray, p: np.ndarray) -> tuple[Contestants, dict[str, np.ndarray]]:
    start, mean, e = jnp.asarray(z0[:, 0]), jnp.asarray(p[:, 0]), jnp.asarray(p[:, 1])

    def move(E: Any) -> tuple[Any, Any]:
        F = E - e * jnp.sin(E) - mean
        return E - F / (1 - e * jnp.cos(E)), F

    def until(E: Any) -> Any:
        def body(state: Any) -> Any:
            E, step, _ = state
            E, F = move(E)
            return E, step + 1, jnp.max(jnp.abs(F))

        begin = (E, 0, jnp.inf)
        return jax.lax.while_loop(lambda s: (s[2] > TOLERANCE) & (s[1] < 50), body, begin)[0]

    def fixed(E: Any, steps: int) -> Any:
        return jax.lax.fori_loop(0, steps, lambda _, E: move(E)[0], E)

    newton: Any = optimistix.Newton(rtol=TOLERANCE, atol=TOLERANCE)

    def one(E: Any, mean: Any, e: Any) -> Any:
        def F(E: Any, args: Any) -> Any:
            return E - args[1] * jnp.sin(E) - args[0]

        return optimistix.root_find(F, newton, E, (mean, e), max_steps=64).value

    steps = next(
        k for k in range(1, 50) if float(jnp.max(jnp.abs(move(fixed(start, k))[1]))) <= TOLERANCE
    )
    loops = {
        "JAX, hand-written, until converged": jax.jit(until),
        f"JAX, hand-written, {steps} steps": jax.jit(lambda E: fixed(E, steps)),
    }
    batched = jax.jit(jax.vmap(one))
    answers = {name: np.asarray(loop(start)) for name, loop in loops.items()}
    contestants: Contestants = {
        name: partial(finished, loop, start) for name, loop in loops.items()
    }
    contestants[OPTIMISTIX] = partial(finished, batched, start, mean, e)
    answers[OPTIMISTIX] = np.asarray(batched(start, mean, e))
    return contestants, {name: answer[:, None] for name, answer in answers.items()}


def coupled_in_jax(z0: np.ndarray, p: np.ndarray) -> tuple[Contestants, dict[str, np.ndarray]]:
    start, parameters = jnp.asarray(z0), jnp.asarray(p)

    def F(z: Any, p: Any) -> Any:
        return jnp.stack(
            [
                z[0] + p[0] * z[1] * z[2] - p[1],
                z[1] + jnp.exp(-z[0]) - p[2],
                z[2] * z[2] + z[0] * z[1] + z[2] - 2 * p[0],
            ]
        )

    values, jacobians = jax.vmap(F), jax.vmap(jax.jacfwd(F))

    def until(z: Any) -> Any:
        def body(state: Any) -> Any:
            z, F, step = state
            move = jnp.linalg.solve(jacobians(z, parameters), F[:, :, None])[:, :, 0]
            z = z - move
            return z, values(z, parameters), step + 1

        def going(state: Any) -> Any:
            return (jnp.max(jnp.abs(state[1])) > TOLERANCE) & (state[2] < 50)

        return jax.lax.while_loop(going, body, (z, values(z, parameters), 0))[0]

    newton: Any = optimistix.Newton(rtol=TOLERANCE, atol=TOLERANCE)

    def one(z: Any, p: Any) -> Any:
        return optimistix.root_find(F, newton, z, p, max_steps=64).value

    loop, batched = jax.jit(until), jax.jit(jax.vmap(one))
    contestants: Contestants = {
        "JAX, hand-written, until converged": partial(finished, loop, start),
        OPTIMISTIX: partial(finished, batched, start, parameters),
    }
    return contestants, {name: np.asarray(run()) for name, run in contestants.items()}


def one_by_one(z0: np.ndarray, p: np.ndarray) -> np.ndarray:
    def solve_one(E: float, mean: float, e: float) -> float:
        found = scipy.optimize.root_scalar(
            lambda E: E - e * np.sin(E) - mean,
            fprime=lambda E: 1 - e * np.cos(E),
            x0=E,
            method="newton",
            xtol=TOLERANCE,
        )
        return float(found.root)

    return np.array([[solve_one(z0[i, 0], *p[i])] for i in range(len(z0))])


def turn_by_turn(contestants: Contestants, rounds: int) -> dict[str, np.ndarray]:
    """Wall-clock and processor seconds (of all threads) of each round, `(rounds, 2)`."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return {name: np.array(rows) for name, rows in times.items()}


def show(
    title: str, times: dict[str, np.ndarray], errors: dict[str, float], reference: str
) -> None:
    """Ratios are those of the least times: Optimistix over each."""
    table = Table(title=title)
    for column in ("", "ms", "processor ms", "faster", "in processor time", "‖F‖∞"):
        table.add_column(column, justify="right" if column else "left")
    slowest = times[reference].min(axis=0)
    for name, rows in times.items():
        least = rows.min(axis=0)
        ratio = slowest / least
        error = f"{errors[name]:.1e}" if name in errors else ""
        table.add_row(
            name, *(f"{1e3 * entry:.2f}" for entry in least), *(f"{r:.1f}×" for r in ratio), error
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = np.random.default_rng(0)

    batch = 10_000
    mean, e = generator.uniform(0, 2 * np.pi, batch), generator.uniform(0, 0.99, batch)
    z0 = (mean + 0.85 * e * np.sign(np.sin(mean)))[:, None]
    p = np.stack([mean, e], axis=1)
    measure(
        f"{batch} Kepler equations", kepler, (kepler_by_z, kepler_by_p), z0, p, kepler_in_jax,
        options.rounds,
    )  # fmt: skip
    few = 1000
    began = time.perf_counter()
    one_by_one(z0[:few], p[:few])
    alone = (time.perf_counter() - began) * batch / few
    print(f"scipy.optimize.root_scalar in a loop: {1e3 * alone:.0f} ms (from {few} of the systems)")

    batch = 100_000
    p = generator.uniform(0.2, 0.8, (batch, 3))
    z0 = np.full((batch, 3), 0.5)
    measure(
        f"{batch} systems of three equations", coupled, (coupled_by_z, coupled_by_p), z0, p,
        coupled_in_jax, max(options.rounds // 5, 3),
    )  # fmt: skip


def measure(
    title: str,
    function: Any,
    jacobians: Any,
    z0: np.ndarray,
    p: np.ndarray,
    in_jax: Any,
    rounds: int,
) -> None:
    n = z0.shape[1]
    variants = {
        "differences": NumbaEquation(function, n=n),
        "Jacobian": NumbaEquation(
            function, n=n, jacobian=jacobians[0], parameter_jacobian=jacobians[1]
        ),
    }
    start, parameters = torch.from_numpy(z0), torch.from_numpy(p)
    contestants, answers = in_jax(z0, p)
    for label, equation in variants.items():
        own, solution = ours(label, equation, start, parameters)
        contestants.update(own)
        answers[f"NumbaRoot, {label}: root()"] = solution.value.numpy()
    value = variants["differences"]
    errors = {
        name: float(value(torch.tensor(answer), parameters).abs().max())
        for name, answer in answers.items()
    }
    show(title, turn_by_turn(contestants, rounds), errors, OPTIMISTIX)


if __name__ == "__main__":
    main()
