"""Complex unknowns, arguments and parameters, in PyTorch's conventions."""

import implicitly as im
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

C = torch.complex128
# Of the solve's tolerance, 1e-10, and of the conditioning of the equations, below 10.
CLOSE = 1e-8


def complex_normal(*shape, seed=0):
    return torch.randn(*shape, dtype=C, generator=torch.Generator().manual_seed(seed))


A, X = 0.25 * complex_normal(3, 3), complex_normal(2, 3, seed=1)


def holomorphic(z, A, x):
    return torch.tanh(0.5 * (z @ A.mT)) + x


def mixed(z, A, x):
    """Neither holomorphic nor antiholomorphic."""
    return 0.5 * torch.tanh(z @ A.mT) + 0.2 * z.conj() * torch.sin(z.real) + x


def iterated(f, A, x):
    z = torch.zeros_like(x)
    for _ in range(200):
        z = f(z, A, x)
    return z


def loss(z):
    return z.abs().square().sum() + z.imag.sum()


def gradients(z, over):
    return torch.autograd.grad(loss(z), over)


def solved(f, A, x, form="fixed_point", **options):
    if form == "fixed_point":
        return im.fixed_point(f, torch.zeros_like(x), A, x, batch_dims=1, **options)
    return im.root(lambda z, *a: z - f(z, *a), torch.zeros_like(x), A, x, batch_dims=1, **options)


SOLVERS = [
    (None, "fixed_point"),
    (None, "root"),
    (im.FixedPointIteration(), "fixed_point"),
    (im.Anderson(kind="I"), "fixed_point"),
    (im.Anderson(compiled=True), "fixed_point"),
    (im.Broyden(), "root"),
    (im.Newton(), "root"),
    (im.NewtonKrylov(), "root"),
    (im.DFSANE(), "root"),
    (im.Steffensen(), "fixed_point"),
    (im.LevenbergMarquardt(), "root"),
    (im.PseudoTransient(), "root"),
    (im.Homotopy(), "root"),
    (im.ScipyRoot("hybr"), "root"),
    (im.SteadyState(), "fixed_point"),
]


@pytest.mark.parametrize("f", [holomorphic, mixed])
@pytest.mark.parametrize(("solver", "form"), SOLVERS, ids=str)
def test_value_and_gradients_are_those_of_the_iterated_map(f, solver, form):
    over = [A.clone().requires_grad_(), X.clone().requires_grad_()]
    want = iterated(f, *over)
    expected = gradients(want, over)
    # The arguments are computed tensors, as they usually are.
    z = solved(f, over[0] * 1.0, over[1] * 1.0, form, solver=solver).value
    assert torch.allclose(z, want, rtol=CLOSE)
    for got, gradient in zip(gradients(z, over), expected, strict=True):
        assert torch.allclose(got, gradient, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [
        (im.Unrolled(), 1e-7),
        (im.Phantom(steps=60), CLOSE),
        (im.Neumann(terms=60), CLOSE),
        (im.ReuseInverse(refine=30), CLOSE),
        (im.Reversible(relaxation=0.3), 1e-3),
    ],
    ids=str,
)
def test_every_gradient_mode_takes_complex_unknowns(mode, tolerance):
    x = X.clone().requires_grad_()
    (expected,) = gradients(iterated(holomorphic, A, x), [x])
    # Run backwards, fewer steps lose fewer digits.
    stopping = im.Stopping(rtol=1e-5) if isinstance(mode, im.Reversible) else None
    (got,) = gradients(solved(holomorphic, A, x, gradient=mode, stopping=stopping).value, [x])
    assert torch.allclose(got, expected, rtol=tolerance, atol=tolerance)


def test_derivatives_are_those_of_the_equation_in_real_numbers():
    """Real and imaginary parts as unknowns and arguments of their own, by the chain rule."""

    def in_real_numbers(z, A, x):
        parts = (torch.view_as_complex(part) for part in (z, A, x))
        return torch.view_as_real(mixed(*parts))

    over = [torch.view_as_real(A).clone().requires_grad_()]
    over.append(torch.view_as_real(X).clone().requires_grad_())
    z = im.fixed_point(in_real_numbers, torch.zeros_like(over[1]), *over, batch_dims=1).value
    expected = gradients(torch.view_as_complex(z), over)
    own = [A.clone().requires_grad_(), X.clone().requires_grad_()]
    for got, want in zip(gradients(solved(mixed, *own).value, own), expected, strict=True):
        assert torch.allclose(torch.view_as_real(got), want, rtol=CLOSE, atol=CLOSE)


def tightly(A, x):
    return solved(mixed, A, x, stopping=im.Stopping(rtol=1e-13)).value


def test_gradcheck_of_both_modes_and_orders():
    over = (A[:2, :2].clone().requires_grad_(), X[:1, :2].clone().requires_grad_())
    assert gradcheck(tightly, over, check_forward_ad=True)
    assert gradgradcheck(tightly, over)


def test_transforms_of_a_complex_solve():
    def unrolled(A, x):
        return iterated(mixed, A, x)

    func, rows = torch.func, X.expand(4, 2, 3)
    _, got = func.jvp(tightly, (A, X), (X[0].expand(3, 3), X))
    assert torch.allclose(got, func.jvp(unrolled, (A, X), (X[0].expand(3, 3), X))[1], rtol=CLOSE)
    for got, want in zip(
        func.vjp(tightly, A, X)[1](X), func.vjp(unrolled, A, X)[1](X), strict=True
    ):
        assert torch.allclose(got, want, rtol=CLOSE)
    gradient = func.grad(lambda x: loss(unrolled(A, x)))(X)
    mapped = torch.vmap(func.grad(lambda x: loss(tightly(A, x))))(rows)
    assert torch.allclose(mapped, gradient.expand(4, 2, 3), rtol=CLOSE)


def test_a_holomorphic_root_has_the_conjugate_of_its_derivative_as_gradient():
    a = torch.tensor(-3.0 + 4.0j, dtype=C, requires_grad=True)
    z = im.root(lambda z, a: z * z - a, torch.tensor(1.0 + 0.5j, dtype=C), a).value
    (got,) = torch.autograd.grad(z, a, torch.ones((), dtype=C))
    assert torch.allclose(z, torch.tensor(1.0 + 2.0j, dtype=C), rtol=CLOSE)
    assert torch.allclose(got, (0.5 / z).conj(), rtol=CLOSE)


@pytest.mark.parametrize("a", [2.0, -2.0, 2j, 1 - 1j])
def test_the_error_of_a_complex_number_is_relative_to_its_modulus(a):
    a = torch.tensor(a, dtype=C)
    solution = im.root(lambda z, a: z * z - a, torch.tensor(1.0 + 0.5j, dtype=C), a)
    exact = torch.sqrt(a)
    error = min((solution.value - exact).abs(), (solution.value + exact).abs()) / exact.abs()
    assert error < CLOSE
    assert solution.error < CLOSE


def test_parameters_of_a_module_and_captured_tensors_may_be_complex():
    class Cell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 3, dtype=C)
            self.linear.weight.data *= 0.5

        def forward(self, z, x):
            return 0.5 * self.linear(z) + 0.2 * z.conj() + x

    layer = im.ImplicitLayer(Cell())
    over = list(layer.parameters())
    expected = gradients(iterated(lambda z, A, x: layer.f(z, x), A, X), over)
    closing = im.fixed_point(lambda z: layer.f(z, X), torch.zeros_like(X), batch_dims=1).value
    for z in (layer(X), closing):
        for got, want in zip(gradients(z, over), expected, strict=True):
            assert torch.allclose(got, want, rtol=CLOSE, atol=CLOSE)


def test_linear_equations_and_recurrences_of_complex_numbers():
    M, b = A + 3 * torch.eye(3, dtype=C), X[0]
    for solver in (None, im.BiCGStab(), im.LSMR(), im.DenseLU(), im.SparseLU()):
        z = im.root(lambda z, M: M @ z - b, torch.zeros_like(b), M, linear=True, solver=solver)
        assert torch.allclose(z.value, torch.linalg.solve(M, b), rtol=CLOSE)
    xs, s = complex_normal(2, 20, 3, seed=2), X
    states = im.recurrence(lambda s, x: torch.tanh(0.3 * s.roll(1, 1) + 0.1 * x), s, xs).value
    for t in range(20):
        s = torch.tanh(0.3 * s.roll(1, 1) + 0.1 * xs[:, t])
    assert torch.allclose(states[:, -1], s, rtol=CLOSE)


def test_real_and_complex_leaves_of_different_precision():
    def f(z):
        return {"a": 0.5 * torch.cos(z["a"]) + z["b"].real, "b": 0.3 * z["b"].exp() + 0.1j}

    start = {"a": torch.zeros(3, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.complex64)}
    z = im.fixed_point(f, start).value
    assert z["a"].dtype == torch.float64
    assert z["b"].dtype == torch.complex64
    for name in z:
        assert torch.allclose(f(z)[name], z[name], rtol=1e-5)


def test_a_value_whose_imaginary_part_would_be_lost_is_an_error():
    with pytest.raises(TypeError, match="imaginary part would be lost"):
        im.fixed_point(lambda z: 0.5j * z, torch.zeros(2))
    z = im.fixed_point(lambda z: torch.cos(z.real), torch.zeros(2, dtype=C)).value
    assert torch.allclose(z, torch.full_like(z, 0.7390851332151607), rtol=CLOSE)
