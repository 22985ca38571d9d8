"""Residual against work for each solver on one fixed-point map: writes residuals.png.

The map is `z = tanh(W z + x)` with 100 unknowns. The spectral radius of `W` is 1.5; at the fixed point
the slope of tanh brings that of the Jacobian down to 0.96. Work is counted as evaluations of the map
plus Jacobian–vector products, which cost about as much each.
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from implicitly import Anderson, Broyden, FixedPointIteration, Newton, NewtonKrylov, Stopping
from implicitly.solvers import Problem, solve

HERE = Path(__file__).parent
SIZE = 100
SOLVERS = {
    "FixedPointIteration()": FixedPointIteration(),
    "Anderson()": Anderson(),
    "Broyden()": Broyden(),
    "NewtonKrylov()": NewtonKrylov(),
    "Newton()": Newton(),
}


@dataclass(frozen=True)
class TanhDerivative:
    """The Jacobian of `tanh(W z + x)`, written down."""

    matrix: torch.Tensor

    def jvp(self, v):
        return torch.einsum("bij,bj->bi", self.matrix, v)

    def vjp(self, u):
        return torch.einsum("bij,bi->bj", self.matrix, u)

    def jacobian(self, like):
        return self.matrix


def tanh_problem(radius):
    """The problem and the spectral radius of its Jacobian at the fixed point."""
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator)
    W *= radius / torch.linalg.eigvals(W).abs().max()
    x = 0.5 * torch.randn(1, SIZE, dtype=torch.float64, generator=generator)

    def function(z):
        return torch.tanh(z @ W.mT + x)

    def linearize(z):
        value = function(z)
        return value, TanhDerivative((1 - value**2).unsqueeze(2) * W)

    return Problem(function, linearize=linearize)


def trace(solver, radius):
    """Work and relative residual after each step."""
    problem = tanh_problem(radius)
    work, residuals = [], []

    def note(step, norms):
        work.append(problem.counts.evaluations + problem.counts.jvps)
        residuals.append(norms[0])

    start = torch.zeros(1, SIZE, dtype=torch.float64)
    solution = solve(problem, solver, start, Stopping(rtol=1e-12), callback=note)
    z = solution.z
    radius_there = torch.linalg.eigvals(problem.linearize(z)[1].matrix).abs().max().item()
    scale = torch.linalg.vector_norm(z).item() / SIZE**0.5
    return work, [residual / scale for residual in residuals], radius_there


def draw(axes, radius=1.5):
    """Draw the curves; the spectral radius of the Jacobian at the fixed point."""
    for name, solver in SOLVERS.items():
        work, residuals, radius_there = trace(solver, radius)
        axes.loglog(work, residuals, label=name, marker="o" if "Newton" in name else None)
        print(f"{name:24s} {work[-1]:5d} evaluations and products, residual {residuals[-1]:.1e}")
    axes.set(
        xlabel="evaluations and Jacobian–vector products",
        ylabel="residual, relative to the unknown",
        title=f"One map, each solver (spectral radius {radius_there:.2f})",
    )
    axes.legend()
    return radius_there


if __name__ == "__main__":
    plt.style.use(HERE / "implicitly.mplstyle")
    figure, axes = plt.subplots(figsize=(5, 3.6))
    draw(axes)
    figure.savefig(HERE / "residuals.png")
