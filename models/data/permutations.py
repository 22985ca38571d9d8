"""Products of permutations: a task that a network of constant depth cannot solve for all lengths."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ...options.options import Options, is_integer

_LARGEST = 6


@dataclass(frozen=True)
class PermutationTracking(Options):
    """Sequences of permutations of `size` things; the target is the product of all so far.

    For five things or more the word problem is complete for NC¹ (Barrington 1989): transformers of
    constant depth do not solve it at every length, recurrences do (Merrill, Petty & Sabharwal 2024).

    Attributes:
        size: Things that are permuted, 2 to 6; the vocabulary has `size!` permutations.

    Raises:
        ValueError: `size` is out of range.

    Examples:
        >>> task = PermutationTracking(3)
        >>> tokens, targets = task.draw(1, 4, torch.Generator().manual_seed(0))
        >>> bool(targets[0, 0] == tokens[0, 0]), task.vocabulary
        (True, 6)
    """

    size: int = 5

    def __post_init__(self) -> None:
        if not (is_integer(self.size, 2) and self.size <= _LARGEST):
            raise ValueError(f"size must be an integer from 2 to {_LARGEST}, got {self.size!r}")

    @cached_property
    def permutations(self) -> Tensor:
        """All permutations in lexicographic order, `(size!, size)`."""
        return torch.tensor(list(itertools.permutations(range(self.size))))

    @property
    def vocabulary(self) -> int:
        """Number of permutations."""
        return len(self.permutations)

    def draw(self, batch: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tokens and targets, each `(batch, length)`."""
        tokens = torch.randint(self.vocabulary, (batch, length), generator=generator)
        product = torch.arange(self.size).expand(batch, self.size)
        targets = torch.empty_like(tokens)
        # Permutations as numbers in lexicographic order.
        places = self.size ** torch.arange(self.size - 1, -1, -1)
        numbers = (self.permutations * places).sum(-1)
        for time in range(length):
            product = self.permutations[tokens[:, time]].gather(1, product)
            targets[:, time] = torch.searchsorted(numbers, (product * places).sum(-1))
        return tokens, targets
