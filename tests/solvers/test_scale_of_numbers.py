"""Numbers near the ends of the range of their dtype: squares of them underflow and overflow."""

import implicitly as im
import pytest
import torch

F64 = torch.float64
SOLVERS = [
    None, im.Newton(), im.LevenbergMarquardt(), im.NewtonKrylov(), im.Broyden(), im.DFSANE(),
    im.PseudoTransient(), im.Homotopy(), im.Bracketing(), im.ScipyRoot("hybr"),
]  # fmt: skip
# Powers of two, which round nothing.
SCALES = {
    F64: (2.0**-996, 2.0**-500, 2.0**-300, 2.0**300, 2.0**500, 2.0**996),
    torch.float32: (2.0**-120, 2.0**-70, 2.0**-30, 2.0**30, 2.0**70, 2.0**122),
}
every_scale = pytest.mark.parametrize(
    ("dtype", "c"), [(dtype, c) for dtype, scales in SCALES.items() for c in scales], ids=str
)


@every_scale
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_the_scale_of_the_equation_changes_nothing(solver, dtype, c):
    start = torch.ones(1, dtype=dtype)
    plain = im.root(lambda z: z * z - 2, start, solver=solver)
    scaled = im.root(lambda z: c * (z * z - 2), start, solver=solver)
    assert torch.equal(scaled.value, plain.value)
    assert torch.equal(scaled.steps, plain.steps)
    assert torch.equal(scaled.error, plain.error)
    # The norm is that of the caller's residual.
    assert float(scaled.residual_norm) == pytest.approx(c * float(plain.residual_norm), rel=1e-6)


@pytest.mark.parametrize("c", [2.0**-996, 2.0**-130, 2.0**130, 2.0**490])
@pytest.mark.parametrize(
    "solver", [None, im.FixedPointIteration(), im.Broyden()], ids=lambda s: type(s).__name__
)
def test_the_scale_of_the_unknown_changes_nothing(solver, c):
    start = torch.zeros(2, dtype=F64)
    plain = im.fixed_point(torch.cos, start, solver=solver)
    scaled = im.fixed_point(lambda z: c * torch.cos(z / c), start, solver=solver)
    assert torch.equal(scaled.value, c * plain.value)
    assert torch.equal(scaled.steps, plain.steps)
    root = im.root(lambda z: (z / c) ** 3 + z / c - 2, start + c)
    assert torch.equal(root.value, start + c)


def test_each_system_has_a_scale_of_its_own():
    c = torch.tensor([1.0, 2.0**-996, 2.0**996, 0.0], dtype=F64)
    c = c.unsqueeze(1)
    norms = []
    solution = im.root(
        lambda z, c: c * (z * z - 2), torch.ones(4, 1, dtype=F64), c, batch_dims=1,
        batched_args=(True,), trace=True, callback=lambda step, norm: norms.append(norm.copy()),
    )  # fmt: skip
    want = torch.tensor([2.0, 2.0, 2.0, 1.0], dtype=F64).sqrt().unsqueeze(1)
    torch.testing.assert_close(solution.value, want, rtol=1e-10, atol=0)
    assert norms[0].tolist() == c.flatten().tolist()
    assert solution.trace[0].tolist() == c.flatten().tolist()


@every_scale
def test_derivatives_at_every_scale(dtype, c):
    x = torch.tensor([2.0, 3.0], dtype=dtype, requires_grad=True)
    start = torch.ones(2, dtype=dtype)
    want = 0.5 * x.detach() ** -0.5
    close = {F64: 1e-9, torch.float32: 1e-5}[dtype]
    value = im.root(lambda z, x: c * (z * z - x), start, x).value
    (of_scaled,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(of_scaled, want, rtol=close, atol=0)
    value = im.root(lambda z, x: z * z - x, start, x).value
    (scaled,) = torch.autograd.grad(c * value.sum(), x)
    torch.testing.assert_close(scaled / c, want, rtol=close, atol=0)


@pytest.mark.parametrize("c", [2.0**-996, 2.0**-500, 1.0, 2.0**500, 2.0**996])
@pytest.mark.parametrize(
    "solver", [im.GMRES(), im.DenseLU(), im.BiCGStab(), im.CG()], ids=lambda s: type(s).__name__
)
def test_linear_equations_with_large_and_small_right_sides(solver, c):
    A = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=F64)
    b = c * torch.tensor([3.0, 4.0], dtype=F64)
    value = im.root(lambda z: A @ z - b, torch.zeros(2, dtype=F64), solver=solver, linear=True)
    torch.testing.assert_close(value.value / c, torch.ones(2, dtype=F64), rtol=1e-9, atol=0)
