"""A store of 100,000 cells or more: seconds and memory of opening it, of `status`, `resume` and the report.

The rows are drawn, in the shape of a study: 100 problems, 20 solvers, 5 tolerances and 10 seeds, with
histories of the residual. They are appended as a study does it. Further seeds are copies of these rows under
other keys, written as the Parquet files that a compaction leaves: appending row by row takes a third of a
millisecond each, a study in which a cell takes longer does not notice it, and a benchmark would.

Each command runs in a process of its own, so that starting Python and importing count; the seconds are the
smallest of three, or one measurement for more than 100,000 cells. *CPU* are those of the processor, which
other work on the machine disturbs less. The memory is the highest resident size.

`resume` is that of a study in which all cells have ended: its cells are expanded, and found in the store.

Run with `python benchmarks/large_study.py [SEEDS]`; 10 seeds make 100,000 cells, 100 a million, in some five
minutes of one core.
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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from implicitly.studies import Row, Store, StudyConfiguration
from implicitly.studies.catalogue import Catalogue
from implicitly.studies.configuration import as_text
from implicitly.studies.store import Plan, parquet
from rich.console import Console
from rich.table import Table

PROBLEMS, SOLVERS, TOLERANCES, BATCH = 100, 20, 5, 5000
SEEDS = int(sys.argv[1]) if len(sys.argv) > 1 else 10
APPENDED = 10
CELLS = PROBLEMS * SOLVERS * TOLERANCES * SEEDS
ROUNDS = 3 if SEEDS <= 10 else 1
RESUMED = ("newton", "anderson", "broyden", "df-sane", "levenberg-marquardt")
FAMILIES = ("native", "scipy", "adapter", "peer")


def drawn() -> Iterator[Row]:
    generator = np.random.default_rng(0)
    hardness = generator.lognormal(0.0, 1.0, PROBLEMS)
    skill = generator.lognormal(0.0, 0.5, SOLVERS)
    seeds = range(min(SEEDS, APPENDED))
    cells = itertools.product(range(PROBLEMS), range(SOLVERS), range(TOLERANCES), seeds)
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


def measured(command: list[str]) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, and highest resident MiB of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with {status}")
    print(f"{seconds:.1f} s", *command[:4], file=sys.stderr)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**10


def make(place: str) -> tuple[float, float]:
    """Fill a store; the seconds that appending took, and those of the processor."""
    store = Store(place)
    rows, keys, seconds, own = drawn(), [], 0.0, 0.0
    while batch := list(itertools.islice(rows, BATCH)):
        keys += [row.key for row in batch]
        start, started = time.perf_counter(), time.process_time()
        store.extend(batch)
        store.compact()
        seconds, own = seconds + time.perf_counter() - start, own + time.process_time() - started
    appended = tuple(keys)
    files = sorted(Path(place).glob("rows-*.parquet"))
    for part in range(1, SEEDS // APPENDED):
        others = [f"{key}+{part}" for key in appended]
        _copy(files, part, others, APPENDED * part)
        keys += others
    store.write_plan(Plan("large", tuple(keys), f"drawn: {CELLS:,}"))
    return seconds, own


def _copy(files: list[Path], part: int, keys: list[str], more: int) -> None:
    """Write the rows of `files` once more, under other `keys` and with seeds larger by `more`."""
    table = pa.concat_tables([parquet.read(file, None) for file in files])
    seeds = pc.add(table.column("seed"), more)
    table = _with_columns(
        table, key=pa.array(keys), seed=seeds.cast(table.schema.field("seed").type)
    )
    # The order of rows in the files is that of the keys.
    parquet.write(table, files[0].with_name(f"rows-{1000 * part:06d}.parquet"))


def _with_columns(table: pa.Table, **columns: Any) -> pa.Table:
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), values)
    return table


def make_ended(place: str) -> int:
    """Fill a store with rows for all cells of a study that can be resumed; their number."""
    seeds = CELLS // (23 * len(RESUMED) * 4)
    study = StudyConfiguration(
        name="ended", problems=("tag:classical",), solvers=RESUMED,
        tolerances=(1e-4, 1e-6, 1e-8, 1e-10), seeds=tuple(range(seeds)),
    )  # fmt: skip
    catalogue, store = Catalogue(), Store(place)
    keys: list[str] = []
    cells = (cell.identity(catalogue) for cell in study.cells(catalogue))
    for number in itertools.count(1):
        part = list(itertools.islice(cells, 20 * BATCH))
        if not part:
            break
        row = Row(**part[0], study="ended", outcome="solved")
        table = pa.concat_tables([parquet.as_table([row])] * len(part)).combine_chunks()
        own = {
            name: pa.array([one[name] for one in part], table.schema.field(name).type)
            for name in part[0]
        }
        parquet.write(_with_columns(table, **own), Path(place) / f"rows-{number:06d}.parquet")
        keys += [one["key"] for one in part]
    store.write_plan(Plan("ended", tuple(keys), as_text(study)))
    return len(keys)


def main() -> None:
    table = Table(title=f"A store of {CELLS:,} cells")
    for column in ("what", "seconds", "CPU", "MiB"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "store")
        # In another process: a process starts with the memory of the one that starts it.
        with ProcessPoolExecutor(1) as pool:
            seconds, own = pool.submit(make, place).result()
            ended = pool.submit(make_ended, f"{place}-ended").result()
        appended = f"append {CELLS // SEEDS * min(SEEDS, APPENDED):,} rows, {BATCH:,} at a time"
        table.add_row(appended, f"{seconds:.1f}", f"{own:.1f}", "")
        opened = f"from implicitly.studies import Store; Store({place!r}).rows('large')"
        study = [sys.executable, "-c", "from implicitly.cli import main; main()", "study"]
        report = [*study, "report", "large", "--store", place, "-o", str(Path(folder) / "report")]
        for name, command in {
            "rows of the study": [sys.executable, "-c", opened],
            "implicitly study status": [*study, "status", "--store", place],
            f"implicitly study resume, nothing left of {ended:,}": [
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
            wall, cpu, memory = zip(*rounds, strict=True)
            table.add_row(name, f"{min(wall):.1f}", f"{min(cpu):.1f}", f"{max(memory):.0f}")
        page = Path(folder) / "report" / "report.html"
        table.add_row("the page's size", "", "", f"{page.stat().st_size / 2**20:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
