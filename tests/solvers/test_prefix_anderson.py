"""Anderson acceleration by prefixes: coefficients of the past alone, forwards and against time."""

from __future__ import annotations

from typing import Any

import implicitly
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from implicitly import (
    Anderson,
    Exact,
    FixedPointIteration,
    PrefixAnderson,
    Solution,
    Stopping,
    Unrolled,
)
from implicitly.solvers import Problem, solve
from oracle import implicit_gradient
from pairs import few_examples
from torch import Tensor

KINDS = ("I", "II", "I+II")
EPS = torch.finfo(torch.float64).eps


def dense_coefficients(
    kind: str, decay: float, Z: np.ndarray, R: np.ndarray, r: np.ndarray, t: int
) -> tuple[np.ndarray, float]:
    """`γ` of time step `t` from all vectors up to `t` as one, and the norm of its inverse Gram matrix."""
    weights = decay ** (0.5 * np.arange(t, -1, -1.0))[:, None]
    moves, changes = ((weights * part[:, : t + 1]).reshape(len(part), -1).T for part in (Z, R))
    residual = (weights * r[: t + 1]).ravel()
    if kind == "II":
        gamma = np.linalg.lstsq(changes, residual, rcond=None)[0]
        units = changes / np.linalg.norm(changes, axis=0)
        return gamma, 1 / np.linalg.svd(units, compute_uv=False)[-1] ** 2
    left = moves if kind == "I" else moves - changes
    lengths = np.linalg.norm(moves, axis=0) + np.linalg.norm(changes, axis=0)
    gram = (left / lengths).T @ (changes / np.linalg.norm(changes, axis=0))
    gamma = np.linalg.solve(left.T @ changes, left.T @ residual)
    return gamma, 1 / np.linalg.svd(gram, compute_uv=False)[-1]


def as_rings(vectors: Tensor) -> Tensor:
    """`(memory, sequences, T, unknowns)` in the order in which the solver keeps them."""
    return vectors.permute(1, 2, 0, 3).contiguous()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backward", [False, True])
@few_examples(8)
@given(
    decay=st.sampled_from([0.3, 0.9, 1.0]),
    memory=st.integers(1, 4),
    length=st.integers(1, 9),
    seed=st.integers(0, 10_000),
)
def test_coefficients_are_those_of_dense_equations_of_each_prefix(
    kind: Any, backward: bool, decay: float, memory: int, length: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (memory, 2, length, 6)
    Z, R = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    r = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    solver = PrefixAnderson(memory=memory, decay=decay, kind=kind)
    found = solver.coefficients(as_rings(Z), as_rings(R), r, reversed=backward)
    if backward:
        Z, R, r, found = Z.flip(2), R.flip(2), r.flip(1), found.flip(1)
    for b in range(2):
        for t in range(length):
            expected, condition = dense_coefficients(
                kind, decay, Z[:, b].numpy(), R[:, b].numpy(), r[b].numpy(), t
            )
            # A diagonal increased by 16 roundings, and sums of at most 54 products.
            # A right side of zero but for rounding is one beside the length of the residual.
            longest = np.linalg.norm(r[b]) / np.linalg.norm(R[:, b, t], axis=-1).min()
            slack = 100 * EPS * condition * max(np.abs(expected).max(), float(longest))
            np.testing.assert_allclose(found[b, t].numpy(), expected, rtol=0, atol=slack)


BATCH, TIME, WIDTH = 2, 12, 6


def coupled(z: Tensor, W: Tensor, x: Tensor) -> Tensor:
    """Expands (eigenvalues near −1.6 where `z` is small), and sees the mean of all time steps before."""
    count = torch.arange(1, z.shape[1] + 1, dtype=z.dtype).unsqueeze(1)
    before = torch.nn.functional.pad(z[:, :-1], (0, 0, 1, 0))
    return x - torch.tanh(z @ W.mT + 0.5 * before.cumsum(1) / count)


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(WIDTH, WIDTH, generator=generator, dtype=dtype)
    spread = torch.linspace(0.2, 1.6, WIDTH, dtype=dtype)
    W = spread.diag() + 0.2 * (turn - turn.mT)
    x = 0.4 * torch.randn(BATCH, TIME, WIDTH, generator=generator, dtype=dtype)
    return torch.zeros_like(x), W, x


def solved(x: Tensor, solver: Any = None, **options: Any) -> Solution:
    z0, W, _ = example(x.dtype)
    options = {"batch_dims": 2, "causal": True, "on_failure": "accept", **options}
    return implicitly.fixed_point(coupled, z0, W, x, solver=solver or PrefixAnderson(), **options)


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 6, 9, 14, 25, 300])
@pytest.mark.parametrize("future", [0.7, 1e30, torch.inf, -torch.inf, torch.nan])
def test_no_bit_of_the_past_depends_on_the_future(limit: int, future: float) -> None:
    x = example()[2]
    changed = x.clone()
    changed[:, 7:] = future
    stopping = Stopping(rtol=1e-8, max_steps=limit)
    for solver in (PrefixAnderson(plain=1), PrefixAnderson(memory=5, kind="I", plain=0)):
        first, second = (solved(given, solver, stopping=stopping) for given in (x, changed))
        assert torch.equal(first.value[:, :7], second.value[:, :7])
        assert torch.equal(first.status[:, :7], second.status[:, :7])
        assert torch.equal(first.steps[:, :7], second.steps[:, :7])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [3.0, torch.inf, torch.nan])
def test_coefficients_against_time_know_nothing_of_the_past(kind: Any, other: float) -> None:
    generator = torch.Generator().manual_seed(1)
    Z, R = (torch.randn(2, 9, 3, 4, generator=generator) for _ in range(2))
    r = torch.randn(2, 9, 4, generator=generator)
    solver = PrefixAnderson(kind=kind)
    first = solver.coefficients(Z, R, r, reversed=True)
    Z[:, :5], R[:, :5], r[:, :5] = other, -other, other
    second = solver.coefficients(Z, R, r, reversed=True)
    assert torch.equal(first[:, 5:], second[:, 5:])


def test_a_map_that_expands_is_solved_where_plain_iteration_fails() -> None:
    x = example()[2]
    stopping = Stopping(rtol=1e-8, max_steps=100)
    found = solved(x, stopping=stopping)
    plain = solved(x, FixedPointIteration(), stopping=stopping)
    assert bool(found.converged.all())
    assert not bool(plain.converged.any())
    # The error is at most 1e-8 of each unknown, which are below one, and f changes by at most 3 of it.
    residual = coupled(found.value, *example()[1:]) - found.value
    assert residual.abs().max() < 3e-8


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("kind", KINDS)
def test_the_adjoint_is_the_dense_one_whatever_its_size(kind: Any, scale: float) -> None:
    x = example()[2].requires_grad_()
    solver = PrefixAnderson(memory=5, kind=kind)
    gradient = Exact(solver=solver, stopping=Stopping(rtol=1e-12))
    solution = solved(x, gradient=gradient, stopping=Stopping(rtol=1e-11), on_failure="raise")
    weight = scale * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    weight[0, 8:] = 0.0  # Time steps without a cotangent, as those before the end of a task.
    (solution.value * weight).sum().backward()
    assert solution.adjoints[0].status.shape == (BATCH,)
    W = example()[1]
    expected = implicit_gradient(lambda z, x: coupled(z, W, x), solution.value, x, cotangent=weight)
    # The condition of I − J is below 1e2, the value's error 1e-11.
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-8 * scale)
    assert solution.adjoints[0].evaluations <= 40


def test_derivatives_of_second_order_run_forwards_again() -> None:
    W, solver = example()[1][-2:, -2:], PrefixAnderson(memory=5)
    gradient = Exact(solver=solver, stopping=Stopping(rtol=1e-13))

    def loss(x: Tensor) -> Tensor:
        return implicitly.fixed_point(
            coupled, torch.zeros_like(x), W, x, solver=solver, batch_dims=2, causal=True,
            stopping=Stopping(rtol=1e-12, max_steps=500), gradient=gradient,
        ).value.square().sum()  # fmt: skip

    x = example()[2][:1, :3, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, x)


def test_steps_can_be_differentiated() -> None:
    found = []
    for mode in (Unrolled(), Exact(stopping=Stopping(rtol=1e-12))):
        x = example()[2].requires_grad_()
        solved(x, stopping=Stopping(rtol=1e-11), gradient=mode).value.square().sum().backward()
        found.append(x.grad)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-7)


def test_several_leaves_are_the_parts_of_one_time_step() -> None:
    W = example()[1]

    def apart(z: dict[str, Tensor], W: Tensor, x: Tensor) -> dict[str, Tensor]:
        value = coupled(torch.cat((z["h"], z["c"].unsqueeze(2)), dim=2), W, x)
        return {"h": value[..., :-1], "c": value[..., -1]}

    options: dict[str, Any] = {
        "solver": PrefixAnderson(),
        "stopping": Stopping(rtol=1e-9),
        "gradient": Exact(solver=PrefixAnderson(), stopping=Stopping(rtol=1e-11)),
        "batch_dims": 2,
        "causal": True,
    }
    grads, values = [], []
    x = example()[2].requires_grad_()
    start = {"h": torch.zeros_like(x[..., :-1]), "c": torch.zeros_like(x[..., -1])}
    found = implicitly.fixed_point(apart, start, W, x, **options)
    values.append(torch.cat((found.value["h"], found.value["c"].unsqueeze(2)), dim=2))
    whole = implicitly.fixed_point(coupled, torch.zeros_like(x), W, x, **options)
    values.append(whole.value)
    for value in values:
        grads.append(torch.autograd.grad(value.square().sum(), x)[0])
    torch.testing.assert_close(*values, rtol=0, atol=1e-8)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_singular_gram_matrix_gives_a_plain_step(dtype: torch.dtype) -> None:
    Z = torch.zeros(1, 4, 3, 2, dtype=dtype)
    Z[..., :2, 0] = 1.0
    R = torch.zeros_like(Z)
    R[..., :2, 1] = 1.0
    solver = PrefixAnderson(kind="I", regularisation=0.0)
    gamma = solver.coefficients(Z, R, torch.ones(1, 4, 2, dtype=dtype), reversed=False)
    assert torch.equal(gamma, torch.zeros(1, 4, 3, dtype=dtype))


def test_what_does_not_fit_is_refused() -> None:
    z0, W, x = example()
    with pytest.raises(TypeError, match="needs the time steps of a causal fixed point"):
        implicitly.fixed_point(coupled, z0, W, x, solver=PrefixAnderson(), batch_dims=1)
    with pytest.raises(TypeError, match="causal fixed point"):
        implicitly.root(
            lambda z, W, x: coupled(z, W, x) - z, z0, W, x, solver=PrefixAnderson(), batch_dims=2,
            causal=True,
        )  # fmt: skip
    with pytest.raises(TypeError, match=r"take Anderson\(\)"):
        solve(Problem(torch.cos), PrefixAnderson(), torch.zeros(1, 1))
    x = x.requires_grad_()
    gradient = Exact(solver=PrefixAnderson())
    value = implicitly.fixed_point(
        coupled, z0, W, x, solver=Anderson(kind="I"), batch_dims=1, gradient=gradient
    ).value
    with pytest.raises(TypeError, match="adjoints, that of such a call"):
        value.sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 0}, "memory"),
        ({"decay": 0.0}, "decay must be in"),
        ({"decay": 1.1}, "decay must be in"),
        ({"kind": "III"}, "kind"),
        ({"plain": -1}, "plain"),
        ({"regularisation": -1e-3}, "regularisation must be a number"),
    ],
)
def test_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrefixAnderson(**options)
