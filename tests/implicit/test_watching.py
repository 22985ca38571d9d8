"""A solve seen from outside: checks with iterates and statuses, lines of progress, the history."""

import time

import numpy as np
import pytest
import torch
from implicitly import (
    Anderson,
    Bracketing,
    Broyden,
    Check,
    Homotopy,
    ImplicitLayer,
    LevenbergMarquardt,
    Newton,
    NewtonKrylov,
    Polyalgorithm,
    ScipyRoot,
    SolveError,
    Status,
    Stopping,
    fixed_point,
    root,
)

X = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
SOLVERS = [
    None, Newton(), NewtonKrylov(), LevenbergMarquardt(), Broyden(), ScipyRoot("hybr"), Bracketing(),
    Homotopy(),
]  # fmt: skip
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def F(z, x):
    return z**3 + z - x


@every_solver
@pytest.mark.parametrize("separable", [None, (True,)])
def test_a_check_has_the_iterate_whose_residual_it_shows(solver, separable):
    seen: list[Check] = []

    def note(check):
        assert check.value.shape == X.shape
        seen.append(check)

    solution = root(
        F, torch.ones_like(X), X, batch_dims=1, solver=solver, callback=note, batched_args=separable
    )
    assert len(seen) > 1
    running = seen[0].status == Status.RUNNING
    for check in seen[:-1]:
        going = ~np.isnan(check.norms)
        if not isinstance(solver, Homotopy):  # Its iterates are points of a path.
            residual = F(check.value, X).abs().numpy()
            np.testing.assert_allclose(residual[going], check.norms[going], rtol=1e-9, atol=1e-12)
        # What has ended has ended.
        assert (running | (check.status != Status.RUNNING)).all()
        running = check.status == Status.RUNNING
        assert not check.value.requires_grad
    assert bool(solution.converged.all())


def test_iterates_have_the_structure_of_the_start_and_are_formed_when_asked_for():
    start = {"a": torch.ones(3), "b": (torch.ones(2, dtype=torch.complex64),)}
    formed = []

    def note(check):
        before = len(check.__dict__)
        value = check.value
        assert check.value is value  # Formed once.
        assert len(check.__dict__) > before
        formed.append(value)

    solution = fixed_point(
        lambda z: {"a": 0.5 * torch.cos(z["a"]), "b": (0.5j * z["b"][0] + 1,)}, start, callback=note
    )
    assert formed[0]["b"][0].dtype == torch.complex64
    assert torch.equal(formed[0]["a"], start["a"])
    assert torch.allclose(formed[-1]["a"], solution.value["a"], atol=1e-5)


def test_members_of_a_polyalgorithm_are_one_solve():
    """Full Newton steps on the arctangent converge from 0.5 and diverge from 5; damped ones converge."""
    seen: list[Check] = []
    both = Polyalgorithm((Newton(globalisation=None), LevenbergMarquardt()))
    z0 = torch.tensor([0.5, 5.0], dtype=torch.float64)
    solution = root(torch.atan, z0, batch_dims=1, solver=both, callback=seen.append)
    assert solution.converged.all()
    late = [check for check in seen if np.isnan(check.norms[0])]
    assert {int(check.status[0]) for check in late} == {Status.CONVERGED}
    steps = [check.step for check in seen]
    assert steps == sorted(steps)


def test_a_true_result_ends_the_solve_in_either_form():
    for callback in (lambda check: check.step == 2, lambda step, norms: step == 2):
        solution = root(
            F, torch.ones_like(X), X, solver=Newton(), callback=callback, on_failure="accept"
        )
        assert solution.status == Status.MAX_STEPS
        assert solution.steps == 2


def test_a_method_with_two_arguments_and_one_that_takes_any():
    seen = []
    root(F, torch.ones_like(X), X, callback=lambda *both: seen.append(len(both)))
    assert set(seen) == {2}


@pytest.mark.parametrize("wrong", [3, lambda: None, lambda a, b, c: None])
def test_a_callback_of_other_arguments_is_named(wrong):
    with pytest.raises(TypeError, match="callback must take a Check, or the step and the residual"):
        root(F, torch.ones_like(X), X, callback=wrong)


@pytest.mark.parametrize("scale", [1.0, 1e200])
def test_iterates_and_norms_are_in_the_units_of_the_caller(scale):
    norms, values = [], []

    def note(check):
        norms.append(check.norms[0])
        values.append(check.value)

    z0 = torch.full((), scale, dtype=torch.float64)
    root(lambda z: (z / scale) ** 3 - 8, z0, callback=note, solver=Newton())
    assert values[0] == z0
    assert norms[0] == pytest.approx(7)
    assert values[-1].item() == pytest.approx(2 * scale)


@pytest.mark.parametrize("solver", [None, Newton(), Broyden()], ids=str)
def test_the_history_has_the_iterate_of_every_check(solver):
    x = X.clone().requires_grad_()
    solution = root(F, torch.ones_like(X), x, batch_dims=1, solver=solver, history=True, trace=True)
    assert torch.equal(solution.history[0], torch.ones_like(X))
    assert torch.equal(solution.history[-1], solution.value.detach())
    assert len(solution.history) == len(solution.trace)
    assert not any(value.requires_grad for value in solution.history)
    assert solution.detach().history is solution.history
    assert root(F, torch.ones_like(X), X).history is None


def test_the_history_of_a_failure_comes_with_the_error():
    with pytest.raises(SolveError) as raised:
        root(
            lambda z: z**2 + 1, torch.full((2,), 0.7), solver=Newton(globalisation=None), history=True,
            stopping=Stopping(max_steps=3),
        )  # fmt: skip
    assert len(raised.value.solution.history) == 4


def test_newtons_steps_in_the_history():
    z0 = torch.tensor(1.5, dtype=torch.float64)
    solution = root(lambda z: z * z - 2, z0, solver=Newton(), history=True)
    for before, after in zip(solution.history, solution.history[1:], strict=False):
        torch.testing.assert_close(after, (before + 2 / before) / 2, rtol=1e-14, atol=0)


def test_progress_is_written_but_not_too_often(capfd):
    def slow(z, x):
        time.sleep(0.02)
        return F(z, x)

    root(slow, torch.ones_like(X), X, batch_dims=1, progress=True)
    lines = capfd.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 3
    assert "slow: step 0, largest residual 9.80e+01, 0 of 3 systems solved" in lines[0]
    assert lines[-1].endswith("3 of 3 systems solved")
    root(F, torch.ones_like(X), X)
    assert capfd.readouterr().err == ""


def test_a_layer_has_the_options(capfd):
    layer = ImplicitLayer(
        lambda z, x: 0.5 * torch.cos(z) + x, solver=Anderson(), progress=True, history=True
    )
    z = layer(X.reshape(3, 1))
    assert torch.allclose(layer.solution.history[-1], z, atol=1e-8)
    assert "step 0" in capfd.readouterr().err


def test_transforms():
    rows = torch.stack([X, 2 * X])
    seen = []
    value = torch.vmap(
        lambda x: (
            root(F, torch.ones_like(X), x, callback=lambda check: seen.append(check.value)).value
        )
    )(rows)
    assert torch.equal(seen[-1], value)
    with pytest.raises(TypeError, match="progress must be True or False"):
        root(F, X, X, progress=1)
