"""Kepler's equation for many orbits at once, and how its solution moves with the eccentricity.

A planet's eccentric anomaly `E` solves `E − e sin E = M` for a mean anomaly `M` and an eccentricity
`e`. Each orbit is one system of a batch: it stops by itself. The derivatives are known in closed
form, `∂E/∂M = 1 / (1 − e cos E)` and `∂E/∂e = sin E / (1 − e cos E)`.
"""

import implicitly
import torch
from torch import Tensor


def kepler(E: Tensor, e: Tensor, M: Tensor) -> Tensor:
    return E - e * torch.sin(E) - M


def main() -> None:
    M = torch.linspace(0.1, 6.2, 12, dtype=torch.float64).repeat(4).requires_grad_()
    e = torch.tensor([0.1, 0.5, 0.9, 0.99], dtype=torch.float64).repeat_interleave(12)
    e.requires_grad_()

    start = torch.full_like(M, torch.pi).detach()
    solution = implicitly.root(kepler, start, e, M, solver=implicitly.Newton(), batch_dims=1)
    E = solution.value
    dE_de, dE_dM = torch.autograd.grad(E.sum(), (e, M))

    slope = 1 - e * torch.cos(E)
    error_M = (dE_dM * slope - 1).abs().max()
    error_e = (dE_de * slope - torch.sin(E)).abs().max()
    print(f"{len(E)} orbits solved: {bool(solution.converged.all())}")
    print(f"Newton steps per orbit: {solution.steps.min()} to {solution.steps.max()}")
    print(f"largest |E − e sin E − M|: {kepler(E, e, M).abs().max():.1e}")
    print(f"largest error of ∂E/∂M: {error_M:.1e}, of ∂E/∂e: {error_e:.1e}")


if __name__ == "__main__":
    main()
