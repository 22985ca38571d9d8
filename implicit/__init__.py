"""Implicit functions in autograd: equations, the one derivative rule, gradient modes, the layer."""

from .arrays.array_function import ArrayFunction
from .compiled.compiled_map import ComplexStepError
from .compiled.numba_equation import NumbaEquation
from .derivatives.given import WrongDerivativeError
from .equations.capture import CapturedTensorError
from .equations.differentiation import MissingDerivativeError
from .functional import fixed_point, root
from .given_solution import implicit_function
from .gradients import (
    Exact,
    GaussNewtonApproximation,
    Gradient,
    ImplicitGradient,
    JacobianFree,
    LinearSolve,
    MinimumNorm,
    Neumann,
    Phantom,
    ReconstructionError,
    Recording,
    ReuseInverse,
    Reversible,
    TapedGradient,
    Unrolled,
)
from .graphs.graph_layer import GraphLayer, package
from .graphs.layer_graphs import GraphSolution
from .layer import ImplicitLayer
from .optimisation.active_bounds import ActiveBounds
from .optimisation.complementarity import complementarity, fischer_burmeister, minimum_map
from .optimisation.minima import least_squares, minimise
from .optimisation.optimality import (
    onto_ball,
    onto_box,
    onto_simplex,
    projected_gradient,
    proximal_gradient,
    sinkhorn,
    soft_threshold,
    transport_plan,
)
from .optimisation.programmes import QuadraticProgramme, quadratic_programme
from .recurrence import recurrence
from .surroundings.autocast import Autocast
from .surroundings.purity import ChangedFunctionWarning
from .surroundings.tracing import TracingError
from .surroundings.writes import InPlaceError

__all__ = [
    "ActiveBounds",
    "ArrayFunction",
    "Autocast",
    "CapturedTensorError",
    "ChangedFunctionWarning",
    "ComplexStepError",
    "Exact",
    "GaussNewtonApproximation",
    "Gradient",
    "GraphLayer",
    "GraphSolution",
    "ImplicitGradient",
    "ImplicitLayer",
    "InPlaceError",
    "JacobianFree",
    "LinearSolve",
    "MinimumNorm",
    "MissingDerivativeError",
    "Neumann",
    "NumbaEquation",
    "Phantom",
    "QuadraticProgramme",
    "ReconstructionError",
    "Recording",
    "ReuseInverse",
    "Reversible",
    "TapedGradient",
    "TracingError",
    "Unrolled",
    "WrongDerivativeError",
    "complementarity",
    "fischer_burmeister",
    "fixed_point",
    "implicit_function",
    "least_squares",
    "minimise",
    "minimum_map",
    "onto_ball",
    "onto_box",
    "onto_simplex",
    "package",
    "projected_gradient",
    "proximal_gradient",
    "quadratic_programme",
    "recurrence",
    "root",
    "sinkhorn",
    "soft_threshold",
    "transport_plan",
]
