"""Refusal to be traced: the number of iterations depends on values, which a trace does not have."""

from __future__ import annotations

import torch
from torch._C import _TorchDispatchModeKey
from torch._ops import _get_dispatch_mode_pre_dispatch

_RECORDS, _HAS_NO_VALUES = _TorchDispatchModeKey.PROXY, _TorchDispatchModeKey.FAKE


class TracingError(RuntimeError):
    """A solve was called while operations are recorded, or on tensors without values."""


def refuse_tracing(described: str) -> None:
    """Raise a `TracingError` under `torch.func.linearize`, `make_fx`, `torch.export` and fake tensors."""
    if (
        torch._C._get_dispatch_mode(_RECORDS) is not None
        or torch._C._get_dispatch_mode(_HAS_NO_VALUES) is not None
        or _get_dispatch_mode_pre_dispatch(_RECORDS) is not None
    ):
        raise TracingError(
            f"{described} cannot be solved while operations are traced (torch.func.linearize, make_fx, "
            "torch.export, fake tensors): the number of iterations depends on values, which a trace "
            "does not have. For products with the Jacobian use torch.func.jvp or torch.func.vjp, for "
            "its matrix torch.func.jacrev"
        )
