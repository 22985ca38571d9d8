"""Generated problems have the constants, spectra and roots that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import FixedPointIteration, Stopping, fixed_point, problems
from torch import Tensor

GENERATED = problems.names(tag="generated")
SEEDS = st.integers(0, 2**31)
EPS = 2.0**-52


def jacobian_at_root(name: str, n: int, **parameters: object) -> Tensor:
    problem = problems.get(name, **parameters)
    (root,) = problem.roots(n)
    return torch.func.jacrev(problem.function)(root.value)


@given(n=st.integers(1, 12), lipschitz=st.floats(0.01, 3.0), seed=SEEDS)
def test_a_contraction_attains_its_lipschitz_constant_at_the_root_and_nowhere_exceeds_it(
    n: int, lipschitz: float, seed: int
) -> None:
    problem = problems.get("contraction", lipschitz=lipschitz, seed=seed)
    tolerance = 50 * n * EPS * lipschitz
    norm = torch.linalg.matrix_norm(
        jacobian_at_root("contraction", n, lipschitz=lipschitz, seed=seed), ord=2
    )
    assert norm.item() == pytest.approx(lipschitz, abs=tolerance)
    generator = torch.Generator().manual_seed(seed)
    a, b = 3 * torch.randn(2, 20, n, generator=generator, dtype=torch.float64)
    moved = (problem.function(a) - problem.function(b)).norm(dim=1)
    rounding = 50 * n * EPS * (1 + problem.roots(n)[0].value.norm())
    assert bool((moved <= (lipschitz + tolerance) * (a - b).norm(dim=1) + rounding).all())


@given(n=st.integers(1, 9), radius=st.floats(0.1, 2.0), seed=SEEDS)
def test_eigenvalues_are_those_asked_for(n: int, radius: float, seed: int) -> None:
    for kind in ("real", "complex"):  # Both normal: eigenvalues move by no more than the matrix.
        problem = problems.get("spectrum", kind=kind, radius=radius, seed=seed)
        jacobian = jacobian_at_root("spectrum", n, kind=kind, radius=radius, seed=seed)
        values = torch.linalg.eigvals(jacobian).numpy()
        expected = problem.eigenvalues(n)  # type: ignore[attr-defined]
        distance = np.abs(values[:, None] - expected)
        tolerance = 200 * n * EPS * radius
        assert distance.min(axis=0).max() <= tolerance
        assert distance.min(axis=1).max() <= tolerance
        assert np.abs(expected).max() == pytest.approx(radius)


def test_non_normal_maps_grow_before_they_fall() -> None:
    jacobian = jacobian_at_root("spectrum", 10, kind="non-normal", radius=0.5, growth=2.0)
    characteristic = np.poly(jacobian.numpy())
    # Eigenvalues of such a matrix are sensitive, coefficients of its polynomial less so.
    expected = np.poly(np.linspace(-0.5, 0.5, 10))
    np.testing.assert_allclose(characteristic, expected, atol=1e-9)
    powers = [torch.linalg.matrix_norm(torch.linalg.matrix_power(jacobian, k)) for k in (1, 5, 80)]
    assert powers[1] > 3 * powers[0]
    assert powers[2] < 1e-3


@given(n=st.integers(1, 12), margin=st.floats(0.01, 1.0), seed=SEEDS)
def test_a_monotone_equilibrium_is_strongly_monotone(n: int, margin: float, seed: int) -> None:
    problem = problems.get("monotone-equilibrium", margin=margin, seed=seed)
    weight = problem.args(n)[0]
    symmetric = torch.eye(n, dtype=torch.float64) - (weight + weight.mT) / 2
    assert torch.linalg.eigvalsh(symmetric)[0].item() >= margin - 100 * n * EPS


def test_forward_backward_splitting_finds_the_one_monotone_equilibrium_from_anywhere() -> None:
    problem = problems.get("monotone-equilibrium", margin=0.5, seed=3)
    weight, bias = problem.args(8)
    operator = torch.eye(8, dtype=torch.float64) - weight
    (root,) = problem.roots(8)
    # Winston & Kolter 2020, theorem 2: step lengths below 2 m / ‖I − W‖².
    step = 0.5 / torch.linalg.matrix_norm(operator, ord=2) ** 2
    z = 5 * torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(3000):
        z = torch.relu(z - step * (z @ operator.mT - bias))
    torch.testing.assert_close(z, root.value.expand(4, 8), rtol=0, atol=1e-12)
    assert 0 < int((root.value == 0).sum()) < 8  # Some units are off, some on.


def test_the_norm_of_a_tanh_equilibrium_is_the_one_asked_for() -> None:
    for norm in (0.5, 1.5):
        weight, _ = problems.get("tanh-equilibrium", norm=norm, seed=1).args(30)
        found = torch.linalg.matrix_norm(weight, ord=2).item()
        assert found == pytest.approx(norm, abs=100 * EPS)


def test_systems_of_an_unequal_batch_take_more_and_more_steps() -> None:
    problem = problems.get("unequal-contractions", count=6, seed=2)
    factor, root, outer, inner = problem.args(5)
    solution = fixed_point(
        problem.function, problem.start(5), factor, root, outer, inner, batch_dims=1,
        solver=FixedPointIteration(), stopping=Stopping(rtol=1e-9, max_steps=5000),
        batched_args=(True, True, False, False),
    )  # fmt: skip
    steps = solution.steps.tolist()
    assert steps == sorted(steps)
    assert steps[-1] > 50 * steps[0]
    # A residual r bounds the error by r / (1 − L).
    error = (solution.value - problem.roots(5)[0].value).norm(dim=1)
    bound = 5**0.5 * solution.residual_norm / (1 - factor.squeeze(1))
    assert bool((error <= bound).all())


@pytest.mark.parametrize("name", GENERATED)
def test_numbers_are_the_same_in_every_dtype_and_other_for_another_seed(name: str) -> None:
    exact = problems.get(name, seed=4).args(6)
    rounded = problems.get(name, seed=4).args(6, torch.float32)
    for first, second in zip(exact, rounded, strict=True):
        torch.testing.assert_close(first.float(), second, rtol=0, atol=0)
    other = problems.get(name, seed=5).args(6)
    assert not all(torch.equal(a, b) for a, b in zip(exact, other, strict=True))


def test_what_a_call_gives_may_be_changed_without_harm() -> None:
    problem = problems.get("tanh-equilibrium")
    problem.args()[0].zero_()
    problem.roots()[0].value.zero_()
    assert problem.args()[0].abs().max() > 0
    assert problem.roots()[0].value.abs().max() > 0


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("contraction", {"lipschitz": 0}, "lipschitz must be a number > 0"),
        ("contraction", {"seed": -1}, "seed must be an integer ≥ 0"),
        ("unequal-contractions", {"hardest": 1.0}, "easiest ≤ hardest < 1 is needed"),
        ("unequal-contractions", {"count": 0}, "count must be an integer ≥ 1"),
        ("spectrum", {"kind": "imaginary"}, "kind must be one of 'real', 'complex', 'non-normal'"),
        ("spectrum", {"growth": -1}, "growth must be a number ≥ 0"),
        ("monotone-equilibrium", {"margin": 0}, "margin must be a number > 0"),
        ("tanh-equilibrium", {"norm": "one"}, "norm must be a number > 0"),
    ],
)
def test_a_parameter_out_of_range_is_an_error(
    name: str, parameters: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        problems.get(name, **parameters)
