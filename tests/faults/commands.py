"""Commands with names that look like markup, and commands that are told to stop."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from implicitly import studies
from implicitly.cli.app import app
from implicitly.models.training import train
from implicitly.models.training.configuration import as_text
from typer.testing import CliRunner

from .campaign import Trial, fault
from .machine import COMMAND, start
from .training import RUN

NAMES = (
    "[red]x[/red]",
    "[/]",
    "a$b_c$",
    ":warning: x",
    "100% {0} {}",
    "a b'c\"",
    "~ & # |",
    "größe ⊗",
)
STUDY = """
name: small
problems: [boggs]
solvers: [newton, "scipy:hybr"]
"""
LABELS = """
from implicitly import Newton
from implicitly.studies.methods import Attempt, Native
class Named:
    family, packages = "peer", ()
    def __init__(self, label): self.label = label
    def solve(self, equation): return Native(Newton()).solve(equation)
names = {names!r}
solvers = {{f"s{{i}}": Named(name) for i, name in enumerate([*names, "$\\\\frac$", "</script><b>"])}}
configuration = {{"name": "labels", "problems": ["boggs"], "solvers": list(solvers),
                 "description": "[bold]$x$ :smile: </script>"}}
"""


def called(*arguments: object) -> tuple[int, str]:
    """Exit status and output of a command, without its ends of lines."""
    result = CliRunner().invoke(
        app, [str(argument) for argument in arguments], env={"COLUMNS": "300"}
    )
    return result.exit_code, result.output


def _checked(what: str, ended: tuple[int, str], *parts: object, status: int = 0) -> Trial:
    code, output = ended
    missing = [str(part) for part in parts if str(part) not in output]
    wrong = code != status or "Traceback" in output
    return what, f"status {code}, without {missing}: {output[-300:]!r}" if wrong or missing else ""


@fault(short=False)
def output_paths_that_look_like_markup(folder: Path, draw: random.Random) -> Iterator[Trial]:
    (folder / "small.yaml").write_text(STUDY)
    first = studies.Store(folder / "first")
    studies.run(folder / "small.yaml", first)
    for name in NAMES:
        place = folder / name.replace("/", "-")
        (folder / "first").rename(place)
        small = called("study", "run", folder / "small.yaml", "--store", place)
        yield _checked(f"run, {name}", small, "0 cells run now, 2 in all")
        report = called(
            "study", "report", "small", "--store", place, "-o", place / "out", "-f", "md"
        )
        yield _checked(f"report, {name}", report, f"files in {place / 'out'}, first {place}")
        export = called("study", "export", "small", place / "rows.csv", "--store", place)
        yield _checked(f"export, {name}", export, f"2 rows in {place / 'rows.csv'}")
        missing = called("study", "resume", f"no {name}".replace("/", "-"), "--store", place)
        yield _checked(f"a study that is not there, {name}", missing, "has no study", status=2)
        (place / "out").rename(folder / f"out{NAMES.index(name)}")
        (place / "rows.csv").unlink()
        place.rename(folder / "first")


@fault(short=False)
def names_of_solvers_that_look_like_markup(folder: Path, draw: random.Random) -> Iterator[Trial]:
    own = folder / "own_labels.py"
    own.write_text(LABELS.format(names=NAMES))
    store = folder / "store"
    yield _checked("run", called("study", "run", own, "--store", store), "10 cells run now")
    yield _checked("status", called("study", "status", "--store", store), "labels")
    formats = [part for name in ("html", "md", "csv", "tex", "svg") for part in ("-f", name)]
    report = called("study", "report", "labels", "--store", store, "-o", folder / "out", *formats)
    yield _checked("report", report, "files in")
    drawn = "".join(file.read_text() for file in (folder / "out" / "figures").glob("*.svg"))
    yield "dollars are drawn", "" if drawn else "nothing is drawn"
    page = (folder / "out" / "report.html").read_text()
    yield "the page stays closed", "" if "</script><b>" not in page else "a label ends its script"
    compared = called("study", "compare", "labels", "labels", "--store", store)
    yield _checked("compare", compared, "10 cells ended in both")


@fault()
def runs_whose_names_look_like_markup(folder: Path, draw: random.Random) -> Iterator[Trial]:
    from dataclasses import replace

    for name in ("[red]x[", "a$b$ :x:"):
        place = folder / name
        run = replace(RUN, title=name, steps=2, validate=2, checkpoint=2)
        train(run, place, accelerator="cpu")
        evaluated = called("evaluate", place, "--limit", "2")
        yield _checked(f"evaluate, {name}", evaluated, f"{name}, 2 steps")
        (folder / "run.yaml").write_text(as_text(replace(run, steps=3)))
        trained = called(
            "train", folder / "run.yaml", "-o", place, "--resume", "--accelerator", "cpu"
        )
        yield _checked(f"train, {name}", trained, f"3 steps in {place}")
        again = called("train", folder / "run.yaml", "-o", place)
        yield _checked(f"train again, {name}", again, str(place), status=2)
    (folder / "run.yaml").write_text(as_text(replace(RUN, title="../../elsewhere")))
    away = called("train", folder / "run.yaml")
    yield _checked("a title that leads elsewhere", away, "cannot name a folder", status=2)


SLEEPS = """
import time
from implicitly.studies.methods import Attempt
class Sleeps:
    family, packages = "peer", ()
    def __init__(self, label): self.label = label
    def solve(self, equation):
        open({mark!r}, "w").close()
        time.sleep(30)
        return Attempt(equation.z0, claimed=False, status="s")
solvers = {{f"s{{i}}": Sleeps(f"s{{i}}") for i in range(4)}}
configuration = {{"name": "s", "problems": ["boggs"], "solvers": list(solvers)}}
"""


def _stopped(what: str, process: subprocess.Popen[str], number: int, says: str) -> Iterator[Trial]:
    """A command that is told to stop ends with 130, in words, and leaves no process behind."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    name = signal.Signals(number).name
    right = process.returncode == 130 and says in output and "Traceback" not in errors
    said = f"status {process.returncode}: {output[-200:]!r} {errors[-200:]!r}"
    yield f"{what}, {name}", "" if right else said
    _, alive = psutil.wait_procs(children, timeout=10)
    yield f"{what}, {name}: no process is left", str(alive) if alive else ""


def _wait_for(mark: Path) -> None:
    while not mark.exists():
        time.sleep(0.02)


def _study(folder: Path, number: int) -> Iterator[Trial]:
    mark, own = folder / f"mark{number}", folder / f"own_sleeps{number}.py"
    own.write_text(SLEEPS.format(mark=str(mark)))
    process = start(COMMAND, "study", "run", own, "--store", folder / f"store{number}")
    _wait_for(mark)
    yield from _stopped("a study", process, number, "Stopped")


@fault(short=False)
def a_study_that_is_told_to_stop(folder: Path, draw: random.Random) -> Iterator[Trial]:
    yield from _study(folder, signal.SIGTERM)


@fault(short=False)
def commands_that_are_told_to_stop(folder: Path, draw: random.Random) -> Iterator[Trial]:
    yield from _study(folder, signal.SIGINT)
    yield from _study(folder, signal.SIGHUP)
    for number in (signal.SIGINT, signal.SIGTERM):
        place, file = folder / f"run{number}", folder / "run.yaml"
        file.write_text(as_text(RUN).replace("steps: 12", "steps: 5000"))
        process = start(COMMAND, "train", file, "-o", place, "--accelerator", "cpu")
        _wait_for(place / "checkpoints" / "step=4.ckpt")
        yield from _stopped("a run", process, number, "--resume")


@fault(short=False)
def a_study_whose_command_is_killed(folder: Path, draw: random.Random) -> Iterator[Trial]:
    """Its processes end by themselves."""
    mark, own = folder / "mark", folder / "own_killed.py"
    own.write_text(SLEEPS.format(mark=str(mark)))
    process = start(COMMAND, "study", "run", own, "--store", folder / "store")
    _wait_for(mark)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=10)
    yield "no process is left", str(alive) if alive else ""
