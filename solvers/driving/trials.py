"""Exceptions of a function at a trial point refuse that point, for the systems that raise it.

A property table, a logarithm of Python or a factorisation may raise where another function returns NaN.
At the start an exception is the caller's to see; later it counts as a residual that is not finite, which
solvers with a line search or a trust region recover from. Which systems of a batch raise is found by
halving: the others are evaluated where they were evaluated before.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Sequence
from dataclasses import replace
from types import CodeType

import torch
from torch import Tensor

from ..interface.derivative import Derivative
from ..interface.objective import Objective
from ..interface.problem import Problem
from ..interface.solution import DomainError, SolveError

_PACKAGE = __name__.partition(".")[0]
# Errors of the program, not of a point. Assertions are made to be seen.
_OF_THE_PROGRAM = (
    TypeError,
    AttributeError,
    NameError,
    AssertionError,
    NotImplementedError,
    MemoryError,
    ImportError,
    torch.OutOfMemoryError,
    TimeoutError,
)
# Parts of the messages of PyTorch and NumPy for shapes, dtypes and devices that do not fit.
_THAT_DO_NOT_FIT = (
    "size of tensor", "Sizes of tensors", "shapes cannot be multiplied", "invalid for input of size",
    "could not be broadcast", "not aligned", "same dtype", "expected scalar type", "on the same device",
)  # fmt: skip
# Modules that end an evaluation by an exception of their own: a checkpoint that has recomputed enough, a
# compiler that gives up. Their caller waits for it.
_THAT_INTERRUPT = ("torch.utils.checkpoint", "torch._dynamo", "torch._subclasses", "torch.fx")


class Trials:
    """Evaluates a problem's function with rows of NaN where it raises.

    Attributes:
        reasons: For each system that raised, its last exception in words.
    """

    def __init__(
        self, problem: Problem, good: Tensor, reasons: dict[int, str], numbers: Sequence[int]
    ) -> None:
        self._problem, self._good = problem, good.detach()
        self.reasons, self._numbers = reasons, numbers

    def problem(self) -> Problem:
        """The problem whose evaluations do not raise."""
        problem = self._problem
        linearize, restrict = problem.linearize, problem.restrict
        return replace(
            problem,
            function=self._value,
            linearize=None if linearize is None else self._linearized,
            restrict=None if restrict is None else self._restricted,
            objective=self._objective(),
            unreduced=self._unreduced(),
        )

    def _unreduced(self) -> Problem | None:
        problem = self._problem.unreduced
        if problem is None:
            return None
        return Trials(problem, self._good, self.reasons, self._numbers).problem()

    def _objective(self) -> Objective | None:
        objective = self._problem.objective
        if objective is None:
            return None
        return replace(objective, function=lambda z: self._parts(objective, z))

    def _parts(self, objective: Objective, z: Tensor) -> Tensor:
        """Values or residuals of an objective, NaN for systems that raise."""
        try:
            return objective.function(z)
        except Exception as error:
            if not of_a_point(error):
                raise
            raises = torch.isnan(self._value(z)).all(dim=1)
            if not bool(raises.any()):
                raise
            column = raises.unsqueeze(1)
            parts = objective.function(torch.where(column, self._good, z))
            return torch.where(column if parts.dim() == 2 else raises, torch.nan, parts)

    def _restricted(self, rows: Tensor) -> Problem:
        assert self._problem.restrict is not None  # for the type checker
        numbers = [self._numbers[row] for row in rows.tolist()]
        smaller = self._problem.restrict(rows)
        return Trials(smaller, self._good[rows], self.reasons, numbers).problem()

    def _value(self, z: Tensor) -> Tensor:
        try:
            return self._problem.function(z)
        except Exception as error:
            if not of_a_point(error):
                raise
            return self._part(z, torch.ones_like(z[:, 0], dtype=torch.bool), error)

    def _part(self, z: Tensor, which: Tensor, error: Exception) -> Tensor:
        """Values of the systems `which`, which together raise `error`; NaN for those that do."""
        rows = which.nonzero().flatten()
        if len(rows) == 1:
            self.reasons[self._numbers[int(rows)]] = f"the function raised {_named(error)}"
            return torch.full_like(z, torch.nan)
        value = torch.full_like(z, torch.nan)
        for half in rows.tensor_split(2):
            these = torch.zeros_like(which).index_fill(0, half, True).unsqueeze(1)
            self._problem.counts.evaluations += 1
            try:
                part = self._problem.function(torch.where(these, z, self._good))
            except Exception as again:
                if not of_a_point(again):
                    raise
                part = self._part(z, these.squeeze(1), again)
            value = torch.where(these, part, value)
        return value

    def _linearized(self, z: Tensor) -> tuple[Tensor, Derivative]:
        linearize = self._problem.linearize
        assert linearize is not None  # for the type checker
        try:
            return linearize(z)
        except Exception as error:
            if not of_a_point(error):
                raise
            value = self._value(z)
            raises = torch.isnan(value).all(dim=1, keepdim=True)
            if not bool(raises.any()):  # The derivative itself is what failed.
                raise
            _, derivative = linearize(torch.where(raises, self._good, z))
            return value, derivative


def of_a_point(error: Exception) -> bool:
    """True if another point may be without the error.

    A `DomainError` says so, and an equation inside the function that is not solved there is one too. Errors
    of the program and of this package pass, among them shapes that do not fit, and so do exceptions by which
    others interrupt an evaluation: handlers of signals, and parts of PyTorch.
    """
    if isinstance(error, (DomainError, SolveError)):
        return True
    if isinstance(error, _OF_THE_PROGRAM):
        return False
    if isinstance(error, (RuntimeError, ValueError)) and any(
        words in str(error) for words in _THAT_DO_NOT_FIT
    ):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames:
        return True
    raised_in = str(frames[-1].f_globals.get("__name__", ""))
    if raised_in.partition(".")[0] == _PACKAGE:
        return False
    if any(f"{raised_in}.".startswith(f"{module}.") for module in _THAT_INTERRUPT):
        return False
    return not _handlers().intersection(frame.f_code for frame in frames)


def _handlers() -> set[CodeType]:
    """The code of the handlers of signals."""
    handlers = map(signal.getsignal, signal.valid_signals())
    codes = (getattr(handler, "__code__", None) for handler in handlers)
    return {code for code in codes if code is not None}


def guarded(problem: Problem, start: Tensor, reasons: dict[int, str]) -> Problem:
    """`problem` with NaN where its function raises; it has been evaluated at `start`.

    Args:
        problem: The systems.
        start: A point at which they could be evaluated.
        reasons: Takes the exceptions in words, by the numbers of the systems.
    """
    if problem.linear:
        return problem
    return Trials(problem, start, reasons, range(start.shape[0])).problem()


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
