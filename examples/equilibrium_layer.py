"""Train a classifier whose hidden layer is an equilibrium, on two interleaved spirals.

The hidden state solves `z = tanh(W z + U x + b)`. Keeping `‖W‖₂` below one makes the map a contraction
with exactly one equilibrium; `W` is scaled once per call and passed as an argument.
"""

import implicitly
import torch
from torch import Tensor, nn


def cell(z: Tensor, x: Tensor, W: Tensor) -> Tensor:
    return torch.tanh(z @ W.mT + x)


class SpiralClassifier(nn.Module):
    """Linear encoder, equilibrium, linear decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = nn.Linear(2, width)
        self.weight = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.equilibrium = implicitly.ImplicitLayer(cell)
        self.decode = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        W = self.weight * (0.95 / torch.linalg.matrix_norm(self.weight, ord=2).clamp(min=0.95))
        return self.decode(self.equilibrium(self.encode(x), W)).squeeze(1)


def spirals(count: int) -> tuple[Tensor, Tensor]:
    angle = torch.linspace(0.5, 7.0, count)
    arm = torch.stack((angle * torch.cos(angle), angle * torch.sin(angle)), dim=1) / 3.5
    points = torch.cat((arm, -arm)) + 0.05 * torch.randn(2 * count, 2)
    return points, torch.arange(2 * count).ge(count).float()


def main() -> None:
    torch.manual_seed(0)
    x, label = spirals(80)
    model = SpiralClassifier(width=24)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(1, 101):
        logit = model(x)
        loss = nn.functional.binary_cross_entropy_with_logits(logit, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        solution = model.equilibrium.solution
        if step % 25 == 0 and solution is not None:
            accuracy = ((logit > 0) == label.bool()).float().mean()
            print(
                f"step {step}: loss {loss:.3f}, accuracy {accuracy:.3f}, evaluations "
                f"{solution.evaluations} forward and {solution.adjoints[0].evaluations} backward"
            )


if __name__ == "__main__":
    main()
