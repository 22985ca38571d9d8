"""Recognition of a wrong gradient beside the right one: a factor, an exchange of rows or axes, a clip, a
leak.

These mistakes are made with the gradient itself, whatever the function. A match must explain all but a
hundredth of the error, for every cotangent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from .session import Session

EXPLAINED = 1e-2
Pairs = Sequence[tuple[Tensor, Tensor]]
"""The layer's gradient and the right one, for each cotangent."""


def matches(says: Sequence[Tensor], right: Sequence[Tensor], candidates: Sequence[Tensor]) -> bool:
    """True if the candidates explain the difference between what the layer says and what is right."""
    return all(
        float((g - c).norm()) <= EXPLAINED * float((g - r).norm())
        for g, r, c in zip(says, right, candidates, strict=True)
    )


def after_the_adjoint(session: Session, o: int, s: int, pairs: Pairs) -> str:
    """A mistake made with the whole gradient, by name; empty if none fits."""
    says, right = [g for g, _ in pairs], [r for _, r in pairs]
    if all(not bool(g.any()) for g in says):
        return "the gradient is zero: the tensor was dropped or detached"
    first, reference = says[0], right[0]
    size = float(reference.square().sum())
    factor = float((first * reference).sum()) / size if size > 0 else 0.0
    if matches(says, right, [factor * r for r in right]):
        return named_factor(session, o, factor, session.relative_floor(o, s))
    for name, change in _exchanges(reference, session.slots[s].value.is_complex()):
        if matches(says, right, [change(r) for r in right]):
            return name
    return ""


def named_factor(session: Session, o: int, factor: float, precision: float) -> str:
    """The name of a factor that is not 1 within the precision."""
    leading = session.tape.outputs[o].shape[:1]
    batch = leading[0] if leading else 1
    near = max(1e-6, 4 * precision)
    if abs(factor - 1) <= near:
        return ""
    digits = f"{factor:.6g}" if near <= 1e-6 else f"{factor:.3g}"
    for value, name in (
        (-1.0, "the sign of the gradient"),
        (1 / batch, "a mean over the batch in place of a sum"),
        (batch, "a sum over the batch in place of a mean"),
    ):
        if value != 1 and abs(factor / value - 1) < near:
            return f"{name} (factor {digits})"
    return f"a constant factor of {digits}"


def _exchanges(like: Tensor, pairs: bool) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Usual exchanges by name; the last axis of pairs holds real and imaginary parts."""
    if like.ndim == 0:
        return
    if pairs:
        sign = torch.tensor([1.0, -1.0], dtype=torch.float64)
        yield "the complex conjugate is missing", lambda t: t * sign
        if like.ndim == 1:
            return
    elif like.ndim > 1 and like.shape[-1] == like.shape[-2]:
        yield "the gradient is transposed", torch.adjoint
        yield (
            "a convention: the gradient of a symmetric argument is symmetrised",
            lambda t: (t + t.mT) / 2,
        )
    for shift in (1, -1):
        if like.shape[0] > 1:
            yield "rows belong to their neighbours", partial(torch.roll, shifts=shift, dims=0)
    for axis in range(like.ndim - pairs):
        yield f"axis {axis} runs backwards", partial(torch.flip, dims=(axis,))
    if like.ndim > 1:
        yield "the batch is averaged", lambda t: t.mean(0, keepdim=True).expand_as(t)


def added(session: Session, s: int, pairs: Pairs) -> str:
    """A mistake that adds to the right gradient: a constant, other rows, its transpose; empty if none
    fits.
    """
    says, right = [g for g, _ in pairs], [r for _, r in pairs]
    errors = [g - r for g, r in pairs]
    like = right[0]
    if like.numel() > 1:
        constant = float(errors[0].mean())
        if matches(says, right, [r + constant for r in right]):
            return f"an added constant of {constant:.3g}"
    if session.slots[s].value.is_complex():
        return ""
    if like.ndim > 1 and like.shape[0] > 1:
        for shift in (1, -1):
            if strength := _along(errors, [r.roll(shift, 0) for r in right]):
                return f"rows leak into their neighbours (by {strength:.3g})"
        sums = [r.sum(0, keepdim=True).expand_as(r) for r in right]
        if strength := _along(errors, sums):
            return f"rows leak into the whole batch (by {strength:.3g})"
    if like.ndim > 1 and like.shape[-1] == like.shape[-2]:
        if strength := _along(errors, [r.mT for r in right]):
            return f"a skew gradient: its transpose is added (by {strength:.3g})"
        if all(float((e + e.mT).norm()) <= EXPLAINED * float(e.norm()) for e in errors):
            return "a skew error: it is antisymmetric"
    return ""


def _along(errors: Sequence[Tensor], parts: Sequence[Tensor]) -> float:
    """The one factor at which the parts are the errors; 0 if there is none."""
    size = float(parts[0].square().sum())
    factor = float((errors[0] * parts[0]).sum()) / size if size > 0 else 0.0
    fits = all(
        float((e - factor * p).norm()) <= EXPLAINED * float(e.norm())
        for e, p in zip(errors, parts, strict=True)
    )
    return factor if fits else 0.0


def clipped(pairs: Pairs) -> str:
    """The bound at which a gradient was clipped, in words; empty if it was not."""
    bounds = [float(g.abs().max()) for g, _ in pairs]
    bound = max(bounds)
    candidates = [r.clamp(-bound, bound) for _, r in pairs]
    if bound > 0 and matches([g for g, _ in pairs], [r for _, r in pairs], candidates):
        return f"a convention: the gradient is clipped at {bound:.3g}"
    return ""


def in_places(pairs: Pairs) -> str:
    """One entry, one row or one column that alone is wrong, in words; empty if there is none."""
    errors = sum((g - r).square() for g, r in pairs)
    if not isinstance(errors, Tensor) or errors.ndim == 0 or errors.numel() < 2:
        return ""
    total = float(errors.sum())
    if float(errors.max()) >= 0.9998 * total:
        return "only one entry is wrong"
    for axis, name in ((0, "row"), (-1, "column")):
        if errors.ndim > 1 and errors.shape[axis] > 1:
            others = [a for a in range(errors.ndim) if a != axis % errors.ndim]
            along = errors.sum(dim=others)
            if float(along.max()) >= 0.9998 * total:
                place = int(along.argmax())
                if not any(bool(g.select(axis, place).any()) for g, _ in pairs):
                    return f"{name} {place} has no gradient: a convention, if it is padding"
                return f"only {name} {place} is wrong"
    return ""
