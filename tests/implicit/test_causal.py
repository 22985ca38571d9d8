"""Causal equations: time steps with coefficients of their own, which wait for those before them."""

from dataclasses import replace

import implicitly
import pytest
import torch
from implicitly import (
    GMRES,
    Anderson,
    Broyden,
    CausalNewton,
    Exact,
    FixedPointIteration,
    PrefixAnderson,
    ReuseInverse,
    Stopping,
    Unrolled,
)
from implicitly.implicit.equations.derived import AdjointEquation, TangentEquation
from implicitly.implicit.equations.equation import GivenEquation
from oracle import implicit_gradient
from torch import Tensor

SOLVERS = [FixedPointIteration(), Anderson(), Broyden(line_search=False), PrefixAnderson()]
BATCH, TIME, WIDTH = 3, 7, 4


def slow_past(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    """Early time steps contract slowly, late ones fast, and each sees the mean of those before it."""
    rates = torch.linspace(0.9, 0.1, z.shape[1], dtype=z.dtype).unsqueeze(1)
    before = torch.cat((torch.zeros_like(z[:, :1]), z[:, :-1]), dim=1)
    count = torch.arange(1, z.shape[1] + 1, dtype=z.dtype).unsqueeze(1)
    return torch.tanh(rates * (z @ W.mT) + before.cumsum(1) / count + x)


def example() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    W = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)).Q
    x = torch.randn(BATCH, TIME, WIDTH, generator=generator, dtype=torch.float64)
    return torch.zeros_like(x), W.contiguous(), x


def rms(r: Tensor) -> Tensor:
    return r.square().mean(-1).sqrt()


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_the_residual_is_that_of_the_value_although_time_steps_are_coupled(solver):
    z0, W, x = example()
    stopping = Stopping(rtol=1e-4)
    solution = implicitly.fixed_point(
        slow_past, z0, W, x, solver=solver, stopping=stopping, batch_dims=2, causal=True
    )
    residual = rms(slow_past(solution.value, W, x) - solution.value)
    # The same sums in another order: rounding of values below one.
    torch.testing.assert_close(residual, solution.residual_norm, rtol=0, atol=1e-14)
    assert bool((residual <= 1e-4 * rms(solution.value) + 1e-14).all())
    assert bool((solution.steps.diff(dim=1) >= 0).all())


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("limit", [0, 1, 2, 5, 30, 300])
def test_the_future_changes_nothing_of_the_past_at_any_iteration(solver, limit):
    z0, W, x = example()
    changed = x.clone()
    changed[:, 4:] = 3 * changed[:, 4:].flip(-1) + 1
    stopping = Stopping(rtol=1e-6, max_steps=limit)
    first, second = (
        implicitly.fixed_point(
            slow_past, z0, W, inputs, solver=solver, stopping=stopping, batch_dims=2, causal=True,
            on_failure="accept",
        )
        for inputs in (x, changed)
    )  # fmt: skip
    assert torch.equal(first.value[:, :4], second.value[:, :4])
    assert torch.equal(first.status[:, :4], second.status[:, :4])
    assert torch.equal(first.steps[:, :4], second.steps[:, :4])
    assert limit == 0 or not torch.equal(first.value[:, 4:], second.value[:, 4:])


@pytest.mark.parametrize("adjoint", [None, GMRES(), Anderson(), CausalNewton(block=WIDTH)])
def test_the_adjoint_takes_each_sequence_as_one_system(adjoint):
    z0, W, x = example()
    function = slow_past
    if isinstance(adjoint, CausalNewton):  # Of one step back only.

        def function(z, W, x):
            before = torch.cat((torch.zeros_like(z[:, :1]), z[:, :-1]), dim=1)
            return torch.tanh(0.5 * z @ W.mT + 0.4 * before + x)

    x.requires_grad_()
    solution = implicitly.fixed_point(
        function, z0, W, x, stopping=Stopping(rtol=1e-12), batch_dims=2, causal=True,
        gradient=Exact(solver=adjoint, stopping=Stopping(rtol=1e-12)),
    )  # fmt: skip
    weight = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    (solution.value * weight).sum().backward()
    assert solution.adjoints[0].status.shape == (BATCH,)
    reference = implicit_gradient(
        lambda z, x: function(z, W, x), solution.value, x, cotangent=weight
    )
    # Tolerance 1e-12, times the condition of I − J (below 1e2) and sizes of order one.
    torch.testing.assert_close(x.grad, reference, rtol=0, atol=1e-9)


def test_derivatives_of_second_order_and_under_vmap():
    _, W, x = example()

    def loss(x: Tensor) -> Tensor:
        solution = implicitly.fixed_point(
            slow_past, torch.zeros_like(x), W, x, stopping=Stopping(rtol=1e-13), batch_dims=2,
            causal=True, gradient=Exact(stopping=Stopping(rtol=1e-13)),
        )  # fmt: skip
        return solution.value.square().sum()

    small = x[:1, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, small)
    assert torch.autograd.gradgradcheck(loss, small)
    one_by_one = torch.stack([torch.func.grad(loss)(row.unsqueeze(0)) for row in x])
    mapped = torch.vmap(torch.func.grad(loss))(x.unsqueeze(1))
    torch.testing.assert_close(mapped, one_by_one, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("solver", "gradient"),
    [(FixedPointIteration(), Unrolled()), (Broyden(line_search=False), ReuseInverse(refine=40))],
)
def test_other_gradient_modes_agree_once_converged(solver, gradient):
    found = []
    for mode in (gradient, Exact(stopping=Stopping(rtol=1e-12))):
        z0, W, x = example()
        x.requires_grad_()
        implicitly.fixed_point(
            slow_past, z0, W, x, solver=solver, stopping=Stopping(rtol=1e-11), batch_dims=2,
            causal=True, gradient=mode,
        ).value.square().sum().backward()  # fmt: skip
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-7)


def test_what_does_not_fit_is_refused():
    z0, W, x = example()
    cases = [
        ({"batch_dims": 0}, ValueError, "needs time steps that are systems"),
        ({"batch_dims": 2, "solver": CausalNewton(block=4)}, TypeError, "runs whole"),
        ({"batch_dims": 1, "batched_args": (False, False)}, ValueError, "leave batched_args out"),
        ({"batch_dims": 2, "linear": True}, ValueError, "one system"),
    ]
    for options, kind, message in cases:
        with pytest.raises(kind, match=message):
            implicitly.fixed_point(slow_past, z0, W, x, causal=True, **options)
    with pytest.raises(TypeError, match="causal must be True or False"):
        implicitly.fixed_point(slow_past, z0, W, x, causal=2)


def test_each_adjoint_turns_the_direction_of_time_and_no_tangent_does():
    given = GivenEquation(lambda args: lambda z: z, "fixed_point", batch_dims=2, causal=True)
    adjoint = AdjointEquation(given, 1)
    assert given.direction == "forward"
    assert TangentEquation(given, 1).direction == "forward"
    assert adjoint.direction == "backward"
    assert TangentEquation(adjoint, 1).direction == "backward"
    assert AdjointEquation(adjoint, 1).direction == "forward"
    assert AdjointEquation(replace(given, causal=False), 1).direction is None


def step_by_step(W: Tensor, U: Tensor, x: Tensor) -> Tensor:
    """The solution of `expanding` in float64, by Newton's method on one time step after another."""
    W, U, before, found = W.double(), U.double(), torch.zeros(W.shape[0]).double(), []
    for entry in x.double():
        z = before
        for _ in range(60):
            value = torch.tanh(W @ z + U @ before + entry)
            matrix = torch.eye(len(z)) - (1 - value**2).unsqueeze(1) * W
            z = z - torch.linalg.solve(matrix, z - value)
        found.append(z)
        before = z
    return torch.stack(found)


def expanding(z: Tensor, W: Tensor, U: Tensor, x: Tensor) -> Tensor:
    """A recurrence in which errors of early time steps grow, for `U` large enough."""
    before = torch.cat((torch.zeros_like(z[:1]), z[:-1]))
    return torch.tanh(z @ W.mT + before @ U.mT + x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "solver", [FixedPointIteration(), Anderson(), PrefixAnderson()], ids=lambda s: type(s).__name__
)
def test_the_error_of_a_time_step_has_what_it_inherits(solver, dtype):
    generator = torch.Generator().manual_seed(0)
    W = 0.5 * torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    U = 2.5 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    x = 0.1 * torch.randn(64, 6, generator=generator, dtype=torch.float64)
    W, U, x = (tensor.to(dtype) for tensor in (W, U, x))
    solution = implicitly.fixed_point(
        expanding, torch.zeros_like(x), W, U, x,
        solver=solver, batch_dims=1, causal=True, on_failure="accept",
    )  # fmt: skip
    assert solution.converged.any()
    exact = step_by_step(W, U, x)
    error = (solution.value - exact).norm(dim=1) / exact.norm(dim=1)
    known = ~solution.error.isnan()
    # Where GMRES's tenth of the longest error is not that of a short one.
    assert (error <= 10 * solution.error)[known].double().mean() >= 0.95
    assert error.max() <= 10 * solution.error[known].max()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_a_later_time_step_changes_no_earlier_value_whatever_its_error_is(tolerance):
    generator = torch.Generator().manual_seed(1)
    W = 0.5 * torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64)).Q
    U = 2.5 * torch.randn(6, 6, generator=generator, dtype=torch.float64)
    x = 0.1 * torch.randn(24, 6, generator=generator, dtype=torch.float64)
    other = torch.cat((x[:12], 30 * x[12:]))

    def solve(x: Tensor) -> Tensor:
        return implicitly.fixed_point(
            expanding, torch.zeros_like(x), W, U, x, solver=PrefixAnderson(), batch_dims=1,
            causal=True, stopping=Stopping(rtol=tolerance), on_failure="accept",
        ).value  # fmt: skip

    assert torch.equal(solve(x)[:12], solve(other)[:12])
