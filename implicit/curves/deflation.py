"""`several_roots`: different roots of one equation, each found where the others are deflated.

Where roots `r₁, …, r_k` are known, the equation `M(z) F(z) = 0` with

    M(z) = Π_i ( ‖z − r_i‖⁻ᵖ + 1 )

has the other roots of `F` and not these: near `r_i` the factor outgrows the residual, if `p` is large
enough, and far from all of them it is one. A solver that went to a known root from some start goes
elsewhere, or fails.

Source: Brown & Gearhart 1971; Farrell, Birkisson & Funke 2015, equation 3.3 (shifted deflation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ...options.options import check_integer, is_positive
from ...solvers import Newton, Solution, SolveError, Solver, Status, Stopping
from ..functional import root
from ..gradients import Gradient
from ..surroundings.compilation import outside_of_graphs
from .equation import CurveEquation
from .modes import outside_of_inference
from .singular import MOST_DENSE
from .special import spread

# Roots whose distance is below this part of their size are one.
_SAME = 1e-6
# A start so near to a known root, relative to the unit of length, is moved.
_AT_ROOT, _MOVED = 1e-3, 0.05


@dataclass(frozen=True)
class Roots:
    """Roots of one equation.

    Attributes:
        z: The roots, with an axis of roots in front of the structure of the unknown; differentiable.
        solutions: The `Solution` of each root.
        complete: True if these are proved to be all roots in the interval; `several_roots` proves nothing.
        unresolved: Intervals in which a root may lie and none was proved, `(k, 2)`.
        reasons: Account of the search.

    Examples:
        >>> import torch, implicitly
        >>> roots = implicitly.several_roots(lambda z: z**2 - 4, torch.tensor(1.0, dtype=torch.float64))
        >>> sorted(round(z, 6) for z in roots.z.tolist()), roots.complete
        ([-2.0, 2.0], False)
    """

    z: Any
    solutions: tuple[Solution, ...] = field(repr=False)
    complete: bool
    unresolved: Tensor
    reasons: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.solutions)


@outside_of_graphs
@outside_of_inference
def several_roots(
    F: Callable[..., Any],
    z0: Any,
    *args: Any,
    starts: Sequence[Any] = (),
    max_roots: int = 20,
    power: float = 2.0,
    unit: float | None = None,
    solver: Solver | None = None,
    stopping: Stopping | None = None,
    gradient: Gradient | None = None,
) -> Roots:
    """Different roots of `F(z, *args) = 0` from one start or several, each differentiable in `args`.

    From each start roots are found one after the other, those known deflated, until the solver finds no
    more. Every root is then solved for without deflation, so that its accuracy and its derivatives are
    those of `root`. Nothing is proved of roots that were not found: another start, `power` or `unit` may
    find more. `Roots.reasons` says how the search ended from each start. For scalar equations `all_roots`
    can prove that there are no others.

    Args:
        F: Gives the residual, as of `root`.
        z0: The first start: a real tensor or a pytree of them.
        args: Further arguments, as of `root`.
        starts: More starts, in the structure of `z0`.
        max_roots: The most roots.
        power: `p` above: 1 for simple roots far apart, 2 also for roots at which the residual vanishes to
            second order.
        unit: The length in which `‖z − r‖` is measured, a root mean square; `None` for the size of the
            start or of the roots, the larger one.
        solver: Solver of the deflated equation; `None` for `Newton()` up to 512 unknowns, above for the
            default of `root`.
        stopping: Its stopping rule.
        gradient: Gradient mode of the roots; `None` for `Exact()`.

    Returns:
        The roots in the order in which they were found; none is an answer too.

    Raises:
        TypeError, ValueError: An argument has the wrong type or is out of range; see `continuation` for `z0`.
        RuntimeError: A transform of `torch.func` is active.

    Source: Farrell, Birkisson & Funke 2015, sections 2 and 3.

    Examples:
        >>> import torch, implicitly
        >>> a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        >>> F = lambda z, a: torch.stack((z[0] ** 2 + z[1] ** 2 - a, z[0] - z[1]))  # A circle and a line.
        >>> roots = implicitly.several_roots(F, torch.tensor([2.0, 0.5], dtype=torch.float64), a)
        >>> roots.z[:, 0].abs().sum().backward()
        >>> len(roots), round(a.grad.item(), 6)  # ±(1, 1), each with the derivative ±1/4.
        (2, 0.5)
    """
    check_integer("max_roots", max_roots, 1)
    for name, value in (("power", power), ("unit", 1.0 if unit is None else unit)):
        if not is_positive(value):
            raise ValueError(f"{name} must be a number > 0, got {value!r}")
    equation = CurveEquation.of(lambda z, _, *args: F(z, *args), z0, args)
    equation = replace(equation, described=CurveEquation.of(F, z0, args).described)
    deflated = _Deflated(equation, power, unit, solver, stopping)
    for number, start in enumerate(starts):
        other = CurveEquation.of(F, start, args)
        if (other.spec, other.shapes) != (equation.spec, equation.shapes):
            raise ValueError(f"starts[{number}] must have the structure and the shapes of z0")
    found: list[Tensor] = []
    reasons = []
    for start in (z0, *starts):
        reasons.append(deflated.search(equation.flat(start).detach(), found, max_roots))
    solutions = [_polished(equation, z, stopping, gradient) for z in found]
    rows = [equation.flat(solution.value) for solution in solutions]
    stacked = torch.stack(rows) if rows else equation.like.new_empty(0, equation.n)
    none = equation.like.new_empty(0, 2)
    return Roots(equation.structured(stacked), tuple(solutions), False, none, tuple(reasons))


@dataclass(frozen=True)
class _Deflated:
    """An equation with known roots deflated."""

    equation: CurveEquation
    power: float
    unit: float | None
    solver: Solver | None
    stopping: Stopping | None

    def search(self, start: Tensor, found: list[Tensor], most: int) -> str:
        """Find roots from one start until there are no more; an account of the end."""
        new = 0
        while len(found) < most:
            unit = self._unit(start, found)
            try:
                z = self._next(self._off(start, found, unit), found, unit)
                z = _polished(self.equation.constant(), z, self.stopping, None).value
            except SolveError as error:
                name = Status(int(error.solution.status)).name
                return f"{new} new roots; then the deflated equation ended with {name}"
            z = self.equation.flat(z).detach()
            if any(_length(z - known) <= _SAME * max(unit, _length(z)) for known in found):
                return f"{new} new roots; then one that was known came again"
            found.append(z)
            new += 1
        return f"{new} new roots; then the limit on roots was reached (max_roots={most})"

    def _next(self, start: Tensor, found: list[Tensor], unit: float) -> Tensor:
        known = tuple(found)
        equation = self.equation.constant()

        def residual(z: Tensor, *args: Any) -> Tensor:
            value = equation.residual(z, z.new_zeros(()), *args)
            for r in known:
                value = value * (((z - r) / unit).square().mean() ** (-self.power / 2) + 1)
            return value

        solver = self.solver
        if solver is None and equation.n <= MOST_DENSE:
            solver = Newton()
        return root(residual, start, *equation.args, solver=solver, stopping=self.stopping).value

    def _unit(self, start: Tensor, found: list[Tensor]) -> float:
        if self.unit is not None:
            return self.unit
        return max(_length(z) for z in (start, *found)) or 1.0

    @staticmethod
    def _off(start: Tensor, found: list[Tensor], unit: float) -> Tensor:
        """The start, moved if it is at a known root, where the deflated residual has no value."""
        if all(_length(start - known) > _AT_ROOT * unit for known in found):
            return start
        step = spread(start)
        return start + _MOVED * unit / _length(step) * step


def _polished(
    equation: CurveEquation, z: Tensor, stopping: Stopping | None, gradient: Gradient | None
) -> Solution:
    """The root of the equation itself near a root of the deflated one, in the structure of the unknown."""

    def residual(z: Tensor, *args: Any) -> Tensor:
        return equation.residual(z, z.new_zeros(()), *args)

    found = root(residual, z, *equation.args, stopping=stopping, gradient=gradient)
    return replace(found, value=equation.structured(found.value))


def _length(z: Tensor) -> float:
    return float(z.detach().square().mean().sqrt())
