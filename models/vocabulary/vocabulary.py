"""Interface of vocabularies, which embed and predict tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Vocabulary(nn.Module, ABC):
    """A vocabulary: it embeds tokens, and predicts tokens with the same tables (Press & Wolf 2017).

    Attributes:
        size: Number of tokens.
    """

    size: int

    @abstractmethod
    def all_tables(self) -> list[nn.Parameter]:
        """The tables that embed and predict."""

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """The vectors of `tokens`, `(batch, time)`: `(batch, time, features)`."""

    @abstractmethod
    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of all tokens, `(..., size)`, from `hidden`, `(..., features)`."""

    @abstractmethod
    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Negative log-probabilities of `targets`, `(...)`, from `hidden`, `(..., features)`."""
