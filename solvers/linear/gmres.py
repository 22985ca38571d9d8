"""GMRES: minimal residuals over a Krylov space, for a batch of linear systems."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...options.options import check_optional_integer
from ..interface.problem import Problem
from .preconditioned import Preconditioned

_FIRST_CAPACITY = 8
# Without `restart`, up to this many unknowns a cycle has a step for each of them.
_WHOLE = 128
# Beyond that, steps of the first and of the longest cycle, and the most numbers that a basis may hold.
_FIRST_CYCLE, _LONGEST_CYCLE = 40, 512
_NUMBERS = 2**21


@dataclass
class GMRESState:
    """Krylov basis and its least-squares problem after `count` steps of a cycle."""

    start: Tensor
    residual: Tensor
    """The true residual at `start`, `(batch, n)`."""
    basis: Tensor
    """Orthonormal rows, `(batch, capacity + 1, n)`; unused rows are zero."""
    triangle: Tensor
    """The triangular factor of the Hessenberg matrix, `(batch, capacity, capacity)`."""
    rotations: Tensor
    """The product of all Givens rotations, `(batch, capacity + 1, capacity + 1)`."""
    first_norm: Tensor
    norm: Tensor
    count: int
    cycle: int
    """Number of steps in this cycle."""
    preconditioner: Callable[[Tensor], Tensor] | None

    @property
    def z(self) -> Tensor:
        if self.count == 0:
            return self.start
        k = self.count
        right = (self.first_norm.unsqueeze(1) * self.rotations[:, :k, 0]).unsqueeze(2)
        triangle = self.triangle[:, :k, :k]
        weights = torch.linalg.solve_triangular(triangle, right, upper=True)
        move = torch.bmm(weights.mT, self.basis[:, :k]).squeeze(1)
        return self.start - (move if self.preconditioner is None else self.preconditioner(move))


@dataclass(frozen=True)
class GMRES(Preconditioned):
    """Restarted GMRES with right preconditioning.

    One step is one Arnoldi step of every system: one product with the operator. Givens rotations give the
    smallest residual norm at each step, so that the tolerance is checked inside a cycle; convergence is
    confirmed by a true residual. Classical Gram–Schmidt applied twice makes the basis orthogonal. It is as
    stable as Householder's method and needs two products with the basis instead of one for each vector.

    Attributes:
        restart: Steps of a cycle; storage grows with the steps taken, up to this many vectors. With `None`
            a cycle has a step per unknown, and needs no restart, up to 128 unknowns. For more, the first
            cycle has 40 steps and each further one twice as many, up to a step per unknown, 512 steps,
            or a basis of two million numbers per system.
        preconditioner: `v ↦ M⁻¹v` on flat `(batch, n)` tensors, linear, an approximate inverse of the
            operator `∂r/∂z` (for fixed points, of `∂f/∂z − I`).

    Raises:
        ValueError: `restart` is neither `None` nor a positive integer.
        TypeError: `preconditioner` cannot be called.

    Source: Saad & Schultz 1986; Giraud, Langou & Rozložník 2005 (twice is enough).

    Examples:
        >>> import torch, implicitly
        >>> matrix = torch.tensor([[4.0, 1.0], [2.0, 5.0]])
        >>> right = torch.tensor([6.0, 12.0])
        >>> solver = implicitly.GMRES()
        >>> F = lambda z: matrix @ z - right
        >>> z = implicitly.root(F, torch.zeros(2), solver=solver, linear=True).value
        >>> [round(entry, 4) for entry in z.tolist()]
        [1.0, 2.0]
    """

    restart: int | None = None
    preconditioner: Callable[[Tensor], Tensor] | None = None
    needs: ClassVar[str] = "products"
    suits: ClassVar[str] = "the default adjoint of all but small systems"
    linear_only: ClassVar[bool] = True
    confirm_residual: ClassVar[bool] = True
    lazy_iterate: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        check_optional_integer("restart", self.restart, 1)
        super().__post_init__()

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> GMRESState:
        unknowns = z.shape[1]
        whole = unknowns if unknowns <= _WHOLE else _FIRST_CYCLE
        return self._begin(z, residual, self.restart or max(whole, 1))

    def _begin(self, z: Tensor, residual: Tensor, cycle: int) -> GMRESState:
        batch, n = z.shape
        capacity = min(cycle, _FIRST_CAPACITY)
        norm = torch.linalg.vector_norm(residual, dim=1)
        first = residual * _inverse(norm).unsqueeze(1)
        basis = torch.cat((first.unsqueeze(1), z.new_zeros(batch, capacity, n)), dim=1)
        size = capacity + 1
        identity = torch.eye(size, dtype=z.dtype, device=z.device).expand(batch, size, size)
        triangle = z.new_zeros(batch, capacity, capacity)
        return GMRESState(
            z,
            residual,
            basis,
            triangle,
            identity.clone(),
            norm,
            norm,
            0,
            cycle,
            self.preconditioner,
        )

    def step(self, problem: Problem, state: GMRESState) -> GMRESState:
        if state.count == state.cycle:
            z = state.z
            state = self._begin(z, problem.residual(z), self._next(state))
        state = _make_room(state)
        k, basis = state.count, state.basis

        vector = basis[:, k]
        product = problem.apply(self._precondition(vector))
        size = torch.linalg.vector_norm(product, dim=1)
        rest = product.unsqueeze(1)
        used = basis[:, : k + 1]
        column = torch.bmm(rest, used.mT)
        rest = torch.baddbmm(rest, column, used, alpha=-1)
        again = torch.bmm(rest, used.mT)
        rest = torch.baddbmm(rest, again, used, alpha=-1).squeeze(1)
        column = column + again
        below = torch.linalg.vector_norm(rest, dim=1)
        # A remainder below rounding means that the Krylov space is exhausted: no further direction.
        negligible = 10 * torch.finfo(size.dtype).eps * size
        below = torch.where(below > negligible, below, 0.0)
        following = rest * _inverse(below).unsqueeze(1)

        rotated = torch.bmm(column, state.rotations[:, : k + 1, : k + 1].mT).squeeze(1)
        on = rotated[:, k]
        # A column that depends on the ones before cannot lower the residual: swap it out.
        usable = on.abs() + below > negligible
        length = torch.hypot(torch.where(usable, on, 1.0), below)
        cosine = torch.where(usable, on / length, 0.0).unsqueeze(1)
        sine = torch.where(usable, below / length, 1.0).unsqueeze(1)
        upper, lower = state.rotations[:, k], state.rotations[:, k + 1]
        upper, lower = cosine * upper + sine * lower, cosine * lower - sine * upper
        if torch.is_grad_enabled():
            # The graph of this step keeps the tensors that it has read: write to copies.
            state = _copy(state)
        state.basis[:, k + 1] = following
        state.rotations[:, k] = upper
        state.rotations[:, k + 1] = lower
        state.triangle[:, :k, k] = rotated[:, :k]
        state.triangle[:, k, k] = torch.where(usable, length, 1.0)
        norm = state.first_norm * lower[:, 0].abs()
        return replace(state, norm=norm, count=k + 1)

    def _next(self, state: GMRESState) -> int:
        """Steps of the next cycle, the same whatever the other systems of the batch do."""
        if self.restart is not None:
            return self.restart
        unknowns = state.start.shape[1]
        most = min(_LONGEST_CYCLE, unknowns, max(_NUMBERS // unknowns, _FIRST_CYCLE))
        return min(2 * state.cycle, most)


def _inverse(norm: Tensor) -> Tensor:
    """`1 / norm`, and 0 for 0; derivatives are 0 there as well."""
    return norm.masked_fill(norm == 0, torch.inf).reciprocal()


def _make_room(state: GMRESState) -> GMRESState:
    """Storage for one more step."""
    capacity = state.triangle.shape[1]
    if state.count < capacity:
        return state
    more = min(capacity, state.cycle - capacity)
    rotations = torch.nn.functional.pad(state.rotations, (0, more, 0, more))
    unit = torch.arange(capacity + 1, capacity + 1 + more, device=rotations.device)
    rotations[:, unit, unit] = 1.0
    return replace(
        state,
        basis=torch.nn.functional.pad(state.basis, (0, 0, 0, more)),
        triangle=torch.nn.functional.pad(state.triangle, (0, more, 0, more)),
        rotations=rotations,
    )


def _copy(state: GMRESState) -> GMRESState:
    return replace(
        state,
        basis=state.basis.clone(),
        triangle=state.triangle.clone(),
        rotations=state.rotations.clone(),
    )
