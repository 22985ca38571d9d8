"""Copy memory task: recall ten digits after a long blank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...options.options import Options, check_integer

BLANK, DELIMITER = 0, 9
SYMBOLS = 10
DIGITS = 10


@dataclass(frozen=True)
class CopyMemory(Options):
    """Sequences of `delay + 20` symbols; the first ten digits must be repeated at the end.

    A sequence has ten digits from 1 to 8, `delay − 1` blanks, and eleven delimiters, symbol 9. Targets are
    blank at first, and the digits from the first delimiter on.

    Attributes:
        delay: `T`, at least 1.

    Raises:
        ValueError: `delay` is not an integer ≥ 1.

    Source: Hochreiter & Schmidhuber 1997; in this form Bai, Kolter & Koltun 2018, section 5.

    Examples:
        >>> task = CopyMemory(delay=5)
        >>> tokens, targets = task.draw(2, torch.Generator().manual_seed(0))
        >>> tokens.shape, bool((targets[:, -10:] == tokens[:, :10]).all())
        (torch.Size([2, 25]), True)
    """

    delay: int

    def __post_init__(self) -> None:
        check_integer("delay", self.delay, 1)

    @property
    def length(self) -> int:
        """Symbols of a sequence."""
        return self.delay + 2 * DIGITS

    @property
    def memoryless_loss(self) -> float:
        """The mean loss of a model that knows when to answer but guesses: `10 ln 8 / (T + 20)`."""
        return DIGITS * math.log(8) / self.length

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Tokens and targets, each `(batch, delay + 20)`."""
        return self.sequences(self.digits(batch, generator))

    def digits(self, count: int, generator: torch.Generator) -> Tensor:
        """The digits to recall, `(count, 10)`."""
        return torch.randint(1, 9, (count, DIGITS), generator=generator)

    def sequences(self, digits: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and targets of some digits, each `(count, delay + 20)`."""
        tokens = torch.full((len(digits), self.length), BLANK)
        tokens[:, :DIGITS] = digits
        tokens[:, -DIGITS - 1 :] = DELIMITER
        targets = torch.full_like(tokens, BLANK)
        targets[:, -DIGITS:] = digits
        return tokens, targets
