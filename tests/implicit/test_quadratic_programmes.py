"""Quadratic programmes against an active-set method, a simplex method, and the conditions of optimality."""

from __future__ import annotations

import implicitly as im
import numpy as np
import pytest
import torch
from implicitly.solvers.interface.programme import Programme
from implicitly.solvers.programmes.interior_point import InteriorPoint
from implicitly.solvers.programmes.mehrotra import interior_point
from implicitly.solvers.programmes.polish import polished
from implicitly.solvers.programmes.units import scaled
from scipy.optimize import linprog
from torch.autograd import gradcheck, gradgradcheck

D = torch.float64
Array = np.ndarray


def random_programme(n: int, m: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """A strictly convex objective and inequalities that hold at zero with room to spare."""
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((n, n))
    Q, q = root @ root.T / n + 0.1 * np.eye(n), generator.standard_normal(n)
    return Q, q, generator.standard_normal((m, n)), 0.05 + 0.5 * generator.random(m)


def active_set(Q: Array, q: Array, G: Array, h: Array) -> tuple[Array, Array]:
    """The minimiser and its multipliers from the feasible start zero.

    Source: Nocedal & Wright 2006, algorithm 16.3.
    """
    z, working = np.zeros(len(q)), list[int]()
    for _ in range(50 * (len(q) + len(h))):
        rows = G[working]
        matrix = np.block([[Q, rows.T], [rows, np.zeros((len(working), len(working)))]])
        right = np.concatenate((-Q @ z - q, np.zeros(len(working))))
        step = np.linalg.solve(matrix, right)
        move, held = step[: len(q)], step[len(q) :]
        if np.abs(move).max() <= 1e-12 * max(1.0, np.abs(z).max()):
            if len(held) == 0 or held.min() >= 0:
                multipliers = np.zeros(len(h))
                multipliers[working] = held
                return z, multipliers
            del working[int(held.argmin())]
            continue
        slopes = G @ move
        ahead = [i for i in range(len(h)) if i not in working and slopes[i] > 1e-14]
        lengths = [(h[i] - G[i] @ z) / slopes[i] for i in ahead]
        shortest = min(lengths, default=np.inf)
        z = z + min(1.0, shortest) * move
        if shortest < 1.0:
            working.append(ahead[int(np.argmin(lengths))])
    raise AssertionError("the active set did not settle")


@pytest.mark.parametrize(("n", "m"), [(2, 5), (10, 20), (30, 20), (50, 20)])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_programmes_have_the_minimiser_of_an_active_set_method(
    n: int, m: int, seed: int
) -> None:
    data = random_programme(n, m, seed)
    z, multipliers = active_set(*data)
    Q, q, G, h = map(torch.from_numpy, data)
    found = im.quadratic_programme(Q, q, G=G, h=h).value
    np.testing.assert_allclose(found.z, z, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.inequality, multipliers, rtol=0, atol=1e-8)
    assert (multipliers > 1e-6).any()  # An inequality binds.


def random_batch(seed: int, batch: int, n: int, m: int, p: int) -> tuple[torch.Tensor, ...]:
    """Programmes that zero is feasible for, some of them near a vertex."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=D)

    root = draw(batch, n, n)
    Q = root @ root.mT / n + 0.1 * torch.eye(n, dtype=D)
    return (
        Q, draw(batch, n), draw(batch, p, n), torch.zeros(batch, p, dtype=D), draw(batch, m, n),
        0.05 + 0.5 * draw(batch, m).abs(),
    )  # fmt: skip


def check_optimal(data: tuple[torch.Tensor, ...], found: im.ConstrainedMinimum, tol: float) -> None:
    """The conditions of a convex programme, which are sufficient (Nocedal & Wright 2006, theorem 16.4)."""
    Q, q, A, b, G, h = (t.double().numpy() for t in data)
    z, y, multiplier = (t.detach().double().numpy() for t in found)
    gradient = np.einsum("bij,bj->bi", Q, z) + q
    gradient += np.einsum("bij,bi->bj", A, y) + np.einsum("bij,bi->bj", G, multiplier)
    slack = h - np.einsum("bij,bj->bi", G, z)
    assert np.abs(gradient).max() < tol
    assert np.abs(np.einsum("bij,bj->bi", A, z) - b).max(initial=0) < tol
    assert slack.min() > -tol
    assert multiplier.min() >= 0
    assert np.abs(multiplier * slack).max() < tol


@pytest.mark.parametrize(("n", "m", "p"), [(10, 10, 3), (10, 30, 0), (20, 40, 2), (3, 0, 1)])
def test_programmes_of_a_batch_meet_the_conditions_of_optimality_to_rounding(
    n: int, m: int, p: int
) -> None:
    data = random_batch(0, 60, n, m, p)
    solution = im.quadratic_programme(*data)
    assert solution.converged.all()
    assert solution.error.max() < 1e-10
    if m:
        check_optimal(data, solution.value, 1e-11)
        # Multipliers of inactive inequalities are zero to the last bit.
        slack = data[5] - (data[4] @ solution.value.z.unsqueeze(-1)).squeeze(-1)
        assert (solution.value.inequality[slack > 1e-9] == 0).all()
        assert (solution.value.inequality > 1e-3).any()


def test_the_interior_point_method_alone_finds_the_active_sets_of_every_programme() -> None:
    data = random_batch(1, 60, 10, 25, 2)
    inner, units = scaled(Programme(*data))
    near = interior_point(inner, 60)
    assert near.steps.max() < 25
    found = polished(inner, near.at, near.multiplier > near.slack)
    assert found.settled.all()
    check_optimal(data, im.ConstrainedMinimum(*units.back(found.at)), 1e-11)


def test_linear_programmes_have_the_minimiser_of_a_simplex_method() -> None:
    generator = np.random.default_rng(0)
    for _ in range(5):
        q, G, A = generator.random(6), generator.standard_normal((8, 6)), generator.random((2, 6))
        h, b = G @ np.ones(6) + generator.random(8), A @ np.ones(6)
        theirs = linprog(q, G, h, A, b, bounds=(0, None), method="highs")
        G, h = np.concatenate((G, -np.eye(6))), np.concatenate((h, np.zeros(6)))
        own = im.quadratic_programme(
            torch.zeros(6, 6, dtype=D), *map(torch.from_numpy, (q, A, b, G, h))
        )
        np.testing.assert_allclose(own.value.z, theirs.x, rtol=0, atol=1e-9)


def test_units_of_unknowns_constraints_and_objective_do_not_matter() -> None:
    Q, q, A, b, G, h = random_batch(2, 20, 6, 9, 2)
    plain = im.quadratic_programme(Q, q, A, b, G, h).value.z
    d = 10.0 ** torch.linspace(-5, 5, 6, dtype=D)
    e = 10.0 ** torch.linspace(4, -4, 9, dtype=D)
    cost = 1e-7
    other = im.quadratic_programme(
        cost * d.unsqueeze(1) * Q * d, cost * d * q, A * d, b, e.unsqueeze(1) * G * d, e * h
    ).value.z
    torch.testing.assert_close(d * other, plain, rtol=1e-8, atol=1e-9)


def test_contradictions_and_objectives_without_a_bound_are_named_and_leave_others_alone() -> None:
    I, one = torch.eye(2, dtype=D), torch.ones(1, dtype=D)
    Q = torch.stack((I, I, torch.diag(torch.tensor([1.0, 0.0], dtype=D))))
    q = torch.tensor([[-1.0, -2.0], [0.0, 0.0], [0.0, -1.0]], dtype=D)
    G = torch.stack((I, torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=D), -I))
    h = torch.tensor([[5.0, 1.0], [-1.0, -1.0], [0.0, 0.0]], dtype=D)
    solution = im.quadratic_programme(Q, q, G=G, h=h, on_failure="accept")
    names = [im.Status(code).name for code in solution.status.tolist()]
    assert names == ["CONVERGED", "INFEASIBLE", "UNBOUNDED"]
    assert solution.value.z[0].tolist() == [1.0, 1.0]
    with pytest.raises(im.SolveError, match="INFEASIBLE"):  # Equations that contradict each other.
        im.quadratic_programme(I, q[0], A=torch.cat((I, I[:1])), b=torch.cat((one, one, 2 * one)))


def test_equations_that_follow_from_others_leave_the_minimiser() -> None:
    Q, q, A, b, G, h = (t[:1] for t in random_batch(3, 1, 5, 4, 2))
    plain = im.quadratic_programme(Q, q, A, b, G, h).value.z
    twice = torch.cat((A, A.sum(1, keepdim=True)), 1), torch.cat((b, b.sum(1, keepdim=True)), 1)
    torch.testing.assert_close(
        im.quadratic_programme(Q, q, *twice, G, h).value.z, plain, rtol=1e-9, atol=1e-10
    )


def test_single_precision_is_accurate_to_its_rounding() -> None:
    data = random_batch(4, 40, 10, 12, 2)
    single = im.quadratic_programme(*(t.float() for t in data))
    assert single.value.z.dtype == torch.float32
    assert single.converged.all()
    exact = im.quadratic_programme(*(t.float().double() for t in data)).value.z
    torch.testing.assert_close(single.value.z.double(), exact, rtol=1e-6, atol=1e-6)


def test_only_the_symmetric_part_of_the_matrix_counts() -> None:
    Q, q, A, b, G, h = random_batch(5, 4, 5, 6, 1)
    skew = torch.triu(torch.ones(5, 5, dtype=D), 1)
    one = im.quadratic_programme(Q, q, A, b, G, h).value.z
    other = im.quadratic_programme(Q + skew - skew.mT, q, A, b, G, h).value.z
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def small_programme() -> list[torch.Tensor]:
    return [t[0].clone().requires_grad_() for t in random_batch(8, 1, 4, 5, 1)]


def minimiser(*data: torch.Tensor) -> torch.Tensor:
    found = im.quadratic_programme(*data).value
    return torch.cat((found.z, found.equality, found.inequality))


def test_derivatives_in_all_data_are_those_of_differences_to_second_order() -> None:
    data = small_programme()
    assert (minimiser(*data)[5:] > 1e-2).any()
    assert gradcheck(minimiser, tuple(data), check_forward_ad=True)
    assert gradgradcheck(minimiser, tuple(data))


def test_derivatives_are_those_of_the_general_way_in_every_mode() -> None:
    data = small_programme()
    direct = torch.autograd.functional.jacobian(minimiser, tuple(data))
    for kind in (torch.func.jacrev, torch.func.jacfwd):
        transformed = kind(minimiser, tuple(range(6)))(*(t.detach() for t in data))
        for one, other in zip(direct, transformed, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    general = torch.autograd.grad(
        im.quadratic_programme(*data, gradient=im.Exact()).value.z.sum(), data
    )
    own = torch.autograd.grad(im.quadratic_programme(*data).value.z.sum(), data)
    for one, other in zip(own, general, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_shared_data_and_vmap_over_some_of_them_have_the_same_gradients_as_a_loop() -> None:
    Q, q, A, b, G, h = (t.detach() for t in small_programme())
    many = torch.stack((q, -q, 0.5 * q)).requires_grad_()
    shared = h.clone().requires_grad_()
    together = im.quadratic_programme(Q, many, A, b, G, shared).value.z.square().sum()
    looped = sum(
        im.quadratic_programme(Q, row, A, b, G, shared).value.z.square().sum() for row in many
    )
    mapped = torch.vmap(lambda row: im.quadratic_programme(Q, row, A, b, G, shared).value.z)(many)
    first = torch.autograd.grad(together, (many, shared))
    for loss in (looped, mapped.square().sum()):
        for one, other in zip(torch.autograd.grad(loss, (many, shared)), first, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_a_kink_is_said_and_a_singular_equation_has_no_derivative() -> None:
    I, zero = torch.eye(2, dtype=D), torch.zeros(2, dtype=D)
    q = torch.tensor([0.0, -1.0], dtype=D, requires_grad=True)
    solution = im.quadratic_programme(I, q, G=-I, h=zero)  # z ≥ 0, the first of which hardly holds.
    assert bool(solution.bounds.one_sided)
    assert solution.value.inequality.tolist() == [0.0, 0.0]
    clear = im.quadratic_programme(I, q + torch.tensor([1.0, 0.0]), G=-I, h=zero)
    assert not bool(clear.bounds.one_sided)
    assert clear.bounds.active.inequality.tolist() == [1.0, 0.0]
    flat = im.quadratic_programme(
        torch.zeros(2, 2, dtype=D), torch.ones(2, dtype=D), A=torch.ones(1, 2, dtype=D), b=q[:1] + 1
    )
    with pytest.raises(im.SolveError):
        flat.value.z[0].backward()


def test_the_solver_of_programmes_refuses_other_equations() -> None:
    with pytest.raises(
        TypeError, match="InteriorPoint solves the conditions of quadratic_programme"
    ):
        im.complementarity(lambda z: z**3 - 2, torch.ones(2, dtype=D), solver=InteriorPoint())


def test_steps_are_limited_where_that_is_asked_for() -> None:
    data = [t[:1] for t in random_batch(7, 1, 6, 20, 0)]
    data[0] = torch.zeros_like(data[0])
    data[4], data[5] = torch.cat((data[4], -data[4]), 1), torch.cat((data[5], data[5]), 1)
    solution = im.quadratic_programme(*data, stopping=im.Stopping(max_steps=1), on_failure="accept")
    assert im.Status(int(solution.status)) == im.Status.MAX_STEPS
    assert bool(im.quadratic_programme(*data).converged)


def odd_programme(generator: np.random.Generator, number: int) -> list[Array]:
    """Programmes of any rank, with dependent, redundant and contradicting constraints among them."""
    n, m = int(generator.integers(1, 10)), int(generator.integers(0, 18))
    p, rank = int(generator.integers(0, max(1, n // 2))), (n, n // 2, 0, n - 1)[number % 4]
    root, q = generator.standard_normal((n, rank)), generator.standard_normal(n)
    G, A, z = (generator.standard_normal(shape) for shape in ((m, n), (p, n), (n,)))
    if number % 3 == 0:  # Many constraints meet at one point.
        G, A, z = np.round(G), np.round(A), np.round(z)
    h, b = G @ z + np.maximum(generator.standard_normal(m), 0), A @ z
    if number % 2:
        G, h = np.concatenate((G, np.eye(n), -np.eye(n))), np.concatenate((h, z + 2, 2 - z))
    if number % 11 == 0:
        h = h - 3
    return [root @ root.T, q, A, b, G, h]


def status_by_linear_programmes(Q: Array, q: Array, A: Array, b: Array, G: Array, h: Array) -> str:
    """Feasible or not, and whether the objective falls along a direction that the constraints allow."""
    free = linprog(0 * q, G, h, A, b, bounds=(None, None), method="highs")
    if free.status == 2:
        return "INFEASIBLE"
    level = np.concatenate((Q, A))
    away = linprog(q, G, 0 * h, level, np.zeros(len(level)), bounds=(-1, 1), method="highs")
    return "UNBOUNDED" if away.fun < -1e-9 else "CONVERGED"


def test_odd_programmes_end_with_the_status_that_linear_programmes_prove() -> None:
    generator, seen = np.random.default_rng(1), set()
    for number in range(80):
        data = odd_programme(generator, number)
        solution = im.quadratic_programme(*map(torch.from_numpy, data), on_failure="accept")
        expected = status_by_linear_programmes(*data)
        assert im.Status(int(solution.status)).name == expected, number
        seen.add(expected)
        if expected == "CONVERGED" and len(data[5]):
            tensors = tuple(torch.from_numpy(part).unsqueeze(0) for part in data)
            point = im.ConstrainedMinimum(*(part.unsqueeze(0) for part in solution.value))
            size = 1 + max(float(part.abs().amax()) for part in point if part.numel())
            check_optimal(tensors, point, 1e-9 * size**2)
    assert len(seen) == 3
