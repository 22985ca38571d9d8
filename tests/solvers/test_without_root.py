"""A registry of equations without a root, for every solver and in both precisions."""

import implicitly as im
import pytest
import torch

from .test_acceptance import SOLVERS

sin, cos, exp, tanh = torch.sin, torch.cos, torch.exp, torch.tanh


def pair(F):
    """A function of two numbers as one of the last axis."""
    return lambda z: torch.stack(F(*z.unbind(-1)), dim=-1)


ONE = {
    "x² + 1": lambda z: z * z + 1, "x² + 1e-6": lambda z: z * z + 1e-6, "x⁴ + 1": lambda z: z**4 + 1,
    "x² + x + 1": lambda z: z * z + z + 1, "(x − 3)² + 0.1": lambda z: (z - 3) ** 2 + 0.1,
    "x⁶ + x² + 2": lambda z: z**6 + z**2 + 2, "e^x": exp, "e^−x": lambda z: exp(-z),
    "e^x + e^−x": lambda z: exp(z) + exp(-z), "e^(−x²)": lambda z: exp(-z * z), "1/x": lambda z: 1 / z,
    "1/(1 + x²)": lambda z: 1 / (1 + z * z), "1/(1 + x⁴)": lambda z: 1 / (1 + z**4), "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus, "2 + sin": lambda z: 2 + sin(z),
    "1.001 + cos": lambda z: 1.001 + cos(z), "tanh − 1.1": lambda z: tanh(z) - 1.1,
    "atan − 2": lambda z: torch.atan(z) - 2, "x/(1 + x²) − 0.6": lambda z: z / (1 + z * z) - 0.6,
    "√(1 + x²)": lambda z: (1 + z * z).sqrt(), "√(1 + x²) − x": lambda z: (1 + z * z).sqrt() - z,
    "|x| + 0.5": lambda z: z.abs() + 0.5, "x sin x + x² + 1": lambda z: z * sin(z) + z * z + 1,
    "ln(1 + x²) + 0.3": lambda z: torch.log1p(z * z) + 0.3, "cosh": torch.cosh,
    "e^x − x": lambda z: exp(z) - z, "x² − 2 x + 1.001": lambda z: z * z - 2 * z + 1.001,
}  # fmt: skip
TWO = {
    "two parallel lines": pair(lambda x, y: (x + y - 1, x + y - 2)),
    "a circle and a line": pair(lambda x, y: (x * x + y * y - 1, x + y - 3)),
    "two circles": pair(lambda x, y: (x * x + y * y - 1, (x - 3) ** 2 + y * y - 1)),
    "an arm too short": pair(lambda a, b: (cos(a) + cos(a + b) - 3, sin(a) + sin(a + b) - 1)),
    "a parabola above a line": pair(lambda x, y: (y - x * x - 1, y - x + 1)),
    "a hyperbola and an axis": pair(lambda x, y: (x * y - 1, y * (1 + x * x))),
    "a saddle": pair(lambda x, y: (x * x + y * y + 1, x - y)),
    "exponential and line": pair(lambda x, y: (exp(x) - y, y + x * x)),
    "a tangent": pair(lambda x, y: (tanh(x + y) - 1.2, x - y)),
    "a ring": pair(lambda x, y: ((x * x + y * y - 1) ** 2 + 0.01, x - y)),
}


def test_a_slope_that_rounding_leaves_far_out_tells_no_root():
    # There 1 + z² is z², and the quotient of its root and z rounds to beside one.
    z0 = torch.tensor([0.7], dtype=torch.float64)
    found = im.root(ONE["√(1 + x²) − x"], z0, solver=im.Anderson(kind="I"), on_failure="accept")
    assert not found.converged.any()


ROUNDED = {
    "1 + tanh": lambda z: 1 + tanh(z), "1 + erf": lambda z: 1 + torch.erf(z), "ndtr": torch.special.ndtr,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("start", [2.0, 5.0])
@pytest.mark.parametrize(
    "solver", [im.Newton(), im.Broyden(), im.DFSANE()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("name", ROUNDED)
def test_a_residual_that_rounds_to_zero_beside_terms_that_cancel_is_no_root(
    name, solver, start, dtype
):
    # The slope comes from another formula, is not zero, and leaves no error at all.
    z0 = torch.tensor([start], dtype=dtype)
    found = im.root(ROUNDED[name], z0, solver=solver, on_failure="accept")
    assert not found.converged.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("F", "root"),
    [
        (lambda z: torch.relu(z - 1) ** 2, 1.0), (lambda z: (z.abs() - 1).clamp_min(0), 1.0),
        (lambda z: torch.expm1(z), 0.0), (lambda z: 1 - cos(z), 0.0), (lambda z: torch.cosh(z) - 1, 0.0),
        (lambda z: z - 1, 1.0), (torch.log, 1.0),
    ],
    ids=["square of relu", "hinge", "expm1", "1 - cos", "cosh - 1", "line", "log"],
)  # fmt: skip
def test_roots_of_functions_that_are_flat_there_are_roots(F, root, dtype):
    found = im.root(F, torch.tensor([2.0], dtype=dtype), on_failure="accept")
    assert found.converged.all()
    # A double root is found to the square root of rounding.
    assert abs(found.value.item() - root) <= 4 * torch.finfo(dtype).eps ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(
    "name",
    [
        name if name in ("e^−x", "a ring") else pytest.param(name, marks=pytest.mark.long)
        for name in (*ONE, *TWO)
    ],
)
def test_what_has_no_root_is_never_called_solved(name, solver, dtype):
    start = [0.7] if name in ONE else [0.7, -0.4]
    F = ONE[name] if name in ONE else TWO[name]
    z0 = torch.tensor(start, dtype=dtype)
    assert not im.root(F, z0, solver=solver, on_failure="accept").converged.any()
