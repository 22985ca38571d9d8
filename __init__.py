"""implicitly: functions defined by an equation instead of by a sequence of operations.

`root` and `fixed_point` solve an equation and differentiate its solution to every order; any solver
may find it. `ImplicitLayer` is the same as a PyTorch module.
"""

from .implicit import (
    CapturedTensorError,
    Exact,
    ImplicitLayer,
    JacobianFree,
    Neumann,
    Phantom,
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
    DenseLU,
    FixedPointIteration,
    NeumannSeries,
    Newton,
    NewtonKrylov,
    Solution,
    SolveError,
    Solver,
    SolveWarning,
    Status,
    Steffensen,
    Stopping,
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
    "DenseLU",
    "Exact",
    "FixedPointIteration",
    "ImplicitLayer",
    "JacobianFree",
    "Neumann",
    "NeumannSeries",
    "Newton",
    "NewtonKrylov",
    "Phantom",
    "Solution",
    "SolveError",
    "SolveWarning",
    "Solver",
    "Status",
    "Steffensen",
    "Stopping",
    "Unrolled",
    "fixed_point",
    "recurrence",
    "root",
]
