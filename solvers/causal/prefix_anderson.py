"""Anderson acceleration of causal equations, with coefficients from the past of each time step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.linalg import vecdot

from ...options.options import check_integer, is_number, is_positive, one_of
from ..interface.problem import Problem
from ..interface.solver import Solver
from ..interface.time_steps import TimeSteps
from .affine_scan import affine_scan


@dataclass
class PrefixState:
    """Iterate and past moves; sequences and time steps are axes of their own in the moves."""

    z: Tensor
    residual: Tensor
    moves: Tensor
    """Past `δz`, `(sequences, T, memory, unknowns)`; zero where there is none yet."""
    changes: Tensor
    """Past `δr`, shaped like the moves."""
    count: int
    """Steps taken."""


@dataclass(frozen=True)
class PrefixAnderson(Solver):
    """Extrapolate each time step by coefficients from the time steps up to it.

    With `Z` and `R` the past moves and changes of the residual, time step `t` takes

        z_t ← z_t + r_t − (ΔZ_t + ΔR_t) γ_t,    Σ_{s≤t} decay^{t−s} Lₛᵀ (rₛ − ΔRₛ γ_t) = 0

    with `L = ΔZ` for type I, `L = ΔR` for type II, and `L = ΔZ − ΔR` for their sum. Coefficients for a
    whole sequence make the past depend on the future; those of a time step alone know nothing of its coupling
    to others. These know the past alone, as the equation does, so that no limit on steps lets the future
    leak. The sums are recurrences in time and are found by a scan: no entry of the future is read, not even
    times zero.

    It is for fixed points with `causal=True`. The adjoint of such an equation depends on the future of each
    time step; this solver then takes its sums against time. It keeps `2 · memory` vectors, where a Krylov
    method keeps one for each iteration.

    Attributes:
        memory: Number of past moves.
        decay: Weight of a time step in the sums relative to the next one, in `(0, 1]`.
        kind: `"I"`, `"II"` or `"I+II"`, the sum. Type I alone has Gram matrices of either sign, which
            vanish now and then and send a time step far off; type II stagnates where eigenvalues surround 1.
        plain: Plain steps at the start of nonlinear equations, before extrapolation begins.
        regularisation: Relative increase of the diagonal of the Gram matrices, whose rows and columns are of
            unit length; `None` for 16 units of rounding of the iterates' dtype.

    Raises:
        ValueError: An option is out of range.
        TypeError: When solving, the equation is not a fixed point with `causal=True` or derived from one.

    Source: Anderson 1965; Fang & Saad 2009 (types I and II, eqs. 22–25); Blelloch 1990 (the scan). Sums over
    prefixes in place of whole systems, and the sum of both types, are this package's.

    Examples:
        >>> import torch, implicitly
        >>> x = torch.linspace(-1, 1, 50, dtype=torch.float64).reshape(1, 50, 1)
        >>> def f(z, x):
        ...     before = torch.nn.functional.pad(z[:, :-1], (0, 0, 1, 0))
        ...     return x - torch.tanh(1.2 * z + 0.5 * before)
        >>> solution = implicitly.fixed_point(
        ...     f, torch.zeros_like(x), x, solver=implicitly.PrefixAnderson(), batch_dims=2, causal=True,
        ...     stopping=implicitly.Stopping(rtol=1e-4),
        ... )
        >>> bool(solution.converged.all()), solution.evaluations < 40
        (True, True)
    """

    memory: int = 3
    decay: float = 0.9
    kind: Literal["I", "II", "I+II"] = "I+II"
    plain: int = 4
    regularisation: float | None = None
    suits: ClassVar[str] = "causal sequence models, and their adjoints in bounded memory"

    default_max_steps: ClassVar[int] = 2000

    def __post_init__(self) -> None:
        check_integer("memory", self.memory, 1)
        if not (is_positive(self.decay) and self.decay <= 1):
            raise ValueError(f"decay must be in (0, 1], got {self.decay!r}")
        one_of("kind", self.kind, ("I", "II", "I+II"))
        check_integer("plain", self.plain, 0)
        if self.regularisation is not None and not is_number(self.regularisation, 0):
            raise ValueError(
                f"regularisation must be a number ≥ 0 or None, got {self.regularisation!r}"
            )

    @property
    def keeps_batch(self) -> bool:
        return True

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> PrefixState:
        steps = _time(problem).split(z)
        none = steps.new_zeros(*steps.shape[:2], self.memory, steps.shape[2])
        return PrefixState(z, residual, none, none.clone(), 0)

    def step(self, problem: Problem, state: PrefixState) -> PrefixState:
        time, slot = _time(problem), state.count % self.memory
        z = self._next(problem, time, state)
        moves, changes = state.moves, state.changes
        if torch.is_grad_enabled():
            # The graph of this step keeps the tensors that it has read: write to copies.
            moves, changes = moves.clone(), changes.clone()
        move, change = moves[:, :, slot], changes[:, :, slot]
        move.copy_(time.split(z)).sub_(time.split(state.z))
        change.copy_(time.split(state.residual)).neg_()
        # The old residual lives on in its slot: one vector less while the function is evaluated.
        state.residual = state.z
        residual = problem.residual(z, placed=True)
        change.add_(time.split(residual))
        return replace(
            state, z=z, residual=residual, moves=moves, changes=changes, count=state.count + 1
        )

    def _next(self, problem: Problem, time: TimeSteps, state: PrefixState) -> Tensor:
        """The next iterate, `(batch, n)`."""
        if state.count < (1 if problem.linear else max(self.plain, 1)):
            return problem.placed(state.z + state.residual)
        residual = time.split(state.residual)
        gamma = self.coefficients(state.moves, state.changes, residual, reversed=time.reversed)
        steps = time.split(state.z) + residual
        for i, weight in enumerate(gamma.unsqueeze(3).unbind(2)):
            steps = torch.addcmul(steps, weight, state.moves[:, :, i], value=-1)
            steps = torch.addcmul(steps, weight, state.changes[:, :, i], value=-1)
        return problem.placed(time.join(steps))

    def coefficients(
        self, moves: Tensor, changes: Tensor, residual: Tensor, *, reversed: bool
    ) -> Tensor:
        """`γ` of each time step, `(sequences, T, memory)`; zero where its equations have no solution.

        Args:
            moves: `ΔZ`, `(sequences, T, memory, unknowns)`.
            changes: `ΔR`, shaped like the moves.
            residual: `r`, `(sequences, T, unknowns)`.
            reversed: The sums run from the end of the sequence.
        """
        residual_of_each = residual.unsqueeze(2)
        gram, right = changes @ changes.mT, vecdot(changes, residual_of_each)
        columns = rows = gram.diagonal(dim1=2, dim2=3)
        if self.kind != "II":
            own, own_right = moves @ changes.mT, vecdot(moves, residual_of_each)
            rows = vecdot(moves, moves)
            if self.kind == "I":
                gram, right = own, own_right
            else:
                gram, right, rows = own - gram, own_right - right, rows + columns
        parts = gram.flatten(2), right, columns, rows
        sums = self._sums(torch.cat(parts, dim=2).double(), reversed)
        m = self.memory
        gram, right, columns, rows = sums.split((m * m, m, m, m), dim=2)
        # Lengths only scale the equations: no derivative is taken of them, which is infinite at zero.
        columns, rows = (_reciprocal(part.detach()) for part in (columns, rows))
        gram = gram.unflatten(2, (m, m)) * rows.unsqueeze(3) * columns.unsqueeze(2)
        diagonal = gram.diagonal(dim1=2, dim2=3).detach()
        relative = 16 * torch.finfo(residual.dtype).eps
        relative = relative if self.regularisation is None else self.regularisation
        increase = torch.where(diagonal < 0, -relative, relative) + (rows == 0)
        system = gram + torch.diag_embed(increase)
        gamma = torch.linalg.solve_ex(system, (right * rows).unsqueeze(3)).result.squeeze(3)
        gamma = (gamma * columns).to(residual.dtype)
        return gamma.masked_fill(~gamma.isfinite().all(dim=2, keepdim=True), 0.0)

    def _sums(self, terms: Tensor, reversed: bool) -> Tensor:
        """`Σ_{s≤t} decay^{t−s} termsₛ` of `(sequences, T, entries)`, or from the end."""
        terms = terms.flip(1) if reversed else terms
        sums = affine_scan(terms.new_full((1, terms.shape[1], 1), self.decay), terms)
        return sums.flip(1) if reversed else sums


def _time(problem: Problem) -> TimeSteps:
    if problem.time is None or problem.form != "fixed_point":
        raise TypeError(
            "PrefixAnderson needs the time steps of a causal fixed point: call "
            "fixed_point(f, z0, ..., causal=True) with the time axis as the last of batch_dims (a model: "
            'coefficients="token"), or take Anderson(); as a solver of adjoints, that of such a call'
        )
    return problem.time


def _reciprocal(squares: Tensor) -> Tensor:
    """One over the lengths, zero for vectors of zeros."""
    return torch.where(squares > 0, squares.clamp_min(0).rsqrt(), 0.0)
