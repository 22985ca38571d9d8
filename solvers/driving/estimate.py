"""The step of Newton's method that is still missing: an estimate of the error of `z`.

With the Jacobian `J` at the iterate and the residual `r = J δ` let

    G   = |J| |z|                    the size of the terms of each equation
    u_j = min_i G_i / |J_ij|         the least size of unknown j that any equation notices

The relative error of unknown j is `|δ_j| / max(|z_j|, u_j)`. Multiplying an equation or an unknown by a
constant changes nothing. Up to 64 unknowns `J` is formed; for more, products give what is needed of it:
with random signs `s`, `(J (|z| s))_i²` has the mean `Σ_j (J_ij z_j)²`, a size of the terms within a factor
of the root of their number, and `(Jᵀ (s / G))_j²` in the same way one of `1 / u_j`. `δ` then comes from
GMRES for the scaled equation, and where that falls short from factors of `J`.

Where `J` is formed, the rounding of each equation to `eps G` is part of the error: `|J⁻¹| eps G`, the
componentwise condition. If that is as large as the unknown, `|J⁻¹| |r|` takes the place of the step.

Of a fixed point, whose residual has the unit of the unknown, the error is `‖δ‖ / ‖z‖`, as its tolerance is.

Source: Dennis & Schnabel 1983, section 7.2 (relative steps and typical sizes); Oettli & Prager 1964
(the componentwise backward error); Skeel 1979 (the componentwise condition); Bekas, Kokiopoulou & Saad
2007 (diagonals from products).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..interface.golden import golden_signs
from ..interface.problem import Linearization, Problem
from ..linear.gmres import GMRES
from ..linear.rows import product
from ..linear.sparse_lu import SparseLU

Product = Callable[[Tensor], Tensor]

# A residual of so many roundings of the terms of its equation is met exactly.
_ROUNDING_UNITS = 4
# A step that does not reproduce the residual to this part of it solves no linear equation.
_REPRODUCED = 0.1
# Where rounding of the equation changes an unknown by more than this part, no digit of a step is right.
_DIGITS_LEFT = 0.1
# Dense Jacobians of a batch hold at most so many numbers; so many columns come from one batched product,
# which takes the time of one.
_MOST_ENTRIES, _FEW_UNKNOWNS = 2**23, 64
# Of so many numbers Jacobians cost less than the steps of GMRES.
_FEW_ENTRIES = 2**14
# For more unknowns GMRES may take so many steps, before factors of dense or sparse Jacobians.
_KRYLOV_STEPS = 40
_LONGEST = 200
MOST_DENSE, _MOST_SPARSE = 2048, 2**16
# Vectors of random signs for each size that is estimated.
_PROBES = 2


class Estimate(NamedTuple):
    """The missing Newton step, in units of the accepted size; entries are per system.

    Attributes:
        error: The relative error; infinite where no step solves the linear equation, NaN where none could
            be looked for.
        to_zero: `max_j |δ_j| / |z0_j|` over the unknowns with a larger relative error than accepted; of a
            fixed point `‖δ‖ / ‖z0‖`.
        at_rounding: Every equation is met to rounding.
        residual: The residual at `z`, `(batch, n)`.
        rounding: The relative error that rounding of the equation can cause; 0 where it is not known.
    """

    error: Tensor
    to_zero: Tensor
    at_rounding: Tensor
    residual: Tensor
    rounding: Tensor

    @property
    def stated(self) -> Tensor:
        """The error with that of rounding, which no solver can avoid."""
        return torch.where(self.rounding > self.error, self.rounding, self.error)

    def where(self, mask: Tensor, other: Estimate) -> Estimate:
        """The estimate of `other` for the systems of a mask."""
        parts = zip(self, other, strict=True)
        return Estimate(*(torch.where(_like(mask, mine), its, mine) for mine, its in parts))


def estimated(
    problem: Problem,
    z: Tensor,
    first: Tensor,
    xtol: float,
    which: Tensor | None = None,
    together: int = 1,
) -> Estimate:
    """The missing Newton step at `z`.

    Up to 64 unknowns one evaluation and `n` products, for more about ten products where GMRES converges
    fast.

    Args:
        problem: The systems.
        z: Their iterates.
        first: The sizes that the unknowns had, by which one that goes to zero is measured.
        xtol: The relative error that is accepted.
        which: The systems that matter, boolean, `(batch,)`; `None` for all.
        together: So many consecutive systems depend on each other: the error that one inherits from
            another is part of its own.
    """
    batch, n = z.shape
    if which is not None and problem.restrict is not None and 2 * int(which.sum()) <= batch:
        rows = which.nonzero().flatten()
        part = estimated(problem.restrict(rows), z[rows], first[rows], xtol)
        return Estimate(*(p.new_zeros(batch, *p.shape[1:]).index_copy(0, rows, p) for p in part))
    if problem.form == "fixed_point":
        return _of_fixed_points(problem, z, first, which, together)
    if n > _FEW_UNKNOWNS or together > 1:
        return _by_products(problem, z, first, xtol, which, together)
    at_once = max(_MOST_ENTRIES // max(n * n, 1), 1)
    if batch <= at_once:
        return _by_matrices(problem, z, first, xtol)
    if problem.restrict is None:
        return _by_products(problem, z, first, xtol, which)
    chunks = torch.arange(batch, device=z.device).split(at_once)
    parts = [_by_matrices(problem.restrict(i), z[i], first[i], xtol) for i in chunks]
    return Estimate(*map(torch.cat, zip(*parts, strict=True)))


def _by_matrices(problem: Problem, z: Tensor, first: Tensor, xtol: float) -> Estimate:
    """The estimate from Jacobians of all systems."""
    linearization, residual = _linearized(problem, z)
    with torch.no_grad():
        matrix = _jacobian(linearization, residual)
        size, entries = problem.size(z), matrix.abs()
        terms = product(entries, size)
        least = torch.where(entries > 0, terms.unsqueeze(2) / entries, torch.inf).amin(dim=1)
        typical = torch.maximum(size, torch.where(torch.isfinite(least), least, 0.0))
        unit = _nonzero(typical, first)
        rows = torch.where(terms > 0, terms, product(entries, unit))
        rows = torch.where(rows > 0, rows, 1.0).unsqueeze(2)
        eps = problem.eps(z)
        # Twice the digits where there are more: of an inverse the last ones are lost.
        scaled = (matrix * unit.unsqueeze(1) / rows).double()
        right = (residual.unsqueeze(2) / rows).double()
        inverse = torch.linalg.inv_ex(scaled).inverse
        step = torch.bmm(inverse, right)
        off = (torch.bmm(scaled, step) - right).abs().amax(dim=(1, 2))
        solves = off <= _REPRODUCED * right.abs().amax(dim=(1, 2))
        bound = (inverse.abs() @ right.abs()).squeeze(2)
        # An equation whose terms are all zero is not rounded.
        rounding = (inverse.abs() @ torch.where(terms > 0, eps, 0.0).double().unsqueeze(2)).squeeze(
            2
        )
        step = torch.where(rounding <= _DIGITS_LEFT, step.squeeze(2).abs(), bound)
        met = residual.abs() <= _ROUNDING_UNITS * eps * terms
        sure = torch.where(rounding > 0, rounding * unit / typical, 0.0).amax(dim=1).to(z.dtype)
        step = (step * unit).to(z.dtype)
        return _estimate(step, typical, first, xtol, solves, met, residual)._replace(rounding=sure)


def _by_products(
    problem: Problem,
    z: Tensor,
    first: Tensor,
    xtol: float,
    which: Tensor | None,
    together: int = 1,
) -> Estimate:
    """The estimate by GMRES, and where that falls short from factors."""
    linearization, residual = _linearized(problem, z)
    with torch.no_grad():
        size = problem.size(z)
        terms = _sizes(linearization.jvp, size)
        unit = _nonzero(size, first)
        rows = terms if bool((size > 0).all()) else _sizes(linearization.jvp, unit)
        rows = torch.where(rows > 0, rows, 1.0)
        column = _sizes(linearization.vjp, 1.0 / rows)
        least = torch.where(column > 0, 1.0 / column, 0.0)
        typical = torch.maximum(size, torch.where(torch.isfinite(least), least, 0.0))
        unit = _nonzero(typical, first)
        right = residual / rows
        if which is not None:
            right = torch.where(which.unsqueeze(1), right, 0.0)

        def scaled(y: Tensor) -> Tensor:
            return linearization.jvp(unit * y) / rows

        def turned(y: Tensor) -> Tensor:
            return unit * linearization.vjp(y / rows)

        step, solves = _krylov(scaled, right, together)
        met = residual.abs() <= _ROUNDING_UNITS * problem.eps(z) * terms
        open_ = ~solves & ~met.all(dim=1)
        if together > 1:
            found = _estimate((step * unit).abs(), typical, first, xtol, solves, met, residual)
            return _unknown(found, open_)
        if z.shape[1] > MOST_DENSE and z.shape[1] <= _MOST_SPARSE and bool(open_.any()):
            equation = _equation(scaled, right, problem.precision, turned)
            step, solves = _sparse(equation, right, step, solves)
        found = _estimate((step * unit).abs(), typical, first, xtol, solves, met, residual)
        if z.shape[1] > _MOST_SPARSE:
            finite = torch.isfinite(right).all(dim=1) & torch.isfinite(step).all(dim=1)
            return _unknown(found, open_ & finite)
    if z.shape[1] <= MOST_DENSE and bool(open_.any()):
        return _dense_where(open_, found, problem, z, first, xtol)
    return found


def _of_fixed_points(
    problem: Problem, z: Tensor, first: Tensor, which: Tensor | None, together: int
) -> Estimate:
    """The estimate in norms, by GMRES, and where that falls short from Jacobians."""
    linearization, residual = _linearized(problem, z)
    with torch.no_grad():
        right = residual if which is None else torch.where(which.unsqueeze(1), residual, 0.0)
        eps, tiny = problem.eps(z), torch.finfo(z.dtype).tiny
        # Far out, where `f(z)` differs from `z` by less than a rounding, that may move the solution anywhere.
        rounded = eps * z.abs() * golden_signs(z, first=1)
        few = z.shape[0] * z.shape[1] ** 2 <= _FEW_ENTRIES and together == 1
        if few:
            matrix = _jacobian(linearization, right)
            (step, solves), (moved, near) = _directly(matrix, (right, rounded))
            sizes = product(matrix.square(), z.square()).sqrt()
        else:
            sizes = _sizes(linearization.jvp, z.abs())
            step, solves = _solved(linearization, right, together)
            moved, near = _solved(linearization, rounded, together)
        length, size, start = _norm(step), _norm(z).clamp_min(tiny), _norm(first)
        singular = z.shape[1] <= MOST_DENSE and together == 1
        rounding = torch.where(near, _norm(moved) / size, torch.inf if singular else 0.0)
        solves = solves & (rounding <= _DIGITS_LEFT)
        terms = torch.maximum(_norm(sizes), size)
        met = _norm(residual) <= _ROUNDING_UNITS * eps * terms
        found = Estimate(
            torch.where(solves, length / size, torch.inf),
            torch.where(solves, length / start.clamp_min(tiny), torch.inf),
            met & (rounding <= _DIGITS_LEFT),
            residual,
            rounding,
        )
        if few:  # Of a derivative that is not finite nothing is learnt about a value that is.
            return _unknown(found, ~torch.isfinite(matrix).all(dim=(1, 2)))
        return found if together == 1 else _unknown(found, ~solves)


def _jacobian(linearization: Linearization, like: Tensor) -> Tensor:
    return linearization.jacobian(like).detach().to(like.dtype)


def _directly(matrix: Tensor, rights: tuple[Tensor, ...]) -> list[tuple[Tensor, Tensor]]:
    """`J⁻¹ b` by factors of `J` for each `b`, and the systems that it solves."""
    columns = torch.stack(rights, dim=2)
    found = torch.linalg.solve_ex(matrix, columns).result
    off = torch.linalg.vector_norm(matrix @ found - columns, dim=1)
    solves = off <= _REPRODUCED * torch.linalg.vector_norm(columns, dim=1)
    return list(zip(found.unbind(2), solves.unbind(1), strict=True))


def _solved(linearization: Linearization, right: Tensor, together: int) -> tuple[Tensor, Tensor]:
    """`J⁻¹ b` by GMRES, and where that falls short from Jacobians; the systems that it solves."""
    step, solves = _krylov(linearization.jvp, right, together)
    batch, n = right.shape
    large = n > MOST_DENSE or batch * n * n > _MOST_ENTRIES
    if large or together > 1 or bool(solves.all()):
        return step, solves
    ((direct, regular),) = _directly(_jacobian(linearization, right), (right,))
    return torch.where(solves.unsqueeze(1), step, direct), solves | regular


def _krylov(apply: Product, right: Tensor, together: int = 1) -> tuple[Tensor, Tensor]:
    """`A⁻¹ b` by GMRES, and the systems that it solves to the accuracy that is needed."""
    shape, whole = right.shape, right.reshape(right.shape[0] // together, -1)

    def applied(y: Tensor) -> Tensor:
        return apply(y.reshape(shape)).reshape(whole.shape)

    solver, equation = GMRES(), _equation(applied, whole)
    state = solver.init(equation, torch.zeros_like(whole), -whole)
    enough = _REPRODUCED * state.norm
    # A change of the first time step is seen at the last one after as many products as lie between.
    most = min(_KRYLOV_STEPS + 2 * (together - 1), _LONGEST)
    for _ in range(min(most, whole.shape[1])):
        if not bool((state.norm > enough).any()):
            break
        state = solver.step(equation, state)
    solves = (state.norm <= enough) & torch.isfinite(state.norm)
    return state.z.reshape(shape), solves.repeat_interleave(together)


def _sparse(
    equation: Problem, right: Tensor, step: Tensor, solves: Tensor
) -> tuple[Tensor, Tensor]:
    """`A⁻¹ b` from sparse factors, for the systems that are not solved."""
    solver = SparseLU(remember=False)
    state = solver.init(equation, torch.zeros_like(right), -right)
    if state.matrices is None:  # Too full.
        return step, solves
    state = solver.step(equation, state)
    close = _norm(state.residual) <= _REPRODUCED * _norm(right)
    return torch.where(solves.unsqueeze(1), step, state.z), solves | close


def _equation(
    apply: Product,
    right: Tensor,
    precision: torch.dtype | None = None,
    turned: Product | None = None,
) -> Problem:
    """`A y = b`, with the residual `A y − b`."""
    return Problem(
        function=lambda y: right - apply(y),
        form="root",
        operator=lambda y: -apply(y),
        transpose=None if turned is None else lambda y: -turned(y),
        precision=precision,
    )


def _dense_where(
    open_: Tensor, found: Estimate, problem: Problem, z: Tensor, first: Tensor, xtol: float
) -> Estimate:
    """The estimate from Jacobians of the systems `open_`, a few at a time; unknown where that cannot be."""
    batch, n = z.shape
    at_once = max(_MOST_ENTRIES // (n * n), 1)
    if batch <= at_once:
        return found.where(open_, _by_matrices(problem, z, first, xtol))
    if problem.restrict is None:
        return _unknown(found, open_)
    for some in open_.nonzero().flatten().split(at_once):
        part = _by_matrices(problem.restrict(some), z[some], first[some], xtol)
        found = Estimate(*(f.index_copy(0, some, p) for f, p in zip(found, part, strict=True)))
    return found


def _estimate(
    step: Tensor,
    typical: Tensor,
    first: Tensor,
    xtol: float,
    solves: Tensor,
    met: Tensor,
    residual: Tensor,
) -> Estimate:
    """The estimate from the sizes of the steps, `(batch, n)`, and the systems whose equation they solve."""
    relative = torch.where(step > 0, step / typical, 0.0)
    tiny = torch.finfo(step.dtype).tiny
    distance = step / torch.where(first > 0, first, typical).clamp_min(tiny)
    return Estimate(
        torch.where(solves, relative.amax(dim=1), torch.inf),
        torch.where(solves, distance.masked_fill(relative <= xtol, 0.0).amax(dim=1), torch.inf),
        met.all(dim=1),
        residual,
        torch.zeros_like(residual[:, 0]),
    )


def _unknown(found: Estimate, which: Tensor) -> Estimate:
    """The estimate with NaN for the systems of which nothing could be found out."""
    return found._replace(
        error=torch.where(which, torch.nan, found.error),
        to_zero=torch.where(which, torch.nan, found.to_zero),
    )


def _linearized(problem: Problem, z: Tensor) -> tuple[Linearization, Tensor]:
    linearization = problem.linearization(z)
    residual = linearization.residual
    assert residual is not None  # for the type checker: the problem is not linear
    return linearization, residual.detach()


def _nonzero(size: Tensor, first: Tensor) -> Tensor:
    """The sizes; of an unknown that is exactly zero only the start tells one."""
    return torch.where(size > 0, size, torch.where(first > 0, first, 1.0))


def _sizes(apply: Product, weights: Tensor) -> Tensor:
    """The root of `Σ_j (A_ij w_j)²` for each `i`, from products `A v` with random signs."""
    total = torch.zeros_like(weights, dtype=torch.float64)
    for probe in range(_PROBES):
        total = (
            total
            + apply(weights * golden_signs(weights, first=1 + probe * weights.shape[1]))
            .detach()
            .double()
            ** 2
        )
    return (total / _PROBES).sqrt().to(weights.dtype)


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1)


def _like(mask: Tensor, part: Tensor) -> Tensor:
    return mask.reshape(-1, *[1] * (part.dim() - 1))
