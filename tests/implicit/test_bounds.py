"""Bounds on unknowns: nothing is evaluated outside, and what is found, in batches and structures too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import implicitly as im
import numpy as np
import pytest
import torch
from bounded_equations import D, X, logarithm, ones, pulled
from implicitly import problems
from torch import Tensor


def names(solution: im.Solution) -> list[str]:
    return [im.Status(int(code)).name for code in solution.status.reshape(-1)]


def inside(function: Callable[..., Any], lower: Any, upper: Any) -> Callable[..., Any]:
    """The function, which asserts that it is evaluated between its bounds."""

    def watched(z: Any, *args: Any) -> Any:
        values = torch.as_tensor(z).detach()
        while torch._C._functorch.is_functorch_wrapped_tensor(values):
            values = torch._C._functorch.get_unwrapped(values)
        assert bool(((values >= lower) & (values <= upper)).all()), values
        return function(z, *args)

    return watched


# --- Nothing is evaluated outside ------------------------------------------------------------------------


@pytest.mark.parametrize("start", [(1.0, 1.5), (50.0, 50.0), (1e-6, 3.0), (0.5, 0.0)])
def test_an_equation_and_its_derivatives_are_evaluated_between_the_bounds_alone(
    start: tuple[float, float],
) -> None:
    F = inside(logarithm, 0.0, 100.0)
    x = X.clone().requires_grad_()
    z = im.root(F, torch.tensor(start, dtype=D), x, bounds=(0.0, 100.0)).value
    # The equation has two roots: 3 + 1/a against log a.
    residual = logarithm(z.detach(), X)
    assert residual.abs().max() <= 1e-8 * X.abs().max()
    (first,) = torch.autograd.grad(z.sum(), x, create_graph=True)
    torch.autograd.grad(first.sum(), x)
    torch.func.jacfwd(lambda x: im.root(F, ones(2), x, bounds=(0.0, 100.0)).value)(X)


def test_a_root_that_rounding_limits_is_examined_between_the_bounds_alone() -> None:
    # The double root on the bound is found to the root of rounding; every check has to look beside it.
    F = inside(lambda z: torch.sqrt(z) * z - 2 * z + torch.sqrt(z), 0.0, math.inf)
    solution = im.root(F, torch.tensor([1.7], dtype=D), bounds=(0.0, None), on_failure="accept")
    assert solution.value.item() == pytest.approx(1.0, abs=1e-5)


def test_the_search_for_a_missing_derivative_stays_between_the_bounds() -> None:
    # It moves the unknown, to see whether a value without a graph depends on it.
    F = inside(lambda z: z.detach() - 2, 0.0, 3.0)
    with pytest.raises(im.MissingDerivativeError):
        im.root(F, torch.full((1,), 3.0, dtype=D), bounds=(0.0, 3.0))


@pytest.mark.parametrize("solver", [None, im.NewtonTrustRegion()])
def test_objectives_are_evaluated_between_the_bounds_alone(solver: im.Solver | None) -> None:
    objective = inside(lambda z: (z * torch.log(z) - z * X).sum() + z.sqrt().sum(), 0.0, 5.0)
    solution = im.minimise(objective, ones(2), bounds=(0.0, 5.0), solver=solver)
    assert names(solution) == ["CONVERGED"]
    residuals = inside(lambda z: torch.log(z) - torch.stack((X[0], -X[1])), 1e-3, 5.0)
    fitted = im.least_squares(residuals, ones(2), bounds=(1e-3, 5.0), solver=solver)
    torch.testing.assert_close(
        fitted.value, torch.tensor([5.0, math.exp(-2.0)], dtype=D), rtol=1e-8, atol=0
    )


def test_finite_differences_of_array_functions_stay_between_the_bounds() -> None:
    def F(z: np.ndarray, x: np.ndarray) -> np.ndarray:
        assert ((z >= 0) & (z <= 3)).all(), z
        return np.array([np.sqrt(z[0]) - x, z[1] * z[0] - x**3, (3 - z[2]) ** 1.5 - x + 0.5])

    x = torch.tensor(0.5, dtype=D, requires_grad=True)
    function = im.ArrayFunction(F, jacobian="finite differences", arguments="finite differences")
    start = torch.tensor([0.0, 3.0, 2.0], dtype=D)
    z = im.root(function, start, x, bounds=(0.0, 3.0), on_failure="accept").value
    assert z[:2].tolist() == pytest.approx([0.25, 0.5], rel=1e-6)
    (slope,) = torch.autograd.grad(z[0], x)
    # dz₀/dx = 2 x; differences have some eps^(2/3).
    assert slope.item() == pytest.approx(1.0, rel=1e-6)


def test_one_sided_differences_are_of_second_order() -> None:
    from implicitly.implicit.arrays.finite_differences import blocks

    at = torch.tensor([[0.0, 1.0, 0.5, 0.25]], dtype=D)
    lower, upper = torch.zeros_like(at), torch.tensor([[1.0, 1.0, 1.0, 0.25]], dtype=D)
    lower[0, 3] = 0.25  # A fixed unknown has no difference.

    def function(z: Tensor) -> Tensor:
        assert bool(((z >= lower) & (z <= upper)).all())
        return torch.exp(z)

    found = blocks(function, at, 1.0, (lower, upper))[0]
    expected = torch.diag(torch.exp(at[0]) * torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=D))
    # The third derivative times the square of a step of 6e-6, and rounding over the step.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-9)


# --- What is found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_unknowns_over_many_orders_of_magnitude_are_as_accurate_as_each_other(
    dtype: torch.dtype,
) -> None:
    scale = torch.logspace(0, -14, 8, dtype=D).to(dtype)
    solution = im.root(lambda z: z**2 - scale**2, torch.ones(8, dtype=dtype), bounds=(0.0, None))
    error = (solution.value - scale).abs() / scale
    # The error that is accepted by default in each dtype.
    assert error.max() <= (1e-8 if dtype == D else 1e-4)


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_units_of_equations_and_of_unknowns_change_nothing(factor: float) -> None:
    def F(z: Tensor) -> Tensor:
        return factor * logarithm(z / torch.tensor([1.0, factor], dtype=D), X)

    start = torch.tensor([1.0, 1.5 * factor], dtype=D)
    plain = im.root(logarithm, torch.tensor([1.0, 1.5], dtype=D), X, bounds=(0.0, None))
    solution = im.root(F, start, bounds=(0.0, None))
    assert solution.steps == plain.steps
    unit = torch.tensor([1.0, factor], dtype=D)
    torch.testing.assert_close(solution.value / unit, plain.value, rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    ("F", "start", "bounds"),
    [
        (lambda z: z + 1, (1.0,), (0.0, None)),
        (lambda z: torch.exp(-z), (1.0,), (None, 3.0)),
        (lambda z: torch.stack((z[0] ** 2 + 1 + z[1], z[1] - 3 * z[0])), (1.0, 1.0), (0.0, None)),
        (lambda z: torch.stack((10 * (z[1] - z[0] ** 2), 1 - z[0])), (-1.2, 0.5), (-1.5, 0.5)),
    ],
)
def test_a_bound_that_keeps_the_residual_from_zero_is_no_convergence(
    F: Callable[[Tensor], Tensor], start: tuple[float, ...], bounds: tuple[Any, Any]
) -> None:
    z0 = torch.tensor(start, dtype=D)
    solution = im.root(F, z0, bounds=bounds, on_failure="accept")
    assert names(solution) == ["BLOCKED"]
    with pytest.raises(im.SolveError, match="no root within the bounds is near"):
        im.root(F, z0, bounds=bounds)


def test_an_unknown_that_is_blocked_is_on_its_bound() -> None:
    solution = im.root(lambda z: z + 1, ones(1), bounds=(0.0, None), on_failure="accept")
    assert solution.value.item() == 0.0
    assert solution.bounds.active.item() == -1


@pytest.mark.parametrize("name", ["boggs", "wood"])
def test_interior_steps_go_on_where_newton_steps_lower_no_residual(name: str) -> None:
    problem = problems.get(name)
    start, root = 10 * problem.start(), problem.roots()[0].value
    bounds = torch.minimum(start, root) - 1, torch.maximum(start, root) + 1
    z = im.root(problem.function, start, bounds=bounds).value
    assert problem.residual(z).abs().max() <= 1e-8


def test_a_minimum_of_the_norm_between_the_bounds_is_not_said_to_be_blocked() -> None:
    solution = im.root(
        lambda z: (z - 1) ** 2 + 1, ones(1) * 3, bounds=(0.0, 9.0), on_failure="accept"
    )
    assert names(solution) == ["STALLED"]


def test_a_root_on_a_bound_is_found_and_has_derivatives_of_one_side() -> None:
    def F(z: Tensor, x: Tensor) -> Tensor:
        return torch.stack((z[0] * (1 + z[1]) - x, z[1] - 2 + z[0]))

    solution = im.root(F, ones(2), torch.tensor(0.0, dtype=D), bounds=(0.0, None))
    assert solution.value.tolist() == [0.0, pytest.approx(2.0, rel=1e-8)]
    assert solution.bounds.active.tolist() == [-1, 0]
    assert bool(solution.bounds.one_sided)
    slope = torch.func.jacrev(lambda x: im.root(F, ones(2), x, bounds=(0.0, None)).value)(
        torch.tensor(0.0, dtype=D)
    )
    torch.testing.assert_close(slope, torch.tensor([1 / 3, -1 / 3], dtype=D))


@pytest.mark.parametrize("power", [1, 2])
def test_a_root_in_a_bound_is_found_there_although_it_is_multiple(power: int) -> None:
    solution = im.root(lambda z: (z - 0.5) ** power, ones(1), bounds=(0.5, None))
    assert solution.value.item() == pytest.approx(0.5, abs=1e-8)
    solution = im.root(lambda z: z**power, ones(1), bounds=(0.0, None))
    assert solution.value.item() <= 1e-30


def test_a_root_between_the_bounds_is_not_left_for_one_on_them() -> None:
    solution = im.root(lambda z: z * (z - 1), ones(1) * 3, bounds=(0.0, None))
    assert solution.value.item() == pytest.approx(1.0, rel=1e-8)


def test_a_fixed_point_is_found_between_its_bounds() -> None:
    f = inside(lambda z: torch.sqrt(z) / 2 + 0.1, 0.0, 4.0)
    z = im.fixed_point(
        f, ones(3) * torch.tensor([4.0, 1.0, 0.01], dtype=D), bounds=(0.0, 4.0)
    ).value
    root = ((0.5 + math.sqrt(0.25 + 0.4)) / 2) ** 2
    torch.testing.assert_close(z, torch.full((3,), root, dtype=D), rtol=1e-8, atol=0)


def test_minima_have_the_projected_gradient_zero_and_saddles_are_told_from_them() -> None:
    def saddle(z: Tensor) -> Tensor:
        return z[0] ** 2 - z[1] ** 2

    found = im.minimise(saddle, torch.tensor([0.5, 0.1], dtype=D), bounds=(-1.0, 2.0))
    assert found.value.tolist() == pytest.approx([0.0, 2.0], abs=1e-12)
    stuck = im.minimise(saddle, torch.zeros(2, dtype=D), bounds=(-1.0, 2.0), on_failure="accept")
    assert names(stuck) == ["NOT_A_MINIMUM"]
    # On its bounds nothing is left to fall.
    fixed = im.minimise(saddle, torch.zeros(2, dtype=D), bounds=(0.0, 0.0))
    assert names(fixed) == ["CONVERGED"]
    assert fixed.bounds.active.tolist() == [2, 2]
    assert not bool(fixed.bounds.one_sided)


def test_curvature_that_leads_outside_of_the_bounds_alone_makes_no_saddle() -> None:
    # The Hessian of a product is indefinite, and the product is least where both are zero.
    corner = im.minimise(lambda z: z[0] * z[1], torch.zeros(2, dtype=D), bounds=(0.0, None))
    assert names(corner) == ["CONVERGED"]
    assert bool(corner.bounds.one_sided)
    ridge = im.minimise(
        lambda z: -z[0] * z[1], torch.zeros(2, dtype=D), bounds=(0.0, None), on_failure="accept"
    )
    assert names(ridge) == ["NOT_A_MINIMUM"]


def test_other_solvers_say_that_they_keep_no_bounds() -> None:
    for call, solver in (
        (im.root, im.Newton()),
        (im.fixed_point, im.Anderson()),
        (im.minimise, im.LBFGS()),
    ):
        with pytest.raises(TypeError, match="does not keep its iterates within bounds"):
            call(lambda z: z, ones(1), bounds=(0.0, 1.0), solver=solver)


# --- Bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bounds", "error", "said"),
    [
        ((0.0, 1.5), ValueError, r"start lies outside of the bounds at z0\[1\].*onto_box"),
        ((torch.tensor([0.0, 3.0], dtype=D), 2.5), ValueError, r"no number lies between.*z0\[1\]"),
        ((torch.tensor([math.nan, 0.0], dtype=D), None), ValueError, r"a bound is NaN at z0\[0\]"),
        ((torch.zeros(3, dtype=D), None), ValueError, r"broadcasts.*\(2,\), got \(3,\)"),
        ((torch.zeros(2), None), TypeError, "torch.float64 on cpu, got torch.float32"),
        ((0.0,), TypeError, "must be a pair"),
        (0.0, TypeError, "must be a pair"),
        (([0.0, 1.0], None), ValueError, "structure of z0"),
        (("a", None), TypeError, "number or a tensor"),
    ],
)
def test_wrong_bounds_are_named(bounds: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        im.root(lambda z: z - 1, torch.tensor([1.0, 2.0], dtype=D), bounds=bounds)


def test_wrong_bounds_are_found_under_vmap_too() -> None:
    def solved(lower: Tensor) -> Tensor:
        return im.root(lambda z: z - 1, ones(2), bounds=(lower, 2.0)).value

    good = torch.vmap(solved)(torch.zeros(3, 2, dtype=D))
    torch.testing.assert_close(good, torch.ones(3, 2, dtype=D))
    with pytest.raises(ValueError, match=r"start lies outside of the bounds at z0\[1, 1\]"):
        torch.vmap(solved)(torch.tensor([[0.0, 0.0], [0.0, 1.5]], dtype=D))


def test_bounds_and_options_that_exclude_each_other_are_named() -> None:
    with pytest.raises(ValueError, match="linear=True takes no bounds"):
        im.root(lambda z: z, ones(1), bounds=(0.0, 2.0), linear=True)
    with pytest.raises(TypeError, match="bounds need real unknowns"):
        im.root(lambda z: z, ones(1).to(torch.complex128), bounds=(0.0, 2.0))


# --- Batches and structures ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [D, torch.float32])
@pytest.mark.parametrize("batched_args", [None, [True]])
def test_every_system_has_bounds_and_a_status_of_its_own(
    dtype: torch.dtype, batched_args: list[bool] | None
) -> None:
    x = torch.tensor([[4.0], [9.0], [16.0]], dtype=dtype)
    upper = torch.tensor([[5.0], [2.0], [20.0]], dtype=dtype)
    solution = im.root(
        lambda z, x: z**2 - x, torch.ones(3, 1, dtype=dtype), x, bounds=(0.0, upper),
        batch_dims=1, batched_args=batched_args, on_failure="accept",
    )  # fmt: skip
    assert names(solution) == ["CONVERGED", "BLOCKED", "CONVERGED"]
    alone = im.root(lambda z, x: z**2 - x, torch.ones(1, dtype=dtype), x[2], bounds=(0.0, upper[2]))
    assert solution.value[2].item() == alone.value.item()
    assert solution.steps[2] == alone.steps


@pytest.mark.parametrize("batched_args", [None, [True]])
def test_minimisers_of_a_batch_are_those_of_their_rows(batched_args: list[bool] | None) -> None:
    x = torch.tensor([[1.0, 0.9], [0.5, 1.5], [2.0, 0.2]], dtype=D)
    upper = torch.tensor([[2.0], [1.0], [0.5]], dtype=D)
    start = 0.5 * ones(3, 3)
    options: dict[str, Any] = {"batch_dims": 1, "batched_args": batched_args}
    solution = im.minimise(pulled, start, x, bounds=(0.0, upper), **options)
    for row in range(3):
        alone = im.minimise(pulled, start[row], x[row], bounds=(0.0, upper[row]))
        torch.testing.assert_close(solution.value[row], alone.value, rtol=1e-8, atol=1e-10)
        assert solution.bounds.active[row].tolist() == alone.bounds.active.tolist()
    assert solution.bounds.one_sided.shape == (3,)


def test_structures_have_bounds_for_some_leaves() -> None:
    def F(z: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"a": z["a"] ** 2 - z["b"], "b": z["b"] - 4}

    start = {"a": ones(1), "b": ones(1)}
    solution = im.root(F, start, bounds=({"a": 0.0, "b": None}, None))
    assert [leaf.item() for leaf in solution.value.values()] == pytest.approx([2.0, 4.0])
    with pytest.raises(ValueError, match=r"leaf 1 of z0\[0\]"):
        im.root(F, start, bounds=({"a": 0.0, "b": 2.0}, None))


def test_keywords_auxiliary_outputs_and_jacobians_go_with_bounds() -> None:
    def F(z: Tensor, x: Tensor, *, k: float) -> tuple[Tensor, Tensor]:
        return z**2 - k * x, z.sum()

    options: dict[str, Any] = {"bounds": (0.0, None), "has_aux": True}
    solution = im.root(F, ones(2), X, k=2.0, jacobian=lambda z, x, k: torch.diag(2 * z), **options)
    torch.testing.assert_close(solution.value, (2 * X).sqrt())
    torch.testing.assert_close(solution.aux, (2 * X).sqrt().sum())
