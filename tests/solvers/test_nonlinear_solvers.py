"""Every nonlinear solver, in either form, against answers found in other ways."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    Anderson,
    Broyden,
    Homotopy,
    SolveError,
    Solver,
    Status,
    Stopping,
    fixed_point,
    root,
)
from pairs import few_examples, in_pairs
from torch import Tensor

from .references import (
    FORMS,
    NONLINEAR,
    Form,
    TanhSystems,
    as_float64,
    norms,
    solve_form,
    tanh_map,
)

every_solver = pytest.mark.parametrize("solver", NONLINEAR.values(), ids=NONLINEAR.keys())
every_form = pytest.mark.parametrize("form", FORMS)
without_plain_iteration = pytest.mark.parametrize(
    "solver",
    [solver for name, solver in NONLINEAR.items() if name != "FixedPointIteration"],
    ids=[name for name in NONLINEAR if name != "FixedPointIteration"],
)

# The default tolerances, as documented by `Stopping`.
RTOL = {torch.float64: 1e-10, torch.float32: 1e-6}


def check_against_newton(
    systems: TanhSystems, form: Form, value: Tensor, dtype: torch.dtype
) -> None:
    """The residual meets the tolerance but for rounding, and the error what a contraction allows."""
    z = as_float64(value)
    start = systems.residual(np.zeros_like(z))
    allowed = RTOL[dtype] * norms(z if form == "fixed_point" else start)
    allowed = allowed + systems.rounding(z, dtype)
    assert (norms(systems.residual(z)) <= allowed).all()
    assert (norms(z - systems.answer()) <= allowed / (1 - systems.norm)).all()


@in_pairs(solver=NONLINEAR, form=FORMS, dtype=(torch.float64, torch.float32))
@few_examples()
@given(
    batch=st.integers(1, 4),
    n=st.integers(1, 6),
    norm=st.sampled_from([0.3, 0.6, 0.9]),
    seed=st.integers(0, 1000),
)
def test_contractive_systems_end_at_the_root_that_dense_newton_finds(
    solver: Solver, form: Form, dtype: torch.dtype, batch: int, n: int, norm: float, seed: int
) -> None:
    systems = TanhSystems.draw(batch, n, norm, seed, dtype)
    z0 = torch.zeros(batch, n, dtype=dtype)
    solution = solve_form(form, tanh_map, z0, *systems.tensors(dtype), solver=solver, batch_dims=1)
    assert solution.value.dtype == dtype
    assert bool(solution.converged.all())
    check_against_newton(systems, form, solution.value, dtype)


@in_pairs(solver=NONLINEAR, form=FORMS, dtype=(torch.float16, torch.bfloat16))
@few_examples()
@given(n=st.integers(1, 5), seed=st.integers(0, 1000))
def test_half_precision_reaches_its_floor_or_says_that_it_did_not(
    solver: Solver, form: Form, dtype: torch.dtype, n: int, seed: int
) -> None:
    if isinstance(solver, Homotopy):
        pytest.skip("its path is known to 1e-4 of the first residual: less than a unit of rounding")
    systems = TanhSystems.draw(3, n, 0.5, seed, dtype)
    solution = solve_form(
        form,
        tanh_map,
        torch.zeros(3, n, dtype=dtype),
        *systems.tensors(dtype),
        solver=solver,
        batch_dims=1,
        on_failure="accept",
    )
    z = as_float64(solution.value)
    assert solution.value.dtype == dtype
    assert set(solution.status.tolist()) <= {Status.CONVERGED, Status.STALLED, Status.MAX_STEPS}
    # Four units is the default tolerance; the floor of the map adds what its rounding allows.
    scale = norms(z) if form == "fixed_point" else norms(np.tanh(systems.x))
    floor = 4 * torch.finfo(dtype).eps * scale + systems.rounding(z, dtype)
    assert (norms(z - systems.answer()) <= floor / (1 - systems.norm)).all()


def solve_expanding_affine_map(solver: Solver, form: Form, n: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    basis = np.linalg.qr(generator.standard_normal((n, n)))[0]
    signs = np.where(np.arange(n) % 2, -1.0, 1.0)
    # Eigenvalues of the map between 1.5 and 3 in size, so that 1/2 ≤ |I − M| ≤ 4.
    M = basis @ np.diag(signs * generator.uniform(1.5, 3.0, n)) @ basis.T
    c = generator.standard_normal(n)
    solution = solve_form(
        form,
        lambda z, M, c: M @ z + c,
        torch.zeros(n, dtype=torch.float64),
        torch.from_numpy(M),
        torch.from_numpy(c),
        solver=solver,
    )
    answer = np.linalg.solve(np.eye(n) - M, c)
    scale = np.linalg.norm(answer if form == "fixed_point" else c)
    # The smallest singular value of I − M is 1/2.
    assert np.linalg.norm(as_float64(solution.value) - answer) <= 1.1 * 2 * 1e-10 * scale


@pytest.mark.parametrize(
    "solver",
    [
        NONLINEAR["Anderson-II"],
        NONLINEAR["Broyden-good"],
        Broyden(kind="bad", line_search=False),
        NONLINEAR["NewtonKrylov-GMRES"],
        NONLINEAR["NewtonKrylov-BiCGStab"],
        NONLINEAR["Newton"],
    ],
    ids=lambda solver: type(solver).__name__,
)
@every_form
@given(n=st.integers(1, 5), seed=st.integers(0, 1000))
def test_affine_maps_that_expand_end_at_the_solution_of_the_linear_equation(
    solver: Solver, form: Form, n: int, seed: int
) -> None:
    solve_expanding_affine_map(solver, form, n, seed)


@pytest.mark.xfail(
    strict=True,
    raises=SolveError,
    reason="the line search rejects what the bad update needs to learn from: it stalls on half of "
    "these maps, and without a line search on none",
)
def test_bad_broyden_with_a_line_search_solves_an_expanding_affine_map() -> None:
    solve_expanding_affine_map(Broyden(kind="bad"), "fixed_point", n=2, seed=0)


def test_safeguarded_anderson_of_type_one_solves_an_expanding_affine_map() -> None:
    # Here the safeguard forgets moves while the equations for the weights are nearly singular.
    solve_expanding_affine_map(Anderson(kind="I"), "root", n=4, seed=50)


@without_plain_iteration
@pytest.mark.parametrize("n", [5, 40])
def test_the_broyden_tridiagonal_equation_has_the_root_that_minpack_finds(
    solver: Solver, n: int
) -> None:
    def in_numpy(z: Any) -> Any:
        padded = np.concatenate([[0.0], z, [0.0]])
        return (3 - 2 * z) * z - padded[:-2] - 2 * padded[2:] + 1

    def residual(z: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(z, (1, 1))
        return (3 - 2 * z) * z - padded[:-2] - 2 * padded[2:] + 1

    start = -np.ones(n)
    reference = scipy.optimize.root(in_numpy, start, tol=1e-14)
    assert reference.success
    solution = root(residual, torch.from_numpy(start), solver=solver)
    # The Jacobian at the root is diagonally dominant by about one: ‖J⁻¹‖∞ is of order one.
    np.testing.assert_allclose(as_float64(solution.value), reference.x, rtol=0, atol=1e-8)


@every_solver
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_a_zero_dimensional_unknown_is_one_system_of_one_number(
    solver: Solver, start: float
) -> None:
    answer = scipy.optimize.brentq(lambda z: np.cos(z) - z, 0, 1, xtol=1e-15)
    solution = fixed_point(torch.cos, torch.tensor(start, dtype=torch.float64), solver=solver)
    assert solution.value.shape == solution.status.shape == solution.steps.shape == ()
    # |r'| = 1 + sin(z) ≥ 1.67 there.
    assert abs(solution.value.item() - answer) <= 1e-10


@in_pairs(
    solver=NONLINEAR,
    batch_shape={"none": (), "one axis": (3,), "two axes": (2, 3)},
    form=FORMS,
)
def test_statuses_have_the_shape_of_the_batch_axes(
    solver: Solver, form: Form, batch_shape: tuple[int, ...]
) -> None:
    systems = TanhSystems.draw(6, 4, 0.7, seed=1)
    W, x = systems.tensors(torch.float64)
    lead = (2, 3) if len(batch_shape) != 1 else (3, 2)

    def f(z: Tensor) -> Tensor:
        return tanh_map(z.reshape(6, 4), W, x).reshape(z.shape)

    solution = solve_form(
        form,
        f,
        torch.zeros(*lead, 4, dtype=torch.float64),
        solver=solver,
        batch_dims=len(batch_shape),
    )
    for entries in (solution.status, solution.residual_norm, solution.steps, solution.converged):
        assert entries.shape == batch_shape
    # Coupled systems share one tolerance: some may be less accurate than if solved alone.
    answer = systems.answer()
    error = np.linalg.norm(as_float64(solution.value).reshape(6, 4) - answer)
    whole = np.linalg.norm(answer if form == "fixed_point" else np.tanh(systems.x))
    assert error <= 1e-10 * whole / (1 - systems.norm) * 1.01


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


def as_tuple(first: Tensor, second: Tensor) -> Any:
    return (first, second)


def as_nested(first: Tensor, second: Tensor) -> Any:
    return {"b": [first], "a": {"inner": second}}


STRUCTURES = {
    "tuple": (as_tuple, lambda z: z),
    "nested dict": (as_nested, lambda z: (z["b"][0], z["a"]["inner"])),
    "named tuple": (Pair, lambda z: (z.first, z.second)),
}


@in_pairs(solver=NONLINEAR, structure=STRUCTURES, form=FORMS)
def test_an_unknown_may_be_any_pytree(solver: Solver, form: Form, structure: Any) -> None:
    build, take = structure
    systems = TanhSystems.draw(3, 6, 0.7, seed=2)
    W, x = systems.tensors(torch.float64)

    def join(z: Any) -> Tensor:
        first, second = take(z)
        return torch.cat([first, second.flatten(1)], dim=1)

    def split(flat: Tensor) -> Any:
        return build(flat[:, :2], flat[:, 2:].unflatten(1, (2, 2)))

    def f(z: Any) -> Any:
        return split(tanh_map(join(z), W, x))

    def residual(z: Any) -> Any:
        return split(join(z) - tanh_map(join(z), W, x))

    z0 = split(torch.zeros(3, 6, dtype=torch.float64))
    call = fixed_point if form == "fixed_point" else root
    solution = call(f if form == "fixed_point" else residual, z0, solver=solver, batch_dims=1)
    assert type(solution.value) is type(z0)
    assert [leaf.shape for leaf in take(solution.value)] == [(3, 2), (3, 2, 2)]
    check_against_newton(systems, form, join(solution.value), torch.float64)


def test_leaves_of_an_unknown_keep_their_own_dtypes() -> None:
    z0 = (torch.zeros(2, dtype=torch.float32), torch.zeros(2, dtype=torch.float64))
    solution = fixed_point(lambda z: (torch.cos(z[0]), torch.cos(z[1])), z0)
    assert [leaf.dtype for leaf in solution.value] == [torch.float32, torch.float64]
    answer = scipy.optimize.brentq(lambda z: np.cos(z) - z, 0, 1)
    for leaf in solution.value:
        # The coarsest dtype sets the tolerance: 1e-6, divided by 1.67.
        np.testing.assert_allclose(leaf.numpy(), answer, rtol=1e-6)


@in_pairs(solver=NONLINEAR, shape=((0, 3), (2, 0), (0, 0)), form=FORMS)
def test_nothing_to_solve_is_solved_in_no_steps(
    solver: Solver, form: Form, shape: tuple[int, int]
) -> None:
    solution = solve_form(
        form, torch.cos, torch.zeros(shape, dtype=torch.float64), solver=solver, batch_dims=1
    )
    assert solution.value.shape == shape
    assert solution.status.shape == solution.residual_norm.shape == (shape[0],)
    assert bool(solution.converged.all())
    assert not bool(solution.steps.any())


@in_pairs(solver=NONLINEAR, view=("transposed", "expanded", "strided"), form=FORMS)
def test_starts_and_arguments_may_be_views(solver: Solver, form: Form, view: str) -> None:
    systems = TanhSystems.draw(4, 5, 0.7, seed=3)
    W, x = systems.tensors(torch.float64)
    if view == "transposed":
        z0 = torch.zeros(5, 4, dtype=torch.float64).T
        W, x = W.mT.contiguous().mT, x.T.contiguous().T
    elif view == "expanded":
        z0 = torch.zeros(1, 1, dtype=torch.float64).expand(4, 5)
        systems = TanhSystems(systems.W[:1].repeat(4, 0), systems.x[:1].repeat(4, 0), systems.norm)
        W, x = W[:1].expand(4, 5, 5), x[:1].expand(4, 5)
    else:
        z0 = torch.zeros(4, 10, dtype=torch.float64)[:, ::2]
        x = x.repeat_interleave(2, dim=1)[:, ::2]
    before = z0.clone()
    solution = solve_form(form, tanh_map, z0, W, x, solver=solver, batch_dims=1)
    check_against_newton(systems, form, solution.value, torch.float64)
    assert torch.equal(z0, before)


@every_solver
@every_form
def test_a_start_at_the_root_comes_back_as_a_new_tensor_at_the_cost_of_setting_out(
    solver: Solver, form: Form
) -> None:
    z0 = torch.zeros(2, 3, dtype=torch.float64)
    solution = solve_form(form, torch.sin, z0, solver=solver, batch_dims=1)
    assert torch.equal(solution.value, z0)
    assert solution.value is not z0
    assert solution.value.data_ptr() != z0.data_ptr()
    assert solution.steps.tolist() == [0, 0]
    # One evaluation there, and for some roots one product with the Jacobian, for a first step.
    assert solution.evaluations <= 2
    assert solution.counts.jvps <= 1


@without_plain_iteration
def test_a_double_root_is_approached_or_reported(solver: Solver) -> None:
    solution = root(
        lambda z: z**2, torch.full((3,), 0.7, dtype=torch.float64), solver=solver,
        on_failure="accept", batch_dims=1, stopping=Stopping(rtol=1e-8, max_steps=500),
    )  # fmt: skip
    value = as_float64(solution.value)
    np.testing.assert_allclose(as_float64(solution.residual_norm), value**2, rtol=1e-12)
    assert (value**2 <= 0.49 * 1e-8)[as_float64(solution.converged) == 1].all()
    assert bool(solution.converged.all())
