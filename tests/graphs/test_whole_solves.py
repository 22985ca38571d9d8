"""Whole solves in one graph: the iterates, statuses and steps of the same solver in the driver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from implicitly import (
    GMRES,
    Anderson,
    BiCGStab,
    Broyden,
    Compiled,
    FixedPointIteration,
    NeumannSeries,
    Newton,
    NotCompiledWarning,
    Solution,
    Solver,
    Status,
    Stopping,
)
from torch import Tensor
from torch.fx import GraphModule

NONLINEAR: dict[str, Solver] = {
    "plain": FixedPointIteration(),
    "damped": FixedPointIteration(damping=0.8),
    "Anderson": Anderson(),
    "Anderson, two moves and restarts": Anderson(memory=2, restart=7),
    "Anderson, ten moves": Anderson(memory=10),
    "Anderson-I": Anderson(kind="I"),
    "Anderson without safeguard": Anderson(safeguard=None, mixing=0.7),
    "Broyden": Broyden(),
    "Broyden-bad": Broyden(kind="bad"),
    "Broyden without line search": Broyden(line_search=False),
    "Newton": Newton(),
    "Newton-full-steps": Newton(globalisation=None),
}
LINEAR: dict[str, Solver] = {
    "Neumann": NeumannSeries(),
    "BiCGStab": BiCGStab(),
    "GMRES": GMRES(),
    "GMRES-restarted": GMRES(restart=3),
}
ALL = {**NONLINEAR, **LINEAR}
SHORT = ("plain", "GMRES")


def each(solvers: dict[str, Solver]) -> pytest.MarkDecorator:
    """A run of a test for each solver; all but a few in the long run."""
    runs = [
        pytest.param(solver, id=name, marks=() if name in SHORT else pytest.mark.long)
        for name, solver in solvers.items()
    ]
    return pytest.mark.parametrize("solver", runs)


every_solver, nonlinear = each(ALL), each(NONLINEAR)
float32 = pytest.param(torch.float32, marks=pytest.mark.long)


def weights(batch: int, n: int, norm: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Matrices of a given 2-norm and inputs, one of each per system."""
    generator = np.random.default_rng(seed)
    W = generator.standard_normal((batch, n, n))
    W *= norm / np.linalg.norm(W, 2, axis=(1, 2), keepdims=True)
    return torch.from_numpy(W), torch.from_numpy(generator.standard_normal((batch, n)))


def tanh_map(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(torch.einsum("bij,bj->bi", W, z) + x)


def affine_map(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    return torch.einsum("bij,bj->bi", W, z) + x


def solved(form: str, solver: Solver, f: Any, W: Tensor, x: Tensor, **options: Any) -> Solution:
    """The solution, of the fixed point of `f` or of the root of `z − f(z)`."""
    from implicitly import fixed_point, root

    linear = solver.linear_only
    chosen: dict[str, Any] = dict(
        solver=solver, linear=linear, batch_dims=1, on_failure="accept", **options
    )
    if form == "fixed_point":
        return fixed_point(f, torch.zeros_like(x), W, x, **chosen)
    return root(lambda z, W, x: z - f(z, W, x), torch.zeros_like(x), W, x, **chosen)


@every_solver
@pytest.mark.parametrize("form", ["fixed_point", pytest.param("root", marks=pytest.mark.long)])
@pytest.mark.parametrize("dtype", [torch.float64, float32], ids=str)
def test_a_graph_takes_the_steps_of_the_driver(
    solver: Solver, form: str, dtype: torch.dtype, interpreted: list[GraphModule]
) -> None:
    W, x = (tensor.to(dtype) for tensor in weights(5, 6, 0.8))
    f = affine_map if solver.linear_only else tanh_map
    eager = solved(form, solver, f, W, x)
    graph = solved(form, Compiled(solver), f, W, x)
    assert len(interpreted) == 1
    assert bool(graph.converged.all())
    assert torch.equal(graph.status, eager.status)
    # In a graph Newton halves where the driver has a trust region; both take full steps here. A cycle of
    # GMRES in the driver is confirmed at its end as well.
    assert (graph.steps - eager.steps).abs().max() <= 1
    # Both residuals are within the tolerance of a size below √6; the sensitivity is 1 / (1 − 0.8).
    tolerance = 2 * Stopping().relative(dtype) * 2.5 * 5
    assert (graph.value - eager.value).abs().max().item() <= tolerance
    residual = f(graph.value, W, x) - graph.value
    norm = torch.linalg.vector_norm(residual, dim=1) / 6**0.5
    torch.testing.assert_close(
        norm, graph.residual_norm, rtol=1e-3, atol=6 * torch.finfo(dtype).eps
    )


NASTY = {
    "NaN": lambda z, x, y: torch.full_like(y, torch.nan),
    "NaN later": lambda z, x, y: torch.where(z.abs().amax(-1, True) > 0.1, torch.nan, y),
    "divergent": lambda z, x, y: 3 * z + x,
    "slow": lambda z, x, y: 0.9999 * z + torch.sign(x),
}


@every_solver
@pytest.mark.parametrize(
    "kind", ["NaN", *(pytest.param(kind, marks=pytest.mark.long) for kind in list(NASTY)[1:])]
)
def test_a_nasty_system_changes_no_bit_of_its_neighbours(
    solver: Solver, kind: str, interpreted: list[GraphModule]
) -> None:
    if solver.linear_only and kind == "NaN later":
        pytest.skip("not a linear equation")
    W, x = weights(4, 5, 0.8)
    base = affine_map if solver.linear_only else tanh_map

    def f(z: Tensor, W: Tensor, x: Tensor, chosen: Tensor) -> Tensor:
        y = base(z, W, x)
        return torch.where(chosen.unsqueeze(1), NASTY[kind](z, x, y), y)

    def solve(chosen: Tensor, how: Solver):
        from implicitly import fixed_point

        return fixed_point(
            f, torch.zeros_like(x), W, x, chosen, solver=how, linear=how.linear_only, batch_dims=1,
            on_failure="accept", stopping=Stopping(max_steps=400),
        )  # fmt: skip

    one = torch.tensor([False, True, False, False])
    healthy = solve(torch.zeros(4, dtype=torch.bool), Compiled(solver))
    beside = solve(one, Compiled(solver))
    others = [0, 2, 3]
    assert bool(healthy.converged.all())
    assert torch.equal(beside.status[others], healthy.status[others])
    assert torch.equal(beside.steps[others], healthy.steps[others])
    assert torch.equal(beside.value[others], healthy.value[others])
    assert beside.status[1] == solve(one, solver).status[1]
    if kind == "NaN":
        assert beside.status[1] == Status.NON_FINITE


@nonlinear
def test_powers_of_two_in_the_unknown_change_nothing_but_exponents(
    solver: Solver, interpreted: list[GraphModule]
) -> None:
    W, x = weights(3, 4, 0.9)

    def steps(factor: float) -> tuple[Tensor, Tensor]:
        def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
            return factor * tanh_map(z / factor, W, x)

        solution = solved("fixed_point", Compiled(solver), f, W, x)
        return solution.value / factor, solution.steps

    value, count = steps(1.0)
    for factor in (2.0**-20, 2.0**20):
        other, same = steps(factor)
        assert torch.equal(other, value)
        assert torch.equal(same, count)
    # At the end of the range the driver solves in other units.
    with pytest.warns(NotCompiledWarning, match="no graph"):
        other, _ = steps(2.0**-600)
    torch.testing.assert_close(other, value, rtol=1e-8, atol=1e-8)


@nonlinear
def test_a_start_that_solves_its_equation_takes_no_step(
    solver: Solver, interpreted: list[GraphModule]
) -> None:
    from implicitly import fixed_point

    W, x = weights(3, 4, 0.5)
    start = solved("fixed_point", Anderson(), tanh_map, W, x, stopping=Stopping(rtol=1e-14)).value
    start[1] = 0.0
    solution = fixed_point(tanh_map, start, W, x, solver=Compiled(solver), batch_dims=1)
    assert (solution.steps == 0).tolist() == [True, False, True]
    assert torch.equal(solution.value[[0, 2]], start[[0, 2]])


@pytest.mark.long
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_limit_on_steps_holds(limit: int, interpreted: list[GraphModule]) -> None:
    W, x = weights(3, 4, 0.9)
    stopping = Stopping(max_steps=limit)
    for solver in (FixedPointIteration(), Anderson(), Broyden()):
        graph = solved("fixed_point", Compiled(solver), tanh_map, W, x, stopping=stopping)
        eager = solved("fixed_point", solver, tanh_map, W, x, stopping=stopping)
        assert graph.status.tolist() == eager.status.tolist() == [Status.MAX_STEPS] * 3
        assert graph.steps.tolist() == [limit] * 3
        torch.testing.assert_close(graph.value, eager.value)


def test_a_limit_on_evaluations_holds(interpreted: list[GraphModule]) -> None:
    W, x = weights(3, 4, 0.95)
    stopping = Stopping(max_evaluations=6)
    solver = Compiled(FixedPointIteration())
    solution = solved("fixed_point", solver, tanh_map, W, x, stopping=stopping)
    # The end of the graph is confirmed by one evaluation more.
    assert solution.evaluations <= 8
    assert solution.status.tolist() == [Status.MAX_STEPS] * 3


@pytest.mark.long
def test_a_slow_contraction_is_not_called_solved_too_early(interpreted: list[GraphModule]) -> None:
    # A plain iteration at rate 0.998 has five hundred times the error of its residual.
    rate = torch.tensor([[0.5], [0.998]], dtype=torch.float64)
    x = torch.ones(2, 1, dtype=torch.float64)

    def f(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
        return W * z + x

    stopping = Stopping(rtol=1e-4, max_steps=10_000)
    graph = solved("fixed_point", Compiled(FixedPointIteration()), f, rate, x, stopping=stopping)
    eager = solved("fixed_point", FixedPointIteration(), f, rate, x, stopping=stopping)
    assert graph.steps.tolist() == eager.steps.tolist()
    exact = 1 / (1 - rate)
    # The accepted error: a hundred times the tolerance, up to the rounding of the observed rate.
    assert ((graph.value - exact).abs() <= 1.001 * 1e-2 * exact).all()


def test_a_root_of_many_scales_is_examined_as_by_the_driver(interpreted: list[GraphModule]) -> None:
    from implicitly import root

    def F(z: Tensor) -> Tensor:
        return z**3 + z - 5

    start = torch.full((1, 1), 1e5, dtype=torch.float64)
    solution = root(F, start, solver=Compiled(Newton()), batch_dims=1)
    roots = np.roots([1, 0, 1, -5])
    assert solution.value.item() == pytest.approx(roots[np.isreal(roots)].real.item(), rel=1e-12)


def test_pytrees_complex_numbers_and_several_batch_axes(interpreted: list[GraphModule]) -> None:
    from implicitly import fixed_point

    x = torch.randn(2, 3, 4, dtype=torch.float64)

    def f(z: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
        a, b = z["a"], z["b"]
        return {"a": 0.5 * torch.sin(a) + x, "b": 0.3 * b.conj() * 1j + a.sum(-1) + 1}

    start = {
        "a": torch.zeros(2, 3, 4, dtype=torch.float64),
        "b": torch.zeros(2, 3, dtype=torch.complex128),
    }
    graph = fixed_point(f, start, x, solver=Compiled(Anderson()), batch_dims=2)
    eager = fixed_point(f, start, x, solver=Anderson(), batch_dims=2)
    assert len(interpreted) == 1
    assert graph.status.shape == (2, 3)
    for name in start:
        torch.testing.assert_close(graph.value[name], eager.value[name], rtol=1e-8, atol=1e-8)
