"""Properties of causal-scan Newton: what changes no count, what fails alone, and what is refused."""

import numpy as np
import pytest
import torch
from implicitly import CausalNewton, SolveError, Stopping, fixed_point, recurrence, root
from implicitly.solvers import Problem, Status
from implicitly.solvers.causal.bidiagonal import Bidiagonal, StructureError, TimeAxis, assemble
from layers import draw
from torch import Tensor

from .recurrences import (
    EPS,
    gated,
    gated_inputs,
    loop,
    trellis,
    trellis_inputs,
)


@pytest.mark.parametrize("equation_scale", [1e-6, 1e6])
@pytest.mark.parametrize("unknown_scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_scaling_changes_no_count(equation_scale, unknown_scale, dtype):
    injection, history, W = (t.to(dtype) for t in trellis_inputs())
    z0 = torch.zeros(2, 6, injection.shape[2], dtype=dtype)
    solver = CausalNewton(block=6, time="last")

    def steps(a: float, b: float) -> list[int]:
        def F(z):
            return a * (z / b - trellis(z / b, injection, history, W))

        return root(F, z0, solver=solver, batch_dims=1, stopping=Stopping(rtol=1e-5)).steps.tolist()

    assert steps(equation_scale, unknown_scale) == steps(1.0, 1.0)


def test_no_system_depends_on_another():
    W, V, xs, s0 = gated_inputs(batch=4, gain=1.5)
    xs[1] *= 1e3
    s0[2] = 1e3
    xs[3] *= 0
    together = recurrence(gated, s0, xs, W, V)
    assert len(set(together.steps.tolist())) > 1
    for i in range(4):
        alone = recurrence(gated, s0[i : i + 1], xs[i : i + 1], W, V)
        assert alone.steps.item() == together.steps[i].item()
        # Products of matrices of other shapes are rounded differently.
        torch.testing.assert_close(together.value[i], alone.value[0], rtol=1e-12, atol=1e-12)


def test_a_system_that_is_not_finite_fails_alone():
    W, V, xs, s0 = gated_inputs(batch=3)
    xs[1, 30] = torch.nan
    solution = recurrence(gated, s0, xs, W, V, on_failure="accept")
    assert solution.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    expected = loop(gated, s0, xs, W, V)
    torch.testing.assert_close(solution.value[::2], expected[::2], rtol=0, atol=1e-8)


def test_states_in_float32_are_solved_in_float32():
    W, V, xs, s0 = (t.float() for t in gated_inputs(length=2000))
    solution = recurrence(gated, s0, xs, W, V)
    assert solution.value.dtype == torch.float32
    torch.testing.assert_close(solution.value, loop(gated, s0, xs, W, V), rtol=0, atol=1e-4)


def test_steps_are_counted_and_limited():
    W, V, xs, s0 = gated_inputs()
    solution = recurrence(
        gated, s0, xs, W, V, stopping=Stopping(rtol=1e-12, max_steps=1), on_failure="accept"
    )
    assert solution.status.tolist() == [Status.MAX_STEPS] * 2
    assert solution.steps.tolist() == [1, 1]
    # Per linearisation 3 probes and two products for each of the 3 unknowns of a state.
    assert (solution.counts.vjps, solution.counts.jvps) == (9, 0)


def test_a_singular_block_is_a_failed_linear_solve():
    def F(z):
        return torch.cat((z[:, :1] - 1, 0 * z[:, 1:2] + z[:, :1] - 3, z[:, 2:] - z[:, 1:-1]), dim=1)

    z0 = torch.zeros(1, 4, dtype=torch.float64)
    solution = root(F, z0, solver=CausalNewton(block=1), batch_dims=1, on_failure="accept")
    assert solution.status.tolist() == [Status.LINEAR_SOLVE_FAILED]


def test_a_linear_recurrence_beyond_the_range_of_the_dtype_is_not_called_solved():
    xs, s0 = torch.ones(1, 5000, 1), torch.ones(1, 1)
    with pytest.raises(SolveError, match="did not solve"):
        recurrence(lambda s, x: 1.5 * s + x, s0, xs)


def test_an_expanding_linear_recurrence_is_solved_by_one_scan():
    length = 1000
    xs, s0 = draw(1, length, 2), draw(1, 2, seed=1)
    A = 1.1 * torch.linalg.qr(draw(2, 2, seed=2)).Q
    solution = recurrence(lambda s, x: s @ A + x, s0, xs)
    # One scan, and one or two more to mend its rounding errors.
    assert int(solution.steps.max()) <= 3
    expected = loop(lambda s, x: s @ A + x, s0, xs)
    # Rounding errors grow as the states do: they are relative to the state of their time.
    size = torch.linalg.vector_norm(expected, dim=2)
    error = torch.linalg.vector_norm(solution.value - expected, dim=2)
    assert float((error / size).max()) < 100 * length * EPS


@pytest.mark.parametrize(
    ("name", "f"),
    [
        ("second order", lambda z: 0.5 * moved(1, z) + 0.3 * moved(2, z) + 1),
        ("both sides", lambda z: 0.4 * moved(1, z) + 0.4 * moved(-1, z) + 1),
        ("three back", lambda z: 0.5 * moved(3, z) + 1),
        ("six back", lambda z: 0.5 * moved(6, z) + 1),
        ("the mean", lambda z: 0.5 * z.mean(1, keepdim=True).expand_as(z) + 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_another_structure_is_an_error_that_says_so(name, f, jacobian):
    z0 = torch.zeros(1, 12, dtype=torch.float64)
    solver = CausalNewton(block=1, jacobian=jacobian)
    with pytest.raises(StructureError, match=r"block=1, time='first'.*NewtonKrylov"):
        fixed_point(f, z0, solver=solver, batch_dims=1)


def moved(k: int, z: Tensor) -> Tensor:
    """The values `k` times before, zero where there are none."""
    times = torch.arange(z.shape[1])
    there = (times >= k) & (times < z.shape[1] + k)
    return z.roll(k, 1) * there.to(z.dtype)


def test_a_wrong_layout_is_an_error():
    W, V, xs, s0 = gated_inputs()
    for solver in (CausalNewton(block=3, time="last"), CausalNewton(block=2)):
        with pytest.raises(StructureError, match="Check that block is the number of unknowns"):
            recurrence(gated, s0, xs, W, V, solver=solver)
    with pytest.raises(ValueError, match=r"multiple of block, got 180"):
        recurrence(gated, s0, xs, W, V, solver=CausalNewton(block=7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block must be an integer ≥ 1, got 0"),
        ({"block": 1, "time": "middle"}, "time must be one of 'first', 'last'"),
        ({"block": 1, "jacobian": "dense"}, "jacobian must be one of"),
        ({"block": 1, "damping": 1.5}, r"damping must be in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        CausalNewton(**options)


def test_states_and_inputs_that_do_not_fit_are_errors():
    with pytest.raises(
        ValueError, match=r"s0.*xs.*must agree in their first axis.*\(2, 3\).*\(1, 5, 1\)"
    ):
        recurrence(torch.add, torch.zeros(2, 3), torch.zeros(1, 5, 1))
    with pytest.raises(TypeError, match="xs must be a tensor, got int"):
        recurrence(torch.add, torch.zeros(2, 3), 3)
    with pytest.raises(ValueError, match=r"must return the shape of its unknown"):
        recurrence(lambda s, x: s[:, :1], torch.zeros(2, 3), torch.zeros(2, 5, 1))


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("time", ["first", "last"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 9])
def test_the_blocks_found_are_those_of_the_dense_matrix(length, time, upper):
    d, generator = 2, np.random.default_rng(0)
    dense = np.zeros((length, d, length, d))
    for t in range(length):
        dense[t, :, t] = generator.standard_normal((d, d))
        near = t + 1 if upper else t - 1
        if 0 <= near < length:
            dense[t, :, near] = generator.standard_normal((d, d))
    ordered = dense if time == "first" else dense.transpose(1, 0, 3, 2)
    matrix = torch.from_numpy(ordered.reshape(length * d, length * d).copy())
    products = 0

    def product(v: Tensor) -> Tensor:
        nonlocal products
        products += 1
        return v @ matrix.mT

    axis = TimeAxis(d, time)
    like = torch.zeros(1, length * d, dtype=torch.float64)
    found = assemble(product, like, axis, eps=EPS, described="it")
    assert products == 2 * d + 3
    assert np.array_equal(dense_of(found, length, d), dense)
    assert np.array_equal(dense_of(found.transposed, length, d), dense.transpose(2, 3, 0, 1))
    diagonals = assemble(product, like, axis, full=False, eps=EPS, described="it")
    assert torch.equal(diagonals.diagonal, found.diagonal.diagonal(dim1=2, dim2=3))
    assert torch.equal(diagonals.neighbour, found.neighbour.diagonal(dim1=2, dim2=3))


def dense_of(found: Bidiagonal, length: int, d: int):
    dense = np.zeros((length, d, length, d))
    for t in range(length):
        dense[t, :, t] = found.diagonal[0, t].numpy()
        near = t + 1 if found.upper else t - 1
        if 0 <= near < length:
            dense[t, :, near] = found.neighbour[0, t].numpy()
        elif length > 1:
            assert not found.neighbour[0, t].any()
    return dense


def test_the_solver_stands_alone():
    from implicitly.solvers import solve

    def function(v: Tensor) -> Tensor:
        return torch.cat((0 * v[:, :1], 0.5 * v[:, :-1]), dim=1)

    problem = Problem(lambda z: function(z) + 1, operator=function)
    result = solve(problem, CausalNewton(block=1), torch.zeros(1, 4, dtype=torch.float64))
    assert result.z.flatten().tolist() == [1.0, 1.5, 1.75, 1.875]
