"""A layer under examination: its call, its gradients, how they are rounded, and the probes of all checks."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from .equations import Residual
from .evidence import Component
from .float64_copy import dtypes_inside, float64_copy
from .lengths import lengths_of
from .probes import probe, root_mean_square
from .real import real, widened
from .rounding import Rounding
from .subject import LayerError, Slot, Subject, Tape, Tensors
from .tightening import Tighten

# An adjoint equation counts as solved at this relative residual: ten times the default tolerance
# of the dtype in this package.
ADJOINT_RTOL = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 4e-2,
    torch.bfloat16: 3e-1,
}


EXPLICIT_RTOL = {
    torch.float64: 1e-9,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
}
"""The same for a layer without a known equation: rounding in the narrow dtypes, which adds to the measured
one."""
_MOST = 2e-3
"""Limit on the same relative error, however large the output."""
ROUNDINGS = 16.0
"""The rounding error of a gradient is at most this multiple of its change by one rounding of the inputs."""

T = TypeVar("T")


@dataclass
class Examined:
    """A layer with one call of it, its gradients and their rounding, and the probes of all checks.

    Attributes:
        subject: The layer as a flat function.
        tape: The call whose derivatives are examined.
        residual: The layer's equation, if known.
        tighten: Returns the layer at a tighter tolerance, if known.
        cotangents: Number of cotangents drawn for each output.
        directions: Number of directions drawn for each slot.
        full: True if the verification may take seconds.
        seed: Seed of all probes.
        notes: Observations for the report.
        repeat: Relative distance between two calls at the same inputs.
        measured: Directional differences already taken, by slots and kind of direction.
        again: A second call at the same inputs, if it succeeded.
        spent: Calls of the layer that diagnoses have taken.
        entrywise: Slots whose entries have steps of their own.
    """

    subject: Subject
    tape: Tape
    residual: Residual | None
    tighten: Tighten | None
    cotangents: int
    directions: int
    full: bool
    seed: int
    repeat: float = 0.0
    notes: list[str] = field(default_factory=list)
    measured: dict[Any, Any] = field(default_factory=dict)
    again: Tape | None = None
    spent: int = 0
    entrywise: set[int] = field(default_factory=set)
    _kept: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return self.subject.slots

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.subject.outputs

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result of `make`, which is called once for each key."""
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def generator(self, *key: int) -> torch.Generator:
        """A separate generator for each use, so that checks do not shift each other's numbers."""
        number = self.seed + 1
        for part in key:
            number = (number * 1_000_003 + part + 7) % (2**63)
        return torch.Generator().manual_seed(number)

    @cached_property
    def probes(self) -> tuple[tuple[Tensor, ...], ...]:
        """Cotangents: `probes[k][o]` of output `o`."""
        return tuple(
            tuple(
                probe(k, output.detach(), self.generator(1, k, o))
                for o, output in enumerate(self.tape.outputs)
            )
            for k in range(self.cotangents)
        )

    @cached_property
    def gradients(self) -> tuple[tuple[Tensors, ...], ...]:
        """The layer's gradients: `gradients[k][o][s]` of `⟨probes[k][o], output o⟩` in slot `s`, as real
        numbers.
        """
        return tuple(
            tuple(
                tuple(real(g) for g in self.tape.pullback(self.only(o, probe)))
                for o, probe in enumerate(row)
            )
            for row in self.probes
        )

    def only(self, output: int, cotangent: Tensor) -> list[Tensor | None]:
        """Cotangents of all outputs, `None` except for one."""
        return [cotangent if o == output else None for o in range(len(self.outputs))]

    def direction(self, slot: int, kind: int) -> Tensor:
        """A direction of a slot, of size about one, or smaller where entries have small steps of their
        own.
        """
        value = self.slots[slot].value
        drawn = probe(kind, value, self.generator(2, kind, slot))
        finite = torch.isfinite(value)
        if not bool(finite.all()):
            drawn = torch.where(finite, drawn, 0)  # An infinite entry has nowhere to go.
        shares = self.shares(slot)
        return drawn if shares is None else (drawn * shares).to(drawn.dtype)

    def shares(self, slot: int) -> Tensor | None:
        """The step of each entry as a share of `size`; `None` if all have the same."""
        forced = slot in self.entrywise

        def made() -> Tensor | None:
            lengths = lengths_of(self.slots[slot].value, forced)
            return None if lengths is None else lengths / self.size(slot)

        return self.once(("shares", slot, forced), made)

    def weighted(self, slot: int, gradient: Tensor) -> float:
        """The size of a gradient in the units of the slot's directions."""
        shares = self.shares(slot)
        if shares is None:
            return float(gradient.norm())
        return float(
            (gradient * shares.reshape(shares.shape + (1,) * (gradient.ndim - shares.ndim))).norm()
        )

    def alone(self, slot: int, direction: Tensor) -> Tensors:
        """A direction of one slot, extended by zeros to all slots."""
        return tuple(
            direction if s == slot else torch.zeros_like(other.value)
            for s, other in enumerate(self.slots)
        )

    @cached_property
    def random(self) -> bool:
        """True if the layer draws random numbers: another seed gives other values."""
        return self.subject.is_random(self.tape)

    @cached_property
    def inside(self) -> frozenset[torch.dtype]:
        """The dtypes that a layer without a known equation computes in."""
        if self.solver_is_known:
            return frozenset()
        return frozenset(dtypes_inside(self.tape.outputs))

    @property
    def eps(self) -> float:
        """The machine precision of the layer: the coarsest of its slots, its outputs and its inside."""
        return max(torch.finfo(dtype).eps for dtype in self.dtypes)

    @property
    def dtypes(self) -> set[torch.dtype]:
        """The dtypes of the slots, of the outputs and of the inside of the layer."""
        tensors = (*self.tape.values, *(slot.value for slot in self.slots))
        return {*(tensor.dtype for tensor in tensors), *self.inside}

    @cached_property
    def measured_rounding(self) -> Rounding:
        """Changes of values and gradients by one rounding of a layer without a known equation."""
        values = [slot.value for slot in self.slots]
        return Rounding.measured(
            self.subject.tape_at, values, self.tape, self.probes, self.gradients, self.eps,
            self.generator(9),
        )  # fmt: skip

    def gradient_noise(self, k: int, o: int, s: int) -> float:
        """Largest rounding error of a gradient, in the units of the slot's directions; 0 if not measured."""
        if self.solver_is_known:
            return 0.0
        return ROUNDINGS * self.weighted(s, self.measured_rounding.gradients[k][o][s])

    def rounding_of(self, k: int, o: int, s: int) -> float:
        """The same in the units of the gradient itself."""
        if self.solver_is_known:
            return 0.0
        return ROUNDINGS * float(self.measured_rounding.gradients[k][o][s].norm())

    @cached_property
    def copy(self) -> tuple[Subject, Tape] | None:
        """The layer in float64 with a call; `None` if it is in float64, or has no such copy."""
        if self.solver_is_known or self.eps <= torch.finfo(torch.float64).eps:
            return None
        rounding = max(self.eps, *self.measured_rounding.values)
        return float64_copy(self.subject, self.tape, rounding)

    @cached_property
    def gradients_of_copy(self) -> tuple[tuple[tuple[Tensor | None, ...], ...], ...] | None:
        """The gradients of the float64 copy, as `gradients`; `None` without one, or if it raises.

        A gradient that differs from the layer's by more than rounding comes from other code, and is
        `None`: the mode that replaces captured tensors does not reach all of them.
        """
        if self.copy is None:
            return None
        _, tape = self.copy
        found = []
        try:
            for k, row in enumerate(self.probes):
                wide = [tape.pullback(self.only(o, widened(w))) for o, w in enumerate(row)]
                found.append(
                    tuple(
                        tuple(self._same_code(k, o, s, real(g)) for s, g in enumerate(gradients))
                        for o, gradients in enumerate(wide)
                    )
                )
        except LayerError:
            return None
        return tuple(found)

    def _same_code(self, k: int, o: int, s: int, gradient: Tensor) -> Tensor | None:
        own = self.gradients[k][o][s]
        allowed = self.relative_floor(o, s) * float(own.norm()) + self.rounding_of(k, o, s)
        return gradient if float((gradient - own).norm()) <= allowed else None

    def size(self, slot: int) -> float:
        """Root-mean-square size of the finite entries of a slot; 1 where it is zero."""
        value = self.slots[slot].value
        finite = torch.isfinite(value)
        if not bool(finite.all()):
            value = value[finite]
        return root_mean_square(value) or 1.0

    @property
    def solver_is_known(self) -> bool:
        """True if the solver's part of a difference can be determined."""
        return self.residual is not None or self.tighten is not None

    def precision(self, output: int, slot: int) -> torch.dtype:
        """The coarsest of the dtypes of an output, a slot, and the inside of the layer."""
        dtypes = (self.tape.outputs[output].dtype, self.slots[slot].value.dtype, *self.inside)
        return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps).to_real()

    @property
    def rounding(self) -> float:
        """The coarsest rounding of the outputs and slots."""
        tensors = (*self.tape.values, *(slot.value for slot in self.slots))
        return max(torch.finfo(tensor.dtype).eps for tensor in tensors)

    def relative_floor(self, output: int, slot: int) -> float:
        """Relative error that a correct gradient may have.

        An adjoint residual `r` of relative size `τ` leaves an error `‖(dz/dx)ᵀ r‖` in the gradient,
        at most `τ √n` of its size for a random cotangent of a system of `n` unknowns.
        """
        value, precision = self.tape.outputs[output], self.precision(output, slot)
        n = value.numel() // max(value.shape[0], 1) if value.ndim > 1 else value.numel()
        if self.solver_is_known:
            return ADJOINT_RTOL[precision] * max(n, 1) ** 0.5
        rtol = EXPLICIT_RTOL[precision]
        return max(rtol, min(rtol * max(n, 1) ** 0.5, _MOST))

    def underflow(self, output: int, slot: int) -> float:
        """Size below which gradients count as zero in the layer's dtype."""
        tiny = torch.finfo(self.precision(output, slot)).tiny
        return tiny * max(self.slots[slot].value.numel(), 1) ** 0.5

    def component(self, slot: int, gradient: Tensor, reference: Tensor) -> Component | None:
        """The entry with the largest difference of two gradients."""
        distance = (real(gradient) - real(reference)).abs().nan_to_num(torch.inf)
        if distance.numel() == 0:
            return None
        return self.entry(slot, int(distance.argmax()), gradient, reference)

    def entry(self, slot: int, flat: int, gradient: Tensor, reference: Tensor) -> Component:
        """An entry of two gradients by its flat position; of complex ones, the real or imaginary part."""
        gradient, reference = real(gradient), real(reference)
        index = tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), gradient.shape))
        index = index[: self.slots[slot].value.ndim]
        return Component(
            index,
            self.row(slot, index),
            float(gradient.reshape(-1)[flat]),
            float(reference.reshape(-1)[flat]),
        )

    def row(self, slot: int, index: tuple[int, ...]) -> int | None:
        """The batch row of an index: the first axis, if inputs and outputs share its size."""
        value, output = self.slots[slot].value, self.tape.outputs[0]
        shared = value.ndim > 1 and output.ndim > 1 and value.shape[0] == output.shape[0]
        return index[0] if shared and self.slots[slot].position is not None else None
