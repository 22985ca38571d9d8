"""Options that are one number, or one for each system of a batch."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor


def as_numbers(name: str, given: float | Tensor) -> Tensor:
    """The numbers of an option in a row, in float64 on the host.

    Raises:
        TypeError: It is neither a number nor a tensor.
        ValueError: It is not finite.
    """
    if not isinstance(given, (Real, Tensor)):
        raise TypeError(f"{name} must be a number, a tensor or None, got {given!r}")
    numbers = torch.as_tensor(given, dtype=torch.float64).detach().cpu().flatten()
    if not bool(torch.isfinite(numbers).all()):
        raise ValueError(f"{name} must be finite, got {given!r}")
    return numbers


def for_systems(name: str, given: float | Tensor, z: Tensor) -> Tensor:
    """The numbers of an option as a column, one for each system of `z`.

    Raises:
        ValueError: There are neither one nor as many as systems.
    """
    numbers = torch.as_tensor(given, dtype=z.dtype, device=z.device).detach().flatten()
    if numbers.numel() not in (1, z.shape[0]):
        raise ValueError(
            f"{name} must have one entry for each of the {z.shape[0]} systems, or one for all, "
            f"got {numbers.numel()}"
        )
    return numbers.reshape(-1, 1).expand(z.shape[0], 1)
