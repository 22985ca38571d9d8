"""Diagnosis of a wrong gradient: the gradients of usual bugs are computed, and the matching one is named.

A gradient is wrong in one of two places. With a wrong adjoint it equals the gradient from another vector `u`,
of a short list (no transpose, a truncated series, a stale Jacobian, …). With a wrong step after the adjoint
it equals the right gradient times a factor, with rows or axes exchanged, or except for some entries. A match
must explain all but a hundredth of the error, for every cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from .linear import Blocks, inverse_at
from .polish import Root
from .session import NotExercisedError, Session
from .subject import Tensors

_EXPLAINED = 1e-2
_TERMS = 200
_FIT_STEPS = 6
_FIT_DIFFERENCE = 1e-6
Adjoint = Callable[[Tensor], Tensor]


def diagnose(session: Session, o: int, wrong: list[int]) -> dict[int, str]:
    """The likely cause for each wrong slot of an output, if it is a usual one.

    Args:
        session: The verification.
        o: The output.
        wrong: Positions of the slots whose gradient is wrong.
    """
    try:
        session.roots  # noqa: B018
    except NotExercisedError:
        return {s: cause for s in wrong if (cause := _of_differences(session, o, s))}
    causes: dict[int, str] = {}
    for s in wrong:
        pairs = [
            (session.gradients[k][o][s].double(), session.implicit(k, o)[1][s])
            for k in range(session.cotangents)
        ]
        if cause := _after_the_adjoint(session, s, pairs):
            causes[s] = cause
    if len(causes) == len(wrong) and len(set(causes.values())) == 1:
        return causes
    for s in wrong:
        if s not in causes and (cause := _in_the_adjoint(session, o, s)):
            causes[s] = cause
    for s in wrong:
        if s not in causes and (cause := _in_places(session, o, s)):
            causes[s] = cause
    return causes


def _matches(says: list[Tensor], right: list[Tensor], candidates: list[Tensor]) -> bool:
    return all(
        float((g - c).norm()) <= _EXPLAINED * float((g - r).norm())
        for g, r, c in zip(says, right, candidates, strict=True)
    )


def _after_the_adjoint(session: Session, s: int, pairs: list[tuple[Tensor, Tensor]]) -> str:
    says, right = [g for g, _ in pairs], [r for _, r in pairs]
    if all(not bool(g.any()) for g in says):
        return "the gradient is zero: the tensor was dropped or detached"
    first, reference = says[0], right[0]
    size = float(reference.square().sum())
    factor = float((first * reference).sum()) / size if size > 0 else 0.0
    if _matches(says, right, [factor * r for r in right]):
        return _factor(session, factor)
    for name, change in _exchanges(reference):
        if _matches(says, right, [change(r) for r in right]):
            return name
    return ""


def _factor(session: Session, factor: float) -> str:
    leading = session.tape.outputs[0].shape[:1]
    batch = leading[0] if leading else 1
    for value, name in (
        (-1.0, "the sign of the gradient"),
        (1 / batch, "a mean over the batch in place of a sum"),
        (batch, "a sum over the batch in place of a mean"),
    ):
        if value != 1 and abs(factor / value - 1) < 1e-6:
            return f"{name} (factor {factor:.6g})"
    return f"a constant factor of {factor:.6g}"


def _exchanges(like: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    if like.ndim == 0:
        return
    if like.ndim > 1 and like.shape[-1] == like.shape[-2]:
        yield "the gradient is transposed", torch.adjoint
    for shift in (1, -1):
        if like.shape[0] > 1:
            yield "rows belong to their neighbours", partial(torch.roll, shifts=shift, dims=0)
    for axis in range(like.ndim):
        yield f"axis {axis} runs backwards", partial(torch.flip, dims=(axis,))
    if like.ndim > 1:
        yield "the batch is averaged", lambda t: t.mean(0, keepdim=True).expand_as(t)


def _in_the_adjoint(session: Session, o: int, s: int) -> str:
    _, root = session.roots
    if not isinstance(root.inverse, Blocks):
        return ""
    probes = range(session.cotangents)
    weights = [session.cotangent(k, o) for k in probes]
    says = [session.gradients[k][o][s].double() for k in probes]
    right = [session.implicit(k, o)[1][s] for k in probes]
    for name, gradient in _candidates(session, root, root.inverse):
        if _matches(says, right, [gradient(w)[s] for w in weights]):
            return name
    for name, family in _one_parameter(session, root, root.inverse):
        if (found := _fitted(family, s, weights, says, right)) is not None:
            return f"{name} (by {found:.3g})"
    return _series(root, root.inverse, s, weights, says, right)


def _sign(blocks: Blocks) -> float:
    """Sign of the residual: 1 for `z − f(z)`, which the bugs assume, −1 for `f(z) − z`."""
    return -1.0 if float(blocks.matrix.diagonal(dim1=-2, dim2=-1).sum()) < 0 else 1.0


def _candidates(
    session: Session, root: Root, blocks: Blocks
) -> Iterator[tuple[str, Callable[[Tensor], Tensors]]]:
    """Usual bugs by name, with their gradients in all slots."""
    sign = _sign(blocks)
    A, inverse = sign * blocks.matrix, sign * blocks.inverse
    identity = torch.eye(A.shape[-1], dtype=A.dtype)

    def rows(w: Tensor) -> Tensor:
        return w[blocks.order].unsqueeze(-1)

    def pulled(by: Adjoint) -> Callable[[Tensor], Tensors]:
        def gradient(w: Tensor) -> Tensors:
            u = torch.empty_like(w)
            u[blocks.order] = by(rows(w)).squeeze(-1)
            return tuple(-sign * g for g in root.products.pullback_slots(u))

        return gradient

    def solved(matrix: Tensor) -> Adjoint:
        return lambda w: torch.linalg.lstsq(matrix, w).solution

    exact = inverse.mT
    yield "no adjoint solve: u = w", pulled(lambda w: w)
    yield "the Jacobian is not transposed", pulled(lambda w: inverse @ w)
    yield "the sign of J", pulled(solved(2 * identity - A.mT))
    yield "the sign of the gradient", pulled(lambda w: -exact @ w)
    yield "the direct path is counted twice", pulled(lambda w: exact @ w + w)
    yield "only the diagonal of J", pulled(solved(torch.diag_embed(A.diagonal(dim1=-2, dim2=-1))))
    yield "only a triangle of J", pulled(solved(A.triu().mT))
    yield "only a triangle of J", pulled(solved(A.tril().mT))
    if A.shape[0] > 1:
        yield "the Jacobian of row 0 for every row", pulled(lambda w: exact[:1] @ w)
        yield (
            "the cotangent is averaged over the batch",
            pulled(lambda w: exact @ w.mean(0, keepdim=True).expand_as(w)),
        )
    yield from _stale(session, root)


def _stale(session: Session, root: Root) -> Iterator[tuple[str, Callable[[Tensor], Tensors]]]:
    at_start = root.equation.products_at(torch.zeros_like(root.z))
    yield (
        "the derivative in the inputs is taken at the start",
        lambda w: tuple(-g for g in at_start.pullback_slots(root.inverse.solve_transposed(w))),
    )
    try:
        stale = inverse_at(root.equation, at_start, session.generator(4))
    except ArithmeticError:
        return
    yield (
        "the Jacobian is taken at the start",
        lambda w: tuple(-g for g in root.products.pullback_slots(stale.solve_transposed(w))),
    )


Family = Callable[[float], Callable[[Tensor], Tensors]]


def _one_parameter(session: Session, root: Root, blocks: Blocks) -> Iterator[tuple[str, Family]]:
    """Bugs with a strength, without effect at strength 0."""
    identity, sign = torch.eye(blocks.matrix.shape[-1], dtype=torch.float64), _sign(blocks)

    def changed(matrix: Callable[[float], Tensor]) -> Family:
        def at(strength: float) -> Callable[[Tensor], Tensors]:
            def gradient(w: Tensor) -> Tensors:
                u = torch.empty_like(w)
                rows = w[blocks.order].unsqueeze(-1)
                u[blocks.order] = torch.linalg.solve(matrix(strength).mT, rows).squeeze(-1)
                return tuple(-sign * g for g in root.products.pullback_slots(u))

            return gradient

        return at

    A = sign * blocks.matrix
    yield "the adjoint is regularised", changed(lambda t: A + t * identity)
    yield "the adjoint is damped", changed(lambda t: A + t * (identity - A))

    def stale(strength: float) -> Callable[[Tensor], Tensors]:
        there = root.equation.products_at((1 - strength) * root.z)
        inverse = inverse_at(root.equation, there, session.generator(4))
        return lambda w: tuple(
            -g for g in root.products.pullback_slots(inverse.solve_transposed(w))
        )

    yield "the Jacobian is taken at a stale point", stale


def _fitted(
    family: Family, s: int, weights: list[Tensor], says: list[Tensor], right: list[Tensor]
) -> float | None:
    """The strength at which a family of bugs gives the gradients, by Gauss-Newton, or `None`."""
    target = torch.cat([g.reshape(-1) for g in says])

    def gradients(strength: float) -> list[Tensor]:
        gradient = family(strength)
        return [gradient(w)[s] for w in weights]

    strength = 0.0
    try:
        for _ in range(_FIT_STEPS):
            here = torch.cat([g.reshape(-1) for g in gradients(strength)])
            ahead = torch.cat([g.reshape(-1) for g in gradients(strength + _FIT_DIFFERENCE)])
            rise = (ahead - here) / _FIT_DIFFERENCE
            size = float(rise.square().sum())
            if size == 0:
                return None
            strength += float((target - here) @ rise) / size
            if not abs(strength) < 1:
                return None
        return strength if _matches(says, right, gradients(strength)) else None
    except (ArithmeticError, RuntimeError):  # The equation became singular during the iteration.
        return None


def _series(
    root: Root,
    blocks: Blocks,
    s: int,
    weights: list[Tensor],
    says: list[Tensor],
    right: list[Tensor],
) -> str:
    """Diagnosis of a Neumann series that is cut off after some terms, or stopped by a tolerance."""
    identity, sign = torch.eye(blocks.matrix.shape[-1], dtype=torch.float64), _sign(blocks)
    J = (identity - sign * blocks.matrix).mT
    found = []
    for w, g, r in zip(weights, says, right, strict=True):
        terms = w[blocks.order].unsqueeze(-1)
        u, best, at = terms.clone(), torch.inf, 0
        allowed = _EXPLAINED * float((g - r).norm())
        for k in range(1, _TERMS):
            u = J @ u + terms
            flat = torch.empty_like(w)
            flat[blocks.order] = u.squeeze(-1)
            distance = float((g + sign * root.products.pullback_slots(flat)[s]).norm())
            if distance < best:
                best, at = distance, k
            elif not distance < torch.inf or distance > 1e3 * best:
                break
            if best <= allowed:
                break
        if best > allowed:
            return ""
        found.append(at)
    if len(set(found)) == 1:
        return f"a Neumann series cut off after {found[0]} terms"
    return f"an adjoint iteration stopped early, after {min(found)} to {max(found)} terms"


def _in_places(session: Session, o: int, s: int) -> str:
    """Diagnosis of a gradient that is wrong in one entry or one row alone."""
    for k in range(session.cotangents):
        right = session.implicit(k, o)[1][s]
        error = (session.gradients[k][o][s].double() - right).abs()
        total = float(error.norm())
        if error.numel() > 1 and float(error.max()) >= 0.9999 * total:
            return "only one entry is wrong"
        if error.ndim > 1 and error.shape[0] > 1:
            by_row = error.reshape(error.shape[0], -1).norm(dim=1)
            if float(by_row.max()) >= 0.9999 * total:
                return f"only row {int(by_row.argmax())} is wrong"
        relative = total / float(right.norm().clamp(min=1e-300))
        if 1e-9 < relative < 2e-6 and session.tape.outputs[o].dtype == torch.float64:
            return "errors of the size of single precision"
    return ""


def _of_differences(session: Session, o: int, s: int) -> str:
    """Diagnosis without the equation: a zero, or the same factor along every direction."""
    if all(not bool(session.gradients[k][o][s].any()) for k in range(session.cotangents)):
        return "the gradient is zero: the tensor was dropped or detached"
    factors, uncertain = [], 0.0
    for (slot, kind), measured in session.measured.items():
        if slot != s:
            continue
        direction = session.direction(s, kind).double()
        for k in range(session.cotangents):
            column = o * session.cotangents + k
            sees = float(measured.slope.value[column])
            if sees == 0:
                return ""
            says = float((session.gradients[k][o][s].double() * direction).sum())
            factors.append(says / sees)
            uncertain = max(uncertain, float(measured.slope.error[column]) / abs(sees))
    if not factors or uncertain > 1e-3:
        return ""
    middle = sum(factors) / len(factors)
    spread = max(abs(factor - middle) for factor in factors)
    if spread <= max(1e-6, _EXPLAINED * abs(middle - 1)) and spread <= 4 * uncertain + 1e-9:
        return _factor(session, middle)
    return ""
