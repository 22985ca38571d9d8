"""Diagnosis of a wrong gradient: the gradients of usual bugs are computed, and the matching one is named.

A gradient is wrong in one of two places. With a wrong adjoint it equals the gradient from another vector `u`,
of a short list (no transpose, a truncated series, a stale Jacobian, …). With a wrong step after the adjoint
it equals the right gradient times a factor, with rows or axes exchanged, or except for some entries. A match
must explain all but a hundredth of the error, for every cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .checks.identities import LARGE, SMALL
from .evidence import Evidence
from .linear import Blocks, inverse_at
from .polish import Root
from .real import real
from .recognition import EXPLAINED, after_the_adjoint, matches
from .session import NotExercisedError, Session
from .subject import Tensors
from .without_equation import without_equation

_TERMS = 200
_FIT_STEPS = 6
_FIT_DIFFERENCE = 1e-6
Adjoint = Callable[[Tensor], Tensor]


_BY_SCALE = {
    LARGE: "a convention: the gradient is clipped, since it is wrong for large cotangents alone",
    SMALL: "an added constant or an absolute tolerance, since it is wrong for small cotangents alone",
}
_BY_CHECK = {
    "second backward pass": "a second pass over one graph differs: the backward pass changes what it saved",
    "memory layout": "the memory of an input is read as if it were contiguous",
    "expanded inputs": "the memory of an input is read or written as if its rows were separate",
    "layout of the cotangent": "the memory of the cotangent is read as if it were contiguous",
    "a larger batch": "rows beyond the given batch are treated otherwise: a block or a size is fixed",
    "a row alone": "a batch of one row is treated otherwise",
    "permuted batch": "rows depend on their place in the batch",
    "after another call": "something is kept from another call",
    "vmap": "the batching rule is wrong",
    "vmap over the backward pass": "the batching rule of the backward pass is wrong",
    "evaluation mode": "it is wrong in evaluation mode alone",
    "training mode": "it is wrong in training mode alone",
    "single precision": "it is wrong in single precision alone",
    "opposite signs": "it is wrong for inputs of other signs alone",
}  # fmt: skip


def by_check(wrong: Sequence[Evidence]) -> str:
    """The cause that follows from the one check that sees an error; empty if several do."""
    found = {_BY_CHECK.get(piece.check.partition(",")[0], "") for piece in wrong}
    if all(piece.check == "linearity in the cotangent" for piece in wrong):
        found = {_BY_SCALE.get(piece.detail, "") for piece in wrong}
    return found.pop() if len(found) == 1 else ""


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
        return {s: cause for s in wrong if (cause := without_equation(session, o, s))}
    causes: dict[int, str] = {}
    for s in wrong:
        pairs = [
            (session.gradients[k][o][s], session.implicit(k, o)[1][s])
            for k in range(session.cotangents)
        ]
        if cause := after_the_adjoint(session, o, s, pairs):
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


def _in_the_adjoint(session: Session, o: int, s: int) -> str:
    _, root = session.roots
    if not isinstance(root.inverse, Blocks):
        return ""
    probes = range(session.cotangents)
    weights = [session.cotangent(k, o) for k in probes]
    says = [session.gradients[k][o][s] for k in probes]
    right = [session.implicit(k, o)[1][s] for k in probes]
    for name, gradient in _candidates(session, root, root.inverse):
        if matches(says, right, [gradient(w)[s] for w in weights]):
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
            return tuple(real(-sign * g) for g in root.products.pullback_slots(u))

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
        lambda w: tuple(
            real(-g) for g in at_start.pullback_slots(root.inverse.solve_transposed(w))
        ),
    )
    try:
        stale = inverse_at(root.equation, at_start, session.generator(4))
    except ArithmeticError:
        return
    yield (
        "the Jacobian is taken at the start",
        lambda w: tuple(real(-g) for g in root.products.pullback_slots(stale.solve_transposed(w))),
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
                return tuple(real(-sign * g) for g in root.products.pullback_slots(u))

            return gradient

        return at

    A = sign * blocks.matrix
    yield "the adjoint is regularised", changed(lambda t: A + t * identity)
    yield "the adjoint is damped", changed(lambda t: A + t * (identity - A))

    def stale(strength: float) -> Callable[[Tensor], Tensors]:
        there = root.equation.products_at((1 - strength) * root.z)
        inverse = inverse_at(root.equation, there, session.generator(4))
        return lambda w: tuple(
            real(-g) for g in root.products.pullback_slots(inverse.solve_transposed(w))
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
        return strength if matches(says, right, gradients(strength)) else None
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
        allowed = EXPLAINED * float((g - r).norm())
        for k in range(1, _TERMS):
            u = J @ u + terms
            flat = torch.empty_like(w)
            flat[blocks.order] = u.squeeze(-1)
            distance = float((g + sign * real(root.products.pullback_slots(flat)[s])).norm())
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
        error = (session.gradients[k][o][s] - right).abs()
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
