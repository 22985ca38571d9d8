"""implicitly: functions defined by an equation instead of by a sequence of operations.

`root` and `fixed_point` solve an equation and differentiate its solution to every order; any solver
may find it. `ImplicitLayer` is the same as a PyTorch module.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .implicit import (
        CapturedTensorError,
        ComplexStepError,
        Exact,
        ImplicitLayer,
        JacobianFree,
        Neumann,
        NumbaEquation,
        Phantom,
        ReconstructionError,
        ReuseInverse,
        Reversible,
        Unrolled,
        fixed_point,
        recurrence,
        root,
    )
    from .solvers import (
        CG,
        DFSANE,
        GMRES,
        LSMR,
        Aitken,
        Anderson,
        BiCGStab,
        Bracketing,
        Broyden,
        CausalNewton,
        CompilationError,
        DenseLU,
        FixedPointIteration,
        Homotopy,
        LevenbergMarquardt,
        LineSearch,
        NeumannSeries,
        Newton,
        NewtonKrylov,
        NonmonotoneLineSearch,
        NumbaRoot,
        Polyalgorithm,
        PseudoTransient,
        ReversibleIteration,
        ScipyRoot,
        ScipyRootScalar,
        Solution,
        SolveError,
        Solver,
        SolveWarning,
        SparseLU,
        Status,
        SteadyState,
        Steffensen,
        Stopping,
        TrustRegion,
        Winner,
    )

__version__ = "0.1.0"

__all__ = [
    "CG",
    "DFSANE",
    "GMRES",
    "LSMR",
    "Aitken",
    "Anderson",
    "BiCGStab",
    "Bracketing",
    "Broyden",
    "CapturedTensorError",
    "CausalNewton",
    "CompilationError",
    "ComplexStepError",
    "DenseLU",
    "Exact",
    "FixedPointIteration",
    "Homotopy",
    "ImplicitLayer",
    "JacobianFree",
    "LevenbergMarquardt",
    "LineSearch",
    "Neumann",
    "NeumannSeries",
    "Newton",
    "NewtonKrylov",
    "NonmonotoneLineSearch",
    "NumbaEquation",
    "NumbaRoot",
    "Phantom",
    "Polyalgorithm",
    "PseudoTransient",
    "ReconstructionError",
    "ReuseInverse",
    "Reversible",
    "ReversibleIteration",
    "ScipyRoot",
    "ScipyRootScalar",
    "Solution",
    "SolveError",
    "SolveWarning",
    "Solver",
    "SparseLU",
    "Status",
    "SteadyState",
    "Steffensen",
    "Stopping",
    "TrustRegion",
    "Unrolled",
    "Winner",
    "fixed_point",
    "recurrence",
    "root",
]

_SUBPACKAGES = ("implicit", "models", "problems", "solvers", "studies", "verification")


def __getattr__(name: str) -> object:
    """Import what is asked for when it is: PyTorch takes seconds, and help needs none."""
    if name in _SUBPACKAGES:
        return import_module(f".{name}", __name__)
    if name in __all__:
        home = import_module(".implicit", __name__)
        if not hasattr(home, name):
            home = import_module(".solvers", __name__)
        globals()[name] = value = getattr(home, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
