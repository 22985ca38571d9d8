"""Implicit functions in autograd: equations, the one derivative rule, gradient modes, the layer."""

from .arrays.array_function import ArrayFunction
from .compiled.compiled_map import ComplexStepError
from .compiled.numba_equation import NumbaEquation
from .curves.continuing import continuation
from .curves.curve import Curve, CurveError, CurveWarning
from .curves.deflation import Roots, several_roots
from .curves.enclosure import all_roots
from .curves.folding import fold
from .curves.following import CurveStatus
from .curves.singular import Fold
from .curves.special import SpecialPoint
from .curves.steps import StepLengths
from .curves.sweeping import Sweep, sweep
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
from .layer_records import LayerRecord, LayerRecords, record_layers
from .optimisation.active_bounds import ActiveBounds
from .optimisation.complementarity import complementarity, fischer_burmeister, minimum_map
from .optimisation.constrained import constrained_minimum
from .optimisation.lagrangian import ConstrainedMinimum
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
from .optimisation.programmes import quadratic_programme
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
    "ConstrainedMinimum",
    "Curve",
    "CurveError",
    "CurveStatus",
    "CurveWarning",
    "Exact",
    "Fold",
    "GaussNewtonApproximation",
    "Gradient",
    "GraphLayer",
    "GraphSolution",
    "ImplicitGradient",
    "ImplicitLayer",
    "InPlaceError",
    "JacobianFree",
    "LayerRecord",
    "LayerRecords",
    "LinearSolve",
    "MinimumNorm",
    "MissingDerivativeError",
    "Neumann",
    "NumbaEquation",
    "Phantom",
    "ReconstructionError",
    "Recording",
    "ReuseInverse",
    "Reversible",
    "Roots",
    "SpecialPoint",
    "StepLengths",
    "Sweep",
    "TapedGradient",
    "TracingError",
    "Unrolled",
    "WrongDerivativeError",
    "all_roots",
    "complementarity",
    "constrained_minimum",
    "continuation",
    "fischer_burmeister",
    "fixed_point",
    "fold",
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
    "record_layers",
    "recurrence",
    "root",
    "several_roots",
    "sinkhorn",
    "soft_threshold",
    "sweep",
    "transport_plan",
]
