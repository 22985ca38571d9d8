"""Derivatives of every order and in every mode, by every pair of solvers."""

import itertools

import pytest
import torch
from implicitly import (
    GMRES,
    LSMR,
    Anderson,
    BiCGStab,
    Broyden,
    DenseLU,
    Exact,
    FixedPointIteration,
    NeumannSeries,
    Newton,
    NewtonKrylov,
    Solver,
    SparseLU,
    Stopping,
    fixed_point,
    root,
)
from oracle import differentiable_root, newton, relative, tanh_map
from pairs import in_pairs, name
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

FORWARD = [
    FixedPointIteration(),
    Anderson(),
    Anderson(kind="I"),
    Broyden(),
    Broyden(kind="bad"),
    NewtonKrylov(),
    NewtonKrylov(linear_solver=BiCGStab()),
    Newton(),
]
LINEAR = [GMRES(), BiCGStab(), LSMR(), NeumannSeries(), DenseLU(), SparseLU()]
ADJOINT = [*LINEAR, *FORWARD]

# Tighter than the defaults, so that finite differences see the solution and not the iteration:
# gradcheck divides the error of z, at most rtol·‖z‖/(1 − 0.6), by its step of 1e-6, and allows 1e-5.
TIGHT = Stopping(rtol=1e-13, max_steps=1000)


def matrix(n: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, n, generator=generator, dtype=torch.float64)
    return 0.6 * w / torch.linalg.matrix_norm(w, 2)


def inputs(batch: int = 2, n: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, n, generator=generator, dtype=torch.float64)


def tanh_residual(z: Tensor, w: Tensor, x: Tensor) -> Tensor:
    return z - tanh_map(z, w, x)


def solve(form: str, forward: Solver, adjoint: Solver, w: Tensor, x: Tensor) -> Tensor:
    gradient = Exact(adjoint, Stopping(rtol=1e-12, max_steps=1000))
    function, z0 = (fixed_point, root)[form == "root"], torch.zeros_like(x)
    equation = tanh_map if form == "fixed_point" else tanh_residual
    return function(
        equation, z0, w, x, solver=forward, stopping=TIGHT, gradient=gradient, batch_dims=1
    ).value


def reference(w: Tensor, x: Tensor) -> Tensor:
    rows = []
    for row in x:
        start = newton(tanh_residual, torch.zeros_like(row), w, row)
        rows.append(differentiable_root(tanh_residual, start, w, row))
    return torch.stack(rows)


# Solutions have an error of about 1e-13, derivatives of order k one of that times (1 − 0.6)^−k.
DENSE_TOLERANCE = 1e-10

every_pair = in_pairs(
    forward={name(solver): solver for solver in FORWARD},
    adjoint={name(solver): solver for solver in ADJOINT},
    form=("fixed_point", "root"),
)
# Each solver in each of its parts; the test after the next has every pair of them.
every_part = pytest.mark.parametrize(
    ("forward", "adjoint"),
    [
        pytest.param(forward, adjoint, id=f"{name(forward)}-{name(adjoint)}")
        for forward, adjoint in zip(itertools.cycle(FORWARD), ADJOINT, strict=False)
    ],
)


@every_pair
def test_gradients_agree_with_a_dense_reference_for_every_pair_of_solvers(forward, adjoint, form):
    w, x = matrix(2).requires_grad_(), inputs(2, 2).requires_grad_()
    found = torch.autograd.grad(solve(form, forward, adjoint, w, x).square().sum(), (w, x))
    expected = torch.autograd.grad(reference(w, x).square().sum(), (w, x))
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < DENSE_TOLERANCE


@every_part
@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_gradcheck_and_gradgradcheck_pass_along_a_line_for_every_solver(forward, adjoint, form):
    # One number as a function of two, along random lines and with random weights: a wrong entry of a
    # derivative shows here too. A stronger contraction takes fewer steps.
    w, x, w_along, x_along = 0.3 * matrix(2), inputs(2, 2), matrix(2, seed=2), inputs(2, 2, seed=3)
    weights = inputs(2, 2, seed=4)

    def value(s: Tensor, t: Tensor) -> Tensor:
        return (weights * solve(form, forward, adjoint, w + s * w_along, x + t * x_along)).sum()

    at = tuple(torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    # What undefined tangents and cotangents give is no matter of the solver: see the next test.
    assert gradcheck(value, at, check_forward_ad=True, check_undefined_grad=False)
    assert gradgradcheck(value, at, check_fwd_over_rev=True, check_undefined_grad=False)


# By default one pair; the long run has every one.
ONE_PAIR = "AndersonII-GMRES"
EVERY_PAIR = [
    pytest.param(
        f,
        a,
        id=f"{name(f)}-{name(a)}",
        marks=() if f"{name(f)}-{name(a)}" == ONE_PAIR else pytest.mark.long,
    )
    for f, a in itertools.product(FORWARD, ADJOINT)
]


@pytest.mark.parametrize("form", ["fixed_point", "root"])
@pytest.mark.parametrize(("forward", "adjoint"), EVERY_PAIR)
def test_gradcheck_and_gradgradcheck_pass_for_every_pair_of_solvers(form, forward, adjoint):
    w, x = matrix(2).requires_grad_(), inputs(2, 2).requires_grad_()

    def value(w: Tensor, x: Tensor) -> Tensor:
        return solve(form, forward, adjoint, w, x)

    assert gradcheck(value, (w, x), check_forward_ad=True)
    assert gradgradcheck(value, (w, x), check_fwd_over_rev=True)


@pytest.mark.parametrize("adjoint", LINEAR, ids=name)
def test_third_derivatives_agree_with_a_dense_reference(adjoint):
    w, x = matrix(), inputs()
    direction = inputs(seed=5)

    def along(function, order):
        # d^order/dt^order of a weighted sum of the solution at x + t·direction, by reverse mode.
        t = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = (function(w, x + t * direction) * inputs(seed=7)).sum()
        for _ in range(order):
            (value,) = torch.autograd.grad(value, t, create_graph=True)
        return value.detach()

    for order in (1, 2, 3):
        mine = along(lambda w, x: solve("fixed_point", Newton(), adjoint, w, x), order)
        assert relative(mine, along(reference, order)) < DENSE_TOLERANCE


@pytest.mark.parametrize("form", ["fixed_point", "root"])
@pytest.mark.parametrize("argument", [0, 1], ids=["weight", "input"])
def test_jacobians_in_both_modes_agree_with_a_dense_reference(form, argument):
    def value(w, x):
        return solve(form, Anderson(), GMRES(), w, x)

    primals = (matrix(), inputs())
    expected = torch.func.jacrev(reference, argument)(*primals)
    backward = torch.func.jacrev(value, argument)(*primals)
    forward = torch.func.jacfwd(value, argument)(*primals)
    assert relative(backward, expected) < DENSE_TOLERANCE
    assert relative(forward, expected) < DENSE_TOLERANCE


def test_hessians_agree_with_a_dense_reference():
    weights = inputs(seed=9)

    def scalar(function):
        return lambda w, x: (function(w, x).sin() * weights).sum()

    primals = (matrix(), inputs())
    for argument in (0, 1):
        mine = torch.func.hessian(
            scalar(lambda w, x: solve("fixed_point", Newton(), GMRES(), w, x)), argument
        )(*primals)
        expected = torch.func.hessian(scalar(reference), argument)(*primals)
        assert relative(mine, expected) < DENSE_TOLERANCE


def test_reverse_over_forward_and_reverse_over_reverse_agree_with_a_dense_reference():
    w, x = matrix(), inputs()

    def scalar(x):
        return solve("root", Newton(), GMRES(), w, x).square().sum()

    expected = torch.func.hessian(lambda x: reference(w, x).square().sum())(x)
    by_reverse = torch.func.jacrev(torch.func.jacrev(scalar))(x)
    over_forward = torch.func.jacrev(torch.func.jacfwd(scalar))(x)
    forward_twice = torch.func.jacfwd(torch.func.jacfwd(scalar))(x)
    for found in (by_reverse, over_forward, forward_twice):
        assert relative(found, expected) < DENSE_TOLERANCE


def test_gradients_under_vmap_agree_with_a_dense_reference():
    w, x = matrix(), inputs(4)

    def loss(x):
        z = fixed_point(tanh_map, torch.zeros_like(x), w, x, stopping=TIGHT).value
        return z.square().sum()

    mine = torch.func.vmap(torch.func.grad(loss))(x)
    expected = torch.func.jacrev(lambda x: reference(w, x).square().sum())(x)
    assert relative(mine, expected) < DENSE_TOLERANCE


def test_vmap_over_weights_and_nested_vmap_agree_with_a_dense_reference():
    x = inputs(2)
    weights = torch.stack([matrix(seed=seed) for seed in range(3)])

    def gradient(w, x):
        def loss(w):
            z = root(tanh_residual, torch.zeros_like(x), w, x, stopping=TIGHT).value
            return z.square().sum()

        return torch.func.grad(loss)(w)

    mine = torch.func.vmap(torch.func.vmap(gradient, (None, 0)), (0, None))(weights, x)
    for i, w in enumerate(weights):
        for j, row in enumerate(x):
            expected = torch.func.grad(lambda w: reference(w, row[None]).square().sum())(w)  # noqa: B023
            assert relative(mine[i, j], expected) < DENSE_TOLERANCE


@pytest.mark.parametrize("in_dim", [0, 1, 2])
def test_vmap_finds_the_mapped_axis_wherever_it_is(in_dim):
    w, x = matrix(), inputs(6).reshape(2, 3, 3).movedim(0, in_dim)
    mine = torch.func.vmap(
        lambda x: fixed_point(tanh_map, torch.zeros_like(x), w, x, batch_dims=1).value, in_dim
    )(x)
    expected = reference(w, x.movedim(in_dim, 0).reshape(6, 3)).reshape(2, 3, 3)
    assert relative(mine, expected) < 1e-9  # the default tolerance is 1e-10


def test_forward_mode_by_dual_numbers_agrees_with_a_dense_reference():
    w, x, tangent = matrix(), inputs(), inputs(seed=3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        value = solve("fixed_point", Anderson(), GMRES(), w, dual)
        found = torch.autograd.forward_ad.unpack_dual(value).tangent
    expected = torch.func.jvp(lambda x: reference(w, x), (x,), (tangent,))[1]
    assert relative(found, expected) < DENSE_TOLERANCE


def test_the_gradient_error_falls_in_proportion_to_the_tolerance_asked_for():
    w, x = matrix(12), inputs(3, 12)
    expected = torch.func.jacrev(lambda x: reference(w, x).square().sum())(x)

    def error(rtol: float) -> float:
        stopping = Stopping(rtol=rtol)
        primal = x.clone().requires_grad_()
        z = fixed_point(
            tanh_map, torch.zeros_like(x), w, primal,
            solver=FixedPointIteration(), stopping=stopping,
            gradient=Exact(NeumannSeries(), stopping), batch_dims=1,
        ).value  # fmt: skip
        z.square().sum().backward()
        return relative(primal.grad, expected)

    tolerances = [1e-2, 1e-4, 1e-6, 1e-8, 1e-10]
    errors = [error(rtol) for rtol in tolerances]
    # ‖∂g‖ / ‖g‖ ≤ C·rtol: the error of z is at most rtol·‖z‖/(1 − 0.6), as is that of u, and the
    # map's second derivative is below one; the constant must not grow as the tolerance falls.
    for rtol, found in zip(tolerances, errors, strict=True):
        assert found < 10 * rtol


@pytest.mark.parametrize("seed", range(5))
def test_default_float32_gradients_are_within_1e_4(seed):
    w, x = 1.5 * matrix(20, seed), inputs(8, 20, seed)  # spectral norm 0.9
    expected = torch.func.jacrev(lambda x: reference(w, x).square().sum())(x)
    primal = x.float().requires_grad_()
    z = fixed_point(tanh_map, torch.zeros_like(primal), w.float(), primal, batch_dims=1).value
    z.square().sum().backward()
    assert relative(primal.grad.double(), expected) < 1e-4


@pytest.mark.parametrize("forward", [Broyden(), NewtonKrylov(), Newton()], ids=name)
@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_the_default_adjoint_is_exact_at_an_expansive_fixed_point(forward, form):
    # J has eigenvalues 1.3 ± 0.9i and 3 at the solution: no iteration of f comes near it.
    w = torch.tensor([[1.3, -0.9, 0.2], [0.9, 1.3, 0.0], [0.0, 0.1, 3.0]], dtype=torch.float64)
    x = torch.full((1, 3), 0.3, dtype=torch.float64)

    def f(z, w, x):
        return z @ w.mT + 0.1 * torch.sin(z) + x

    def F(z, w, x):
        return z - f(z, w, x)

    primal = w.clone().requires_grad_()
    options = {"solver": forward, "batch_dims": 1, "stopping": TIGHT}
    z = (
        fixed_point(f, torch.zeros_like(x), primal, x, **options)
        if form == "fixed_point"
        else root(F, torch.zeros_like(x), primal, x, **options)
    ).value
    z.square().sum().backward()
    start = newton(lambda z, w, x: F(z, w, x), torch.zeros(3, dtype=torch.float64), w, x[0])
    expected = torch.func.grad(lambda w: differentiable_root(F, start, w, x[0]).square().sum())(w)
    # GMRES solves to 1e-10 relative; the condition number of I − J is below 30.
    assert relative(primal.grad, expected) < 30 * 1e-10


def test_the_achieved_adjoint_residual_is_reported():
    w, x = matrix(), inputs().requires_grad_()
    solution = fixed_point(tanh_map, torch.zeros_like(x), w, x, batch_dims=1)
    assert solution.adjoints == []
    solution.value.square().sum().backward()
    (adjoint,) = solution.adjoints
    assert adjoint.converged.all()
    (u,) = adjoint.value
    z = solution.value.detach()
    slope = 1 - torch.tanh(z @ w.mT + x.detach()).square()
    residual = (u * slope) @ w + 2 * z - u  # Jᵀu + z̄ − u by hand
    rms = residual.square().mean(dim=1).sqrt()
    # Both are sums of rounding errors of size eps·‖u‖ at convergence.
    assert torch.allclose(adjoint.residual_norm, rms, atol=1e-14)


@pytest.mark.parametrize(
    ("n", "seed"), [(4, 10), (8, 0), (8, 2), (8, 8), (32, 1), (64, 0), (100, 0)]
)
def test_gradients_of_roots_in_units_of_many_sizes_are_right_in_each_component(n, seed):
    # In units of one the matrix is well conditioned; the norm of a residual sees its largest part alone.
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def units():
        return 10 ** (14 * (torch.rand(n, dtype=torch.float64, generator=generator) - 0.5))

    A, rows, columns, w = drawn(n, n) + n**0.5 * torch.eye(n), units(), units(), drawn(n)

    def F(z, x):
        y = z / columns
        return rows * (0.3 * A @ torch.tanh(y) + A @ y - x)

    x = drawn(n).requires_grad_()
    z = root(F, torch.zeros(n, dtype=torch.float64), x).value
    (got,) = torch.autograd.grad((w * z / columns).sum(), x)
    y = z.detach() / columns
    expected = torch.linalg.solve((A * (1 + 0.3 / torch.cosh(y) ** 2)).mT, w)
    # An entry that cancels has the error of the whole times the condition number.
    tolerance = 1e3 * torch.finfo(torch.float64).eps * torch.linalg.cond(A).item()
    torch.testing.assert_close(
        got, expected, rtol=0.0, atol=tolerance * expected.abs().max().item()
    )
