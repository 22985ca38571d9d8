"""Results of a long run, kept as they come, so that an interrupted run goes on where it was."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

BUILD = Path(__file__).parents[2] / "build"


def asked(description: str | None, name: str) -> tuple[Kept, int]:
    """The results kept under a name, and the number of processes, as the command line asks for them."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--anew", action="store_true", help="forget what has been examined")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given, kept = parser.parse_args(), Kept(name)
    if given.anew:
        kept.forget()
    return kept, given.jobs


class Kept:
    """A file of results, a line of JSON for each: the case, and what was found for it.

    A line that was cut off when the run ended is left out, and its case examined again.
    """

    def __init__(self, name: str) -> None:
        self.place = BUILD / name
        self.found: dict[str, Any] = {}
        if self.place.exists():
            for line in self.place.read_text(encoding="utf-8").splitlines():
                try:
                    case, result = json.loads(line)
                except json.JSONDecodeError:
                    continue
                self.found[json.dumps(case)] = result

    def forget(self) -> None:
        """Forget all results."""
        self.place.unlink(missing_ok=True)
        self.found = {}

    def all(self, cases: list[list[Any]], work: Callable[..., Any], jobs: int) -> list[Any]:
        """Results of `work(*case)` for every case, in their order; those that are missing are computed."""
        missing = [case for case in cases if json.dumps(case) not in self.found]
        self.place.parent.mkdir(parents=True, exist_ok=True)
        runs = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(_with_case)(work, case) for case in missing
        )
        with self.place.open("a", encoding="utf-8") as store:
            store.write("\n" if self.place.stat().st_size else "")  # After a line that was cut off.
            for number, (case, result) in enumerate(runs, 1):
                store.write(json.dumps([case, result]) + "\n")
                store.flush()
                print(f"\r{number} of {len(missing)} examined", end="", flush=True)
                self.found[json.dumps(case)] = result
        print()
        return [self.found[json.dumps(case)] for case in cases]


def _with_case(work: Callable[..., Any], case: list[Any]) -> tuple[list[Any], Any]:
    return case, work(*case)
