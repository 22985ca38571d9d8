"""Linear maps with normalised weights, `w = g v / ‖v‖` for each row.

The weight is formed once in a forward pass and passed to the equation as an argument. It is not cached, so
copies and loaded states cannot be stale.

Source: Salimans & Kingma 2016.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def linear(
    inputs: int, outputs: int, *, bias: bool, normalised: bool, deviation: float | None
) -> nn.Linear:
    """A linear map with random weights and a bias of zeros at the start.

    Args:
        inputs: Number of input features.
        outputs: Number of output features.
        bias: True for a bias.
        normalised: True to parametrise rows by direction and length.
        deviation: Standard deviation of normal weights; `None` for uniform ones, `U(±1/√inputs)`.

    Examples:
        >>> layer = linear(3, 5, bias=True, normalised=True, deviation=0.02)
        >>> [tuple(p.shape) for p in layer.parameters()]
        [(5,), (5, 1), (5, 3)]
    """
    layer = nn.Linear(inputs, outputs, bias=bias)
    if deviation is None:
        nn.init.uniform_(layer.weight, -(inputs**-0.5), inputs**-0.5)
    else:
        nn.init.normal_(layer.weight, std=deviation)
    if bias:
        nn.init.zeros_(layer.bias)
    if normalised:
        parametrizations.weight_norm(layer, "weight", dim=0)
    return layer


def weight_of(layer: nn.Linear, dropout: float = 0.0, training: bool = False) -> Tensor:
    """The weight of a `linear`, with a share of the entries of its directions dropped in training.

    Source of dropping weights: Wan et al. 2013; Merity et al. 2018 (weights of a recurrence).
    """
    if dropout == 0 or not training:
        return layer.weight
    normalisation: Any = getattr(layer, "parametrizations", None)
    if normalisation is None:
        return nn.functional.dropout(layer.weight, dropout)
    length, direction = normalisation.weight.original0, normalisation.weight.original1
    return torch._weight_norm(nn.functional.dropout(direction, dropout), length, 0)
