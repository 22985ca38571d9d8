"""Bracketing for scalar equations: convergence wherever a continuous residual changes its sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_integer
from ..interface.per_system import as_numbers, for_systems
from ..interface.problem import Problem
from ..interface.scale import first_step_length
from ..interface.solution import Status
from ..interface.solver import Solver
from .bracket import (
    Bracket,
    Search,
    aimed,
    choose,
    differ,
    extended,
    first_bracket,
    inside,
    least_share,
    narrowed,
    outside,
)


@dataclass
class BracketingState:
    """Point of smallest residual, bracket, and the search of systems that have no bracket yet."""

    z: Tensor
    residual: Tensor
    bracket: Bracket
    search: Search
    found: Tensor
    """Boolean mask of the systems that have a bracket, `(batch, 1)`."""
    end_status: Tensor
    count: int


@dataclass(frozen=True, eq=False)
class Bracketing(Solver):
    """Solve a batch of scalar equations, each between two points where the signs differ.

    Each step evaluates one point of every system: by inverse quadratic interpolation through the last
    three points where these fit a monotone function, else by bisection. The bracket always shrinks, so
    that a continuous residual is solved, whatever its derivatives.

    The bracket is given, or searched: from the start to either side in turn, in steps that double, the
    first as long as a Newton step. A system ends with the status `NO_SIGN_CHANGE` where a given bracket
    has one sign at both ends or does not contain the start, or where the search finds no change of sign;
    the others go on. Where the sign changes at a pole or a jump the bracket closes on it, and the system
    ends with `STALLED`.

    Every system has one unknown. Many equations at once are one system each, with `batch_dims=1` and `z0`
    of shape `(batch,)`.

    Attributes:
        lower: Lower ends: a number, or a tensor with an entry for each system; `None` to search.
        upper: Upper ends, above the lower ones.
        max_search: Limit on the steps of the search; 80 reach 1e12 first steps to either side.

    Raises:
        TypeError: An end is not a number or a tensor.
        ValueError: Only one end is given, an end is not finite, the ends are in the wrong order, their
            number does not fit that of the systems, `max_search` is not a positive integer, or,
            when it is used, a system has more than one unknown.

    Source: Chandrupatla 1997.

    Examples:
        >>> import torch, implicitly
        >>> mean = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
        >>> kepler = lambda E, M: E - 0.99 * torch.sin(E) - M
        >>> solver = implicitly.Bracketing(lower=0.0, upper=torch.pi)
        >>> E = implicitly.root(kepler, mean, mean, solver=solver, batch_dims=1).value
        >>> bool(kepler(E, mean).abs().max() < 1e-9)
        True
    """

    lower: float | Tensor | None = None
    upper: float | Tensor | None = None
    max_search: int = 80
    suits: ClassVar[str] = "batches of scalar equations, surely"
    ends_itself: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 500

    # Tensors compare entry by entry.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        check_integer("max_search", self.max_search, 1)
        if self.lower is None and self.upper is None:
            return
        if self.lower is None or self.upper is None:
            given, missing = ("upper", "lower") if self.lower is None else ("lower", "upper")
            raise ValueError(f"a bracket has two ends: {given} is given, {missing} is not")
        lower, upper = as_numbers("lower", self.lower), as_numbers("upper", self.upper)
        if lower.numel() != upper.numel() and 1 not in (lower.numel(), upper.numel()):
            raise ValueError(
                f"lower and upper must have as many entries, got {lower.numel()} and {upper.numel()}"
            )
        if not bool((lower < upper).all()):
            raise ValueError(
                f"lower must be below upper, got lower={self.lower!r}, upper={self.upper!r}"
            )

    @property
    def keeps_batch(self) -> bool:
        return isinstance(self.lower, Tensor) or isinstance(self.upper, Tensor)

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> BracketingState:
        if z.shape[1] != 1 and z.shape[0] > 0:
            raise ValueError(
                "Bracketing solves one equation in one unknown per system, and each of these has "
                f"{z.shape[1]} unknowns: make every scalar equation a system of its own (batch_dims), "
                "or choose a solver of systems such as Newton() or Broyden()"
            )
        if self.lower is None or self.upper is None:
            return _start_search(problem, z, residual)
        lower, upper = for_systems("lower", self.lower, z), for_systems("upper", self.upper, z)
        return _start_bracket(problem, z, residual, lower, upper)

    def step(self, problem: Problem, state: BracketingState) -> BracketingState:
        z = torch.where(state.found, inside(state.bracket), outside(state.search))
        residual = problem.residual(z)

        bracket = choose(
            state.found,
            narrowed(state.bracket, z, residual),
            first_bracket(state.search, z, residual),
        )
        found = state.found | differ(residual, state.search.above_residual)
        count = state.count + 1
        end_status = state.end_status
        if count >= self.max_search:
            end_status = torch.where(found.squeeze(1), end_status, int(Status.NO_SIGN_CHANGE))
        closed = (state.found & (least_share(bracket) > 0.5)).squeeze(1)
        end_status = torch.where(closed & (end_status == 0), int(Status.DISCONTINUITY), end_status)
        # An infinite residual has a sign, NaN has none.
        undefined = (state.found & torch.isnan(residual)).squeeze(1)
        end_status = torch.where(undefined, int(Status.NON_FINITE), end_status)
        better = residual.abs() < state.residual.abs()
        return BracketingState(
            z=torch.where(better, z, state.z),
            residual=torch.where(better, residual, state.residual),
            bracket=bracket,
            search=extended(state.search, z, residual),
            found=found,
            end_status=end_status,
            count=count,
        )


def _start_bracket(
    problem: Problem, z: Tensor, residual: Tensor, lower: Tensor, upper: Tensor
) -> BracketingState:
    """The bracket from the start to the end on its other side."""
    outside = ((z < lower) | (z > upper)).flatten()
    if problem.finished is not None:
        outside &= ~problem.finished.flatten()
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise ValueError(
            f"z0 must lie between lower and upper: system {first} starts at {z[first].item():.6g}, and its "
            f"bracket is [{lower[first].item():.6g}, {upper[first].item():.6g}]"
        )
    lower_residual, upper_residual = problem.residual(lower), problem.residual(upper)
    # A root at an end of the bracket is a root.
    for end, end_residual in ((lower, lower_residual), (upper, upper_residual)):
        z = torch.where(end_residual == 0, end, z)
        residual = torch.where(end_residual == 0, end_residual, residual)
    changes = differ(lower_residual, upper_residual)
    low = differ(residual, lower_residual)
    bracket = Bracket(
        newest=z,
        opposite=torch.where(low, lower, upper),
        dropped=torch.where(low, upper, lower),
        newest_residual=residual,
        opposite_residual=torch.where(low, lower_residual, upper_residual),
        dropped_residual=torch.where(low, upper_residual, lower_residual),
        share=torch.full_like(z, 0.5),
    )
    bracket = aimed(bracket)
    usable = changes | (residual == 0)
    undefined = torch.isnan(lower_residual) | torch.isnan(upper_residual)
    end_status = torch.where(usable, 0, int(Status.NO_SIGN_CHANGE))
    end_status = torch.where(undefined, int(Status.NON_FINITE), end_status).squeeze(1)
    # A placeholder: no system searches.
    search = Search(lower, upper, lower_residual, upper_residual, z, z, lower, upper, usable)
    return BracketingState(z, residual, bracket, search, torch.ones_like(usable), end_status, 0)


def _start_search(problem: Problem, z: Tensor, residual: Tensor) -> BracketingState:
    length = first_step_length(problem, z, residual)
    move = residual if length is None else length * residual
    # A smaller first step would be lost in rounding.
    least = torch.finfo(z.dtype).eps * z.abs()
    size = torch.maximum(move.abs(), least)
    infinite = torch.full_like(z, torch.inf)
    search = Search(z, z, residual, residual, size, size, -infinite, infinite, move >= 0)
    bracket = Bracket(z, z, z, residual, residual, residual, torch.full_like(z, 0.5))
    found = torch.zeros_like(z, dtype=torch.bool)
    end_status = torch.zeros_like(found.squeeze(1), dtype=torch.int64)
    return BracketingState(z, residual, bracket, search, found, end_status, 0)
