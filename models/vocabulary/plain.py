"""Plain vocabulary: one table for all tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .vocabulary import Vocabulary


class PlainVocabulary(Vocabulary):
    """Vocabulary of one table of vectors, which embeds tokens and, with a bias, predicts them.

    Args:
        size: Number of tokens.
        features: Length of a vector.
        scale: Embeddings are multiplied by it.

    Source: Press & Wolf 2017.

    Examples:
        >>> vocabulary = PlainVocabulary(10, 4)
        >>> hidden = vocabulary.embed(torch.tensor([[1, 2, 3]]))
        >>> vocabulary.log_probabilities(hidden).shape
        torch.Size([1, 3, 10])
    """

    def __init__(self, size: int, features: int, scale: float = 1.0) -> None:
        super().__init__()
        self.size, self.scale = size, scale
        self.table = nn.Parameter(nn.init.normal_(torch.empty(size, features), std=0.02))
        self.bias = nn.Parameter(torch.zeros(size))

    def all_tables(self) -> list[nn.Parameter]:
        return [self.table]

    def embed(self, tokens: Tensor) -> Tensor:
        return self.scale * nn.functional.embedding(tokens, self.table)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return self._scores(hidden).log_softmax(dim=-1)

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        scores = self._scores(hidden).flatten(0, -2)
        losses = nn.functional.cross_entropy(scores, targets.flatten().long(), reduction="none")
        return losses.reshape(targets.shape)

    def _scores(self, hidden: Tensor) -> Tensor:
        return nn.functional.linear(hidden, self.table, self.bias)
