"""Stores and studies on full disks."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Iterator
from pathlib import Path

from implicitly.studies import Store, StoreError, StudyConfiguration, run

from .campaign import NOT_TRIED, Trial, fault
from .machine import small_disk
from .stores import row, wrong_rows


@fault()
def a_disk_that_is_full(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """Rows whose append returned are read; after room has been made the store goes on."""
    for size in (48, 64, 128):
        with small_disk(folder / f"disk{size}", f"{size}k") as disk:
            if disk is None:
                yield f"{size} kB", f"{NOT_TRIED}no small disk can be made here (mount)"
                return
            try:
                store = Store(disk.place / "store")
            except StoreError as error:
                yield f"{size} kB", "" if "no space" in str(error) else str(error)
                continue
            kept, said = set(), ""
            for number in range(400):
                try:
                    store.append(row(number))
                    kept.add(f"k{number}")
                    if draw.random() < 0.1:
                        store.compact()
                except StoreError as error:
                    said = said or str(error)
            found = wrong_rows(store, kept)
            yield f"{size} kB full", found or ("" if "no space" in said else f"said {said!r}")
            disk.grow("8m")
            store.repair()
            store.append(row(1000))
            store.compact()
            yield f"{size} kB grown", wrong_rows(Store(store.path), {*kept, "k1000"})


@fault(short=False)
def a_study_on_a_full_disk(folder: Path, draw: random.Random) -> Iterator[Trial]:
    study = StudyConfiguration(
        name="full", problems=("boggs", "wood", "radial-cubic"), seeds=tuple(range(8)),
        solvers=("newton", "anderson", "scipy:hybr"),
    )  # fmt: skip
    with small_disk(folder / "disk", "60k") as disk:
        if disk is None:
            yield "a study", f"{NOT_TRIED}no small disk can be made here (mount)"
            return
        place, said = disk.place / "store", ""
        with warnings.catch_warnings(), contextlib.suppress(StoreError):
            warnings.simplefilter("ignore")
            run(study, place)
            said = "the disk was not full"
        yield "it is said", said
        disk.grow("32m")
        run(study, place)
        run(study, folder / "whole")
        columns = ["key", "outcome", "evaluations", "residual"]
        a, b = (Store(where).rows("full", columns) for where in (place, folder / "whole"))
        yield "it goes on to the same rows", "" if a.equals(b) else "other rows"
