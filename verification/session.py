"""Session of one verification, shared by all checks: the layer's call, its gradients, the root behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..implicit import ImplicitLayer
from ..implicit.gradients import ImplicitGradient
from .equations import KnownEquation
from .examined import Examined
from .linear import Krylov, SingularError
from .polish import PolishError, Root, polish, relative_distance
from .real import real
from .subject import LayerError, Tensors
from .tightening import Tightened

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
class Session(Examined):
    """One verification in progress: the call, and the root behind it if its equation is known."""

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

    def conditioned_floor(self, output: int, slot: int) -> float:
        """The same for a known equation, with its condition number."""
        condition = self.roots[1].inverse.condition or 1.0
        eps = torch.finfo(self.precision(output, slot)).eps
        return self.relative_floor(output, slot) + 16 * eps * condition

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
