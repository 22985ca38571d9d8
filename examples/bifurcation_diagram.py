"""A bifurcation diagram: every branch of a buckling rod, and how its critical load depends on its data.

The rod `(s θ′)′ + P sin θ = 0` is straight up to a load `P₁` and then has three solutions. A softer place
in the middle, `s = 1 − c sin(πx)`, lowers the load. For `c = 0` it is an eigenvalue of the second
difference, `4 sin²(πh/2) / h²`.
"""

import math
from pathlib import Path

import implicitly
import torch
from torch import Tensor

NODES = 15


def rod(theta: Tensor, load: Tensor, softness: Tensor) -> Tensor:
    h = 1 / (NODES + 1)
    middles = (torch.arange(NODES + 1, dtype=theta.dtype) + 0.5) * h
    stiffness = 1 - softness * torch.sin(math.pi * middles)
    moment = stiffness * torch.nn.functional.pad(theta, (1, 1)).diff()
    return -moment.diff() - load * h**2 * torch.sin(theta)


def main(file: Path | None = None) -> None:
    softness = torch.zeros((), dtype=torch.float64, requires_grad=True)
    start = torch.zeros(NODES, dtype=torch.float64)
    straight = implicitly.continuation(rod, start, 0.0, softness, bounds=(0.0, 60.0))
    print(f"straight rod: {straight.status.name}, {len(straight)} points")
    curves = [straight]
    for k, point in enumerate(straight.branch_points, start=1):
        exact = 4 * (NODES + 1) ** 2 * math.sin(k * math.pi / (2 * (NODES + 1))) ** 2
        error = abs(point.parameter.item() - exact) / exact
        print(f"branch point {k}: load {point.parameter:.6f}, relative error {error:.1e}")
        curves += straight.branch(point)
    print(f"branches: {[curve.status.name for curve in curves[1:]]}")
    (slope,) = torch.autograd.grad(straight.branch_points[0].parameter, softness)
    # To first order an eigenvalue changes by the form of the change in its eigenvector.
    print(f"critical load per softness: {slope:.6f}, by perturbation {perturbation():.6f}")
    if file is not None:
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots()
        for curve in curves:
            curve.plot(measure=lambda theta: theta[NODES // 4], axes=axes)
        figure.savefig(file)


def perturbation() -> float:
    h = 1 / (NODES + 1)
    nodes = torch.arange(NODES + 2, dtype=torch.float64) * h
    middles = nodes[:-1] + h / 2
    mode = torch.sin(math.pi * nodes)
    form = -(torch.sin(math.pi * middles) * mode.diff() ** 2).sum()
    return (form / (h**2 * (mode**2).sum())).item()


if __name__ == "__main__":
    main()
