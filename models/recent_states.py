"""States of recent tokens, as starts of the solves of later ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ..options.options import check_integer

# An odd multiplier of polynomial hashes modulo 2⁶⁴ (Knuth, volume 3, section 6.4: the golden ratio).
_MULTIPLIER = 0x9E3779B97F4A7C15 - 2**64


class RecentStates:
    """The last state of each sequence of a few tokens, as a start where these tokens come again.

    The state of a token is looked up by itself and the tokens before it: by `tokens` of them, else by one
    less, down to the token alone. Tokens that have not been seen start at zero. A start depends on tokens
    up to its own and on earlier passes, so the past does not depend on the future.

    The solution is the same up to its tolerance. Where a solve ends at a limit on iterations, its result
    depends on the passes before it; so this is no option of training, whose runs continue to the last bit.

    Args:
        tokens: Largest number of tokens that agree.
        entries: States that are kept for each number of tokens; later ones replace those in their place.

    Raises:
        ValueError: An option is not an integer ≥ 1.

    Source: this package's. N-grams of recent text as a cache: Kuhn & De Mori 1990.

    Examples:
        >>> recent = RecentStates(tokens=2, entries=101)
        >>> seen, states = torch.tensor([[5, 7, 7]]), torch.tensor([[[1.0], [2.0], [3.0]]])
        >>> recent.keep(seen, states)
        >>> recent.start(torch.tensor([[4, 7, 7, 5]])).flatten().tolist()
        [0.0, 3.0, 3.0, 1.0]
    """

    def __init__(self, tokens: int = 3, entries: int = 65_537) -> None:
        check_integer("tokens", tokens, 1)
        check_integer("entries", entries, 1)
        self.tokens, self.entries = tokens, entries
        self._hashes: Tensor | None = None
        self._states: Tensor | None = None

    def start(self, tokens: Tensor) -> Tensor | None:
        """Starts for `tokens`, `(batch, time, state)`; `None` before any states have been kept.

        Args:
            tokens: `(batch, time)`, integers.
        """
        if self._states is None or self._hashes is None:
            return None
        found = self._states.new_zeros(*tokens.shape, self._states.shape[2])
        for place, own in enumerate(self._hashed(tokens)):
            slot = own.remainder(self.entries)
            same = (own != 0) & (self._hashes[place][slot] == own)
            found = torch.where(same.unsqueeze(2), self._states[place][slot], found)
        return found

    @torch.no_grad()
    def keep(self, tokens: Tensor, states: Tensor) -> None:
        """Keep the states of a pass.

        Args:
            tokens: `(batch, time)`, integers.
            states: Their states, `(batch, time, state)`; see `Output.states`.
        """
        if self._states is None or self._hashes is None:
            self._states = states.new_zeros(self.tokens, self.entries, states.shape[2])
            self._hashes = tokens.new_zeros(self.tokens, self.entries, dtype=torch.int64)
        rows = states.detach().flatten(0, 1)
        for place, hashed in enumerate(self._hashed(tokens)):
            own = hashed.flatten()
            slot = own.remainder(self.entries)
            # Of several in one place the last, on every device.
            last = slot.new_full((self.entries,), -1)
            last.scatter_reduce_(0, slot, torch.arange(len(slot), device=slot.device), "amax")
            taken = last[last >= 0]
            self._hashes[place, slot[taken]] = own[taken]
            self._states[place, slot[taken]] = rows[taken]

    def _hashed(self, tokens: Tensor) -> list[Tensor]:
        """Hashes of the last 1, 2, … tokens of each token; 0 where there are not so many."""
        found, factor = [torch.zeros_like(tokens, dtype=torch.int64)], 1
        for back in range(self.tokens):
            before = torch.zeros_like(found[0])
            before[:, back:] = tokens[:, : tokens.shape[1] - back] + 1
            value = found[-1] + before * factor
            found.append(torch.where(before > 0, value, 0))
            factor = (factor * _MULTIPLIER + 2**63) % 2**64 - 2**63  # As int64 overflows.
        return found[1:]
