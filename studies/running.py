"""Runs of studies: cells in processes, a row for every end, each row stored at once."""

from __future__ import annotations

import queue
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import joblib

from .catalogue import Catalogue
from .cell import Cell
from .configuration import StudyConfiguration, from_text, load
from .environment import environment, versions
from .errors import StoreError, StudyError
from .guard import Guard
from .row import Row
from .store import Plan, Store, now

_CAME_BACK = ("solved", "not solved", "false success")
OnRow = Callable[[Row, int, int], None]


@dataclass(frozen=True)
class Summary:
    """Summary of a run.

    Attributes:
        study: Name of the study.
        cells: Cells that it consists of.
        run: Cells run this time.
        outcomes: Cells by outcome, earlier runs included.
        said: Messages about damage that was repaired in the store.

    Examples:
        >>> Summary("tiny", 3, 1, {"solved": 3}).failed
        0
    """

    study: str
    cells: int
    run: int
    outcomes: dict[str, int]
    said: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Number of cells that ended unsolved."""
        return sum(self.outcomes.values()) - self.outcomes.get("solved", 0)


def run(
    configuration: StudyConfiguration | str | Path,
    store: Store | str | Path,
    *,
    jobs: int = 1,
    threads: int = 1,
    backend: str | None = None,
    on_row: OnRow | None = None,
) -> Summary:
    """Run every cell of a study that the store lacks.

    Each cell runs in a process, which is replaced if the cell crashes it, exceeds its time or exceeds its
    memory. Every end becomes a row. A study can be stopped at any moment; run it again to continue.

    Args:
        configuration: A `StudyConfiguration`, a YAML or Python file, or the name of a shipped study.
        store: The store of rows.
        jobs: Cells run at once; always 1 if the study takes times.
        threads: Threads of each cell.
        backend: A backend of joblib that distributes the cells, such as `"dask"` with a client; `None` for
            threads of this process, each of which waits for the process of its cell.
        on_row: Called with each stored row, the number of ended cells, and the number of all cells.

    Raises:
        StudyError: The configuration is wrong.
        StoreError: The store cannot be read, or rows were left that could not be written.

    Examples:
        >>> import tempfile
        >>> from implicitly import studies
        >>> tiny = studies.StudyConfiguration(name="tiny", problems=["boggs"], solvers=["newton"])
        >>> studies.run(tiny, tempfile.mkdtemp()).outcomes
        {'solved': 1}
    """
    settings, text = load(configuration)
    return _run(settings, text, store, jobs, threads, backend, on_row)


def resume(
    study: str,
    store: Store | str | Path,
    *,
    jobs: int = 1,
    threads: int = 1,
    backend: str | None = None,
    on_row: OnRow | None = None,
) -> Summary:
    """Run the remaining cells of a study as it was configured; arguments as for `run`.

    Raises:
        StoreError: The store has no such study.
        StudyError: The Python file that configured it has changed since.
    """
    opened = _opened(store)
    plan = opened.plan(study)
    own = plan.environment.get("own")
    if own is None:
        settings, text = from_text(plan.configuration, f"the plan of {study}"), plan.configuration
    else:
        settings, text = load(own)
        if text != plan.configuration:
            raise StudyError(f"{own} has changed since the study {study!r} was run: run it anew")
    return _run(settings, text, opened, jobs, threads, backend, on_row)


def _opened(store: Store | str | Path) -> Store:
    return store if isinstance(store, Store) else Store(store)


def _run(
    settings: StudyConfiguration,
    text: str,
    place: Store | str | Path,
    jobs: int,
    threads: int,
    backend: str | None,
    on_row: OnRow | None,
) -> Summary:
    catalogue = Catalogue(settings.own)
    cells = settings.cells(catalogue)
    # After the checks, so that a wrong configuration leaves no folder behind.
    store = _opened(place)
    said = store.repair()
    identities = [cell.identity(catalogue) for cell in cells]
    keys = [identity["key"] for identity in identities]
    known = {**environment(), "versions": versions()}
    if settings.own is not None:
        known["own"] = settings.own
    store.write_plan(Plan(settings.name, tuple(dict.fromkeys(keys)), text, known))
    done = store.outcomes(settings.name)
    left = {
        key: (cell, identity)
        for key, cell, identity in zip(keys, cells, identities, strict=True)
        if key not in done
    }
    outcomes = Counter(done.values())
    writer = _Writer(store)
    total = len(dict.fromkeys(keys))
    for row in _rows(settings.name, list(left.values()), jobs, threads, backend):
        writer.write(row)
        outcomes[row.outcome] += 1
        if on_row is not None:
            on_row(row, sum(outcomes.values()), total)
    writer.finish()
    return Summary(settings.name, total, len(left), dict(outcomes), said)


def _rows(
    study: str,
    left: list[tuple[Cell, dict[str, Any]]],
    jobs: int,
    threads: int,
    backend: str | None,
) -> Iterator[Row]:
    """Rows in the order in which their cells end."""
    if not left:
        return
    timing = any(cell.limits.repeats for cell, _ in left)
    if timing:
        # Methods are timed in turn on the same problem, so that a disturbance slows all of them.
        units = [list(group) for _, group in groupby(left, key=lambda pair: pair[0].group)]
    else:
        units = [[pair] for pair in left]
    options = {"backend": "threading"} if backend is None else {"backend": backend}
    with joblib.parallel_config(**options, n_jobs=1 if timing else jobs):
        parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
        ended = parallel(joblib.delayed(_run_unit)(study, unit, threads) for unit in units)
        try:
            for rows in ended:
                yield from rows
        finally:
            _close_guards()


def _run_unit(study: str, unit: list[tuple[Cell, dict[str, Any]]], threads: int) -> list[Row]:
    """Rows of cells that run one after the other; timed cells then run again in rounds."""
    guard = _guard(threads)
    seconds: list[list[float]] = [[] for _ in unit]
    try:
        rows = [_measured(guard, study, cell, identity) for cell, identity in unit]
        for _ in range(max(cell.limits.repeats for cell, _ in unit)):
            for place, (cell, _) in enumerate(unit):
                if rows[place]["outcome"] in _CAME_BACK:
                    ended = guard.run("time", cell)
                    if ended.how == "done":
                        seconds[place].append(ended.result)
    finally:
        _IDLE.put(guard)
    return [
        Row(
            **{
                **row,
                "seconds": median(times) if times else None,
                "seconds_repeats": tuple(times),
                "ended": now(),
            }
        )
        for row, times in zip(rows, seconds, strict=True)
    ]


def _measured(guard: Guard, study: str, cell: Cell, identity: dict[str, Any]) -> dict[str, Any]:
    started = now()
    ended = guard.run("measure", cell)
    died = {"outcome": ended.how, "exception": str(ended.result)}
    columns = ended.result if ended.how == "done" else died
    return {**identity, "study": study, **columns, "started": started}


class _Writer:
    """Writer of rows; after a failure it keeps its rows and tries again with the next one."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.kept: list[Row] = []

    def write(self, row: Row) -> None:
        self.kept.append(row)
        try:
            self.store.extend(self.kept)
        except StoreError as error:
            if len(self.kept) == 1:
                warnings.warn(f"{error}. The study goes on, and tries again.", stacklevel=2)
            return
        self.kept = []
        if self.store.journal_is_long:
            self.store.compact()

    def finish(self) -> None:
        if self.kept:
            self.store.extend(self.kept)
        self.store.compact()


# Idle processes.
_IDLE: queue.LifoQueue[Guard] = queue.LifoQueue()


def _guard(threads: int) -> Guard:
    while True:
        try:
            guard = _IDLE.get_nowait()
        except queue.Empty:
            return Guard(threads)
        if guard.threads == threads:
            return guard
        guard.close()


def _close_guards() -> None:
    while True:
        try:
            _IDLE.get_nowait().close()
        except queue.Empty:
            return
