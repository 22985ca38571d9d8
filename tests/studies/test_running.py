"""Studies run: every end is a row, nothing is run twice, and what is killed goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from implicitly import problems, root
from implicitly.solvers import Newton, Stopping
from implicitly.studies import (
    Row,
    Store,
    StoreError,
    StudyConfiguration,
    StudyError,
    report,
    resume,
    run,
)
from implicitly.studies import running as running_module
from implicitly.studies.guard import Guard

HERE = Path(__file__).parent
# What differs from run to run.
TIMES = ["seconds", "seconds_repeats", "peak_memory", "started", "ended"]


def tiny(name: str = "tiny", **fields: Any) -> StudyConfiguration:
    given = {"problems": ("boggs", "radial-cubic"), "solvers": ("newton", "scipy:hybr"), **fields}
    return StudyConfiguration(name=name, **given)


def test_rows_hold_what_an_independent_solve_finds(tmp_path: Path) -> None:
    ended: list[tuple[Row, int, int]] = []
    summary = run(tiny(), tmp_path, on_row=lambda *seen: ended.append(seen))
    assert summary.outcomes == {"solved": 4}
    assert [(done, of) for _, done, of in ended] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    rows = Store(tmp_path).rows("tiny").set_index(["problem", "solver"])
    row = rows.loc["boggs", "Newton()"]
    problem = problems.get("boggs")
    stopping = Stopping(rtol=0.0, atol=1e-8 / 2**0.5, max_steps=10_000, max_evaluations=10_000)
    solution = root(problem.residual, problem.start(), solver=Newton(), stopping=stopping)
    assert row["evaluations"] == solution.counts.evaluations
    assert row["jvps"] == solution.counts.jvps
    assert row["residual"] == problem.residual(solution.value).abs().max().item()
    assert row["residual_start"] == problem.residual(problem.start()).abs().max().item()
    distances = [
        (solution.value - known.value).square().mean().sqrt().item() for known in problem.roots()
    ]
    assert row["distance"] == min(distances)
    assert row["root"] == distances.index(min(distances))
    assert row["history_residual"][0] == row["residual_start"]
    # The last entry is the smallest of all, at the value returned or before.
    assert row["history_residual"][-1] <= row["residual"]
    assert (row["history_evaluations"][1:] > row["history_evaluations"][:-1]).all()
    assert row["started"] < row["ended"]


def test_whatever_a_solver_does_is_a_row_and_the_study_goes_on(tmp_path: Path) -> None:
    summary = run(HERE / "badly_behaved.py", tmp_path)
    rows = Store(tmp_path).rows("badly-behaved").set_index("solver")
    expected = {
        "exits": ("crashed", "status 7"),
        "aborts": ("crashed", "SIGABRT"),
        "hangs": ("timed out", "not done after 3 s"),
        "allocates": ("out of memory", ""),
        "allocates-at-once": ("out of memory", ""),
        "prints": ("not solved", "stopped falling"),
        "raises": ("error", "KeyError: 'no such thing'"),
        "leaves": ("error", "SystemExit"),
        "lies": ("false success", None),
        "another-shape": ("error", "returned shape"),
        "never-stops": ("not solved", None),
        "Newton()": ("solved", None),
    }
    assert list(rows.index) == list(expected)
    for solver, (outcome, words) in expected.items():
        assert rows.loc[solver, "outcome"] == outcome, solver
        if words is not None:
            assert words in rows.loc[solver, "exception"]
    assert rows.loc["never-stops", "status"] == "BUDGET_SPENT"
    assert rows.loc["lies", "residual"] > rows.loc["lies", "target"]
    assert summary.cells == summary.run == len(expected)
    again = run(HERE / "badly_behaved.py", tmp_path)
    assert again.run == 0
    assert again.outcomes == summary.outcomes


def test_studies_share_what_they_have_in_common(tmp_path: Path) -> None:
    run(tiny("first"), tmp_path)
    wider = tiny("second", solvers=("newton", "anderson"))
    assert run(wider, tmp_path).run == 2
    assert set(Store(tmp_path).rows("second")["study"]) == {"second"}
    assert len(Store(tmp_path).rows("second")) == len(Store(tmp_path).rows("first")) == 4
    assert len(Store(tmp_path).rows()) == 6


def test_times_are_repeated_in_rounds_over_the_methods(
    tmp_path: Path, shared_processes: Callable[[], None]
) -> None:
    asked: list[tuple[str, str]] = []

    class Recording(Guard):
        def run(self, what: str, cell: Any) -> Any:
            asked.append((what, cell.solver.name))
            return super().run(what, cell)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(running_module, "Guard", Recording)
        shared_processes()
        run(tiny(problems=("boggs",), repeats=3), tmp_path, jobs=4)
    names = ["newton", "scipy:hybr"]
    assert asked == [("measure", n) for n in names] + 3 * [("time", n) for n in names]
    rows = Store(tmp_path).rows()
    assert [len(times) for times in rows["seconds_repeats"]] == [3, 3]
    for _, row in rows.iterrows():
        assert row["seconds"] == sorted(row["seconds_repeats"])[1] > 0


def test_seeds_move_the_start_of_a_fixed_problem_and_draw_a_generated_one(tmp_path: Path) -> None:
    run(tiny(problems=("boggs", "contraction[n=5]"), solvers=("anderson",), seeds=(0, 1)), tmp_path)
    rows = Store(tmp_path).rows().set_index(["problem", "seed"])
    assert rows.loc["boggs", 0]["residual_start"] == 2.0  # F(1, 0) = (1 + 1, 1 − cos 0)
    assert rows.loc["boggs", 1]["residual_start"] != rows.loc["boggs", 0]["residual_start"]
    assert (
        rows.loc["contraction", 0]["residual_start"] != rows.loc["contraction", 1]["residual_start"]
    )


def test_gradients_are_measured_against_the_dense_reference(tmp_path: Path) -> None:
    settings = tiny(
        problems=("tanh-equilibrium[n=6]",), solvers=("anderson",), tolerances=(1e-10,),
        gradients=("exact", "neumann[terms=4,8]"), adjoint_solvers=("dense-lu",),
    )  # fmt: skip
    run(settings, tmp_path)
    errors = Store(tmp_path).rows().set_index("gradient")["gradient_error"]
    assert errors["Exact()"] < 1e-8  # 1e-10 over 1 − 0.9
    # The truncated series, formed by hand at the root.
    problem = problems.get("tanh-equilibrium")
    weight = problem.args(6)[0]
    z = problem.roots(6)[0].value
    jacobian = (1 - z**2)[:, None] * weight
    w = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.linalg.solve((torch.eye(6) - jacobian).mT, w)
    for terms in (4, 8):
        u, term = torch.zeros_like(w), w
        for _ in range(terms + 1):
            u, term = u + term, jacobian.mT @ term

        def gradients(adjoint: torch.Tensor) -> torch.Tensor:
            slope = (1 - z**2) * adjoint
            return torch.cat((torch.outer(slope, z).flatten(), slope))

        error = (gradients(u) - gradients(exact)).norm() / gradients(exact).norm()
        # z is right to 1e-10 over 1 − 0.9.
        assert errors[f"Neumann(terms={terms})"] == pytest.approx(error.item(), abs=1e-9)


def test_a_full_disk_is_said_and_the_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, full = Store.extend, [True, True, False, False]

    def extend(self: Store, rows: Any) -> None:
        if full.pop(0):
            raise StoreError("no space is left on the disk")
        right(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "extend", extend)
        with pytest.warns(UserWarning, match="no space is left .* The study goes on"):
            run(tiny(), tmp_path)
    assert len(Store(tmp_path).rows("tiny")) == 4
    monkeypatch.setattr(Store, "extend", lambda self, rows: extend(self, rows))
    full[:] = [True] * 9
    with (
        pytest.warns(UserWarning, match="no space is left"),
        pytest.raises(StoreError, match="no space is left"),
    ):
        run(tiny("other", tolerances=(1e-3,)), tmp_path)
    monkeypatch.undo()
    assert resume("other", tmp_path).run == 4


def test_solvers_have_the_names_that_the_file_of_a_study_gives_them(tmp_path: Path) -> None:
    file = tmp_path / "own_study.py"
    file.write_text(
        "configuration = dict(name='own', problems=['boggs'], solvers=['mine', 'newton'],"
        " gradients=['exact'])\n"
        "from implicitly import Newton\nsolvers = {'mine': Newton(refresh=2)}\n"
    )
    store = Store(tmp_path / "store")
    run(file, store)
    assert store.rows("own")["solver"].tolist() == ["mine", "Newton()"]


def test_a_file_that_has_changed_is_not_resumed(tmp_path: Path) -> None:
    file = tmp_path / "own_study.py"
    file.write_text(
        "configuration = dict(name='own', problems=['boggs'], solvers=['mine'])\n"
        "from implicitly import Newton\nsolvers = {'mine': Newton(refresh=2)}\n"
    )
    run(file, tmp_path / "store")
    assert resume("own", tmp_path / "store").run == 0
    file.write_text(file.read_text() + "# another line\n")
    with pytest.raises(StudyError, match="has changed since"):
        resume("own", tmp_path / "store")


# --- Killed and resumed ---------------------------------------------------------------------------

KILLED = """
name: killed
problems: [boggs, dennis-schnabel, radial-cubic, scalar-double, exponential-axes, chebyquad]
solvers: [newton, anderson, broyden, scipy:hybr, scipy:df-sane]
"""
PROGRAM = """
import sys
from implicitly import studies
studies.run(sys.argv[1], sys.argv[2], jobs=2, on_row=lambda *seen: print("row", flush=True))
"""


def start(file: Path, store: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file), str(store)], stdout=subprocess.PIPE, text=True
    )


def comparable(store: Path) -> pd.DataFrame:
    return Store(store).rows("killed").drop(columns=TIMES)


def page(store: Path) -> str:
    """The report of the rows, times aside."""
    rows = Store(store).rows("killed")
    rows[["seconds", "peak_memory"]] = np.nan
    rows[["started", "ended"]] = ""
    (file,) = report(rows, store.with_suffix(".report"), ("html",))
    return file.read_text()


def survives(tmp_path: Path, kills: int) -> None:
    file = tmp_path / "killed.yaml"
    file.write_text(KILLED)
    rows: list[object] = []
    run(file, tmp_path / "whole", jobs=2, on_row=lambda *seen: rows.append(seen))
    assert len(rows) == 30
    expected, expected_page = comparable(tmp_path / "whole"), page(tmp_path / "whole")
    draw = random.Random(0)
    for kill in range(kills):
        store = tmp_path / f"killed-{kill}"
        process = start(file, store)
        assert process.stdout is not None
        seen = draw.randrange(28)
        for _ in range(seen):
            process.stdout.readline()
        time.sleep(draw.uniform(0, 0.03))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        stored = len(Store(store).keys())
        # What was said to have ended is there.
        assert stored >= seen
        summary = resume("killed", store, jobs=2) if stored else run(file, store, jobs=2)
        assert summary.run == 30 - stored
        pd.testing.assert_frame_equal(comparable(store), expected)
        assert len(Store(store).rows()) == 30
        assert page(store) == expected_page


def test_a_study_that_is_killed_loses_and_repeats_nothing(tmp_path: Path) -> None:
    survives(tmp_path, 1)


@pytest.mark.long
def test_a_study_killed_at_twenty_moments_loses_and_repeats_nothing(tmp_path: Path) -> None:
    survives(tmp_path, 20)
