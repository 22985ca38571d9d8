"""First and second derivatives of one fixed point, beside TorchDEQ 0.1.0: prints a table.

The map is that of gradient_error.py, `z = tanh(W z + x)` in float64. The reference differentiates
3000 plain iterations by autograd, twice. Needs the extra `benchmarks`.
"""

import torch
import torchdeq
from implicitly import Anderson, Exact, FixedPointIteration, SolveError, Stopping, fixed_point
from torch import Tensor

BATCH, SIZE = 4, 50
TIGHT = Stopping(rtol=1e-12)


def equation() -> tuple[Tensor, Tensor]:
    """Weights of norm 0.95 and inputs."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=generator)
    W = 0.95 * torch.linalg.qr(W).Q
    x = 0.5 * torch.randn(BATCH, SIZE, dtype=torch.float64, generator=generator)
    return W, x.requires_grad_()


def iterate(f, z0):
    """Plain iterations, recorded by autograd."""
    z = z0
    for _ in range(3000):
        z = f(z)
    return z


def by_torchdeq(**options):
    """A solve by TorchDEQ."""

    def solve(f, z0):
        return torchdeq.get_deq(**options)(f, z0)[0][-1]

    return solve


def by_implicitly(**options):
    """A solve by this package."""

    def solve(f, z0):
        return fixed_point(f, z0, x, batch_dims=1, **options).value

    return solve


def derivatives(solve, f):
    """The gradient of `Σ z²` and the gradient of its squared norm."""
    z = solve(f, torch.zeros(BATCH, SIZE, dtype=torch.float64))
    (first,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return first.detach(), second


W, x = equation()
CASES = {
    "implicitly, defaults": by_implicitly(),
    "implicitly, rtol 1e-12": by_implicitly(
        solver=Anderson(), stopping=TIGHT, gradient=Exact(stopping=TIGHT)
    ),
    "TorchDEQ, defaults": by_torchdeq(),
    "TorchDEQ, ift=True": by_torchdeq(ift=True),
    "TorchDEQ, ift=True, rtol 1e-12": by_torchdeq(
        ift=True,
        f_tol=1e-12, b_tol=1e-12, f_stop_mode="rel", b_stop_mode="rel",
        f_max_iter=1000, b_max_iter=1000,
    ),
}  # fmt: skip


def main():
    """Print the table."""
    reference = derivatives(iterate, lambda z: torch.tanh(z @ W.mT + x))
    print(f"{'relative error':32s}{'first':>10s}{'second':>10s}")
    for name, solve in CASES.items():
        # Only `implicitly` takes x as an argument; both kinds of function are the same map.
        found = derivatives(solve, lambda z, x=x: torch.tanh(z @ W.mT + x))
        errors = [((a - b).norm() / b.norm()).item() for a, b in zip(found, reference, strict=True)]
        print(f"{name:32s}{errors[0]:10.1e}{errors[1]:10.1e}")

    print("\nz = 3z + 1 from 0, which plain iteration cannot solve (root −0.5):")
    start = torch.zeros(1, 1, dtype=torch.float64)
    print("TorchDEQ returns", torchdeq.get_deq()(lambda z: 3 * z + 1, start)[0][-1].item())
    try:
        fixed_point(lambda z: 3 * z + 1, start, batch_dims=1, solver=FixedPointIteration())
    except SolveError as error:
        print("implicitly raises", str(error).splitlines()[1].strip())
    print(
        "with its default solver:",
        fixed_point(lambda z: 3 * z + 1, start, batch_dims=1).value.item(),
    )


if __name__ == "__main__":
    main()
