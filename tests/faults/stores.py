"""Stores and studies under processes that open, write, edit and die at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from implicitly.studies import Row, Store, StoreError, StudyError, load, run

from .campaign import Trial, fault
from .machine import forked, start
from .rows import KNOWN


def row(number: int) -> Row:
    return Row(**{**KNOWN, "key": f"k{number}", "seed": number, "residual": number / 7})


def wrong_rows(store: Store, expected: set[str]) -> str:
    """What is wrong with the rows of a store; empty if nothing is."""
    frame = store.rows()
    lost = expected - set(frame["key"])
    wrong = int((frame["residual"] != frame["seed"] / 7).sum()) + int(
        frame["key"].duplicated().sum()
    )
    return f"{len(lost)} rows lost, {wrong} wrong or twice" if lost or wrong else ""


# --- Processes -----------------------------------------------------------------------------------


def _write(place: Path, which: int, begin: float, seed: float) -> None:
    """Use a new store in every way, with a log of the rows whose append has returned."""
    draw = random.Random(seed)
    log = os.open(place.parent / f"log{which}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while time.monotonic() < begin:
        pass
    store = Store(place)
    for i in range(30):
        store.append(row(1000 * which + i))
        os.write(log, b"k%d\n" % (1000 * which + i))
        chance = draw.random()
        if chance < 0.15:
            store.compact()
        elif chance < 0.25:
            store.rows()
        elif chance < 0.3:
            store.repair()


def _opened_at_once(folder: Path, draw: random.Random, rounds: int) -> Iterator[Trial]:
    for number in range(rounds):
        place = folder / f"{number}" / "store"
        place.parent.mkdir()
        begin = time.monotonic() + 0.3
        acts = [partial(_write, place, which, begin, draw.random()) for which in range(5)]
        processes = [forked(act) for act in acts]
        killed = draw.sample(processes, 2) if number % 2 else []
        for process in killed:
            time.sleep(draw.uniform(0.02, 0.4))
            os.kill(process, signal.SIGKILL)
        ends = {process: os.waitpid(process, 0)[1] for process in processes}
        failed = [process for process in processes if ends[process] and process not in killed]
        expected = {key for log in place.parent.glob("log*") for key in log.read_text().split()}
        store = Store(place)
        store.repair()
        store.compact()
        said = wrong_rows(store, expected)
        yield f"round {number}", said or (f"{len(failed)} processes raised" if failed else "")


@fault()
def a_new_store_opened_by_five_processes(folder: Path, draw: random.Random) -> Iterator[Trial]:
    yield from _opened_at_once(folder, draw, 2)


@fault(short=False)
def a_new_store_opened_by_five_processes_often(
    folder: Path, draw: random.Random
) -> Iterator[Trial]:
    yield from _opened_at_once(folder, draw, 25)


@fault()
def a_kill_while_a_store_is_made(folder: Path, draw: random.Random) -> Iterator[Trial]:
    for number in range(40):
        place = folder / f"{number}"
        process = forked(lambda place=place: Store(place).append(row(0)))
        time.sleep(draw.uniform(0.0, 0.006))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        left = sorted(path.name for path in place.iterdir()) if place.exists() else []
        try:
            Store(place).append(row(1))
            keys = set(Store(place).rows()["key"])
            yield f"left {left}", "" if "k1" in keys else "the row is lost"
        except StoreError as error:
            yield f"left {left}", str(error)


OWN = """
import time
from implicitly.studies.methods import Attempt
class Slow:
    family, packages = "peer", ()
    def __init__(self, label): self.label = label
    def solve(self, equation):
        with open({log!r}, "a") as file: file.write(self.label + "\\n")
        time.sleep(0.15)
        return Attempt(equation.z0, claimed=False, status="answer of " + self.label)
solvers = {{f"s{{i}}": Slow(f"s{{i}}") for i in range({cells})}}
configuration = {{"name": "s", "problems": ["boggs"], "solvers": list(solvers), "time_limit": 60}}
"""
RUN = """
import sys
from implicitly import studies
print(studies.run(sys.argv[1], sys.argv[2], on_row=lambda *seen: print("row", flush=True)).run)
"""


def _shared(folder: Path, cells: int) -> tuple[Path, Path, list[subprocess.Popen[str]]]:
    log, own = folder / "log", folder / f"own_{folder.name.replace('-', '_')}.py"
    own.write_text(OWN.format(log=str(log), cells=cells))
    return own, log, [start(RUN, own, folder / "store") for _ in range(2)]


def _rows_of_others(store: Path) -> int:
    rows = Store(store).rows("s")
    return int((rows["status"] != "answer of " + rows["solver"]).sum())


@fault(short=False)
def two_runs_of_one_study(folder: Path, draw: random.Random) -> Iterator[Trial]:
    _, log, runs = _shared(folder, 24)
    counts = [int(process.communicate()[0].split()[-1]) for process in runs]
    times = Counter(log.read_text().split())
    yield "no cell twice", "" if set(times.values()) == {1} else str(times.most_common(3))
    yield "every cell", "" if len(times) == 24 else f"{len(times)} cells"
    yield "each has a share", "" if min(counts) > 0 and sum(counts) == 24 else f"{counts}"
    wrong = _rows_of_others(folder / "store")
    yield "right rows", "" if not wrong else f"{wrong} wrong"


def _until(log: Path, count: int) -> None:
    while not log.exists() or len(log.read_text().split()) < count:
        time.sleep(0.02)


@fault(short=False)
def one_of_two_runs_is_killed(folder: Path, draw: random.Random) -> Iterator[Trial]:
    _, log, runs = _shared(folder, 24)
    _until(log, draw.randrange(4, 12))
    killed = draw.choice(runs)
    killed.kill()
    ended = [process.communicate()[0] for process in runs]
    times = Counter(log.read_text().split())
    # Only the cell that was running then may have begun twice.
    again = sum(times.values()) - 24
    yield "at most one cell again", "" if again <= 1 and len(times) == 24 else f"{times}"
    yield "the other ends", "" if any(said.split()[-1].isdigit() for said in ended) else str(ended)
    wrong = _rows_of_others(folder / "store")
    yield "right rows", "" if not wrong else f"{wrong} wrong"


@fault(short=False)
def one_of_two_runs_is_stopped(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """Its claims expire, although it lives; when it goes on, it harms nothing."""
    _, log, runs = _shared(folder, 24)
    _until(log, draw.randrange(4, 12))
    stopped, other = runs if draw.random() < 0.5 else runs[::-1]
    os.kill(stopped.pid, signal.SIGSTOP)
    said, _ = other.communicate(timeout=120)
    yield "the other ends", "" if said.split()[-1].isdigit() else said
    os.kill(stopped.pid, signal.SIGCONT)
    yield "it ends", "" if stopped.communicate(timeout=60)[0].split()[-1].isdigit() else "it fails"
    rows = Store(folder / "store").rows("s")
    yield "every row once", "" if len(rows) == 24 and rows["key"].is_unique else f"{len(rows)}"


# --- The file of a study -------------------------------------------------------------------------

EDITED = """
from implicitly.studies.methods import Attempt
class Says:
    label, family, packages = "says", "peer", ()
    def solve(self, equation): return Attempt(equation.z0, claimed=False, status="version {version}")
solvers = {{"says": Says()}}
configuration = {{"name": "edited", "problems": ["boggs"], "solvers": ["says"]}}
"""


@fault(short=False)
def a_study_file_that_is_edited(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """Its rows are those of its content, whatever its time and size are."""
    own = folder / "own_edited.py"
    times = None
    for version in (1, 2, 1):
        own.write_text(EDITED.format(version=version))
        times = times or own.stat()
        os.utime(own, ns=(times.st_atime_ns, times.st_mtime_ns))
        run(own, folder / "store")
        found = Store(folder / "store").rows("edited")["status"].tolist()
        yield f"version {version}", "" if found == [f"version {version}"] else str(found)
    settings, _ = load(own)
    own.write_text(EDITED.format(version=3))
    try:
        run(settings.model_copy(update={"name": "late"}), folder / "late")
        found = Store(folder / "late").rows("late")["status"].tolist()
        yield "edited after it was read", "" if found == ["version 3"] else str(found)
    except StudyError as error:
        yield "edited after it was read", "" if "changed" in str(error) else str(error)
