"""Differences of `G(x) = ⟨p, ∇⟨w, y(x)⟩⟩`, a number made of a gradient, along directions.

Of the implicit gradient at the polished root if the equation is known, else of the layer's own gradient, or
of that of its float64 copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..differences import Slope, slope
from ..polish import PolishError, Root
from ..real import inner, real, widened
from ..session import Session
from ..subject import LayerError, Subject, Tensors
from .measuring import TRUST, shifted

SOLVES = 10.0
"""Factor on the floor of first derivatives, since a second one takes several adjoint solves in sequence."""


def probes_of(session: Session) -> Tensors:
    """The fixed probes `p` of the gradients, one for each slot."""
    return tuple(
        session.direction(s, 3).to(slot.value.dtype) for s, slot in enumerate(session.slots)
    )


def differences(session: Session, o: int, s: int, inputs_only: bool) -> Slope:
    """Differences of `G`, shared by both modes if all slots are inputs."""
    left_out = inputs_only and any(slot.position is None for slot in session.slots)

    def measured() -> Slope:
        target = np.array([relative(session, o, s) / TRUST])
        sample = _sampler(session, o, s, left_out)
        size = np.array([natural(session, o, s)])
        rounding = np.array([_rounding(session, o, left_out)])
        return slope(sample, session.size(s), target, size, rounding)

    return session.once(("differences of G", o, s, left_out), measured)


def _rounding(session: Session, o: int, inputs_only: bool) -> float:
    """Rounding of `G`; 0 where the equation is known.

    Samples beside each other do not show it where the layer is saturated: its value is then rounded to the
    same number at all of them.
    """
    if session.solver_is_known:
        return 0.0
    changes = session.measured_rounding.gradients[0][o]
    probes = _probes(session, inputs_only)
    total = sum(
        float((real(p) * change)[real(p) != 0].square().sum())
        for p, change in zip(probes, changes, strict=True)
    )
    sampled = float(np.finfo(float).eps) if _samples_copy(session) else session.eps
    return math.sqrt(total) * sampled / session.eps


def relative(session: Session, o: int, s: int) -> float:
    """The relative error of a second derivative that no solve or rounding explains."""
    return SOLVES * session.relative_floor(o, s)


def natural(session: Session, o: int, s: int) -> float:
    """Typical size of second derivatives: the gradient changes over the size of a slot."""
    sizes = (
        max(session.weighted(i, g), session.gradient_noise(0, o, i))
        for i, g in enumerate(session.gradients[0][o])
    )
    return max(sizes) / session.size(s)


def _sampler(session: Session, o: int, s: int, inputs_only: bool) -> Callable[[float], np.ndarray]:
    """`G` as a function of the step of one slot along a direction."""
    probes = _probes(session, inputs_only)
    if session.residual is not None:
        return _of_root(session, o, s, probes, session.roots[1])
    subject = session.subject
    if session.copy is not None and _samples_copy(session):
        subject = session.copy[0]
    if session.tighten is not None:
        subject = session.tightened.subjects[-1]
    return _of_layer(session, o, s, probes, subject)


def _samples_copy(session: Session) -> bool:
    """True if the differences are of the float64 copy of the layer."""
    return session.copy is not None and session.gradients_of_copy is not None


def _probes(session: Session, inputs_only: bool) -> Tensors:
    """The probes of the gradients; zero for slots that are no inputs, if only those are to take part."""
    return tuple(
        torch.zeros_like(probe) if inputs_only and slot.position is None else probe
        for probe, slot in zip(probes_of(session), session.slots, strict=True)
    )


def _of_root(
    session: Session, o: int, s: int, probes: Sequence[Tensor], root: Root
) -> Callable[[float], np.ndarray]:
    equation, along = root.equation, widened(session.direction(s, 0))
    w = session.cotangent(0, o)

    def sample(t: float) -> np.ndarray:
        values = shifted(equation.base, {s: along}, t)
        try:
            there = Root(equation, root.moved(values), session.generator(5), values)
        except LayerError as error:
            raise PolishError(str(error)) from error
        return _inner(probes, there.gradient(w))

    return sample


def _of_layer(
    session: Session, o: int, s: int, probes: Sequence[Tensor], subject: Subject
) -> Callable[[float], np.ndarray]:
    along = widened(session.direction(s, 0))
    w = session.probes[0][o]
    cotangents = session.only(o, w if subject is session.subject else widened(w))

    def sample(t: float) -> np.ndarray:
        values = shifted([slot.value for slot in subject.slots], {s: along}, t)
        try:
            return _inner(probes, subject.gradients(values, cotangents))
        except LayerError as error:
            raise ArithmeticError(str(error)) from error

    return sample


def _inner(probes: Sequence[Tensor], gradients: Sequence[Tensor]) -> np.ndarray:
    pairs = zip(probes, gradients, strict=True)
    return np.array([sum(inner(p, g) for p, g in pairs)])
