"""A solver of one's own: Irons and Tuck's vector form of Aitken's extrapolation.

Stopping, the best iterate, status and failure are the driver's work, not the solver's. Derivatives do
not depend on the solver; this one can solve the adjoint equation as well.
"""

from dataclasses import dataclass

import torch
from implicitly import Exact, FixedPointIteration, Problem, Solver, fixed_point
from torch import Tensor


@dataclass
class AitkenState:
    """The iterate, its residual and the step length, with the systems along the first axis."""

    z: Tensor
    residual: Tensor
    length: Tensor


@dataclass(frozen=True)
class Aitken(Solver):
    """`z ← z + ωr`, where the secant of the last two residuals gives `ω` (Irons & Tuck 1969)."""

    def init(self, problem: Problem, z: Tensor, residual: Tensor) -> AitkenState:
        return AitkenState(z, residual, z.new_ones(z.shape[0], 1))

    def step(self, problem: Problem, state: AitkenState) -> AitkenState:
        z = state.z + state.length * state.residual
        residual = problem.residual(z)
        change = residual - state.residual
        secant = -(state.residual * change).sum(1, True) / change.square().sum(1, True)
        # Where the residual did not change the quotient is not finite: keep the length.
        length = torch.where(secant.isfinite(), secant * state.length, state.length)
        return AitkenState(z, residual, length)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    W, x = torch.randn(2, 40, 40, dtype=torch.float64, generator=generator)
    W = 0.9 * (W + W.mT) / torch.linalg.matrix_norm(W + W.mT, ord=2)
    x.requires_grad_()
    for solver in (FixedPointIteration(), Aitken()):
        solution = fixed_point(
            lambda z, x: torch.tanh(z @ W + x), torch.zeros_like(x), x,
            solver=solver, gradient=Exact(solver=solver), batch_dims=1,
        )  # fmt: skip
        z = solution.value
        (gradient,) = torch.autograd.grad(z.sum(), x)
        D = torch.diag_embed(1 - z.detach() ** 2)
        A = torch.eye(40, dtype=z.dtype) - D @ W
        dense = (D @ torch.linalg.solve(A.mT, torch.ones_like(x).unsqueeze(2))).squeeze(2)
        error = (gradient - dense).norm() / dense.norm()
        work = f"{solution.evaluations} forward and {solution.adjoints[0].evaluations} backward"
        print(f"{type(solver).__name__}: evaluations {work}, gradient error {error:.0e}")


if __name__ == "__main__":
    main()
