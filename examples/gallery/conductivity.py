"""A conductivity field from measurements: an inverse problem with 10,201 unknowns.

Heat that enters a plate at four sources flows by `−∇·(eᵐ ∇u) = s`, with the edge held at zero (five-point
differences on a grid of 101 × 101). The temperatures are implicit in the field `m`. Each source is a
linear system of 10,201 unknowns which `root` solves by conjugate gradients, with the inverse of the plain
Laplacian, by sine transforms, as preconditioner; no matrix is formed.

The adjoint is the same symmetric system, so one more solve gives the derivative in every pixel of `m`.
L-BFGS then fits `m` to 4 × 100 temperatures with one per cent of noise, under a Gaussian prior for smooth
fields. One directional derivative is checked by differences. Details finer than the prior or the distance
of the sensors do not come back, and no solver changes that.
"""

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

N, SENSORS = 101, slice(5, 101, 10)
GRID = torch.arange(1, N + 1, dtype=torch.float64) / (N + 1)
SINES = (2 / (N + 1)) ** 0.5 * torch.sin(torch.pi * (N + 1) * GRID.outer(GRID))
FREQUENCY = 4 * torch.sin(torch.pi * GRID / 2) ** 2


def balance(u: Tensor, m: Tensor, heat: Tensor) -> Tensor:
    """Heat that enters each cell less what leaves; `u` is `(sources, N, N)`."""
    kappa = torch.nn.functional.pad(m.exp()[None], (1, 1, 1, 1), mode="replicate")[0]
    u = torch.nn.functional.pad(u, (1, 1, 1, 1))
    down = (kappa[1:] + kappa[:-1])[:, 1:-1] / 2 * u.diff(dim=1)[:, :, 1:-1]
    across = (kappa[:, 1:] + kappa[:, :-1])[1:-1] / 2 * u.diff(dim=2)[:, 1:-1]
    return down.diff(dim=1) + across.diff(dim=2) + heat


def inverse_laplacian(v: Tensor) -> Tensor:
    """Of the negative Laplacian, for flat `(sources, N²)`."""
    v = SINES @ v.unflatten(1, (N, N)) @ SINES
    return (SINES @ (v / (FREQUENCY[:, None] + FREQUENCY)) @ SINES).flatten(1)


def temperatures(m: Tensor, heat: Tensor) -> implicitly.Solution:
    cg = implicitly.CG(preconditioner=inverse_laplacian)
    return implicitly.root(
        balance, torch.zeros_like(heat), m, heat, linear=True, solver=cg, batch_dims=1,
        gradient=implicitly.Exact(solver=cg),
    )  # fmt: skip


def field(w: Tensor) -> Tensor:
    """A smooth field from white noise: a Gaussian prior with a length of 0.1."""
    decay = 1 + 0.01 * (N + 1) ** 2 * (FREQUENCY[:, None] + FREQUENCY)
    return SINES @ (30 * w / decay) @ SINES


def draw(truth: Tensor, m: Tensor) -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(7.5, 3))
    for axis, values, title in zip(
        axes, (truth, m), ("true", "from 400 measurements"), strict=True
    ):
        image = axis.imshow(values.numpy(), cmap="RdBu_r", vmin=-1.6, vmax=1.6, extent=(0, 1, 0, 1))
        axis.set(title=f"Log conductivity, {title}")
        axis.grid(False)
    figure.colorbar(image, ax=axes)
    return figure


def main() -> Figure:
    torch.manual_seed(0)
    x, y = torch.meshgrid(GRID, GRID, indexing="ij")
    truth = 1.5 * torch.exp(-40 * ((x - 0.35) ** 2 + (y - 0.6) ** 2))
    truth = truth - 1.2 * torch.exp(-30 * ((x - 0.7) ** 2 + (y - 0.3) ** 2))
    heat = torch.zeros(4, N, N, dtype=torch.float64)
    heat[range(4), (25, 25, 75, 75), (25, 75, 25, 75)] = 1.0
    solution = temperatures(truth, heat)
    print(f"{N * N} unknowns, {solution.steps.max()} steps of conjugate gradients")
    exact = solution.value[:, SENSORS, SENSORS]
    noise = 0.01 * exact.std()
    measured = exact + noise * torch.randn_like(exact)

    def misfit(w: Tensor) -> Tensor:
        return (temperatures(field(w), heat).value[:, SENSORS, SENSORS] - measured) / noise

    def objective(w: Tensor) -> Tensor:
        return misfit(w).square().sum() / 2 + w.square().sum() / 2

    w = torch.zeros_like(truth).requires_grad_()
    optimizer = torch.optim.LBFGS([w], max_iter=40, history_size=20, line_search_fn="strong_wolfe")
    losses = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective(w)
        loss.backward()
        losses.append(loss.item())
        return loss

    (slope,) = torch.autograd.grad(objective(w), w)
    direction = 1e-4 * torch.randn_like(w)
    ahead, behind = (objective(w.detach() + sign * direction) for sign in (1, -1))
    error = abs((ahead - behind) / 2 / (slope * direction).sum() - 1)
    print(f"gradient and central differences: {error:.1e} apart")
    optimizer.step(closure)
    m = field(w.detach())
    print(f"{len(losses)} evaluations with gradient: from {losses[0]:.0f} to {losses[-1]:.0f}")
    print(f"misfit: {misfit(w.detach()).square().mean().sqrt():.2f} of the noise")
    print(f"error of the field: {(m - truth).norm() / truth.norm():.2f} of its norm")
    return draw(truth, m)


if __name__ == "__main__":
    main().savefig("conductivity.png")
