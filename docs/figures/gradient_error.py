"""Error of the gradient against the tolerance asked for: writes gradient_error.png.

The reference is the implicit function theorem with dense matrices at a root found by Newton's method to
rounding. Solve and adjoint get the same relative tolerance. The approximate modes have no
tolerance for the gradient: with the root exact, their error stays.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from implicitly import (
    Anderson,
    Broyden,
    Exact,
    FixedPointIteration,
    JacobianFree,
    Neumann,
    NewtonKrylov,
    Phantom,
    Stopping,
    fixed_point,
)

HERE = Path(__file__).parent
BATCH, SIZE = 4, 50
TOLERANCES = [10.0**-k for k in range(2, 13)]
EXACT = {
    "Anderson(), GMRES()": (Anderson(), None),
    "Broyden(), Broyden()": (Broyden(), Broyden()),
    "FixedPointIteration() twice": (FixedPointIteration(), FixedPointIteration()),
    "NewtonKrylov(), GMRES()": (NewtonKrylov(), None),
}
APPROXIMATE = {
    "JacobianFree()": JacobianFree(),
    "Neumann(terms=5)": Neumann(terms=5),
    "Phantom(steps=20)": Phantom(steps=20),
}


def equation():
    """Weights of norm 0.95 (a scaled rotation), inputs and a cotangent."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator)
    W = 0.95 * torch.linalg.qr(W).Q
    x, cotangent = torch.randn(2, BATCH, SIZE, dtype=torch.float64, generator=generator)
    return W, 0.5 * x, cotangent


def cell(z, W, x):
    """The map."""
    return torch.tanh(z @ W.mT + x)


def dense_reference(W, x, cotangent):
    """The gradient with respect to `W` from dense matrices at the root."""
    z = torch.zeros_like(x)
    identity = torch.eye(SIZE, dtype=torch.float64)
    for _ in range(20):
        value = cell(z, W, x)
        J = (1 - value**2).unsqueeze(2) * W
        z = z - torch.linalg.solve(J - identity, value - z)
    u = torch.linalg.solve(identity - J.mT, cotangent)
    return ((1 - z**2) * u).mT @ z


def gradient_error(dtype=torch.float64, solver=None, stopping=None, gradient=None):
    """Relative error of the gradient with respect to the weights."""
    W, x, cotangent = equation()
    reference = dense_reference(W, x, cotangent)
    W = W.to(dtype).requires_grad_()
    start = torch.zeros_like(x, dtype=dtype)
    z = fixed_point(
        cell, start, W, x.to(dtype),
        solver=solver, stopping=stopping, gradient=gradient, batch_dims=1,
    ).value  # fmt: skip
    (found,) = torch.autograd.grad(z, W, cotangent.to(dtype))
    return ((found - reference).norm() / reference.norm()).item()


def draw(axes):
    """Draw the curves and print their numbers."""
    for name, (solver, adjoint_solver) in EXACT.items():
        errors = []
        for rtol in TOLERANCES:
            stopping = Stopping(rtol=rtol)
            mode = Exact(solver=adjoint_solver, stopping=stopping)
            errors.append(gradient_error(solver=solver, stopping=stopping, gradient=mode))
        axes.loglog(TOLERANCES, errors, marker="o", label=name)
        print(
            f"{name:28s} rtol 1e-2: {errors[0]:.1e}   1e-6: {errors[4]:.1e}   1e-12: {errors[-1]:.1e}"
        )
    axes.loglog(TOLERANCES, TOLERANCES, color="0.6", linestyle=":", label="error = tolerance")
    for name, mode in APPROXIMATE.items():
        error = gradient_error(stopping=Stopping(rtol=1e-12), gradient=mode)
        axes.axhline(error, color="0.4", linestyle="--", linewidth=0.8)
        axes.annotate(
            name, (TOLERANCES[-1], error), va="bottom", ha="right", fontsize=8, color="0.3"
        )
        print(f"{name:28s} {error:.1e}")
    axes.invert_xaxis()
    axes.set(
        xlabel="relative tolerance of solve and adjoint",
        ylabel="relative error of the gradient",
        title="Gradient error against tolerance",
    )
    axes.legend()


if __name__ == "__main__":
    plt.style.use(HERE / "implicitly.mplstyle")
    figure, axes = plt.subplots(figsize=(5, 3.6))
    draw(axes)
    figure.savefig(HERE / "gradient_error.png")
    for dtype in (torch.float32, torch.float64):
        print(f"defaults in {dtype}: {gradient_error(dtype):.1e}")
