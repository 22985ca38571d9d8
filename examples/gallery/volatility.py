"""Implied volatility of ten thousand options, and how far a rounded price moves it.

The price of a call is a formula in the volatility (Black & Scholes 1973); the volatility that a price
implies is the root of that formula. Prices here come from a skewed smile and are rounded to cents, as a
market quotes them. `root` with `batch_dims=1` solves for each option as a system of its own.

Simpler methods come first: SciPy's `brentq`, one option after another, and a vectorised Newton iteration,
since the slope of the price, the vega, is known. For the values alone they are all that is needed, and
`brentq` is faster; it checks them here. The implicit derivative is one over the vega, which checks the
gradient, and needs no formula: it stays right for a price with dividends, or for one that a program
computes. It tells how far half a cent moves the volatility, without a second solve.
"""

import math
import time

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

SPOT = 100.0
NORMAL = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)


def price(volatility: Tensor, strike: Tensor, years: Tensor) -> Tensor:
    """Of a call without interest."""
    spread = volatility * years.sqrt()
    d = (SPOT / strike).log() / spread + spread / 2
    return SPOT * torch.special.ndtr(d) - strike * torch.special.ndtr(d - spread)


def miss(volatility: Tensor, quote: Tensor, strike: Tensor, years: Tensor) -> Tensor:
    return price(volatility, strike, years) - quote


def one_by_one(quote: float, strike: float, years: float) -> float:
    def f(volatility: float) -> float:
        spread = volatility * years**0.5
        d = math.log(SPOT / strike) / spread + spread / 2
        return SPOT * ndtr(d) - strike * ndtr(d - spread) - quote

    return brentq(f, 0.01, 2.0, xtol=1e-13)


def draw(strike: Tensor, years: Tensor, implied: Tensor, error: Tensor) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    for place in (0, 30, 99):
        rows = slice(100 * place, 100 * place + 100)
        label = f"{years[rows][0]:.2f} years"
        left.plot(strike[rows], implied[rows], label=label)
        right.semilogy(strike[rows], error[rows], label=label)
    left.set(title="Implied volatility, from prices in cents", xlabel="strike")
    right.set(title="Error from half a cent", xlabel="strike")
    right.legend()
    return figure


def main() -> Figure:
    grid = torch.linspace(0.25, 2, 100, dtype=torch.float64)
    strike = torch.linspace(80, 125, 100, dtype=torch.float64).repeat(100)
    years = grid.repeat_interleave(100)
    moneyness = (strike / SPOT).log()
    true = 0.25 - 0.15 * moneyness + 0.3 * moneyness**2
    exact = price(true, strike, years)
    quote = (100 * exact).round() / 100
    quote.requires_grad_()
    start = torch.full_like(strike, 0.25)

    begin = time.perf_counter()
    implied = implicitly.root(miss, start, quote, strike, years, batch_dims=1).value
    (slope,) = torch.autograd.grad(implied.sum(), quote)
    seconds = time.perf_counter() - begin
    implied = implied.detach()
    print(f"{len(implied)} options with derivatives in {seconds:.1f} s")
    d = (SPOT / strike).log() / (implied * years.sqrt()) + implied * years.sqrt() / 2
    vega = SPOT * years.sqrt() * NORMAL.log_prob(d).exp()
    print(f"derivative times vega: within {(slope * vega - 1).abs().max():.1e} of one")

    begin = time.perf_counter()
    some = torch.arange(0, len(implied), 50)
    rows = torch.stack((quote.detach(), strike, years), dim=1)[some].tolist()
    each = torch.tensor([one_by_one(*row) for row in rows], dtype=torch.float64)
    seconds = time.perf_counter() - begin
    print(f"brentq: {seconds / len(some) * len(implied):.1f} s for as many, without derivatives; "
          f"largest difference {(each - implied[some]).abs().max():.1e}")  # fmt: skip
    explained = (implied - true).abs() <= 1.05 * 0.005 * slope
    print(f"{explained.float().mean():.1%} within the error that half a cent explains")
    return draw(strike, years, implied, 0.005 * slope)


if __name__ == "__main__":
    main().savefig("volatility.png")
