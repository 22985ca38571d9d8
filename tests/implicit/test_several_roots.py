"""Several roots of one equation, by deflation and, of scalar equations, with proofs of completeness."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from implicitly import MissingDerivativeError, all_roots, several_roots
from scipy.optimize import brentq
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def himmelblau(z: Tensor) -> Tensor:
    """The gradient of Himmelblau's function, with nine zeros."""
    x, y = z
    a, b = x**2 + y - 11, x + y**2 - 7
    return torch.stack((4 * x * a + 2 * b, 2 * a + 4 * y * b))


# --- Deflation ---------------------------------------------------------------------------------------


def test_one_start_leads_to_all_nine_stationary_points_of_himmelblaus_function() -> None:
    roots = several_roots(himmelblau, torch.tensor([0.1, 0.2], dtype=torch.float64))
    # Himmelblau 1972: four minima, four saddle points, one maximum.
    known = [
        (3, 2), (-2.805118, 3.131312), (-3.779310, -3.283186), (3.584428, -1.848126),
        (-0.270845, -0.923039), (3.385154, 0.073852), (0.086678, 2.884255),
        (-3.073026, -0.081353), (-0.127961, -1.953715),
    ]  # fmt: skip
    found = sorted(map(tuple, roots.z.tolist()))
    np.testing.assert_allclose(found, sorted(known), atol=1e-6)
    assert not roots.complete
    assert "9 new roots" in roots.reasons[0]


def test_roots_are_different_and_have_derivatives_of_first_and_second_order() -> None:
    a = number(2.0).requires_grad_()
    roots = several_roots(lambda z, a: z**3 - a * z, number(0.4), a)
    order = roots.z.argsort()
    np.testing.assert_allclose(
        roots.z[order].tolist(), [-math.sqrt(2), 0, math.sqrt(2)], atol=1e-12
    )
    (first,) = torch.autograd.grad(roots.z[order[2]], a, create_graph=True)
    (second,) = torch.autograd.grad(first, a)
    assert first.item() == pytest.approx(0.5 / math.sqrt(2), rel=1e-8)
    assert second.item() == pytest.approx(-0.25 * 2**-1.5, rel=1e-7)


def test_a_start_that_is_a_root_is_no_obstacle() -> None:
    roots = several_roots(lambda z: z**2 - 4, number(2.0))
    assert sorted(roots.z.tolist()) == pytest.approx([-2, 2])


def test_more_starts_find_more_roots_and_no_root_twice() -> None:
    starts = [number(value) for value in (3.0, 6.0, 9.0)]
    roots = several_roots(torch.sin, number(3.0), starts=starts, max_roots=5)
    found = roots.z / math.pi
    assert len(roots) == 5
    torch.testing.assert_close(found, found.round(), rtol=0, atol=1e-8)
    assert len(set(found.round().tolist())) == 5
    assert any("limit on roots" in reason for reason in roots.reasons)


def test_an_equation_without_a_root_has_none() -> None:
    roots = several_roots(lambda z: z**2 + 1, number(1.0))
    assert (len(roots), roots.z.shape) == (0, (0,))
    assert roots.reasons[0].startswith("0 new roots; then the deflated equation ended with")


def test_the_unknown_may_be_a_structure_and_units_change_nothing() -> None:
    def system(z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"x": (z["x"] / 1e6) ** 2 - 1, "y": z["y"] - z["x"]}

    start = {"x": number(2e6), "y": number(0.0)}
    roots = several_roots(system, start)
    assert sorted(roots.z["y"].tolist()) == pytest.approx([-1e6, 1e6])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"max_roots": 0}, ValueError, "max_roots must be an integer"),
        ({"power": 0.0}, ValueError, "power must be a number > 0"),
        ({"unit": -1.0}, ValueError, "unit must be a number > 0"),
        ({"starts": [torch.zeros(2)]}, ValueError, r"starts\[0\] must have the structure"),
    ],
)
def test_bad_options_are_errors(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        several_roots(torch.sin, number(3.0), **options)


# --- Scalar equations --------------------------------------------------------------------------------


def test_all_eigenvalues_of_a_clamped_beam_are_proved_to_be_all() -> None:
    # cos z = 1 / cosh z; the second derivatives are at most one each.
    roots = all_roots(lambda z: torch.cos(z) - 1 / torch.cosh(z), 1.0, 60.0, curvature=2.0)
    middles = [(k + 0.5) * math.pi for k in range(1, 19)]
    expected = [
        brentq(lambda z: math.cos(z) - 1 / math.cosh(z), m - 0.5, m + 0.5, xtol=1e-14)
        for m in middles
    ]
    assert roots.complete
    np.testing.assert_allclose(roots.z.tolist(), expected, rtol=1e-8)


def test_a_function_without_a_derivative_is_an_error() -> None:
    with pytest.raises(MissingDerivativeError):
        all_roots(torch.special.bessel_j0, 0.5, 60.0, curvature=1.0)


def test_all_roots_of_a_polynomial_are_proved_to_be_all() -> None:
    coefficients = np.polynomial.chebyshev.cheb2poly([0] * 9 + [1])[::-1]

    def chebyshev(z: Tensor) -> Tensor:
        value = torch.zeros_like(z)
        for c in coefficients:
            value = value * z + float(c)
        return value

    # T₉″ is largest at the ends: n² (n² − 1) / 3.
    roots = all_roots(chebyshev, -1, 1, curvature=81 * 80 / 3)
    expected = np.sort(np.cos((2 * np.arange(9) + 1) * np.pi / 18))
    assert roots.complete
    np.testing.assert_allclose(roots.z.tolist(), expected, atol=1e-12)


def test_two_roots_between_two_samples_are_missed_without_a_bound_and_found_with_one() -> None:
    def close(z: Tensor) -> Tensor:
        return (z - 0.50031) * (z - 0.50033) * (2 + z)

    assert len(all_roots(close, 0, 1)) == 0
    assert not all_roots(close, 0, 1).complete
    roots = all_roots(close, 0, 1, curvature=8.0)
    assert roots.complete
    assert roots.z.tolist() == pytest.approx([0.50031, 0.50033], abs=1e-9)


def test_a_double_root_is_left_unresolved_and_a_near_miss_is_excluded() -> None:
    roots = all_roots(lambda z: (z - 1) ** 2 * (z - 3), 0, 4, curvature=20.0)
    assert not roots.complete
    assert roots.z.tolist() == pytest.approx([3.0])
    ((low, high),) = roots.unresolved.tolist()
    assert low <= 1 <= high < low + 1e-6
    miss = all_roots(lambda z: z**2 + 1e-9, -1, 1, curvature=2.0)
    assert (len(miss), miss.complete) == (0, True)


@pytest.mark.parametrize("lower", [0.0, -1.0, -0.3])
def test_roots_at_ends_and_at_points_of_division_count_once(lower: float) -> None:
    roots = all_roots(torch.sin, lower, 2 * math.pi, curvature=1.0)
    assert roots.complete
    # sin(2π) rounds to −2.4e-16: whether the end is a root, rounding decides.
    assert [round(z / math.pi, 9) + 0.0 for z in roots.z.tolist()] in ([0, 1], [0, 1, 2])
    line = all_roots(lambda z: z, -1, 1, curvature=0.0)
    assert (line.z.tolist(), line.complete) == ([0.0], True)
    assert len(all_roots(lambda z: z, -1, 1, samples=3)) == 1


def test_roots_so_near_each_other_that_their_brackets_are_rounding_are_accepted() -> None:
    coefficients = [
        1.0, 2.244247387940957, -3.996800752699158, -17.673041281244334, -22.1612786200839,
        -12.922319793560513, -3.541158274619553, -0.35855054725280344,
    ]  # fmt: skip

    def polynomial(z: Tensor) -> Tensor:
        value = torch.zeros_like(z)
        for c in coefficients:
            value = value * z + c
        return value

    found = np.roots(coefficients)
    expected = np.sort(found[np.abs(found.imag) < 1e-9].real)
    roots = all_roots(polynomial, -3, 3, curvature=20152.0)
    assert roots.complete
    np.testing.assert_allclose(roots.z.tolist(), expected, rtol=1e-6)


def test_scalar_roots_have_derivatives_of_first_and_second_order() -> None:
    def roots(a: Tensor) -> Tensor:
        return all_roots(lambda z, a: torch.sin(a * z), 1.0, 7.0, a, curvature=4.0).z

    a = number(1.5).requires_grad_()
    np.testing.assert_allclose(roots(a).tolist(), [math.pi * k / 1.5 for k in (1, 2, 3)], rtol=1e-9)
    assert gradcheck(roots, (a,))
    assert gradgradcheck(roots, (a,))


def test_a_bound_that_the_values_contradict_is_an_error() -> None:
    with pytest.raises(ValueError, match="curvature must bound .F''. in the interval"):
        all_roots(lambda z: z**2 - 0.5, -1, 1, curvature=1.0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lower": 2.0}, ValueError, "lower must be below upper"),
        ({"upper": float("inf")}, ValueError, "upper must be a finite number"),
        ({"curvature": -1.0}, ValueError, "curvature must be a number ≥ 0"),
        ({"samples": 1}, ValueError, "samples must be an integer"),
        ({"F": lambda z: z.sum()}, ValueError, "a value for each point"),
        ({"F": lambda z: z.float()}, TypeError, "must return a tensor of torch.float64"),
        ({"F": lambda z: 1 / (z - 0.5)}, ValueError, "must be finite in the interval"),
    ],
)
def test_bad_input_is_an_error(options: Any, error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"F": torch.sin, "lower": -1.0, "upper": 1.0, "samples": 5, **options}
    with pytest.raises(error, match=message):
        all_roots(given.pop("F"), given.pop("lower"), given.pop("upper"), **given)
