"""Market equilibrium fitted to prices: the tastes behind sixty price lists.

Two groups of consumers trade four goods. Each group has a constant elasticity of substitution (Arrow,
Chenery, Minhas & Solow 1961) and shares of taste; its budget is the value of its harvest, which differs
in each of 60 years. Prices are implicit: `root` finds the logarithms at which no good is in excess
demand, 60 systems in one batch, with the fourth price as the unit of account.

`least_squares` fits the eight parameters to prices with one per cent of noise, through the equilibrium.
Its Jacobian `∂ log p / ∂θ` also gives the standard errors. Were both groups alike, prices would have the
closed form `(a / harvest)^(1/σ)` and logarithms a linear regression, which is then the simpler method;
and with data on purchases one would fit demand directly.
"""

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

NOISE = 0.01
# For each group: log of the elasticity, then of three tastes relative to that for the fourth good.
TRUTH = torch.tensor([[-0.5, 0.4, -0.3, 0.2], [0.7, -0.6, 0.5, 0.1]], dtype=torch.float64)


def excess_demand(log_price: Tensor, parameters: Tensor, harvest: Tensor) -> Tensor:
    """For the first three goods; the budgets clear the fourth (Walras)."""
    p = torch.nn.functional.pad(log_price, (0, 1)).exp().unsqueeze(-2)
    elasticity = parameters[:, :1].exp()
    taste = torch.softmax(torch.nn.functional.pad(parameters[:, 1:], (0, 1)), dim=-1)
    weight = taste * p**-elasticity
    demand = weight * (p * harvest).sum(-1, keepdim=True) / (p * weight).sum(-1, keepdim=True)
    return (demand - harvest).sum(-2)[..., :3]


def prices(parameters: Tensor, harvest: Tensor) -> Tensor:
    """Logarithms, `(years, 3)`."""
    start = torch.zeros(len(harvest), 3, dtype=torch.float64)
    return implicitly.root(excess_demand, start, parameters, harvest, batch_dims=1).value


def draw(observed: Tensor, fitted: Tensor, parameters: Tensor, deviation: Tensor) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    for good in range(3):
        left.plot(observed[:, good], fitted[:, good], ".", label=f"good {good + 1}")
    left.axline((0, 0), slope=1, color="0.7", linewidth=0.8)
    left.set(
        title="Logarithms of 180 prices", xlabel="observed", ylabel="at the fitted equilibrium"
    )
    left.legend()
    names = [f"$t_{{{g}{k}}}$" if k else rf"$\log\,\sigma_{g}$" for g in (1, 2) for k in range(4)]
    bars = 2 * deviation.flatten()
    right.errorbar(range(8), parameters.flatten(), bars, fmt="o", label="± 2 standard errors")
    right.plot(range(8), TRUTH.flatten(), "x", color="C1", label="true")
    right.set(title="Parameters", xticks=range(8), xticklabels=names)
    right.legend()
    return figure


def main() -> Figure:
    torch.manual_seed(0)
    harvest = torch.exp(0.6 * torch.randn(60, 2, 4, dtype=torch.float64))
    exact = prices(TRUTH, harvest)
    observed = exact + NOISE * torch.randn_like(exact)

    def misfit(parameters: Tensor) -> Tensor:
        return (prices(parameters, harvest) - observed) / NOISE

    fit = implicitly.least_squares(misfit, torch.zeros_like(TRUTH))
    J = torch.func.jacrev(misfit)(fit.value).flatten(0, 1).flatten(1)
    deviation = torch.linalg.inv(J.mT @ J).diagonal().sqrt().reshape(2, 4)
    step = 1e-5 * torch.eye(8, dtype=torch.float64).reshape(8, 2, 4)
    columns = [(misfit(fit.value + s) - misfit(fit.value - s)).flatten() / 2e-5 for s in step]
    size = misfit(fit.value).square().mean().sqrt()
    print(f"fitted in {fit.steps} steps; root mean square misfit {size:.3f} of the noise")
    apart = (torch.stack(columns, 1) - J).norm() / J.norm()
    print(f"Jacobian and central differences: {apart:.1e} apart")
    print(f"elasticities {fit.value[0, 0].exp():.3f} and {fit.value[1, 0].exp():.3f}, "
          f"true {TRUTH[0, 0].exp():.3f} and {TRUTH[1, 0].exp():.3f}")  # fmt: skip
    off = (fit.value - TRUTH).abs() / deviation
    print(f"largest error of a parameter: {off.max():.2f} standard errors")

    fitted, parameters = prices(fit.value, harvest), fit.value
    return draw(observed, fitted, parameters, deviation)


if __name__ == "__main__":
    main().savefig("market.png")
