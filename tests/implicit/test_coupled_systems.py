"""Systems that are called independent and are not: what is called solved is so among the others."""

import implicitly as im
import pytest
import torch
from torch import Tensor

SOLVERS = [
    None,
    im.Broyden(),
    *(
        pytest.param(solver, marks=pytest.mark.long)
        for solver in (
            im.FixedPointIteration(),
            im.Anderson(),
            im.Newton(),
            im.NewtonKrylov(),
            im.DFSANE(),
        )
    ),
]


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    # Systems that end at different steps.
    return 0.5 * W / torch.linalg.matrix_norm(W, 2), x * torch.linspace(0.01, 10, 16).unsqueeze(1)


def by_the_mean(z: Tensor, W: Tensor, x: Tensor, coupling: float) -> Tensor:
    return 0.5 * torch.tanh(z @ W.mT + x) + coupling * torch.sin(z.mean(0))


@pytest.mark.parametrize("coupling", [0.1, 0.45])
@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("form", ["fixed_point", "root"])
def test_a_residual_that_grows_after_its_system_has_ended_is_seen(form, solver, coupling):
    W, x = example()
    if form == "root" and isinstance(solver, im.FixedPointIteration):
        pytest.skip("plain steps are for fixed points")

    def residual(z: Tensor) -> Tensor:
        return by_the_mean(z, W, x, coupling) - z

    solution = im.fixed_point(
        lambda z: by_the_mean(z, W, x, coupling), torch.zeros_like(x),
        solver=solver, batch_dims=1, on_failure="accept",
    ) if form == "fixed_point" else im.root(
        residual, torch.zeros_like(x), solver=solver, batch_dims=1, on_failure="accept"
    )  # fmt: skip
    norms = residual(solution.value).square().mean(1).sqrt()
    # Below the tolerance, 1e-10 of the iterate or of the start, or grown from it by no more than ten.
    bound = 1e-9 * solution.value.square().mean(1).sqrt().clamp(min=1.0)
    assert (norms <= bound)[solution.converged].all()
    # Weak coupling is caught up with.
    assert solution.converged.all() or solver is not None or coupling > 0.1


def test_systems_that_are_coupled_too_much_are_an_error_that_names_the_remedy():
    W, x = example()
    with pytest.raises(im.SolveError, match=r"depend on each other.*batch_dims=0"):
        im.root(lambda z: by_the_mean(z, W, x, 0.45) - z, torch.zeros_like(x), batch_dims=1)
    together = im.root(lambda z: by_the_mean(z, W, x, 0.45) - z, torch.zeros_like(x))
    assert together.converged


@pytest.mark.parametrize("solver", [im.FixedPointIteration(), im.Anderson()])
def test_independent_systems_cost_no_evaluation_more(solver):
    W, x = example()
    solution = im.fixed_point(
        lambda z: by_the_mean(z, W, x, 0.0), torch.zeros_like(x), solver=solver, batch_dims=1
    )
    assert solution.steps.min() < solution.steps.max()
    assert solution.evaluations == 1 + int(solution.steps.max())


@pytest.mark.parametrize("solve", [im.fixed_point, im.root])
def test_systems_that_are_dropped_are_looked_at_among_the_others(solve):
    W, x = example()

    def equation(z: Tensor, x: Tensor) -> Tensor:
        f = by_the_mean(z, W, x, 0.4)
        return f if solve is im.fixed_point else f - z

    solution = solve(
        equation, torch.zeros_like(x), x,
        batch_dims=1, batched_args=(True,), on_failure="accept",
    )  # fmt: skip
    value = solution.value
    norms = (by_the_mean(value, W, x, 0.4) - value).square().mean(1).sqrt()
    bound = 1e-9 * value.square().mean(1).sqrt().clamp(min=1.0)
    assert (norms <= bound)[solution.converged].all()
