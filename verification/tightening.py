"""Limits of values and gradients of a layer without a known equation, by ever tighter tolerances.

Differences of an iteration that stops early see its truncation error. The error shrinks as the tolerance
falls by factors of a hundred, and the last change shows how much remains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .real import real, size_of
from .subject import LayerError, Subject, Tape, Tensors

Tighten = Callable[[float], Callable[..., Any]]

FACTORS = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
_SETTLED = 64.0
"""Values that change by less than this multiple of rounding no longer depend on the tolerance."""


class Tightened:
    """The layer at tolerances that fall until its values no longer change, or until it fails.

    Args:
        tighten: Called with a factor, returns the layer with its tolerance multiplied by it, or with a
            number of steps that has the same effect. It shares parameters and captured tensors.
        subject: The layer itself.

    Raises:
        LayerError: The first tighter layer fails.
    """

    def __init__(self, tighten: Tighten, subject: Subject) -> None:
        self.subjects: list[Subject] = []
        self._tapes: list[Tape] = []
        self._gradients: dict[tuple[int, int], Tensors] = {}
        for factor in FACTORS:
            try:
                tighter, tape = subject.like(_made(tighten, factor))
                if not tape.finite:
                    raise LayerError("its values are not finite")
            except LayerError:
                if not self.subjects:
                    raise
                break
            settled = bool(self._tapes) and _distance(self._tapes[-1].values, tape.values) == 0
            self.subjects.append(tighter)
            self._tapes.append(tape)
            if settled:
                break

    def error(self, values: Sequence[torch.Tensor]) -> float:
        """Relative distance of the layer's values from those of the tightest layer."""
        return _distance(values, self._tapes[-1].values)

    def gradients(self, k: int, o: int, cotangents: Sequence[torch.Tensor | None]) -> Tensors:
        """The tightest layer's gradients of one cotangent."""
        if (k, o) not in self._gradients:
            found = self._tapes[-1].pullback(cotangents)
            self._gradients[k, o] = tuple(gradient.detach() for gradient in found)
        return self._gradients[k, o]


def _made(tighten: Tighten, factor: float) -> Callable[..., Any]:
    try:
        return tighten(factor)
    except Exception as error:
        raise LayerError(f"tighten({factor:g}) raised {type(error).__name__}: {error}") from error


def _distance(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> float:
    """The largest relative distance of outputs; 0 within rounding."""
    largest = 0.0
    for a, b in zip(before, after, strict=True):
        size = size_of(b)
        distance = float((real(a) - real(b)).norm())
        if distance > _SETTLED * torch.finfo(b.dtype).eps * size:
            largest = max(largest, distance / size if size > 0 else float("inf"))
    return largest
