"""Equations in compiled code as layers: exact derivatives, by any solver, and clear errors."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numba
import numpy as np
import pytest
import torch
from compiled_equations import (
    COUPLED,
    KEPLER,
    KEPLER_WITH_JACOBIANS,
    coupled_jacobians,
    coupled_systems,
    kepler,
    kepler_systems,
)
from implicitly import (
    GMRES,
    Broyden,
    CompilationError,
    ComplexStepError,
    Exact,
    Newton,
    NumbaEquation,
    NumbaRoot,
    Stopping,
    fixed_point,
    root,
)
from torch import Tensor

EPS = float(np.finfo(np.float64).eps)
TIGHT = Stopping(rtol=0.0, atol=1e-13)


def orbit(p: Tensor, z0: Tensor, equation: NumbaEquation = KEPLER, **options: Any) -> Tensor:
    options = {"solver": NumbaRoot(), "stopping": TIGHT, "batch_dims": z0.ndim - 1, **options}
    value: Tensor = root(equation, z0, p, **options).value
    return value


def slopes(E: Tensor, p: Tensor) -> Tensor:
    """`dE/dM` and `dE/de` in closed form."""
    by_mean = 1 / (1 - p[..., 1:] * torch.cos(E))
    return torch.cat([by_mean, torch.sin(E) * by_mean], dim=-1)


def curvatures(E: Tensor, p: Tensor) -> Tensor:
    """Second derivatives of `E` by `(M, e)`, by differentiating the closed form once more."""
    e, s, c = p[..., 1], torch.sin(E[..., 0]), torch.cos(E[..., 0])
    g = 1 / (1 - e * c)
    mean_mean = -e * s * g**3
    mean_e = g**2 * (c - e * s * s * g)
    e_e = s * g**2 * (2 * c - e * s * s * g)
    return torch.stack(
        [torch.stack([mean_mean, mean_e], -1), torch.stack([mean_e, e_e], -1)], dim=-2
    )


# --- First derivatives ---------------------------------------------------------------------------


@pytest.mark.parametrize("equation", [KEPLER, KEPLER_WITH_JACOBIANS], ids=["complex step", "given"])
@pytest.mark.parametrize(
    "options",
    [{}, {"solver": Newton()}, {"solver": Broyden(), "gradient": Exact(solver=GMRES())}],
    ids=["NumbaRoot", "Newton", "Broyden"],
)
def test_gradients_are_those_of_the_closed_form(
    equation: NumbaEquation, options: dict[str, Any]
) -> None:
    z0, p = kepler_systems(100, seed=0, largest=0.9)
    p.requires_grad_()
    E = orbit(p, z0, equation, **options)
    (gradient,) = torch.autograd.grad(E.sum(), p)
    with torch.no_grad():
        exact = slopes(E, p)
        # Errors of E (1e-13 over the smallest slope, 0.1) and of the adjoint (1e-10), at curvature.
        size = curvatures(E, p).abs().amax((1, 2)).unsqueeze(1)
    assert bool(
        ((gradient - exact).abs() <= 1e-12 * size + 2e-10 * exact.abs().amax(1, True)).all()
    )


def test_gradients_of_coupled_unknowns_are_those_of_dense_algebra() -> None:
    z0, p = coupled_systems(20, seed=1)
    p.requires_grad_()
    weights = torch.linspace(-1, 2, 60, dtype=torch.float64).reshape(20, 3)
    z = orbit(p, z0, COUPLED)
    (gradient,) = torch.autograd.grad((weights * z).sum(), p)
    by_z, by_p = coupled_jacobians(z.detach().numpy(), p.detach().numpy())
    u = np.linalg.solve(np.swapaxes(by_z, 1, 2), weights.numpy()[:, :, None])
    exact = -np.swapaxes(by_p, 1, 2) @ u
    np.testing.assert_allclose(gradient.numpy()[:, :3], exact[:, :, 0], rtol=1e-9, atol=1e-9)
    # The root does not depend on the unit of F, and is proportional to that of z.
    np.testing.assert_allclose(gradient.numpy()[:, 4], 0, atol=1e-11)
    np.testing.assert_allclose(
        gradient.numpy()[:, 3], (weights * z).sum(1).detach().numpy(), rtol=1e-9, atol=1e-9
    )


def test_complex_steps_are_exact_to_rounding() -> None:
    generator = np.random.default_rng(2)
    z = torch.from_numpy(generator.uniform(-3, 3, (50, 3)))
    _, p = coupled_systems(50, seed=2)
    by_z, by_p = torch.func.vmap(torch.func.jacrev(COUPLED, argnums=(0, 1)))(z, p)
    exact_z, exact_p = coupled_jacobians(z.numpy(), p.numpy())
    np.testing.assert_allclose(by_z.numpy(), exact_z, rtol=8 * EPS, atol=0)
    np.testing.assert_allclose(by_p.numpy()[..., :3], exact_p, rtol=8 * EPS, atol=0)
    forward = torch.func.vmap(torch.func.jacfwd(COUPLED))(z, p)
    np.testing.assert_allclose(forward.numpy(), exact_z, rtol=8 * EPS, atol=0)


def test_function_transforms_work_on_solutions() -> None:
    z0, p = kepler_systems(6, seed=3, largest=0.8)
    exact = slopes(orbit(p, z0), p)

    def one(p: Tensor, z0: Tensor) -> Tensor:
        return orbit(p, z0)[0]

    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        found = torch.func.vmap(transform(one))(p, z0)
        assert torch.allclose(found, exact, rtol=1e-9, atol=0)
    # Starts are mapped, parameters are not, and the other way round; twice.
    assert torch.allclose(torch.func.vmap(one, (None, 0))(p[0], z0), orbit(p[:1], z0[:1])[0])
    assert torch.allclose(torch.func.vmap(one, (0, None))(p, z0[0]), orbit(p, z0)[:, 0])
    grid = torch.func.vmap(torch.func.vmap(one, (0, None)), (None, 0))(p, z0)
    assert torch.allclose(grid, orbit(p, z0)[:, 0].expand(6, 6))
    tangent = torch.func.jvp(lambda p: orbit(p, z0), (p,), (torch.ones_like(p),))[1]
    assert torch.allclose(tangent, exact.sum(1, keepdim=True), rtol=1e-9, atol=0)


def test_parameters_that_systems_share_gather_their_gradients() -> None:
    z0, p = kepler_systems(6, seed=4, largest=0.8)
    shared = p[0].clone().requires_grad_()
    E = orbit(shared, z0)
    (gradient,) = torch.autograd.grad(E.sum(), shared)
    assert torch.allclose(gradient, 6 * slopes(E, shared.detach())[0].detach(), rtol=1e-9)


def test_more_than_one_batch_axis_and_none_are_solved_alike() -> None:
    z0, p = kepler_systems(6, seed=5)
    flat = orbit(p, z0)
    assert torch.equal(orbit(p.reshape(2, 3, 2), z0.reshape(2, 3, 1)), flat.reshape(2, 3, 1))
    assert torch.equal(orbit(p[4], z0[4]), flat[4])


# --- Higher derivatives --------------------------------------------------------------------------


def test_given_jacobians_have_second_derivatives_by_complex_step() -> None:
    z0, p = kepler_systems(8, seed=6, largest=0.8)
    exact = curvatures(orbit(p, z0), p)

    def one(p: Tensor, z0: Tensor) -> Tensor:
        return orbit(p, z0, KEPLER_WITH_JACOBIANS)[0]

    hessian = torch.func.vmap(torch.func.hessian(one))(p, z0)
    scale = exact.abs().amax((1, 2), keepdim=True)
    assert bool(((hessian - exact).abs() <= 1e-8 * scale).all())
    assert torch.autograd.gradgradcheck(
        lambda p: orbit(p, z0, KEPLER_WITH_JACOBIANS), p.requires_grad_()
    )


def test_orders_that_there_are_not_are_errors_with_the_remedy() -> None:
    z0, p = kepler_systems(2, seed=7)

    def one(p: Tensor, equation: NumbaEquation) -> Tensor:
        return orbit(p, z0, equation).sum()

    with pytest.raises(
        ComplexStepError, match=r"of kepler.*both jacobian= and parameter_jacobian="
    ):
        torch.func.hessian(one)(p, KEPLER)
    with pytest.raises(ComplexStepError, match=r"through kepler_by_\w.*none of higher order"):
        torch.func.jacrev(torch.func.hessian(one))(p, KEPLER_WITH_JACOBIANS)


# --- Functions that complex steps cannot take ----------------------------------------------------


def absolute(z: Any, p: Any, out: Any) -> None:
    out[0] = z[0] + 0.5 * abs(z[0]) - p[0]


def real_part(z: Any, p: Any, out: Any) -> None:
    out[0] = z[0] ** 3 + z[0] - p[0].real


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (absolute, r"∂out\[0\]/∂z\[0\] comes out as 1, where differences give 1.5"),
        (real_part, r"∂out\[0\]/∂parameters\[0\] comes out as -?0, where differences give -1"),
    ],
)
def test_a_complex_step_that_is_wrong_is_an_error_that_says_where(
    function: Any, found: str
) -> None:
    z = torch.tensor([[1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    value = NumbaEquation(function, n=1)(z, z)
    with pytest.raises(ComplexStepError, match=rf"(?s){function.__name__}.*{found}.*jacobian="):
        value.sum().backward()


def test_given_jacobians_take_the_place_of_complex_steps(monkeypatch: Any) -> None:
    monkeypatch.delattr("implicitly.implicit.compiled.compiled_kernels.complex_step_kernel")
    z0, p = kepler_systems(5, seed=8, largest=0.8)
    E = orbit(p.requires_grad_(), z0, KEPLER_WITH_JACOBIANS)
    (gradient,) = torch.autograd.grad(E.sum(), p)
    assert torch.allclose(gradient, slopes(E, p).detach(), rtol=1e-9)


def by_math(z: Any, p: Any, out: Any) -> None:
    out[0] = z[0] - p[1] * math.sin(z[0]) - p[0]


def test_a_function_without_complex_support_says_what_its_gradient_needs() -> None:
    z0, p = kepler_systems(3, seed=8)
    value = NumbaEquation(by_math, n=1)(z0, p.requires_grad_())
    assert torch.allclose(value.detach(), KEPLER(z0, p).detach(), rtol=0, atol=4 * EPS * 7)
    with pytest.raises(
        CompilationError,
        match=r"(?s)by_math does not compile for complex128.*sin.*np.sin, not math.sin",
    ):
        value.sum().backward()


def unknown_name(z: Any, p: Any, out: Any) -> None:
    out[0] = z[0] - nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_function_that_does_not_compile_is_an_error_that_names_it() -> None:
    with pytest.raises(
        CompilationError, match=r"unknown_name does not compile for float64.*nowhere"
    ):
        NumbaEquation(unknown_name, n=1)


# --- Input ---------------------------------------------------------------------------------------


@numba.njit
def unwritten(z: Any, p: Any, out: Any) -> None:
    if p[0] == 0:
        out[0] = z[0]


def test_an_entry_that_is_not_written_is_not_taken_from_elsewhere() -> None:
    value = NumbaEquation(unwritten, n=1)(torch.ones(2, 1), torch.tensor([[0.0], [1.0]]))
    assert value[0].item() == 1.0
    assert math.isnan(value[1].item())


@pytest.mark.parametrize(
    ("z", "p", "error", "message"),
    [
        (torch.ones(3, 2), torch.ones(3, 2), ValueError, r"\(\*batch, 1\).*got \(3, 2\)"),
        (
            torch.ones(3, 1),
            torch.ones(2, 2),
            ValueError,
            r"\(2, 2\) do not fit z of shape \(3, 1\)",
        ),
        (torch.ones(3, 1), torch.ones(3, 2).int(), TypeError, "parameters of kepler.*int32"),
        (np.ones((3, 1)), torch.ones(3, 2), TypeError, "z of kepler.*ndarray"),
        (torch.ones(3, 1), torch.tensor(1.0), ValueError, "got a number"),
    ],
)
def test_arguments_that_do_not_fit_are_errors(z: Any, p: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        KEPLER(z, p)


def test_options_that_make_no_sense_are_errors() -> None:
    with pytest.raises(ValueError, match="n must be an integer ≥ 1"):
        NumbaEquation(kepler, n=0)
    with pytest.raises(TypeError, match=r"function must be a function decorated with numba.njit"):
        NumbaEquation(3, n=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="jacobian must be a function"):
        NumbaEquation(kepler, n=1, jacobian=torch.nn.Linear(1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_dtypes_come_back_as_they_went_in(dtype: torch.dtype) -> None:
    z0, p = kepler_systems(50, seed=9, largest=0.8)
    z0, p = z0.to(dtype), p.to(dtype).requires_grad_()
    solution = root(KEPLER, z0, p, solver=NumbaRoot(), batch_dims=1)
    assert bool(solution.converged.all())
    assert solution.value.dtype == dtype
    (gradient,) = torch.autograd.grad(solution.value.sum(), p)
    assert gradient.dtype == dtype
    # The root of the parameters as they are in `dtype`; |E| < 8 and slopes ≥ 0.2.
    E = orbit(p.detach().double(), z0.double())
    error = (solution.value.double() - E).abs()
    assert bool((error <= 8 * 8 * torch.finfo(dtype).eps / 0.2).all())
    if dtype == torch.float32:
        exact = slopes(E, p.detach().double())
        assert torch.allclose(gradient.double(), exact, rtol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_tensors_on_an_accelerator_are_solved_on_the_host_and_come_back() -> None:
    z0, p = kepler_systems(50, seed=10)
    E = orbit(p, z0)
    there = p.cuda().requires_grad_()
    found = orbit(there, z0.cuda())
    found.sum().backward()
    assert found.is_cuda
    assert there.grad is not None
    assert torch.allclose(found.cpu(), E, rtol=1e-12)
    assert torch.allclose(there.grad.cpu(), slopes(E, p), rtol=1e-9)


@numba.njit
def alone(z: Any, p: Any, out: Any) -> None:
    out[0] = np.cos(z[0])


def test_an_equation_may_have_no_parameters() -> None:
    equation = NumbaEquation(alone, n=1)
    z = fixed_point(equation, torch.ones(2, 1).double(), solver=Newton(), batch_dims=1).value
    # Dottie's number.
    assert torch.allclose(z, torch.full((2, 1), 0.7390851332151607).double(), rtol=1e-10)


def test_an_equation_can_be_sent_to_another_process() -> None:
    z0, p = kepler_systems(3, seed=11)
    copy = pickle.loads(pickle.dumps(KEPLER))
    assert torch.equal(copy(z0, p), KEPLER(z0, p))


def test_a_plain_function_is_compiled() -> None:
    z0, p = kepler_systems(3, seed=12)
    assert torch.equal(NumbaEquation(kepler.py_func, n=1)(z0, p), KEPLER(z0, p))


def test_systems_that_raise_have_no_gradient_and_leave_the_others_theirs() -> None:
    z = torch.tensor([[4.0], [-1.0], [9.0]], dtype=torch.float64, requires_grad=True)
    value = NumbaEquation(roots_only, n=1)(z, torch.zeros(1).double())
    (gradient,) = torch.autograd.grad(value.sum(), z)
    assert value.isnan().flatten().tolist() == [False, True, False]
    assert gradient[[0, 2], 0].tolist() == [0.25, pytest.approx(1 / 6)]
    assert math.isnan(gradient[1].item())


@numba.njit
def roots_only(z: Any, p: Any, out: Any) -> None:
    if z[0].real < 0:
        raise ValueError
    out[0] = np.sqrt(z[0])
