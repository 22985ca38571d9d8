"""Optimal transport: the preferences behind a list of matches.

Sixty workers and sixty firms have two traits each. Worker `x` and firm `y` gain `xᵀAy` from each other,
and matches follow entropic optimal transport with the cost `−xᵀAy` (Dupuy & Galichon 2014). The plan is
implicit: its potential is the fixed point of Sinkhorn's sweep, which `fixed_point` finds by Anderson's
method.

`minimise` finds `A` from 2,000 matches by maximum likelihood, through the fixed point, and the Hessian
there gives standard errors. For the likelihood alone a simpler method does as well: its gradient is the
difference of the expected and the observed mean of `xyᵀ`, which checks the derivative here. Other
functions of the plan have no such formula: the correlation of the first traits of partners gets its
standard error from the implicit derivative.
"""

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

SIZE, MATCHES = 60, 2000
TRUTH = torch.tensor([[1.5, -0.5], [0.3, 0.8]], dtype=torch.float64)


def plan(A: Tensor, x: Tensor, y: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Probabilities of the pairs, `(workers, firms)`, with the given masses of each."""
    cost = -x @ A @ y.mT
    start = torch.zeros_like(columns)
    z = implicitly.fixed_point(implicitly.sinkhorn, start, cost, rows, columns, 1.0).value
    return implicitly.transport_plan(z, cost, rows, 1.0)


def draw(ordered: Tensor, A: Tensor, deviation: Tensor) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    left.imshow(ordered.sqrt().numpy(), cmap="PuBu")
    left.set(title="Matches, by first trait", xlabel="firm", ylabel="worker")
    left.grid(False)
    names = ["$A_{11}$", "$A_{12}$", "$A_{21}$", "$A_{22}$"]
    right.errorbar(
        names, A.flatten(), 2 * deviation.flatten(), fmt="o", label="± 2 standard errors"
    )
    right.plot(names, TRUTH.flatten(), "x", color="C1", label="true")
    right.set(title="Gain from each pair of traits")
    right.legend()
    return figure


def main() -> Figure:
    torch.manual_seed(0)
    x, y = torch.randn(2, SIZE, 2, dtype=torch.float64)
    even = torch.full((SIZE,), 1 / SIZE, dtype=torch.float64)
    exact = plan(TRUTH, x, y, even, even)
    pairs = torch.multinomial(exact.flatten(), MATCHES, replacement=True)
    observed = torch.bincount(pairs, minlength=SIZE**2).reshape(SIZE, SIZE).double() / MATCHES
    data = (x, y, observed.sum(1), observed.sum(0))

    def loss(A: Tensor) -> Tensor:
        return -(observed * plan(A, *data).log()).sum()

    def correlation(A: Tensor) -> Tensor:
        a, b = (trait[:, 0] - trait[:, 0].mean() for trait in (x, y))
        return a @ plan(A, x, y, even, even) @ b / (a.square().mean() * b.square().mean()).sqrt()

    fit = implicitly.minimise(loss, torch.zeros_like(TRUTH))
    A = fit.value
    half = TRUTH / 2
    error = torch.func.grad(loss)(half) - x.mT @ (plan(half, *data) - observed) @ y
    print(f"gradient and its closed form: {error.abs().max():.1e} apart")
    covariance = torch.linalg.inv(MATCHES * torch.func.hessian(loss)(A).reshape(4, 4))
    deviation = covariance.diagonal().sqrt().reshape(2, 2)
    off = (A - TRUTH) / deviation
    print(f"fitted in {fit.steps} steps; largest error {off.abs().max():.2f} standard errors")
    g = torch.func.grad(correlation)(A).flatten()
    print(f"correlation of the first traits {correlation(A):.3f} ± {(g @ covariance @ g).sqrt():.3f}, "
          f"true {correlation(TRUTH):.3f}")  # fmt: skip

    steps = 1e-5 * torch.eye(4, dtype=torch.float64).reshape(4, 2, 2)
    around = torch.stack([correlation(A + step) - correlation(A - step) for step in steps])
    print(f"its derivative and central differences: {(g - around / 2e-5).abs().max():.1e} apart")
    ordered = plan(A, *data)[x[:, 0].argsort()][:, y[:, 0].argsort()]
    return draw(ordered, A, deviation)


if __name__ == "__main__":
    main().savefig("matching.png")
