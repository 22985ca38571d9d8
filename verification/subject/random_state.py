"""Random state that every call of a layer starts from."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Set the random state to that of a seed while active, and restore it afterwards."""
    # torch.manual_seed would take longer than a small layer if accelerators are not initialised.
    awake = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=awake):
        torch.set_rng_state(_state_of(seed))
        if awake:
            torch.cuda.manual_seed(seed)
        yield


@functools.lru_cache(maxsize=8)
def _state_of(seed: int) -> Tensor:
    return torch.Generator().manual_seed(seed).get_state()
