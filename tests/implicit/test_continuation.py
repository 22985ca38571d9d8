"""Curves of solutions: they pass folds, name them, and end with a status."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import implicitly
import numpy as np
import pytest
import torch
from curve_problems import curve_problem
from implicitly import (
    Curve,
    CurveError,
    CurveStatus,
    CurveWarning,
    StepLengths,
    continuation,
    fold,
    problems,
    root,
)
from implicitly.implicit.curves.bordered import DenseJacobian, DenseLinearize, SparseLinearize
from implicitly.implicit.curves.equation import CurveEquation
from implicitly.implicit.curves.walk import CurvePoint
from implicitly.verification import verify
from scipy import optimize
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

# Fold values are accepted by an estimated relative error of 1e-8.
ACCEPTED = 1e-8


def number(value: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(value, dtype=dtype)


def cubic(z: Tensor, p: Tensor, b: Tensor | float = 1.0) -> Tensor:
    return z**3 - b * z - p


def circle(z: Tensor, p: Tensor) -> Tensor:
    return z**2 + p**2 - 1


def pitchfork(z: Tensor, p: Tensor) -> Tensor:
    return z * (p - z**2)


def s_curve(b: float = 1.0, **options: Any) -> Curve:
    return continuation(cubic, number(-2.0), -6.0, number(b), bounds=(-6, 6), **options)


def values(points: Any) -> list[float]:
    return [point.parameter.item() for point in points]


# --- Folds -----------------------------------------------------------------------------------------


def test_an_s_curve_is_followed_past_both_folds_to_the_other_bound() -> None:
    curve = s_curve()
    assert curve.status == CurveStatus.BOUND
    assert (curve.parameter[0].item(), curve.parameter[-1].item()) == (-6.0, 6.0)
    turn = 2 / math.sqrt(27)
    assert values(curve.folds) == pytest.approx([turn, -turn], rel=ACCEPTED)
    assert [point.z.item() for point in curve.folds] == pytest.approx(
        [-(3**-0.5), 3**-0.5], rel=ACCEPTED
    )
    assert curve.branch_points == ()
    # Newton's method converges quadratically to rounding of terms of size 10.
    assert cubic(curve.z, curve.parameter).abs().max().item() < 1e-13


@pytest.mark.parametrize("b", [0.01, 0.3, 30.0])
def test_the_folds_of_a_cusp_family_are_those_of_its_closed_form(b: float) -> None:
    turn = 2 * (b / 3) ** 1.5
    start, far = number(-2 * math.sqrt(b)), 6 * b**1.5
    curve = continuation(cubic, start, -far, number(b), bounds=(-far, far))
    assert values(curve.folds) == pytest.approx([turn, -turn], rel=ACCEPTED)


def test_folds_within_one_step_are_found_by_shorter_steps() -> None:
    turn = 2 * (0.01 / 3) ** 1.5
    assert s_curve(0.01).folds == ()
    shorter = s_curve(0.01, steps=StepLengths(first=0.01, largest=0.01))
    assert values(shorter.folds) == pytest.approx([turn, -turn], rel=ACCEPTED)


def test_a_monotone_branch_of_the_cusp_family_has_no_fold() -> None:
    assert s_curve(-0.5).special == ()


@pytest.mark.parametrize("heat", [10.0, 14.0, 30.0])
def test_both_folds_of_a_stirred_reactor_are_those_of_its_quadratic(heat: float) -> None:
    problem = curve_problem("stirred-reactor", heat=heat)
    curve = continuation(problem.function, problem.curve_start(), 0.0, bounds=(0, 0.5))
    assert values(curve.folds) == pytest.approx(problem.folds(), rel=ACCEPTED)
    assert curve.status == CurveStatus.BOUND


def discrete_fold(n: int) -> float:
    return curve_problem("bratu-line").folds(n)[0]


def bratu_curve(n: int, **options: Any) -> Curve:
    problem = curve_problem("bratu-line")
    return continuation(
        problem.function,
        problem.curve_start(n),
        0.0,
        bounds=(0, 4),
        unknown_bounds=(0, 3),
        **options,
    )


def test_bratus_fold_is_that_of_the_recurrence_and_extrapolates_to_the_continuous_one() -> None:
    found = []
    for n in (19, 39):
        (point,) = bratu_curve(n).folds
        assert point.parameter.item() == pytest.approx(discrete_fold(n), rel=ACCEPTED)
        found.append(point.parameter.item())
    # The error is c h² + d h⁴ with h halved; c h² is 5e-3 for h = 1/20, and the next term h² times that.
    assert (4 * found[1] - found[0]) / 3 == pytest.approx(3.513830719, abs=1e-5)


@pytest.mark.long
def test_a_thousand_unknowns_turn_with_sparse_matrices() -> None:
    curve = bratu_curve(1000)
    assert values(curve.folds) == pytest.approx([discrete_fold(1000)], rel=ACCEPTED)
    assert curve.status == CurveStatus.UNKNOWN_BOUND


def test_sparse_and_dense_matrices_give_the_same_curve() -> None:
    n = 30
    pattern = torch.eye(n) + torch.eye(n).roll(1, 0) + torch.eye(n).roll(-1, 0)
    dense, sparse = bratu_curve(n), bratu_curve(n, sparsity=pattern)
    assert len(dense) == len(sparse)
    torch.testing.assert_close(dense.z, sparse.z, rtol=1e-9, atol=1e-9)
    assert values(sparse.folds) == pytest.approx([discrete_fold(n)], rel=ACCEPTED)


def test_a_jacobian_that_is_not_sparse_is_dense() -> None:
    weights = torch.ones(40, 40, dtype=torch.float64) / 40 + torch.eye(40, dtype=torch.float64)
    equation = CurveEquation.of(
        lambda z, p: weights @ z - p * torch.exp(z), torch.zeros(40).double(), ()
    )
    w = torch.linspace(0, 1, 41, dtype=torch.float64)
    (_, found), (_, expected) = SparseLinearize(equation)(w), DenseLinearize(equation)(w)
    assert isinstance(found, DenseJacobian)
    assert isinstance(expected, DenseJacobian)
    torch.testing.assert_close(found.entries, expected.entries)


def test_the_fold_in_two_dimensions_is_the_largest_parameter_that_scipy_finds() -> None:
    problem = problems.get("bratu")
    n, middle = 25, 12

    def strength(height: float) -> float:
        """The parameter at which the middle has this height."""

        def equations(x: np.ndarray) -> np.ndarray:
            residual = problem.function(torch.from_numpy(x[:-1]), float(x[-1]))
            return np.append(residual.numpy(), x[middle] - height)

        return float(
            optimize.root(equations, np.append(np.full(n, height / 2), 6.0), tol=1e-12).x[-1]
        )

    best = optimize.minimize_scalar(
        lambda height: -strength(height), bounds=(1.0, 1.8), method="bounded",
        options={"xatol": 1e-6},
    )  # fmt: skip
    curve = continuation(
        problem.function, problem.start(n), 0.0, bounds=(0, 10), unknown_bounds=(0, 3)
    )
    # At the maximum an error of 1e-6 in the height is one of 1e-12 in the parameter.
    assert values(curve.folds) == pytest.approx([-best.fun], rel=1e-7)


# --- Derivatives -----------------------------------------------------------------------------------


def test_the_fold_of_a_curve_has_exact_first_and_second_derivatives() -> None:
    b = number(2.0).requires_grad_()
    curve = continuation(cubic, number(-2.0), -6.0, b, bounds=(-6, 6))
    (first,) = torch.autograd.grad(curve.folds[0].parameter, b, create_graph=True)
    (second,) = torch.autograd.grad(first, b)
    # 2 (b/3)^1.5, to the tolerance of the fold and of one linear solve after the other.
    assert first.item() == pytest.approx(math.sqrt(2 / 3), rel=1e-7)
    assert second.item() == pytest.approx(1 / (6 * math.sqrt(2 / 3)), rel=1e-6)


def test_derivatives_of_the_folds_of_a_curve_agree_with_differences() -> None:
    def turns(b: Tensor) -> Tensor:
        curve = continuation(cubic, number(-2.0), -6.0, b, bounds=(-6, 6))
        return torch.stack([point.parameter for point in curve.folds])

    assert gradcheck(turns, (number(2.0).requires_grad_(),))


def ignition(heat: Tensor, activation: Tensor) -> Tensor:
    """The parameter and the conversion at the first fold of the reactor."""
    function, start = curve_problem("stirred-reactor").function, number(0.1)[None]
    one = torch.ones_like(start)
    value = fold(function, start, 0.03, heat, activation, null=one).value
    return torch.cat((value.parameter[None], value.z))


def reactor_data() -> tuple[Tensor, Tensor]:
    return number(14.0).requires_grad_(), number(20.0).requires_grad_()


def test_fold_values_of_a_reactor_have_derivatives_in_both_of_its_data() -> None:
    assert gradcheck(ignition, reactor_data())
    assert gradgradcheck(ignition, reactor_data())


@pytest.mark.long
def test_the_verification_tool_finds_the_derivatives_of_a_fold_correct() -> None:
    assert verify(ignition, reactor_data()).verdict.name == "CORRECT"


def test_a_fold_is_differentiated_inside_of_transforms_once_its_place_is_known() -> None:
    def turn(b: Tensor) -> Tensor:
        return fold(cubic, number(-0.9), 1.9, b, null=number(1.0)).value.parameter

    b = number(3.0)
    assert torch.func.grad(turn)(b).item() == pytest.approx(1.0, rel=1e-7)
    assert torch.func.hessian(turn)(b).item() == pytest.approx(1 / 6, rel=1e-6)
    with pytest.raises(RuntimeError, match="outside of the transform"):
        torch.func.grad(lambda b: fold(cubic, number(-0.9), 1.9, b).value.parameter)(b)


def test_tensors_that_the_function_closes_over_have_gradients_too() -> None:
    b = number(3.0).requires_grad_()
    curve = continuation(lambda z, p: cubic(z, p, b), number(-3.0), -18.0, bounds=(-18, 18))
    curve.folds[0].parameter.backward()
    assert b.grad is not None
    assert b.grad.item() == pytest.approx(1.0, rel=1e-7)


def test_all_solutions_at_one_parameter_are_roots_with_derivatives() -> None:
    p = number(0.2).requires_grad_()
    found = torch.stack([solution.value for solution in s_curve().at(p)])
    expected = np.sort(np.roots([1, 0, -1, -0.2]).real)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-8)
    (slope,) = torch.autograd.grad(found[2], p)
    assert slope.item() == pytest.approx(1 / (3 * expected[2] ** 2 - 1), rel=1e-7)


@pytest.mark.parametrize("below", [0.03, 1e-3, 1e-7])
def test_both_solutions_beside_a_fold_are_found_within_one_step(below: float) -> None:
    curve = s_curve()
    p = 2 / math.sqrt(27) - below
    expected = np.sort(np.roots([1, 0, -1, -p]).real)
    found = [solution.value.item() for solution in curve.at(p)]
    # Beside a double root rounding of the equation moves a root by its square root.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("largest", [0.1, 0.2, 0.3])
def test_no_solution_beside_a_fold_is_given_twice_where_the_fold_was_not_looked_for(
    largest: float,
) -> None:
    steps = StepLengths(largest=largest, angle=0.6, contraction=0.5)
    curve = s_curve(special=False, steps=steps)
    rises = curve.parameter.diff()
    tips = curve.parameter[1:-1][rises[1:] * rises[:-1] < 0].tolist()
    for p in [share * tip for tip in tips for share in (0.999, 0.98, 0.95, 0.9)]:
        found = [solution.value.item() for solution in curve.at(p)]
        assert len({round(z, 6) for z in found}) == len(found)


def test_points_of_a_curve_carry_no_derivative_and_do_not_record() -> None:
    curve = continuation(cubic, number(-2.0), -6.0, number(1.0).requires_grad_(), bounds=(-6, 6))
    assert not curve.z.requires_grad
    assert curve.folds[0].parameter.requires_grad
    with torch.no_grad():
        assert not s_curve().folds[0].parameter.requires_grad


# --- Branch points -----------------------------------------------------------------------------------


def test_a_pitchfork_is_a_branch_point_from_both_of_its_curves() -> None:
    straight = continuation(pitchfork, number(0.0), -1.0, bounds=(-1, 1))
    bent = continuation(pitchfork, number(1.0), 1.0, bounds=(-1, 1), direction="decreasing")
    for curve in (straight, bent):
        assert [point.kind for point in curve.special] == ["branch"]
        assert abs(curve.special[0].parameter.item()) < 1e-8
    # The bent branch comes back to the bound at the other side.
    assert (bent.status, bent.z[-1].item()) == (CurveStatus.BOUND, pytest.approx(-1.0))


def test_the_other_branch_of_a_pitchfork_is_followed_in_both_directions() -> None:
    straight = continuation(pitchfork, number(0.0), -1.0, bounds=(-1, 1))
    branches = straight.branch(straight.branch_points[0])
    assert sorted(branch.z[-1].item() for branch in branches) == pytest.approx([-1, 1])
    for branch in branches:
        assert branch.status == CurveStatus.BOUND
        assert branch.special == ()
        torch.testing.assert_close(branch.z**2, branch.parameter, rtol=1e-9, atol=1e-9)


def test_the_other_branch_of_a_transcritical_point_crosses_it() -> None:
    curve = continuation(lambda z, p: z * (p - z), number(0.0), -1.0, bounds=(-1, 1))
    one, other = curve.branch(curve.branch_points[0])
    assert sorted((one.z[-1].item(), other.z[-1].item())) == pytest.approx([-1, 1])


def test_a_rod_buckles_at_the_eigenvalues_of_the_second_difference() -> None:
    problem, n = curve_problem("elastic-rod"), 9
    curve = continuation(problem.function, problem.curve_start(n), 0.0, bounds=(0, 100))
    expected = [load for load in problem.branch_points(n) if load < 100]
    assert values(curve.branch_points) == pytest.approx(expected, rel=1e-7)
    assert [len(point.directions) for point in curve.branch_points] == [1] * len(expected)
    bent = [branch.at(20.0)[0].value for branch in curve.branch(curve.branch_points[0])]
    _, one, other = problem.roots(n)
    bent.sort(key=lambda z: -z.sum().item())
    torch.testing.assert_close(torch.stack(bent), torch.stack((one.value, other.value)))


def test_curves_that_only_come_near_each_other_have_no_branch_point() -> None:
    def imperfect(z: Tensor, p: Tensor) -> Tensor:
        return pitchfork(z, p) + 1e-3

    curve = continuation(imperfect, number(0.0), -1.0, bounds=(-1, 1))
    assert curve.branch_points == ()
    assert curve.status == CurveStatus.BOUND
    # The unfolded pitchfork has its fold at p = 3 (h/2)^(2/3), on the curve that is not connected.
    apart = continuation(imperfect, number(-1.0), 1.0, bounds=(-1, 2), direction="decreasing")
    assert values(apart.folds) == pytest.approx([3 * (1e-3 / 2) ** (2 / 3)], rel=1e-7)


def test_a_jump_between_two_curves_is_no_branch_point() -> None:
    def imperfect(z: Tensor, p: Tensor) -> Tensor:
        return pitchfork(z, p) + 1e-3

    curve = continuation(imperfect, number(0.0), -0.3, bounds=(-0.3, 0.3))
    walk, search = curve.following.walk, curve.following.search
    other = root(imperfect, number(0.0), number(0.1)).value
    tangent = curve.tangents[0]
    with torch.no_grad():
        before = walk.point(torch.stack((curve.z[0], curve.parameter[0])), tangent)
        behind = walk.point(torch.stack((other, number(0.1))), tangent)
        assert isinstance(before, CurvePoint)
        assert isinstance(behind, CurvePoint)
        assert before.sign == -behind.sign
        assert search is not None
        found = search.between(before, behind, 0)
    assert [point.located for point in found] == [False]
    assert found[0].directions == ()


def test_a_step_that_leads_to_another_curve_is_taken_again() -> None:
    # A random cubic in three unknowns, where the default step passes from one curve to its neighbour.
    drawn = torch.Generator().manual_seed(223)
    n = int(torch.randint(1, 5, (1,), generator=drawn))
    shapes = ((n, n), (n, n, n), (n, n), (n,))
    A, B, C, d = (torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in shapes)

    def system(z: Tensor, p: Tensor) -> Tensor:
        quadratic = 0.7 * torch.einsum("ijk,j,k->i", B, z, z)
        return A @ z + quadratic + 0.5 * C @ z**3 + p * d - 0.3 * p * z

    z0 = torch.zeros(n, dtype=torch.float64)
    curve = continuation(system, z0, 0.0, bounds=(-3, 3))
    shorter = StepLengths(first=0.01, largest=0.02)
    expected = continuation(system, z0, 0.0, bounds=(-3, 3), steps=shorter)
    assert curve.status == expected.status == CurveStatus.CLOSED
    assert values(curve.special) == pytest.approx(values(expected.special), rel=1e-7)


def test_a_point_without_another_tangent_cannot_be_branched_from() -> None:
    curve = s_curve()
    with pytest.raises(ValueError, match="must be a branch point with another tangent, got a fold"):
        curve.branch(curve.folds[0])


# --- Hopf points -------------------------------------------------------------------------------------


def brusselator(z: Tensor, b: Tensor, a: Tensor) -> Tensor:
    """Steady at (a, b/a), with the eigenvalues ± i a for b = 1 + a²."""
    x, y = z
    return torch.stack((a - (b + 1) * x + x**2 * y, b * x - x**2 * y))


def test_the_brusselator_begins_to_oscillate_where_its_closed_form_says() -> None:
    def found(a: Tensor) -> Tensor:
        z0 = torch.stack((a, 1 / a)).detach()
        curve = continuation(brusselator, z0, 1.0, a, bounds=(0.5, 8.0), hopf=True)
        (point,) = curve.special
        assert (point.kind, point.located) == ("hopf", True)
        assert point.frequency is not None
        assert curve.hopf_points == (point,)
        return torch.stack((point.parameter, point.frequency))

    a = number(1.5).requires_grad_()
    assert found(a).tolist() == pytest.approx([1 + 1.5**2, 1.5], rel=ACCEPTED)
    (slope,) = torch.autograd.grad(found(a)[0], a)
    assert slope.item() == pytest.approx(3.0, rel=1e-7)
    assert gradcheck(found, (a,))


def test_a_pair_that_meets_on_the_real_axis_is_no_hopf_point() -> None:
    def meeting(z: Tensor, p: Tensor) -> Tensor:
        # Eigenvalues 1 ± √p: complex and growing for p < 0, real for p > 0.
        matrix = torch.stack((torch.stack((1 + 0 * p, p)), torch.stack((1 + 0 * p, 1 + 0 * p))))
        return matrix @ z

    curve = continuation(
        meeting, torch.zeros(2, dtype=torch.float64), -0.5, bounds=(-0.5, 0.5), hopf=True
    )
    assert curve.special == ()


def test_hopf_points_need_dense_matrices() -> None:
    pattern = torch.eye(2)
    with pytest.raises(ValueError, match="hopf=True needs special=True and dense matrices"):
        continuation(
            brusselator, torch.ones(2), 1.0, 1.0, bounds=(0, 2), hopf=True, sparsity=pattern
        )


# --- Ends ------------------------------------------------------------------------------------------


def test_a_circle_closes_at_its_start() -> None:
    curve = continuation(circle, number(1.0), 0.0, bounds=(-2, 2))
    assert curve.status == CurveStatus.CLOSED
    assert (curve.z[-1], curve.parameter[-1]) == (curve.z[0], curve.parameter[0])
    assert values(curve.folds) == pytest.approx([1.0, -1.0], rel=ACCEPTED)
    assert len(curve.at(0.0)) == 2


@pytest.mark.parametrize("start", [-1.0, 1.0])
def test_a_curve_that_starts_at_a_fold_names_it_once(start: float) -> None:
    curve = continuation(circle, number(0.0), start, bounds=(-2, 2))
    assert sorted(values(curve.folds)) == pytest.approx([-1.0, 1.0], rel=ACCEPTED)
    assert curve.status == CurveStatus.CLOSED


def test_a_lemniscate_closes_after_both_lobes_and_names_its_double_point() -> None:
    def lemniscate(z: Tensor, p: Tensor) -> Tensor:
        return (p**2 + z**2) ** 2 - (p**2 - z**2)

    p = 0.5
    z = math.sqrt((-1 - 2 * p**2 + math.sqrt(1 + 8 * p**2)) / 2)
    curve = continuation(lemniscate, number(z), p, bounds=(-2, 2))
    assert curve.status == CurveStatus.CLOSED
    assert [point.kind for point in curve.special] == ["fold", "branch", "fold"]
    assert values(curve.special) == pytest.approx([1, 0, -1], abs=1e-8)
    # From the double point along its other tangent it is the same curve.
    other, _ = curve.branch(curve.branch_points[0])
    assert other.status == CurveStatus.CLOSED
    assert [point.kind for point in other.special] == ["fold", "branch", "fold"]


def test_a_curve_ends_at_the_limit_on_points_and_where_the_unknown_leaves_its_bounds() -> None:
    assert len(s_curve(max_points=7)) == 7
    assert s_curve(max_points=7).status == CurveStatus.MAX_POINTS
    curve = s_curve(unknown_bounds=(-3, 0.5))
    assert curve.status == CurveStatus.UNKNOWN_BOUND
    assert curve.z[-2].item() <= 0.5 < curve.z[-1].item()


def test_a_start_on_the_bound_that_it_is_to_leave_by_is_the_whole_curve() -> None:
    curve = s_curve(direction="decreasing")
    assert (len(curve), curve.status) == (1, CurveStatus.BOUND)


def test_a_fold_just_outside_of_the_bounds_is_not_reached() -> None:
    turn = 2 / math.sqrt(27)
    curve = continuation(cubic, number(-2.0), -6.0, bounds=(-6, turn - 1e-6))
    assert curve.status == CurveStatus.BOUND
    assert curve.folds == ()
    assert curve.z.max().item() < 0


def test_a_branch_with_an_end_is_an_error_that_has_the_curve() -> None:
    def ends(z: Tensor, p: Tensor) -> Tensor:
        return z - torch.sqrt(p)

    with pytest.raises(CurveError, match="no step above the smallest one succeeds") as caught:
        continuation(ends, number(1.0), 1.0, bounds=(-1, 2), direction="decreasing")
    curve = caught.value.curve
    assert curve.status == CurveStatus.STEP_TOO_SMALL
    assert 0 <= curve.parameter[-1].item() < 1e-3
    with pytest.warns(CurveWarning, match="no step"):
        continuation(
            ends, number(1.0), 1.0, bounds=(-1, 2), direction="decreasing", on_failure="warn"
        )


def test_a_function_that_raises_refuses_points_and_ends_the_curve() -> None:
    def ends(z: Tensor, p: Tensor) -> Tensor:
        if p.item() < 0.5:
            raise implicitly.DomainError("no data below 0.5")
        return z - p

    curve = continuation(
        ends, number(1.0), 1.0, bounds=(0, 2), direction="decreasing", on_failure="accept"
    )
    assert curve.status == CurveStatus.STEP_TOO_SMALL
    assert "no data below 0.5" in curve.reason
    assert curve.parameter[-1].item() == pytest.approx(0.5, abs=1e-5)


def test_a_start_beside_the_curve_is_corrected_and_the_distance_is_told() -> None:
    curve = continuation(circle, number(0.9), 0.0, bounds=(-2, 2))
    assert curve.corrected == pytest.approx(0.1)
    assert continuation(circle, number(1.0), 0.0, bounds=(-2, 2)).corrected == 0.0


def test_a_start_without_a_root_has_a_status() -> None:
    with pytest.raises(CurveError, match="the start does not solve the equation"):
        continuation(
            lambda z, p: z**2 + 1 + p**2, number(1.0), 0.0, bounds=(-1, 1),
            solver=implicitly.Newton(),
        )  # fmt: skip
    curve = continuation(
        lambda z, p: z**2 + 1 + p**2, number(1.0), 0.0, bounds=(-1, 1), on_failure="accept",
        solver=implicitly.Newton(),
    )  # fmt: skip
    assert (curve.status, len(curve)) == (CurveStatus.NOT_A_ROOT, 1)


def test_a_start_at_a_branch_point_has_a_status() -> None:
    curve = continuation(pitchfork, number(0.0), 0.0, bounds=(-1, 1), on_failure="accept")
    assert curve.status == CurveStatus.SINGULAR_START


# --- Units, dtypes, structures ---------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1e-6, 1e6])
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_of_unknown_and_parameter_change_no_step(unit: float, scale: float) -> None:
    def scaled(z: Tensor, p: Tensor) -> Tensor:
        return cubic(z / unit, p / scale)

    curve = continuation(scaled, number(-2.0 * unit), -6.0 * scale, bounds=(-6 * scale, 6 * scale))
    assert len(curve) == len(s_curve())
    turn = 2 / math.sqrt(27) * scale
    assert values(curve.folds) == pytest.approx([turn, -turn], rel=ACCEPTED)


def test_an_unknown_that_starts_at_zero_and_grows_far_gets_larger_units() -> None:
    curve = continuation(lambda z, p: z - 1e4 * p**3, number(0.0), 0.0, bounds=(0, 10))
    # 40 times a factor of 1.5, each in a few steps of a tenth.
    assert (curve.status, len(curve) < 300) == (CurveStatus.BOUND, True)


def test_single_precision_works_to_its_own_tolerances() -> None:
    single = torch.float32
    curve = continuation(cubic, number(-2.0, single), -6.0, number(1.0, single), bounds=(-6, 6))
    assert curve.parameter.dtype == curve.z.dtype == single
    turn = 2 / math.sqrt(27)
    assert values(curve.folds) == pytest.approx([turn, -turn], rel=1e-4)
    straight = continuation(pitchfork, number(0.0, single), -1.0, bounds=(-1, 1))
    assert values(straight.branch_points) == pytest.approx([0.0], abs=1e-4)


def test_the_unknown_may_be_a_structure_of_tensors() -> None:
    def system(z: dict[str, Tensor], p: Tensor) -> dict[str, Tensor]:
        return {"a": cubic(z["a"], p), "b": z["b"] - z["a"].reshape(1, 1) ** 2}

    z0 = {"a": number(-2.0), "b": torch.full((2, 1), 4.0, dtype=torch.float64)}
    curve = continuation(system, z0, -6.0, bounds=(-6, 6))
    assert curve.z["b"].shape == (len(curve), 2, 1)
    turn = 2 / math.sqrt(27)
    assert values(curve.folds) == pytest.approx([turn, -turn], rel=ACCEPTED)
    assert curve.folds[0].z["b"].flatten().tolist() == pytest.approx([1 / 3] * 2, rel=1e-7)
    assert curve.at(0.0)[1].value["b"].shape == (2, 1)


def test_steps_are_no_longer_than_the_largest_one() -> None:
    curve = s_curve(steps=StepLengths(first=0.01, largest=0.02))
    assert curve.arclength.diff().max().item() <= 0.02 * (1 + 1e-3)
    assert len(curve) > 2 * len(s_curve())


@pytest.mark.parametrize("angle", [0.05, 0.2])
def test_no_step_turns_by_more_than_twice_the_angle(angle: float) -> None:
    def thin(z: Tensor, p: Tensor) -> Tensor:
        return p**2 + 400 * z**2 - 1  # An ellipse whose ends have a radius of 1/400.

    steps = StepLengths(angle=angle, unknown=1.0, parameter=1.0)
    curve = continuation(thin, number(0.05), 0.0, bounds=(-2, 2), steps=steps)
    cosines = (curve.tangents[1:] * curve.tangents[:-1]).sum(dim=1)
    assert curve.status == CurveStatus.CLOSED
    assert cosines.min().item() > math.cos(2 * angle)


def test_a_table_has_a_row_for_each_point_and_a_figure_a_mark_for_each_special_point() -> None:
    pytest.importorskip("pandas")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    problem = curve_problem("elastic-rod")
    curve = continuation(problem.function, problem.curve_start(2), 0.0, bounds=(0, 20))
    table = curve.to_pandas()
    assert list(table.columns) == ["parameter", "arclength", "z[0]", "z[1]"]
    assert table["parameter"].tolist() == curve.parameter.tolist()
    axes = curve.plot(measure=lambda z: z[0])
    line, marks = axes.get_lines()
    assert np.asarray(line.get_xdata()).size == len(curve)
    assert marks.get_xdata() == pytest.approx([9.0])  # 4 sin²(π/6) / h²
    pyplot.close(axes.figure)


def test_curves_sweeps_and_roots_are_the_same_in_inference_mode() -> None:
    def found() -> list[float]:
        b = number(1.0)
        curve = continuation(lambda z, p: cubic(z, p, b), number(-2.0), -6.0, bounds=(-6, 6))
        swept = implicitly.sweep(cubic, number(-1.5), [0.0, 0.2])
        roots = implicitly.several_roots(lambda z: z**2 - 4, number(1.0))
        scalar = implicitly.all_roots(torch.sin, 1.0, 10.0, curvature=1.0)
        at = [solution.value.item() for solution in curve.at(number(0.1))]
        turn = fold(cubic, number(-0.5), 0.3, b).value.parameter.item()
        return [*values(curve.folds), *swept.z, *roots.z, *scalar.z, *at, turn]

    expected = found()
    with torch.inference_mode():
        assert found() == expected


# --- Bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"parameter": torch.zeros(2)}, ValueError, "must be one number.*shape \\(2,\\)"),
        ({"parameter": "low"}, TypeError, "must be a number"),
        ({"parameter": float("nan")}, ValueError, "parameter must be finite"),
        ({"parameter": 7.0}, ValueError, "parameter must be in bounds"),
        ({"bounds": (1, -1)}, ValueError, "must be in order"),
        ({"bounds": 3.0}, TypeError, "two numbers"),
        ({"unknown_bounds": (0, 0)}, ValueError, "must be in order"),
        ({"direction": "up"}, ValueError, "'increasing', 'decreasing', got 'up'"),
        ({"max_points": 0}, ValueError, "max_points must be an integer"),
        ({"steps": 0.1}, TypeError, "steps must be a StepLengths"),
        ({"z0": torch.zeros(2, dtype=torch.complex128)}, TypeError, "must be real"),
        ({"z0": torch.zeros(2, dtype=torch.int64)}, TypeError, "all be float32 or all float64"),
        ({"z0": torch.zeros(0)}, ValueError, "at least one entry"),
        ({"z0": [1.0]}, TypeError, "must be a floating-point tensor, got float"),
        ({"F": 3}, TypeError, "F must be callable"),
        ({"F": lambda z, p: z[:1]}, ValueError, "of the shape of the unknown"),
        ({"F": lambda z, p: (z, p)}, TypeError, "in the structure of z0"),
        ({"F": lambda z, p: z.float()}, TypeError, "must return tensors of torch.float64"),
        ({"sparsity": torch.eye(3)}, ValueError, "a matrix of 2 rows"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_that_says_what_is_wrong(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {
        "F": lambda z, p: z - p,
        "z0": torch.zeros(2, dtype=torch.float64),
        "parameter": 0.0,
        "bounds": (-1, 1),
        **changes,
    }
    with pytest.raises(error, match=message):
        continuation(given.pop("F"), given.pop("z0"), given.pop("parameter"), **given)


def test_step_lengths_out_of_range_are_errors() -> None:
    for options in ({"first": 0.0}, {"first": 1.0}, {"angle": 2.0}, {"unknown": -1.0}):
        with pytest.raises(ValueError, match="must"):
            StepLengths(**options)


def test_a_curve_without_failure_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        s_curve()


def test_the_fold_of_bratu_in_the_plane_by_sparse_matrices() -> None:
    # The fold of −Δu = λ exp(u) on the unit square is at 6.808124423 (Mohsen 2014 collects such values);
    # differences of second order have an error of h².
    def bratu(m: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        def equation(u: Tensor, load: Tensor, c: Tensor) -> Tensor:
            around = torch.nn.functional.pad(u.reshape(m, m), (1, 1, 1, 1))
            total = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
            return (4 * u - total.reshape(-1)) * (m + 1) ** 2 - load * torch.exp(c * u)

        return equation

    found = []
    for m in (24, 36):
        side = torch.sin(torch.pi * torch.arange(1, m + 1, dtype=torch.float64) / (m + 1))
        near = 1.4 * torch.outer(side, side).reshape(-1)
        c = torch.ones((), dtype=torch.float64, requires_grad=True)
        start = implicitly.root(
            lambda u, c, m=m: bratu(m)(u, torch.as_tensor(6.6), c), near, c.detach()
        ).value
        turning = implicitly.fold(bratu(m), start, 6.6, c).value
        (slope,) = torch.autograd.grad(turning.parameter, c)
        # With v = c u the equation has the parameter c λ.
        assert slope.item() == pytest.approx(-turning.parameter.item(), rel=1e-8)
        found.append(turning.parameter.item())
    (coarse, fine), (H, h) = found, ((1 / 25) ** 2, (1 / 37) ** 2)
    assert (H * fine - h * coarse) / (H - h) == pytest.approx(6.808124423, abs=2e-5)
