"""Layers that solve equations somewhere inside: what of an error is that of the solver's tolerance.

A model with an `ImplicitLayer` in it is no equation as a whole, and its differences see the error that its
solver was allowed. The solves of this package can be made to rounding from outside. Where the layer is in
doubt, the layer with such solves is examined in its place, and its gradients are the reference for the own
ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..implicit.surroundings.closer import watched_solves
from .evidence import Evidence
from .report import Finding, Report
from .session import Session
from .verdict import Verdict

CHECK = "closer solves"
# On tolerances: the remaining error of a solve is then far below what differences see, or at rounding.
_FACTOR = 1e-5
_NOTE = (
    "the layer solves equations inside: examined with {factor:g} of their tolerances, then compared"
)


class Closer:
    """A function whose solves are made to rounding."""

    def __init__(self, layer: Callable[..., Any]) -> None:
        self.layer = layer

    def __call__(self, *args: Any, **named: Any) -> Any:
        with watched_solves(finest=True):
            return self.layer(*args, **named)


def closer_layer(layer: Callable[..., Any]) -> Callable[..., Any]:
    """The layer with closer solves; of a module a module with the same parameters and names."""
    kind = type(layer)
    if not isinstance(layer, nn.Module) or isinstance(layer, torch.jit.ScriptModule):
        return Closer(layer)

    class CloserModule(kind):  # type: ignore[misc, valid-type]
        def __call__(self, *args: Any, **named: Any) -> Any:
            with watched_solves(finest=True):
                return kind.__call__(self, *args, **named)

    module = copy.copy(layer)
    module.__class__ = CloserModule
    return module


def settled(first: Report, own: Session, again: Report, closer: Session) -> Report:
    """The report on a layer, from its own and that on the layer with closer solves.

    Args:
        first: The report on the layer, which is in doubt.
        own: Its session.
        again: The report with closer solves.
        closer: Its session, with the same slots.
    """
    calls = first.calls + again.calls
    if again.verdict is Verdict.WRONG:
        return replace(first if first.verdict is Verdict.WRONG else again, calls=calls)
    names = [(o, s) for o in range(len(own.outputs)) for s in range(len(own.slots))]
    pieces = {(own.outputs[o], own.slots[s].name): _compared(own, closer, o, s) for o, s in names}
    findings = tuple(
        Finding.of(
            (*finding.evidence, *filter(None, (pieces.get((finding.output, finding.input)),))),
            finding.reproducer,
        )
        for finding in again.findings
    )
    return replace(
        again, layer=first.layer, findings=findings, calls=calls, notes=(*again.notes, _NOTE),
        checks=(*again.checks, CHECK),
    )  # fmt: skip


def _compared(own: Session, closer: Session, o: int, s: int) -> Evidence:
    """The gradients of the layer beside those with closer solves; the solver explains the distance."""
    pairs = [(own.gradients[k][o][s], closer.gradients[k][o][s]) for k in range(own.cotangents)]
    distance, scale = max(
        ((float((g - c).norm()), float(c.norm())) for g, c in pairs), key=lambda pair: pair[0]
    )
    return Evidence(
        CHECK, own.outputs[o], own.slots[s].name,
        error=distance,
        scale=scale,
        floor=own.relative_floor(o, s) * scale,
        slack=distance,
        reference=False,
    )  # fmt: skip
