"""Tune the penalty of ridge regression by the gradient of its validation error.

The weights solve `Xᵀ(X w − y) + λ w = 0`, so the validation error is a function of `λ` through an
implicit one. Newton's method on its derivative needs two derivatives of the solution. The equation is
linear in `w`: solvers of linear equations may serve, and closed forms check the result.
"""

import implicitly
import torch
from torch import Tensor


def normal_equations(w: Tensor, log_penalty: Tensor, X: Tensor, y: Tensor) -> Tensor:
    return X.mT @ (X @ w - y) + torch.exp(log_penalty) * w


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(60, 20, dtype=torch.float64, generator=generator)
    truth = torch.randn(20, dtype=torch.float64, generator=generator)
    y = X @ truth + 3.0 * torch.randn(60, dtype=torch.float64, generator=generator)
    train, validation = slice(0, 30), slice(30, 60)

    def validation_error(log_penalty: Tensor) -> Tensor:
        data = (X[train], y[train])
        start = torch.zeros_like(truth)
        w = implicitly.root(normal_equations, start, log_penalty, *data, linear=True).value
        return (X[validation] @ w - y[validation]).square().mean()

    log_penalty = torch.zeros((), dtype=torch.float64)
    for step in range(6):
        gradient = torch.func.grad(validation_error)(log_penalty)
        curvature = torch.func.hessian(validation_error)(log_penalty)
        print(
            f"step {step}: λ = {log_penalty.exp():.6f}, error {validation_error(log_penalty):.6f}, "
            f"slope {gradient:.1e}"
        )
        log_penalty = log_penalty - gradient / curvature.abs()

    # Closed form: w = A⁻¹ Xᵀy with A = XᵀX + λ, and ∂w/∂log λ = −λ A⁻¹ w.
    A = X[train].mT @ X[train] + log_penalty.exp() * torch.eye(20, dtype=torch.float64)
    w = torch.linalg.solve(A, X[train].mT @ y[train])
    slope = -log_penalty.exp() * torch.linalg.solve(A, w)
    misfit = X[validation] @ w - y[validation]
    exact = 2 * (misfit * (X[validation] @ slope)).mean()
    print(f"slope at the optimum by the closed form: {exact:.1e}")


if __name__ == "__main__":
    main()
