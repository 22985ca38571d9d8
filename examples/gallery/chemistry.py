"""Chemical equilibrium with uncertain constants: three orders of derivatives beside Monte Carlo.

Steam reforming turns methane and steam into hydrogen. The amounts of five gases are implicit: three
balances of atoms and two laws of mass action, with the equilibrium constants of Xu & Froment (1989).
`root` solves for the logarithms of the amounts, so that none is ever negative.

Both constants, the temperature and the feed are uncertain. The delta method moves their covariance
through the equilibrium by derivatives in units of the standard deviations: the gradient `g` gives a
variance of `g·g`, the Hessian `H` shifts the mean by `½ tr H` and adds `½ tr H²`, and the third
derivatives add `g·∇tr H`, which is of the same order and must not be left out. Monte Carlo, here 20,000
equilibria in one batch, is simpler and needs no derivative; the delta method needs one equilibrium, and
says where the variance comes from.
"""

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

# Shifts of ln K of reforming and of the water–gas shift, temperature (K), moles of steam per mole of methane.
MEAN = torch.tensor([0.0, 0.0, 1100.0, 2.5], dtype=torch.float64)
DEVIATION = torch.tensor([0.3, 0.1, 30.0, 0.3], dtype=torch.float64)
PRESSURE = 20.0  # bar


def equations(z: Tensor, given: Tensor) -> Tensor:
    """Balances and mass action for the logarithms of the moles of CH4, H2O, CO, CO2, H2."""
    first, second, temperature, steam = given.unbind(-1)
    methane, water, monoxide, dioxide, hydrogen = z.exp().unbind(-1)
    ch4, h2o, co, co2, h2 = z.unbind(-1)
    total = z.exp().sum(-1).log()
    log_pressure = torch.log(torch.tensor(PRESSURE, dtype=z.dtype))
    reforming = -26830 / temperature + 30.114 + first
    shift = 4400 / temperature - 4.036 + second
    return torch.stack(
        (
            methane + monoxide + dioxide - 1,
            4 * methane + 2 * water + 2 * hydrogen - 4 - 2 * steam,
            water + monoxide + 2 * dioxide - steam,
            co + 3 * h2 - ch4 - h2o + 2 * (log_pressure - total) - reforming,
            co2 + h2 - co - h2o - shift,
        ),
        dim=-1,
    )


def methane_left(given: Tensor) -> Tensor:
    """The share of the methane that is not converted, for `(..., 4)` inputs."""
    start = torch.full((*given.shape[:-1], 5), -1.0, dtype=given.dtype)
    solver = implicitly.Newton()
    solution = implicitly.root(equations, start, given, solver=solver, batch_dims=given.dim() - 1)
    return solution.value[..., 0].exp()


def shifted(u: Tensor) -> Tensor:
    """The same at `u` standard deviations from the mean."""
    return methane_left(MEAN + u * DEVIATION)


def draw(value: Tensor, g: Tensor, mean: Tensor, variance: Tensor, sample: Tensor) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    left.hist(sample, 80, density=True, color="C5", label="Monte Carlo")
    axis = torch.linspace(0, 0.6, 200, dtype=torch.float64)
    for centre, spread, label in (
        (value, g.norm(), "gradient alone"),
        (mean, variance.sqrt(), "three orders"),
    ):
        density = torch.distributions.Normal(centre, spread).log_prob(axis).exp()
        left.plot(axis, density, label=label)
    left.set(title="Unconverted methane", xlabel="share of the feed", ylabel="density")
    left.legend()
    names = ["$K_1$", "$K_2$", "temperature", "steam"]
    right.bar(names, (g.square() / g.square().sum()).tolist())
    right.set(title="Where the variance comes from", ylabel="share of g·g")
    return figure


def main() -> Figure:
    zero = torch.zeros(4, dtype=torch.float64)
    value, g, H = shifted(zero), torch.func.grad(shifted)(zero), torch.func.hessian(shifted)(zero)
    third = torch.func.grad(lambda u: torch.func.hessian(shifted)(u).trace())(zero)
    steps = 1e-4 * torch.eye(4, dtype=torch.float64)
    around = [torch.func.grad(shifted)(step) - torch.func.grad(shifted)(-step) for step in steps]
    error = (H - torch.stack(around) / 2e-4).abs().max()
    print(f"Hessian and central differences of gradients: {error:.1e} apart")

    mean, variance = value + H.trace() / 2, g @ g + H.square().sum() / 2 + g @ third
    generator = torch.Generator().manual_seed(0)
    sample = shifted(torch.randn(20_000, 4, dtype=torch.float64, generator=generator))
    print(f"gradient alone: mean {value:.4f}, standard deviation {g.norm():.4f}")
    print(f"three orders:   mean {mean:.4f}, standard deviation {variance.sqrt():.4f}")
    print(f"Monte Carlo:    mean {sample.mean():.4f}, standard deviation {sample.std():.4f}")
    print(f"standard error of the Monte Carlo mean: {sample.std() / 20_000**0.5:.4f}")
    return draw(value, g, mean, variance, sample)


if __name__ == "__main__":
    main().savefig("chemistry.png")
