"""A circuit simulator in NumPy, and how its answer moves with a resistor: from least to most known.

A source of 1 V drives a diode through a resistor. The voltage of the diode solves
`(1 − v) / R = I₀ (exp(v / v_T) − 1)`. By the implicit function theorem
`dv/dR = −(1 − v) / R² / (1 / R + I₀ / v_T exp(v / v_T))`.
"""

import implicitly
import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

SATURATION, THERMAL = 1e-12, 0.025


def currents(v: np.ndarray, R: np.ndarray) -> np.ndarray:
    """The simulator: the current through the resistor less that through the diode, in mA."""
    return 1e3 * ((1 - v) / R - SATURATION * (np.exp(v / THERMAL) - 1))


def currents_in_torch(v: Tensor, R: Tensor) -> Tensor:
    return 1e3 * ((1 - v) / R - SATURATION * (torch.exp(v / THERMAL) - 1))


@implicitly.implicit_function(currents_in_torch, arrays=True)
def by_bisection(R: np.ndarray) -> float:
    """Somebody else's solver, from SciPy."""
    return float(brentq(currents, 0.0, 1.0, args=(R,), xtol=1e-15))


def main() -> None:
    R = torch.tensor(1000.0, dtype=torch.float64, requires_grad=True)
    start = torch.tensor(0.5, dtype=torch.float64)

    alone = implicitly.root(implicitly.ArrayFunction(currents), start, R)
    print(f"without derivatives: v = {alone.value.item():.6f} in {alone.evaluations} evaluations")

    with_differences = implicitly.ArrayFunction(
        currents, jacobian="finite differences", arguments="finite differences"
    )
    calls = {
        "finite differences": lambda: implicitly.root(with_differences, start, R),
        "equation in torch": lambda: by_bisection(R),
    }
    for name, solve in calls.items():
        solution = solve()
        v = solution.value
        (slope,) = torch.autograd.grad(v, R)
        conductance = 1 / R + SATURATION / THERMAL * torch.exp(v / THERMAL)
        exact = -(1 - v) / R**2 / conductance
        print(
            f"{name}: v = {v.item():.6f}, error of v {solution.error.item():.0e}, "
            f"error of dv/dR {abs(slope / exact - 1).item():.0e}"
        )


if __name__ == "__main__":
    main()
