"""Minimisers seen from outside: auxiliary outputs, callbacks, progress, histories, structures and names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import implicitly as im
import pytest
import torch
from torch import Tensor

D = torch.float64
X = torch.tensor([1.0, 2.0], dtype=D)
Z0 = torch.tensor([0.5, 0.5], dtype=D)


def fit(z: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    r = z - x
    return r, {"scaled": x * z}


def half(z: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return 0.5 * (z - x).square().sum(-1), {"scaled": x * z}


def pull(z: Tensor, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    return z - x, {"scaled": x * z}


def below(z: Tensor, x: Tensor) -> Tensor:
    return z[..., :1] - 0.75


CALLS: dict[str, Callable[..., im.Solution]] = {
    "least_squares": lambda x, **options: im.least_squares(fit, Z0, x, **options),
    "least_squares within bounds": lambda x, **options: im.least_squares(
        fit, Z0, x, bounds=(None, torch.tensor([0.75, 9.0], dtype=D)), **options
    ),
    "minimise": lambda x, **options: im.minimise(half, Z0, x, **options),
    "minimise within bounds": lambda x, **options: im.minimise(
        half, Z0, x, bounds=(None, torch.tensor([0.75, 9.0], dtype=D)), **options
    ),
    "complementarity": lambda x, **options: im.complementarity(pull, Z0, x, **options),
    "constrained_minimum": lambda x, **options: im.constrained_minimum(
        half, Z0, x, inequalities=below, **options
    ),
}


def point(solution: im.Solution) -> Tensor:
    value = solution.value
    return value.z if isinstance(value, im.ConstrainedMinimum) else value


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_a_function_returns_beside_its_value_is_given_at_the_minimum_with_its_derivative(
    call: Callable[..., im.Solution],
) -> None:
    x = X.clone().requires_grad_()
    solution = call(x, has_aux=True)
    z = point(solution)
    torch.testing.assert_close(solution.aux["scaled"], x * z)
    # z = x where no bound is active, and does not change where one is.
    free = (z.detach() - X).abs() < 1e-9
    (slope,) = torch.autograd.grad(solution.aux["scaled"].sum(), x)
    torch.testing.assert_close(slope, torch.where(free, 2 * X, 0.75), rtol=1e-9, atol=1e-9)
    plain = call(X, has_aux=True)
    assert not plain.aux["scaled"].requires_grad


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_value_that_is_no_pair_is_an_error_with_has_aux(
    call: Callable[..., im.Solution], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fit", "half", "pull"):
        alone = globals()[name]
        monkeypatch.setitem(globals(), name, lambda z, x, alone=alone: alone(z, x)[0])
    with pytest.raises(TypeError, match="must return a pair"):
        call(X, has_aux=True)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_checks_are_shown_kept_and_written(
    call: Callable[..., im.Solution], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[im.Check] = []
    solution = call(
        X, has_aux=True, history=True, progress=True, trace=True,
        callback=lambda check: seen.append(check),
    )  # fmt: skip
    assert solution.history is not None
    assert solution.trace is not None
    assert len(seen) == len(solution.history) == len(solution.trace)
    assert "systems solved" in capsys.readouterr().err
    last = solution.history[-1]
    last = last.z if isinstance(last, im.ConstrainedMinimum) else last
    torch.testing.assert_close(last, point(solution))


def test_a_callback_may_end_the_solve_of_a_minimum() -> None:
    solution = im.minimise(
        lambda z: torch.cosh(z).sum(), 3 * Z0, callback=lambda check: check.step == 1,
        on_failure="accept",
    )  # fmt: skip
    assert im.Status(int(solution.status)) == im.Status.MAX_STEPS
    assert int(solution.steps) == 1


def test_the_unknown_of_a_constrained_minimum_may_have_any_structure() -> None:
    total = torch.tensor(3.0, dtype=D, requires_grad=True)
    z0 = {"a": torch.ones(2, 2, dtype=D), "b": (torch.zeros((), dtype=D),)}
    seen: list[Any] = []

    def objective(z: Any, total: Tensor, *, weight: Tensor) -> Tensor:
        return (z["a"] - 1).square().sum() + weight * z["b"][0] ** 2

    def budget(z: Any, total: Tensor, *, weight: Tensor) -> Tensor:
        return (z["a"].sum() + z["b"][0] - total).reshape(1)

    solution = im.constrained_minimum(
        objective, z0, total, equalities=budget, weight=torch.tensor(2.0, dtype=D),
        bounds=({"a": torch.tensor(-9.0, dtype=D).expand(2, 2), "b": (torch.tensor(-0.25, dtype=D),)}, None),
        callback=lambda check: seen.append(check.value.z["a"].shape), history=True,
    )  # fmt: skip
    # Without bounds: a = 1 − t, b = −t / 2 with 4 (1 − t) − t / 2 = total, t = 2/9: b is inside.
    t = (4 - 3.0) / 4.5
    torch.testing.assert_close(solution.value.z["a"], torch.full((2, 2), 1 - t, dtype=D))
    assert solution.value.z["b"][0].item() == pytest.approx(-t / 2)
    assert solution.bounds.active.z["a"].tolist() == [[0, 0], [0, 0]]
    assert solution.history is not None
    assert solution.history[0].z["b"][0].shape == ()
    assert set(seen) == {torch.Size([2, 2])}
    (slope,) = torch.autograd.grad(solution.value.z["a"].sum(), total)
    assert slope.item() == pytest.approx(4 / 4.5)


def test_structures_of_a_batch_give_the_minima_of_each() -> None:
    x = torch.tensor([[1.0, 2.0], [-1.0, 0.5]], dtype=D)
    z0 = [torch.zeros(2, dtype=D), torch.zeros(2, 1, dtype=D)]
    solution = im.constrained_minimum(
        lambda z, x: (z[0] - x[:, 0]) ** 2 + (z[1][:, 0] - x[:, 1]) ** 2, z0, x,
        inequalities=lambda z, x: (z[0] + z[1][:, 0] - 1).unsqueeze(-1), batch_dims=1,
    )  # fmt: skip
    torch.testing.assert_close(solution.value.z[0], torch.tensor([0.0, -1.0], dtype=D))
    torch.testing.assert_close(solution.value.z[1], torch.tensor([[1.0], [0.5]], dtype=D))


def test_unknown_keywords_and_other_unknowns_are_errors_that_name_them() -> None:
    with pytest.raises(TypeError, match="wieght"):
        im.constrained_minimum(
            lambda z, weight: z.sum(), Z0, inequalities=lambda z, weight: z, wieght=1.0
        )
    with pytest.raises(TypeError, match="one dtype, got torch.float64 and torch.float32"):
        im.constrained_minimum(lambda z: z[0].sum(), [Z0, Z0.float()], inequalities=lambda z: z[0])
    with pytest.raises(ValueError, match="must be those of the problems"):
        im.constrained_minimum(
            lambda z: z[0].sum(), [Z0, Z0[:1]], inequalities=lambda z: z[0], batch_dims=1
        )
