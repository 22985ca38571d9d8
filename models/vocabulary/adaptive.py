"""Adaptive vocabulary: clusters of tokens by frequency, with short vectors for rare tokens."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from .vocabulary import Vocabulary


class AdaptiveVocabulary(Vocabulary):
    """Vocabulary of clusters, the frequent tokens first; vectors shorten by `divisor` with each cluster.

    The first cluster and one entry for each further cluster share a softmax; the tokens of a further
    cluster have their own softmax, which is computed only for targets in it:
    `log p(token) = log p(cluster) + log p(token | cluster)`. Vectors embed and predict alike, as do the
    projections between their length and the model's features.

    Args:
        size: Number of tokens, in order of falling frequency.
        features: Features of the model.
        cutoffs: First tokens of the second, third, ... cluster.
        table: Length of the vectors of the first cluster; `None` for `features`.
        divisor: Vectors of cluster `i` have the length `table // divisor^i`, at least 1.
        scale: Embeddings are multiplied by it.

    Raises:
        TypeError: Cutoffs are not a tuple.
        ValueError: Cutoffs do not rise between 0 and `size`.

    Source: Grave et al. 2017 (adaptive softmax); Baevski & Auli 2019 (adaptive inputs, tied); Dai et
    al. 2019 (as in Transformer-XL).

    Examples:
        >>> vocabulary = AdaptiveVocabulary(100, 8, cutoffs=(20, 50), divisor=2)
        >>> hidden = vocabulary.embed(torch.tensor([[1, 30, 99]]))
        >>> bool(vocabulary.log_probabilities(hidden).exp().sum(-1).allclose(torch.ones(1, 3)))
        True
    """

    def __init__(
        self,
        size: int,
        features: int,
        cutoffs: tuple[int, ...],
        table: int | None = None,
        divisor: int = 1,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        check_cutoffs(cutoffs, size)
        self.size, self.features, self.scale = size, features, scale
        self.starts, self.ends = (0, *cutoffs), (*cutoffs, size)
        table = features if table is None else table
        lengths = [max(table // divisor**i, 1) for i in range(len(self.starts))]
        self.tables = nn.ParameterList(
            nn.init.normal_(torch.empty(end - start, length), std=0.02)
            for start, end, length in zip(self.starts, self.ends, lengths, strict=True)
        )
        projected = divisor > 1 or table != features
        self.projections = nn.ParameterList(
            nn.init.normal_(torch.empty(features, length), std=0.01)
            for length in lengths
            if projected
        )
        self.biases = nn.ParameterList(
            torch.zeros(end - start) for start, end in zip(self.starts, self.ends, strict=True)
        )
        self.cluster_table = nn.Parameter(torch.zeros(len(cutoffs), lengths[0]))
        self.cluster_bias = nn.Parameter(torch.zeros(len(cutoffs)))

    def all_tables(self) -> list[nn.Parameter]:
        return list(self.tables)

    def embed(self, tokens: Tensor) -> Tensor:
        flat = tokens.flatten()
        parts, places = [], []
        for i, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            place = ((flat >= start) & (flat < end)).nonzero().squeeze(1)
            vectors = nn.functional.embedding(flat[place] - start, self.tables[i])
            if self.projections:
                vectors = nn.functional.linear(vectors, self.projections[i])
            parts.append(vectors)
            places.append(place)
        order = torch.cat(places).argsort()
        return (self.scale * torch.cat(parts)[order]).reshape(*tokens.shape, self.features)

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        first = self._first(hidden)
        rest = [
            self._within(i, hidden) + first[..., self.ends[0] + i - 1].unsqueeze(-1)
            for i in range(1, len(self.starts))
        ]
        return torch.cat((first[..., : self.ends[0]], *rest), dim=-1)

    def losses(self, hidden: Tensor, targets: Tensor) -> Tensor:
        rows, wanted = hidden.flatten(0, -2), targets.flatten().long()
        entry = wanted.clone()
        parts = []
        for i in range(1, len(self.starts)):
            place = ((wanted >= self.starts[i]) & (wanted < self.ends[i])).nonzero().squeeze(1)
            if len(place) == 0:
                continue
            entry[place] = self.ends[0] + i - 1
            column = (wanted[place] - self.starts[i]).unsqueeze(1)
            parts.append((place, self._within(i, rows[place]).gather(1, column).squeeze(1)))
        found = self._first(rows).gather(1, entry.unsqueeze(1)).squeeze(1)
        for place, chosen in parts:
            found = found.index_add(0, place, chosen.to(found.dtype))
        return -found.reshape(targets.shape)

    def _first(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of the first cluster's tokens and of the further clusters."""
        table = torch.cat((self.tables[0], self.cluster_table))
        bias = torch.cat((self.biases[0], self.cluster_bias))
        return nn.functional.linear(self._projected(0, hidden), table, bias).log_softmax(dim=-1)

    def _within(self, cluster: int, hidden: Tensor) -> Tensor:
        """Log-probabilities of a further cluster's tokens, given the cluster."""
        scores = nn.functional.linear(
            self._projected(cluster, hidden), self.tables[cluster], self.biases[cluster]
        )
        return scores.log_softmax(dim=-1)

    def _projected(self, cluster: int, hidden: Tensor) -> Tensor:
        return hidden @ self.projections[cluster] if self.projections else hidden


def check_cutoffs(cutoffs: object, size: int) -> None:
    """Raise an error unless cutoffs are a tuple that rises strictly between 0 and `size`."""
    if not isinstance(cutoffs, tuple):
        raise TypeError(f"cutoffs must be a tuple of integers, got {cutoffs!r}")
    if not cutoffs or any(a >= b for a, b in pairwise((0, *cutoffs, size))):
        raise ValueError(
            f"cutoffs must rise strictly between 0 and the vocabulary's size {size}, got {cutoffs!r}"
        )
