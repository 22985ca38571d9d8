"""Refusal to be traced, and of code that transforms do not reach.

The number of iterations depends on values, which a trace does not have.
"""

from __future__ import annotations

import re

import torch
from torch._C import _TorchDispatchModeKey
from torch._ops import _get_dispatch_mode_pre_dispatch

from ..equations.differentiation import transforming

_RECORDS, _HAS_NO_VALUES = _TorchDispatchModeKey.PROXY, _TorchDispatchModeKey.FAKE


# Parts of PyTorch's messages where a transform meets what it cannot transform, and the way out.
_BEYOND_TRANSFORMS = {
    r"TorchScript interpreter": "TorchScript code; give the module itself for torch.jit.script(module)",
    r"[Ss]parse": "sparse tensors; make them dense, S.to_dense(), or take derivatives by autograd "
    "(backward(), torch.autograd.grad)",
    r"mutate a captured Tensor|[Bb]atch norm got a batched tensor": "buffers that change when it is called "
    "(batch statistics); call layer.eval(), or keep no statistics (track_running_stats=False)",
    r"randomness error mode": "random numbers, unless their part is chosen: torch.vmap(..., "
    "randomness='same'), torch.func.jacfwd(..., randomness='same')",
    r"saved tensor hooks": "checkpoints or other hooks on saved tensors; take derivatives by autograd "
    "(backward(), torch.autograd.grad)",
}


class TracingError(RuntimeError):
    """A solve cannot be traced or transformed: operations are recorded, or out of reach of a transform."""


def refuse_tracing(described: str) -> None:
    """Raise a `TracingError` where operations are recorded or tensors have no values.

    So under `torch.func.linearize`, `make_fx`, `torch.export`, fake tensors and `torch.jit.trace`.
    """
    if torch._C._get_tracing_state() is not None:
        raise TracingError(
            f"{described} cannot be solved under torch.jit.trace (nor under torch.onnx.export(dynamo=False), "
            "which uses it): the trace would keep the number of iterations of this input for all others. "
            "torch.export takes an ImplicitLayer, and torch.compile too"
        )
    if (
        torch._C._get_dispatch_mode(_RECORDS) is not None
        or torch._C._get_dispatch_mode(_HAS_NO_VALUES) is not None
        or _get_dispatch_mode_pre_dispatch(_RECORDS) is not None
    ):
        raise TracingError(
            f"{described} cannot be solved while operations are traced (torch.func.linearize, make_fx, "
            "torch.export, fake tensors): the number of iterations depends on values, which a trace "
            "does not have. For products with the Jacobian use torch.func.jvp or torch.func.vjp, for "
            "its matrix torch.func.jacrev; torch.export takes an ImplicitLayer"
        )


def explain_transforms(described: str, error: Exception) -> None:
    """Raise a `TracingError` in place of `error` where `torch.func` does not reach code of the function."""
    if not transforming():
        return
    for pattern, what in _BEYOND_TRANSFORMS.items():
        if re.search(pattern, str(error)):
            message = f"{described} uses what torch.func transforms do not reach: {what}"
            raise TracingError(message) from error
