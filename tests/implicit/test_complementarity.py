"""Complementarity problems against enumeration, dense references and closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import implicitly as im
import pytest
import torch
from implicitly.problems import constrained
from implicitly.verification import Verdict, verify
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

D = torch.float64
TIGHT = im.Stopping(rtol=1e-12)


def enumerated(M: Tensor, q: Tensor, lower: float, upper: float) -> Tensor:
    """The solution of `l ≤ z ≤ u ⊥ M z + q`, by trying every active set."""
    n = len(q)
    for sides in itertools.product((-1, 0, 1), repeat=n):
        if math.isinf(upper) and 1 in sides:
            continue
        free = torch.tensor([side == 0 for side in sides])
        z = torch.tensor([upper if side == 1 else lower for side in sides], dtype=D)
        z = torch.where(free, 0.0, z)
        if free.any():
            right = -(q + M @ z)[free]
            z[free] = torch.linalg.solve(M[free][:, free], right)
        F = M @ z + q
        at_lower = torch.tensor([side == -1 for side in sides])
        fits = torch.where(free, (z >= lower) & (z <= upper), torch.where(at_lower, F >= 0, F <= 0))
        if bool(fits.all()):
            return z
    raise AssertionError("no active set fits")


@pytest.mark.parametrize("upper", [math.inf, 0.7])
@pytest.mark.parametrize("symmetric", [True, False])
def test_linear_problems_have_the_solution_that_enumeration_finds(
    upper: float, symmetric: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    n, problems = 5, 12
    B, S = torch.randn(2, problems, n, n, generator=generator, dtype=D)
    M = B @ B.mT + 0.1 * torch.eye(n, dtype=D) + (0 if symmetric else S - S.mT)
    q = 3 * torch.randn(problems, n, generator=generator, dtype=D)
    solution = im.complementarity(
        lambda z, M, q: (M @ z.unsqueeze(-1)).squeeze(-1) + q, torch.full((problems, n), 0.5, dtype=D),
        M, q, bounds=(0.0, upper), batch_dims=1, batched_args=[True, True],
    )  # fmt: skip
    expected = torch.stack([enumerated(m, r, 0.0, upper) for m, r in zip(M, q, strict=True)])
    torch.testing.assert_close(solution.value, expected, rtol=1e-8, atol=1e-9)
    assert solution.bounds.active.eq(-1).equal(expected == 0)


def mixed(z: Tensor, x: Tensor) -> Tensor:
    """A monotone map: its first unknown is free, the second at zero, the third at its upper bound."""
    M = torch.tensor([[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, -1.0, 2.0]], dtype=D)
    shift = torch.stack((x[0], -x[1], 3 * x[1]))
    return M @ z + z**3 - shift


def solved(x: Tensor, upper: Any = 0.5, **options: Any) -> Tensor:
    start = torch.full((3,), 0.1, dtype=D)
    return im.complementarity(mixed, start, x, bounds=(0.0, upper), stopping=TIGHT, **options).value


def test_derivatives_hold_active_bounds_fixed_to_every_order() -> None:
    x = torch.tensor([1.0, 0.9], dtype=D, requires_grad=True)
    upper = torch.tensor([2.0, 3.0, 0.5], dtype=D, requires_grad=True)
    assert solved(x)[1:].tolist() == [0.0, 0.5]
    a = solved(x)[0].item()
    (slope,) = torch.autograd.grad(solved(x)[0], x)
    torch.testing.assert_close(
        slope, torch.tensor([1 / (4 + 3 * a**2), 0.0], dtype=D), rtol=1e-10, atol=1e-14
    )
    assert gradcheck(solved, (x, upper))
    assert gradgradcheck(solved, (x, upper))
    assert verify(solved, (x,)).verdict is Verdict.CORRECT
    xs = torch.stack((x.detach(), 1.1 * x.detach()))
    rows = torch.stack([torch.func.jacrev(solved)(row) for row in xs])
    torch.testing.assert_close(torch.vmap(torch.func.jacfwd(solved))(xs), rows)


def test_a_degenerate_solution_is_said_to_be_one_sided() -> None:
    def at(x: float) -> im.Solution:
        return im.complementarity(lambda z: z**3 + z - x, torch.ones(1, dtype=D))

    assert bool(at(0.0).bounds.one_sided)
    assert not bool(at(-0.1).bounds.one_sided)


def test_units_of_functions_and_of_unknowns_change_no_active_set() -> None:
    M = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=D)
    q = torch.tensor([-1.0, 2.0], dtype=D)
    unit, size = torch.tensor([1e9, 1e-9], dtype=D), torch.tensor([1e-6, 1e6], dtype=D)
    plain = im.complementarity(lambda z: M @ z + q, torch.ones(2, dtype=D))
    scaled = im.complementarity(lambda z: unit * (M @ (z / size) + q), size)
    torch.testing.assert_close(scaled.value / size, plain.value, rtol=1e-9, atol=0)
    assert abs(scaled.steps - plain.steps) <= 1  # The limit is that of rounding in other units.
    assert scaled.bounds.active.tolist() == plain.bounds.active.tolist() == [0, -1]


def test_a_flash_over_its_phase_boundaries_is_a_complementarity_problem() -> None:
    """The vapour fraction is 0 below the bubble point, 1 above the dew point, else a root between."""
    feed = torch.tensor([0.5, 0.3, 0.2], dtype=D)
    temperature = torch.linspace(0.2, 4.0, 12, dtype=D).unsqueeze(1)

    def rachford_rice(share: Tensor, temperature: Tensor) -> Tensor:
        K = temperature * torch.tensor([2.0, 0.7, 0.2], dtype=D)
        return -(feed * (K - 1) / (1 + share * (K - 1))).sum(dim=-1, keepdim=True)

    start = torch.full((12, 1), 0.5, dtype=D)
    solution = im.complementarity(
        rachford_rice, start, temperature, bounds=(0.0, 1.0), batch_dims=1, batched_args=[True]
    )
    # Bisection of a function that rises from minus to plus.
    low, high = torch.zeros_like(start), torch.ones_like(start)
    for _ in range(60):
        middle = (low + high) / 2
        below = rachford_rice(middle, temperature) < 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    torch.testing.assert_close(solution.value, (low + high) / 2, rtol=1e-7, atol=1e-12)
    active = solution.bounds.active.flatten().tolist()
    assert active[0] == -1
    assert active[-1] == 1
    assert 0 in active


@pytest.mark.parametrize("function", [im.minimum_map, im.fischer_burmeister])
def test_functions_of_pairs_vanish_where_these_are_complementary(function: Any) -> None:
    a = torch.tensor([0.0, 2.0, 0.0, 1e-12, 1.0, -1.0, -1.0], dtype=D)
    b = torch.tensor([3.0, 0.0, 0.0, 1e6, 1.0, 0.0, -2.0], dtype=D)
    value = function(a, b)
    assert value[:3].tolist() == [0.0, 0.0, 0.0]
    # min(a, b) to a factor of two: no digit is lost where b is far larger than a.
    assert value[3].item() == pytest.approx(1e-12, rel=1e-12)
    assert bool((value[4:] != 0).all())
    point = torch.tensor([0.3, 2.0, -1.0], dtype=D, requires_grad=True)
    other = torch.tensor([1.2, 0.1, 4.0], dtype=D, requires_grad=True)
    assert gradcheck(function, (point, other))
    assert gradgradcheck(function, (point, other))
    # At the kink the derivative is one of the generalised ones, and finite.
    zero = torch.zeros(1, dtype=D, requires_grad=True)
    also = torch.zeros(1, dtype=D, requires_grad=True)
    slopes = torch.autograd.grad(function(zero, also), (zero, also))
    assert all(0 <= slope.item() <= 1 for slope in slopes)


def test_the_equation_of_a_pair_has_the_solution_and_derivatives_of_the_problem() -> None:
    x = torch.tensor([1.0, 0.9], dtype=D, requires_grad=True)
    # With no upper bound: 0 ≤ z ⊥ F(z) ≥ 0.
    problem = solved(x, None)

    def F(z: Tensor, x: Tensor) -> Tensor:
        return im.fischer_burmeister(z, mixed(z, x))

    pair = im.root(F, torch.full((3,), 0.1, dtype=D), x, stopping=TIGHT).value
    torch.testing.assert_close(pair, problem, rtol=1e-8, atol=1e-9)
    (mine,) = torch.autograd.grad(problem.sum(), x)
    (other,) = torch.autograd.grad(pair.sum(), x)
    torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-9)


def test_keywords_and_wrong_options_are_handled_as_by_root() -> None:
    z = im.complementarity(lambda z, *, k: z - k, torch.ones(2, dtype=D), k=3.0).value
    assert z.tolist() == pytest.approx([3.0, 3.0])
    with pytest.raises(TypeError, match="unexpected keyword argument 'bound'"):
        im.complementarity(lambda z: z, torch.ones(1), bound=(0.0, 1.0))
    with pytest.raises(ValueError, match="start lies outside"):
        im.complementarity(lambda z: z, -torch.ones(1))


def test_an_unknown_on_its_bound_stays_exactly_there_while_others_converge() -> None:
    """The conditions of problem 43 of Hock & Schittkowski, whose second multiplier is zero."""
    problem = constrained.get("hock-schittkowski-43")
    assert problem.inequalities is not None
    limits, slopes = problem.inequalities, torch.func.jacrev(problem.inequalities)

    def conditions(w: Tensor) -> Tensor:
        z, multipliers = w[:4], w[4:]
        gradient = torch.func.grad(problem.objective)(z) + multipliers @ slopes(z)
        return torch.cat((gradient, -limits(z)))

    lower = torch.tensor([-math.inf] * 4 + [0.0] * 3, dtype=D)
    start = torch.cat((problem.known() + 2e-7, torch.tensor([1.0, 0.0, 2.0], dtype=D)))
    w = im.complementarity(conditions, start, bounds=(lower, None)).value
    expected = torch.tensor([0.0, 1.0, 2.0, -1.0, 1.0, 0.0, 2.0], dtype=D)
    torch.testing.assert_close(w, expected, rtol=1e-12, atol=1e-12)
