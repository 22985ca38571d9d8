"""Fault campaign: every kind of fault, by real means, with the number tried and the number survived.

    PYTHONPATH=tests python -m faults.campaign [--short] [--seed N] [--rounds N] [--only KIND]

A fault is a function that makes trials, each with a name and, if it was not survived, what went wrong. It
gets a folder and a generator of random numbers. Signals, small disks and processes are real.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

KINDS = (
    "rows", "workers", "stores", "places", "disks", "texts", "training", "attacks", "commands",
    "endurance",
)  # fmt: skip
Trial = tuple[str, str]
"""Name of a trial, and what went wrong; empty if it was survived."""
Act = Callable[[Path, random.Random], Iterator[Trial]]
NOT_TRIED = "not tried: "


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        name: Its name.
        kind: One of `KINDS`.
        act: Makes its trials.
        short: True if it belongs to the short form.
    """

    name: str
    kind: str
    act: Act
    short: bool

    def trials(self, folder: Path, seed: int) -> list[Trial]:
        """All trials; an exception of the fault itself is one that was not survived."""
        found: list[Trial] = []
        try:
            for trial in self.act(folder, random.Random(f"{self.name}-{seed}")):
                found.append(trial)
        except Exception as error:
            found.append((self.name, f"{type(error).__name__}: {error}"))
        return found


FAULTS: list[Fault] = []


def fault(*, short: bool = True) -> Callable[[Act], Act]:
    """Register a fault of the module that defines it."""

    def registered(act: Act) -> Act:
        kind = act.__module__.rpartition(".")[2]
        FAULTS.append(Fault(act.__name__.replace("_", " "), kind, act, short))
        return act

    return registered


def faults(kinds: tuple[str, ...] = KINDS) -> list[Fault]:
    """The faults of some kinds."""
    for kind in kinds:
        importlib.import_module(f"{__package__}.{kind}")
    return [one for one in FAULTS if one.kind in kinds]


def run(kinds: tuple[str, ...], seed: int, short: bool) -> tuple[int, int, int]:
    """Run faults, print each, and return the numbers tried, survived, and left out on this machine."""
    tried = survived = left_out = 0
    for one in faults(kinds):
        if short and not one.short:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            trials = one.trials(Path(folder), seed)
        missing = [said for _, said in trials if said.startswith(NOT_TRIED)]
        wrong = [(what, said) for what, said in trials if said and said not in missing]
        count = len(trials) - len(missing)
        seconds = time.monotonic() - began
        print(
            f"{one.kind:<10} {one.name:<68} {count - len(wrong):>5} of {count:<5} {seconds:6.1f} s"
        )
        for what, said in wrong:
            print(f"    NOT SURVIVED {what}: {said}")
        for said in dict.fromkeys(missing):
            print(f"    {said}")
        sys.stdout.flush()
        tried, survived = tried + count, survived + count - len(wrong)
        left_out += len(missing)
    return tried, survived, left_out


def main(arguments: list[str]) -> int:
    """Run the campaign; 1 if a fault was not survived."""
    parser = argparse.ArgumentParser(description="Fault campaign of studies and training.")
    parser.add_argument("--short", action="store_true", help="the form of the default tests")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=1, help="rounds, each with the next seed")
    parser.add_argument("--only", choices=KINDS, nargs="*", default=KINDS)
    given = parser.parse_args(arguments)
    all_survived = True
    for seed in range(given.seed, given.seed + given.rounds):
        began = time.monotonic()
        tried, survived, left_out = run(tuple(given.only), seed, given.short)
        also = f"; {left_out} could not be tried on this machine" if left_out else ""
        minutes = (time.monotonic() - began) / 60
        print(f"seed {seed}: {tried} tried, {survived} survived{also}, {minutes:.1f} minutes\n")
        all_survived = all_survived and tried == survived
    return 0 if all_survived else 1


if __name__ == "__main__":
    from faults import campaign  # The module under the name by which faults register.

    sys.exit(campaign.main(sys.argv[1:]))
