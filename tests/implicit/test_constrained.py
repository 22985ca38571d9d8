"""Minima with constraints against closed forms, finite differences and known failures."""

from __future__ import annotations

import math
from typing import Any

import implicitly as im
import pytest
import torch
from implicitly import Status
from implicitly.problems import constrained
from implicitly.verification import Verdict, verify
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

D = torch.float64


def stacked(*values: Tensor) -> Tensor:
    return torch.stack(values, dim=-1)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=D)


def curved(x: Tensor, u: Tensor) -> im.Solution:
    """Three unknowns with a curved equation, an active ball, a plane that is not active, and bounds."""
    return im.constrained_minimum(
        lambda z, x, u: (z - x).square().sum(-1) + 0.1 * (z[..., 0] * z[..., 1] * z[..., 2]) ** 2,
        torch.ones(3, dtype=D), x, u,
        equalities=lambda z, x, u: stacked(z[..., 0] * z[..., 1] - z[..., 2] * x[..., 2] - 0.2),
        inequalities=lambda z, x, u: stacked(z.square().sum(-1) - u, z[..., 0] - 5),
        bounds=(0.0, None),
    )  # fmt: skip


X, U = vector(1.5, 0.9, 0.4), torch.tensor(2.0, dtype=D)


def test_multipliers_are_the_slopes_of_the_least_value_in_the_limits() -> None:
    limit, level = torch.tensor(2.0, dtype=D), torch.tensor(0.5, dtype=D)
    limit.requires_grad_(), level.requires_grad_()

    def objective(z: Tensor, *args: Any) -> Tensor:
        return (z[..., 0] - 3) ** 2 + (z[..., 1] - 1) ** 2 + z[..., 0] * z[..., 1]

    solution = im.constrained_minimum(
        objective, vector(0.1, 0.1), limit, level,
        equalities=lambda z, limit, level: stacked(z[..., 1] - level * z[..., 0] ** 2),
        inequalities=lambda z, limit, level: stacked(z.square().sum(-1) - limit),
    )  # fmt: skip
    slope, other = torch.autograd.grad(objective(solution.value.z), (limit, level))
    z, y, m = (leaf.detach() for leaf in solution.value)
    torch.testing.assert_close(slope, -m[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(other, -y[0] * z[0] ** 2, rtol=1e-10, atol=0)


@pytest.mark.long
def test_derivatives_hold_active_constraints_fixed_to_every_order() -> None:
    x, u = X.clone().requires_grad_(), U.clone().requires_grad_()
    solution = curved(x, u)
    assert solution.bounds.active.inequality.tolist() == [1, 0]
    assert solution.bounds.active.z.tolist() == [0, 0, 0]
    assert gradcheck(lambda x, u: tuple(curved(x, u).value), (x, u))


@pytest.mark.long
def test_second_derivatives_and_the_verification_agree() -> None:
    x, u = X.clone().requires_grad_(), U.clone().requires_grad_()
    assert gradgradcheck(lambda x, u: curved(x, u).value.z, (x, u))
    assert verify(lambda x: curved(x, U).value.z, (x,)).verdict is Verdict.CORRECT


def test_vmap_and_batches_agree_with_single_problems() -> None:
    xs = torch.stack((X, X + 0.1, X - 0.2))
    alone = torch.stack([curved(x, U).value.z for x in xs])
    mapped = torch.vmap(lambda x: curved(x, U).value.z)(xs)
    together = im.constrained_minimum(
        lambda z, x: (z - x).square().sum(-1) + 0.1 * (z[..., 0] * z[..., 1] * z[..., 2]) ** 2,
        torch.ones(3, 3, dtype=D), xs,
        equalities=lambda z, x: stacked(z[..., 0] * z[..., 1] - z[..., 2] * x[..., 2] - 0.2),
        inequalities=lambda z, x: stacked(z.square().sum(-1) - U, z[..., 0] - 5),
        bounds=(0.0, None), batch_dims=1,
    )  # fmt: skip
    torch.testing.assert_close(mapped, alone, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(together.value.z, alone, rtol=1e-12, atol=1e-13)
    assert together.status.shape == (3,)


@pytest.mark.long
def test_forward_and_reverse_mode_agree() -> None:
    forward = torch.func.jacfwd(lambda x: curved(x, U).value.z)(X)
    reverse = torch.func.jacrev(lambda x: curved(x, U).value.z)(X)
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-12)


def test_a_constraint_without_multiplier_makes_derivatives_one_sided() -> None:
    def at(x: float) -> im.Solution:
        return im.constrained_minimum(
            lambda z: (z - x).square().sum(-1), vector(-0.5), inequalities=lambda z: z
        )

    assert bool(at(0.0).bounds.one_sided)
    assert not bool(at(0.1).bounds.one_sided)
    assert not bool(at(-0.1).bounds.one_sided)
    assert at(0.1).bounds.active.inequality.tolist() == [1]


def status(objective: Any, z0: Tensor, **options: Any) -> Status:
    solution = im.constrained_minimum(objective, z0, on_failure="accept", **options)
    return Status(int(solution.status))


@pytest.mark.long
def test_contradicting_constraints_are_infeasible() -> None:
    def line(z: Tensor) -> Tensor:
        return stacked(z[..., 0], 1 - z[..., 0])

    assert (
        status(lambda z: z.square().sum(-1), vector(1, 2), inequalities=line) == Status.INFEASIBLE
    )
    assert (
        status(lambda z: z.sum(-1), vector(1, 2), equalities=lambda z: stacked(z.square().sum(-1) + 1))
        == Status.INFEASIBLE
    )  # fmt: skip
    with pytest.raises(im.SolveError, match="INFEASIBLE.*contradict"):
        torch.vmap(
            lambda x: (
                im.constrained_minimum(
                    lambda z: (z - x).square().sum(-1), vector(1, 2), inequalities=line
                ).value.z
            )
        )(torch.stack((vector(1, 2), vector(3, 4))))


@pytest.mark.long
def test_missing_qualifications_saddles_and_falling_objectives_have_their_statuses() -> None:
    assert (
        status(  # Problem 13 of Hock and Schittkowski: its minimum (1, 0) is a cusp.
            lambda z: (z[..., 0] - 2) ** 2 + z[..., 1] ** 2, vector(0, 0),
            inequalities=lambda z: stacked(z[..., 1] - (1 - z[..., 0]) ** 3), bounds=(0.0, None),
        )
        == Status.NO_QUALIFICATION
    )  # fmt: skip
    assert (
        status(lambda z: z.sum(-1), vector(1), inequalities=lambda z: z**2)
        == Status.NO_QUALIFICATION
    )
    assert (
        status(
            lambda z: z[..., 1] ** 2 - z[..., 0] ** 2, vector(0, 0),
            equalities=lambda z: stacked(z[..., 1] - 0.1 * z[..., 0] ** 2),
        )
        == Status.NOT_A_MINIMUM
    )  # fmt: skip
    assert (
        status(
            lambda z: z[..., 0] - z[..., 1], vector(0, 1),
            equalities=lambda z: stacked(z[..., 0] - 0.5 * z[..., 1]),
        )
        == Status.UNBOUNDED
    )  # fmt: skip


def test_a_maximum_that_a_weak_constraint_allows_to_leave_is_no_minimum() -> None:
    assert (
        status(lambda z: -z.square().sum(-1), vector(0.0), inequalities=lambda z: stacked(z[..., 0]))
        == Status.NOT_A_MINIMUM
    )  # fmt: skip


def test_units_of_objective_constraints_and_unknowns_change_no_minimum() -> None:
    problem = constrained.get("hock-schittkowski-43")
    assert problem.inequalities is not None
    inequalities, unit = problem.inequalities, vector(1e6, 1e-3, 1e-6)
    for objective_unit in (1e-4, 1e8):
        solution = im.constrained_minimum(
            lambda z: objective_unit * problem.objective(z),  # noqa: B023
            problem.start(),
            inequalities=lambda z: unit * inequalities(z),
        )
        torch.testing.assert_close(solution.value.z, problem.known(), rtol=1e-9, atol=1e-9)
        expected = objective_unit * vector(1, 0, 2) / unit
        torch.testing.assert_close(solution.value.inequality, expected, rtol=1e-8, atol=0)


def test_single_precision_is_solved_to_its_own_digits() -> None:
    problem = constrained.get("hock-schittkowski-14")
    solution = problem.solve(problem.start(torch.float32))
    eps = torch.finfo(torch.float32).eps
    known = problem.known(torch.float32)
    torch.testing.assert_close(solution.value.z, known, rtol=50 * eps, atol=50 * eps)


def test_captured_parameters_get_their_gradients() -> None:
    radius = torch.tensor(2.0, dtype=D, requires_grad=True)
    solution = im.constrained_minimum(
        lambda z: z.sum(-1), vector(0, 0),
        inequalities=lambda z: stacked(z.square().sum(-1) - radius**2),
    )  # fmt: skip
    solution.value.z[0].backward()
    assert radius.grad is not None
    torch.testing.assert_close(radius.grad.item(), -math.sqrt(0.5), rtol=1e-10, atol=0)


def test_wrong_arguments_are_named() -> None:
    def total(z: Tensor) -> Tensor:
        return z.sum(-1)

    with pytest.raises(ValueError, match="give equalities or inequalities"):
        im.constrained_minimum(total, vector(1.0))
    with pytest.raises(ValueError, match="one axis of constraints"):
        im.constrained_minimum(total, vector(1.0), equalities=total)
    with pytest.raises(TypeError, match="equalities must return a tensor"):
        im.constrained_minimum(total, vector(1.0), equalities=lambda z: 1.0)
    with pytest.raises(im.MissingDerivativeError):
        im.constrained_minimum(total, vector(1.0), equalities=lambda z: z.detach())
