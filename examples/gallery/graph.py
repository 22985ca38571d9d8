"""An implicit graph network: labels that are forty edges away.

Each of 60 chains has 40 nodes, and only the first node shows the class of its chain; every node must be
labelled (the chains of Gu et al. 2020, section 6). The state of a node is implicit, `Z = tanh(A Z W +
X)`: it must agree with that of its neighbour, wherever the message began. `ImplicitLayer` solves for all
2,400 nodes at once by Anderson's method. The spectral norm of `W` is kept below one, which makes the map
a contraction.

A graph convolution of three layers sees three edges. A simpler method does as well here: the mean of the
features of each connected component. A network is worth its cost where messages must be weighed on their
way.
"""

import implicitly
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

CHAINS, LENGTH, CLASSES, WIDTH = 60, 40, 3, 16
NODES = CHAINS * LENGTH


def message(Z: Tensor, X: Tensor, W: Tensor, A: Tensor) -> Tensor:
    return torch.tanh(A @ Z @ W + X)


class Equilibrium(nn.Module):
    """The state at which messages no longer change anything."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(CLASSES, WIDTH, bias=False)
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)))
        self.layer = implicitly.ImplicitLayer(message, batch_dims=0)
        self.decode = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        W = self.weight * (0.98 / torch.linalg.matrix_norm(self.weight, ord=2).clamp(min=0.98))
        X = self.encode(x)
        return self.decode(self.layer(X, W, A))


class Convolution(nn.Module):
    """Three layers of the same message, each with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(CLASSES, WIDTH, bias=False)
        self.weights = nn.ParameterList(
            nn.init.orthogonal_(torch.empty(WIDTH, WIDTH)) for _ in range(3)
        )
        self.decode = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, A: Tensor) -> Tensor:
        Z = X = self.encode(x)
        for W in self.weights:
            Z = message(Z, X, W, A)
        return self.decode(Z)


def chains() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, adjacency, labels, and the place of each node in its chain."""
    label = torch.arange(CHAINS).remainder(CLASSES).repeat_interleave(LENGTH)
    place = torch.arange(NODES).remainder(LENGTH)
    x = nn.functional.one_hot(label, CLASSES) * (place == 0).unsqueeze(1).float()
    node = torch.arange(NODES)[place > 0]
    edges = torch.stack((node, node - 1))
    size = (NODES, NODES)
    A = torch.sparse_coo_tensor(edges, torch.ones(len(node)), size, check_invariants=True)
    return x, A.coalesce(), label, place


def draw(curves: dict[str, tuple[list[float], list[float]]]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 3))
    for name, (losses, at) in curves.items():
        left.plot(losses, label=name)
        right.plot(at, label=name)
    left.set(title="Loss", xlabel="step of Adam", ylabel="cross entropy")
    right.set(title="Accuracy on new chains", xlabel="distance from the first node", ylim=(0, 1.05))
    right.legend()
    return figure


def main() -> Figure:
    torch.manual_seed(0)
    x, A, label, place = chains()
    train = torch.arange(NODES) < NODES // 3
    curves = {}
    for name, model in (("equilibrium", Equilibrium()), ("three convolutions", Convolution())):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        losses = []
        for _ in range(60):
            logit = model(x, A)
            loss = nn.functional.cross_entropy(logit[train], label[train])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        right_ones = (model(x, A).argmax(1) == label)[~train].float()
        at = [right_ones[place[~train] == distance].mean().item() for distance in range(LENGTH)]
        print(f"{name}: accuracy {right_ones.mean():.3f} on new chains, "
              f"{at[-1]:.3f} at their ends")  # fmt: skip
        curves[name] = losses, at
    return draw(curves)


if __name__ == "__main__":
    main().savefig("graph.png")
