"""A store of 100,000 cells or more: seconds and memory of opening it, of `status`, `resume` and the report.

The rows are drawn, in the shape of a study: 100 problems, 20 solvers, 5 tolerances and 10 seeds, with
histories of the residual. Each command runs in a process of its own, so that starting Python and importing
count; the seconds are the smallest of three, the memory is the highest resident size.

`resume` is that of a study in which all cells have ended: its cells are expanded, and found in the store.

Run with `python benchmarks/large_study.py [SEEDS]`; 10 seeds make 100,000 cells, 100 a million.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from implicitly.studies import Row, Store, StudyConfiguration
from implicitly.studies.catalogue import Catalogue
from implicitly.studies.configuration import as_text
from implicitly.studies.store import Plan
from rich.console import Console
from rich.table import Table

PROBLEMS, SOLVERS, TOLERANCES, BATCH = 100, 20, 5, 5000
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
CELLS = PROBLEMS * SOLVERS * TOLERANCES * SEEDS
ROUNDS = 3 if SEEDS <= 10 else 1
RESUMED = ("newton", "anderson", "broyden", "df-sane", "levenberg-marquardt")
FAMILIES = ("native", "scipy", "adapter", "peer")


def drawn() -> Iterator[Row]:
    generator = np.random.default_rng(0)
    hardness = generator.lognormal(0.0, 1.0, PROBLEMS)
    skill = generator.lognormal(0.0, 0.5, SOLVERS)
    cells = itertools.product(range(PROBLEMS), range(SOLVERS), range(TOLERANCES), range(SEEDS))
    for problem, solver, tolerance, seed in cells:
        target = 10.0 ** (-2 * tolerance - 2)
        work = hardness[problem] * skill[solver] * generator.lognormal(0.0, 0.3)
        evaluations = int(3 + 5 * (tolerance + 1) * work)
        solved = evaluations < 100
        steps = np.unique(np.linspace(1, evaluations, 12).astype(int))
        residuals = np.geomspace(1.0, target if solved else 0.1, len(steps))
        yield Row(
            f"{problem}-{solver}-{tolerance}-{seed}", "large", f"problem-{problem}", "{}", 2 + problem, 1,
            "root", ("drawn",), f"Solver{solver}()", FAMILIES[solver % 4], None, None, target, seed,
            "float64", "cpu", '{"python": "3.11.7", "torch": "2.13.0"}', "solved" if solved else "not solved",
            status="SUCCESS" if solved else "MAX_STEPS", residual=float(residuals[-1]),
            residual_start=1.0, target=target, evaluations=evaluations, jvps=2 * evaluations, vjps=0,
            linear_iterations=0, steps=evaluations, history_evaluations=tuple(map(int, steps)),
            history_residual=tuple(map(float, residuals)), peak_memory=0,
            started="2026-01-01T00:00:00.000+00:00", ended="2026-01-01T00:00:01.000+00:00",
        )  # fmt: skip


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and highest resident MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    print(f"{time.perf_counter() - start:.1f} s", *command[:4], file=sys.stderr)
    return time.perf_counter() - start, usage.ru_maxrss / 2**10


def make(place: str) -> float:
    """Fill a store; the seconds that appending took."""
    store = Store(place)
    rows, keys, seconds = drawn(), [], 0.0
    while batch := list(itertools.islice(rows, BATCH)):
        keys += [row.key for row in batch]
        start = time.perf_counter()
        store.extend(batch)
        store.compact()
        seconds += time.perf_counter() - start
    store.write_plan(Plan("large", tuple(keys), f"drawn: {CELLS:,}"))
    return seconds


def make_ended(place: str) -> None:
    """Fill a store with rows for all cells of a study that can be resumed."""
    seeds = CELLS // (23 * len(RESUMED) * 4)
    study = StudyConfiguration(
        name="ended", problems=("tag:classical",), solvers=RESUMED,
        tolerances=(1e-4, 1e-6, 1e-8, 1e-10), seeds=tuple(range(seeds)),
    )  # fmt: skip
    catalogue, store = Catalogue(), Store(place)
    identities = [cell.identity(catalogue) for cell in study.cells(catalogue)]
    for batch in range(0, len(identities), BATCH):
        part = identities[batch : batch + BATCH]
        store.extend([Row(**one, study="ended", outcome="solved") for one in part])
        store.compact()
    keys = tuple(one["key"] for one in identities)
    store.write_plan(Plan("ended", keys, as_text(study)))


def main() -> None:
    table = Table(title=f"A store of {CELLS:,} cells")
    for column in ("what", "seconds", "MiB"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "store")
        # In another process: a process starts with the memory of the one that starts it.
        with ProcessPoolExecutor(1) as pool:
            seconds = pool.submit(make, place).result()
            pool.submit(make_ended, f"{place}-ended").result()
        table.add_row(f"append, {BATCH:,} rows at a time", f"{seconds:.1f}", "")
        opened = f"from implicitly.studies import Store; Store({place!r}).rows('large')"
        study = [sys.executable, "-c", "from implicitly.cli import main; main()", "study"]
        report = [*study, "report", "large", "--store", place, "-o", str(Path(folder) / "report")]
        for name, command in {
            "rows of the study": [sys.executable, "-c", opened],
            "implicitly study status": [*study, "status", "--store", place],
            "implicitly study resume, nothing left": [
                *study,
                "resume",
                "ended",
                "--store",
                f"{place}-ended",
            ],
            "implicitly study report, the page": [*report, "-f", "html"],
            "implicitly study report, everything": report,
        }.items():
            rounds = [measured(command) for _ in range(ROUNDS)]
            table.add_row(
                name, f"{min(s for s, _ in rounds):.1f}", f"{max(m for _, m in rounds):.0f}"
            )
        page = Path(folder) / "report" / "report.html"
        table.add_row("the page's size", "", f"{page.stat().st_size / 2**20:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
