"""Sweeps keep to one branch, say where it ends, and have derivatives at every value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from curve_problems import curve_problem
from implicitly import CurveError, CurveStatus, Newton, Sweep, root, sweep
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

TURN = 2 / math.sqrt(27)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def cubic(z: Tensor, p: Tensor, b: Tensor | float = 1.0) -> Tensor:
    return z**3 - b * z - p


def lowest(p: float) -> float:
    return float(np.sort(np.roots([1, 0, -1, -p]).real)[0])


def swept(parameters: Any, **options: Any) -> Sweep:
    return sweep(cubic, number(-1.5), parameters, on_failure="accept", **options)


def test_every_value_is_solved_on_the_branch_of_the_start() -> None:
    parameters = np.linspace(-1, TURN - 1e-6, 12)
    found = swept(torch.from_numpy(parameters))
    assert found.status == CurveStatus.COMPLETE
    assert bool(found.solved.all())
    # Beside the fold the Jacobian is 2e-3, and the residual met to 1e-10.
    np.testing.assert_allclose(found.z.numpy(), [lowest(p) for p in parameters], rtol=1e-7)


def test_a_branch_ends_at_its_fold_and_values_beyond_have_no_solution() -> None:
    found = swept([0.0, 0.38, 0.39, 0.0])
    assert found.status == CurveStatus.FOLD
    assert found.solved.tolist() == [True, True, False, False]
    assert found.z.isnan().tolist() == [False, False, True, True]
    (end,) = found.special
    assert (end.kind, end.index) == ("fold", 1)
    assert end.parameter.item() == pytest.approx(TURN, rel=1e-8)
    with pytest.raises(CurveError, match=r"ends at a fold.*0\.38490018") as caught:
        sweep(cubic, number(-1.5), [0.0, 0.39])
    assert caught.value.curve.solved.tolist() == [True, False]


def test_values_may_come_in_any_order_and_twice() -> None:
    parameters = [-1.0, 0.3, -4.0, 0.3, 0.3, -1.0]
    found = swept(parameters)
    assert found.z.tolist() == pytest.approx([lowest(p) for p in parameters], rel=1e-8)
    assert found.special == ()


def test_one_step_over_a_fold_does_not_reach_another_branch() -> None:
    # A solve from the last solution at once goes to the upper branch.
    assert root(cubic, number(lowest(0.0)), number(2.0)).value.item() > 1
    assert swept([0.0, 2.0]).status == CurveStatus.FOLD


def test_a_sweep_goes_straight_through_a_branch_point_and_names_it() -> None:
    found = sweep(lambda z, p: z * (p - z**2), number(0.0), [-1.0, -0.5, 0.5, 1.0])
    assert found.z.tolist() == [0.0] * 4
    (point,) = found.special
    assert (point.kind, point.index) == ("branch", 1)


def branch(p: Tensor, b: Tensor) -> Tensor:
    return sweep(cubic, number(-1.5), p, b).z


def data() -> tuple[Tensor, Tensor]:
    p = torch.tensor([-1.0, 0.3], dtype=torch.float64).requires_grad_()
    return p, number(1.0).requires_grad_()


def test_solutions_have_derivatives_in_values_and_arguments() -> None:
    p, b = data()
    assert gradcheck(branch, (p, b))
    (slope,) = torch.autograd.grad(branch(p, b)[1], p)
    assert slope[0].item() == 0.0
    assert slope[1].item() == pytest.approx(1 / (3 * lowest(0.3) ** 2 - 1), rel=1e-8)


@pytest.mark.long
def test_solutions_have_second_derivatives_in_values_and_arguments() -> None:
    assert gradgradcheck(branch, data())


def test_a_system_is_swept_to_known_solutions() -> None:
    n, loads = 9, [15.0, 20.0]
    given = [curve_problem("elastic-rod", load=load).roots(n)[1].value for load in loads]
    problem = curve_problem("elastic-rod")
    found = sweep(problem.function, problem.start(n), torch.tensor(loads, dtype=torch.float64))
    torch.testing.assert_close(found.z, torch.stack(given), rtol=1e-8, atol=1e-8)


def test_an_unknown_that_has_become_zero_is_followed_in_the_units_of_its_start() -> None:
    problem, n = curve_problem("elastic-rod"), 9
    found = sweep(problem.function, 0.5 * problem.start(n), [15.0, 20.0])
    assert found.z.abs().max().item() < 1e-12  # The straight rod.


def test_a_start_without_a_root_has_a_status() -> None:
    found = sweep(
        lambda z, p: z**2 + 1 + p**2, number(1.0), [0.0, 1.0], solver=Newton(), on_failure="accept"
    )
    assert found.status == CurveStatus.NOT_A_ROOT
    assert not bool(found.solved.any())


def test_single_precision_works_to_its_own_tolerances() -> None:
    start = torch.tensor(-1.5)
    found = sweep(cubic, start, [0.0, 0.3])
    assert found.z.dtype == torch.float32
    assert found.z.tolist() == pytest.approx([lowest(0.0), lowest(0.3)], rel=1e-4)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (0.5, TypeError, "a tensor or a sequence of numbers"),
        ([], TypeError, "a tensor or a sequence of numbers"),
        (torch.zeros(2, 2), ValueError, "one axis"),
        (torch.zeros(0), ValueError, "at least one value"),
        ([0.0, float("inf")], ValueError, "must be finite"),
        ([0.0, "one"], TypeError, "must be a number"),
    ],
)
def test_parameters_that_are_no_row_of_numbers_are_errors(
    parameters: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        sweep(cubic, number(-1.5), parameters)
