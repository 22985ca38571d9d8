"""The 23 classical problems, in the order of the literature.

The first fourteen are those of MINPACK (Moré, Garbow & Hillstrom 1981), the rest were gathered by
Burkardt (test_nonlin). Residuals, starts and roots are those of the original papers.
"""

from ..registry import register
from .any_size import BrownAlmostLinear, GeneralisedRosenbrock, Trigonometric, VariablyDimensioned
from .banded import BroydenBanded, BroydenTridiagonal
from .discretised import ChandrasekharH, DiscreteBoundaryValue, DiscreteIntegral
from .few_unknowns import HelicalValley, PowellBadlyScaled, PowellSingular, Wood
from .least_squares import Chebyquad, Watson
from .matrix_square_root import MatrixSquareRoot2, MatrixSquareRoot3
from .one_or_two import (
    Boggs,
    DennisSchnabel,
    ExponentialAxes,
    FreudensteinRoth,
    RadialCubic,
    ScalarDouble,
)

IN_ORDER = (
    GeneralisedRosenbrock,
    PowellSingular,
    PowellBadlyScaled,
    Wood,
    HelicalValley,
    Watson,
    Chebyquad,
    BrownAlmostLinear,
    DiscreteBoundaryValue,
    DiscreteIntegral,
    Trigonometric,
    VariablyDimensioned,
    BroydenTridiagonal,
    BroydenBanded,
    MatrixSquareRoot2,
    MatrixSquareRoot3,
    DennisSchnabel,
    ExponentialAxes,
    RadialCubic,
    ScalarDouble,
    FreudensteinRoth,
    Boggs,
    ChandrasekharH,
)

for _problem in IN_ORDER:
    register(_problem)
