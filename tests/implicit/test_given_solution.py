"""Solutions that another solver finds: judged by the equation, with exact derivatives in every mode."""

import numpy as np
import pytest
import torch
from implicitly import (
    Exact,
    GivenSolution,
    MissingDerivativeError,
    Newton,
    SolveError,
    Status,
    Stopping,
    Unrolled,
    fixed_point,
    implicit_function,
    root,
)
from implicitly.verification import assert_gradients
from scipy.optimize import brentq
from scipy.optimize import root as scipy_root
from torch.autograd import gradcheck, gradgradcheck

X = torch.tensor([2.0, 0.5], dtype=torch.float64)


def F(z, x):
    return torch.stack([z[0] ** 2 + z[1] - x[0], z[0] - z[1] ** 3 + x[1]])


@implicit_function(F, arrays=True)
def by_scipy(x):
    def residual(z):
        return np.array([z[0] ** 2 + z[1] - x[0], z[0] - z[1] ** 3 + x[1]])

    return scipy_root(residual, [1.0, 1.0], tol=1e-14).x


def wrong_by(distance, **options):
    """The answer `(1 + distance) √x` for the equation `z² = x`, in several systems if it has several."""
    return implicit_function(lambda z, x: z * z - x, batch_dims=1, **options)(
        lambda x: x.sqrt() * (1 + distance)
    )


def test_the_answer_is_the_value_and_is_judged():
    solution = by_scipy(X)
    own = root(F, torch.ones(2, dtype=torch.float64), X)
    assert torch.allclose(solution.value, own.value, rtol=1e-10)
    assert solution.converged
    assert solution.error < 1e-10
    assert solution.steps == 0
    residual = F(solution.value, X)
    assert torch.allclose(solution.residual_norm, residual.square().mean().sqrt())


def test_derivatives_of_both_modes_and_second_order():
    x = X.clone().requires_grad_()

    def value(x):
        return by_scipy(x).value

    assert gradcheck(value, (x,), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(value, (x,))


def test_transforms_agree_with_a_native_solve():
    def own(x):
        return root(F, torch.ones(2, dtype=torch.float64), x, stopping=Stopping(rtol=1e-13)).value

    def given(x):
        return by_scipy(x).value

    for transform in (torch.func.jacrev, torch.func.jacfwd, torch.func.hessian):
        assert torch.allclose(transform(given)(X), transform(own)(X), rtol=1e-8)
    rows = torch.stack([X, X + 0.3, 2 * X])
    assert torch.allclose(torch.vmap(given)(rows), torch.vmap(own)(rows), rtol=1e-10)
    both = torch.vmap(torch.func.jacrev(given))(rows)
    assert torch.allclose(both, torch.stack([torch.func.jacrev(own)(row) for row in rows]))
    twice = torch.vmap(torch.vmap(given, in_dims=1), in_dims=0)(rows.mT.expand(2, 2, 3))
    assert torch.allclose(twice[1], torch.vmap(own)(rows))


def test_no_gradients_are_recorded_without_need():
    x = X.clone().requires_grad_()
    with torch.no_grad():
        assert not by_scipy(x).value.requires_grad
    with torch.inference_mode():
        assert torch.equal(by_scipy(x).value, by_scipy(X).value)


def test_each_system_is_judged_alone():
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    distance = torch.tensor([0.0, 1e-3, torch.nan], dtype=torch.float64)
    solution = wrong_by(distance, on_failure="accept")(x)
    assert solution.status.tolist() == [Status.CONVERGED, Status.STALLED, Status.NON_FINITE]
    # Newton's step from (1 + d) √x is d √x up to d².
    assert solution.error[1].item() == pytest.approx(1e-3, rel=2e-3)
    assert torch.equal(solution.value[:2], (x.sqrt() * (1 + distance))[:2])


def test_a_wrong_answer_raises_with_its_distance():
    with pytest.raises(
        SolveError, match="given solution is 0.001 of an unknown, 1e-08 is accepted"
    ):
        wrong_by(1e-3)(X)
    with pytest.warns(UserWarning, match="GivenSolution did not solve"):
        wrong_by(1e-3, on_failure="warn")(X)


@pytest.mark.parametrize(
    ("stopping", "accepted"),
    [
        (Stopping(rtol=1e-2), True),
        (Stopping(rtol=1e-4), False),
        # (1 + d)² x − x is 4e-3 and 1e-3.
        (Stopping(atol=1e-2), True),
        (Stopping(atol=1e-4), False),
        (Stopping(atol_residual=1e-2), True),
        (Stopping(atol_residual=1e-4), False),
        (Stopping(atol_residual=1e-2, rtol=1e-2), True),
        (Stopping(atol_residual=1e-2, rtol=1e-5), False),
        (Stopping(atol_residual=1e-4, rtol=1e-2), False),
    ],
    ids=str,
)
def test_tolerances_are_those_of_every_call(stopping, accepted):
    solution = wrong_by(1e-3, on_failure="accept", stopping=stopping)(X)
    assert solution.converged.tolist() == [accepted] * 2


def test_a_tolerance_relative_to_the_start_is_refused():
    with pytest.raises(ValueError, match="rtol_residual is relative to the residual at the start"):
        wrong_by(1e-3, stopping=Stopping(rtol_residual=1e-3))(X)


def test_nothing_is_accepted_of_which_nothing_is_known():
    def hidden(z, x):
        return (z * z - x).detach()

    solve = implicit_function(hidden, on_failure="accept")(torch.sqrt)
    solution = solve(X)
    assert not solution.converged
    assert solution.error.isnan()
    with pytest.raises(SolveError, match="nothing is known of the error"):
        implicit_function(hidden)(lambda x: x.sqrt() + 1e-9)(X)
    x = X.clone().requires_grad_()
    by_residual = implicit_function(hidden, stopping=Stopping(atol=1e-8))(torch.sqrt)(x)
    assert by_residual.converged
    with pytest.raises(MissingDerivativeError):
        by_residual.value.sum().backward()


def test_fixed_points():
    def f(z, x):
        return 0.5 * torch.cos(z) + x

    @implicit_function(f, form="fixed_point", arrays=True)
    def iterated(x):
        z = np.zeros_like(x)
        for _ in range(60):
            z = 0.5 * np.cos(z) + x
        return z

    x = X.clone().requires_grad_()
    given, own = iterated(x), fixed_point(f, torch.zeros_like(x), x, stopping=Stopping(rtol=1e-13))
    assert given.converged
    (gradient,) = torch.autograd.grad(given.value.sum(), x)
    z = given.value.detach()
    assert torch.allclose(z, own.value)
    assert torch.allclose(gradient, 1 / (1 + 0.5 * torch.sin(z)))
    half_way = implicit_function(f, form="fixed_point", on_failure="accept")(lambda x: x)
    assert not half_way(x).converged


def test_structures_numbers_keywords_and_constants():
    def residual(z, p, *, power):
        return {"a": z["a"] ** power - p["x"], "b": (z["b"][0] - z["a"] * p["y"],)}

    @implicit_function(residual)
    def closed(p, *, power):
        a = float(p["x"]) ** (1 / power)
        return {"a": a, "b": (np.float64(a * float(p["y"])),)}

    p = {name: torch.tensor(v, requires_grad=True) for name, v in (("x", 8.0), ("y", 3.0))}
    solution = closed(p, power=3)
    assert solution.value["a"].dtype == torch.float32
    solution.value["b"][0].backward()
    # b = y x^(1/3): 3 / (3 · 4) and 2.
    assert p["x"].grad.item() == pytest.approx(0.25, rel=1e-5)
    assert p["y"].grad.item() == pytest.approx(2.0, rel=1e-5)


def test_leaves_that_the_equation_closes_over_get_gradients():
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    solve = implicit_function(lambda z: z**3 + z - a)(
        lambda: brentq(lambda z: z**3 + z - a.item(), 0.0, 2.0)
    )
    solve().value.backward()
    assert a.grad.item() == pytest.approx(0.25)


def test_a_number_keeps_its_digits():
    x = torch.tensor(2.0, dtype=torch.float64)
    for answer in (2.0**0.5, np.float64(2.0**0.5), np.array(2.0**0.5)):
        solution = implicit_function(lambda z, x: z * z - x)(lambda x, answer=answer: answer)(x)
        assert solution.value.item() == 2.0**0.5
        alone = implicit_function(lambda z: z * z - 2)(lambda answer=answer: answer)()
        assert alone.value.dtype == torch.float64


def test_an_answer_that_is_an_argument_or_has_a_graph():
    x = X.clone().requires_grad_()
    for answer in (lambda x: x, lambda x: x * 1.0):
        value = implicit_function(lambda z, x: z - x)(answer)(x).value
        (gradient,) = torch.autograd.grad(value.sum(), x)
        assert torch.allclose(gradient, torch.ones_like(x), rtol=1e-9)


def test_auxiliary_outputs_and_another_adjoint():
    solve = implicit_function(
        lambda z, x: (z * z - x, z * x), has_aux=True, gradient=Exact(solver=Newton())
    )(torch.sqrt)
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(solve(x).aux.sum(), x)
    assert torch.allclose(gradient, 1.5 * X.sqrt())


def test_the_same_by_a_start_and_the_solver():
    solution = root(lambda z: z * z - 4.0, torch.tensor(2.0), solver=GivenSolution())
    assert solution.converged
    wrong = torch.tensor(2.1)
    with pytest.raises(SolveError, match="given solution is 0.05 of an unknown"):
        root(lambda z: z * z - 4.0, wrong, solver=GivenSolution())


def test_a_given_layer_is_verified():
    def layer(x):
        return by_scipy(x).value

    x = X.clone().requires_grad_()
    assert_gradients(layer, (x,), residual=F)


def test_errors_name_what_is_wrong():
    with pytest.raises(TypeError, match="F must be callable, got 3"):
        implicit_function(3)
    with pytest.raises(TypeError, match="arrays must be True or False"):
        implicit_function(F, arrays=1)
    with pytest.raises(TypeError, match="Unrolled"):
        implicit_function(F, gradient=Unrolled())
    with pytest.raises(TypeError, match="must be a tensor, an array, a number"):
        implicit_function(F)(lambda x: "text")(X)
    with pytest.raises(ValueError, match="z0 has shape"):
        implicit_function(F)(lambda x: np.zeros(3))(X)
    with pytest.raises(ZeroDivisionError):
        implicit_function(F)(lambda x: 1 / 0)(X)
    with pytest.raises(ValueError, match="vmap over no slices"):
        torch.vmap(lambda x: by_scipy(x).value)(torch.zeros(0, 2, dtype=torch.float64))
