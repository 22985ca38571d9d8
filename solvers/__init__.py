"""Solvers that find `z*`: one interface, one driver, and a file for each method.

A solver is a frozen dataclass of options with an update rule; `solve` drives it for a batch of
independent systems given as a `Problem`. Nothing here knows of autograd.
"""

from .adapters.given import GivenSolution
from .adapters.scipy_root import ScipyRoot
from .adapters.scipy_root_scalar import ScipyRootScalar
from .adapters.steady_state import SteadyState
from .bounded.projected_newton import ProjectedNewton
from .causal.causal_newton import CausalNewton
from .causal.prefix_anderson import PrefixAnderson
from .compiled.numba_root import NumbaRoot
from .composed.compiled import Compiled, NotCompiledWarning
from .composed.homotopy import Homotopy
from .composed.polyalgorithm import Polyalgorithm, Winner
from .driving.driver import solve
from .fixed_point.aitken import Aitken, Steffensen
from .fixed_point.anderson import Anderson
from .fixed_point.fixed_point_iteration import FixedPointIteration
from .fixed_point.reversible_iteration import ReversibleIteration
from .interface.check import Callback, Check
from .interface.compiled_systems import CompilationError, CompiledSystems
from .interface.derivative import Derivative
from .interface.goal import Goal
from .interface.loss import Arctan, Cauchy, Huber, Loss, SoftL1
from .interface.objective import Objective
from .interface.problem import Linearization, Problem
from .interface.solution import (
    Counts,
    DomainError,
    FlatSolution,
    Solution,
    SolveError,
    SolveWarning,
    Status,
)
from .interface.solver import RunOutcome, Solver, State, WholeSolver
from .interface.stopping import Stopping
from .interface.traced import GraphError
from .least_squares.gauss_newton import GaussNewton
from .least_squares.krylov_gauss_newton import KrylovGaussNewton
from .linear.bicgstab import BiCGStab
from .linear.cg import CG
from .linear.dense import solve_dense
from .linear.dense_lu import DenseLU
from .linear.gmres import GMRES
from .linear.lsmr import LSMR
from .linear.neumann_series import NeumannSeries
from .linear.sparse_lu import KnownPattern, SparseLU
from .minimisation.descent import LBFGS, GradientDescent
from .minimisation.krylov_region import NewtonCG
from .minimisation.newton_trust_region import NewtonTrustRegion
from .newton.globalisation import Globalisation
from .newton.levenberg_marquardt import LevenbergMarquardt
from .newton.line_search import LineSearch, NonmonotoneLineSearch
from .newton.newton import Newton
from .newton.newton_krylov import NewtonKrylov
from .newton.pseudo_transient import PseudoTransient
from .newton.trust_region import TrustRegion
from .quasi_newton.broyden import Broyden
from .quasi_newton.df_sane import DFSANE
from .scalar.bracketing import Bracketing

__all__ = [
    "CG",
    "DFSANE",
    "GMRES",
    "LBFGS",
    "LSMR",
    "Aitken",
    "Anderson",
    "Arctan",
    "BiCGStab",
    "Bracketing",
    "Broyden",
    "Callback",
    "Cauchy",
    "CausalNewton",
    "Check",
    "CompilationError",
    "Compiled",
    "CompiledSystems",
    "Counts",
    "DenseLU",
    "Derivative",
    "DomainError",
    "FixedPointIteration",
    "FlatSolution",
    "GaussNewton",
    "GivenSolution",
    "Globalisation",
    "Goal",
    "GradientDescent",
    "GraphError",
    "Homotopy",
    "Huber",
    "KnownPattern",
    "KrylovGaussNewton",
    "LevenbergMarquardt",
    "LineSearch",
    "Linearization",
    "Loss",
    "NeumannSeries",
    "Newton",
    "NewtonCG",
    "NewtonKrylov",
    "NewtonTrustRegion",
    "NonmonotoneLineSearch",
    "NotCompiledWarning",
    "NumbaRoot",
    "Objective",
    "Polyalgorithm",
    "PrefixAnderson",
    "Problem",
    "ProjectedNewton",
    "PseudoTransient",
    "ReversibleIteration",
    "RunOutcome",
    "ScipyRoot",
    "ScipyRootScalar",
    "SoftL1",
    "Solution",
    "SolveError",
    "SolveWarning",
    "Solver",
    "SparseLU",
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
