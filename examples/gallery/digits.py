"""A classifier of handwritten digits whose only hidden layer is at equilibrium.

The features of an 8 × 8 image are implicit, `z = f(z, x)`, with the residual cell of the tutorial of
Kolter, Duvenaud & Johnson (2020): two convolutions with group normalisation. `ImplicitLayer` finds them
by Anderson's method for each image on its own terms, and differentiates the equilibrium instead of the
iterations. Training asks for a relative residual of 1e-3; with 1e-2 one seed of four ended at 94.5 %.

Beside it stand the same cell unrolled for eight steps, and a plain residual network, the cell applied
once, of as many parameters. On these digits of Alpaydin & Kaynak (1998, as shipped by scikit-learn) the
unrolled network is the simpler method and the better one: over the seeds 0 to 3 its mean accuracy is 99.0
%, beside 98.4 % at equilibrium and 98.0 % plain, in an eighth of the time of the equilibrium. For its
gradient the equilibrium keeps one application of the cell, the unrolled network eight.
"""

import time

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

CHANNELS, EPOCHS, TRAIN = 16, 8, 1200


class Cell(nn.Module):
    """The residual cell, from `z` and the injected features `x`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = (nn.GroupNorm(4, CHANNELS) for _ in range(3))
        for conv in (self.conv1, self.conv2):
            nn.init.normal_(conv.weight, std=0.01)

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        inner = self.norm1(torch.relu(self.conv1(z)))
        return self.norm3(torch.relu(z + self.norm2(x + self.conv2(inner))))


class Repeated(nn.Module):
    """The cell applied a number of times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.cell, self.times = Cell(), times

    def forward(self, x: Tensor) -> Tensor:
        z = torch.zeros_like(x)
        for _ in range(self.times):
            z = self.cell(z, x)
        return z


def equilibrium() -> implicitly.ImplicitLayer:
    loose = implicitly.Stopping(rtol=None, rtol_residual=1e-3, max_steps=50)
    gradient = implicitly.Exact(stopping=implicitly.Stopping(rtol=1e-3, max_steps=50))
    return implicitly.ImplicitLayer(Cell(), stopping=loose, gradient=gradient, on_failure="accept")


def network(hidden: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, padding=1), nn.GroupNorm(4, CHANNELS), hidden,
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16 * CHANNELS, 10),
    )  # fmt: skip


def draw(curves: dict[str, list[float]], steps: Tensor) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    for name, accuracies in curves.items():
        left.plot(range(1, EPOCHS + 1), accuracies, "o-", label=name)
    left.set(title="Accuracy on 597 test images", xlabel="epoch")
    left.legend()
    counts = torch.bincount(steps).tolist()
    right.bar(range(len(counts)), counts, color="C2")
    right.set(title="Steps to the equilibrium", xlabel="steps", ylabel="test images")
    return figure


def main() -> Figure:
    torch.manual_seed(0)
    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(y))
    x, y = x[order].float().reshape(-1, 1, 8, 8) / 8 - 1, y[order]
    curves: dict[str, list[float]] = {}
    layer = equilibrium()
    kinds = {"plain": Repeated(1), "unrolled": Repeated(8), "equilibrium": layer}
    for name, hidden in kinds.items():
        model = network(hidden)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
        begin = time.process_time()
        curves[name] = accuracies = []
        for _ in range(EPOCHS):
            for batch in torch.randperm(TRAIN).split(100):
                loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                found = model(x[TRAIN:]).argmax(1)
            accuracies.append((found == y[TRAIN:]).float().mean().item())
        print(f"{name}: test accuracy {accuracies[-1]:.3f}, {time.process_time() - begin:.1f} s")
    solution: implicitly.Solution = layer.solution  # type: ignore[assignment]
    print(f"{sum(p.numel() for p in model.parameters())} parameters each")
    print(f"equilibria of the test images: {solution.steps.float().mean():.1f} steps, "
          f"{solution.converged.float().mean():.1%} converged")  # fmt: skip
    return draw(curves, solution.steps)


if __name__ == "__main__":
    main().savefig("digits.png")
