"""Quadratic programmes as an equation: the conditions of Karush, Kuhn and Tucker, without inequalities.

    Q z + q + Aᵀ y + Gᵀ λ = 0,    A z = b,    λ ≥ 0,  h − G z ≥ 0,  λ (h − G z) = 0

The last three hold where `φ(λ, h − G z) = 0` for `φ(a, b) = a + b − √(a² + b²)`, so that all of it is a
root, and has the derivatives of one. Where a multiplier and its slack are both zero the solution has a kink,
and the derivative is one between those of both sides.

Source: Fischer 1992 (the function); Amos & Kolter 2017 (the layer); Nocedal & Wright 2006, theorem 16.4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...solvers import Solution
from ..equations.differentiation import transforming
from ..functional import root
from .complementarity import fischer_burmeister

# Negative eigenvalues of Q of so many roundings of the largest are rounding.
_NEGATIVE_UNITS = 100


class QuadraticProgramme(NamedTuple):
    """The unknowns of a quadratic programme.

    Attributes:
        z: The minimiser, `(..., n)`.
        equality: Multipliers of `A z = b`, `(..., p)`.
        inequality: Multipliers of `G z ≤ h`, ≥ 0, `(..., m)`.

    Examples:
        >>> import torch, implicitly
        >>> I, one = torch.eye(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        >>> found = implicitly.quadratic_programme(I, -3 * one, G=I, h=one).value
        >>> round(found.z.item(), 6), round(found.inequality.item(), 6)
        (1.0, 2.0)
    """

    z: Tensor
    equality: Tensor
    inequality: Tensor


def quadratic_programme(
    Q: Tensor,
    q: Tensor,
    A: Tensor | None = None,
    b: Tensor | None = None,
    G: Tensor | None = None,
    h: Tensor | None = None,
    **options: Any,
) -> Solution:
    """Minimise `½ zᵀQz + qᵀz` subject to `A z = b` and `G z ≤ h`, differentiably in all of these.

    Dense, for few unknowns and constraints. Leading axes of `q` index independent problems; those of the
    other tensors are the same or broadcast.

    Args:
        Q: Symmetric, positive semidefinite, `(..., n, n)`.
        q: `(..., n)`.
        A: `(..., p, n)`, of full row rank; `None` for no equations.
        b: `(..., p)`.
        G: `(..., m, n)`; `None` for no inequalities.
        h: `(..., m)`.
        options: Options of `root`: `solver`, `stopping`, `gradient`, `on_failure`, ….

    Returns:
        The solution; its `value` is a `QuadraticProgramme`.

    Raises:
        SolveError: The constraints contradict each other, or the objective has no bound.
        ValueError: `Q` has a negative eigenvalue, or one of `A` and `b`, or of `G` and `h`, is missing.

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor([0.9, 0.4, -0.5], dtype=torch.float64, requires_grad=True)
        >>> I = torch.eye(3, dtype=torch.float64)
        >>> one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        >>> z = implicitly.quadratic_programme(I, -x, one.expand(1, 3), one, -I, zero).value.z
        >>> z[0].backward()  # The projection onto the simplex.
        >>> [round(entry, 4) for entry in z.abs().tolist()], (x.grad.round(decimals=4) + 0.0).tolist()
        ([0.75, 0.25, 0.0], [0.5, -0.5, 0.0])
    """
    _check(Q, (A, b), (G, h))
    n = q.shape[-1]
    A = q.new_zeros(0, n) if A is None else A
    b = q.new_zeros(0) if b is None else b
    G = q.new_zeros(0, n) if G is None else G
    h = q.new_zeros(0) if h is None else h
    batch = q.shape[:-1]
    start = QuadraticProgramme(
        torch.zeros_like(q),
        q.new_zeros(*batch, A.shape[-2]),
        q.new_ones(*batch, G.shape[-2]),
    )
    return root(_conditions, start, Q, q, A, b, G, h, batch_dims=len(batch), **options)


def _conditions(
    unknown: QuadraticProgramme, Q: Tensor, q: Tensor, A: Tensor, b: Tensor, G: Tensor, h: Tensor
) -> QuadraticProgramme:
    z, equality, inequality = unknown
    gradient = _times(Q, z) + q + _times(A.mT, equality) + _times(G.mT, inequality)
    complementary = fischer_burmeister(inequality, h - _times(G, z))
    return QuadraticProgramme(gradient, _times(A, z) - b, complementary)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _check(Q: Tensor, equations: tuple[Any, Any], inequalities: tuple[Any, Any]) -> None:
    for names, pair in (("A and b", equations), ("G and h", inequalities)):
        if (pair[0] is None) != (pair[1] is None):
            raise ValueError(f"{names} must be given together, got only one of them")
    if transforming() or Q.numel() == 0:
        return
    values = torch.linalg.eigvalsh(Q.detach())
    eps = torch.finfo(Q.dtype).eps
    least, largest = values.amin().item(), values.abs().amax().item()
    if least < -_NEGATIVE_UNITS * eps * largest:
        raise ValueError(
            f"Q must be positive semidefinite, got one with the eigenvalue {least:.3g}: the objective is not "
            "convex, and its stationary points may be no minima"
        )
