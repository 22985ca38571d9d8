"""SciPy's scalar methods take through the adapter the steps that they take alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from implicitly import (
    ScipyRootScalar,
    Status,
    fixed_point,
    root,
)
from torch import Tensor

from .references import as_float64

BRACKETING = ("brentq", "brenth", "ridder", "bisect", "toms748")


MEAN = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)


def kepler(E: Tensor, M: Tensor) -> Tensor:
    return E - 0.9 * torch.sin(E) - M


def scalar(method: str, **options: Any) -> ScipyRootScalar:
    if method in BRACKETING:
        return ScipyRootScalar(method, lower=0.0, upper=4.0, **options)
    second = (lambda E: 0.9 * torch.sin(E)) if method == "halley" else None
    return ScipyRootScalar(method, second_derivative=second, **options)


@pytest.mark.parametrize("method", [*BRACKETING, "newton", "secant", "halley"])
def test_scalar_methods_evaluate_the_points_that_they_evaluate_alone(method: str) -> None:
    start = torch.full((3,), 2.0, dtype=torch.float64)
    points: list[list[float]] = [[], [], []]

    def function(E: Tensor, M: Tensor) -> Tensor:
        if len(E) == 1:
            points[int((M == MEAN).nonzero().item())].append(E.item())
        return kepler(E, M)

    solution = root(
        function, start, MEAN, solver=scalar(method, options={"xtol": 1e-13}), batch_dims=1,
        batched_args=(True,),
    )  # fmt: skip
    for i, M in enumerate(MEAN):
        expected: list[float] = []

        def f(E: float, M: Tensor = M, expected: list[float] = expected) -> float:
            expected.append(E)
            return kepler(torch.tensor([E], dtype=torch.float64), M).item()

        call: dict[str, Any] = {"x0": 2.0}
        if method in BRACKETING:
            call = {"bracket": (0.0, 4.0)}
        if method in ("newton", "halley"):
            call["fprime"] = lambda E: 1 - 0.9 * np.cos(E)
        if method == "halley":
            call["fprime2"] = lambda E: 0.9 * np.sin(E)
        result = scipy.optimize.root_scalar(f, method=method, xtol=1e-13, **call)
        if method in ("newton", "halley"):
            # Derivatives by NumPy and by autograd differ in rounding; ours evaluates for them too.
            np.testing.assert_allclose(solution.value[i].item(), result.root, rtol=1e-14)
        else:
            seen = [E for k, E in enumerate(points[i]) if k == 0 or points[i][k - 1] != E]
            once = [E for k, E in enumerate(expected) if k == 0 or expected[k - 1] != E]
            # A secant's answer is no point that it has evaluated: that is looked at once more.
            assert seen[: len(once)] == once
            assert len(seen) <= len(once) + 1
            assert solution.value[i].item() == result.root


@pytest.mark.parametrize("method", [*BRACKETING, "newton", "secant", "halley"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_scalar_methods_solve_every_system_to_the_goal(method: str, dtype: torch.dtype) -> None:
    start = torch.full((3,), 2.0, dtype=dtype)
    solution = root(kepler, start, MEAN.to(dtype), solver=scalar(method), batch_dims=1)
    assert solution.value.dtype == dtype
    answers = [
        scipy.optimize.brentq(lambda E, M=M: E - 0.9 * np.sin(E) - M, 0, 4, xtol=1e-15)
        for M in as_float64(MEAN.to(dtype))
    ]
    rtol = 1e-10 if dtype == torch.float64 else 2e-6
    # F′ ≥ 0.1, the residual at the start below 2.
    np.testing.assert_allclose(as_float64(solution.value), answers, rtol=0, atol=20 * rtol)


def test_a_fixed_point_may_be_solved_between_ends_for_each_system() -> None:
    shift = torch.tensor([0.0, 10.0], dtype=torch.float64)
    solver = ScipyRootScalar("brentq", lower=shift, upper=shift + 1)
    z = fixed_point(
        lambda z, s: torch.cos(z - s) + s, torch.zeros_like(shift), shift, solver=solver,
        batch_dims=1,
    ).value  # fmt: skip
    np.testing.assert_allclose(as_float64(z - shift), 0.7390851332151607, rtol=0, atol=1e-8)


def test_a_bracket_without_a_sign_change_is_a_status_and_the_others_finish() -> None:
    solver = ScipyRootScalar("brentq", lower=0.0, upper=2.0)
    offset = torch.tensor([1.0, -1.0, 2.0], dtype=torch.float64)
    solution = root(
        lambda z, c: z**2 - c, torch.ones(3, dtype=torch.float64) * 0.5, offset, solver=solver,
        batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert solution.status.tolist() == [
        Status.CONVERGED, Status.NO_SIGN_CHANGE, Status.CONVERGED,
    ]  # fmt: skip


def test_what_a_scalar_method_needs_it_asks_for() -> None:
    with pytest.raises(ValueError, match="needs both ends of a bracket"):
        ScipyRootScalar("brentq", lower=0.0)
    with pytest.raises(TypeError, match="takes no bracket"):
        ScipyRootScalar("newton", lower=0.0, upper=1.0)
    with pytest.raises(TypeError, match="needs second_derivative"):
        ScipyRootScalar("halley")
    with pytest.raises(TypeError, match="takes no second start"):
        ScipyRootScalar("newton", x1=1.0)
    with pytest.raises(TypeError, match="has no option 'k'"):
        ScipyRootScalar("brentq", lower=0.0, upper=1.0, options={"k": 2})
    with pytest.raises(ValueError, match="one unknown per system, and each of these has 3"):
        root(
            lambda z: z - 1,
            torch.zeros(3),
            solver=ScipyRootScalar("brentq", lower=0.0, upper=2.0),
        )
    with pytest.raises(ValueError, match="one entry for each of the 3 systems"):
        root(
            lambda z: z - 1, torch.zeros(3), batch_dims=1,
            solver=ScipyRootScalar("brentq", lower=torch.zeros(2), upper=2.0),
        )  # fmt: skip


def test_gradients_pass_through_a_scalar_method() -> None:
    M = MEAN.clone().requires_grad_()

    def solve(M: Tensor) -> Tensor:
        return root(kepler, torch.zeros(3).double(), M, solver=scalar("brentq"), batch_dims=1).value

    assert torch.autograd.gradcheck(solve, M)
