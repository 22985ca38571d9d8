"""Depth of a model: its equilibrium, or a number of layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..implicit import Exact, Gradient
from ..options.options import Options, check_integer, check_truth, is_integer, one_of
from ..solvers import CausalNewton, FixedPointIteration, Solver, Stopping, WholeSolver

OnFailure = Literal["raise", "warn", "accept"]


def _adjoint() -> Gradient:
    return Exact(stopping=Stopping(rtol=1e-4, max_steps=200))


@dataclass(frozen=True)
class Equilibrium(Options):
    """Depth at equilibrium: the fixed point of a cell, like infinitely many layers with shared weights.

    Attributes:
        solver: The solver of the states.
        stopping: Its tolerances and limits.
        gradient: The gradient mode.
        coefficients: `"token"`: every time step has its own step lengths and stopping, so that the past is
            independent of the future at every iteration. `"sequence"`: a sequence is one system, as
            solvers that run whole need it (`CausalNewton`, which is causal nevertheless). With other
            solvers the past then depends on the future until all time steps have converged.
        subsequence: Time steps of the pieces that long sequences are solved in; `None` for all at once.
            Each piece is the history of the next, and derivatives pass from piece to piece.
        on_failure: `"raise"`, `"warn"` or `"accept"` for an unsolved system. `Output.solutions` has the
            status of all systems in any case.
        trace: True to record the residual norms of every iteration in the solutions.

    Raises:
        TypeError: An option has the wrong type, or the solver runs whole with `"token"`.
        ValueError: An option is out of range.

    Source: Bai, Kolter & Koltun 2019, section 3.

    Examples:
        >>> from implicitly import Stopping
        >>> Equilibrium(stopping=Stopping(rtol=1e-5, max_steps=30)).coefficients
        'token'
    """

    solver: Solver = field(default_factory=FixedPointIteration)
    stopping: Stopping = field(
        default_factory=lambda: Stopping(rtol=1e-2, rtol_residual=1e-4, max_steps=100)
    )
    gradient: Gradient = field(default_factory=_adjoint)
    coefficients: Literal["token", "sequence"] = "token"
    subsequence: int | None = None
    on_failure: OnFailure = "warn"
    trace: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("solver", Solver), ("stopping", Stopping), ("gradient", Gradient)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be an instance of {kind.__name__}, got {getattr(self, name)!r}"
                )
        one_of("coefficients", self.coefficients, ("token", "sequence"))
        one_of("on_failure", self.on_failure, get_args(OnFailure))
        check_truth("trace", self.trace)
        if self.subsequence is not None and not is_integer(self.subsequence, 1):
            raise ValueError(
                f"subsequence must be an integer ≥ 1 or None, got {self.subsequence!r}"
            )
        if self.coefficients == "token" and isinstance(self.solver, WholeSolver):
            raise TypeError(
                f"{type(self.solver).__name__} runs whole and has no coefficients per token: give "
                'coefficients="sequence" with it'
            )


def by_scan(block: int, rtol: float = 1e-4) -> Equilibrium:
    """An equilibrium solved by Newton's method with a scan over time, and its adjoint likewise.

    It is for cells in which a time step depends on itself and its predecessor.

    Args:
        block: Features of a state.
        rtol: Tolerance of both solves on the residual, relative to the state.

    Source: Lim et al. 2024, arXiv:2309.12252.

    Examples:
        >>> by_scan(block=8).solver.block
        8
    """
    solver, stopping = CausalNewton(block=block), Stopping(rtol=0.1, rtol_residual=rtol)
    return Equilibrium(
        solver=solver,
        stopping=stopping,
        gradient=Exact(solver=solver, stopping=stopping),
        coefficients="sequence",
    )


@dataclass(frozen=True)
class WeightTied(Options):
    """Depth of `depth` layers with the same weights: the equilibrium's cell, unrolled.

    Attributes:
        depth: Number of applications of the cell.

    Raises:
        ValueError: `depth` is not an integer ≥ 1.

    Examples:
        >>> WeightTied(depth=8)
        WeightTied(depth=8)
    """

    depth: int

    def __post_init__(self) -> None:
        check_integer("depth", self.depth, 1)


@dataclass(frozen=True)
class Stacked(Options):
    """Depth of `depth` layers with separate weights: an ordinary deep network.

    Attributes:
        depth: Number of cells.

    Raises:
        ValueError: `depth` is not an integer ≥ 1.

    Examples:
        >>> Stacked(depth=4)
        Stacked(depth=4)
    """

    depth: int

    def __post_init__(self) -> None:
        check_integer("depth", self.depth, 1)


Depth = Equilibrium | WeightTied | Stacked


def number_of_cells(depth: Depth) -> int:
    """Number of cells with separate weights.

    Examples:
        >>> number_of_cells(Stacked(4)), number_of_cells(WeightTied(4))
        (4, 1)
    """
    return depth.depth if isinstance(depth, Stacked) else 1
