"""Derivatives that the caller gives: used, checked by one product, and never those of the solution."""

import numpy as np
import pytest
import torch
from implicitly import (
    CG,
    GMRES,
    Anderson,
    ArrayFunction,
    Compiled,
    FixedPointIteration,
    ImplicitLayer,
    LevenbergMarquardt,
    MissingDerivativeError,
    Newton,
    NewtonKrylov,
    SparseLU,
    Stopping,
    WrongDerivativeError,
    fixed_point,
    root,
)
from implicitly.verification import assert_gradients
from scipy import sparse
from torch.autograd import gradcheck, gradgradcheck

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")

N = 30
LAPLACE = torch.diag(torch.full((N,), 2.0)) - torch.diag(torch.ones(N - 1), 1)
LAPLACE = (LAPLACE - torch.diag(torch.ones(N - 1), -1)).double() * N**2
X = torch.linspace(1.0, 2.0, N, dtype=torch.float64)
ZERO = torch.zeros_like(X)


def F(z, x):
    """A nonlinear two-point boundary-value problem."""
    return z @ LAPLACE + z**3 - x


def dense(z, x):
    return LAPLACE + torch.diag_embed(3 * z**2)


def products(z, x):
    def product(v):
        return v @ LAPLACE + 3 * z**2 * v

    return product, product


GIVEN = {
    "dense": dense,
    "array": lambda z, x: dense(z, x).numpy(),
    "scipy": lambda z, x: sparse.csr_array(dense(z, x).numpy()),
    "coo": lambda z, x: dense(z, x).to_sparse(),
    "csr": lambda z, x: dense(z, x).to_sparse_csr(),
    "products": products,
}
# A Jacobian with entries above and below the diagonal that differ, so that a transpose shows.
SKEW = torch.diag(torch.ones(N - 1, dtype=torch.float64), 1) * N


def skew(z, x):
    return F(z, x) + z @ SKEW.mT


def backward_is_not_used(z, x):
    """`F` without derivatives, to show whose Jacobian a solver takes."""
    return F(z, x).detach()


@pytest.mark.parametrize("solver", [None, Newton(), NewtonKrylov(), LevenbergMarquardt()], ids=str)
@pytest.mark.parametrize("jacobian", GIVEN.values(), ids=GIVEN)
def test_solvers_use_what_is_given(jacobian, solver):
    solution = root(backward_is_not_used, ZERO, X, jacobian=jacobian, solver=solver)
    assert solution.error < 1e-8
    assert torch.allclose(F(solution.value, X), ZERO, atol=1e-7)


@pytest.mark.parametrize("jacobian", GIVEN.values(), ids=GIVEN)
def test_derivatives_of_the_solution_are_autograds(jacobian):
    x = X.clone().requires_grad_()

    def value(x):
        return root(F, ZERO, x, jacobian=jacobian, stopping=Stopping(rtol=1e-12)).value

    (gradient,) = torch.autograd.grad(value(x).sum(), x)
    z = value(X)
    assert torch.allclose(gradient, torch.linalg.solve(dense(z, X).mT, torch.ones_like(z)))
    assert gradcheck(value, (x,), check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(value, (x,), fast_mode=True)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda z, x: LAPLACE + 2 * SKEW,
        lambda z, x: (LAPLACE + SKEW).mT,
        lambda z, x: -(LAPLACE + SKEW),
        lambda z, x: (lambda v: v @ (LAPLACE + SKEW), lambda u: u @ (LAPLACE + SKEW)),
        lambda z, x: (lambda v: v @ LAPLACE, lambda u: u @ (LAPLACE + SKEW)),
        lambda z, x: (LAPLACE + SKEW) * (1 + 1e-6 * torch.eye(N)),
    ],
)
def test_a_wrong_jacobian_is_named(wrong):
    with pytest.raises(
        WrongDerivativeError, match="jacobian of the function skew is not its Jacobian"
    ):
        root(skew, ZERO, X, jacobian=wrong)


def skew_products(z, x):
    matrix = dense(z, x) + SKEW
    return lambda v: matrix @ v, lambda u: matrix.mT @ u


@pytest.mark.parametrize(
    "jacobian",
    [
        lambda z, x: dense(z, x) + SKEW,
        lambda z, x: (dense(z, x) + SKEW).to_sparse(),
        lambda z, x: sparse.csc_array((dense(z, x) + SKEW).numpy()),
        skew_products,
    ],
)
def test_a_right_jacobian_that_is_not_symmetric(jacobian):
    solution = root(skew, ZERO, X, jacobian=jacobian)
    assert torch.allclose(solution.value, root(skew, ZERO, X).value)


def test_a_jacobian_of_a_function_of_arrays_is_checked_by_differences():
    def in_arrays(z, x):
        return z @ LAPLACE.numpy() + z**3 - x

    function = ArrayFunction(in_arrays)
    solution = root(function, ZERO + 0.1, X, jacobian=dense)
    assert solution.error < 1e-8
    with pytest.raises(WrongDerivativeError, match="product J v"):
        root(function, ZERO + 0.1, X, jacobian=lambda z, x: 1.01 * dense(z, x))
    x = X.clone().requires_grad_()
    with pytest.raises(MissingDerivativeError):
        root(function, ZERO + 0.1, x, jacobian=dense).value.sum().backward()


def test_batches_structures_and_keywords():
    def pair(z, *, c):
        return {"a": z["a"] ** 2 - c, "b": z["b"] * z["a"] - 1}

    def jacobian(z, *, c):
        a, b = z["a"], z["b"]
        rows = torch.stack([2 * a, 0 * a]), torch.stack([b, a])
        return torch.stack(rows).permute(2, 0, 1)

    start = {name: torch.ones(5, dtype=torch.float64) for name in "ab"}
    c = torch.linspace(1, 5, 5, dtype=torch.float64)
    solution = root(pair, start, c=c, batch_dims=1, jacobian=jacobian, solver=Newton())
    assert torch.allclose(solution.value["a"], c.sqrt())
    assert torch.allclose(solution.value["b"], c.rsqrt())
    assert solution.counts.jvps == 0


def test_fixed_points_and_linear_equations():
    A = LAPLACE / N**2 / 4

    def f(z, x):
        return z - z @ A + x

    solution = fixed_point(f, ZERO, X, jacobian=lambda z, x: torch.eye(N).double() - A)
    exact = torch.linalg.solve(A, X)
    assert torch.allclose(solution.value, exact)
    for options in ({"jacobian": lambda z, x: A}, {"sparsity": A}, {"preconditioner": lambda v: v}):
        solution = root(lambda z, x: z @ A - x, ZERO, X, linear=True, **options)
        assert torch.allclose(solution.value, exact)


def test_a_pattern_takes_a_product_for_each_colour():
    for solver in (Newton(), None):
        for pattern in (LAPLACE != 0, LAPLACE.numpy(), sparse.coo_array(LAPLACE.numpy())):
            found = root(F, ZERO, X, sparsity=pattern, solver=solver)
            assert torch.allclose(F(found.value, X), ZERO, atol=1e-7)
    # Of a tridiagonal matrix three colours, at each of the steps and once for the estimate of the error.
    with_pattern = root(F, ZERO, X, sparsity=LAPLACE, solver=Newton()).counts.jvps
    assert 3 * with_pattern < root(F, ZERO, X, solver=Newton()).counts.jvps
    stored = torch.sparse_coo_tensor(
        (LAPLACE != 0).nonzero().mT, torch.zeros(3 * N - 2), (N, N), check_invariants=True
    )
    assert root(F, ZERO, X, sparsity=stored, solver=Newton()).converged


def test_a_pattern_of_a_batch():
    x = torch.stack([X, 2 * X])
    solution = root(F, torch.zeros_like(x), x, batch_dims=1, sparsity=LAPLACE)
    assert solution.converged.all()
    assert torch.allclose(solution.value[1], root(F, ZERO, 2 * X).value)


def test_a_pattern_that_lacks_places_is_named():
    lacking = LAPLACE.clone()
    lacking[3, 4] = 0.0
    for solver in (None, Newton(), NewtonKrylov()):
        with pytest.raises(WrongDerivativeError, match="sparsity of the function F lacks places"):
            root(F, ZERO, X, sparsity=lacking, solver=solver)
    with pytest.raises(ValueError, match="sparsity has 3 rows and columns, but a system .* 30"):
        root(F, ZERO, X, sparsity=torch.eye(3))


def test_a_preconditioner_saves_linear_iterations():
    inverse = torch.linalg.inv(LAPLACE)
    plain = root(F, ZERO, X, solver=NewtonKrylov())
    for solver in (None, NewtonKrylov(linear_solver=GMRES())):
        better = root(F, ZERO, X, preconditioner=lambda v: v @ inverse, solver=solver)
        assert torch.allclose(better.value, plain.value, rtol=1e-7)
        assert 4 * better.counts.linear_iterations < plain.counts.linear_iterations


@pytest.mark.parametrize("wrong", [lambda v: v**2, lambda v: v + 1, lambda v: v / 0])
def test_a_preconditioner_that_is_not_linear_is_named(wrong):
    with pytest.raises(
        WrongDerivativeError, match="preconditioner of the function F is not a linear"
    ):
        root(F, ZERO, X, preconditioner=wrong)


def test_what_a_solver_cannot_use_is_an_error():
    for solver in (Newton(), Anderson(), NewtonKrylov(linear_solver=SparseLU())):
        with pytest.raises(TypeError, match="preconditioner needs a Krylov method"):
            root(F, ZERO, X, preconditioner=lambda v: v, solver=solver)
    own = NewtonKrylov(linear_solver=GMRES(preconditioner=lambda v: v))
    with pytest.raises(TypeError, match="GMRES has a preconditioner already"):
        root(F, ZERO, X, preconditioner=lambda v: v, solver=own)
    with pytest.raises(TypeError, match="Compiled compiles derivatives of its own"):
        root(F, ZERO, X, jacobian=dense, solver=Compiled(Newton()))
    with pytest.raises(ValueError, match="causal=True couples its systems"):
        fixed_point(
            F, ZERO, X, jacobian=dense, causal=True, batch_dims=1, solver=FixedPointIteration()
        )


def test_values_of_the_wrong_kind_are_named():
    cases = [
        ({"jacobian": 3}, TypeError, "jacobian must be callable"),
        ({"jacobian": lambda z, x: "text"}, TypeError, "must return a matrix"),
        ({"jacobian": lambda z, x: torch.ones(3, 3)}, ValueError, r"must have shape \(30, 30\)"),
        ({"preconditioner": 3}, TypeError, "preconditioner must be callable"),
        ({"preconditioner": lambda v: v[:3]}, ValueError, "must return the shape"),
        ({"sparsity": "text"}, TypeError, "sparsity must be a matrix"),
        ({"sparsity": torch.ones(3)}, ValueError, "square"),
        ({"sparsity": torch.ones(3, 4)}, ValueError, "square"),
    ]
    for options, kind, words in cases:
        with pytest.raises(kind, match=words):
            root(F, ZERO, X, **options)
    complex_zero = ZERO + 0j
    with pytest.raises(TypeError, match="of a complex unknown give a pair"):
        root(lambda z: z - 1, complex_zero, jacobian=lambda z: torch.eye(N))
    identity = root(lambda z: z - 1, complex_zero, jacobian=lambda z: (lambda v: v, lambda u: u))
    assert torch.allclose(identity.value, complex_zero + 1)
    two = torch.zeros(2, N, dtype=torch.float64)
    with pytest.raises(ValueError, match="a sparse matrix is that of one system"):
        root(F, two, X, batch_dims=1, jacobian=lambda z, x: LAPLACE.to_sparse())


def test_float32_and_vmap():
    def single(z, x):
        return 3 * z + z**3 - x

    x = X.float()
    given = root(single, x * 0, x, jacobian=lambda z, x: torch.diag(3 + 3 * z**2))
    assert given.converged
    rows = torch.stack([x, 2 * x])
    mapped = torch.vmap(
        lambda x: root(single, x * 0, x, jacobian=lambda z, x: torch.diag(3 + 3 * z**2)).value
    )(rows)
    assert torch.allclose(mapped[0], given.value, rtol=1e-5)


class Cell(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, dtype=torch.float64)
        torch.nn.init.orthogonal_(self.linear.weight, gain=0.7)

    def forward(self, z, x, *, scale):
        return torch.tanh(self.linear(z) + scale * x)

    def jacobian(self, z, x, *, scale):
        value = self.forward(z, x, scale=scale)
        return (1 - value**2).unsqueeze(-1) * self.linear.weight


def test_a_layer_is_given_its_jacobian_and_verified(seeded):
    cell = Cell()
    layer = ImplicitLayer(cell, jacobian=cell.jacobian, solver=Newton())
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    z = layer(x, scale=2.0)
    assert torch.allclose(z, cell(z, x, scale=2.0))
    assert layer.solution.counts.jvps == 0
    assert_gradients(
        lambda x: layer(x, scale=1.0), (x,), residual=lambda z, x: cell(z, x, scale=1.0) - z
    )


def test_a_symmetric_solver_takes_a_preconditioner():
    solution = root(
        lambda z, x: z @ LAPLACE - x, ZERO, X, linear=True, solver=CG(),
        preconditioner=lambda v: v / (2 * N**2),
    )  # fmt: skip
    assert torch.allclose(solution.value, torch.linalg.solve(LAPLACE, X))
    assert isinstance(solution.value.numpy(), np.ndarray)
