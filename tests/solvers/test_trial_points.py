"""Points at which a function raises, or has a value and no finite derivative."""

import math
import signal

import implicitly as im
import pytest
import torch
from torch import Tensor

F64 = torch.float64
SOLVERS = [
    None, im.Newton(), im.LevenbergMarquardt(), im.NewtonKrylov(), im.Broyden(), im.Homotopy(),
]  # fmt: skip
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


class OutOfTableError(Exception):
    """As a property library raises it."""


def table(z: Tensor, c: Tensor) -> Tensor:
    if bool((z <= 0).any()):
        raise OutOfTableError("pressure below the table")
    return torch.log(z) + 0.1 * z - torch.log(c) - 0.1 * c


@every_solver
@pytest.mark.parametrize("separable", [None, (True,)])
def test_a_function_that_raises_at_a_trial_point_is_solved_like_one_with_nan(solver, separable):
    c = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=F64)
    z0 = torch.tensor([20.0, 1.0, 1.0, 1.0], dtype=F64)
    solution = im.root(
        table, z0, c, batch_dims=1, batched_args=separable, solver=solver, on_failure="accept"
    )

    def with_nan(z, c):
        return torch.log(z) + 0.1 * z - torch.log(c) - 0.1 * c

    same = im.root(
        with_nan, z0, c, batch_dims=1, batched_args=separable, solver=solver, on_failure="accept"
    )
    assert torch.equal(solution.status, same.status)
    solved = solution.converged
    assert bool(solved[1:].all())
    torch.testing.assert_close(solution.value[solved], c[solved], rtol=1e-8, atol=0)


def test_derivatives_of_a_function_that_raises_elsewhere():
    c = torch.tensor([1.0, 2.0], dtype=F64, requires_grad=True)
    z = im.root(table, torch.tensor([20.0, 1.0], dtype=F64), c, batch_dims=1).value
    (slope,) = torch.autograd.grad(z.sum(), c)
    torch.testing.assert_close(slope, torch.ones(2, dtype=F64), rtol=1e-8, atol=0)


def test_the_exception_is_the_reason_of_a_system_that_is_not_solved():
    def never_below_one(z):
        if bool((z < 1).any()):
            raise ValueError("no liquid below 1 bar")
        return z - 0.5

    with pytest.raises(im.SolveError, match="the function raised ValueError: no liquid below 1"):
        im.root(never_below_one, torch.tensor([2.0], dtype=F64))


def test_an_exception_at_the_start_is_the_callers():
    with pytest.raises(OutOfTableError, match="pressure"):
        im.root(table, -torch.ones(1, dtype=F64), torch.ones(1, dtype=F64))


@pytest.mark.parametrize("error", [TypeError, AssertionError, KeyboardInterrupt])
def test_errors_of_the_program_pass_at_once(error):
    calls = []

    def broken(z):
        calls.append(1)
        if len(calls) > 1:
            raise error("not of a point")
        return z**2 - 2

    with pytest.raises(error, match="not of a point"):
        im.root(broken, torch.ones(1, dtype=F64))
    assert len(calls) == 2


def test_a_function_of_python_numbers_without_a_derivative():
    def logarithm(z):
        return torch.tensor([math.log(float(z.detach()[0])) - 1.0], dtype=F64)

    for solver in (im.Broyden(), im.DFSANE()):
        z = im.root(logarithm, torch.tensor([30.0], dtype=F64), solver=solver).value
        assert z.item() == pytest.approx(math.e, rel=1e-9)


def friction(z: Tensor) -> Tensor:
    # By automatic differentiation the derivative of |z|^0.5 at zero is 0 · ∞.
    return z * z.abs() ** 0.5 - torch.tensor([8.0, 27.0], dtype=F64)


def test_a_start_without_a_finite_derivative_is_left():
    solution = im.root(friction, torch.zeros(2, dtype=F64))
    want = torch.tensor([4.0, 9.0], dtype=F64)
    torch.testing.assert_close(solution.value, want, rtol=1e-9, atol=0)


def test_a_derivative_that_is_not_finite_at_the_start_is_named():
    def hopeless(z):
        return (z * z).sqrt() + 1

    with pytest.raises(im.SolveError, match="the Jacobian at the start is not finite"):
        im.root(hopeless, torch.zeros(1, dtype=F64))


class EndedError(Exception):
    """As a handler of a signal raises it."""


@every_solver
def test_the_exception_of_a_signal_handler_ends_the_solve(solver):
    calls = []

    def ended(number, frame):
        raise EndedError

    def interrupted(z):
        calls.append(z)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGUSR1)
        return z**3 - 2

    before = signal.signal(signal.SIGUSR1, ended)
    try:
        with pytest.raises(EndedError):
            im.root(interrupted, torch.ones(2, dtype=F64), solver=solver)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(calls) == 3


def test_a_function_that_runs_out_of_time_ends_the_solve():
    calls = []

    def late(z):
        calls.append(z)
        if len(calls) > 5:
            raise TimeoutError("no answer")
        return z**3 - 2

    with pytest.raises(TimeoutError):
        im.root(late, torch.ones(2, dtype=F64), solver=im.Broyden(), on_failure="accept")


def test_a_domain_error_says_that_it_is_meant():
    def log(z):
        if bool((z <= 0).any()):
            raise im.DomainError("not positive")
        return torch.log(z) + 0.1 * z

    solution = im.root(log, torch.tensor([20.0, 1.0], dtype=F64), batch_dims=1)
    torch.testing.assert_close(solution.value.log(), -0.1 * solution.value)
    with pytest.raises(im.DomainError, match="not positive"):
        im.root(log, torch.tensor([-1.0], dtype=F64))


def test_an_equation_inside_that_is_not_solved_refuses_the_point():
    def outer(z, x):
        start = torch.ones_like(z)
        inner = im.root(lambda y, z: y**2 - z, start, z, batch_dims=1, solver=im.Newton())
        return inner.value + z + x

    # √z + z = 1 or 2; Newton's first step from 20 is to negative z, where y² = z has no root.
    x = torch.tensor([-1.0, -2.0], dtype=F64, requires_grad=True)
    z = im.root(outer, torch.full((2,), 20.0, dtype=F64), x, batch_dims=1).value
    root = (torch.tensor([5.0, 9.0], dtype=F64).sqrt() - 1) / 2
    torch.testing.assert_close(z, root**2, rtol=1e-8, atol=0)
    (slope,) = torch.autograd.grad(z.sum(), x)
    torch.testing.assert_close(slope, -1 / (1 + 0.5 / root), rtol=1e-8, atol=0)


@pytest.mark.parametrize(
    "broken",
    [lambda z: z + torch.ones(3), lambda z: z @ torch.ones(2, 5).double(), lambda z: z.reshape(7)],
)
def test_shapes_that_do_not_fit_end_the_call(broken):
    calls = []

    def later(z):
        calls.append(1)
        return broken(z) if len(calls) == 3 else z**2 - 2

    with pytest.raises(RuntimeError) as raised:
        im.root(later, torch.ones(4, dtype=F64), solver=im.Broyden())
    assert not isinstance(raised.value, im.SolveError)


@every_solver
def test_a_derivative_that_is_not_finite_where_the_value_is_is_named(solver):
    def root_of_one_side(z):  # The derivative of the branch that is not taken is NaN.
        return torch.where(z > 0, torch.sqrt(z), 0 * z) + z + 1

    with pytest.raises(
        im.SolveError, match="the value is finite and its derivative in the unknown is"
    ):
        im.root(root_of_one_side, torch.tensor([-0.5], dtype=F64), solver=solver)


def test_the_same_in_a_gradient():
    def f(z, x):
        return 0.5 * torch.where(z > 0, torch.sqrt(z), 0 * z) + x

    x = torch.tensor([-1.0], dtype=F64, requires_grad=True)
    z = im.fixed_point(f, torch.zeros_like(x), x).value
    with pytest.raises(
        im.SolveError, match=r"the adjoint of .*(\n.*)*its derivative in the unknown is"
    ):
        z.sum().backward()
