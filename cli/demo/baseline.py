"""Baselines by counting for a network that predicts characters."""

from __future__ import annotations

import torch
from torch import Tensor

_PSEUDOCOUNT = 0.1


def unigram_bits(training: Tensor, held_out: Tensor, symbols: int) -> float:
    """Bits per character of `held_out` under the symbol frequencies of `training`."""
    counts = torch.bincount(training, minlength=symbols).double() + _PSEUDOCOUNT
    return _bits(counts / counts.sum(), held_out)


def bigram_bits(training: Tensor, held_out: Tensor, symbols: int) -> float:
    """Bits per character of `held_out` given the preceding character, by pair counts of `training`."""
    pairs = torch.bincount(training[:-1] * symbols + training[1:], minlength=symbols**2)
    counts = pairs.double().reshape(symbols, symbols) + _PSEUDOCOUNT
    probabilities = counts / counts.sum(dim=1, keepdim=True)
    return _bits(probabilities.flatten(), held_out[:-1] * symbols + held_out[1:])


def _bits(probabilities: Tensor, events: Tensor) -> float:
    return float(-probabilities[events].log2().mean())
