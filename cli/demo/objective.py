"""Objective: the loss of a batch as a function of embedded inputs and parameters, and its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .gradients import Tensors
from .network import EquilibriumNetwork


@dataclass(frozen=True)
class Objective:
    """Cross entropy of a network's predictions.

    Attributes:
        network: The network with its solver and gradient mode.
        embedded: Embedded contexts, `(batch, context · embedding)`.
        following: The characters to predict, `(batch,)`.
    """

    network: EquilibriumNetwork
    embedded: Tensor
    following: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters that the loss depends on: all but those of the embedding."""
        parameters = self.network.named_parameters()
        return tuple(name for name, _ in parameters if not name.startswith("embedding."))

    @property
    def point(self) -> Tensors:
        """The embedded inputs and the parameters."""
        parameters = dict(self.network.named_parameters())
        tensors = (self.embedded, *(parameters[name] for name in self.names))
        return tuple(tensor.detach() for tensor in tensors)

    def __call__(self, at: Tensors) -> Tensor:
        """The loss with other inputs and parameters."""
        embedded, *values = at
        parameters = {
            f"network.{name}": value for name, value in zip(self.names, values, strict=True)
        }
        logits = torch.func.functional_call(_Predict(self.network), parameters, (embedded,))
        return torch.nn.functional.cross_entropy(logits, self.following)

    def gradient(self) -> Tensors:
        """The gradient at `point`, by the network's gradient mode."""
        at = tuple(tensor.clone().requires_grad_() for tensor in self.point)
        return torch.autograd.grad(self(at), at)

    @torch.no_grad()
    def noise(self) -> float:
        """Bound on the error of the loss, from the adjoint of the last `gradient`.

        To first order a residual `r` changes the loss by `uᵀr` with the adjoint `u`, by at most `‖u‖ ‖r‖`.
        Rounding of sums of `n` terms adds errors of `√n` units to the loss and to every entry of `r`.
        Errors of different systems are independent, so their squares add.
        """
        solution = self.network.equilibrium.solution
        if solution is None or not solution.adjoints:
            raise RuntimeError("noise() needs the adjoint that gradient() leaves behind")
        (adjoint,) = solution.adjoints[0].value
        u = torch.linalg.vector_norm(adjoint, dim=1)
        root = math.sqrt(adjoint.shape[1])
        unit = root * torch.finfo(u.dtype).eps
        systems = float(torch.linalg.vector_norm(u * root * (solution.residual_norm + unit)))
        return math.hypot(systems, unit * abs(float(self(self.point))))


class _Predict(torch.nn.Module):
    """`predict` as a `forward`, which `functional_call` needs."""

    def __init__(self, network: EquilibriumNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedded: Tensor) -> Tensor:
        return self.network.predict(embedded)
