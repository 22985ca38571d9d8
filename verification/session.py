"""Session of one verification, shared by all checks: the layer's call, its gradients, the root behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..implicit import ImplicitLayer
from ..implicit.gradients import ImplicitGradient
from .equations import KnownEquation, Residual
from .evidence import Component
from .float64_copy import dtypes_inside, float64_copy
from .lengths import lengths_of
from .linear import Krylov, SingularError
from .polish import PolishError, Root, polish, relative_distance
from .probes import probe, root_mean_square
from .real import real, size_of
from .rounding import Rounding
from .subject import LayerError, Slot, Subject, Tape, Tensors
from .tightening import Tighten, Tightened

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
"""The same for a layer without a known equation: rounding in the narrow dtypes, which adds to the measured one."""
_MOST = 2e-3
"""Limit on the same relative error, however large the output."""
ROUNDINGS = 16.0
"""The rounding error of a gradient is at most this multiple of its change by one rounding of the inputs."""

T = TypeVar("T")

_LAG = 4.0
"""Allowed error in units of the slack. The error of an implicit derivative at the layer's own solution is the
slack itself; the factor allows for its estimate."""
LAG_PER_STEP = 8.0
"""The relative error of a recorded gradient exceeds that of its value by at most this factor per step."""
_LAG_UNKNOWN = 100.0


class NotExercisedError(Exception):
    """A check does not apply; the message says why."""


class NoRootError(NotExercisedError):
    """The layer's equation is known, but has no root with a derivative near its output."""


@dataclass
class Session:
    """One verification in progress.

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
        """The layer's gradients: `gradients[k][o][s]` of `⟨probes[k][o], output o⟩` in slot `s`, as real numbers."""
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
        """A direction of a slot, of size about one, or smaller where entries have small steps of their own."""
        value = self.slots[slot].value
        drawn = probe(kind, value, self.generator(2, kind, slot))
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
    def inside(self) -> frozenset[torch.dtype]:
        """The dtypes that a layer without a known equation computes in."""
        if self.solver_is_known:
            return frozenset()
        return frozenset(dtypes_inside(self.subject))

    @property
    def eps(self) -> float:
        """The machine precision of the layer: the coarsest of its slots, its outputs and its inside."""
        tensors = (*self.tape.values, *(slot.value for slot in self.slots))
        return max(torch.finfo(d).eps for d in (*(t.dtype for t in tensors), *self.inside))

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
    def gradients_of_copy(self) -> tuple[tuple[Tensors, ...], ...] | None:
        """The gradients of the float64 copy, as `gradients`; `None` without one, or if it raises."""
        if self.copy is None:
            return None
        _, tape = self.copy
        try:
            return tuple(
                tuple(
                    tuple(map(real, tape.pullback(self.only(o, w.to(tape.outputs[o].dtype)))))
                    for o, w in enumerate(row)
                )
                for row in self.probes
            )
        except LayerError:
            return None

    def size(self, slot: int) -> float:
        """Root-mean-square size of a slot's value; 1 where it is zero."""
        return root_mean_square(self.slots[slot].value) or 1.0

    @cached_property
    def equation(self) -> KnownEquation | None:
        if self.residual is None:
            return None
        return KnownEquation(self.residual, self.subject, self.tape)

    @cached_property
    def roots(self) -> tuple[Root, Root]:
        """Implicit derivatives at the layer's own output and at the polished one.

        Raises:
            NotExercisedError: The equation is unknown.
            NoRootError: The equation has no root near the output.
        """
        if self.equation is None:
            raise NotExercisedError("the layer's equation is not known: give residual=")
        try:
            z = self.equation.flat(self.tape.values)
            return polish(self.equation, z, self.generator(3))
        except (LayerError, SingularError, PolishError) as error:
            raise NoRootError(str(error)) from error

    @cached_property
    def solver_error(self) -> float:
        """Relative distance between the layer's output and the root; 0 if unknown."""
        if self.residual is None:
            return self.tightened.error(self.tape.values) if self.tighten is not None else 0.0
        own, star = self.roots
        return relative_distance(own.z, star.z)

    def implicit(self, k: int, o: int) -> tuple[Tensors, Tensors]:
        """The implicit gradients of `⟨probes[k][o], output o⟩`, at the own and the polished output."""

        def gradients() -> tuple[Tensors, Tensors]:
            own, star = self.roots
            w = self.cotangent(k, o)
            return tuple(map(real, own.gradient(w))), tuple(map(real, star.gradient(w)))

        return self.once(("implicit", k, o), gradients)

    def cotangent(self, k: int, o: int) -> Tensor:
        """`probes[k][o]` of one output and zero of the others, as a vector of the equation."""
        return self.roots[1].equation.flat(
            [
                self.probes[k][o] if i == o else torch.zeros_like(value)
                for i, value in enumerate(self.tape.values)
            ]
        )

    @property
    def solver_is_known(self) -> bool:
        """True if the solver's part of a difference can be determined."""
        return self.residual is not None or self.tighten is not None

    @cached_property
    def tightened(self) -> Tightened:
        """The layer at ever tighter tolerances.

        Raises:
            NotExercisedError: The layer has no `tighten`.
            NoRootError: `tighten` returns no usable layer.
        """
        if self.tighten is None:
            raise NotExercisedError("the layer cannot be tightened: give tighten=")
        try:
            return Tightened(self.tighten, self.subject)
        except LayerError as error:
            raise NoRootError(f"tighten= gives no layer: {error}") from error

    def gradients_at_the_root(self, k: int, o: int) -> tuple[Tensors, Tensors] | None:
        """Two gradients of a cotangent that differ by the solver's error alone; `None` if unknown.

        For a known equation they are the implicit ones, at the layer's own and the polished output. With
        `tighten` they are those of the layer and of the tightest one.
        """
        if self.residual is not None:
            return self.implicit(k, o)
        if self.tighten is not None:
            cotangents = self.only(o, self.probes[k][o])
            tightest = self.tightened.gradients(k, o, cotangents)
            return self.gradients[k][o], tuple(map(real, tightest))
        return None

    @cached_property
    def lag(self) -> float:
        """Largest error of a correct gradient in units of the slack.

        The error of an implicit gradient is the slack itself. A gradient that autograd records through `k`
        steps of an iteration converges later: if the error of the value is `C ρᵏ`, that of the derivative
        is `(C′ + k C ρ′/ρ) ρᵏ`, larger by a factor that grows like `k` (Gilbert 1992, theorem 2.3). The
        number of steps follows from the rate at the root and the error found. In the families of the
        registry the factor is at most 5.1 per step.
        """
        layer = self.subject.layer
        if self.residual is None or (
            isinstance(layer, ImplicitLayer)
            and isinstance(layer.settings.chosen_gradient, ImplicitGradient)
        ):
            return _LAG
        rate = self.roots[1].inverse.rate
        if rate is None or not 0 < rate < 1:
            return _LAG_UNKNOWN
        error = max(self.solver_error, torch.finfo(torch.float64).eps)
        return max(_LAG, LAG_PER_STEP * math.log(error) / math.log(rate))

    def known_slack(self, o: int, s: int) -> float:
        """Slack of the gradient of the first cotangent; 0 if unknown."""
        try:
            return self.slack(0, o, s)
        except NotExercisedError:
            return 0.0

    def slack(self, k: int, o: int, s: int) -> float:
        """Error of a gradient that the solver's own error explains.

        It is the largest relative one of all cotangents, and at least the relative error of the output, since
        along a single cotangent the solver's error may be small by accident.
        """
        pair = self.gradients_at_the_root(k, o)
        return 0.0 if pair is None else self.relative_slack(o, s) * float(pair[1][s].norm())

    def relative_slack(self, o: int, s: int) -> float:
        """The slack relative to the gradient; 0 if the solver is unknown."""

        def largest() -> float:
            pairs = [self.gradients_at_the_root(k, o) for k in range(self.cotangents)]
            parts = [relative_distance(own[s], star[s]) for own, star in filter(None, pairs)]
            return max(*parts, min(self.solver_error, 1.0), 0.0)

        return self.once(("slack", o, s), largest)

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

    def conditioned_floor(self, output: int, slot: int) -> float:
        """The same for a known equation, with its condition number."""
        condition = self.roots[1].inverse.condition or 1.0
        eps = torch.finfo(self.precision(output, slot)).eps
        return self.relative_floor(output, slot) + 16 * eps * condition

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

    @property
    def coupled(self) -> bool:
        """True if the equation is too large for dense solves."""
        return isinstance(self.roots[1].inverse, Krylov)


def describe(layer: Any) -> str:
    """A name for the layer."""
    if isinstance(layer, torch.nn.Module):
        return type(layer).__name__
    name = getattr(layer, "__qualname__", None) or type(layer).__name__
    return name.replace("<locals>.", "").replace("<lambda>", "a lambda")
