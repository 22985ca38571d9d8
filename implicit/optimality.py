"""Conditions of optimality as fixed-point maps: projected and proximal gradient, and Sinkhorn's scaling.

A minimiser of `φ` over a convex set, or of `φ` plus a convex function, is a fixed point of a gradient step
with a projection or a proximal map behind it. Given to `fixed_point` or `ImplicitLayer`, it has derivatives
as any other.

Source: Parikh & Boyd 2014, sections 4.2 and 6 (maps and proximal operators); Blondel et al. 2022 (their
derivatives); Duchi, Shalev-Shwartz, Singer & Chandra 2008 (the simplex); Cuturi 2013; Peyré & Cuturi 2019,
section 4.4 (Sinkhorn's iteration of logarithms).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Projection = Callable[[Tensor], Tensor]
Proximal = Callable[[Tensor, Any], Tensor]


def onto_box(z: Tensor, lower: Any = None, upper: Any = None) -> Tensor:
    """The nearest point with `lower ≤ z ≤ upper`, entry by entry; `None` for no bound.

    Examples:
        >>> import torch
        >>> onto_box(torch.tensor([-1.0, 0.5, 3.0]), 0.0, 1.0).tolist()
        [0.0, 0.5, 1.0]
    """
    if lower is not None:
        z = torch.maximum(z, torch.as_tensor(lower, dtype=z.dtype, device=z.device))
    if upper is not None:
        z = torch.minimum(z, torch.as_tensor(upper, dtype=z.dtype, device=z.device))
    return z


def onto_simplex(z: Tensor, total: float = 1.0) -> Tensor:
    """The nearest point with entries ≥ 0 whose sum along the last axis is `total`.

    Raises:
        ValueError: `total` is not above zero.

    Examples:
        >>> import torch
        >>> onto_simplex(torch.tensor([0.6, 0.6, -1.0])).tolist()
        [0.5, 0.5, 0.0]
    """
    if not total > 0:
        raise ValueError(f"total must be a number > 0, got {total!r}")
    ordered = z.sort(dim=-1, descending=True).values
    excess = ordered.cumsum(-1) - total
    count = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    kept = (ordered * count > excess).sum(-1, keepdim=True)
    shift = excess.gather(-1, kept - 1) / kept
    return (z - shift).clamp(min=0.0)


def onto_ball(z: Tensor, radius: float = 1.0) -> Tensor:
    """The nearest point whose norm along the last axis is at most `radius`.

    Raises:
        ValueError: `radius` is not above zero.

    Examples:
        >>> import torch
        >>> [round(x, 6) for x in onto_ball(torch.tensor([3.0, 4.0])).tolist()]
        [0.6, 0.8]
    """
    if not radius > 0:
        raise ValueError(f"radius must be a number > 0, got {radius!r}")
    square = z.square().sum(-1, keepdim=True)
    # The root never sees a zero, whose derivative is infinite.
    return z * (radius / square.clamp(min=radius**2).sqrt())


def soft_threshold(z: Tensor, weight: Any) -> Tensor:
    """The proximal map of `weight · Σ|z|`: entries are moved towards zero by `weight`, and stop there.

    Examples:
        >>> import torch
        >>> soft_threshold(torch.tensor([-3.0, 0.5]), 1.0).tolist()
        [-2.0, 0.0]
    """
    return z - torch.maximum(torch.minimum(z, 0 * z + weight), 0 * z - weight)


def projected_gradient(
    objective: Callable[..., Tensor], project: Projection, step: float
) -> Callable[..., Tensor]:
    """The map `z ↦ P(z − step · ∇φ(z, *args))`, whose fixed points are minimisers over a convex set.

    Args:
        objective: `φ`: a number, or one for each problem; convex for minimisers.
        project: `P`, such as `onto_simplex`.
        step: Any step above zero has the same fixed points; below `2 / L` for gradients with the Lipschitz
            constant `L`, plain iteration converges.

    Raises:
        ValueError: `step` is not above zero.

    Examples:
        >>> import torch, implicitly
        >>> x = torch.tensor([0.9, 0.4, -0.5], dtype=torch.float64, requires_grad=True)
        >>> nearest = implicitly.projected_gradient(
        ...     lambda z, x: 0.5 * (z - x).square().sum(), implicitly.onto_simplex, step=0.5
        ... )
        >>> z = implicitly.fixed_point(nearest, torch.zeros(3, dtype=torch.float64), x).value
        >>> [round(entry, 6) for entry in z.tolist()]
        [0.75, 0.25, 0.0]
    """
    return proximal_gradient(objective, lambda z, _: project(z), step)


def proximal_gradient(
    objective: Callable[..., Tensor], proximal: Proximal, step: float
) -> Callable[..., Tensor]:
    """The map `z ↦ prox(z − step · ∇φ(z, *args), step)`: fixed points minimise `φ` plus a convex function.

    Args:
        objective: `φ`, smooth: a number, or one for each problem.
        proximal: The proximal map of the convex function times its second argument, the step:
            `lambda z, step: soft_threshold(z, step * weight)` for `weight · Σ|z|`.
        step: See `projected_gradient`.

    Raises:
        ValueError: `step` is not above zero.

    Examples:
        >>> import torch, implicitly
        >>> lasso = implicitly.proximal_gradient(
        ...     lambda z, x: 0.5 * (z - x).square().sum(),
        ...     lambda z, step: implicitly.soft_threshold(z, 0.3 * step),
        ...     step=0.5,
        ... )
        >>> x = torch.tensor([1.0, 0.2], dtype=torch.float64)
        >>> z = implicitly.fixed_point(lasso, torch.zeros(2, dtype=torch.float64), x).value
        >>> [round(entry, 6) for entry in z.tolist()]
        [0.7, 0.0]
    """
    if not step > 0:
        raise ValueError(f"step must be a number > 0, got {step!r}")

    def mapped(z: Tensor, *args: Any) -> Tensor:
        gradient = torch.func.grad(lambda z: objective(z, *args).sum())(z)
        return proximal(z - step * gradient, step)

    return mapped


def sinkhorn(z: Tensor, cost: Tensor, a: Tensor, b: Tensor, epsilon: float) -> Tensor:
    """One sweep of Sinkhorn's iteration for entropic transport, a fixed-point map of the second potential.

    Potentials are those of logarithms, so that small `epsilon` does not underflow; their mean is zero, since
    a constant may be moved from one potential to the other.

    Args:
        z: The potential of the columns, `(..., m)`.
        cost: `(..., n, m)`.
        a: Masses of the rows, above zero, `(..., n)`.
        b: Masses of the columns, above zero, `(..., m)`, of the same sum.
        epsilon: The weight of the entropy.

    Examples:
        >>> import torch, implicitly
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> a = b = torch.tensor([0.5, 0.5], dtype=torch.float64)
        >>> z = implicitly.fixed_point(implicitly.sinkhorn, torch.zeros_like(b), cost, a, b, 0.5).value
        >>> plan = implicitly.transport_plan(z, cost, a, epsilon=0.5)
        >>> torch.allclose(plan.sum(0), b), torch.allclose(plan.sum(1), a)
        (True, True)
    """
    rows = _row_potential(z, cost, a, epsilon)
    scaled = (rows.unsqueeze(-1) - cost) / epsilon
    columns = epsilon * (torch.log(b) - torch.logsumexp(scaled, dim=-2))
    return columns - columns.mean(-1, keepdim=True)


def transport_plan(z: Tensor, cost: Tensor, a: Tensor, epsilon: float) -> Tensor:
    """The plan of a column potential, `(..., n, m)`; see `sinkhorn`.

    Examples:
        >>> import torch
        >>> a = torch.tensor([0.5, 0.5])
        >>> transport_plan(torch.zeros(2), torch.zeros(2, 2), a, epsilon=1.0).tolist()
        [[0.25, 0.25], [0.25, 0.25]]
    """
    rows = _row_potential(z, cost, a, epsilon)
    return torch.exp((rows.unsqueeze(-1) + z.unsqueeze(-2) - cost) / epsilon)


def _row_potential(z: Tensor, cost: Tensor, a: Tensor, epsilon: float) -> Tensor:
    scaled = (z.unsqueeze(-2) - cost) / epsilon
    return epsilon * (torch.log(a) - torch.logsumexp(scaled, dim=-1))
