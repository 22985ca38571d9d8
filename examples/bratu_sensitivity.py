"""A nonlinear boundary value problem, and how its solution responds to its parameter.

Bratu's equation `u″ + λ exp(u) = 0` on (0, 1) with `u(0) = u(1) = 0` models steady combustion. It has a
closed form: with `θ = √(2λ) cosh(θ / 4)` the largest value is `2 log cosh(θ / 4)`. Central
differences with `n` interior points err by `h²`, in the solution and in its derivative.
"""

import math

import implicitly
import torch
from scipy.optimize import brentq
from torch import Tensor


def bratu(u: Tensor, rate: Tensor) -> Tensor:
    h = 1 / (len(u) + 1)
    padded = torch.nn.functional.pad(u, (1, 1))
    return (padded[2:] - 2 * u + padded[:-2]) / h**2 + rate * torch.exp(u)


def peak(rate: Tensor, n: int) -> Tensor:
    """The largest value of the lower of the two solutions."""
    linear_solver = implicitly.GMRES(restart=n)
    solution = implicitly.root(
        bratu,
        torch.zeros(n, dtype=torch.float64),
        rate,
        solver=implicitly.NewtonKrylov(linear_solver=linear_solver),
        gradient=implicitly.Exact(solver=linear_solver),
    )
    return solution.value[n // 2]


def closed_form(rate: float) -> tuple[float, float]:
    """The largest value and its derivative with respect to the rate."""
    root = math.sqrt(2 * rate)
    theta = brentq(lambda t: t - root * math.cosh(t / 4), 0.0, 4.0, xtol=1e-14)
    slope = math.cosh(theta / 4) / root / (1 - root * math.sinh(theta / 4) / 4)
    return 2 * math.log(math.cosh(theta / 4)), math.tanh(theta / 4) / 2 * slope


def main() -> None:
    rate = 2.0
    value, slope = closed_form(rate)
    print(f"closed form: peak {value:.8f}, d peak / dλ {slope:.8f}")
    for n in (15, 31, 63, 127):
        at = torch.tensor(rate, dtype=torch.float64)
        found_slope, found = torch.func.grad_and_value(peak)(at, n)
        print(
            f"n = {n:3d}: peak {found:.8f} (error {abs(found - value):.1e}), "
            f"slope {found_slope:.8f} (error {abs(found_slope - slope):.1e})"
        )


if __name__ == "__main__":
    main()
