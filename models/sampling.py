"""Choice of tokens from their scores, the same for the same seed in every process."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..options.options import Options, check_integer, is_number

_STEPS_PER_NAT = 4096
"""Scores are rounded to multiples of its inverse, so that errors of rounding do not change their order."""


@dataclass(frozen=True)
class Sampling(Options):
    """Random choice of tokens in order of falling probability.

    Scores are rounded and sorted, equal ones by their number; one uniform number in float64 selects from the
    cumulative distribution. So a seed has the same tokens whatever version of Python or PyTorch computes the
    distribution, as long as no score is at an edge of rounding.

    Attributes:
        temperature: Scores are divided by it; 0 takes the most probable token.
        top_k: Number of tokens to choose from; `None` for all.
        top_p: Tokens are chosen from the fewest whose probability together is at least this; `None` for all.

    Raises:
        ValueError: A number is out of range.

    Source: Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p).

    Examples:
        >>> scores = torch.tensor([[0.1, 0.6, 0.3]]).log()
        >>> Sampling(temperature=0).choose(scores, None).tolist()
        [[1]]
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not is_number(self.temperature, 0):
            raise ValueError(f"temperature must be a finite number ≥ 0, got {self.temperature!r}")
        if self.top_k is not None:
            check_integer("top_k", self.top_k, 1)
        if self.top_p is not None and not (is_number(self.top_p, 0) and 0 < self.top_p <= 1):
            raise ValueError(f"top_p must be a number above 0 and at most 1, got {self.top_p!r}")

    def choose(self, scores: Tensor, generator: torch.Generator | None) -> Tensor:
        """A token for each row.

        Args:
            scores: Log-probabilities, `(batch, tokens)`.
            generator: Random generator; `None` for that of the scores' device.

        Returns:
            `(batch, 1)`.

        Raises:
            ValueError: A score is no number.
        """
        rounded = (scores.double() * _STEPS_PER_NAT).round() / _STEPS_PER_NAT
        if bool(rounded.isnan().any()):
            raise ValueError(
                "scores must be numbers, got NaN: the states of the model have diverged"
            )
        ordered, tokens = rounded.sort(dim=-1, descending=True, stable=True)
        if self.temperature == 0:
            return tokens[:, :1]
        probabilities = (ordered / self.temperature).softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        if self.top_k is not None:
            probabilities[:, self.top_k :] = 0
        if self.top_p is not None:
            # The most probable token has nothing before it, and stays.
            probabilities = probabilities.where(before < self.top_p, 0)
        cumulative = probabilities.cumsum(dim=-1)
        device = scores.device if generator is None else generator.device
        uniform = torch.rand(
            len(scores), 1, generator=generator, dtype=torch.float64, device=device
        )
        place = uniform.to(scores.device) * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, place, right=True)
        last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
        return tokens.gather(1, index.minimum(last))
