"""The option `compiled` of solvers, and when the arithmetic of their steps may run in compiled code."""

from __future__ import annotations

import torch
from torch import Tensor


def check_compiled(compiled: object, kind: str, compiled_kind: str) -> None:
    """Raise a `ValueError` unless the option `compiled` is a truth that fits the method's `kind`.

    Examples:
        >>> check_compiled(True, "good", "good")
        >>> check_compiled(True, "bad", "good")
        Traceback (most recent call last):
        ValueError: compiled=True is for kind='good'; leave it out for kind='bad'
    """
    if not isinstance(compiled, bool):
        raise ValueError(f"compiled must be True or False, got {compiled!r}")
    if compiled and kind != compiled_kind:
        raise ValueError(
            f"compiled=True is for kind={compiled_kind!r}; leave it out for kind={kind!r}"
        )


def runs_compiled(*tensors: Tensor) -> bool:
    """Whether compiled code may work on the memory of `tensors`, of one dtype, all of a step.

    That needs plain tensors on a CPU in float32 or float64, and that neither autograd nor a
    compiler or transform of PyTorch watches what is done to them.

    Examples:
        >>> runs_compiled(torch.zeros(2)), runs_compiled(torch.zeros(2, requires_grad=True))
        (True, False)
        >>> runs_compiled(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
        False
    """
    dtype = tensors[0].dtype
    return (
        dtype in (torch.float32, torch.float64)
        and all(
            type(tensor) is Tensor
            and tensor.dtype == dtype
            and tensor.device.type == "cpu"
            and not tensor.requires_grad
            for tensor in tensors
        )
        and not torch.compiler.is_compiling()
        and not any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))
    )
