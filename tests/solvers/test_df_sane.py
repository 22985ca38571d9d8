"""DF-SANE against the algorithm of its paper written as a loop over one system."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from implicitly import DFSANE, Stopping, root
from oracle import Array
from torch import Tensor


def algorithm(
    F: Callable[[Array], Array],
    x: Array,
    first: float,
    evaluations: int,
    memory: int,
    allowance: float,
) -> tuple[list[Array], list[str]]:
    """The accepted iterates after each evaluation, and what became of each trial.

    La Cruz, Martínez & Raydan 2006, algorithm DF-SANE, in the notation of the paper with
    `σ₀ = first`, `γ = 1e-4`, `τ_min = 0.1`, `τ_max = 0.5` and `η_k = allowance · ‖F(x₀)‖² / (1 + k)²`.
    """
    gamma = 1e-4
    value = F(x)
    merit = float(value @ value)
    eta_0, merits, sigma = allowance * merit, [merit], first
    seen: list[Array] = []
    fates: list[str] = []
    k = 0
    while len(seen) < evaluations:
        direction = -sigma * value
        limit, eta = max(merits[-memory:]), eta_0 / (1 + k) ** 2
        plus = minus = 1.0
        while True:
            trial = x + plus * direction
            trial_value = F(trial)
            trial_merit = float(trial_value @ trial_value)
            if trial_merit <= limit + eta - gamma * plus**2 * merit:
                fates.append("forward")
                break
            seen.append(x)
            fates.append("refused")
            least = plus**2 * merit / (trial_merit + (2 * plus - 1) * merit)
            plus = float(np.clip(least, 0.1 * plus, 0.5 * plus))
            trial = x - minus * direction
            trial_value = F(trial)
            trial_merit = float(trial_value @ trial_value)
            if trial_merit <= limit + eta - gamma * minus**2 * merit:
                fates.append("backward")
                break
            seen.append(x)
            fates.append("refused")
            least = minus**2 * merit / (trial_merit + (2 * minus - 1) * merit)
            minus = float(np.clip(least, 0.1 * minus, 0.5 * minus))
        s, y = trial - x, trial_value - value
        sigma = float(s @ s) / float(s @ y)
        x, value, merit = trial, trial_value, trial_merit
        merits.append(merit)
        seen.append(x)
        k += 1
    return seen[:evaluations], fates[:evaluations]


def wavy_in_numpy(x: Array) -> Array:
    return np.asarray(4 * np.sin(x) + x - np.roll(x, 1) ** 2 / 4 + 0.5)


def wavy(x: Tensor) -> Tensor:
    return 4 * torch.sin(x) + x - x.roll(1, -1) ** 2 / 4 + 0.5


def test_accepted_iterates_are_those_of_the_algorithm() -> None:
    start = np.array([-2.97, -0.01, 0.81, -3.77])
    # The length of the first step: ‖F‖ / ‖Jᵀ F‖ with the sign that points downhill.
    F0 = wavy_in_numpy(start)
    J = np.diag(4 * np.cos(start) + 1) - np.diag(np.roll(start, 1) / 2) @ np.roll(np.eye(4), 1, 0)
    first = float(np.linalg.norm(F0) / np.linalg.norm(J.T @ F0)) * float(np.sign(F0 @ J @ F0))
    seen, fates = algorithm(wavy_in_numpy, start, first, 14, memory=2, allowance=1e-3)
    assert {"forward", "backward", "refused"} == set(fates)
    for steps in range(1, 15):
        solution = root(
            wavy, torch.from_numpy(start), solver=DFSANE(memory=2, allowance=1e-3), on_failure="accept",
            trace=True, stopping=Stopping(rtol=0.0, atol=0.0, max_steps=steps),
        )  # fmt: skip
        assert solution.trace is not None
        # The last look is at the accepted iterate, not at the best. Each step multiplies rounding
        # by a few units.
        norm = np.linalg.norm(wavy_in_numpy(seen[steps - 1])) / 2
        assert solution.trace[-1, 0] == pytest.approx(norm, rel=1e-9)


def test_a_step_costs_one_evaluation_and_refused_trials_are_steps() -> None:
    solution = root(
        wavy, torch.tensor([2.0, -1.5, 0.7, 2.6]).double(), solver=DFSANE(), on_failure="accept",
        stopping=Stopping(rtol=0.0, atol=0.0, max_steps=9),
    )  # fmt: skip
    # One at the start, and one for the linearisation that the first product comes from.
    assert solution.counts.evaluations == 9 + 2
    assert solution.counts.vjps == 1


def test_the_sign_of_each_equation_of_a_batch_is_found() -> None:
    sign = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    start = torch.full((2, 5), 0.3, dtype=torch.float64)
    solution = root(
        lambda z: sign * (z + z**3 - 0.5 * z.roll(1, 1) - 1), start, solver=DFSANE(), batch_dims=1
    )
    assert solution.converged.all()
    assert torch.equal(solution.value[0], solution.value[1])
    assert solution.steps[0] == solution.steps[1]


def test_ten_thousand_unknowns_need_no_stored_vectors() -> None:
    n = 10_000
    solution = root(
        lambda z: z + z**3 - 0.5 * z.roll(1) - torch.linspace(0, 1, n).double(),
        torch.zeros(n).double(), solver=DFSANE(),
    )  # fmt: skip
    assert solution.converged
    assert solution.evaluations < 75
