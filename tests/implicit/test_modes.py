"""Gradient modes against the formulas they stand for, for every solver and form."""

import hypothesis.strategies as st
import implicitly as im
import pytest
import torch
from hypothesis import given
from implicitly import (
    DFSANE,
    Aitken,
    Anderson,
    BiCGStab,
    Broyden,
    Exact,
    FixedPointIteration,
    JacobianFree,
    Neumann,
    Newton,
    NewtonKrylov,
    Phantom,
    Steffensen,
    Stopping,
    Unrolled,
    fixed_point,
    root,
)
from oracle import KINDS, iteration_matrix, newton, tanh_map
from pairs import few_examples, in_pairs, name
from torch import Tensor

SOLVERS = [
    FixedPointIteration(),
    Anderson(),
    Anderson(kind="I"),
    Broyden(),
    Broyden(kind="bad"),
    NewtonKrylov(),
    NewtonKrylov(linear_solver=BiCGStab()),
    Newton(),
    DFSANE(),
    Aitken(),
    Steffensen(),
]
MODES = [Exact(), Neumann(4), Phantom(4, 0.7), JacobianFree()]
LAYOUTS = ["system", "rows", "grid", "pair"]


def transposed_inverse(mode, jacobian: Tensor, cotangent: Tensor) -> Tensor:
    """What a mode puts in the place of `(I − Jᵀ)⁻¹ g`."""
    identity = torch.eye(len(jacobian), dtype=jacobian.dtype)
    if isinstance(mode, Exact):
        return torch.linalg.solve(identity - jacobian.mT, cotangent)
    if isinstance(mode, Phantom):
        steps, damping = mode.steps, mode.damping
    else:
        steps, damping = getattr(mode, "terms", 0) + 1, 1.0
    total, term = torch.zeros_like(cotangent), damping * cotangent
    for _ in range(steps):
        total = total + term
        term = (1 - damping) * term + damping * (jacobian.mT @ term)
    return total


def equation(layout: str, form: str):
    """The map on the unknown in a layout, and what turns it into rows `(systems, n)`, and back."""

    def f(z, w, x):
        if layout == "pair":
            whole = torch.tanh(torch.cat((z["a"], z["b"]), dim=1) @ w.mT + x)
            cut = z["a"].shape[1]
            value = {"a": whole[:, :cut], "b": whole[:, cut:]}
        else:
            value = torch.tanh(z @ w.mT + x)
        if form == "fixed_point":
            return value
        return {k: z[k] - value[k] for k in z} if layout == "pair" else z - value

    return f


@in_pairs(
    solver={name(solver): solver for solver in SOLVERS},
    mode={type(mode).__name__: mode for mode in MODES},
    form=("fixed_point", "root"),
)
@given(
    layout=st.sampled_from(LAYOUTS),
    systems=st.integers(1, 3),
    n=st.integers(2, 5),
    radius=st.sampled_from([0.0, 0.3, 0.6]),
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    seed=st.integers(0, 10**6),
)
@few_examples()
def test_values_and_gradients_are_those_of_the_formula(
    solver, mode, form, layout, systems, n, radius, kind, dtype, seed
):
    generator = torch.Generator().manual_seed(seed)
    w64 = torch.from_numpy(iteration_matrix(kind, n, radius, seed))
    w64 = w64 / max(1.0, float(torch.linalg.matrix_norm(w64, 2)) / 0.8)
    x64 = torch.randn(systems, n, generator=generator, dtype=torch.float64)
    g64 = torch.randn(systems, n, generator=generator, dtype=torch.float64)
    if layout == "system":
        x64, g64 = x64[:1], g64[:1]

    w, x = (t.clone().to(dtype).requires_grad_() for t in (w64, x64))
    batch_dims, z0 = 1, torch.zeros_like(x)
    given_x = x
    if layout == "system":
        batch_dims = 0
    elif layout == "grid":
        batch_dims, z0, given_x = 2, z0[:, None], x[:, None]
    elif layout == "pair":
        z0 = {"a": z0[:, :1], "b": z0[:, 1:]}
    solve = fixed_point if form == "fixed_point" else root
    rtol = 1e-11 if dtype == torch.float64 else 1e-6
    solution = solve(
        equation(layout, form), z0, w, given_x,
        solver=solver, gradient=mode, batch_dims=batch_dims, stopping=Stopping(rtol=rtol),
    )  # fmt: skip
    value = solution.value
    rows = torch.cat((value["a"], value["b"]), 1) if layout == "pair" else value.reshape(x.shape)
    gw, gx = torch.autograd.grad((rows * g64.to(dtype)).sum(), (w, x))

    expected_w, expected_x = torch.zeros_like(w64), torch.zeros_like(x64)
    for i in range(len(x64)):
        z = newton(lambda z, w, x: z - tanh_map(z, w, x), torch.zeros(n).double(), w64, x64[i])
        slope = 1 - tanh_map(z, w64, x64[i]).square()
        u = transposed_inverse(mode, slope[:, None] * w64, g64[i])
        expected_x[i] = u * slope
        expected_w += torch.outer(u * slope, z)
        # ‖(I − J)⁻¹‖ ≤ 1/(1 − 0.8) = 5, and rtol is relative to ‖z‖ or to ‖r(0)‖, both at most √n.
        allowed = 5 * 4 * rtol + 64 * torch.finfo(dtype).eps
        assert float((rows[i].detach().double() - z).norm()) < allowed * n**0.5

    # First-order effect of that error through the map's second derivative, and the adjoint's own
    # tolerance, each times ‖(I − J)⁻¹‖.
    scale = float(g64.norm()) * 5 * (1 + n)
    allowed = 100 * (rtol + 64 * torch.finfo(dtype).eps) * scale
    assert float((gx.double() - expected_x).norm()) < allowed
    assert float((gw.double() - expected_w).norm()) < allowed


def unrolled_by_hand(w: Tensor, x: Tensor, depth: int) -> Tensor:
    z = torch.zeros_like(x)
    for _ in range(depth):
        z = torch.tanh(z @ w.mT + x)
    return z


def pair(seed=0, systems=3, n=4):
    generator = torch.Generator().manual_seed(seed)
    w = torch.tensor(iteration_matrix("rotations", n, 0.7, seed))
    x = torch.randn(systems, n, generator=generator, dtype=torch.float64)
    return w.requires_grad_(), x.requires_grad_()


@pytest.mark.parametrize("form", ["fixed_point", "root"])
@pytest.mark.parametrize("solver", SOLVERS, ids=name)
def test_the_unrolled_gradient_is_that_of_the_computation_by_finite_differences(solver, form):
    w, x = pair()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).double()
    steps = 2 if isinstance(solver, (Newton, NewtonKrylov)) else 5

    def value(x):
        solve = fixed_point if form == "fixed_point" else root
        function = tanh_map if form == "fixed_point" else lambda z, w, x: z - tanh_map(z, w, x)
        return solve(
            function, torch.zeros_like(x), w, x, solver=solver, gradient=Unrolled(), batch_dims=1,
            stopping=Stopping(rtol=0.0, atol=0.0, max_steps=steps), on_failure="accept",
        ).value.sin().sum()  # fmt: skip

    w.requires_grad_(False)
    (gradient,) = torch.autograd.grad(value(x), x)
    slope = float((gradient * direction).sum())
    h, start = 1e-5, x.detach()
    found = float(value(start + h * direction) - value(start - h * direction)) / (2 * h)
    # Truncation h²/6 times a third derivative of order 1 to 100, rounding 1e-16/h; inner Krylov
    # iterations of Newton–Krylov end by a tolerance, which is smooth only between changes of their
    # number, and this case has none.
    assert abs(found - slope) < 1e-7 * max(1.0, abs(slope))


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_the_unrolled_gradient_is_that_of_the_network_written_as_a_loop(depth):
    w, x = pair(seed=1)  # Numbers for which z + (f(z) − z) is f(z) to the last bit.
    z = fixed_point(
        tanh_map, torch.zeros_like(x), w, x, solver=FixedPointIteration(), gradient=Unrolled(),
        batch_dims=1, stopping=Stopping(max_steps=depth), on_failure="accept",
    ).value  # fmt: skip
    expected = unrolled_by_hand(w, x, depth)
    assert torch.equal(z, expected)
    mine = torch.autograd.grad(z.sin().sum(), (w, x))
    theirs = torch.autograd.grad(expected.sin().sum(), (w, x))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


def test_the_unrolled_network_has_a_gradient_in_its_start():
    w, x = pair()
    z0 = torch.full_like(x, 0.1, requires_grad=True)
    z = fixed_point(
        tanh_map, z0, w, x, solver=FixedPointIteration(), gradient=Unrolled(),
        batch_dims=1, stopping=Stopping(max_steps=2), on_failure="accept",
    ).value  # fmt: skip
    (mine,) = torch.autograd.grad(z.sum(), z0)
    (theirs,) = torch.autograd.grad(tanh_map(tanh_map(z0, w, x), w, x).sum(), z0)
    torch.testing.assert_close(mine, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_last_steps_of_plain_iteration_are_a_truncated_series_per_system(steps):
    # Systems converge after different numbers of steps; each must record its own last ones.
    w, x = pair()
    with torch.no_grad():
        x[0] *= 1e-3
    options = {"solver": FixedPointIteration(), "stopping": Stopping(rtol=1e-12), "batch_dims": 1}
    solution = fixed_point(tanh_map, torch.zeros_like(x), w, x, gradient=Unrolled(steps), **options)
    assert len(set(solution.steps.tolist())) > 1
    series = fixed_point(
        tanh_map, torch.zeros_like(x), w, x, gradient=Neumann(steps - 1), **options
    )
    mine = torch.autograd.grad(solution.value.sum(), (w, x))
    theirs = torch.autograd.grad(series.value.sum(), (w, x))
    # The iterates differ from the solution by at most 1e-12·0.7^−steps·‖z‖.
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", [Unrolled(), Unrolled(3), Phantom(3)], ids=str)
def test_taped_modes_return_the_value_of_the_solve_and_work_in_forward_mode(mode):
    w, x = pair()
    # Plain iteration: the mixing coefficients of Anderson are ill-conditioned near the solution.
    options = {
        "batch_dims": 1, "stopping": Stopping(rtol=1e-12), "solver": FixedPointIteration()
    }  # fmt: skip

    def value(x):
        return fixed_point(tanh_map, torch.zeros_like(x), w, x, gradient=mode, **options).value

    exact = fixed_point(tanh_map, torch.zeros_like(x), w, x, **options).value
    assert torch.equal(value(x), exact)
    backward = torch.func.jacrev(value)(x.detach())
    forward = torch.func.jacfwd(value)(x.detach())
    torch.testing.assert_close(backward, forward, rtol=1e-10, atol=1e-12)
    mapped = torch.func.vmap(value)(x.detach()[None].expand(2, -1, -1))
    torch.testing.assert_close(mapped[1], exact.detach(), rtol=1e-11, atol=1e-12)


def test_one_system_that_runs_away_leaves_the_unrolled_gradient_of_the_others_alone():
    a = torch.tensor([[0.5], [3.0]], dtype=torch.float64, requires_grad=True)
    z = fixed_point(
        lambda z, a: torch.exp(a * z) - 1 + 0.1, torch.full_like(a, 0.1), a,
        solver=FixedPointIteration(), gradient=Unrolled(), batch_dims=1, on_failure="accept",
    )  # fmt: skip
    assert z.converged.tolist() == [True, False]
    z.value[0].sum().backward()
    alone = a.detach()[:1].clone().requires_grad_()
    fixed_point(
        lambda z, a: torch.exp(a * z) - 1 + 0.1, torch.full_like(alone, 0.1), alone,
        solver=FixedPointIteration(), gradient=Unrolled(), batch_dims=1,
    ).value.sum().backward()  # fmt: skip
    torch.testing.assert_close(a.grad[:1], alone.grad, rtol=1e-13, atol=0)
    assert a.grad[1] == 0


def test_second_derivatives_of_an_approximate_mode_are_those_of_the_approximation():
    w, x = pair()
    vector = torch.ones_like(x)

    def gradient(mode, x):
        z = fixed_point(
            tanh_map, torch.zeros_like(x), w.detach(), x, gradient=mode, batch_dims=1,
            solver=Newton(),
        ).value  # fmt: skip
        return torch.autograd.grad(z.sum(), x, create_graph=True)[0]

    (mine,) = torch.autograd.grad((gradient(JacobianFree(), x) * vector).sum(), x)
    # The gradient is tanh'(p) with p = W z + x, and the mode says that dz = tanh'(p) dx.
    z = fixed_point(tanh_map, torch.zeros_like(x), w, x, batch_dims=1, solver=Newton()).value
    slope, curvature = (1 - z**2).detach(), (-2 * z * (1 - z**2)).detach()
    torch.testing.assert_close(
        mine, curvature + slope * (curvature @ w.detach()), rtol=1e-9, atol=1e-9
    )


SINGULAR_AT_START = {
    "one unknown": (lambda z, x: z**2 - x, torch.zeros(1, dtype=torch.float64), 0.5 / 2**0.5),
    "no root": (lambda z, x: z**2 + x, torch.zeros(1, dtype=torch.float64), 0.0),
}


@pytest.mark.parametrize(
    "solver",
    [
        im.Newton(), im.Newton(globalisation=None), im.Newton(globalisation=im.TrustRegion()),
        im.Broyden(), im.Anderson(), im.DFSANE(), im.PseudoTransient(),
    ],
    ids=lambda solver: repr(solver)[:40],
)  # fmt: skip
@pytest.mark.parametrize("name", SINGULAR_AT_START)
def test_a_singular_start_gives_no_gradient_of_nan(solver: im.Solver, name: str) -> None:
    function, z0, slope = SINGULAR_AT_START[name]
    x = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    solution = im.root(
        function, z0, x, solver=solver, gradient=im.Unrolled(), on_failure="accept",
        stopping=im.Stopping(max_steps=20),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    assert bool(torch.isfinite(gradient).all())
    if bool(solution.converged):
        assert abs(gradient.item()) == pytest.approx(slope, rel=1e-6)
    elif bool((solution.value == z0).all()):
        # The start is returned, which does not depend on x.
        assert gradient.item() == 0


def test_a_step_of_least_squares_has_the_derivative_of_the_pseudo_inverse() -> None:
    # Newton's step from zero is J⁺ r with J = (0 1; 0 1), so that z₁ = (x − 1) / 2: not z₀, which is flat.
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    solution = im.root(
        lambda z, x: torch.stack((z[0] ** 2 + z[1] - x, z[0] ** 2 + z[1] + 1)),
        torch.zeros(2, dtype=torch.float64), x,
        solver=im.Newton(globalisation=None), gradient=im.Unrolled(), on_failure="accept",
        stopping=im.Stopping(max_steps=1),
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    assert solution.value[1].item() == pytest.approx(0.5)
    assert gradient.item() == pytest.approx(0.5)
