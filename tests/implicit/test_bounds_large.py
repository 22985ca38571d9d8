"""Bounds on many unknowns, with sparse Jacobians, and on the output of a layer."""

from __future__ import annotations

import copy
from typing import Any

import implicitly as im
import numpy as np
import pytest
import torch
from implicitly.solvers.bounded.matrices import Dense, Sparse
from implicitly.solvers.linear.sparse_pattern import SparsePattern
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

D = torch.float64


def membrane(m: int) -> tuple[Any, Tensor, Any]:
    """A membrane on the unit square under a load, above a paraboloid: equation, obstacle, matrix."""
    h = 1 / (m + 1)
    side = (torch.arange(m, dtype=D) + 1) * h
    x, y = torch.meshgrid(side, side, indexing="ij")
    obstacle = (0.25 - 2 * (x - 0.5) ** 2 - 2 * (y - 0.4) ** 2).reshape(-1)

    def equation(u: Tensor, load: Tensor) -> Tensor:
        around = torch.nn.functional.pad(u.reshape(m, m), (1, 1, 1, 1))
        total = around[2:, 1:-1] + around[:-2, 1:-1] + around[1:-1, 2:] + around[1:-1, :-2]
        return (4 * u - total.reshape(-1)) / h**2 + load

    line = sparse.diags([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], [-1, 0, 1]) / h**2
    one = sparse.identity(m)
    return equation, obstacle, (sparse.kron(one, line) + sparse.kron(line, one)).tocsr()


def by_active_sets(matrix: Any, obstacle: np.ndarray, load: np.ndarray) -> np.ndarray:
    """The primal–dual active set method (Hintermüller, Ito & Kunisch 2003), in SciPy alone."""
    u, active = np.maximum(obstacle, 0), np.zeros(len(load), dtype=bool)
    unit = matrix.diagonal()
    for _ in range(100):
        held = u - obstacle < (matrix @ u + load) / unit
        if (held == active).all():
            return u
        active = held
        fixed = sparse.diags(active.astype(float))
        whole = sparse.diags((~active).astype(float)) @ matrix + fixed
        u = splu(whole.tocsc()).solve(np.where(active, obstacle, -load))
    raise AssertionError("the reference has not converged")


def test_a_membrane_of_many_nodes_over_an_obstacle() -> None:
    m = 60
    equation, obstacle, matrix = membrane(m)
    load = torch.full((m * m,), 2.0, dtype=D).requires_grad_()
    start = obstacle.clamp(min=0.0)
    solution = im.complementarity(equation, start, load, bounds=(obstacle, torch.inf))
    expected = by_active_sets(matrix, obstacle.numpy(), load.detach().numpy())
    np.testing.assert_allclose(solution.value.detach().numpy(), expected, atol=1e-10)
    # Sparse Jacobians: some ten products for each of them.
    assert solution.counts.products < 20 * solution.steps + 100
    assert bool(solution.bounds.active.any())
    (gradient,) = torch.autograd.grad(solution.value.mean(), load)
    assert solution.adjoints[0].counts.products < 50
    # A node in contact does not move; of the others it is the Dirichlet problem between the contacts.
    free = expected > obstacle.numpy() + 1e-12
    inner = splu(matrix[free][:, free].tocsc())
    exact = np.zeros(m * m)
    exact[free] = -inner.solve(np.full(free.sum(), 1 / m**2))
    np.testing.assert_allclose(gradient.numpy(), exact, atol=1e-9 * np.abs(exact).max())


def test_many_equations_with_logarithms_keep_their_bounds() -> None:
    n = 3000

    def equation(z: Tensor, x: Tensor) -> Tensor:
        assert bool((z.detach() >= 0).all())
        return torch.log(z) + z - 0.3 * z.roll(1) - 0.2 * z.roll(-1) - x

    x = torch.linspace(-20, 3, n, dtype=D).requires_grad_()
    solution = im.root(equation, torch.full((n,), 50.0, dtype=D), x, bounds=(0.0, None))
    z = solution.value.detach()
    # The terms of each equation cancel.
    residual = equation(z, x.detach())
    assert bool((residual.abs() <= 1e-9 * (z.log().abs() + z + x.detach().abs())).all())
    (gradient,) = torch.autograd.grad(solution.value.sum(), x)
    rows, columns = np.arange(n), np.arange(n)
    jacobian = sparse.coo_matrix((1 / z.numpy() + 1, (rows, columns)), (n, n)).tocsc()
    before = sparse.coo_matrix((np.ones(n), (rows, (columns - 1) % n)), (n, n))
    after = sparse.coo_matrix((np.ones(n), (rows, (columns + 1) % n)), (n, n))
    whole = (jacobian - 0.3 * before - 0.2 * after).tocsc()
    expected = splu(whole.T.tocsc()).solve(np.ones(n))
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-7)


def test_a_given_pattern_makes_jacobians_sparse_at_any_size() -> None:
    n = 200
    pattern = sparse.identity(n) + sparse.eye(n, k=1)
    solution = im.root(
        lambda z: torch.sqrt(z) * z - 1 - 0.1 * torch.cat((z[1:], z[:1] * 0)),
        torch.full((n,), 4.0, dtype=D), bounds=(0.0, None), sparsity=pattern,
    )  # fmt: skip
    assert solution.counts.products < 5 * solution.steps + 200
    with pytest.raises(im.WrongDerivativeError, match="lacks places"):
        im.root(
            lambda z: z**2 - 1 + z.flip(0), torch.full((n,), 4.0, dtype=D), bounds=(0.0, None),
            sparsity=pattern,
        )  # fmt: skip


def test_an_equation_too_full_for_many_unknowns_is_a_failure() -> None:
    n = 4200
    full = torch.full((n, n), 1e-4, dtype=torch.float32)

    def equation(z: Tensor) -> Tensor:
        return z + (full * (1 + torch.arange(n) % 7)) @ torch.sin(z * torch.arange(n)) - 1

    solution = im.root(
        equation, torch.ones(n), bounds=(0.0, None), on_failure="accept",
        stopping=im.Stopping(max_steps=2),
    )  # fmt: skip
    assert im.Status(int(solution.status)) == im.Status.LINEAR_SOLVE_FAILED


@pytest.mark.parametrize("seed", range(3))
def test_sparse_and_dense_matrices_do_the_same(seed: int) -> None:
    generator = np.random.default_rng(seed)
    batch, n = 2, 12
    there = generator.random((n, n)) < 0.3
    there[np.arange(n), np.arange(n)] = True
    pattern = SparsePattern.of(n, *np.nonzero(there), transposed=True)
    # Diagonally dominant, so that every part is regular.
    entries = generator.standard_normal((batch, len(pattern.rows)))
    entries += 20.0 * (pattern.rows == pattern.columns)
    whole = np.zeros((batch, n, n))
    whole[:, pattern.rows, pattern.columns] = entries
    like = torch.zeros(batch, n, dtype=D)
    dense, thin = Dense(torch.from_numpy(whole)), Sparse(pattern, entries, like).with_diagonal
    v, w = (torch.from_numpy(generator.uniform(0.5, 2, (batch, n))) for _ in range(2))
    which = torch.from_numpy(generator.random((batch, n)) < 0.3)
    for one, other in ((dense, thin), (dense.scaled(v, w), thin.scaled(v, w)),
                       (dense.or_identity(which), thin.or_identity(which))):  # fmt: skip
        for some in ("sums", "largest", "turned", "solve"):
            found = getattr(other, some)(w)
            torch.testing.assert_close(found, getattr(one, some)(w), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(other.diagonal(), one.diagonal())
        torch.testing.assert_close(other.lengths(), one.lengths())
        damped = [matrices.damped(v, w)(1e-3, w) for matrices in (one, other)]
        torch.testing.assert_close(damped[1], damped[0], rtol=1e-8, atol=1e-8)
    stays = thin.solve_without(which, w)
    assert bool((stays[which] == 0).all())
    product = (torch.from_numpy(whole) @ stays.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(product[~which], w[~which], rtol=1e-7, atol=1e-7)


# --- Layers --------------------------------------------------------------------------------------------


class Roots(torch.nn.Module):
    """`z = 0.3 √z + σ(W z) + x²`, which has values for positive `z` alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3, dtype=D)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return 0.3 * torch.sqrt(z) + torch.sigmoid(self.linear(z)) + x**2


def test_a_layer_keeps_its_output_within_bounds() -> None:
    torch.manual_seed(0)
    layer = im.ImplicitLayer(Roots(), bounds=(0.0, None), init=torch.ones_like)
    x = torch.randn(4, 3, dtype=D).requires_grad_()
    z = layer(x)
    direct = im.fixed_point(
        lambda z, x: layer.f(z, x), torch.ones(4, 3, dtype=D), x, bounds=(0.0, None), batch_dims=1
    )
    torch.testing.assert_close(z, direct.value)
    assert layer.solution is not None
    assert layer.solution.bounds.active.shape == (4, 3)
    assert torch.autograd.gradcheck(layer, (x,))
    z.sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())
    assert copy.deepcopy(layer)(x).equal(layer(x))


def test_a_layer_with_bounds_does_not_become_part_of_a_graph() -> None:
    layer = im.ImplicitLayer(
        lambda z, x: torch.log(z) + z - x, "root", bounds=(0.0, None), init=torch.ones_like
    )
    x = torch.ones(1, 2, dtype=D)
    with pytest.raises(Exception, match="bounds are kept by ProjectedNewton"):
        torch.compile(layer, fullgraph=True, backend="eager")(x)
    around = torch.compile(lambda x: 2 * layer(x), backend="eager")
    torch.testing.assert_close(around(x), torch.full((1, 2), 2.0, dtype=D))


def test_bounds_of_a_layer_are_checked() -> None:
    with pytest.raises(TypeError, match="does not keep its iterates within bounds"):
        im.ImplicitLayer(torch.cos, bounds=(0.0, 1.0), solver=im.Anderson())
    with pytest.raises(ValueError, match="outside of the bounds"):
        im.ImplicitLayer(lambda z, x: x, bounds=(0.5, 1.0))(torch.ones(1, 2))
