"""Power flow in a grid, and how every voltage answers to every load.

The nine-bus grid of Anderson & Fouad (1977, figure 2.18) has three generators, three loads and nine
lines. Its state, angles and magnitudes of the voltages, is implicit: the power that flows into each bus
must be the one given there. `root` solves these 14 equations, by Newton's method to begin with; the
unknown is a dictionary of tensors.

One call of `torch.func.jacrev` gives `∂V/∂P`, how each voltage answers to power at each bus, and one
nested call the curvature along a growing load: the second-order forecast follows the bending voltage
where the first order is a straight line. Load-flow programs solve the equations as well, and can give the
matrix from the Jacobian that they have factored; here nothing had to be derived for it, nor for the
curvature.
"""

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

# Bus, bus, resistance, reactance, susceptance; per unit of 100 MVA.
LINES = [
    (1, 4, 0, 0.0576, 0), (2, 7, 0, 0.0625, 0), (3, 9, 0, 0.0586, 0), (4, 5, 0.01, 0.085, 0.176),
    (4, 6, 0.017, 0.092, 0.158), (5, 7, 0.032, 0.161, 0.306), (6, 9, 0.039, 0.17, 0.358),
    (7, 8, 0.0085, 0.072, 0.149), (8, 9, 0.0119, 0.1008, 0.209),
]  # fmt: skip
GENERATORS = torch.tensor([1.04, 1.025, 1.025], dtype=torch.float64)  # buses 1 to 3 hold these
ACTIVE = torch.tensor([1.63, 0.85, 0, -1.25, -0.9, 0, -1.0, 0], dtype=torch.float64)  # 2 to 9
TEXTBOOK = (1.026, 0.996, 1.013, 1.026, 1.016, 1.032)  # voltages, figure 2.19
REACTIVE = torch.tensor([0, -0.5, -0.3, 0, -0.35, 0], dtype=torch.float64)  # buses 4 to 9


def admittance() -> Tensor:
    Y = torch.zeros(9, 9, dtype=torch.complex128)
    for i, k, resistance, reactance, susceptance in LINES:
        y = 1 / complex(resistance, reactance)
        for bus, other in ((i - 1, k - 1), (k - 1, i - 1)):
            Y[bus, bus] += y + 0.5j * susceptance
            Y[bus, other] -= y
    return Y


def injected(z: dict[str, Tensor]) -> Tensor:
    angle = torch.cat((torch.zeros(1, dtype=torch.float64), z["angle"]))
    U = torch.polar(torch.cat((GENERATORS, z["voltage"])), angle)
    return U * (admittance() @ U).conj()


def mismatch(z: dict[str, Tensor], P: Tensor, Q: Tensor) -> dict[str, Tensor]:
    S = injected(z)
    return {"angle": S.real[1:] - P, "voltage": S.imag[3:] - Q}


def state(P: Tensor) -> dict[str, Tensor]:
    start = {"angle": torch.zeros_like(P), "voltage": torch.ones_like(REACTIVE)}
    return implicitly.root(mismatch, start, P, REACTIVE).value


def draw(
    sensitivity: Tensor, loads: Tensor, exact: Tensor, first: Tensor, second: Tensor
) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    image = left.imshow(sensitivity.numpy(), cmap="RdBu", vmin=-0.017, vmax=0.017)
    left.set(title="dV/dP, per unit", xlabel="bus that injects", ylabel="bus that answers")
    left.set(xticks=range(8), xticklabels=range(2, 10), yticks=range(6), yticklabels=range(4, 10))
    left.grid(False)
    figure.colorbar(image, ax=left)
    for values, label in ((exact, "solved anew"), (first, "first order"), (second, "second order")):
        right.plot(100 * loads, values, label=label)
    right.set(title="Voltage at bus 5", xlabel="more load there, MW", ylabel="per unit")
    right.legend()
    return figure


def main() -> Figure:
    slack = injected(state(ACTIVE))[0]
    print(f"bus 1 generates {100 * slack.real:.1f} MW (textbook: 71.6)")
    print("voltages of buses 4 to 9:", *(f"{v:.3f}" for v in state(ACTIVE)["voltage"]))
    print("those of the textbook:   ", *TEXTBOOK)
    sensitivity = torch.func.jacrev(lambda P: state(P)["voltage"])(ACTIVE)
    steps = 1e-5 * torch.eye(8, dtype=torch.float64)
    around = [state(ACTIVE + s)["voltage"] - state(ACTIVE - s)["voltage"] for s in steps]
    error = (sensitivity - torch.stack(around, dim=1) / 2e-5).abs().max()
    print(f"dV/dP: entries up to {sensitivity.abs().max():.4f}, within {error:.1e} of differences")

    bus = torch.eye(8, dtype=torch.float64)[3]  # the fifth

    def voltage(load: Tensor) -> Tensor:
        return state(ACTIVE - load * bus)["voltage"][1]

    zero = torch.zeros((), dtype=torch.float64)
    slope, bend = torch.func.grad(voltage)(zero), torch.func.hessian(voltage)(zero)
    loads = torch.linspace(0, 1.6, 17, dtype=torch.float64)
    exact = torch.stack([voltage(load) for load in loads])
    first = exact[0] + slope * loads
    second = first + bend * loads**2 / 2
    print(f"forecast at +100 MW: off by {abs(first - exact)[10]:.4f}, "
          f"to second order by {abs(second - exact)[10]:.4f}")  # fmt: skip
    return draw(sensitivity, loads, exact, first, second)


if __name__ == "__main__":
    main().savefig("power_flow.png")
