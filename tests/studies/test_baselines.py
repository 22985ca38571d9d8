"""SciPy's methods, run by a study, solve as many classical problems as when they are called by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from implicitly import studies

# Counted once with scipy.optimize.root alone: largest entry of F at most 1e-8 within 10,000 evaluations.
# `krylov` also solves 17: a start that differs by 1e-15 decides whether it finds the root of `trigonometric`.
SOLVED = {
    "scipy:lm": 19,
    "scipy:hybr": 18,
    "scipy:anderson": 18,
    "scipy:df-sane": 18,
    "scipy:broyden1": 17,
    "scipy:broyden2": 17,
    "scipy:krylov": 16,
    "scipy:diagbroyden": 9,
    "scipy:excitingmixing": 2,
    "scipy:linearmixing": 1,
}
MINIMA = {"brown-almost-linear", "freudenstein-roth", "trigonometric"}


@pytest.mark.long
def test_scipy_solves_in_a_study_what_it_solves_alone(tmp_path: Path) -> None:
    shipped, _ = studies.load("classical")
    configuration = shipped.model_copy(
        update={"name": "baselines", "solvers": ("scipy:*",), "tolerances": (1e-8,)}
    )
    store = studies.Store(tmp_path)
    studies.run(configuration, store, jobs=2)
    rows = store.rows("baselines")
    solved = rows[rows["outcome"] == "solved"].groupby("solver").size().to_dict()
    assert set(solved) == set(SOLVED)
    assert all(
        abs(solved[name] - count) <= (name == "scipy:krylov") for name, count in SOLVED.items()
    )
    denied = rows[rows["outcome"] == "false success"]
    assert set(denied["solver"]) == {"scipy:lm"}
    assert set(denied["problem"]) == MINIMA
