"""The solver's own inverse Jacobian as the adjoint, against that matrix written out."""

from typing import Literal

import pytest
import torch
from implicitly import (
    Anderson,
    Broyden,
    DenseLU,
    Exact,
    ImplicitLayer,
    Newton,
    ReuseInverse,
    Stopping,
    fixed_point,
    root,
)
from implicitly.solvers import Problem, solve
from implicitly.solvers.driving.end_states import EndStates
from layers import draw
from oracle import tanh_map
from torch import Tensor

Kind = Literal["good", "bad"]
Form = Literal["fixed_point", "root"]
# Loose, so that the last moves are far above rounding: `H` is quotients of them.
LOOSE = Stopping(rtol=1e-5)


def inputs(systems=3, n=4) -> tuple[Tensor, Tensor]:
    W, x = draw(n, n), draw(systems, n, seed=1)
    x[0] = 0  # Solved at the start, the others later.
    return 0.7 * W / torch.linalg.matrix_norm(W, 2), x


def learnt(x: Tensor, W: Tensor, kind: Kind, form: Form) -> Tensor:
    """`H` of one system after its own last step, as a matrix, by a solve of that system alone."""
    solver, states = Broyden(kind=kind), EndStates()

    def function(z):
        value = tanh_map(z, W, x[None])
        return value if form == "fixed_point" else z - value

    def linearize(z):
        J = torch.diag(1 - tanh_map(z, W, x[None])[0] ** 2) @ W
        matrix = J if form == "fixed_point" else torch.eye(len(W)).double() - J

        class Dense:
            def jvp(self, v):
                return v @ matrix.mT

            def vjp(self, u):
                return u @ matrix

            def jacobian(self, like):
                return matrix.expand(len(like), -1, -1)

        return function(z), Dense()

    problem = Problem(function, form=form, linearize=linearize)
    solve(problem, solver, torch.zeros(1, len(x), dtype=torch.float64), LOOSE, ends=states)
    ((_, state),) = states.parts
    left, right = state.factors()
    t = 1.0 if state.first_length is None else state.first_length.item()
    return left[0].mT @ right[0] - t * torch.eye(len(x), dtype=torch.float64)


@pytest.mark.parametrize("form", ["fixed_point", "root"])
@pytest.mark.parametrize("kind", ["good", "bad"])
@pytest.mark.parametrize("dropped", [False, True])
def test_the_gradient_is_that_of_the_learnt_inverse_of_each_system_at_its_own_end(
    form, kind, dropped
):
    W, x = inputs()
    x.requires_grad_()
    function = tanh_map if form == "fixed_point" else lambda z, W, x: z - tanh_map(z, W, x)
    solution = (fixed_point if form == "fixed_point" else root)(
        function, torch.zeros_like(x), W, x, solver=Broyden(kind=kind), gradient=ReuseInverse(),
        batch_dims=1, batched_args=(False, True) if dropped else None, stopping=LOOSE,
    )  # fmt: skip
    assert len(set(solution.steps.tolist())) > 1
    g = draw(*x.shape, seed=2)
    (mine,) = torch.autograd.grad((solution.value * g).sum(), x)
    assert solution.adjoints == []
    for i in range(len(x)):
        H = learnt(x.detach()[i], W, kind, form)
        # The adjoint of a fixed point is u = −Hᵀg; of a root u = Hᵀg, and ∂F/∂x has the other sign.
        slope = 1 - tanh_map(solution.value.detach()[i], W, x.detach()[i]) ** 2
        torch.testing.assert_close(mine[i], -(H.mT @ g[i]) * slope, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", ["fixed_point", "root"])
@pytest.mark.parametrize("refresh", [1, 2, None])
@pytest.mark.parametrize("dropped", [False, True])
def test_the_gradient_is_that_of_newtons_last_jacobian_of_each_system(form, refresh, dropped):
    W, x = inputs()
    x = (2.0 * x).requires_grad_()
    function = tanh_map if form == "fixed_point" else lambda z, W, x: z - tanh_map(z, W, x)
    solution = (fixed_point if form == "fixed_point" else root)(
        function, torch.zeros_like(x), W, x, solver=Newton(None, refresh=refresh),
        gradient=ReuseInverse(), batch_dims=1, batched_args=(False, True) if dropped else None,
        stopping=LOOSE,
    )  # fmt: skip
    assert len(set(solution.steps.tolist())) > 1
    g = draw(*x.shape, seed=2)
    (mine,) = torch.autograd.grad((solution.value * g).sum(), x)
    assert solution.adjoints == []
    identity = torch.eye(x.shape[1]).double()
    for i, steps in enumerate(solution.steps.tolist()):
        # Chord and Shamanskii steps by hand, all of which lower the residual here.
        z, matrix = torch.zeros(x.shape[1]).double(), identity
        for step in range(steps):
            value = tanh_map(z, W, x.detach()[i])
            if step == 0 or (refresh is not None and step % refresh == 0):
                matrix = identity - (1 - value**2)[:, None] * W
            z = z + torch.linalg.solve(matrix, value - z)
        slope = 1 - tanh_map(solution.value.detach()[i], W, x.detach()[i]) ** 2
        expected = torch.linalg.solve(matrix.mT, g[i]) * slope
        # The condition of I − J is at most 1.7 / 0.3.
        torch.testing.assert_close(mine[i], expected, rtol=1e-12, atol=1e-13)


def test_newtons_gradient_is_off_by_as_much_as_the_last_step_was_long():
    W, x = inputs()
    x = (2.0 * x).requires_grad_()
    gradients = []
    for mode in (ReuseInverse(), Exact(DenseLU())):
        value = fixed_point(
            tanh_map, torch.zeros_like(x), W, x, solver=Newton(), gradient=mode, batch_dims=1,
            stopping=Stopping(rtol=1e-12),
        ).value  # fmt: skip
        gradients.append(torch.autograd.grad(value.square().sum(), x)[0])
    # Newton's steps square the error: before one to 1e-12 the iterate was within about 1e-6.
    error = (gradients[0] - gradients[1])[1:].norm() / gradients[1][1:].norm()
    assert 0 < error < 1e-5


@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_refined_to_tolerance_it_is_the_exact_gradient(form):
    W, x = inputs()
    x.requires_grad_()
    function = tanh_map if form == "fixed_point" else lambda z, W, x: z - tanh_map(z, W, x)
    errors = []
    for mode in (ReuseInverse(), ReuseInverse(refine=1), ReuseInverse(refine=4), Exact(DenseLU())):
        value = (fixed_point if form == "fixed_point" else root)(
            function, torch.zeros_like(x), W, x, solver=Broyden(), gradient=mode, batch_dims=1,
            stopping=Stopping(rtol=1e-13),
        ).value  # fmt: skip
        errors.append(torch.autograd.grad((value * draw(*x.shape, seed=2)).sum(), x)[0])
    errors = [float((error - errors[-1]).norm() / errors[-1].norm()) for error in errors]
    assert errors[0] > 1e-6
    assert errors[1] < errors[0]
    # Four steps of GMRES solve four unknowns; the condition of I − J is at most 1.7 / 0.3.
    assert errors[2] < 1e-9


def test_a_layer_has_it_and_broyden_is_the_default_solver():
    class Cell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)
            torch.nn.init.orthogonal_(self.linear.weight, gain=0.5)

        def forward(self, z, x):
            return torch.tanh(self.linear(z) + x)

    layer = ImplicitLayer(Cell(), gradient=ReuseInverse())
    assert isinstance(layer.settings.chosen_solver, Broyden)
    layer(torch.ones(2, 4)).sum().backward()
    assert bool(layer.f.linear.weight.grad.isfinite().all())


WEIGHT = inputs()[0]


def value_of(x: Tensor) -> Tensor:
    W = WEIGHT
    return fixed_point(
        tanh_map, torch.zeros_like(x), W, x, gradient=ReuseInverse(), batch_dims=1, stopping=LOOSE
    ).value


def test_transforms_work_or_say_what_to_use():
    _, x = inputs()
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value_of(leaf).sum(), leaf)
    grad = torch.func.grad(lambda x: value_of(x).sum())
    torch.testing.assert_close(grad(x), expected, rtol=1e-12, atol=1e-12)
    many = torch.stack((x, x.flip(0)))
    torch.testing.assert_close(torch.vmap(grad)(many)[0], expected, rtol=1e-9, atol=1e-10)
    with pytest.raises(
        TypeError, match=r"systems that were solved, of batch shape \(3,\).*need Exact"
    ):
        torch.func.jacrev(value_of)(x)


def test_second_derivatives_are_an_error_that_says_what_to_use():
    _, x = inputs()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(value_of(x).sum(), x, create_graph=True)
    with pytest.raises(TypeError, match=r"first derivatives only.*Exact\(\)"):
        gradient.sum().backward()


def test_forward_mode_uses_the_inverse_itself():
    _, x = inputs()
    v, g = draw(*x.shape, seed=4), draw(*x.shape, seed=5)
    _, forward = torch.func.jvp(value_of, (x,), (v,))
    leaf = x.clone().requires_grad_()
    (backward,) = torch.autograd.grad((value_of(leaf) * g).sum(), leaf)
    torch.testing.assert_close((forward * g).sum(), (backward * v).sum(), rtol=1e-11, atol=1e-12)


def test_solvers_that_learn_no_inverse_and_wrong_options_are_errors():
    with pytest.raises(TypeError, match=r"Anderson learns none: use Broyden\(\)"):
        fixed_point(torch.cos, torch.zeros(1), solver=Anderson(), gradient=ReuseInverse())
    with pytest.raises(ValueError, match="refine must be an integer ≥ 1 or None, got 0"):
        ReuseInverse(refine=0)
    with pytest.raises(ValueError, match="refines nothing"):
        ReuseInverse(solver=DenseLU())
