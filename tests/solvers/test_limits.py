"""Limits on the work of a solve: steps, evaluations, products, time."""

import time

import implicitly as im
import pytest
import torch

F64 = torch.float64
SOLVERS = [
    None, im.Newton(), im.NewtonKrylov(), im.Broyden(), im.DFSANE(), im.Homotopy(),
    im.ScipyRoot("hybr"), im.FixedPointIteration(),
]  # fmt: skip


def slow_without_root(z):
    time.sleep(0.01)
    return z * z + 1


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_a_solve_ends_when_its_time_is_over(solver):
    stopping = im.Stopping(max_seconds=0.2, divergence=1e300)
    began = time.perf_counter()
    solution = im.root(
        slow_without_root, torch.full((1,), 0.3, dtype=F64), solver=solver, stopping=stopping,
        on_failure="accept",
    )  # fmt: skip
    assert not bool(solution.converged)
    # One step more than the limit, on a machine that may be busy.
    assert time.perf_counter() - began < 5


def test_time_is_no_matter_where_there_is_enough():
    stopping = im.Stopping(max_seconds=100.0)
    assert bool(im.root(lambda z: z * z - 2, torch.ones(1), stopping=stopping).converged)
    over = im.Stopping(max_seconds=0.0)
    solution = im.root(lambda z: z * z - 2, torch.ones(1), stopping=over, on_failure="accept")
    assert im.Status(int(solution.status)) == im.Status.MAX_STEPS


@pytest.mark.parametrize(
    "solver", [None, im.Newton(), im.NewtonKrylov(), im.LevenbergMarquardt(), im.Homotopy()],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
def test_products_are_limited(solver):
    n, limit = 3, 40
    solution = im.root(
        lambda z: z * z + 1, torch.full((n,), 0.3, dtype=F64), solver=solver,
        stopping=im.Stopping(max_products=limit), on_failure="accept",
    )  # fmt: skip
    assert not bool(solution.converged)
    # A step of any of them takes at most two Jacobians, or a Krylov space, and one at its end.
    assert limit <= solution.counts.products <= limit + 8 * n


@pytest.mark.parametrize("value", [-1, float("nan"), "soon", True])
def test_a_limit_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="max_seconds must be a number"):
        im.Stopping(max_seconds=value)
    with pytest.raises(ValueError, match="max_products must be an integer"):
        im.Stopping(max_products=value if value is not True else 1.5)
