"""What a tolerance promises: `rtol` the error of every unknown, `atol_residual` every residual."""

import implicitly as im
import pytest
import torch

F64 = torch.float64
SOLVERS = [None, im.Newton(), im.Broyden(), im.ScipyRoot("hybr")]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def flat_beside_steep(z):
    """One equation of the usual size, one so flat near its root that its residual says little."""
    x, y = z.unbind(-1)
    return torch.stack((x**2 - 2, 1e-3 * (y - 1) ** 3 + 1e-9 * (y - 1)), dim=-1)


START = torch.tensor([3.0, 4.0], dtype=F64)


@every_solver
@pytest.mark.parametrize("limits", [1e-6, (1e-6, 1e-12), (1e-2, 1e-15)])
def test_every_equation_meets_its_limit(solver, limits):
    stopping = im.Stopping(atol_residual=limits)
    solution = im.root(flat_beside_steep, START, solver=solver, stopping=stopping)
    assert (flat_beside_steep(solution.value).abs() <= torch.tensor(limits, dtype=F64)).all()


@every_solver
def test_limit_and_error_are_both_kept_where_both_are_given(solver):
    # At its limit alone the second unknown has an error of (1e-9 / 1e-3)^(1/3) = 1e-2.
    loose = im.Stopping(atol_residual=1e-9, max_steps=2000)
    both = im.Stopping(atol_residual=1e-9, rtol=1e-6, max_steps=2000)
    solution = im.root(flat_beside_steep, START, solver=solver, stopping=both)
    assert abs(solution.value[1].item() - 1) <= 2e-6
    assert (flat_beside_steep(solution.value).abs() <= 1e-9).all()
    alone = im.root(flat_beside_steep, START, solver=solver, stopping=loose)
    assert alone.evaluations <= solution.evaluations


def test_limits_alone_ask_for_no_error_but_state_it():
    stopping = im.Stopping(atol_residual=1e-6)
    solution = im.root(flat_beside_steep, START, solver=im.Newton(), stopping=stopping)
    error = abs(solution.value[1].item() - 1)
    assert error > 1e-3
    # Of a root of multiplicity three Newton's step is a third of the error.
    assert error / 4 <= solution.error.item() <= error


@pytest.mark.parametrize("solver", [im.Newton(), im.DFSANE(), im.ScipyRoot("hybr")])
def test_a_limit_that_no_point_meets_is_named(solver):
    def without_root(z):
        x, y = z.unbind(-1)
        return torch.stack((x**2 + 1, y - 1), dim=-1)

    with pytest.raises(im.SolveError) as raised:
        im.root(without_root, START, solver=solver, stopping=im.Stopping(atol_residual=(0.9, 1e-3)))
    assert not raised.value.solution.converged
    # Where the norm passes and one equation does not, it is named.
    stopping = im.Stopping(atol_residual=(0.9, 10.0))
    with pytest.raises(im.SolveError, match="residual of equation 0 is 1, above its atol_residual"):
        im.root(without_root, START, solver=solver, stopping=stopping)


def test_limits_are_kept_in_every_unit():
    for unit in (1e-250, 1.0, 1e200):
        solution = im.root(
            lambda z, unit=unit: unit * flat_beside_steep(z), START,
            stopping=im.Stopping(atol_residual=(unit * 1e-6, unit * 1e-12)),
        )  # fmt: skip
        assert flat_beside_steep(solution.value)[1].abs() <= 1e-12


def test_limits_of_linear_equations_and_of_each_system_of_a_batch():
    A = torch.tensor([[2.0, 1.0], [0.0, 1e-6]], dtype=F64)
    stopping = im.Stopping(atol_residual=(1.0, 1e-13))
    solution = im.root(
        lambda z: z @ A.mT - 1, torch.zeros(2, dtype=F64), linear=True, stopping=stopping
    )
    assert (A @ solution.value - 1)[1].abs() <= 1e-13

    z0 = torch.full((2, 1), 3.0, dtype=F64)
    apart = im.root(
        lambda z: z**2 - 2, z0, batch_dims=1, solver=im.Newton(),
        stopping=im.Stopping(atol_residual=[[1e-2], [1e-10]]),
    )  # fmt: skip
    assert apart.steps[0] < apart.steps[1]


@pytest.mark.parametrize("rtol", [1e-3, 1e-6, 1e-9])
@pytest.mark.parametrize("rate", [0.5, 0.99])
def test_rtol_bounds_the_error_of_a_slow_fixed_point(rate, rtol):
    solution = im.fixed_point(
        lambda z: rate * z + 1, torch.zeros(1, dtype=F64), solver=im.FixedPointIteration(),
        stopping=im.Stopping(rtol=rtol, max_steps=10_000),
    )  # fmt: skip
    assert abs(solution.value.item() * (1 - rate) - 1) <= 1.01 * rtol


def test_a_tolerance_on_the_residual_alone_asks_for_no_error():
    def slow(z):
        return 0.99 * z + 1

    start, solver = torch.zeros(1, dtype=F64), im.FixedPointIteration()
    by_residual = im.Stopping(rtol_residual=1e-3, max_steps=10_000)
    solution = im.fixed_point(slow, start, solver=solver, stopping=by_residual)
    residual = (slow(solution.value) - solution.value).abs() / solution.value.abs()
    assert residual <= 1e-3
    # The residual is 0.01 of the error, which is stated.
    error = abs(solution.value.item() / 100 - 1)
    assert error > 0.05
    assert solution.error.item() == pytest.approx(error, rel=0.2)
    both = im.Stopping(rtol=1e-2, rtol_residual=1e-3, max_steps=10_000)
    closer = im.fixed_point(slow, start, solver=solver, stopping=both).value.item()
    assert abs(closer / 100 - 1) <= 1.01e-2


def test_no_error_below_the_rounding_level_is_asked_for():
    # 1e-12 is less than half a unit of rounding.
    z0 = torch.zeros(4)
    solution = im.fixed_point(
        lambda z: torch.cos(z),
        z0,
        batch_dims=1,
        stopping=im.Stopping(rtol=1e-12, rtol_residual=1e-6),
    )
    assert solution.converged.all()


def test_limits_are_values():
    given = im.Stopping(atol_residual=torch.tensor([1e-3, 1.0], dtype=F64))
    assert given == im.Stopping(atol_residual=(1e-3, 1.0))
    assert hash(given) == hash(im.Stopping(atol_residual=[1e-3, 1.0]))


@pytest.mark.parametrize("wrong", [-1.0, "1e-6", (1.0, float("nan")), (), float("inf")])
def test_wrong_limits_are_named(wrong):
    with pytest.raises(ValueError, match="atol_residual must be"):
        im.Stopping(atol_residual=wrong)


def test_as_many_limits_as_equations():
    with pytest.raises(ValueError, match="one for each of the 2 equations"):
        im.root(flat_beside_steep, START, stopping=im.Stopping(atol_residual=(1.0, 1.0, 1.0)))
