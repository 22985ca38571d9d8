"""Cells that change, harm or leave their process: their own row may suffer, that of no other."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from implicitly.studies import Store, StudyConfiguration, run

from .campaign import Trial, fault

CELLS = Path(__file__).parent / "hostile_cells.py"
# Outcomes of hostile cells other than "not solved", which all others have.
ENDS = {
    "forks-and-the-parent-leaves": "crashed",
    "leaves-a-thread-and-interrupts": "error",
    "leaves-a-thread-and-exits": "error",
    "stops-itself": "timed out",
    "ends-the-process-that-started-it": "crashed",
    "closes-all-descriptors": "crashed",
    "closes-all-descriptors-and-leaves-a-thread": "crashed",
    "opens-files-in-place-of-the-channel": "crashed",
    "opens-sockets-in-place-of-the-channel": "crashed",
    "writes-garbage-to-all-descriptors": "crashed",
    "writes-half-a-message-and-hangs": "timed out",
    "claims-a-message-of-many-bytes": "crashed",
    "replaces-the-function-of-the-problem": "false success",
    "replaces-json-and-the-clock": "crashed",
    "replaces-what-measures-it": "false success",
    "returns-a-tensor-with-methods-of-its-own": "false success",
    "raises-a-text-that-is-no-unicode": "error",
    "raises-a-long-text": "error",
    "raises-an-error-without-text": "error",
    "raises-an-error-of-its-own-kind": "error",
    "raises-an-error-that-causes-itself": "error",
    "returns-nothing": "error",
    "returns-another-thing-for-each-part": "error",
    "returns-a-lie": "false success",
}
# Cells whose answer may arrive before the harm that they do.
MAY_CRASH = ("leaves-a-thread-that-writes-to-all-descriptors",)
# In the short form: one of each family, and those that had given other cells' rows before.
SHORT = (
    "forks-and-both-come-back",
    "forks-without-python-knowing",
    "leaves-a-daemon-of-another-session",
    "leaves-a-thread-and-interrupts",
    "closes-all-descriptors-and-leaves-a-thread",
    "opens-files-in-place-of-the-channel",
    "writes-garbage-to-all-descriptors",
    "leaves-modes-on",
    "flushes-denormal-numbers",
    "replaces-the-function-of-the-problem",
    "returns-another-thing-for-each-part",
    "raises-a-text-that-is-no-unicode",
)


def labels() -> list[str]:
    """Labels of all hostile cells."""
    from implicitly.studies.catalogue import Catalogue

    module = Catalogue(str(CELLS)).module
    return list(module.ACTS)  # type: ignore[union-attr]


def _trials(folder: Path, hostile: list[str], draw: random.Random) -> Iterator[Trial]:
    every = labels()
    draw.shuffle(hostile)
    solvers = [name for act in hostile for name in (act, f"ordinary-{every.index(act)}")]
    study = StudyConfiguration(
        name="hostile", problems=("boggs",), solvers=tuple(solvers), time_limit=8.0,
        memory_limit=1024, max_evaluations=200, own=str(CELLS),
    )  # fmt: skip
    run(study, folder / "store")
    rows = Store(folder / "store").rows("hostile").set_index("solver")
    for act in hostile:
        row = rows.loc[act] if act in rows.index else None
        after = f"ordinary-{every.index(act)}"
        found = rows.loc[after, "status"] if after in rows.index else None
        expected = ENDS.get(act, "not solved")
        allowed = {expected, "crashed"} if act in MAY_CRASH else {expected}
        if row is None or row["outcome"] not in allowed:
            yield act, f"its row is {row if row is None else row['outcome']}, not {expected}"
        elif found != after:
            yield act, f"the cell after it says {found!r}"
        else:
            yield act, ""


@fault()
def some_hostile_cells(folder: Path, draw: random.Random) -> Iterator[Trial]:
    yield from _trials(folder, list(SHORT), draw)


@fault(short=False)
def all_hostile_cells(folder: Path, draw: random.Random) -> Iterator[Trial]:
    yield from _trials(folder, labels(), draw)
