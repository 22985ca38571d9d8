"""A curve of solutions as a result: points, special points, status, table and figure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten, tree_flatten_with_path

from ...options.options import check_callable
from ...solvers import Solution, Solver
from ..functional import root
from ..gradients import Gradient
from .equation import CurveEquation
from .following import CurveStatus, Limits, Trace, follow
from .modes import outside_of_inference
from .singular import solver_of
from .special import Search, SpecialPoint
from .walk import CurvePoint, Walk

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

# Halvings of a step beside a fold, until its ends tell the two solutions apart.
_MOST_HALVINGS = 30
_MARKS = {"fold": "o", "branch": "s", "hopf": "D"}


class CurveError(RuntimeError):
    """A curve could not be followed and the failure policy is `"raise"`.

    Attributes:
        curve: The `Curve`, as far as it was followed; a `Sweep` where a sweep was asked for.
    """

    def __init__(self, message: str, curve: Any) -> None:
        super().__init__(message)
        self.curve = curve


class CurveWarning(UserWarning):
    """A curve could not be followed and the failure policy is `"warn"`."""


@dataclass(frozen=True)
class Following:
    """The equation of a curve and everything by which it was followed, for more of the same."""

    equation: CurveEquation
    walk: Walk
    search: Search | None
    limits: Limits
    solver: Solver | None
    gradient: Gradient | None


@dataclass(frozen=True)
class Curve:
    """Solutions of `F(z, λ, *args) = 0` along a curve, in their order.

    Attributes:
        z: The unknowns, in the structure of `z0` with an axis of points in front; without derivatives, which
            `at` and `special` have.
        parameter: The values of the parameter, `(points,)`.
        arclength: Lengths from the start, in the units of `StepLengths`, `(points,)`.
        tangents: Tangents `(dz, dλ)` of length one, `(points, n + 1)`.
        special: Folds and branch points, in the order in which the curve meets them.
        status: How the curve ended.
        reason: Account of a failure.
        corrected: The largest change of an entry of `z0` by which the start was made a root; 0 where it was
            one.

    Examples:
        >>> import torch, implicitly
        >>> z0 = torch.tensor(-2.0, dtype=torch.float64)
        >>> curve = implicitly.continuation(lambda z, p: z**3 - z - p, z0, -6.0, bounds=(-6, 6))
        >>> curve.status.name, [round(fold.parameter.item(), 6) for fold in curve.folds]
        ('BOUND', [0.3849, -0.3849])
        >>> [round(solution.value.item(), 6) for solution in curve.at(0.0)]
        [-1.0, 0.0, 1.0]
    """

    z: Any
    parameter: Tensor
    arclength: Tensor
    tangents: Tensor = field(repr=False)
    special: tuple[SpecialPoint, ...]
    status: CurveStatus
    reason: str
    corrected: float
    following: Following = field(repr=False)

    @staticmethod
    def of(following: Following, trace: Trace, corrected: float = 0.0) -> Curve:
        """The curve of a trace."""
        w = torch.stack([point.w for point in trace.points])
        return Curve(
            following.equation.structured(w[:, :-1]),
            w[:, -1],
            torch.tensor([point.arclength for point in trace.points], dtype=torch.float64),
            torch.stack([point.tangent for point in trace.points]),
            tuple(trace.special),
            trace.status,
            trace.reason,
            corrected,
            following,
        )

    @property
    def folds(self) -> tuple[SpecialPoint, ...]:
        """The folds among the special points."""
        return tuple(point for point in self.special if point.kind == "fold")

    @property
    def branch_points(self) -> tuple[SpecialPoint, ...]:
        """The branch points among the special points."""
        return tuple(point for point in self.special if point.kind == "branch")

    @property
    def hopf_points(self) -> tuple[SpecialPoint, ...]:
        """The Hopf points among the special points."""
        return tuple(point for point in self.special if point.kind == "hopf")

    def __len__(self) -> int:
        return len(self.parameter)

    @outside_of_inference
    def at(self, parameter: Any) -> tuple[Solution, ...]:
        """All solutions of the curve at one value of the parameter, in the order of the curve.

        Each is a root of `F(z, parameter, *args)`, differentiable in `parameter` and in the arguments of
        the curve.

        Args:
            parameter: The value: a number, or a tensor without axes.

        Raises:
            TypeError, ValueError: `parameter` is not one finite number.
            SolveError: A solution was not found to its tolerance: at a fold there is no derivative.
        """
        given = self.following
        value = given.equation.number("parameter", parameter)
        nodes, at = self._nodes(), float(value.detach())
        starts = [nodes[0].w[:-1]] if float(nodes[0].w[-1]) == at else []
        with torch.no_grad():
            for a, b in pairwise(nodes):
                start = _crossing(given.walk, a, b, at)
                # A closed curve ends where it began.
                if start is not None and not (starts and self._closes(b, start, starts[0])):
                    starts.append(start)
        return tuple(solution_at(given, start, value) for start in starts)

    def _closes(self, b: CurvePoint, start: Tensor, first: Tensor) -> bool:
        last = self.status == CurveStatus.CLOSED and b.arclength == float(self.arclength[-1])
        return last and torch.equal(start, first)

    @outside_of_inference
    def branch(self, point: SpecialPoint) -> tuple[Curve, Curve]:
        """The other curve through a branch point, followed in both directions, with the options of this one.

        Args:
            point: One of `branch_points`.

        Raises:
            ValueError: It is no branch point, was not located, or has no other tangent of its own.
        """
        if not point.directions:
            raise ValueError(
                f"point must be a branch point with another tangent, got a {point.kind} point with status "
                f"{point.status} and no directions: the branching equation is degenerate there, or the "
                "point was not located. Start a continuation at a solution of the other branch"
            )
        given, metric = self.following, self.following.walk.metric
        (direction,) = point.directions
        z = given.equation.flat(point.z).detach()
        w = torch.cat((z, point.parameter.detach().reshape(1)))
        curves = []
        for way in (1, -1):
            start = CurvePoint(w, way * metric.unit(direction), 0)
            with torch.no_grad():
                trace = follow(given.walk, given.search, given.limits, start, switched=True)
            curves.append(Curve.of(given, trace))
        return curves[0], curves[1]

    def to_pandas(self) -> pandas.DataFrame:
        """A table with a row for each point: parameter, arclength, and a column for each entry of the
        unknown.

        Raises:
            ImportError: pandas is missing (extra `studies`).
        """
        import pandas

        columns: dict[str, Any] = {
            "parameter": self.parameter.cpu().numpy(),
            "arclength": self.arclength.numpy(),
        }
        for path, leaf in tree_flatten_with_path(self.z)[0]:
            entries = leaf.reshape(len(self), -1).cpu().numpy()
            for place in range(entries.shape[1]):
                name = f"z{keystr(path)}" + ("" if leaf.dim() == 1 else f"[{place}]")
                columns[name] = entries[:, place]
        return pandas.DataFrame(columns)

    def plot(self, measure: Callable[[Any], Any] | None = None, axes: Axes | None = None) -> Axes:
        """Draw a number of every solution against the parameter, with folds and branch points.

        Args:
            measure: Gives a number for an unknown in the structure of `z0`; `None` for its only entry, or
                for the root mean square of its entries.
            axes: Axes to draw in; `None` for a new figure.

        Raises:
            ImportError: Matplotlib is missing (extra `figures`).
        """
        import matplotlib.pyplot as plt

        check_callable("measure", measure)
        axes = axes if axes is not None else plt.figure().add_subplot()
        equation = self.following.equation
        w = [point.w for point in self._points()]
        heights = [self._measured(equation.structured(point[:-1]), measure) for point in w]
        (line,) = axes.plot(self.parameter.cpu().numpy(), heights)
        for kind, mark in _MARKS.items():
            points = [point for point in self.special if point.kind == kind]
            if points:
                across = [point.parameter.item() for point in points]
                up = [self._measured(point.z, measure) for point in points]
                axes.plot(across, up, mark, color=line.get_color(), markerfacecolor="white")
        axes.set_xlabel("parameter")
        axes.set_ylabel("unknown" if equation.n == 1 else "root mean square of the unknown")
        return axes

    def _measured(self, z: Any, measure: Callable[[Any], Any] | None) -> float:
        if measure is not None:
            return float(measure(z))
        flat = self.following.equation.flat(z).detach()
        return float(flat if len(flat) == 1 else flat.square().mean().sqrt())

    def _points(self) -> list[CurvePoint]:
        leaves = [leaf.reshape(len(self), -1) for leaf in tree_flatten(self.z)[0]]
        w = torch.cat((*leaves, self.parameter.unsqueeze(1)), dim=1)
        lengths = self.arclength.tolist()
        return [
            CurvePoint(point, tangent, 0, length)
            for point, tangent, length in zip(w, self.tangents, lengths, strict=True)
        ]

    def _nodes(self) -> list[CurvePoint]:
        """The points with the located folds between them, so that the parameter is monotone between two."""
        nodes = self._points()
        for fold in reversed(self.folds):
            if fold.located and fold.index + 1 < len(self):
                flat = self.following.equation.flat
                v = flat(fold.null).detach()
                tangent = torch.cat((v, torch.zeros_like(v[:1])))
                w = torch.cat((flat(fold.z).detach(), fold.parameter.detach().reshape(1)))
                # On the way of the curve.
                metric, before = self.following.walk.metric, nodes[fold.index].tangent
                if metric.inner(tangent, before) < 0:
                    tangent = -tangent
                nodes.insert(fold.index + 1, CurvePoint(w, metric.unit(tangent), 0))
        return nodes


def solution_at(following: Following, start: Tensor, parameter: Tensor) -> Solution:
    """The root near `start`, `(n,)`, at this value of the parameter, with all its derivatives."""
    equation = following.equation

    def at(z: Tensor, parameter: Tensor, *args: Any) -> Tensor:
        return equation.residual(z, parameter, *args)

    solution = root(
        at, start, parameter, *equation.args,
        solver=solver_of(equation.n, following.solver), gradient=following.gradient,
    )  # fmt: skip
    return replace(solution, value=equation.structured(solution.value))


def _crossing(walk: Walk, a: CurvePoint, b: CurvePoint, parameter: float) -> Tensor | None:
    """The unknown where the curve passes the parameter between `a` and `b`, `(n,)`, or `None`."""
    rising = float(b.w[-1] - a.w[-1])
    if not _passes(a, b, parameter):
        return None
    for _ in range(_MOST_HALVINGS):
        point = walk.at_parameter(a, b, parameter)
        # Beside a fold the other solution is near.
        if isinstance(point, CurvePoint) and point.slope * rising > 0:
            return point.w[:-1]
        middle = walk.between(a, b, 0.5)
        if isinstance(middle, str):
            break
        a, b = (a, middle) if _passes(a, middle, parameter) else (middle, b)
    part = (parameter - float(a.w[-1])) / float(b.w[-1] - a.w[-1])
    return torch.lerp(a.w, b.w, part)[:-1]


def _passes(a: CurvePoint, b: CurvePoint, parameter: float) -> bool:
    """True if the parameter is between those of two points, that of the second included."""
    low, high = float(a.w[-1]), float(b.w[-1])
    return low < parameter <= high or high <= parameter < low
