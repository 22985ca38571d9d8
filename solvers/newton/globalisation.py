"""Globalisation of Newton steps: far from a solution a step is shortened, bent, or taken in full.

A Newton method is a descent, which finds the step `s` of the linear model `r + J s`, and a globalisation,
which turns it into a step that lowers the residual norm. The two are independent of each other:

    Newton              = dense LU       and any globalisation
    NewtonKrylov        = a linear solver and any globalisation
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...options.options import Options, check_integer, check_truth
from ..interface.problem import Problem

# Steps that gain less than a thousandth in all, after which a damped method or one with a trust region is at
# a local minimum.
DESCENT_PATIENCE = 40


@dataclass(frozen=True)
class Point:
    """Iterates with their residuals, both `(batch, n)`, and the norms to be lowered, `(batch,)`."""

    z: Tensor
    residual: Tensor
    norm: Tensor

    @staticmethod
    def of(z: Tensor, residual: Tensor, weights: Tensor | None = None) -> Point:
        """The point at `z`; its norm is the Euclidean one of `weights · residual`."""
        weighted = residual if weights is None else weights * residual
        return Point(z, residual, torch.linalg.vector_norm(weighted, dim=1))

    def or_else(self, mask: Tensor, other: Point) -> Point:
        """The systems of `other` where `mask`, `(batch,)`, is true, and of this point elsewhere."""
        column = mask.unsqueeze(1)
        return Point(
            torch.where(column, other.z, self.z),
            torch.where(column, other.residual, self.residual),
            torch.where(mask, other.norm, self.norm),
        )


@dataclass
class PointState:
    """A solver state whose iterate and residual are those of a point."""

    point: Point

    @property
    def z(self) -> Tensor:
        return self.point.z

    @property
    def residual(self) -> Tensor:
        return self.point.residual


Evaluate = Callable[[Tensor], Point]
"""From iterates to points; one evaluation of the equation."""


@dataclass(frozen=True)
class Model:
    """The linear model `r + J s` of the residual about a point.

    Attributes:
        residual: `r`, in units such that its norm is that of the point.
        step: The Newton step, `(batch, n)`; inexact ones included.
        jvp: `v ↦ J v`, in the units of `r`.
        vjp: `u ↦ Jᵀu`.
        lengths: Norms of the columns of `J`, `(batch, n)`, where they are known.
        exact: The equation is linear, and so is its own model.
    """

    residual: Tensor
    step: Tensor
    jvp: Callable[[Tensor], Tensor]
    vjp: Callable[[Tensor], Tensor]
    lengths: Tensor | None = None
    exact: bool = False


@dataclass(frozen=True)
class Advance:
    """Result of globalising one step.

    Attributes:
        point: The end of the step; the start where no trial was accepted.
        accepted: Boolean, `(batch,)`.
        memory: The globalisation's own state for the next step.
    """

    point: Point
    accepted: Tensor
    memory: Any


@dataclass(frozen=True)
class Globalisation(Options, ABC):
    """Frozen options of a rule that turns a Newton step into one which lowers the residual norm.

    No system depends on another. Each trial evaluates the equation once for the whole batch and reads
    one number back to the host: whether every system has its step.

    Attributes:
        max_trials: Trials of one step, after which a system stalls.
        balance: Count each equation in units of its row of the first Jacobian, in the norm to be lowered
            and in the test for singular rows, where a descent knows the rows (`Newton` does,
            `NewtonKrylov` does not). Equations with coefficients of very different size need it; it
            never changes the tolerance.

    Raises:
        ValueError: `max_trials` is not a positive integer.
        TypeError: `balance` is not a truth value.
    """

    max_trials: int = 20
    balance: bool = False

    def __post_init__(self) -> None:
        check_integer("max_trials", self.max_trials, 1)
        check_truth("balance", self.balance)

    def begin(self, start: Point) -> Any:
        """The memory at the start: `None`, or tensors whose first axis is that of the systems."""
        return None

    @abstractmethod
    def advance(
        self, evaluate: Evaluate, start: Point, model: Model, memory: Any, settled: Tensor
    ) -> Advance:
        """The step from `start`; the systems `settled`, boolean `(batch,)`, are fixed there."""


@dataclass(frozen=True)
class FullSteps(Globalisation):
    """No globalisation: every step is taken in full, whatever the residual."""

    balance: bool = True

    def advance(
        self, evaluate: Evaluate, start: Point, model: Model, memory: Any, settled: Tensor
    ) -> Advance:
        moved = evaluate(start.z + model.step).or_else(settled, start)
        return Advance(moved, torch.ones_like(settled), memory)


def first_norms(norm: Tensor, memory: int) -> Tensor:
    """Norms to look back at, newest first, `(batch, memory)`; 0 for steps before the first."""
    return torch.cat((norm.unsqueeze(1), norm.new_zeros(norm.shape[0], memory - 1)), dim=1)


def next_norms(norms: Tensor, norm: Tensor) -> Tensor:
    """The same with one more, and without the oldest."""
    return torch.cat((norm.unsqueeze(1), norms[:, :-1]), dim=1)


def unmoved(start: Point, trial: Point) -> Tensor:
    """The systems whose trial is their start to the last digit, `(batch,)`: no shorter step is another."""
    return (trial.z == start.z).all(dim=1)


def units(lengths: Tensor | None, like: Tensor) -> Tensor:
    """Norms of rows or columns as units, positive, `(batch, n)`; ones where they are not known.

    A norm below the rounding of the largest is raised to that.
    """
    if lengths is None:
        return torch.ones_like(like)
    largest = lengths.amax(dim=1, keepdim=True)
    scale = torch.maximum(lengths, torch.finfo(lengths.dtype).eps * largest)
    return torch.where(largest > 0, scale, 1.0)


def check_globalisation(value: object) -> None:
    """Raise a `TypeError` unless `value` is a globalisation or `None`."""
    if value is None or isinstance(value, Globalisation):
        return
    raise TypeError(
        "globalisation must be LineSearch(), NonmonotoneLineSearch(), TrustRegion() or None, "
        f"got {value!r}"
    )


def settled_systems(problem: Problem, norm: Tensor) -> Tensor:
    """Boolean mask of the systems that have ended, `(batch,)`."""
    if problem.finished is None:
        return torch.zeros_like(norm, dtype=torch.bool)
    return problem.finished.squeeze(1)
