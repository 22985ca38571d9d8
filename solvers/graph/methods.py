"""The solvers that have steps for a graph."""

from __future__ import annotations

from typing import Any

from ..fixed_point.anderson import Anderson
from ..fixed_point.fixed_point_iteration import FixedPointIteration
from ..interface.solver import Solver
from ..linear.bicgstab import BiCGStab
from ..linear.gmres import GMRES
from ..linear.neumann_series import NeumannSeries
from ..newton.newton import Newton
from ..quasi_newton.broyden import Broyden
from .anderson import GraphAnderson
from .broyden import GraphBroyden
from .gmres import GraphGMRES
from .method import AsItIs, Linear, Method, TwoProducts
from .newton import GraphNewton

_METHODS: dict[type[Solver], type[Method]] = {
    FixedPointIteration: AsItIs,
    Anderson: GraphAnderson,
    Broyden: GraphBroyden,
    Newton: GraphNewton,
    NeumannSeries: Linear,
    BiCGStab: TwoProducts,
    GMRES: GraphGMRES,
}
NAMES = ", ".join(kind.__name__ for kind in _METHODS)


def method_of(solver: Any) -> Method:
    """The method of a solver.

    Raises:
        TypeError: It has none, or holds a function of Python.
    """
    kind = _METHODS.get(type(solver))
    if kind is None:
        name = f"the class {solver.__name__}" if isinstance(solver, type) else repr(solver)
        raise TypeError(f"Compiled(solver) takes one of {NAMES}, got {name}")
    if getattr(solver, "preconditioner", None) is not None:
        raise TypeError(
            f"Compiled({type(solver).__name__}(preconditioner=...)) cannot compile a preconditioner, which "
            "is a function of Python: leave it out, or use the solver without Compiled"
        )
    return kind(solver)
