"""What finds `z*`: one interface, one driver, and a page for each solver.

A solver is a frozen dataclass of options with an update rule; `solve` drives it for a batch of
independent systems given as a `Problem`. Nothing here knows of autograd.
"""

from .aitken import Aitken, Steffensen
from .anderson import Anderson
from .bicgstab import BiCGStab
from .bracketing import Bracketing
from .broyden import Broyden
from .causal_newton import CausalNewton
from .cg import CG
from .compiled import CompilationError, CompiledSystems
from .dense import solve_dense
from .dense_lu import DenseLU
from .df_sane import DFSANE
from .driver import Callback, FlatSolution, solve
from .fixed_point_iteration import FixedPointIteration
from .globalisation import Globalisation
from .gmres import GMRES
from .goal import Goal
from .homotopy import Homotopy
from .levenberg_marquardt import LevenbergMarquardt
from .line_search import LineSearch, NonmonotoneLineSearch
from .lsmr import LSMR
from .neumann_series import NeumannSeries
from .newton import Newton
from .newton_krylov import NewtonKrylov
from .numba_root import NumbaRoot
from .polyalgorithm import Polyalgorithm, Winner
from .problem import Derivative, Linearization, Problem
from .pseudo_transient import PseudoTransient
from .reversible_iteration import ReversibleIteration
from .scipy_root import ScipyRoot
from .scipy_root_scalar import ScipyRootScalar
from .solution import Counts, Solution, SolveError, SolveWarning, Status
from .solver import Outcome, Solver, State, WholeSolver
from .steady_state import SteadyState
from .stopping import Stopping
from .trust_region import TrustRegion

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
    "Callback",
    "CausalNewton",
    "CompilationError",
    "CompiledSystems",
    "Counts",
    "DenseLU",
    "Derivative",
    "FixedPointIteration",
    "FlatSolution",
    "Globalisation",
    "Goal",
    "Homotopy",
    "LevenbergMarquardt",
    "LineSearch",
    "Linearization",
    "NeumannSeries",
    "Newton",
    "NewtonKrylov",
    "NonmonotoneLineSearch",
    "NumbaRoot",
    "Outcome",
    "Polyalgorithm",
    "Problem",
    "PseudoTransient",
    "ReversibleIteration",
    "ScipyRoot",
    "ScipyRootScalar",
    "Solution",
    "SolveError",
    "SolveWarning",
    "Solver",
    "State",
    "Status",
    "SteadyState",
    "Steffensen",
    "Stopping",
    "TrustRegion",
    "WholeSolver",
    "Winner",
    "solve",
    "solve_dense",
]
