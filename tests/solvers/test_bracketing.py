"""Brackets of scalar equations against SciPy's own Chandrupatla and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.optimize.elementwise
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import Bracketing, Status, Stopping, Unrolled, fixed_point, root
from torch import Tensor

ONE = torch.ones((), dtype=torch.float64)


def column(*entries: float) -> Tensor:
    return torch.tensor(entries, dtype=torch.float64)


def kepler(E: Any, M: Any, e: Any) -> Any:
    sine = torch.sin(E) if isinstance(E, Tensor) else np.sin(E)
    return E - e * sine - M


@given(seed=st.integers(0, 1000))
def test_a_batch_of_kepler_equations_has_the_roots_that_scipy_finds(seed: int) -> None:
    generator = np.random.default_rng(seed)
    M, e = generator.uniform(0, math.pi, 20), generator.uniform(0, 0.999, 20)
    reference = scipy.optimize.elementwise.find_root(kepler, (0.0, math.pi), args=(M, e))
    mean, eccentricity = torch.from_numpy(M), torch.from_numpy(e)
    solution = root(
        kepler, mean, mean, eccentricity, solver=Bracketing(0.0, math.pi), batch_dims=1,
        stopping=Stopping(rtol=0.0, atol=1e-14),
    )  # fmt: skip
    assert solution.converged.all()
    # The slope 1 − e cos E is at least (1 − e) + E²/2·e at the root; rounding adds a few units.
    slope = 1 - e * np.cos(reference.x)
    error = np.abs(solution.value.numpy() - reference.x)
    assert (error <= 1e-14 / slope + 8 * np.finfo(float).eps * np.pi).all()
    # The start is one point more than SciPy has; it stops by the width, we by the residual.
    assert int(solution.steps.max()) <= int(reference.nfev.max())


def test_points_are_those_of_chandrupatla() -> None:
    # f = z³ − 2z − 5 on [2, 3] (Chandrupatla 1997, example 1), started from the lower end.
    seen: list[float] = []

    def f(z: Tensor) -> Tensor:
        seen.append(z.item())
        return z**3 - 2 * z - 5

    theirs: list[float] = []

    def g(z: Any) -> Any:
        theirs.extend(np.atleast_1d(z).tolist())
        return z**3 - 2 * z - 5

    scipy.optimize.elementwise.find_root(g, (2.0, 3.0))
    root(f, 2 * ONE, solver=Bracketing(2.0, 3.0), on_failure="accept",
         stopping=Stopping(rtol=0.0, atol=1e-15))  # fmt: skip
    # Ours are the start and the ends, and then the same ones.
    assert seen[:3] == [2.0, 2.0, 3.0]
    np.testing.assert_allclose(
        seen[3:9], [z for z in theirs if z not in (2.0, 3.0)][:6], rtol=1e-13
    )


@pytest.mark.parametrize("start", [-50.0, -0.1, 0.0, 3.0, 1e6])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_without_a_bracket_one_is_searched(start: float, scale: float) -> None:
    solution = root(
        lambda z: scale * (z**3 - 8), start * ONE, solver=Bracketing(),
        stopping=Stopping(rtol=0.0, atol=1e-9 * scale),
    )  # fmt: skip
    # |f| ≤ 1e-9 with slope 12 at the root 2.
    assert solution.value.item() == pytest.approx(2.0, abs=1e-10)


def test_a_search_leaves_the_domain_and_comes_back() -> None:
    # The logarithm is NaN below zero, where the first steps lead.
    solution = root(lambda z: torch.log(z) + 20, column(0.5), solver=Bracketing(), batch_dims=1)
    assert solution.value.item() == pytest.approx(math.exp(-20), rel=1e-6)


def test_where_there_is_no_change_of_sign_that_system_says_so_and_the_others_finish() -> None:
    shift = column(-1.0, 1.0, -4.0)
    solution = root(
        lambda z: z**2 + shift, torch.full_like(shift, 0.5), solver=Bracketing(0.0, 3.0),
        batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert solution.status.tolist() == [
        Status.CONVERGED, Status.NO_SIGN_CHANGE, Status.CONVERGED,
    ]  # fmt: skip
    np.testing.assert_allclose(solution.value[[0, 2]].numpy(), [1.0, 2.0], rtol=1e-9)
    assert solution.value[1] == 0.5
    searched = root(
        lambda z: z**2 + shift, torch.full_like(shift, 0.5), solver=Bracketing(), batch_dims=1,
        on_failure="accept",
    )  # fmt: skip
    assert searched.status.tolist() == solution.status.tolist()
    assert int(searched.steps[1]) == 80


def test_a_start_outside_of_its_bracket_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match=r"z0 must lie between.*system 1 starts at 7.*\[0, 3\]"):
        root(lambda z: z - 1, column(0.5, 7.0), solver=Bracketing(0.0, 3.0), batch_dims=1)


def test_a_root_at_an_end_of_the_bracket_is_a_root() -> None:
    for start, solver in ((2.0, Bracketing(1.0, 3.0)), (0.5, Bracketing(-2.0, 1.0))):
        solution = root(lambda z: z - 1, column(start), solver=solver, batch_dims=1)
        assert solution.value.tolist() == [1.0]


def test_an_infinite_residual_has_a_sign_and_an_undefined_end_has_none() -> None:
    # Overflow at the upper end and inside, −∞ at the lower.
    high = root(
        lambda z: torch.exp(z * z) - 5, column(1.0), solver=Bracketing(0, 100), batch_dims=1
    )
    low = root(lambda z: torch.log(z) + 1, column(1.0), solver=Bracketing(0, 5), batch_dims=1)
    assert high.value.item() == pytest.approx(math.log(5) ** 0.5, rel=1e-8)
    assert low.value.item() == pytest.approx(math.exp(-1), rel=1e-8)
    undefined = root(
        lambda z: torch.where(z == 2, torch.nan, z - 1), column(0.5), solver=Bracketing(0, 2),
        batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert undefined.status.item() == Status.NON_FINITE


def test_each_system_may_have_its_own_bracket() -> None:
    # cos has a root in each.
    lower = torch.pi * torch.arange(4, dtype=torch.float64)
    solution = root(
        torch.cos, lower + 1.0, solver=Bracketing(lower, lower + torch.pi), batch_dims=1
    )
    torch.testing.assert_close(solution.value, lower + torch.pi / 2, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_pole_is_closed_in_on_and_reported(dtype: torch.dtype) -> None:
    solution = root(
        lambda z: 1 / (z - 1), torch.tensor([0.3], dtype=dtype), solver=Bracketing(0.0, 3.0),
        batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert solution.status.item() == Status.DISCONTINUITY
    # Halving: no more steps than the bracket has bits, about twice.
    assert int(solution.steps) <= 2 * (2 - math.log2(torch.finfo(dtype).eps))


def test_a_residual_that_is_undefined_inside_the_bracket_ends_its_system() -> None:
    hole = column(0.4, 9.0)
    solution = root(
        lambda z: torch.where((z - hole).abs() < 0.2, torch.nan, z - 0.5), column(0.0, 0.0),
        solver=Bracketing(0.0, 1.0), batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert solution.status.tolist() == [Status.NON_FINITE, Status.CONVERGED]


def test_a_jump_without_derivative_is_bracketed_and_a_triple_root_is_found() -> None:
    solution = root(
        lambda z: (z - 0.3) ** 3, column(0.9), solver=Bracketing(-1.0, 1.0), batch_dims=1,
        stopping=Stopping(rtol=0.0, atol=1e-24),
    )  # fmt: skip
    # |z − 0.3| ≤ 1e-8.
    assert solution.value.item() == pytest.approx(0.3, abs=1e-8)


def test_a_fixed_point_is_a_root_of_the_difference() -> None:
    solution = fixed_point(torch.cos, column(0.2, 1.1), solver=Bracketing(0.0, 1.2), batch_dims=1)
    np.testing.assert_allclose(solution.value.numpy(), 0.7390851332151607, rtol=1e-9)


@pytest.mark.parametrize("solver", [Bracketing(0.0, 3.0), Bracketing()], ids=["given", "searched"])
def test_derivatives_pass_through_it_exactly_and_unrolled(solver: Bracketing) -> None:
    a = torch.tensor([2.0, 5.0], dtype=torch.float64, requires_grad=True)

    def solve(a: Tensor, **options: Any) -> Tensor:
        return root(
            lambda z, a: z**2 - a, torch.full_like(a, 1.2), a, solver=solver, batch_dims=1,
            **options,
        ).value  # fmt: skip

    (exact,) = torch.autograd.grad(solve(a).sum(), a)
    torch.testing.assert_close(exact, 0.5 / a.detach().sqrt(), rtol=1e-8, atol=0)
    # The last interpolations are the root to within the tolerance, whatever the ends.
    (unrolled,) = torch.autograd.grad(solve(a, gradient=Unrolled()).sum(), a)
    torch.testing.assert_close(unrolled, 0.5 / a.detach().sqrt(), rtol=1e-3, atol=0)


def test_systems_do_not_see_each_other() -> None:
    M = torch.linspace(0.1, 3.0, 7, dtype=torch.float64)
    e = torch.full_like(M, 0.9)
    together = root(kepler, M, M, e, solver=Bracketing(), batch_dims=1)
    for i in range(7):
        alone = root(
            kepler, M[i : i + 1], M[i : i + 1], e[i : i + 1], solver=Bracketing(), batch_dims=1
        )
        assert torch.equal(alone.value, together.value[i : i + 1])
        assert torch.equal(alone.steps, together.steps[i : i + 1])


@pytest.mark.parametrize("shape", [(0,), (0, 1)], ids=str)
def test_no_systems_are_no_work(shape: tuple[int, ...]) -> None:
    solution = root(torch.cos, torch.zeros(shape).double(), solver=Bracketing(), batch_dims=1)
    assert solution.value.shape == shape


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lower": 1.0}, ValueError, "two ends: lower is given, upper is not"),
        ({"upper": 1.0}, ValueError, "two ends: upper is given, lower is not"),
        ({"lower": 2.0, "upper": 1.0}, ValueError, "lower must be below upper, got lower=2.0"),
        ({"lower": math.nan, "upper": 1.0}, ValueError, "lower must be finite, got nan"),
        ({"lower": "0", "upper": 1.0}, TypeError, "lower must be a number, a tensor or None"),
        ({"lower": torch.zeros(2), "upper": torch.ones(3)}, ValueError, "entries, got 2 and 3"),
        ({"max_search": 0}, ValueError, "max_search must be an integer ≥ 1, got 0"),
    ],
    ids=str,
)
def test_wrong_brackets_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Bracketing(**options)


def test_systems_of_several_unknowns_and_brackets_of_other_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="one unknown per system, and each of these has 3"):
        root(torch.cos, torch.zeros(3), solver=Bracketing())
    with pytest.raises(ValueError, match="each of the 3 systems, or one for all, got 2"):
        root(
            torch.cos, torch.zeros(3), batch_dims=1,
            solver=Bracketing(torch.zeros(2), torch.full((2,), 3.0)),
        )  # fmt: skip
