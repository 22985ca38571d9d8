"""An equation as solvers see it: a residual on flat `(batch, n)` tensors, and counters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .box import Box
from .compiled_systems import CompiledSystems
from .derivative import Derivative
from .derived_at import DerivedAt
from .objective import Objective
from .programme import Programme
from .solution import Counts
from .time_steps import TimeSteps
from .traced import Part, TracedEquation

Form = Literal["fixed_point", "root"]
FORMS = ("fixed_point", "root")


@dataclass
class Problem:
    """Independent systems `r(z) = 0` solved together.

    With `form="fixed_point"` the residual is `r(z) = f(z) − z`, with `form="root"` it is
    `r(z) = −F(z)`: in both, `z + r(z)` is one step of the plain iteration.

    Attributes:
        function: `f` or `F` on a `(batch, n)` tensor. Linear problems: an affine map.
        form: `"fixed_point"` or `"root"`.
        linearize: Gives the value of `function` and its `Derivative` at a point.
        operator: The linear part of `function`, for linear problems; else `None`.
        transpose: The transpose of `operator`, for solvers that need it; `None` if unknown.
        operator_matrix: Gives all matrices of `operator`, `(batch, n, n)`, for a tensor like the
            iterates; `None` to apply it to each unit vector.
        restrict: Gives the problem for the systems of an index tensor, so that finished systems
            are dropped from the evaluation; `None` where that is not possible.
        compiled: Gives the same systems in compiled code, where they are given so.
        graph: Gives a part of the systems (`function`, `operator`, or the Jacobians) as a graph of tensor
            operations, traced at its first use; `None` where there is none.
        precision: The dtype in which `function` computes, when coarser than the iterates' dtype.
        sizes: Gives the size of each unknown, `(batch, n)`; `None` for absolute values. Of the two parts of
            a complex number it is the modulus.
        objective: The function whose gradient `function` is; `None` for an equation that is no gradient.
        box: Bounds on the unknowns, outside of which nothing is evaluated; `None` where there are none.
        unreduced: The equation that need not hold where a bound is active: `function` is its reduced equation
            (`Box.reduced`). `None` where bounds leave the equation as it is.
        programme: Gives the data of the quadratic programmes whose conditions of optimality these are; `None`
            for other equations.
        time: The time steps of a causal equation; `None` where none is known to be causal.
        derived_at: The solution at which a linear equation was derived, if it was.
        counts: Work done so far.

    Examples:
        >>> problem = Problem(lambda z: torch.cos(z))
        >>> problem.residual(torch.zeros(1, 1)).item(), problem.counts.evaluations
        (1.0, 1)
    """

    function: Callable[[Tensor], Tensor]
    form: Form = "fixed_point"
    linearize: Callable[[Tensor], tuple[Tensor, Derivative]] | None = None
    operator: Callable[[Tensor], Tensor] | None = None
    transpose: Callable[[Tensor], Tensor] | None = None
    operator_matrix: Callable[[Tensor], Tensor] | None = None
    restrict: Callable[[Tensor], Problem] | None = None
    compiled: Callable[[], CompiledSystems] | None = None
    graph: Callable[[Part, Tensor], TracedEquation] | None = None
    precision: torch.dtype | None = None
    sizes: Callable[[Tensor], Tensor] | None = None
    objective: Objective | None = None
    box: Box | None = None
    unreduced: Problem | None = None
    programme: Callable[[], Programme] | None = None
    time: TimeSteps | None = None
    derived_at: DerivedAt | None = None
    counts: Counts = field(default_factory=Counts)
    _parked: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    _latest: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    """Where the last evaluation of note was, and its residual."""

    @property
    def linear(self) -> bool:
        return self.operator is not None

    @property
    def relative_to_iterate(self) -> bool:
        """True if tolerances are relative to the iterate, not to the residual at the start."""
        return self.form == "fixed_point" and not self.linear

    def dtype(self, z: Tensor) -> torch.dtype:
        """The coarsest dtype that residuals at `z` are computed in."""
        return self.precision or z.dtype

    def size(self, z: Tensor) -> Tensor:
        """The size of each unknown at `z`."""
        return z.abs() if self.sizes is None else self.sizes(z)

    def eps(self, z: Tensor) -> float:
        """The unit of rounding of residuals at `z`."""
        return torch.finfo(self.dtype(z)).eps

    def park(self, finished: Tensor, z: Tensor) -> None:
        """From now on evaluate the `finished` systems (boolean, `(batch, 1)`) at the rows of `z`.

        A finished system may have run off to NaN; `function` need not see that.
        """
        self._parked = (finished, z)

    @property
    def finished(self) -> Tensor | None:
        """The systems that have ended, `(batch, 1)` boolean, or `None` while all go on."""
        return None if self._parked is None else self._parked[0]

    def unpark(self) -> None:
        """Evaluate every system where it is asked for again."""
        self._parked = None

    def residual(self, z: Tensor, *, placed: bool = False) -> Tensor:
        """`r(z)`; one evaluation. With `placed`, `z` comes from `placed(z)`."""
        value, z = self._evaluated(z, placed)
        return self._noted(z, value - z if self.form == "fixed_point" else -value)

    def known_residual(self, z: Tensor) -> Tensor | None:
        """The residual at `z`, if the last evaluation of which note was taken was there."""
        if self._latest is None or not torch.equal(self._latest[0], z):
            return None
        return self._latest[1]

    def note(self, z: Tensor, residual: Tensor) -> None:
        """Take note of the residual of all systems at `z`."""
        self._latest = z.detach(), residual.detach()

    def _noted(self, z: Tensor, residual: Tensor) -> Tensor:
        """The residual, of which note is taken while systems are parked."""
        if self._parked is not None and self.time is None:
            self.note(z, residual)
        return residual

    def value(self, z: Tensor) -> Tensor:
        """`function(z)`; one evaluation."""
        return self._evaluated(z)[0]

    def placed(self, z: Tensor) -> Tensor:
        """Where the systems are evaluated for iterates `z`: finished ones stay where they were parked."""
        if self._parked is None:
            return z
        finished, values = self._parked
        return torch.where(finished, values, z)

    def _evaluated(self, z: Tensor, placed: bool = False) -> tuple[Tensor, Tensor]:
        """The value of `function`, and where it was taken."""
        self.counts.evaluations += 1
        z = z if placed else self.placed(z)
        return self.function(z), z

    def linearization(self, z: Tensor) -> Linearization:
        """The residual and its derivative at `z`; one evaluation, none for linear problems."""
        if self.operator is not None:
            derivative: Derivative = _Operator(self.operator, self.transpose, self.operator_matrix)
            return Linearization(self, None, derivative)
        if self.linearize is None:
            raise TypeError("this problem has no derivative: give Problem(linearize=...)")
        self.counts.evaluations += 1
        z = self.placed(z)
        value, derivative = self.linearize(z)
        residual = self._noted(z, value - z if self.form == "fixed_point" else -value)
        return Linearization(self, residual, derivative)

    def apply(self, v: Tensor) -> Tensor:
        """The linear part of the residual of a linear problem; counted as an evaluation."""
        if self.operator is None:
            raise TypeError("apply() needs a linear problem: give Problem(operator=...)")
        self.counts.evaluations += 1
        product = self.operator(v)
        return product - v if self.form == "fixed_point" else -product


@dataclass(frozen=True)
class Linearization:
    """The residual at a point and products with its Jacobian `J = ∂r/∂z`.

    Examples:
        >>> problem = Problem(lambda z: 0.5 * z + 1, operator=lambda v: 0.5 * v)
        >>> problem.linearization(torch.zeros(1, 1)).jvp(torch.ones(1, 1)).item()  # 0.5 − 1
        -0.5
    """

    problem: Problem
    residual: Tensor | None
    derivative: Derivative

    def jvp(self, v: Tensor) -> Tensor:
        """`J v`."""
        self.problem.counts.jvps += 1
        product = self.derivative.jvp(v)
        return product - v if self.problem.form == "fixed_point" else -product

    def vjp(self, u: Tensor) -> Tensor:
        """`Jᵀ u`."""
        self.problem.counts.vjps += 1
        product = self.derivative.vjp(u)
        return product - u if self.problem.form == "fixed_point" else -product

    def jacobian(self, like: Tensor) -> Tensor:
        """All of `J`, `(batch, n, n)`; counted as `n` JVPs, or as the derivative's `columns`."""
        self.problem.counts.jvps += getattr(self.derivative, "columns", like.shape[1])
        matrix = self.derivative.jacobian(like)
        if self.problem.form == "root":
            return -matrix
        identity = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
        return matrix - identity


@dataclass(frozen=True)
class _Operator:
    """The derivative of an affine map: its linear part, wherever it is taken."""

    apply: Callable[[Tensor], Tensor]
    transpose: Callable[[Tensor], Tensor] | None
    all_matrices: Callable[[Tensor], Tensor] | None

    def jvp(self, v: Tensor) -> Tensor:
        return self.apply(v)

    def vjp(self, u: Tensor) -> Tensor:
        if self.transpose is None:
            raise TypeError("this linear problem has no transpose: give Problem(transpose=...)")
        return self.transpose(u)

    def jacobian(self, like: Tensor) -> Tensor:
        if self.all_matrices is not None:
            return self.all_matrices(like)
        identity = torch.eye(like.shape[1], dtype=like.dtype, device=like.device)
        columns = [self.apply(row.expand_as(like)) for row in identity]
        return torch.stack(columns, dim=2) if columns else like.new_zeros(*like.shape, 0)
