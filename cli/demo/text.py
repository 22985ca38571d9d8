"""Windows of a text for a network that predicts the character after each."""

from __future__ import annotations

import torch
from torch import Tensor


def windows(text: Tensor, starts: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """The `context` characters from each of `starts` on, and the next character of each.

    Returns:
        Codes of shape `(batch, context)` and `(batch,)`.
    """
    return text[starts.unsqueeze(1) + torch.arange(context)], text[starts + context]


def evenly_spaced(text: Tensor, count: int, context: int) -> Tensor:
    """Starts of `count` windows spread over the whole of `text`."""
    last = len(text) - context - 1
    return torch.linspace(0, last, count, dtype=torch.float64).long()
