"""Penalties and the spectral radius beside closed forms and dense eigenvalues."""

import pytest
import torch
from implicitly.models import Piece, jacobian_penalty, residual_penalty, spectral_radius


def dense(seed, n):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5


def piece_of(matrix, batch=2):
    z = torch.zeros(batch, 3, len(matrix), dtype=torch.float64)
    return Piece(z, lambda z: z @ matrix.mT)


def test_the_penalty_is_the_mean_square_of_the_jacobians_rows():
    matrix = dense(0, 6)
    torch.manual_seed(0)
    found = float(jacobian_penalty(piece_of(matrix), samples=4000))
    # Per entry of the state ‖A‖_F² / 6; with 4000 · 6 rows of noise off by about √(2 / 24000).
    assert found == pytest.approx(float(matrix.square().sum()) / 6, rel=5 * (2 / 24000) ** 0.5)


def test_the_penalty_has_the_gradient_of_the_jacobians_norm():
    matrix = dense(1, 6).requires_grad_()
    torch.manual_seed(0)
    jacobian_penalty(piece_of(matrix), samples=4000).backward()
    expected = 2 * matrix.detach() / 6
    assert (matrix.grad - expected).norm() / expected.norm() < 0.05


def test_the_residual_penalty_reaches_the_states_and_the_parameters():
    a = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    z = torch.full((1, 2, 3), 2.0, dtype=torch.float64, requires_grad=True)
    value = residual_penalty(Piece(z, lambda z: a * z + 3))
    value.backward()
    # (a z + 3 − z)², all entries alike: 4 with the derivatives 2 · 2 · z and 2 · 2 · (a − 1) / 6.
    assert value.item() == pytest.approx(4.0)
    assert a.grad.item() == pytest.approx(8.0)
    assert z.grad.flatten().tolist() == pytest.approx([-2.0 / 6] * 6)


@pytest.mark.parametrize(
    "eigenvalues", [(0.9, 0.3, 0.1), (0.9, -0.9, 0.2), (-1.3, 0.5, 0.1)], ids=str
)
def test_real_eigenvalues_are_found(eigenvalues):
    basis = torch.linalg.qr(dense(2, 3)).Q
    matrix = basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.mT
    found = spectral_radius(lambda z: z @ matrix.mT, torch.zeros(2, 3, dtype=torch.float64), 40)
    assert found.tolist() == pytest.approx([max(map(abs, eigenvalues))] * 2, rel=1e-6)


@pytest.mark.parametrize("angle", [0.3, 1.5707963, 3.0])
def test_a_rotation_has_the_radius_of_its_scale(angle):
    # A Rayleigh quotient would be 0.8 cos(angle).
    s, c = torch.sin(torch.tensor(angle)).double(), torch.cos(torch.tensor(angle)).double()
    matrix = torch.zeros(3, 3, dtype=torch.float64)
    matrix[:2, :2] = 0.8 * torch.stack((torch.stack((c, -s)), torch.stack((s, c))))
    matrix[2, 2] = 0.3
    found = spectral_radius(lambda z: z @ matrix.mT, torch.zeros(1, 3, dtype=torch.float64), 40)
    assert found.item() == pytest.approx(0.8, rel=1e-7)


def test_each_sequence_has_its_own_radius():
    scale = torch.tensor([0.2, 0.7], dtype=torch.float64).reshape(2, 1, 1)
    found = spectral_radius(lambda z: scale * z, torch.zeros(2, 4, 3, dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.2, 0.7])


def test_the_zero_map_has_radius_zero():
    assert spectral_radius(lambda z: 0 * z, torch.zeros(1, 4)).item() == 0
