"""A stiff neural differential equation, by implicit Euler at all times at once.

A fast intermediate follows a slow substrate: `x′ = k (s² − x)` with `k = 10,000`, and `s′ = −r(x, s)`
with a rate law that a small network learns from measurements of `s`, by L-BFGS. Implicit Euler makes each
state the root of an equation, and here the whole trajectory is one implicit function: `CausalNewton`
solves for its 80 times together, by scans, for all experiments in a batch, and the adjoint is one scan
backwards. Each equation is divided by its own coefficient: residuals of very different sizes make the
solver's safeguards cut its steps.

For an equation that is not stiff an explicit method is simpler and more accurate, and torchdiffeq has
good ones. Here its `dopri5` is held to steps of the size of `1 / k`. Implicit Euler is of first order
only: with the true law its error, against SciPy's `Radau`, is larger than with the learnt one, which has
absorbed a part of it.
"""

from collections.abc import Callable

import implicitly
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torchdiffeq import odeint

FAST, STEP, TIMES = 1e4, 0.05, 80
Law = Callable[[Tensor], Tensor]


class Rate(nn.Module):
    """A positive rate law `r(x, s)`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1), nn.Softplus())

    def forward(self, state: Tensor) -> Tensor:
        return self.layers(state).squeeze(-1)


def true_rate(state: Tensor) -> Tensor:
    x, s = state.unbind(-1)
    return x * s / (0.2 + x)


def field(state: Tensor, rate: Law) -> Tensor:
    x, s = state.unbind(-1)
    return torch.stack((FAST * (s**2 - x), -rate(state)), dim=-1)


def trajectory(rate: Law, start: Tensor, guess: Tensor) -> implicitly.Solution:
    """All states after the start, `(batch, times, 2)`."""

    def miss(z: Tensor, start: Tensor) -> Tensor:
        before = torch.cat((start.unsqueeze(1), z[:, :-1]), dim=1)
        return (z - before - STEP * field(z, rate)) / z.new_tensor([1 + STEP * FAST, 1.0])

    causal = implicitly.CausalNewton(block=2)
    gradient = implicitly.Exact(solver=causal)
    return implicitly.root(miss, guess, start, solver=causal, gradient=gradient, batch_dims=1)


def reference(start: Tensor) -> Tensor:
    def rhs(t: float, y: np.ndarray) -> np.ndarray:
        return field(torch.tensor(y), true_rate).numpy()

    t = STEP * np.arange(1, TIMES + 1)
    options = {"method": "Radau", "t_eval": t, "rtol": 1e-8, "atol": 1e-10}
    runs = [solve_ivp(rhs, (0, t[-1]), y0, **options).y.T for y0 in start.numpy()]
    return torch.tensor(np.stack(runs))


def draw(learned: Tensor, exact: Tensor, rate: Rate) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    t = STEP * torch.arange(1, TIMES + 1)
    left.plot(t, learned[..., 1].mT, color="C0")
    left.plot(t[9::10], exact[:, 9::10, 1].mT, "o", color="C1")
    left.set(title="Substrate: model and measurements", xlabel="time", ylabel="s")
    s = torch.linspace(0.05, 1.5, 100, dtype=torch.float64)
    state = torch.stack((s**2, s), dim=-1)
    right.plot(s, true_rate(state), color="C1", label="true")
    right.plot(s, rate(state).detach(), color="C0", label="learnt")
    right.set(title="Rate law, where x = s²", xlabel="s", ylabel="r")
    right.legend()
    return figure


def main() -> Figure:
    torch.manual_seed(0)
    s = torch.linspace(0.3, 1.5, 6, dtype=torch.float64)
    start = torch.stack((s**2, s), dim=-1)
    exact = reference(start)
    error = (trajectory(true_rate, start, exact).value - exact)[..., 1].abs().max()
    print(f"implicit Euler with the true law: error of s at most {error:.4f}")

    rate = Rate().double()
    solution = trajectory(rate, start, start.unsqueeze(1).repeat(1, TIMES, 1))
    optimizer = torch.optim.LBFGS(rate.parameters(), max_iter=150, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        nonlocal solution
        solution = trajectory(rate, start, solution.value.detach())
        optimizer.zero_grad()
        loss = (solution.value - exact)[:, 9::10, 1].square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    learned = solution.value.detach()
    error = (learned - exact)[..., 1].abs().max()
    print(f"with the learnt law: error of s at most {error:.4f}")
    print(f"each training step: {solution.steps.max()} steps of CausalNewton, "
          f"{solution.adjoints[0].steps.max()} for the adjoint")  # fmt: skip
    calls: list[int] = []
    rate.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        tenth = torch.tensor([0.0, STEP * TIMES / 10])
        odeint(lambda t, state: field(state, rate), start, tenth, rtol=1e-4, atol=1e-4)
    print(f"dopri5 for a tenth of the time: {len(calls)} evaluations")
    return draw(learned, exact, rate)


if __name__ == "__main__":
    main().savefig("stiff.png")
