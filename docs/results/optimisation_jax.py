"""Minimisers of JAXopt and Optimistix on problems that `optimisation.py` has written as Python for JAX.

Needs a Python with jax, jaxopt and optimistix, and nothing of this package. `optimisation.py --jax PYTHON`
runs it as

    PYTHON docs/results/optimisation_jax.py problems.json found.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
import jax
import jax.numpy as jnp
import jaxopt
import optimistix

jax.config.update("jax_enable_x64", True)
STEPS = 5000
Run = Callable[[Any], tuple[Any, Any]]


def contestants(residual: Callable[[Any], Any]) -> dict[str, Run]:
    """Compiled minimisers of one problem, from a start to the minimiser and the steps."""

    def half(z: Any) -> Any:
        return 0.5 * (residual(z) ** 2).sum()

    def by_jaxopt(solver: Any) -> Run:
        def run(z: Any) -> tuple[Any, Any]:
            found = solver.run(z)
            return found.params, found.state.iter_num

        return run

    def by_optimistix(call: Any, function: Any, solver: Any) -> Run:
        def run(z: Any) -> tuple[Any, Any]:
            found = call(lambda z, _: function(z), solver, z, max_steps=STEPS, throw=False)
            return found.value, found.stats["num_steps"]

        return run

    tight = {"rtol": 1e-12, "atol": 1e-12}
    squares, least = optimistix.least_squares, optimistix.minimise
    marquardt = jaxopt.LevenbergMarquardt(residual_fun=residual, maxiter=STEPS, tol=1e-12)
    return {
        "JAXopt `LevenbergMarquardt`": by_jaxopt(marquardt),
        "JAXopt `LBFGS`": by_jaxopt(jaxopt.LBFGS(fun=half, maxiter=STEPS, tol=1e-10)),
        "Optimistix `LevenbergMarquardt`": by_optimistix(
            squares, residual, optimistix.LevenbergMarquardt(**tight)
        ),
        "Optimistix `Dogleg`": by_optimistix(squares, residual, optimistix.Dogleg(**tight)),
        "Optimistix `BFGS`": by_optimistix(least, half, optimistix.BFGS(**tight)),
    }


def main() -> None:
    """Write a line for each problem, start and minimiser."""
    problems, found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    with found.open("w", encoding="utf-8") as rows:
        for name, problem in problems.items():
            space: dict[str, Any] = {"jnp": jnp}
            exec(problem["source"], space)
            residual = space["residual"]
            for start, value in zip(problem["starts"], problem["values"], strict=True):
                own = residual(jnp.array(start))
                assert jnp.allclose(
                    own, jnp.array(value), rtol=1e-10, atol=1e-10, equal_nan=True
                ), name
            for title, run in contestants(residual).items():
                compiled = jax.jit(run)
                for scale, start in zip(problem["scales"], problem["starts"], strict=True):
                    z0 = jnp.array(start)
                    row = {"problem": name, "scale": scale, "solver": title}
                    try:
                        jax.block_until_ready(compiled(z0))
                        begun = time.process_time()
                        z, steps = jax.block_until_ready(compiled(z0))
                        row["seconds"] = time.process_time() - begun
                        row["z"], row["evaluations"] = z.tolist(), int(steps)
                    except Exception as error:  # A library may refuse a problem; the row says so.
                        row["z"], row["error"] = None, f"{type(error).__name__}: {error}"[:200]
                    print(json.dumps(row), file=rows, flush=True)


if __name__ == "__main__":
    main()
