"""LSMR: least squares by bidiagonalisation, for a batch of linear systems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..interface.problem import Problem
from ..interface.solution import Status
from ..interface.solver import Solver
from .rows import norm, ratio


@dataclass
class LSMRState:
    """Iterate, bidiagonalisation and two QR factorisations; scalars are `(batch, 1)`."""

    z: Tensor
    residual: Tensor
    """The residual by recursion."""
    left: Tensor
    """`u` of the bidiagonalisation, a unit vector or zero."""
    right: Tensor
    """`v`, a unit vector or zero."""
    alpha: Tensor
    direction: Tensor
    """`h`."""
    direction_product: Tensor
    """`A h − A v`: the part of `A h` that comes from earlier directions."""
    update: Tensor
    """`h̄`, along which `z` moves."""
    update_product: Tensor
    """`A h̄`."""
    alpha_bar: Tensor
    zeta_bar: Tensor
    rho: Tensor
    rho_bar: Tensor
    cosine_bar: Tensor
    sine_bar: Tensor
    scale: Tensor
    """The largest element of the bidiagonal matrix so far."""
    end_status: Tensor


@dataclass(frozen=True)
class LSMR(Solver):
    """The least-squares solution of minimum norm, by one product with the operator and one with its
    transpose a step, in nine vectors.

    `‖Aᵀr‖` falls at every step, and so does `‖r‖`, also for indefinite, singular and very non-normal
    operators, where GMRES and BiCGStab may stagnate. The number of steps grows with the condition number,
    as for conjugate gradients on the normal equations, which are not formed.

    In `root` and `fixed_point` the transpose of the operator comes from autograd; a `Problem` alone needs
    `Problem(transpose=...)`.

    Source: Fong & Saunders 2011, section 2 and algorithm LSMR; Golub & Kahan 1965.

    Examples:
        >>> import torch, implicitly
        >>> matrix = torch.tensor([[0.0, 1.0], [-5.0, 0.0]])
        >>> right = torch.tensor([2.0, -5.0])
        >>> F = lambda z: matrix @ z - right
        >>> z = implicitly.root(F, torch.zeros(2), solver=implicitly.LSMR(), linear=True).value
        >>> [round(entry, 4) for entry in z.tolist()]
        [1.0, 2.0]
    """

    needs: ClassVar[str] = "products, also transposed"
    suits: ClassVar[str] = "least squares, where GMRES stagnates"
    linear_only: ClassVar[bool] = True
    confirm_residual: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 2000

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> LSMRState:
        # With r the residual and A its operator, the equation for the move s is A s = −r.
        left, beta = _unit(-residual)
        right, alpha = _unit(problem.linearization(z).vjp(left))
        none, one = torch.zeros_like(z), torch.ones_like(beta)
        nothing = torch.zeros_like(
            residual
        )  # There may be other numbers of equations than of unknowns.
        return LSMRState(
            z, residual, left, right, alpha,
            direction=right, direction_product=nothing, update=none, update_product=nothing,
            alpha_bar=alpha, zeta_bar=alpha * beta, rho=one, rho_bar=one,
            cosine_bar=one, sine_bar=torch.zeros_like(beta),
            scale=alpha, end_status=torch.zeros_like(beta, dtype=torch.int64).squeeze(1),
        )  # fmt: skip

    def step(self, problem: Problem, state: LSMRState) -> LSMRState:
        product, left, beta, right, alpha = _bidiagonalise(problem, state)

        rho = torch.hypot(state.alpha_bar, beta)
        cosine, sine = ratio(state.alpha_bar, rho), ratio(beta, rho)
        theta = sine * alpha
        theta_bar = state.sine_bar * rho
        on = state.cosine_bar * rho
        rho_bar = torch.hypot(on, theta)
        cosine_bar, sine_bar = ratio(on, rho_bar), ratio(theta, rho_bar)
        zeta = cosine_bar * state.zeta_bar

        back = ratio(theta_bar * rho, state.rho * state.rho_bar)
        length = ratio(zeta, rho * rho_bar)
        forth = ratio(theta, rho)
        direction_product = state.direction_product + product
        update = state.direction - back * state.update
        update_product = direction_product - back * state.update_product
        residual = state.residual + length * update_product
        zeta_bar = -sine_bar * state.zeta_bar
        scale = torch.maximum(state.scale, torch.maximum(alpha, beta))
        # |ζ̄| = ‖Aᵀr‖ is zero to rounding: the residual is orthogonal to the range; more steps are noise.
        ended = zeta_bar.abs() <= 10 * torch.finfo(zeta_bar.dtype).eps * scale * norm(residual)
        return LSMRState(
            state.z + length * update,
            residual,
            left,
            right,
            alpha,
            direction=right - forth * state.direction,
            direction_product=-forth * direction_product,
            update=update,
            update_product=update_product,
            alpha_bar=cosine * alpha,
            zeta_bar=zeta_bar,
            rho=rho,
            rho_bar=rho_bar,
            cosine_bar=cosine_bar,
            sine_bar=sine_bar,
            scale=scale,
            end_status=torch.where(ended, int(Status.STALLED), 0).squeeze(1),
        )


def _bidiagonalise(
    problem: Problem, state: LSMRState
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`A v`, and the next `u`, `β`, `v`, `α` of Golub & Kahan 1965."""
    product = problem.apply(state.right)
    left, beta = _unit(
        product - state.alpha * state.left, torch.maximum(norm(product), state.alpha)
    )
    back = problem.linearization(state.z).vjp(left)
    right, alpha = _unit(back - beta * state.right, torch.maximum(norm(back), beta))
    return product, left, beta, right, alpha


def _unit(vector: Tensor, size: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Direction and length of a vector; both zero where it is a rounding error of terms of `size`."""
    length = norm(vector)
    if size is not None:
        length = torch.where(length > 10 * torch.finfo(length.dtype).eps * size, length, 0.0)
    return vector * length.masked_fill(length == 0, torch.inf).reciprocal(), length
