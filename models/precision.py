"""Automatic precision of a pass, kept for what is evaluated after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Precision:
    """State of `torch.autocast` on a type of device.

    Attributes:
        device: The type of device.
        enabled: True within `torch.autocast`.
        dtype: Dtype of operations within it.

    Examples:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     Precision.current("cpu").enabled
        True
    """

    device: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def current(device: str) -> Precision:
        """The state at this moment."""
        return Precision(
            device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        )

    def context(self) -> Any:
        """A context with this state."""
        return torch.autocast(self.device, self.dtype, self.enabled)
