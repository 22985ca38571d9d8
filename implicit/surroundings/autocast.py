"""Automatic precision, as it was at one moment, for what is evaluated later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Autocast:
    """State of `torch.autocast` on a type of device.

    Attributes:
        device_type: The type of device.
        enabled: True within `torch.autocast`.
        dtype: Dtype of operations within it.

    Examples:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     Autocast.current("cpu").enabled
        True
    """

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @staticmethod
    def current(device_type: str) -> Autocast:
        """The state at this moment."""
        return Autocast(
            device_type,
            torch.is_autocast_enabled(device_type),
            torch.get_autocast_dtype(device_type),
        )

    @property
    def is_current(self) -> bool:
        """True if this is the state at this moment."""
        return Autocast.current(self.device_type) == self

    def context(self) -> Any:
        """A context with this state."""
        return torch.autocast(self.device_type, self.dtype, self.enabled)


@contextmanager
def without_autocast() -> Iterator[None]:
    """Disable autocast: solver arithmetic must keep the dtype of its state."""
    with ExitStack() as stack:
        for device_type in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        yield
