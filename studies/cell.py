"""Cell of a study: one run, and the key of its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from ..options.text import written
from ..problems import TestProblem
from .catalogue import Catalogue
from .environment import versions
from .selection import Choice

# Raise this number when a change makes the same run give other measurements.
_MEASURE = 1
_KEY_LENGTH = 32


@dataclass(frozen=True)
class Limits:
    """Limits of a cell.

    Attributes:
        evaluations: Evaluations of the function.
        seconds: Wall time of one solve.
        memory: Bytes beyond those of the process before the cell.
        repeats: Timed solves after the first; 0 for no times.
    """

    evaluations: int
    seconds: float
    memory: int
    repeats: int

    @property
    def as_tuple(self) -> tuple[int, float, int, int]:
        """The limits in the order of the attributes."""
        return (self.evaluations, self.seconds, self.memory, self.repeats)


@dataclass(frozen=True)
class Cell:
    """One run of one method on one problem.

    Attributes:
        problem: The problem.
        solver: The solver.
        gradient: The gradient mode, where a gradient is taken.
        adjoint: The solver of the adjoint equation.
        tolerance: The largest entry of the residual that counts as solved.
        relative: True if the tolerance is relative to the initial residual.
        seed: Seed of a generated problem. For other problems, seed of the start; 0 is the standard
            start.
        dtype: Dtype of the unknown.
        device: Device of the unknown.
        limits: Limits of the run.
        own: The user's file of problems and solvers.
        digest: Digest of that file as it was when the study began.
    """

    problem: Choice
    solver: Choice
    gradient: Choice | None
    adjoint: Choice | None
    tolerance: float
    relative: bool
    seed: int
    dtype: str
    device: str
    limits: Limits
    own: str | None = None
    digest: str | None = None

    def identity(self, catalogue: Catalogue) -> dict[str, Any]:
        """The columns of its row that define it, `key` among them.

        Raises:
            StudyError: A name or an option is wrong.
        """
        columns = {
            **catalogue.once(("problem columns", self.problem, self.seed), self._of_problem),
            **catalogue.once(
                ("method columns", self.solver, self.gradient, self.adjoint), self._of_method
            ),
            "tolerance": self.tolerance,
            "seed": self.seed,
            "dtype": self.dtype,
            "device": self.device,
        }
        defines = {
            **columns,
            "relative": self.relative,
            "limits": self.limits.as_tuple,
            "own": self.digest,
            "measure": _MEASURE,
        }
        del defines["tags"]
        text = json.dumps(defines, sort_keys=True)
        return {"key": hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH], **columns}

    def _of_problem(self, catalogue: Catalogue) -> dict[str, Any]:
        problem, n = catalogue.problem(self.problem, self.seed)
        return {
            "problem": problem.name,
            "problem_options": _options(problem),
            "dimension": n,
            "systems": math.prod(problem.batch_shape),
            "form": problem.form,
            "tags": tuple(problem.tags),
        }

    def _of_method(self, catalogue: Catalogue) -> dict[str, Any]:
        method = catalogue.method(self.solver, self.gradient, self.adjoint)
        adjoint = None if self.adjoint is None else written(catalogue.solver(self.adjoint))
        return {
            "solver": method.label,
            "solver_family": method.family,
            "gradient": None if self.gradient is None else written(catalogue.mode(self.gradient)),
            "adjoint_solver": adjoint,
            "versions": json.dumps(versions(method.packages), sort_keys=True),
        }

    @property
    def group(self) -> tuple[Any, ...]:
        """Key of the group of cells that are timed in turn."""
        return (self.problem, self.tolerance, self.seed, self.dtype)


def _options(problem: TestProblem) -> str:
    """Parameters other than the defaults, in JSON; the seed has its own column."""
    given = {
        field.name: getattr(problem, field.name)
        for field in dataclasses.fields(problem)
        if field.init and field.name != "seed" and getattr(problem, field.name) != field.default
    }
    return json.dumps(given, sort_keys=True, default=written)
