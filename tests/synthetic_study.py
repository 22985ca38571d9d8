"""Rows of an invented study, as a store would give them."""

import json

import numpy as np
import pandas as pd
from implicitly.studies import COLUMNS

FAMILIES = ("native",) * 6 + ("scipy",) * 3 + ("adapter", "peer")

# Columns in which all rows agree.
ALIKE = {
    "study": "invented",
    "problem_options": "{}",
    "systems": 1,
    "form": "root",
    "adjoint_solver": None,
    "device": "cpu",
    "versions": json.dumps({"implicitly": "0.1.0", "torch": "2.13.0"}),
    "status": None,
    "residual_start": 10.0,
    "distance": np.nan,
    "root": np.nan,
    "vjps": np.nan,
    "linear_iterations": np.nan,
    "peak_memory": np.nan,
    "started": "2026-01-01T00:00:00+00:00",
    "ended": "2026-01-01T00:00:01+00:00",
}


def rows(
    problems=23,
    solvers=11,
    tolerances=(1e-4, 1e-6, 1e-8),
    dtypes=("float64",),
    seeds=(0,),
    history=12,
    gradients=False,
    seed=0,
):
    """Solvers of different skill on problems of different difficulty, quickly for any number of rows."""
    draw = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product(
        (range(problems), range(solvers), tolerances, dtypes, seeds),
        names=("p", "s", "tolerance", "dtype", "seed"),
    ).to_frame(index=False)
    count = len(grid)
    p, s = grid["p"].to_numpy(), grid["s"].to_numpy()
    tolerance = grid["tolerance"].to_numpy()
    rate = draw.uniform(0.3, 3, solvers)[s] * draw.uniform(0.2, 1.5, problems)[p]
    digits = -np.log10(tolerance)
    evaluations = np.ceil(3 + 4 * digits / rate * draw.uniform(0.8, 1.2, count)).astype(int)
    solved = draw.uniform(0, 1, count) < np.clip(0.25 + 0.5 * rate, 0, 0.97)
    failure = draw.choice(
        ("not solved", "false success", "timed out", "crashed", "out of memory", "error"),
        size=count,
        p=(0.7, 0.08, 0.1, 0.03, 0.02, 0.07),
    )
    outcome = np.where(solved, "solved", failure)
    residual = np.where(solved, tolerance * draw.uniform(0.01, 1, count), 10 ** draw.uniform(-2, 2))
    lost = np.isin(outcome, ("timed out", "crashed", "out of memory"))
    steps = np.linspace(0, 1, history)
    path = np.log10(np.where(solved, residual, 1e-2))[:, None] * steps + 1
    frame = pd.DataFrame(
        {
            "key": [f"{k:x}" for k in range(count)],
            "problem": np.char.add("problem-", np.char.zfill(p.astype(str), 2)),
            "dimension": 2 + p % 9,
            "tags": [("classical",)] * count,
            "solver": np.char.add(np.char.add("Solver", s.astype(str)), "(memory=3)"),
            "solver_family": np.array(FAMILIES)[s % len(FAMILIES)],
            "gradient": "Exact()" if gradients else None,
            "tolerance": tolerance,
            "seed": grid["seed"],
            "dtype": grid["dtype"],
            "outcome": outcome,
            "residual_reported": np.where(lost, np.nan, residual),
            "residual": np.where(lost, np.nan, residual),
            "target": tolerance,
            "evaluations": np.where(lost, np.nan, evaluations),
            "jvps": np.where(s % 2 == 0, evaluations * 2.0, np.nan),
            "steps": np.where(lost, np.nan, evaluations),
            "seconds": np.where(lost, np.nan, evaluations * 1e-4 * (1 + s)),
            "seconds_repeats": [()] * count,
            "history_evaluations": list(np.ceil(1 + evaluations[:, None] * steps).astype(np.int64)),
            "history_residual": list(10**path),
            "gradient_error": tolerance * 3 if gradients else np.nan,
            "exception": np.where(
                outcome == "error",
                np.char.add("ValueError: <script>alert('x')</script> & got ", p.astype(str)),
                None,
            ),
        }
    )
    return frame.assign(**ALIKE)[list(COLUMNS)]
