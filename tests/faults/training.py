"""Training under kills and full disks, on texts that change, in folders that others use."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from implicitly.models import Equilibrium, TransformerOptions
from implicitly.models.training import (
    Adam,
    CheckpointError,
    ConfigurationError,
    CopyMemoryTask,
    StandardLibrary,
    StorageError,
    TextFolder,
    TrainingConfiguration,
    latest,
    records,
    restore,
    train,
)
from implicitly.models.training.storage import folder_of

from .campaign import NOT_TRIED, Trial, fault
from .machine import small_disk, start

RUN = TrainingConfiguration(
    title="faults",
    model=TransformerOptions(
        vocabulary=2, width=16, heads=2, memory=8, depth=Equilibrium(on_failure="accept")
    ),
    data=CopyMemoryTask(5, training=64, test=8),
    batch=4, steps=12, optimiser=Adam(rate=1e-2), validate=6, checkpoint=4, log=1,
)  # fmt: skip


def same(a: Path, b: Path) -> str:
    """Empty if two runs have the same weights to the last bit, and the same records."""
    there, here = restore(latest(a) or a), restore(latest(b) or b)
    other = [
        name for name in there.weights if not torch.equal(there.weights[name], here.weights[name])
    ]
    if there.step != here.step or other:
        return f"steps {there.step} and {here.step}, other weights {other[:2]}"
    return "" if records(a)["train loss"] == records(b)["train loss"] else "other records"


def trained(run: TrainingConfiguration, folder: Path, **options: Any) -> None:
    train(run, folder, accelerator="cpu", **options)


def strays(folder: Path) -> str:
    """Files of a run other than its two latest checkpoints and its best one; empty if there are none."""
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    numbered = [name for name in names if name.startswith("step=")]
    others = [name for name in names if name not in numbered and name != "best.ckpt"]
    return str(names) if len(numbered) > 2 or others else ""


@fault()
def the_example_of_the_documentation_is_resumed(
    folder: Path, draw: random.Random
) -> Iterator[Trial]:
    run = replace(RUN, data=StandardLibrary(characters=20_000), length=8, steps=4)
    trained(run, folder / "parts")
    trained(replace(run, steps=6), folder / "parts", resume=True)
    trained(replace(run, steps=6), folder / "whole")
    yield "to the same result", same(folder / "whole", folder / "parts")
    yield "no stray checkpoint", strays(folder / "parts")


@fault()
def a_text_that_changes_before_a_run_goes_on(folder: Path, draw: random.Random) -> Iterator[Trial]:
    texts = folder / "texts"
    texts.mkdir()
    for part in ("train", "valid", "test"):
        (texts / f"{part}.txt").write_text("abc\nabb\n" * 100)
    run = replace(RUN, data=TextFolder(str(texts)), length=8, steps=4)
    trained(run, folder / "run")
    times = (texts / "train.txt").stat()
    (texts / "train.txt").write_text("acb\nacc\n" * 100)
    os.utime(texts / "train.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    try:
        trained(replace(run, steps=8), folder / "run", resume=True)
        yield "it is noticed", "the run goes on with another text"
    except CheckpointError as error:
        yield "it is noticed", "" if "changed" in str(error) else str(error)


@fault()
def titles_that_lead_elsewhere(folder: Path, draw: random.Random) -> Iterator[Trial]:
    titles = (
        "..", ".", "../other", "/etc", "a/b", "a\\b", "a\0b", "a\nb", ".hidden", "C:x", "x" * 300,
        " space", "\u202eabc", "a/../../b",
    )  # fmt: skip
    for title in titles:
        try:
            found = folder_of(title, folder)
            yield repr(title)[:30], f"it names {found}"
        except ConfigurationError:
            yield repr(title)[:30], ""
    for title in ("copy-memory", "DEQ 3", "größe", "$a [b]"):
        found = folder_of(title, folder)
        yield title, "" if found.parent == folder else f"it names {found}"


@fault(short=False)
def a_disk_that_is_full_in_training(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """The error says so, no checkpoint is half written, and with more room the run ends as if whole."""
    model: Any = RUN.model
    run = replace(RUN, model=replace(model, width=32))
    trained(run, folder / "whole")
    size = (latest(folder / "whole") or folder).stat().st_size // 1024
    for share in (0.5, 1.4, 2.5, 3.4):
        where = f"room for {share} checkpoints"
        with small_disk(folder / f"disk{share}", f"{int(share * size) + 24}k") as disk:
            if disk is None:
                yield where, f"{NOT_TRIED}no small disk can be made here (mount)"
                return
            place, said = disk.place / "run", ""
            try:
                trained(run, place)
                said = "the disk was not full" if share < 3 else ""
            except StorageError as error:
                said = "" if "no space is left" in str(error) else str(error)
            yield f"{where}: said", said
            half = [
                path.name for path in (place / "checkpoints").glob("*.ckpt") if not _whole(path)
            ]
            yield f"{where}: none half written", str(half) if half else ""
            disk.grow("64m")
            trained(run, place, resume=True)
            yield f"{where}: goes on", same(folder / "whole", place)
            yield f"{where}: no stray checkpoint", strays(place)


def _whole(file: Path) -> bool:
    try:
        restore(file)
    except CheckpointError:
        return False
    return True


@fault()
def a_folder_in_which_another_run_trains(folder: Path, draw: random.Random) -> Iterator[Trial]:
    from implicitly.models.training.storage import held

    with held(folder / "run"):
        try:
            trained(replace(RUN, steps=1), folder / "run")
            yield "it is refused", "both train"
        except CheckpointError as error:
            yield "it is refused", "" if "another process" in str(error) else str(error)
    trained(replace(RUN, steps=1), folder / "run")
    yield "afterwards it trains", ""


@fault()
def records_that_are_cut_off(folder: Path, draw: random.Random) -> Iterator[Trial]:
    place = folder / "csv" / "version_0"
    place.mkdir(parents=True)
    content = "step,train loss\n0,2.5\n1,1.25\n"
    for cut in range(len(content) + 1):
        (place / "metrics.csv").write_text(content[:cut])
        found = records(folder).get("train loss", {})
        right = {0: 2.5, 1: 1.25}
        wrong = {step: value for step, value in found.items() if right.get(step) != value}
        yield f"after {cut} characters", f"it reads {wrong}" if wrong else ""
    for said in ("step,train loss\n0,many\n", "step,train loss\nx,1\n", "\0\n\0\n", "a,b\n1,2\n"):
        (place / "metrics.csv").write_text(said)
        try:
            records(folder)
            yield repr(said), "" if said.startswith("\0") else "it is read"
        except CheckpointError as error:
            yield repr(said), "" if "metrics.csv" in str(error) else str(error)


PROGRAM = """
import sys, dataclasses
from pathlib import Path
from faults.training import RUN, trained
trained(dataclasses.replace(RUN, steps=60), Path(sys.argv[1]), resume=sys.argv[2] == "resume")
"""


@fault(short=False)
def kills_in_training(folder: Path, draw: random.Random) -> Iterator[Trial]:
    trained(replace(RUN, steps=60), folder / "whole")
    for number in range(3):
        place = folder / f"run{number}"
        process = start(PROGRAM, place, "new")
        first = draw.choice((4, 8, 12, 16))
        while not (place / "checkpoints" / f"step={first}.ckpt").exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        trained(replace(RUN, steps=60), place, resume=True)
        yield f"kill {number}", same(folder / "whole", place)
        yield f"no stray checkpoint {number}", strays(place)
