"""The option `compiled` of solvers, and the conditions for running a step in compiled code."""

from __future__ import annotations

import torch
from torch import Tensor


def check_compiled(compiled: object, kind: str, compiled_kind: str) -> None:
    """Raise a `ValueError` unless `compiled` is a truth value that fits the method's `kind`.

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
    """True if compiled code may work on the memory of `tensors`, the inputs of one step.

    They must be plain tensors of one dtype, float32 or float64, on a CPU, outside of autograd, of
    `torch.compile` and of the transforms of `torch.func`.

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
