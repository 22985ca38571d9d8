"""Runs of studies: cells in processes, a row for every end, each row stored at once."""

from __future__ import annotations

import queue
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from .catalogue import Catalogue
from .clock import Clock
from .columns import said as said_of
from .configuration import StudyConfiguration, from_text, load, text_of
from .environment import environment, versions
from .errors import GuardError, StoreError, StudyError
from .guard import Ended, Guard
from .row import Row
from .store import Plan, Store
from .work import Pair, Work

# Failures of a backend in a row, without a cell that has ended, after which the study stops.
_FAILURES = 3
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

    Each cell runs in a process, which is ended if the cell crashes it, exceeds its time or memory, or leaves
    it other than it was. Every end becomes a row. A study can be stopped at any moment; run it again to
    continue. Several runs of one study, on one store, share its cells.

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
        GuardError: No process for a cell can be started, or the backend fails again and again.

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

    If a Python file configured it, that file is run again, provided that it has not changed.

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
        if not isinstance(own, str) or Path(own).suffix != ".py":
            raise StoreError(f"the plan of {study!r} names no Python file: run the study again")
        # Read before it is run.
        if text_of(Path(own)) != plan.configuration:
            raise StudyError(f"{own} has changed since the study {study!r} was run: run it anew")
        settings, text = load(own)
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
    planned = dict(zip(keys, zip(cells, identities, strict=True), strict=True))
    writer = _Writer(store)
    run_now = 0
    with store.claims() as claims:
        work = Work(store, settings.name, claims, planned)
        for row in _rows(settings.name, work, jobs, threads, backend):
            writer.write(row)
            work.outcomes[row.key] = row.outcome
            run_now += 1
            if on_row is not None:
                on_row(row, len(work.outcomes), len(planned))
        writer.finish()
    outcomes = Counter(work.outcomes.values())
    return Summary(settings.name, len(planned), run_now, dict(outcomes), said)


def _rows(study: str, work: Work, jobs: int, threads: int, backend: str | None) -> Iterator[Row]:
    """Rows in the order in which their cells end, until no cell is left to this run or to others."""
    timing = any(cell.limits.repeats for cell, _ in work.left.values())
    options = {"backend": "threading"} if backend is None else {"backend": backend}
    failures = 0
    while work.left:
        before = len(work.left)
        with joblib.parallel_config(**options, n_jobs=1 if timing else jobs):
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1)
            units = work.units(timing)
            ended = parallel(joblib.delayed(_run_unit)(study, unit, threads) for unit in units)
            try:
                for rows in ended:
                    for row in rows:
                        work.left.pop(row.key, None)
                        yield row
            except _broken_backends() as error:
                failures = 0 if len(work.left) < before else failures + 1
                if failures == _FAILURES:
                    raise GuardError(
                        f"the backend {backend!r} failed {failures} times without ending a cell "
                        f"({said_of(error)}): every row so far is stored, resume the study"
                    ) from error
                warnings.warn(
                    f"the backend {backend!r} failed ({said_of(error)}); the cells that it had are "
                    "given out again",
                    stacklevel=2,
                )
            finally:
                _close_guards()
        if work.left:
            work.wait()


def _broken_backends() -> tuple[type[BaseException], ...]:
    """Errors of a backend whose processes have died; the cells themselves raise none."""
    found: list[type[BaseException]] = [TerminatedWorkerError]
    if "distributed" in sys.modules:
        from distributed import CancelledError
        from distributed.comm.core import CommClosedError
        from distributed.scheduler import KilledWorker

        found += [CancelledError, CommClosedError, KilledWorker]
    return tuple(found)


def _run_unit(study: str, unit: list[Pair], threads: int) -> list[Row]:
    """Rows of cells that run one after the other; timed cells then run again in rounds."""
    guard = _guard(threads)
    clocks = [Clock() for _ in unit]
    seconds: list[list[float]] = [[] for _ in unit]
    try:
        found = []
        for place, (cell, _) in enumerate(unit):
            clocks[place] = Clock()
            found.append(_columns(guard.run("measure", cell)))
        for _ in range(max(cell.limits.repeats for cell, _ in unit)):
            for place, (cell, _) in enumerate(unit):
                if found[place].get("outcome") in _CAME_BACK:
                    ended = guard.run("time", cell)
                    if ended.how == "done" and isinstance(ended.result, float):
                        seconds[place].append(ended.result)
    except BaseException:  # An interrupt may have left a task half done.
        guard.close()
        raise
    finally:
        _IDLE.put(guard)
    return [
        _row(columns, {**identity, "study": study}, clock, times)
        for columns, (_, identity), clock, times in zip(found, unit, clocks, seconds, strict=True)
    ]


def _columns(ended: Ended) -> dict[str, Any]:
    """Columns that a cell gives its row; a cell may have answered anything."""
    if ended.how == "done":
        return ended.result if isinstance(ended.result, dict) else {}
    return {"outcome": ended.how, "exception": str(ended.result)}


def _row(
    columns: dict[str, Any], identity: dict[str, Any], clock: Clock, seconds: list[float]
) -> Row:
    measured: dict[str, Any] = {
        "seconds": median(seconds) if seconds else None,
        "seconds_repeats": tuple(seconds),
        "started": clock.started,
        "ended": clock.now(),
    }
    try:
        # The identity comes last, since no answer may be that of another cell.
        return Row(**{**columns, **measured, **identity})
    except (TypeError, ValueError) as error:  # An answer without an outcome, or with other columns.
        text = f"the answer of the cell makes no row: {error}"
        return Row(**{**identity, **measured, "outcome": "crashed", "exception": text})


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
