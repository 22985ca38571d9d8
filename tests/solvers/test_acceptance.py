"""Solved means solved: a root is accepted by the error of `z`, whatever the start was."""

import math

import implicitly as im
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly.solvers.driving import estimate
from pairs import in_pairs

F64 = torch.float64
SOLVERS = [
    None, im.Newton(), im.LevenbergMarquardt(), im.Broyden(), im.NewtonKrylov(), im.DFSANE(),
    im.PseudoTransient(), im.ScipyRoot("hybr"),
]  # fmt: skip
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def column(*entries):
    return torch.tensor(entries, dtype=F64)


@every_solver
@pytest.mark.parametrize("start", [1e5, -1e8, 1e12])
def test_a_cubic_from_far_away_is_solved_or_is_not_called_so(solver, start):
    # x³ + x = 5, by Cardano's formula.
    half, third = 2.5, 1 / 3
    spread = math.sqrt(half**2 + third**3)
    want = np.cbrt(half + spread) + np.cbrt(half - spread)
    solution = im.root(lambda z: z**3 + z - 5, column(start), solver=solver, on_failure="accept")
    if bool(solution.converged):
        assert solution.value.item() == pytest.approx(want, rel=1e-7)
    elif solver is None:
        pytest.fail("the default solves it")


NO_ROOT = {
    "x² + 1": (lambda z: z * z + 1, 3.0),
    "x² + 1 from afar": (lambda z: z * z + 1, 1e8),
    "x² + 1e-12": (lambda z: z * z + 1e-12, 3.0),
    "exp(−x)": (lambda z: torch.exp(-z), 0.0),
    "1/x": (lambda z: 1 / z, 0.5),
    "x / (1 + x²) − 0.6": (lambda z: z / (1 + z * z) - 0.6, 0.5),
    "softplus": (torch.nn.functional.softplus, 1.0),
    "2 + sin x": (lambda z: 2 + torch.sin(z), 1.0),
    "2 + sin x from 0": (lambda z: 2 + torch.sin(z), 0.0),
    "1 / (1 + x²)": (lambda z: 1 / (1 + z * z), 1.0),
}


def never_called_solved(solver, name, dtype):
    F, start = NO_ROOT[name]
    z0 = torch.tensor([start], dtype=dtype)
    return not bool(im.root(F, z0, solver=solver, on_failure="accept").converged)


@in_pairs(
    solver={type(s).__name__: s for s in SOLVERS[1:]},
    dtype=(torch.float32, F64),
    name=list(NO_ROOT),
)
def test_an_equation_without_a_root_is_never_called_solved(solver, dtype, name):
    assert never_called_solved(solver, name, dtype)


# Every member of the default tries in vain.
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize(
    "name",
    [name if name == "exp(−x)" else pytest.param(name, marks=pytest.mark.long) for name in NO_ROOT],
)
def test_nor_does_the_default_call_it_solved(name, dtype):
    assert never_called_solved(None, name, dtype)


@given(
    st.integers(1, 4), st.integers(0, 10_000), st.floats(-6, 6), st.floats(-6, 6),
)  # fmt: skip
def test_the_units_of_equations_and_unknowns_do_not_matter(n, seed, row, unknown):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(n, n, dtype=F64, generator=generator) + 3 * torch.eye(n, dtype=F64)
    b = torch.randn(n, dtype=F64, generator=generator)
    # Powers of two round nothing.
    rows = torch.ones(n, dtype=F64)
    rows[0] = 2.0 ** round(3.3 * row)
    units = torch.ones(n, dtype=F64)
    units[-1] = 2.0 ** round(3.3 * unknown)

    def F(z):
        return A @ z + 0.1 * z**3 - b

    plain = im.root(F, torch.zeros(n, dtype=F64), solver=im.Newton())
    scaled = im.root(lambda z: rows * F(z / units), torch.zeros(n, dtype=F64), solver=im.Newton())
    assert abs(int(plain.steps) - int(scaled.steps)) <= 1
    torch.testing.assert_close(scaled.value / units, plain.value, rtol=1e-8, atol=1e-10)


@given(st.integers(0, 10_000), st.floats(-6, 6))
def test_the_stated_error_is_that_of_the_value(seed, distance):
    generator = torch.Generator().manual_seed(seed)
    want = torch.randn(40, 1, dtype=F64, generator=generator).exp()
    solution = im.root(lambda z, r: z**3 + z - r**3 - r, want * 10.0**distance, want, batch_dims=1)
    assert bool(solution.converged.all())
    true = ((solution.value - want).abs() / want).flatten()
    # Of a start that is the root nothing is asked.
    error = torch.where(true > 0, solution.error, torch.finfo(F64).eps)
    assert bool((true <= 10 * error + 4 * torch.finfo(F64).eps).all())
    assert float(error.max()) <= 1e-8


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_a_residual_of_zero_on_a_plain_is_a_root_and_one_that_underflows_is_none(dtype):
    z0 = torch.tensor([3.0], dtype=dtype)
    plain = im.root(lambda z: torch.relu(z - 1), z0, solver=im.Bracketing())
    assert plain.value.item() <= 1
    for F in (lambda z: torch.exp(-z), lambda z: torch.exp(-z * z)):
        far = torch.tensor([700.0], dtype=dtype)
        # The way from the start is what tells, so that a start on the plain is believed.
        assert bool(im.root(F, 1e3 * far, solver=im.Newton()).converged)
        start = im.Bracketing(0.0, 2e3)
        gone = im.root(F, torch.ones(1, dtype=dtype), solver=start, on_failure="accept")
        assert not bool(gone.converged)


def test_a_system_whose_condition_leaves_no_digit_is_not_called_solved():
    # Condition 1e10: in single precision the Newton step has no correct digit.
    A = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 2.0**-20]], dtype=torch.float32)
    b = torch.tensor([2.0, 2.0 + 2.0**-20], dtype=torch.float32)
    solution = im.root(
        lambda z: A @ z + 1e-3 * (z - 1) ** 2 - b, torch.tensor([3.0, 1.0]), on_failure="accept"
    )
    true = (solution.value - 1).abs().max().item()
    assert not bool(solution.converged) or true <= 10 * solution.error.item()


def test_a_double_root_and_a_root_at_zero_are_accepted():
    at_zero = im.root(lambda z: z * z, column(0.7), solver=im.Newton())
    assert bool(at_zero.converged)
    assert at_zero.value.abs().item() <= 1e-15
    double = im.root(lambda z: (z - 5) ** 2, column(1.0))
    assert double.value.item() == pytest.approx(5, abs=1e-6)
    assert 0 < double.error.item() <= 1e-7


def test_what_is_not_known_is_said():
    def without_derivative(z):
        return torch.from_numpy(np.asarray(z.detach()) ** 3 - 8)

    root = im.root(without_derivative, column(1.5), solver=im.Broyden())
    assert root.value.item() == pytest.approx(2)
    assert bool(torch.isnan(root.error))
    exact = im.root(lambda z: z - 1, column(0.0), solver=im.Newton())
    assert exact.error.item() == torch.finfo(F64).eps


FAR_AND_WIDE = [im.NewtonKrylov(), im.Broyden(), im.DFSANE(), im.ScipyRoot("df-sane"), None]


@pytest.mark.parametrize("solver", FAR_AND_WIDE, ids=lambda s: type(s).__name__)
def test_many_unknowns_from_far_away_are_solved_or_not_called_so(solver):
    right = torch.linspace(1, 5, 100, dtype=F64)
    z0 = torch.full((100,), 1e5, dtype=F64)
    solution = im.root(lambda z: z**3 + z - right, z0, solver=solver, on_failure="accept")
    # The only real root of each equation, by Newton's method from above, where it is monotone.
    want = right.clone() + 1
    for _ in range(60):
        want -= (want**3 + want - right) / (3 * want**2 + 1)
    true = ((solution.value - want).abs() / want).max().item()
    if bool(solution.converged):
        assert true <= 10 * solution.error.item() + 1e-15
        assert solution.error.item() <= 1e-8
    else:
        assert solver is not None


@pytest.mark.parametrize("separable", [(True,), None])
def test_a_batch_too_large_for_jacobians_at_once_is_examined_all_the_same(monkeypatch, separable):
    monkeypatch.setattr(estimate, "_MOST_ENTRIES", 8)
    right = torch.linspace(1, 5, 7, dtype=F64).unsqueeze(1).expand(7, 2)
    z0 = torch.full((7, 2), 1e5, dtype=F64)

    def F(z, right):
        return z**3 + z - right

    solver = im.Newton()
    solution = im.root(F, z0, right, batch_dims=1, batched_args=separable, solver=solver)
    monkeypatch.undo()
    whole = im.root(F, z0, right, batch_dims=1, batched_args=separable, solver=solver)
    assert torch.equal(solution.value, whole.value)
    torch.testing.assert_close(solution.error, whole.error, rtol=0.1, atol=1e-16)
    assert F(solution.value, right).abs().max() <= 1e-7


@pytest.mark.parametrize("rate", [0.9, 0.99, 0.999])
@pytest.mark.parametrize(
    "solver",
    [im.FixedPointIteration(), im.Anderson(), im.Broyden(), im.ScipyRoot("hybr")],
    ids=lambda s: type(s).__name__,
)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_a_map_that_contracts_slowly_does_not_stop_far_from_its_solution(solver, rate, dtype):
    n = 6
    generator = torch.Generator().manual_seed(0)
    Q = torch.linalg.qr(torch.randn(n, n, dtype=F64, generator=generator)).Q
    A = Q @ torch.diag(torch.linspace(-0.5, rate, n, dtype=F64)) @ Q.mT
    b = torch.randn(n, dtype=F64, generator=generator)
    want = torch.linalg.solve(torch.eye(n, dtype=F64) - A, b)
    A, b = A.to(dtype), b.to(dtype)
    solution = im.fixed_point(
        lambda z: A @ z + b, torch.zeros(n, dtype=dtype), solver=solver, on_failure="accept",
        stopping=im.Stopping(max_steps=40_000),
    )  # fmt: skip
    if not bool(solution.converged):  # Rounding hides the progress of a step.
        assert (rate, dtype, type(solver)) == (0.999, torch.float32, im.FixedPointIteration)
        return
    true = (torch.linalg.vector_norm(solution.value.to(F64) - want) / want.norm()).item()
    eps = torch.finfo(dtype).eps
    # Of a hundred solves with acceleration, the last step of one tells less than a tenth of the error.
    factor = 10 if isinstance(solver, im.FixedPointIteration) else 100
    assert true <= factor * solution.error.item() + 4 * eps / (1 - rate)
    # Rounding leaves more beside the error that is tolerated.
    assert true <= {F64: 3e-8, torch.float32: 1e-4}[dtype] + 4 * eps / (1 - rate)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize(
    "solver", [None, im.Broyden(), im.NewtonKrylov(), im.Newton(), im.ScipyRoot("hybr")],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
@pytest.mark.parametrize(
    "f",
    [
        lambda z: z + 1,
        lambda z: z + 1 / (1 + z * z),
        lambda z: z + torch.exp(-z),
        lambda z: (z * z + 1).sqrt(),
    ],
    ids=["a shift", "an algebraic tail", "an exponential tail", "a hyperbola"],
)
def test_a_map_without_a_fixed_point_has_none_far_out(f, solver, dtype):
    # There `f(z)` differs from `z` by less than a rounding.
    solution = im.fixed_point(f, torch.zeros(2, dtype=dtype), solver=solver, on_failure="accept")
    assert not bool(solution.converged) or solution.error.item() > 0.01


@pytest.mark.parametrize("solver", [None, im.Newton()], ids=lambda s: type(s).__name__)
def test_an_unknown_that_is_exactly_zero_is_known_to_rounding(solver):
    # An equation whose terms are all zero is not rounded.
    solution = im.root(
        lambda z: torch.stack([z[0] - 1, z[1] * (1 + z[0])]), column(3.0, 2.0), solver=solver
    )
    assert solution.value.tolist() == [1.0, 0.0]
    assert solution.error.item() <= 4 * torch.finfo(F64).eps


def test_a_refused_claim_says_why():
    with pytest.raises(im.SolveError, match="no root is near"):
        im.root(lambda z: torch.exp(-z), column(0.0), solver=im.Newton())


def test_the_steps_of_a_system_do_not_depend_on_its_neighbours():
    starts = column(1e5, 3.0, -1e8)

    def solve(z0):
        return im.root(lambda z: z**3 + z - 5, z0, batch_dims=1, solver=im.Newton())

    together = solve(starts)
    for i, start in enumerate(starts):
        alone = solve(start[None])
        assert torch.equal(alone.value[0], together.value[i])
        assert alone.steps.item() == together.steps[i].item()
        assert alone.error.item() == together.error[i].item()


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("rate", [0.99, 0.999, 0.9999])
def test_an_extrapolation_does_not_hide_the_slowest_part_of_the_error(rate, dtype):
    # Residuals of Anderson's method fall fast long before the slowest of sixty rates is resolved.
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        axes = torch.linalg.qr(torch.randn(60, 60, dtype=F64, generator=generator)).Q
        A = (axes * (rate * torch.linspace(-1, 1, 60, dtype=F64))) @ axes.mT
        A, c = A.to(dtype), torch.randn(60, dtype=dtype, generator=generator)
        want = torch.linalg.solve(torch.eye(60, dtype=F64) - A.double(), c.double())
        solution = im.fixed_point(
            lambda z, A=A, c=c: A @ z + c, torch.zeros(60, dtype=dtype), on_failure="accept"
        )
        if bool(solution.converged):
            error = torch.linalg.vector_norm(solution.value - want) / torch.linalg.vector_norm(want)
            assert solution.error >= error / 10
