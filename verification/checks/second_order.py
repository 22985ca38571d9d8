"""Check: derivatives of the gradient, in both orders of modes, against differences of gradients.

Let `G(x) = ⟨p, ∇⟨w, y(x)⟩⟩` with fixed probes `w` and `p`. Its derivative along a direction comes from a
second backward pass (reverse over reverse), and from tangents carried through the backward pass (forward
over reverse). Both are compared with finite differences of `G`: of the implicit gradient at the polished root
if the equation is known, else of the layer's own gradient. A gradient without a graph, or without a tangent,
has the derivative zero, which autograd returns for it silently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..evidence import Evidence
from ..examined import ROUNDINGS
from ..real import real
from ..rounding import RoundedOperations, rounded
from ..session import NotExercisedError, Session
from ..subject import LayerError, NoForwardModeError, Tape, Tensors
from ..subject.forward_mode import pushforward_of_gradients
from .gradient_differences import SOLVES, differences, natural, probes_of, relative
from .measuring import TRUST, doubt_of, has_kink

NAME = "second order"
_KINK = 1e-3
"""Jumps of a gradient's slope above this share of it are kinks; smaller ones are rounding."""
_ALL = -1
"""In place of a kind of direction: the probes of all slots."""
_SAMPLES = 2


def label(output: str) -> str:
    """Name of an output's gradient in findings."""
    return f"{output}, {NAME}"


def second_order(session: Session) -> list[Evidence]:
    """Reverse over reverse, and the symmetry of the Hessian, for each output and slot.

    Raises:
        NotExercisedError: The layer refuses a second backward pass, or the root was not found.
    """
    found = []
    for o in range(len(session.outputs)):
        twice = _twice(session, o, probes_of(session))
        for s in range(len(session.slots)):
            along = real(session.direction(s, 0))
            found.append(
                _against_differences(session, o, s, twice[s], along, "reverse over reverse")
            )
            found.append(_symmetry(session, o, s))
    return found


def forward_over_reverse(session: Session) -> list[Evidence]:
    """Forward over reverse, for each output and input.

    Raises:
        NotExercisedError: The layer or its backward pass has no forward mode, or the root was not found.
    """
    found, reason = [], "no input requires gradients"
    probes = [real(probe) for probe in probes_of(session)]
    for o in range(len(session.outputs)):
        for s, slot in enumerate(session.slots):
            if slot.position is None:
                continue
            direction = session.direction(s, 0)
            tangents, cotangents = (
                session.alone(s, direction),
                session.only(o, session.probes[0][o]),
            )

            def number(tangents: Tensors = tangents, cotangents: Any = cotangents) -> float:
                """`⟨p, H v⟩`."""
                moved = pushforward_of_gradients(session.subject, tangents, cotangents)
                return sum(
                    float((p * real(g)).sum())
                    for p, g, part in zip(probes, moved, session.slots, strict=True)
                    if part.position is not None
                )

            try:
                inner = number()
            except NoForwardModeError as error:
                reason = str(error)
                continue
            # Spread along v, so that its form is that of a gradient.
            along = real(direction)
            found.append(
                _against_differences(
                    session, o, s, inner * along / along.square().sum(), along, "forward over reverse",
                    inputs_only=True, noise=partial(_noise_of_tangents, session, inner, number),
                )
            )  # fmt: skip
    if not found:
        raise NotExercisedError(f"the layer has no forward mode over its backward pass: {reason}")
    return found


def second_derivatives(session: Session, o: int, s: int) -> float:
    """`⟨v, H v⟩` of the first cotangent along the first direction of a slot, by a second backward pass.

    Raises:
        NotExercisedError: The layer refuses a second backward pass.
    """
    return float((_product(session, o, s, 0) * real(session.direction(s, 0))).sum())


def _product(session: Session, o: int, s: int, kind: int) -> Tensor:
    """`H v` in one slot, for a direction of that slot alone."""
    probes = session.alone(s, session.direction(s, kind))
    return session.once(("H v", o, s, kind), lambda: _twice(session, o, probes)[s])


def _noise(session: Session, o: int, s: int, kind: int, direction: Tensor) -> float:
    """Rounding error of `⟨H p, v⟩`, from calls whose operations are rounded anew; 0 if not measured."""
    if session.solver_is_known:
        return 0.0
    probes = probes_of(session) if kind == _ALL else session.alone(s, session.direction(s, kind))

    def change() -> float:
        own = float((_twice(session, o, probes)[s] * direction).sum())
        generator, found = session.generator(11), 0.0
        values = [slot.value for slot in session.slots]
        for _ in range(_SAMPLES):
            there = [rounded(value, session.eps, generator) for value in values]
            try:
                with RoundedOperations(session.eps, generator):
                    tape = session.subject.tape_at(there)
                    moved = _twice(session, o, probes, tape)[s]
            except (LayerError, NotExercisedError):
                continue
            found = max(found, abs(float((moved * direction).sum()) - own))
        return found

    return ROUNDINGS * float(session.once(("noise of H v", o, s, kind), change))


def _noise_of_tangents(session: Session, own: float, number: Callable[[], float]) -> float:
    """The same of `⟨p, H v⟩` by tangents, whose formulas cancel elsewhere than those of a second pass."""
    if session.solver_is_known:
        return 0.0
    generator, found = session.generator(12), 0.0
    for _ in range(_SAMPLES):
        try:
            with RoundedOperations(session.eps, generator):
                found = max(found, abs(number() - own))
        except NoForwardModeError:
            continue
    return ROUNDINGS * found


def _twice(session: Session, o: int, probes: Sequence[Tensor], tape: Tape | None = None) -> Tensors:
    """The gradient of `G` by a second backward pass, in every slot."""
    tape = session.subject.tape() if tape is None else tape
    # A cotangent that is itself differentiated, as that of a nonlinear loss: only then does a
    # function marked once_differentiable refuse.
    cotangent = session.probes[0][o].clone().requires_grad_()
    try:
        gradients = tape.pullback(session.only(o, cotangent), create_graph=True)
        value = sum(
            (
                (_dense(p).conj() * _dense(g)).sum().real
                for p, g in zip(probes, gradients, strict=True)
            ),
            torch.zeros((), dtype=torch.float64),
        )
        if not value.requires_grad:
            return tuple(torch.zeros_like(tensor) for tensor in tape.tensors)
        if _refuses(value):
            raise NotExercisedError(
                "the layer refuses a second backward pass (once_differentiable)"
            )
        with tape.around():
            found = torch.autograd.grad(
                value, tape.tensors, allow_unused=True, materialize_grads=True
            )
    except (LayerError, RuntimeError) as error:
        raise NotExercisedError(
            f"a second backward pass raised: {str(error).splitlines()[0]}"
        ) from error
    return tuple(
        real(tape.projections[s](g) if s in tape.projections else g) for s, g in enumerate(found)
    )


def _refuses(value: Tensor) -> bool:
    """True if the graph holds a node that raises when it is reached.

    A node off the path to the inputs does not raise, and the derivative would be taken for zero.
    """
    seen: set[object] = set()
    stack = [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().rsplit(":", 1)[-1] in ("Error", "DelayedError"):
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False


def _against_differences(
    session: Session,
    o: int,
    s: int,
    says: Tensor,
    direction: Tensor,
    mode: str,
    inputs_only: bool = False,
    noise: Callable[[], float] | None = None,
) -> Evidence:
    """Evidence on a derivative of `G` in one slot, from differences of `G` along a direction."""
    name = f"{NAME}, {mode}"
    output, slot = label(session.outputs[o]), session.slots[s].name
    try:
        measured = differences(session, o, s, inputs_only)
    except ArithmeticError as error:
        return Evidence(name, output, slot, 0.0, 0.0, 0.0, unreliable=str(error))
    sees = float(measured.value[0])
    sizes = (session.weighted(s, says), abs(sees), natural(session, o, s))
    scale = max(size for size in sizes if size == size)
    if measured.jump[0] > _KINK * scale or has_kink(session, o, s):
        return Evidence(
            name, output, slot, 0.0, 0.0, 0.0,
            unreliable="the gradient has a kink here, and no derivative; verify it at another point",
        )  # fmt: skip
    if _overflows(session, o, s, says):
        return Evidence(
            name, output, slot, 0.0, 0.0, 0.0,
            unreliable="second derivatives overflow in this dtype; use layer.double()",
        )  # fmt: skip
    distance = abs(float((says * direction).sum()) - sees)
    floor = relative(session, o, s) * scale + TRUST * float(measured.error[0])
    floor += session.gradient_noise(0, o, s) / session.size(s)
    doubt = 0.0
    if not distance <= floor:
        floor += _noise(session, o, s, _ALL, direction)
    if noise is not None and not distance <= floor:
        floor += noise()
    if not distance <= floor:
        doubt = TRUST * float(measured.doubt[0]) + doubt_of(session, s) * scale
    return Evidence(
        name, output, slot,
        error=distance,
        scale=scale,
        floor=floor,
        slack=session.relative_slack(o, s) * scale,
        lag=SOLVES * session.lag,
        doubt=doubt,
    )  # fmt: skip


def _overflows(session: Session, o: int, s: int, says: Tensor) -> bool:
    """True if second derivatives are not finite since they exceed the largest number of the dtype."""
    largest = float(torch.finfo(session.precision(o, s)).max)
    return not bool(torch.isfinite(says).all()) and natural(session, o, s) ** 2 > largest


def _symmetry(session: Session, o: int, s: int) -> Evidence:
    """The Hessian is symmetric: `⟨H p, v⟩ = ⟨H v, p⟩`."""
    p, v = session.direction(s, 3), session.direction(s, 0)
    hp, hv = (_product(session, o, s, kind) for kind in (3, 0))
    if _overflows(session, o, s, hp) or _overflows(session, o, s, hv):
        raise NotExercisedError("second derivatives overflow in this dtype")
    if has_kink(session, o, s):
        raise NotExercisedError("the layer has a kink here")
    one, other = float((hp * real(v)).sum()), float((hv * real(p)).sum())
    scale = max(session.weighted(s, hp), session.weighted(s, hv), natural(session, o, s))
    floor = SOLVES * session.relative_floor(o, s) * scale
    if not abs(one - other) <= floor:
        floor += _noise(session, o, s, 3, real(v)) + _noise(session, o, s, 0, real(p))
    return Evidence(
        "symmetry of the Hessian", label(session.outputs[o]), session.slots[s].name,
        error=abs(one - other),
        scale=scale,
        floor=floor,
        slack=session.relative_slack(o, s) * scale,
        lag=SOLVES * session.lag,
        reference=False,
    )  # fmt: skip


def _dense(tensor: Tensor) -> Tensor:
    return tensor if tensor.layout == torch.strided else tensor.to_dense()
