"""Depth of a model: its equilibrium, or a number of layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from ..implicit import Exact, Gradient
from ..options.options import Options, check_integer, check_optional_integer, check_truth, one_of
from ..solvers import CausalNewton, PrefixAnderson, Solver, Stopping, WholeSolver

OnFailure = Literal["raise", "warn", "accept"]
# The rule of adjoints where no gradient mode is given.
_ADJOINT = Stopping(rtol=1e-4, max_steps=200)


@dataclass(frozen=True)
class Equilibrium(Options):
    """Depth at equilibrium: the fixed point of a cell, like infinitely many layers with shared weights.

    Attributes:
        solver: The solver of the states.
        stopping: Its tolerances and limits.
        gradient: The gradient mode; `None` for the exact one. The adjoint is then solved to 1e-4, with
            `"token"` by `PrefixAnderson()`, whose memory does not grow with iterations, else by `GMRES()`.
        coefficients: `"token"`: every time step has its own step lengths and stopping, so that the past is
            independent of the future at every iteration; those of `PrefixAnderson` come from all time
            steps up to it. `"sequence"`: a sequence is one system, as
            solvers that run whole need it (`CausalNewton`, which is causal nevertheless). With other
            solvers the past then depends on the future until all time steps have converged.
        subsequence: Time steps of the pieces that long sequences are solved in; `None` for all at once.
            Each piece is the history of the next, and derivatives pass from piece to piece.
        checkpoint: In a pass with `depth=...`, to warm up, keep nothing of a layer but its state, and compute
            it again in the backward pass, which makes the step half as long again.
        on_failure: `"raise"`, `"warn"` or `"accept"` for an unsolved system. `Output.solutions` has the
            status of all systems in any case.
        trace: True to record the residual norms of every iteration in the solutions.

    Raises:
        TypeError: An option has the wrong type, or the solver runs whole with `"token"`.
        ValueError: An option is out of range, or `PrefixAnderson` is to solve with `"sequence"`.

    Source: Bai, Kolter & Koltun 2019, section 3.

    Examples:
        >>> from implicitly import Stopping
        >>> Equilibrium(stopping=Stopping(rtol=1e-5, max_steps=30)).coefficients
        'token'
    """

    solver: Solver = field(default_factory=PrefixAnderson)
    stopping: Stopping = field(
        default_factory=lambda: Stopping(rtol=1e-2, rtol_residual=1e-4, max_steps=100)
    )
    gradient: Gradient | None = None
    coefficients: Literal["token", "sequence"] = "token"
    subsequence: int | None = None
    checkpoint: bool = True
    on_failure: OnFailure = "warn"
    trace: bool = False

    def __post_init__(self) -> None:
        for name, kind in (("solver", Solver), ("stopping", Stopping)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be an instance of {kind.__name__}, got {getattr(self, name)!r}"
                )
        if not (self.gradient is None or isinstance(self.gradient, Gradient)):
            raise TypeError(
                f"gradient must be an instance of Gradient or None, got {self.gradient!r}"
            )
        one_of("coefficients", self.coefficients, ("token", "sequence"))
        one_of("on_failure", self.on_failure, get_args(OnFailure))
        check_truth("trace", self.trace)
        check_truth("checkpoint", self.checkpoint)
        check_optional_integer("subsequence", self.subsequence, 1)
        if self.coefficients == "token" and isinstance(self.solver, WholeSolver):
            raise TypeError(
                f"{type(self.solver).__name__} runs whole and has no coefficients per token: give "
                'coefficients="sequence" with it'
            )
        if self.coefficients == "sequence" and isinstance(self.solver, PrefixAnderson):
            raise ValueError(
                'PrefixAnderson, the default, needs coefficients="token"; with "sequence" give a solver '
                "of whole sequences, such as Anderson() or CausalNewton(block=...)"
            )

    @property
    def derivative(self) -> Gradient:
        """The gradient mode, that of the default where none is given."""
        if self.gradient is not None:
            return self.gradient
        solver = PrefixAnderson() if self.coefficients == "token" else None
        return Exact(solver=solver, stopping=_ADJOINT)


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
        checkpoint: Keep nothing of a layer but its state, and compute it again in the backward pass.

    Raises:
        ValueError: `depth` is not an integer ≥ 1.
        TypeError: `checkpoint` is not a truth value.

    Source: Chen et al. 2016, arXiv:1604.06174 (checkpoints).

    Examples:
        >>> WeightTied(depth=8).checkpoint
        False
    """

    depth: int
    checkpoint: bool = False

    def __post_init__(self) -> None:
        check_integer("depth", self.depth, 1)
        check_truth("checkpoint", self.checkpoint)


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
