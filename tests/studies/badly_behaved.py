"""A study of solvers that do what none should: each must end as a row, and the study go on."""

import os
import time

import torch
from implicitly.solvers import Solver, Status
from implicitly.solvers.interface.solver import RunOutcome, WholeSolver
from implicitly.studies.methods import Attempt, StudyEquation


class Exits(WholeSolver):
    def run(self, problem, z, residual, goal):
        os._exit(7)


class Aborts(WholeSolver):
    def run(self, problem, z, residual, goal):
        os.abort()


class Hangs(WholeSolver):
    def run(self, problem, z, residual, goal):
        # In C, with the interpreter locked: no signal handler of Python's runs.
        import ctypes

        ctypes.PyDLL(None).sleep(3600)


class Allocates(WholeSolver):
    def run(self, problem, z, residual, goal):
        kept = []
        while True:
            kept.append(torch.ones(4_000_000))


class AllocatesAtOnce(WholeSolver):
    def run(self, problem, z, residual, goal):
        return torch.ones(1 << 40)


class Prints(WholeSolver):
    def run(self, problem, z, residual, goal):
        print("noise" * 10_000, flush=True)
        os.write(1, b"more noise" * 10_000)
        os.write(2, b"and more" * 10_000)
        return RunOutcome(z, [Status.STALLED], [1])


class Raises(WholeSolver):
    def run(self, problem, z, residual, goal):
        raise KeyError("no such thing")


class Leaves(WholeSolver):
    def run(self, problem, z, residual, goal):
        raise SystemExit(0)


class Lies:
    """By itself, so that no driver looks at what it returns."""

    label, family, packages = "lies", "peer", ()

    def solve(self, equation: StudyEquation) -> Attempt:
        equation.function(equation.z0)
        return Attempt(equation.z0 + 1, claimed=True, status="SUCCESS", residual=0.0)


class ReturnsAnotherShape:
    label, family, packages = "another-shape", "peer", ()

    def solve(self, equation: StudyEquation) -> Attempt:
        return Attempt(torch.zeros(99), claimed=True, status="SUCCESS")


class NeverStops:
    label, family, packages = "never-stops", "peer", ()

    def solve(self, equation: StudyEquation) -> Attempt:
        while True:
            equation.function(equation.z0)


class Sleeps:
    """Ends well, in a while: for studies that are killed."""

    label, family, packages = "sleeps", "peer", ()

    def solve(self, equation: StudyEquation) -> Attempt:
        time.sleep(0.05)
        return Attempt(equation.z0, claimed=False, status="FAILURE")


solvers: dict[str, Solver | object] = {
    "exits": Exits(),
    "aborts": Aborts(),
    "hangs": Hangs(),
    "allocates": Allocates(),
    "allocates-at-once": AllocatesAtOnce(),
    "prints": Prints(),
    "raises": Raises(),
    "leaves": Leaves(),
    "lies": Lies(),
    "another-shape": ReturnsAnotherShape(),
    "never-stops": NeverStops(),
}

configuration = {
    "name": "badly-behaved",
    "problems": ["boggs"],
    "solvers": [*solvers, "newton"],
    "time_limit": 3,
    "memory_limit": 512,
    "max_evaluations": 200,
}
